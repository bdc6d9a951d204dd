/* test_service.c - the worker's side of the protocol, over the loop channel.
 * In:   frames of a coordinator played by the test.      Out: hello, ready, reports, results; ends.
 * Owns: threads of workers, channel, groups.
 * Why:  a frame out of order, of another epoch or broken must end the worker by name, and stop must end it
 * well. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "model/workspace.h"
#include "proto/plan_shape.h"
#include "tests/support/runner.h"
#include "tests/support/worker_rig.h"
#include "worker/service.h"

enum { RANKS = 2, ROOM = DR_FRAME_HEADER + DR_MPI_FRAME_MAX };
static const uint64_t EPOCH = 0xabcdef;

struct cluster;

struct rank {
    struct cluster *cluster;
    int32_t number;
    struct dr_channel *channel;
    struct dr_group *stage;
    pthread_t thread;
    dr_status st;
    bool served;
    char text[1024];
};

struct cluster {
    struct dr_config config;
    struct dr_tensors *tensors;
    struct dr_layout layout;
    const struct dr_ops *ops;
    struct rank rank[RANKS];
    struct dr_channel *channel; /* end 0 */
    struct dr_arena arena, scratch;
    uint8_t *in, *out;
    uint64_t step;
};

static dr_status live(struct rank *k, struct dr_stream *stream, struct dr_service **s) {
    struct cluster *c = k->cluster;
    struct dr_service_setup setup = {.config = &c->config,
                                     .tensors = c->tensors,
                                     .layout = &c->layout,
                                     .channel = k->channel,
                                     .ops = c->ops,
                                     .stream = stream,
                                     .epoch = EPOCH,
                                     .deadline_scale = 1};
    struct dr_service_groups groups = {.stage = k->stage, .cache = k->stage};
    bool go = false;
    int32_t place = -1, peers = -1;
    groups.cache = NULL;
    DR_TRY(dr_service_create(&setup, s));
    DR_TRY(dr_service_join(*s, &go, &place, &peers));
    if (!go) return dr_ok();
    DR_TRY(dr_service_load(*s, &groups));
    k->served = true;
    return dr_service_serve(*s);
}

static void *run(void *arg) {
    struct rank *k = arg;
    struct dr_service *s = NULL;
    struct dr_stream stream = {.team = NULL};
    if (dr_team_create(1, &stream.team).code != DR_OK) return NULL;
    k->st = live(k, &stream, &s);
    if (k->st.code != DR_OK) {
        dr_service_tell(k->channel, EPOCH, k->st);
        (void)snprintf(k->text, sizeof k->text, "%s", dr_error_text());
        dr_group_loop_break(k->stage);
    }
    dr_service_destroy(s);
    dr_team_destroy(stream.team);
    return NULL;
}

static void start(struct cluster *c) {
    struct dr_layout_wish wish = rig_wish(RANKS, 1, 1, DR_EXPERTS_COLUMNS);
    struct dr_channel *channel[RANKS + 1];
    struct dr_group *group[RANKS];
    *c = (struct cluster){0};
    CU_ASSERT_FATAL(dr_config_load(DR_TESTS_DIR "/golden/v3-bf16", &c->config).code == DR_OK);
    CU_ASSERT_FATAL(dr_tensors_open(DR_TESTS_DIR "/golden/v3-bf16", &c->config, &c->tensors).code == DR_OK);
    CU_ASSERT_FATAL(dr_layout_make(&c->config, &wish, &c->layout).code == DR_OK);
    CU_ASSERT_FATAL(dr_ops_cpu(&c->ops).code == DR_OK);
    CU_ASSERT_FATAL(dr_channel_loop_create(RANKS + 1, channel).code == DR_OK);
    CU_ASSERT_FATAL(
        dr_group_loop_create(RANKS, dr_workspace_collective_bytes(&c->config, &c->layout, 0), group).code ==
        DR_OK);
    CU_ASSERT_FATAL(dr_arena_init(&c->arena, 8 << 20).code == DR_OK &&
                    dr_arena_init(&c->scratch, 8 << 20).code == DR_OK);
    c->in = malloc(ROOM);
    c->out = malloc(ROOM);
    c->channel = channel[0];
    for (int32_t i = 0; i < RANKS; i++) {
        c->rank[i] = (struct rank){.cluster = c, .number = i, .channel = channel[i + 1], .stage = group[i]};
        CU_ASSERT_FATAL(pthread_create(&c->rank[i].thread, NULL, run, &c->rank[i]) == 0);
    }
}

/* Waits for the workers' ends. */
static void finish(struct cluster *c) {
    for (int32_t i = 0; i < RANKS; i++) (void)pthread_join(c->rank[i].thread, NULL);
    for (int32_t i = 0; i < RANKS; i++) {
        dr_channel_destroy(c->rank[i].channel);
        dr_group_destroy(c->rank[i].stage);
    }
    dr_channel_destroy(c->channel);
    dr_tensors_destroy(c->tensors);
    dr_arena_fini(&c->arena);
    dr_arena_fini(&c->scratch);
    free(c->in);
    free(c->out);
}

/* The next frame of this type from `rank`; beats, progress and other ranks' frames are passed over. False
 * after 20 s. */
static bool hear(struct cluster *c, int32_t rank, enum dr_msg type, struct dr_frame *f) {
    uint64_t end = dr_clock_ns() + 20000000000u;
    while (dr_clock_ns() < end) {
        int32_t from = 0;
        size_t bytes = 0;
        dr_status st = dr_channel_recv(c->channel, c->in, ROOM, end, &from, &bytes);
        if (st.code != DR_OK) return false;
        if (bytes == 0 || dr_frame_read(c->in, DR_MPI_FRAME_MAX, f).code != DR_OK) continue;
        if (f->type == type && (rank < 0 || from == rank + 1)) return true;
    }
    return false;
}

static void send_all(struct cluster *c, size_t bytes) {
    for (int32_t i = 0; i < RANKS; i++)
        CU_ASSERT(dr_channel_send(c->channel, i + 1, c->out, bytes).code == DR_OK);
}

static void send_word(struct cluster *c, enum dr_msg type, uint64_t epoch) {
    size_t bytes = 0;
    CU_ASSERT_FATAL(dr_encode_word(type, epoch, 0, c->out, ROOM, &bytes).code == DR_OK);
    send_all(c, bytes);
}

static void send_start(struct cluster *c, int32_t n_rank) {
    static const int32_t place[] = {0, 1, 2, 3, 4, 5, 6, 7}, peers[] = {8, 8, 8, 8, 8, 8, 8, 8};
    struct dr_start s = {.n_rank = n_rank, .place = place, .peers = peers};
    size_t bytes = 0;
    CU_ASSERT_FATAL(dr_encode_start(&s, EPOCH, &c->scratch, c->out, ROOM, &bytes).code == DR_OK);
    send_all(c, bytes);
}

/* Hellos, start, readies. */
static void bring_up(struct cluster *c) {
    struct dr_frame f;
    struct dr_hello hello;
    struct dr_ready ready;
    for (int32_t i = 0; i < RANKS; i++) {
        CU_ASSERT_FATAL(hear(c, -1, DR_MSG_HELLO, &f));
        CU_ASSERT_FATAL(dr_decode_hello(c->in + DR_FRAME_HEADER, f.bytes, &c->arena, &hello).code == DR_OK);
        CU_ASSERT(hello.protocol == DR_PROTOCOL && hello.pid > 0 && hello.host[0] && hello.memory_bytes > 0);
        CU_ASSERT(hello.layout_hash == dr_layout_hash(&c->config, &c->layout) &&
                  hello.tensors_hash == dr_tensors_hash(c->tensors));
    }
    send_start(c, RANKS);
    for (int32_t i = 0; i < RANKS; i++) {
        CU_ASSERT_FATAL(hear(c, -1, DR_MSG_READY, &f));
        CU_ASSERT_FATAL(dr_decode_ready(c->in + DR_FRAME_HEADER, f.bytes, &c->arena, &ready).code == DR_OK);
        CU_ASSERT(ready.weights_bytes ==
                  dr_footprint_rank(&c->config, c->tensors, &c->layout, ready.rank).weights);
        CU_ASSERT(ready.resident_bytes > 0 && ready.cache_bytes > 0);
    }
}

static void send_plan(struct cluster *c, uint64_t step, uint64_t hash_change) {
    static const uint32_t ids[3] = {4, 5, 6}, page[4] = {0, 1, 2, 3};
    struct dr_open open = {.slot = 0, .n_prompt = 3, .sampling = {.top_p = 1, .repetition = 1, .n_top = 1}};
    struct dr_pages pages = {.slot = 0, .n = 4, .page = page};
    struct dr_segment g = {.slot = 0, .n_rows = 3, .ids = ids, .output = DR_OUTPUT_SAMPLE};
    struct dr_step_plan plan = {.epoch = EPOCH,
                                .step = step,
                                .n_open = 1,
                                .n_pages = 1,
                                .n_segment = 1,
                                .open = &open,
                                .pages = &pages,
                                .segment = &g};
    struct dr_sampling sampling[4] = {open.sampling};
    struct dr_shape_segment segment[1];
    struct dr_step_shape shape;
    size_t bytes = 0;
    dr_plan_shape(&plan, sampling, segment, &shape);
    plan.schedule_hash = dr_schedule_hash(&c->config, &c->layout, &shape) + hash_change;
    CU_ASSERT_FATAL(dr_encode_step_plan(&plan, EPOCH, &c->scratch, c->out, ROOM, &bytes).code == DR_OK);
    send_all(c, bytes);
}

static void whole_life(void) {
    struct cluster c;
    struct dr_frame f;
    struct dr_step_result result;
    struct dr_step_report report;
    start(&c);
    bring_up(&c);
    send_plan(&c, 1, 0);
    CU_ASSERT_FATAL(hear(&c, 0, DR_MSG_STEP_RESULT, &f));
    dr_arena_rewind(&c.arena, 0);
    CU_ASSERT_FATAL(dr_decode_step_result(c.in + DR_FRAME_HEADER, f.bytes, &c.arena, &result).code == DR_OK);
    CU_ASSERT(result.step == 1 && result.n_row == 1 && result.row[0].n_ids == 1 && result.row[0].n_top == 1);
    CU_ASSERT_FATAL(hear(&c, 0, DR_MSG_STEP_REPORT, &f));
    CU_ASSERT_FATAL(dr_decode_step_report(c.in + DR_FRAME_HEADER, f.bytes, &c.arena, &report).code == DR_OK);
    CU_ASSERT(report.rank == 0 && report.code == DR_OK && report.step == 1);
    CU_ASSERT(hear(&c, -1, DR_MSG_BEAT, &f)); /* a second later at the latest */
    send_word(&c, DR_MSG_STOP, EPOCH);
    finish(&c);
    for (int32_t i = 0; i < RANKS; i++) CU_ASSERT(c.rank[i].st.code == DR_OK && c.rank[i].served);
}

static void early_stop(void) {
    struct cluster c;
    struct dr_frame f;
    start(&c);
    for (int32_t i = 0; i < RANKS; i++) CU_ASSERT_FATAL(hear(&c, -1, DR_MSG_HELLO, &f));
    send_word(&c, DR_MSG_STOP, EPOCH);
    finish(&c);
    for (int32_t i = 0; i < RANKS; i++) CU_ASSERT(c.rank[i].st.code == DR_OK && !c.rank[i].served);
}

/* After bring-up, one bad thing. The text of rank 0 must hold `word`. */
static void ends_with(void (*bad)(struct cluster *c), enum dr_code code, const char *word) {
    struct cluster c;
    struct dr_frame f;
    struct dr_fault_note note;
    start(&c);
    bring_up(&c);
    bad(&c);
    CU_ASSERT(hear(&c, 0, DR_MSG_FAULT, &f));
    dr_arena_rewind(&c.arena, 0);
    CU_ASSERT(dr_decode_fault_note(c.in + DR_FRAME_HEADER, f.bytes, &c.arena, &note).code == DR_OK);
    CU_ASSERT(note.rank == 0 && note.code == (int32_t)code && strstr(note.text, word) != NULL);
    finish(&c);
    CU_ASSERT(c.rank[0].st.code == code && strstr(c.rank[0].text, word) != NULL);
    if (!strstr(c.rank[0].text, word)) printf("expected '%s', found '%s'\n", word, c.rank[0].text);
}

static void other_epoch(struct cluster *c) {
    send_word(c, DR_MSG_STOP, EPOCH + 1);
}
static void other_message(struct cluster *c) {
    send_word(c, DR_MSG_DRAIN, EPOCH);
}
static void start_again(struct cluster *c) {
    send_start(c, RANKS);
}
static void wrong_step(struct cluster *c) {
    send_plan(c, 2, 0);
}
static void wrong_hash(struct cluster *c) {
    send_plan(c, 1, 1);
}
static void short_frame(struct cluster *c) {
    memset(c->out, 0, 5);
    send_all(c, 5);
}
static void wrong_length(struct cluster *c) {
    size_t bytes = 0;
    CU_ASSERT(dr_encode_word(DR_MSG_STOP, EPOCH, 0, c->out, ROOM, &bytes).code == DR_OK);
    c->out[bytes] = 0;
    send_all(c, bytes + 1);
}
static void garbage(struct cluster *c) {
    size_t bytes = 0;
    CU_ASSERT(dr_encode_word(DR_MSG_STOP, EPOCH, 0, c->out, ROOM, &bytes).code == DR_OK);
    dr_frame_retype(c->out, DR_MSG_STEP_PLAN);
    send_all(c, bytes);
}

static void bad_frames(void) {
    ends_with(other_epoch, DR_EPROTO, "epoch 0000000000abcdf0");
    ends_with(other_message, DR_EPROTO, "DRAIN from the coordinator");
    ends_with(start_again, DR_EPROTO, "START from the coordinator");
    ends_with(wrong_step, DR_EPROTO, "step 2; expected");
    ends_with(wrong_hash, DR_EPROTO, "schedule hash");
    ends_with(short_frame, DR_EPROTO, "5 bytes");
    ends_with(wrong_length, DR_EPROTO, "bytes");
    ends_with(garbage, DR_EPROTO, "");
}

static void wrong_start(void) {
    struct cluster c;
    struct dr_frame f;
    start(&c);
    for (int32_t i = 0; i < RANKS; i++) CU_ASSERT_FATAL(hear(&c, -1, DR_MSG_HELLO, &f));
    send_start(&c, RANKS + 1);
    finish(&c);
    for (int32_t i = 0; i < RANKS; i++) {
        CU_ASSERT(c.rank[i].st.code == DR_EMODEL && strstr(c.rank[i].text, "starts 3 ranks") != NULL);
        CU_ASSERT(!c.rank[i].served);
    }
}

static void lost_coordinator(void) {
    struct cluster c;
    struct dr_channel_fault cut = {.from = DR_ANY_PEER, .to = DR_ANY_PEER, .cut = true};
    start(&c);
    bring_up(&c);
    dr_channel_loop_fault(c.channel, &cut);
    finish(&c);
    for (int32_t i = 0; i < RANKS; i++) CU_ASSERT(c.rank[i].st.code == DR_EPEER);
}

static void wrong_world(void) {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    struct dr_channel *channel[3];
    struct dr_service *s = NULL;
    CU_ASSERT_FATAL(dr_config_load(DR_TESTS_DIR "/golden/v3-bf16", &config).code == DR_OK);
    CU_ASSERT_FATAL(dr_layout_make(&config, &wish, &layout).code == DR_OK);
    CU_ASSERT_FATAL(dr_channel_loop_create(3, channel).code == DR_OK);
    struct dr_service_setup setup = {.config = &config, .layout = &layout, .channel = channel[1]};
    CU_ASSERT(dr_service_create(&setup, &s).code == DR_EMODEL && s == NULL);
    CU_ASSERT(strstr(dr_error_text(), "the layout has 1 ranks") != NULL);
    for (int32_t i = 0; i < 3; i++) dr_channel_destroy(channel[i]);
}

static CU_TestInfo tests[] = {
    {"hello, start, ready, a step, stop", whole_life},
    {"stop instead of start ends without loading", early_stop},
    {"frames out of order, of another epoch or broken end the worker by name", bad_frames},
    {"a start for another number of ranks is refused", wrong_start},
    {"a lost coordinator ends the workers", lost_coordinator},
    {"a job of another size than the layout is refused", wrong_world},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_service = {.pName = "worker/service", .pTests = tests};
