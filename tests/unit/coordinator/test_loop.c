/* test_loop.c - a whole epoch: the loop in a thread, its workers and its gateway played by the test.
 * In:   frames.      Out: checks of what comes back.
 * Owns: channel ends, listener, a folder for the socket.
 * Why:  joins, service, faults and ends cross real frames, codec, channel and link. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "coordinator/loop.h"
#include "fake.h"

#include <CUnit/CUnit.h>

enum { RANKS_MAX = 2, FRAME = 1 << 20, PATIENCE_S = 20 };

struct stage {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_channel *end[RANKS_MAX + 1];
    struct dr_listener *listener;
    struct dr_link *near, *far; /* the gateway's, the coordinator's */
    char folder[64], path[96];
    struct dr_arena arena;
    uint8_t *frame;
    struct fake fake;
    struct dr_loop_setup setup;
    pthread_t thread;
    /* written by the thread, read after join */
    enum dr_code code;
    char text[1024];
    /* what the gateway heard */
    int32_t n_ready, n_alive, n_stats, n_progress, n_accepted, n_refused, n_token, n_done, n_fault;
    uint32_t ids[64];
    int32_t n_news, n_report, news_rows; /* of watched steps; rows of both kinds */
    int32_t n_told, waiting;             /* STATS without an ALIVE before it; what the last one said */
    bool each_second;                    /* an ALIVE came, its STATS did not yet */
    struct dr_done done;
    struct dr_fault_note fault;
    struct dr_cluster_ready ready;
    struct dr_rank_state rank0;
    /* what worker 0 heard */
    int32_t n_start, n_plan, n_stop;
    bool mute; /* plans are taken, not answered */
};

static const uint8_t token[32] = {7};
static const uint64_t epoch = 0x1122334455667788U;

static void *run_loop(void *arg) {
    struct stage *s = arg;
    dr_status st = dr_loop_run(&s->setup);
    s->code = st.code;
    snprintf(s->text, sizeof s->text, "%s", st.code == DR_OK ? "" : dr_error_text());
    dr_channel_destroy(s->end[0]);
    dr_link_destroy(s->far);
    return NULL;
}

static void open_stage(struct stage *s, int32_t n_rank, uint64_t join_ns) {
    *s = (struct stage){.config = fake_config(), .folder = "/tmp/dr-loop-XXXXXX"};
    s->layout = fake_layout(
        (struct fake_wish){.context = 128, .seqs_max = 4, .step_tokens = 16, .n_page = 64, .page_tokens = 8});
    s->layout.tp = s->layout.n_rank = n_rank;
    fake_init(&s->fake, &s->layout);
    s->frame = malloc(FRAME + DR_FRAME_HEADER);
    CU_ASSERT_FATAL(s->frame && dr_arena_init(&s->arena, 4 << 20).code == DR_OK);
    CU_ASSERT_FATAL(dr_channel_loop_create(n_rank + 1, s->end).code == DR_OK);
    CU_ASSERT_FATAL(mkdtemp(s->folder) != NULL);
    snprintf(s->path, sizeof s->path, "%s/link", s->folder);
    CU_ASSERT_FATAL(dr_listener_create(s->path, &s->listener).code == DR_OK);
    CU_ASSERT_FATAL(dr_link_connect(s->path, token, &s->far).code == DR_OK);
    CU_ASSERT_FATAL(dr_listener_accept(s->listener, token, &s->near).code == DR_OK);
    s->setup = (struct dr_loop_setup){
        .config = &s->config,
        .layout = &s->layout,
        .channel = s->end[0],
        .link = s->far,
        .epoch = epoch,
        .deadline_scale = 1,
        .join_ns = join_ns,
    };
    CU_ASSERT_FATAL(pthread_create(&s->thread, NULL, run_loop, s) == 0);
}

static void hear_link(struct stage *s);

static void close_stage(struct stage *s) {
    pthread_join(s->thread, NULL);
    if (s->near) hear_link(s); /* what was on its way */
    dr_link_destroy(s->near);
    dr_listener_destroy(s->listener);
    rmdir(s->folder);
    for (int32_t i = 1; i <= s->layout.n_rank; i++) dr_channel_destroy(s->end[i]);
    fake_fini(&s->fake);
    dr_arena_fini(&s->arena);
    free(s->frame);
}

/* ---- workers ---- */

#define SEND(s, rank, what, message)                                                                         \
    do {                                                                                                     \
        size_t bytes_ = 0;                                                                                   \
        CU_ASSERT_FATAL(dr_encode_##what(message, epoch, &(s)->arena, (s)->frame, FRAME, &bytes_).code ==    \
                        DR_OK);                                                                              \
        CU_ASSERT(dr_channel_send((s)->end[1 + (rank)], 0, (s)->frame, bytes_).code == DR_OK);               \
    } while (0)

static struct dr_hello hello_of(const struct stage *s, int32_t rank) {
    struct dr_hello h = {
        .protocol = DR_PROTOCOL, .build = DR_VERSION, .rank = rank, .pid = 10 + rank, .host = "here"};
    h.tensors_hash = 5;
    h.layout_hash = dr_layout_hash(&s->config, &s->layout);
    return h;
}

static void say_hello(struct stage *s, int32_t rank) {
    struct dr_hello h = hello_of(s, rank);
    SEND(s, rank, hello, &h);
}

static void say_ready(struct stage *s, int32_t rank) {
    struct dr_ready r = {.rank = rank, .weights_bytes = 1000 + (uint64_t)rank};
    SEND(s, rank, ready, &r);
}

static void answer_plan(struct stage *s, const struct dr_step_plan *plan) {
    struct dr_step_result result = fake_step(&s->fake, plan);
    for (int32_t rank = 0; rank < s->layout.n_rank; rank++) {
        struct dr_step_report report = {.epoch = epoch, .step = plan->step, .rank = rank};
        report.part_ns[DR_PART_HEAD] = plan->step;
        SEND(s, rank, step_report, &report);
    }
    for (int32_t i = 0; i < s->fake.n_logits; i++) {
        s->fake.logits[i].epoch = epoch;
        SEND(s, 0, logits, &s->fake.logits[i]);
    }
    SEND(s, 0, step_result, &result);
}

/* All ranks hear the same; rank 0 answers for all. */
static void hear_channel(struct stage *s, int32_t rank) {
    for (;;) {
        int32_t from = 0;
        size_t bytes = 0;
        struct dr_frame f;
        dr_status st = dr_channel_recv(s->end[1 + rank], s->frame, FRAME, 0, &from, &bytes);
        if (st.code != DR_OK || bytes == 0) return;
        CU_ASSERT_FATAL(dr_frame_read(s->frame, FRAME, &f).code == DR_OK && f.epoch == epoch);
        if (rank != 0) continue;
        dr_arena_rewind(&s->arena, 0);
        s->n_start += f.type == DR_MSG_START;
        s->n_stop += f.type == DR_MSG_STOP;
        if (f.type != DR_MSG_STEP_PLAN) continue;
        struct dr_step_plan plan;
        CU_ASSERT_FATAL(dr_decode_step_plan(s->frame + DR_FRAME_HEADER, f.bytes, &s->arena, &plan).code ==
                        DR_OK);
        s->n_plan++;
        if (!s->mute) answer_plan(s, &plan);
    }
}

/* ---- gateway ---- */

#define TAKE(s, what, out) CU_ASSERT_FATAL(dr_decode_##what(body, f.bytes, &(s)->arena, out).code == DR_OK)

static void hear_link(struct stage *s) {
    for (;;) {
        struct dr_frame f;
        const uint8_t *body = NULL;
        struct dr_tokens t;
        struct dr_stats stats;
        struct dr_progress p;
        struct dr_refused refused;
        struct dr_step_news news;
        struct dr_step_report report;
        if (dr_link_recv(s->near, &f, &body).code != DR_OK || f.type == DR_MSG_NONE) return;
        CU_ASSERT(f.epoch == epoch);
        dr_arena_rewind(&s->arena, 0);
        switch (f.type) {
        case DR_MSG_CLUSTER_READY:
            TAKE(s, cluster_ready, &s->ready);
            s->rank0 = s->ready.rank[0];
            s->n_ready++;
            break;
        case DR_MSG_TOKENS:
            TAKE(s, tokens, &t);
            for (int32_t i = 0; i < t.n; i++)
                for (int32_t k = 0; k < t.news[i].n; k++) s->ids[s->n_token++] = t.news[i].ids[k];
            break;
        case DR_MSG_DONE:
            TAKE(s, done, &s->done);
            s->n_done++;
            break;
        case DR_MSG_CLUSTER_FAULT:
            TAKE(s, fault_note, &s->fault);
            s->n_fault++;
            break;
        case DR_MSG_STATS:
            TAKE(s, stats, &stats);
            s->n_stats++;
            s->n_told += !s->each_second;
            s->each_second = false;
            s->waiting = stats.waiting;
            break;
        case DR_MSG_PROGRESS:
            TAKE(s, progress, &p);
            CU_ASSERT(p.rank == 0 && p.done_bytes == 3 && p.total_bytes == 9);
            s->n_progress++;
            break;
        case DR_MSG_REFUSED:
            TAKE(s, refused, &refused);
            s->n_refused++;
            break;
        case DR_MSG_STEP_NEWS:
            TAKE(s, step_news, &news);
            CU_ASSERT(news.step == (uint64_t)s->n_news + 1 && news.done_ns >= news.sent_ns);
            s->news_rows += news.prompt_rows + news.generated_rows;
            s->n_news++;
            break;
        case DR_MSG_STEP_REPORT:
            TAKE(s, step_report, &report);
            CU_ASSERT(report.code == DR_OK && report.step >= 1 &&
                      report.part_ns[DR_PART_HEAD] == report.step);
            s->n_report++;
            break;
        case DR_MSG_ALIVE:
            s->n_alive++;
            s->each_second = true;
            break;
        case DR_MSG_ACCEPTED:
            s->n_accepted++;
            break;
        default:
            CU_FAIL("a frame that no gateway expects");
        }
    }
}

/* Plays both sides until *count reaches n. */
static void play_until(struct stage *s, const int32_t *count, int32_t n) {
    uint64_t until = dr_clock_ns() + PATIENCE_S * 1000000000U;
    while (*count < n && dr_clock_ns() < until) {
        for (int32_t rank = 0; rank < s->layout.n_rank; rank++) hear_channel(s, rank);
        hear_link(s);
        dr_clock_sleep_ns(200000);
    }
    CU_ASSERT_FATAL(*count >= n);
}

static void send_submit(struct stage *s, const struct dr_submit *submit) {
    size_t bytes = 0;
    CU_ASSERT_FATAL(dr_encode_submit(submit, epoch, &s->arena, s->frame, FRAME, &bytes).code == DR_OK);
    CU_ASSERT(dr_link_send(s->near, s->frame, bytes).code == DR_OK);
}

static void send_word(struct stage *s, enum dr_msg type, uint64_t value, uint64_t of_epoch) {
    size_t bytes = 0;
    CU_ASSERT_FATAL(dr_encode_word(type, of_epoch, value, s->frame, FRAME, &bytes).code == DR_OK);
    CU_ASSERT(dr_link_send(s->near, s->frame, bytes).code == DR_OK);
}

static void hang_up(struct stage *s) {
    dr_link_destroy(s->near);
    s->near = NULL;
}

static void get_ready(struct stage *s) {
    for (int32_t rank = 0; rank < s->layout.n_rank; rank++) say_hello(s, rank);
    play_until(s, &s->n_start, 1);
    for (int32_t rank = 0; rank < s->layout.n_rank; rank++) say_ready(s, rank);
    play_until(s, &s->n_ready, 1);
}

static const uint32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4};

/* ---- cases ---- */

static void an_epoch_from_hello_to_stop(void) {
    struct stage s;
    static struct answer alone;
    open_stage(&s, 2, 0);
    struct dr_progress p = {.rank = 0, .done_bytes = 3, .total_bytes = 9};
    say_hello(&s, 0);
    say_hello(&s, 1);
    play_until(&s, &s.n_start, 1);
    SEND(&s, 0, progress, &p);
    play_until(&s, &s.n_progress, 1);
    say_ready(&s, 0);
    say_ready(&s, 1);
    play_until(&s, &s.n_ready, 1);
    CU_ASSERT(s.ready.n_rank == 2 && s.ready.tensors_hash == 5 && s.ready.layout.context == 128);
    CU_ASSERT(s.rank0.pid == 10 && s.rank0.weights_bytes == 1000);
    CU_ASSERT_STRING_EQUAL(s.rank0.host, "here");
    struct dr_submit submit = fake_submit(42, prompt, 24, 9);
    fake_answer(&s.fake, &submit, &alone);
    send_submit(&s, &submit);
    play_until(&s, &s.n_done, 1);
    CU_ASSERT(s.n_accepted == 1 && s.n_token == 9 && memcmp(s.ids, alone.ids, 9 * sizeof *s.ids) == 0);
    CU_ASSERT(s.done.request == 42 && s.done.finish == DR_FINISH_LENGTH && s.done.n_prompt == 24 &&
              s.done.n_output == 9);
    CU_ASSERT_EQUAL(s.n_plan, 2 + 8);
    play_until(&s, &s.n_alive, 1);
    play_until(&s, &s.n_stats, 1);
    hang_up(&s);
    uint64_t until = dr_clock_ns() + PATIENCE_S * 1000000000U;
    while (s.n_stop == 0 && dr_clock_ns() < until) hear_channel(&s, 0);
    CU_ASSERT_EQUAL(s.n_stop, 1);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_OK);
}

static void steps_are_told_only_to_those_who_watch(void) {
    struct stage s;
    open_stage(&s, 2, 0);
    get_ready(&s);
    struct dr_submit a = fake_submit(1, prompt, 24, 9), b = fake_submit(2, prompt, 24, 9);
    send_word(&s, DR_MSG_WATCH, DR_WATCH_STEPS, epoch);
    send_submit(&s, &a);
    play_until(&s, &s.n_done, 1);
    play_until(&s, &s.n_news, 2 + 8);
    play_until(&s, &s.n_report, 2 * (2 + 8));
    CU_ASSERT_EQUAL(s.news_rows, 24 + 8);
    send_word(&s, DR_MSG_WATCH, 0, epoch);
    send_submit(&s, &b);
    play_until(&s, &s.n_done, 2);
    CU_ASSERT(s.n_news == 10 && s.n_report == 20);
    send_word(&s, DR_MSG_WATCH, 8, epoch); /* a bit that nobody knows */
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT(strstr(s.fault.text, "WATCH: found bits 8") != NULL);
    hang_up(&s);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_EPROTO);
}

/* Not with the next second's counts but at once: when nobody more may wait, and when somebody may again. */
static void the_gateway_hears_of_a_full_queue_and_of_room(void) {
    struct stage s;
    open_stage(&s, 1, 0);
    get_ready(&s);
    s.mute = true; /* the first request's step never ends: it alone has left the queue */
    for (uint64_t i = 1; i <= 1 + DR_WAITING_MAX; i++) {
        struct dr_submit submit = fake_submit(i, prompt, 3, 2);
        send_submit(&s, &submit);
        if (i == 1) play_until(&s, &s.n_plan, 1);
        if (i == DR_WAITING_MAX) play_until(&s, &s.n_accepted, DR_WAITING_MAX);
        if (i == DR_WAITING_MAX) CU_ASSERT_EQUAL(s.n_told, 0);
    }
    play_until(&s, &s.n_told, 1);
    CU_ASSERT(s.n_accepted == 1 + DR_WAITING_MAX && s.waiting == DR_WAITING_MAX);
    struct dr_submit more = fake_submit(1000, prompt, 3, 2);
    send_submit(&s, &more);
    play_until(&s, &s.n_refused, 1);
    send_word(&s, DR_MSG_CANCEL, 7, epoch);
    play_until(&s, &s.n_told, 2);
    CU_ASSERT(s.n_done == 1 && s.waiting == DR_WAITING_MAX - 1);
    send_submit(&s, &more);
    play_until(&s, &s.n_told, 3);
    CU_ASSERT(s.n_accepted == 2 + DR_WAITING_MAX && s.n_refused == 1 && s.waiting == DR_WAITING_MAX);
    hang_up(&s);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_OK);
}

static void cancel_and_drain_cross_the_link(void) {
    struct stage s;
    open_stage(&s, 1, 0);
    get_ready(&s);
    struct dr_submit a = fake_submit(1, prompt, 24, 100), b = fake_submit(2, prompt, 3, 2),
                     c = fake_submit(3, prompt, 3, 2);
    s.mute = true;
    send_submit(&s, &a);
    play_until(&s, &s.n_plan, 1);
    send_word(&s, DR_MSG_CANCEL, 1, epoch); /* its step never comes back; Done comes all the same */
    play_until(&s, &s.n_done, 1);
    CU_ASSERT(s.done.request == 1 && s.done.finish == DR_FINISH_CANCELLED);
    send_word(&s, DR_MSG_RESET_PREFIX, 0, epoch);
    send_submit(&s, &b);
    play_until(&s, &s.n_accepted, 2);
    send_word(&s, DR_MSG_DRAIN, 0, epoch);
    send_submit(&s, &c);
    play_until(&s, &s.n_refused, 1);
    hang_up(&s);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_OK);
}

static void a_workers_fault_reaches_the_gateway(void) {
    struct stage s;
    open_stage(&s, 2, 0);
    get_ready(&s);
    s.mute = true;
    struct dr_submit a = fake_submit(1, prompt, 24, 100);
    send_submit(&s, &a);
    play_until(&s, &s.n_plan, 1);
    struct dr_fault_note note = {.rank = 1, .code = DR_EDEVICE, .text = "layer 3: a page is on fire"};
    SEND(&s, 1, fault_note, &note);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT(s.fault.rank == 1 && s.fault.code == DR_EDEVICE);
    CU_ASSERT_STRING_EQUAL(s.fault.text, "rank 1: layer 3: a page is on fire");
    CU_ASSERT(s.n_done == 1 && s.done.finish == DR_FINISH_LOST);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_EDEVICE);
    CU_ASSERT_STRING_EQUAL(s.text, "rank 1: layer 3: a page is on fire");
}

static void a_failed_report_ends_the_epoch(void) {
    struct stage s;
    open_stage(&s, 1, 0);
    get_ready(&s);
    struct dr_step_report report = {
        .epoch = epoch, .step = 4, .rank = 0, .code = DR_ETIME, .text = "allreduce 7 is late"};
    SEND(&s, 0, step_report, &report);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT(s.fault.rank == 0 && s.fault.code == DR_EPEER);
    CU_ASSERT_STRING_EQUAL(s.fault.text, "rank 0, step 4: allreduce 7 is late");
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_EPEER);
}

static void a_lost_worker_ends_the_epoch(void) {
    struct stage s;
    open_stage(&s, 2, 0);
    get_ready(&s);
    struct dr_channel_fault cut = {.from = 2, .to = 0, .cut = true};
    dr_channel_loop_fault(s.end[1], &cut);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_EQUAL(s.fault.code, DR_EPEER);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_EPEER);
}

static void ranks_that_differ_do_not_start(void) {
    struct stage s;
    open_stage(&s, 2, 0);
    struct dr_hello h = hello_of(&s, 1);
    h.layout_hash++;
    say_hello(&s, 0);
    SEND(&s, 1, hello, &h);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_EQUAL(s.fault.code, DR_EMODEL);
    CU_ASSERT(strstr(s.fault.text, "rank 1 on here computed layout ") == s.fault.text);
    CU_ASSERT_EQUAL(s.n_start, 0);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_EMODEL);
}

static void a_rank_that_never_joins_is_named(void) {
    struct stage s;
    open_stage(&s, 2, 500000000); /* long enough for one hello on a loaded machine */
    say_hello(&s, 0);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_EQUAL(s.fault.code, DR_ETIME);
    CU_ASSERT(strstr(s.fault.text, "these ranks have not joined: rank 1") != NULL);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_ETIME);
}

static void a_job_of_another_size_is_refused(void) {
    struct stage s;
    open_stage(&s, 1, 0);
    hang_up(&s);
    close_stage(&s);
    open_stage(&s, 2, 0);
    hang_up(&s);
    close_stage(&s);
    CU_ASSERT_EQUAL(s.code, DR_OK); /* a gateway that leaves at once is an orderly end */
    struct dr_channel *end[2];
    CU_ASSERT_FATAL(dr_channel_loop_create(2, end).code == DR_OK);
    struct dr_config config = fake_config();
    struct dr_layout layout = fake_layout(
        (struct fake_wish){.context = 128, .seqs_max = 4, .step_tokens = 16, .n_page = 64, .page_tokens = 8});
    layout.tp = layout.n_rank = 3;
    char folder[] = "/tmp/dr-loop-XXXXXX", path[64];
    CU_ASSERT_FATAL(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/link", folder);
    struct dr_listener *listener = NULL;
    struct dr_link *link = NULL;
    CU_ASSERT_FATAL(dr_listener_create(path, &listener).code == DR_OK &&
                    dr_link_connect(path, token, &link).code == DR_OK);
    struct dr_loop_setup setup = {.config = &config,
                                  .layout = &layout,
                                  .channel = end[0],
                                  .link = link,
                                  .epoch = epoch,
                                  .deadline_scale = 1};
    CU_ASSERT(dr_loop_run(&setup).code == DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "the layout has 3 ranks (tp 3 x pp 1), the job started 1 workers");
    dr_link_destroy(link);
    dr_listener_destroy(listener);
    rmdir(folder);
    dr_channel_destroy(end[0]);
    dr_channel_destroy(end[1]);
}

static void bad_frames_end_the_epoch(void) {
    struct stage s;
    open_stage(&s, 1, 0);
    get_ready(&s);
    send_word(&s, DR_MSG_CANCEL, 1, epoch + 1);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_EQUAL(s.fault.code, DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(s.fault.text,
                           "CANCEL of epoch 1122334455667789 from the gateway, expected 1122334455667788");
    close_stage(&s);
    open_stage(&s, 1, 0);
    get_ready(&s);
    send_word(&s, DR_MSG_STOP, 1, epoch);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_STRING_EQUAL(s.fault.text, "the gateway does not send STOP to a coordinator");
    close_stage(&s);
    open_stage(&s, 1, 0);
    static const int32_t place = 0, peers = 1;
    struct dr_start start = {.n_rank = 1, .place = &place, .peers = &peers};
    SEND(&s, 0, start, &start);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_STRING_EQUAL(s.fault.text, "a worker does not send START to the coordinator");
    close_stage(&s);
    open_stage(&s, 1, 0);
    uint8_t noise[64] = {1, 2, 3};
    CU_ASSERT(dr_channel_send(s.end[1], 0, noise, sizeof noise).code == DR_OK);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT(s.fault.code == DR_EPROTO && strstr(s.fault.text, "rank 0") == s.fault.text);
    close_stage(&s);
    open_stage(&s, 1, 0);
    get_ready(&s);
    struct dr_step_result result = {.epoch = epoch, .step = 1};
    SEND(&s, 0, step_result, &result);
    play_until(&s, &s.n_fault, 1);
    CU_ASSERT_STRING_EQUAL(
        s.fault.text, "result of step 1, expected none: no step waits for one; the oldest under way is 0");
    close_stage(&s);
}

static CU_TestInfo cases[] = {
    {"an epoch runs from hello to stop", an_epoch_from_hello_to_stop},
    {"cancel and drain cross the link while a step runs", cancel_and_drain_cross_the_link},
    {"steps are told only to a gateway that watches", steps_are_told_only_to_those_who_watch},
    {"the gateway hears at once of a full queue and of room", the_gateway_hears_of_a_full_queue_and_of_room},
    {"a worker's fault reaches the gateway with rank and text", a_workers_fault_reaches_the_gateway},
    {"a report of failure ends the epoch", a_failed_report_ends_the_epoch},
    {"a lost worker ends the epoch", a_lost_worker_ends_the_epoch},
    {"ranks that differ do not start", ranks_that_differ_do_not_start},
    {"a rank that never joins is named", a_rank_that_never_joins_is_named},
    {"a job of another size is refused; a gateway that leaves is an orderly end",
     a_job_of_another_size_is_refused},
    {"frames of another epoch, of the wrong kind, and noise end the epoch by name", bad_frames_end_the_epoch},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_loop = {.pName = "coordinator/loop", .pTests = cases};
