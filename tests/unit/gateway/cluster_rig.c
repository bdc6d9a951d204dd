/* cluster_rig.c - see cluster_rig.h.
 * In:   files and frames.      Out: the same.
 * Owns: nothing.
 * Why:  see cluster_rig.h. Waits are long because they only end early. */
#include "tests/unit/gateway/cluster_rig.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/support/runner.h"

enum { PATIENCE_MS = 20000 };

/* ---- life ---- */

static void write_script(struct rig *r, const char *body) {
    char path[128];
    snprintf(path, sizeof path, "%s/mpirun", r->dir);
    FILE *f = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    fprintf(
        f,
        "#!/bin/sh\n"
        "for a in \"$@\"; do case $a in --epoch=*) e=${a#--epoch=};; --link=*) l=${a#--link=};; esac; done\n"
        "echo $$ > %s/pid\n"
        "printf '%%s %%s %%s\\n' \"$l\" \"$e\" \"$DEEPRACK_LINK_TOKEN\" > %s/launch.part\n"
        "mv %s/launch.part %s/launch\n"
        "%s\n",
        r->dir, r->dir, r->dir, r->dir, body ? body : "exec sleep 1000");
    fclose(f);
    chmod(path, 0755);
    snprintf(r->setup.launch.mpirun, sizeof r->setup.launch.mpirun, "%s", path);
}

void rig_prepare(struct rig *r, const char *body) {
    memset(r, 0, sizeof *r);
    dr_log_init(DR_LOG_LEVEL_COUNT, DR_LOG_TEXT, "test", -1);
    snprintf(r->dir, sizeof r->dir, "/tmp/dr-rig-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(r->dir));
    char run_dir[128];
    char *argv[] = {run_dir, "--model=nowhere", "--tp=2", "--seqs-max=4"};
    snprintf(run_dir, sizeof run_dir, "--run-dir=%s", r->dir);
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_SERVE, 4, argv, &r->options).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_config_load(DR_SOURCE_DIR "/deploy/models/lexi-15m", &r->config).code, DR_OK);
    const struct dr_layout_wish wish = {
        .tp = 2, .pp = 1, .cache_type = DR_CACHE_BF16, .seqs_max = 4, .step_tokens = 64};
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&r->config, &wish, &r->setup.layout).code, DR_OK);
    r->setup.options = &r->options;
    r->setup.config = &r->config;
    r->setup.launch.n_worker = 2;
    snprintf(r->setup.launch.coordinator, sizeof r->setup.launch.coordinator, "/x/deeprack-coordinator");
    snprintf(r->setup.launch.worker, sizeof r->setup.launch.worker, "/x/deeprack-worker");
    r->setup.times = dr_engine_times_default(1);
    r->setup.times.silence = 1000 * UINT64_C(1000000000);
    r->setup.times.backoff_first = 1000000;
    r->setup.times.settle = 50000000;
    r->setup.tensors_hash = 42;
    CU_ASSERT_EQUAL_FATAL(dr_arena_init(&r->arena, 1 << 20).code, DR_OK);
    write_script(r, body);
}

void rig_start(struct rig *r) {
    CU_ASSERT_EQUAL_FATAL(dr_engine_start(&r->setup, &r->engine).code, DR_OK);
}

void rig_stop(struct rig *r) {
    rig_hang_up(r);
    dr_engine_destroy(r->engine);
    dr_run_remove(r->dir);
    dr_options_fini(&r->options);
    dr_arena_fini(&r->arena);
}

/* ---- the coordinator's side ---- */

/* Waits for a file of the script, reads it and takes it away. */
static bool take_note(struct rig *r, const char *name, char *text, size_t room) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    for (int i = 0; i < PATIENCE_MS / 5; i++) {
        FILE *f = fopen(path, "r");
        if (f) {
            const bool good = fgets(text, (int)room, f) != NULL;
            fclose(f);
            if (good && strchr(text, '\n')) return unlink(path) == 0;
        }
        dr_clock_sleep_ns(5000000);
    }
    return false;
}

void rig_connect(struct rig *r) {
    char text[512], path[256], token[128];
    uint8_t bytes[32];
    CU_ASSERT_TRUE_FATAL(take_note(r, "launch", text, sizeof text));
    CU_ASSERT_EQUAL_FATAL(sscanf(text, "%255s %" SCNx64 " %127s", path, &r->epoch, token), 3);
    CU_ASSERT_EQUAL_FATAL(strlen(token), 64);
    for (int i = 0; i < 32; i++) {
        unsigned v = 0;
        CU_ASSERT_EQUAL(sscanf(token + 2 * i, "%2x", &v), 1);
        bytes[i] = (uint8_t)v;
    }
    CU_ASSERT_EQUAL_FATAL(dr_link_connect(path, bytes, &r->link).code, DR_OK);
}

#define SEND(r, name, message)                                                                               \
    do {                                                                                                     \
        uint8_t frame_[65536];                                                                               \
        size_t bytes_ = 0;                                                                                   \
        dr_arena_rewind(&(r)->arena, 0);                                                                     \
        CU_ASSERT_EQUAL(                                                                                     \
            dr_encode_##name(message, (r)->epoch, &(r)->arena, frame_, sizeof frame_, &bytes_).code, DR_OK); \
        dr_ignore(dr_link_send((r)->link, frame_, bytes_), "the engine may have gone");                      \
    } while (0)

void rig_ready(struct rig *r, int32_t pid) {
    static struct dr_rank_state rank[2]; /* zero but for what is set */
    for (int i = 0; i < 2; i++) {
        memset(&rank[i], 0, sizeof rank[i]);
        rank[i].rank = i;
        gethostname(rank[i].host, DR_HOST_MAX);
    }
    rank[0].pid = pid;
    const struct dr_cluster_ready ready = {
        .layout = r->setup.layout, .tensors_hash = 42, .n_rank = 2, .rank = rank};
    SEND(r, cluster_ready, &ready);
}

void rig_up(struct rig *r) {
    rig_start(r);
    rig_connect(r);
    rig_ready(r, 0);
    CU_ASSERT_EQUAL_FATAL(dr_engine_wait(r->engine, PATIENCE_MS * UINT64_C(1000000)).code, DR_OK);
}

void rig_hang_up(struct rig *r) {
    if (r->link) dr_link_destroy(r->link);
    r->link = NULL;
}

void rig_word(struct rig *r, enum dr_msg type, uint64_t value) {
    uint8_t frame[128];
    size_t bytes = 0;
    CU_ASSERT_EQUAL(dr_encode_word(type, r->epoch, value, frame, sizeof frame, &bytes).code, DR_OK);
    dr_ignore(dr_link_send(r->link, frame, bytes), "the engine may have gone");
}

void rig_tokens(struct rig *r, uint64_t request, int32_t position, const uint32_t *ids, int32_t n) {
    const struct dr_token_news news = {.request = request, .position = position, .n = n, .ids = ids};
    const struct dr_tokens tokens = {.n = 1, .news = &news};
    SEND(r, tokens, &tokens);
}

void rig_refused(struct rig *r, const struct dr_refused *refused) {
    SEND(r, refused, refused);
}

void rig_stats(struct rig *r, const struct dr_stats *stats) {
    SEND(r, stats, stats);
}

void rig_done(struct rig *r, uint64_t request, enum dr_finish finish) {
    const struct dr_done done = {.request = request, .finish = finish, .stop_id = UINT32_MAX, .n_prompt = 3};
    SEND(r, done, &done);
}

void rig_step(struct rig *r, const struct dr_step_news *news) {
    SEND(r, step_news, news);
}

void rig_report(struct rig *r, const struct dr_step_report *report) {
    SEND(r, step_report, report);
}

void rig_fault(struct rig *r, enum dr_code code, const char *text) {
    struct dr_fault_note note = {.rank = 1, .code = (int32_t)code};
    snprintf(note.text, sizeof note.text, "%s", text);
    uint8_t frame[4096];
    size_t bytes = 0;
    dr_arena_rewind(&r->arena, 0);
    CU_ASSERT_EQUAL(dr_encode_fault_note(&note, r->epoch, &r->arena, frame, sizeof frame, &bytes).code,
                    DR_OK);
    const uint16_t type =
        DR_MSG_CLUSTER_FAULT; /* the codec writes FAULT, the word between worker and coordinator */
    memcpy(frame + 6, &type, sizeof type);
    dr_ignore(dr_link_send(r->link, frame, bytes), "the engine may have gone");
}

bool rig_expect(struct rig *r, enum dr_msg type, const uint8_t **body, size_t *bytes) {
    for (int i = 0; i < PATIENCE_MS / 100; i++) {
        struct dr_frame frame;
        const uint8_t *at = NULL;
        if (dr_link_recv(r->link, &frame, &at).code != DR_OK) return false;
        if (frame.type != DR_MSG_NONE) {
            if (body) *body = at;
            if (bytes) *bytes = frame.bytes;
            return frame.type == type && frame.epoch == r->epoch;
        }
        struct pollfd p = {.fd = dr_link_fd(r->link), .events = POLLIN};
        poll(&p, 1, 100);
    }
    return false;
}

int32_t rig_read_pid(struct rig *r, const char *name) {
    char text[64];
    return take_note(r, name, text, sizeof text) ? atoi(text) : -1;
}

bool rig_pid_ends(int32_t pid) {
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        if (kill(pid, 0) != 0 && errno == ESRCH) return true;
        waitpid(pid, NULL, WNOHANG);
        dr_clock_sleep_ns(10000000);
    }
    return false;
}

bool rig_state_becomes(struct rig *r, enum dr_engine_state state) {
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    bool same = false;
    for (int i = 0; facts && !same && i < PATIENCE_MS / 5; i++) {
        dr_engine_facts(r->engine, facts);
        same = facts->state == state;
        if (!same) dr_clock_sleep_ns(5000000);
    }
    free(facts);
    return same;
}

/* ---- sinks ---- */

static void note(struct told *t, const char *text, bool end) {
    pthread_mutex_lock(&t->lock);
    CU_ASSERT_FALSE(t->ended); /* nothing comes after the end */
    const size_t n = strlen(t->text);
    snprintf(t->text + n, sizeof t->text - n, "%s%s", n ? " " : "", text);
    t->ended = end;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void on_accepted(void *arg) {
    note(arg, "A", false);
}

static void on_tokens(void *arg, const struct dr_token_news *news) {
    char text[256];
    size_t n = 0;
    for (int32_t i = 0; i < news->n; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%c%u", i ? ',' : 'T', news->ids[i]);
    note(arg, text, false);
}

static void on_logits(void *arg, const struct dr_logits *logits) {
    char text[64];
    snprintf(text, sizeof text, "L%d:%g", logits->position, (double)logits->value[logits->n - 1]);
    note(arg, text, false);
}

static void on_done(void *arg, const struct dr_done *done) {
    static const char *const name[DR_FINISH_COUNT] = {"stop",    "length",   "cancelled",
                                                      "numeric", "deadline", "lost"};
    char text[64];
    snprintf(text, sizeof text, "D:%s", name[done->finish]);
    note(arg, text, true);
}

static void on_refused(void *arg, const struct dr_refused *refused) {
    char text[512];
    snprintf(text, sizeof text, "R:%.400s", refused->text);
    note(arg, text, true);
}

void told_init(struct told *t) {
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
}

bool told_ends(struct told *t) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&t->lock);
    while (!t->ended && pthread_cond_timedwait(&t->changed, &t->lock, &end) == 0) {
    }
    const bool ended = t->ended;
    pthread_mutex_unlock(&t->lock);
    return ended;
}

dr_status rig_submit(struct rig *r, struct told *t, uint64_t *request) {
    static const uint32_t ids[] = {1, 2, 3};
    struct dr_submit submit = {.n_ids = 3, .ids = ids, .max_tokens = 8, .prompt_top = -1};
    submit.request = *request = dr_engine_next_id(r->engine);
    submit.sampling = (struct dr_sampling){.top_p = 1, .repetition = 1, .n_top = -1};
    const struct dr_engine_sink sink = {on_accepted, on_tokens, on_logits, on_done, on_refused, t};
    told_init(t);
    return dr_engine_submit(r->engine, &submit, &sink);
}
