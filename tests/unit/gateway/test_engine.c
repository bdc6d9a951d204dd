/* test_engine.c - the engine against a coordinator played by the test.
 * In:   frames, closed links, killed processes.      Out: what the sinks are told.
 * Owns: a rig a test.
 * Why:  every request ends exactly once, whatever happens, and nothing outlives the engine. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/support/runner.h"
#include "tests/unit/gateway/cluster_rig.h"

static const uint64_t patience = UINT64_C(20000000000);

/* ---- a request's way ---- */

static void accepted_tokens_done(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    const uint8_t *body = NULL;
    size_t bytes = 0;
    struct dr_submit got;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE_FATAL(rig_expect(&r, DR_MSG_SUBMIT, &body, &bytes));
    CU_ASSERT_EQUAL_FATAL(dr_decode_submit(body, bytes, &r.arena, &got).code, DR_OK);
    CU_ASSERT_EQUAL(got.request, id);
    CU_ASSERT_EQUAL_FATAL(got.n_ids, 3);
    CU_ASSERT_EQUAL(got.ids[2], 3);
    CU_ASSERT_EQUAL(got.max_tokens, 8);
    rig_word(&r, DR_MSG_ACCEPTED, id);
    rig_tokens(&r, id, 3, (const uint32_t[]){7}, 1);
    rig_tokens(&r, id, 4, (const uint32_t[]){8, 9}, 2);
    rig_tokens(&r, id + 100, 4, (const uint32_t[]){8, 9}, 2); /* of nobody: dropped */
    rig_done(&r, id, DR_FINISH_STOP);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "A T7 T8,9 D:stop");
    rig_tokens(&r, id, 5, (const uint32_t[]){1}, 1); /* after the end: dropped */
    rig_stop(&r);
    CU_ASSERT_STRING_EQUAL(t.text, "A T7 T8,9 D:stop");
}

static void refused_ends_it(void) {
    struct rig r;
    struct told t;
    struct dr_refused refused = {.reason = DR_REFUSE_FULL, .retry_ms = 1000};
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &refused.request).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    snprintf(refused.text, sizeof refused.text, "full");
    rig_refused(&r, &refused);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "R:full");
    rig_stop(&r);
}

/* Sends STATS and waits until the engine has taken them. */
static void say_waiting(struct rig *r, int32_t waiting) {
    static uint64_t steps; /* tells one STATS from the one before */
    const struct dr_stats stats = {.steps = ++steps, .waiting = waiting};
    struct dr_engine_facts *facts = calloc(1, sizeof *facts);
    CU_ASSERT_PTR_NOT_NULL_FATAL(facts);
    rig_stats(r, &stats);
    for (int i = 0; i < 4000 && facts->stats.steps != steps; i++) {
        dr_clock_sleep_ns(5000000);
        dr_engine_facts(r->engine, facts);
    }
    CU_ASSERT_EQUAL(facts->stats.steps, steps);
    free(facts);
}

static void be_refused(struct rig *r, const char *text) {
    struct told t;
    struct dr_refused refused = {.reason = DR_REFUSE_FULL, .retry_ms = 1500};
    CU_ASSERT_EQUAL_FATAL(rig_submit(r, &t, &refused.request).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(r, DR_MSG_SUBMIT, NULL, NULL));
    snprintf(refused.text, sizeof refused.text, "%s", text);
    rig_refused(r, &refused);
    CU_ASSERT_TRUE(told_ends(&t));
}

/* The engine knows better than to ask only while the coordinator's last word is that the queue is full, and
 * only with an answer of its own to repeat: not too old, and not of another epoch. */
static void a_refusal_is_repeated_until_there_is_room(void) {
    struct rig r;
    struct dr_refused out = {.retry_ms = 0};
    rig_prepare(&r, NULL);
    r.setup.times.refusal = UINT64_C(3600000000000);
    rig_up(&r);
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    say_waiting(&r, DR_WAITING_MAX);
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out)); /* nothing to repeat */
    be_refused(&r, "256 wait");
    CU_ASSERT_TRUE(dr_engine_full(r.engine, &out));
    CU_ASSERT(out.retry_ms == 1500 && strcmp(out.text, "256 wait") == 0);
    say_waiting(&r, DR_WAITING_MAX - 1);
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    be_refused(&r, "too many tokens wait"); /* of this prompt; a shorter one may have room */
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    say_waiting(&r, DR_WAITING_MAX + 3); /* preempted requests came back */
    CU_ASSERT_TRUE(dr_engine_full(r.engine, &out));
    pthread_mutex_lock(&r.engine->lock);
    r.engine->setup.times.refusal = 0; /* whatever came is too old now */
    pthread_mutex_unlock(&r.engine->lock);
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    pthread_mutex_lock(&r.engine->lock);
    r.engine->setup.times.refusal = UINT64_C(3600000000000);
    pthread_mutex_unlock(&r.engine->lock);
    CU_ASSERT_TRUE(dr_engine_full(r.engine, &out));
    rig_hang_up(&r);
    rig_connect(&r); /* of the next epoch */
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    rig_ready(&r, 0);
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_OK);
    say_waiting(&r, DR_WAITING_MAX);
    CU_ASSERT_FALSE(dr_engine_full(r.engine, &out));
    rig_stop(&r);
}

static void logits_reach_the_sink(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    uint8_t frame[4096];
    size_t bytes = 0;
    const float value[] = {1, 2, 2.5F};
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    const struct dr_logits logits = {
        .epoch = r.epoch, .step = 1, .request = id, .position = 2, .first = 10, .n = 3, .value = value};
    CU_ASSERT_EQUAL(dr_encode_logits(&logits, r.epoch, &r.arena, frame, sizeof frame, &bytes).code, DR_OK);
    CU_ASSERT_EQUAL(dr_link_send(r.link, frame, bytes).code, DR_OK);
    rig_done(&r, id, DR_FINISH_LENGTH);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "L2:2.5 D:length");
    rig_stop(&r);
}

static void cancel_goes_down_once(void) {
    struct rig r;
    struct told t;
    uint64_t id, word = 0;
    const uint8_t *body = NULL;
    size_t bytes = 0;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    dr_engine_cancel(r.engine, id);
    dr_engine_cancel(r.engine, id);
    dr_engine_cancel(r.engine, id + 5); /* unknown: nothing */
    CU_ASSERT_TRUE_FATAL(rig_expect(&r, DR_MSG_CANCEL, &body, &bytes));
    CU_ASSERT_EQUAL(dr_decode_word(body, bytes, &word).code, DR_OK);
    CU_ASSERT_EQUAL(word, id);
    rig_done(&r, id, DR_FINISH_CANCELLED);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:cancelled");
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL)); /* so the second cancel sent nothing */
    dr_engine_destroy(r.engine);                               /* ends what is open */
    r.engine = NULL;
    CU_ASSERT_STRING_EQUAL(t.text, "D:cancelled");
    rig_stop(&r);
}

static void too_many_ids_are_refused_at_once(void) {
    struct rig r;
    struct told t;
    rig_prepare(&r, NULL);
    rig_up(&r);
    told_init(&t);
    const struct dr_submit submit = {.request = 1, .n_ids = DR_PROMPT_IDS_MAX + 1};
    const struct dr_engine_sink sink = {.arg = &t};
    CU_ASSERT_EQUAL(dr_engine_submit(r.engine, &submit, &sink).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "request: 1048577 ids, 0 biases, 0 end ids; at most 1048576, 1024, 64");
    rig_stop(&r);
}

/* ---- loss and relaunch ---- */

static void link_close_loses_and_relaunches(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    const uint64_t first = r.epoch;
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    rig_word(&r, DR_MSG_ACCEPTED, id);
    rig_hang_up(&r);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "A D:lost");
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK); /* waits for the next epoch */
    rig_connect(&r);
    CU_ASSERT_NOT_EQUAL(r.epoch, first);
    rig_ready(&r, 0);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    rig_done(&r, id, DR_FINISH_STOP);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:stop");
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    do dr_engine_facts(r.engine, facts); /* the count falls after the sink has returned */
    while (facts->open_requests > 0);
    CU_ASSERT_EQUAL(facts->relaunches, 1);
    CU_ASSERT_EQUAL(facts->state, DR_ENGINE_READY);
    CU_ASSERT_STRING_EQUAL(facts->reason, "the coordinator closed its link");
    free(facts);
    rig_stop(&r);
}

/* ---- watched steps ---- */

struct watched {
    _Atomic int32_t n_step, n_report;
    struct dr_step_news last;
};

static void on_step(void *arg, const struct dr_step_news *news) {
    struct watched *w = arg;
    w->last = *news;
    w->n_step++;
}

static void on_report(void *arg, const struct dr_step_report *report, uint64_t heard_ns) {
    struct watched *w = arg;
    CU_ASSERT(report->rank == 1 && report->part_ns[DR_PART_HEAD] == 3 && heard_ns > 0);
    w->n_report++;
}

static void watching_survives_a_relaunch(void) {
    struct rig r;
    struct told t;
    struct watched w = {.n_step = 0};
    const struct dr_step_sink sink = {.on_step = on_step, .on_report = on_report, .arg = &w};
    uint64_t id, word = 0;
    const uint8_t *body = NULL;
    size_t bytes = 0;
    rig_prepare(&r, NULL);
    rig_up(&r);
    dr_engine_watch(r.engine, DR_WATCH_STEPS | DR_WATCH_PREFILL_FIRST, &sink);
    for (int epoch = 0; epoch < 2; epoch++) {
        CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
        CU_ASSERT_TRUE_FATAL(rig_expect(&r, DR_MSG_WATCH, &body, &bytes)); /* before the request */
        CU_ASSERT_EQUAL(dr_decode_word(body, bytes, &word).code, DR_OK);
        CU_ASSERT_EQUAL(word, 3);
        CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
        struct dr_step_report report = {.epoch = r.epoch, .step = 2, .rank = 1};
        report.part_ns[DR_PART_HEAD] = 3;
        rig_step(&r, &(struct dr_step_news){.step = 2, .done_ns = 7, .generated_rows = 5});
        rig_report(&r, &report);
        rig_done(&r, id, DR_FINISH_STOP);
        CU_ASSERT_TRUE(told_ends(&t));
        CU_ASSERT(w.n_step == epoch + 1 && w.n_report == epoch + 1);
        CU_ASSERT(w.last.step == 2 && w.last.done_ns == 7 && w.last.generated_rows == 5);
        if (epoch == 1) break;
        rig_hang_up(&r);
        rig_connect(&r);
        rig_ready(&r, 0);
    }
    struct dr_step_report beyond = {.epoch = r.epoch, .rank = 2}; /* the layout has two */
    rig_report(&r, &beyond);
    CU_ASSERT_TRUE(rig_state_becomes(&r, DR_ENGINE_RELAUNCHING));
    rig_stop(&r);
}

static void last_words_are_the_reason(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    rig_fault(&r, DR_ETIME, "rank 1: step 17 is late");
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:lost");
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    dr_engine_facts(r.engine, facts);
    CU_ASSERT_STRING_EQUAL(facts->reason, "rank 1: step 17 is late");
    CU_ASSERT_EQUAL(facts->code, DR_EPEER); /* once READY, every loss is a lost cluster */
    free(facts);
    rig_stop(&r);
}

static void dead_rank_is_seen_by_its_pid(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    const pid_t rank = fork();
    if (rank == 0) {
        for (;;) pause();
    }
    rig_start(&r);
    rig_connect(&r);
    rig_ready(&r, rank);
    CU_ASSERT_EQUAL_FATAL(dr_engine_wait(r.engine, patience).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    kill(rank, SIGKILL); /* the link stays open */
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:lost");
    waitpid(rank, NULL, 0);
    rig_stop(&r);
}

static void silence_is_a_loss(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    r.setup.times.silence = 300000000;
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:lost");
    rig_stop(&r);
}

static void a_bad_frame_is_a_loss(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    rig_word(&r, DR_MSG_DRAIN, 0); /* a word that only the gateway says */
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:lost");
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    dr_engine_facts(r.engine, facts);
    CU_ASSERT_STRING_EQUAL(facts->reason,
                           "the coordinator's link: a coordinator does not send DRAIN to a gateway");
    free(facts);
    rig_stop(&r);
}

static void another_epoch_is_a_loss(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    r.epoch++;
    rig_word(&r, DR_MSG_ACCEPTED, id);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:lost");
    rig_stop(&r);
}

static void waiting_requests_give_up(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    r.setup.times.queue_wait = 100000000;
    rig_start(&r);
    rig_connect(&r); /* never READY */
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "R:the cluster is still being started; try again in a few seconds");
    rig_stop(&r);
}

static void a_waiting_request_is_cancelled_here(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_start(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    dr_engine_cancel(r.engine, id);
    CU_ASSERT_TRUE(told_ends(&t));
    CU_ASSERT_STRING_EQUAL(t.text, "D:cancelled");
    rig_stop(&r);
}

static void five_failures_latch(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    for (int i = 0; i < 4; i++) {
        rig_hang_up(&r);
        rig_connect(&r);
        rig_ready(&r, 0);
        CU_ASSERT_TRUE_FATAL(rig_state_becomes(&r, DR_ENGINE_READY));
    }
    rig_hang_up(&r);
    CU_ASSERT_TRUE(rig_state_becomes(&r, DR_ENGINE_LATCHED));
    CU_ASSERT_EQUAL(rig_submit(&r, &t, &id).code, DR_EPEER);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "the cluster is down: the coordinator closed its link");
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_EPEER);
    rig_stop(&r);
}

/* ---- a first start that fails ---- */

static void a_refused_model_is_final(void) {
    struct rig r;
    rig_prepare(&r, NULL);
    rig_start(&r);
    rig_connect(&r);
    rig_fault(&r, DR_EMODEL, "rank 1: tensor x has the wrong shape");
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "rank 1: tensor x has the wrong shape");
    CU_ASSERT_TRUE(rig_state_becomes(&r, DR_ENGINE_STOPPED));
    rig_stop(&r);
}

static void an_exit_status_tells_when_nobody_else_does(void) {
    static const struct {
        const char *body;
        enum dr_code code;
        const char *text;
    } cases[] = {
        {"exit 78", DR_EMODEL, "the cluster's job ended with status 78"},
        {"exit 66", DR_ENOENT, "the cluster's job ended with status 66"},
        {"exit 137", DR_EPEER, "the cluster's job ended with status 137"},
        {"kill -9 $$", DR_EPEER, "the cluster's job ended with status 137"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig r;
        rig_prepare(&r, cases[i].body);
        rig_start(&r);
        CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, cases[i].code);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), cases[i].text);
        rig_stop(&r);
    }
}

static void a_missing_mpirun_is_named(void) {
    struct rig r;
    rig_prepare(&r, NULL);
    snprintf(r.setup.launch.mpirun, sizeof r.setup.launch.mpirun, "/nowhere/mpirun");
    rig_start(&r);
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_ENOENT);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "/nowhere/mpirun cannot be started: No such file or directory; is Open MPI installed and in PATH?");
    rig_stop(&r);
}

static void another_layout_is_refused(void) {
    struct rig r;
    rig_prepare(&r, NULL);
    rig_start(&r);
    rig_connect(&r);
    r.setup.layout.n_page--;
    rig_ready(&r, 0);
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_EPEER);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "the coordinator's layout (tp 2, pp 1, c 2"));
    rig_stop(&r);
}

static void a_wrong_token_never_becomes_ready(void) {
    struct rig r;
    rig_prepare(&r, NULL);
    rig_start(&r);
    rig_connect(&r);
    rig_hang_up(&r);
    struct rig other = r;
    uint8_t token[32] = {1};
    if (dr_link_connect(other.setup.launch.link, token, &other.link).code == DR_OK)
        dr_link_destroy(other.link);
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, patience).code, DR_EPEER);
    rig_stop(&r);
}

static void waiting_has_an_end(void) {
    struct rig r;
    rig_prepare(&r, NULL);
    rig_start(&r);
    CU_ASSERT_EQUAL(dr_engine_wait(r.engine, 1000000).code, DR_ETIME);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "the cluster is not ready after 0.0 s");
    rig_stop(&r);
}

/* ---- drain and end ---- */

static void *drain_body(void *engine) {
    dr_engine_drain(engine, patience);
    return NULL;
}

static void drain_waits_for_open_requests(void) {
    struct rig r;
    struct told t, late;
    uint64_t id, id2;
    pthread_t drain;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    CU_ASSERT_EQUAL_FATAL(pthread_create(&drain, NULL, drain_body, r.engine), 0);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_DRAIN, NULL, NULL));
    CU_ASSERT_TRUE(rig_state_becomes(&r, DR_ENGINE_DRAINING));
    CU_ASSERT_EQUAL(rig_submit(&r, &late, &id2).code, DR_EPEER);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "the server is shutting down; send the request to another one");
    rig_tokens(&r, id, 3, (const uint32_t[]){4}, 1);
    rig_done(&r, id, DR_FINISH_LENGTH);
    pthread_join(drain, NULL);
    CU_ASSERT_STRING_EQUAL(t.text, "T4 D:length");
    rig_stop(&r);
}

static void drain_cancels_what_is_late(void) {
    struct rig r;
    struct told t;
    uint64_t id;
    rig_prepare(&r, NULL);
    rig_up(&r);
    CU_ASSERT_EQUAL_FATAL(rig_submit(&r, &t, &id).code, DR_OK);
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_SUBMIT, NULL, NULL));
    dr_engine_drain(r.engine, 1000000); /* the coordinator never answers */
    CU_ASSERT_STRING_EQUAL(t.text, "D:cancelled");
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_DRAIN, NULL, NULL));
    CU_ASSERT_TRUE(rig_expect(&r, DR_MSG_CANCEL, NULL, NULL));
    rig_stop(&r);
}

static void nothing_is_left_after_destroy(void) {
    struct rig r;
    rig_prepare(&r, "trap '' TERM; sleep 1000 & echo $! > \"$(dirname \"$0\")/child\"; wait; sleep 1000");
    rig_up(&r);
    char run[128];
    const int32_t job = rig_read_pid(&r, "pid"), child = rig_read_pid(&r, "child");
    CU_ASSERT_TRUE_FATAL(job > 1 && child > 1);
    snprintf(run, sizeof run, "%.100s", r.engine->setup.launch.run);
    CU_ASSERT_EQUAL(access(run, F_OK), 0);
    rig_hang_up(&r);
    dr_engine_destroy(
        r.engine); /* the job ignores SIGTERM: SIGKILL comes after 3 s, its orphan is killed too */
    r.engine = NULL;
    CU_ASSERT_NOT_EQUAL(access(run, F_OK), 0);
    CU_ASSERT_TRUE(rig_pid_ends(job));
    CU_ASSERT_TRUE(rig_pid_ends(child));
    rig_stop(&r);
}

static void nothing_is_left_after_a_kill(void) {
    struct rig r;
    rig_prepare(&r, "sleep 1000 & echo $! > \"$(dirname \"$0\")/child\"; wait");
    const pid_t gateway = fork();
    if (gateway == 0) {
        rig_start(&r);
        for (;;) pause();
    }
    char text[256], run[256];
    const int32_t job = rig_read_pid(&r, "pid"), child = rig_read_pid(&r, "child");
    CU_ASSERT_TRUE_FATAL(job > 1 && child > 1);
    snprintf(text, sizeof text, "%s/launch", r.dir);
    FILE *f = fopen(text, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL_FATAL(fscanf(f, "%255s", run), 1);
    fclose(f);
    *strrchr(run, '/') = 0;
    CU_ASSERT_EQUAL(access(run, F_OK), 0);
    kill(gateway, SIGKILL);
    waitpid(gateway, NULL, 0);
    CU_ASSERT_TRUE(rig_pid_ends(job));
    CU_ASSERT_TRUE(rig_pid_ends(child));
    for (int i = 0; i < 200 && access(run, F_OK) == 0; i++) usleep(50000);
    CU_ASSERT_NOT_EQUAL(access(run, F_OK), 0);
    rig_stop(&r);
}

static CU_TestInfo cases[] = {
    {"a request is accepted, gets tokens and ends", accepted_tokens_done},
    {"a refusal ends a request", refused_ends_it},
    {"a refusal is repeated here until there is room", a_refusal_is_repeated_until_there_is_room},
    {"logits reach the sink", logits_reach_the_sink},
    {"a cancel goes down once and destroy ends the rest", cancel_goes_down_once},
    {"a request beyond the limits is refused at once", too_many_ids_are_refused_at_once},
    {"a closed link loses open requests and starts the next epoch", link_close_loses_and_relaunches},
    {"watching is asked for in every epoch, before requests", watching_survives_a_relaunch},
    {"the last words of a rank are the reason", last_words_are_the_reason},
    {"a dead rank is seen by its pid", dead_rank_is_seen_by_its_pid},
    {"a silent coordinator is a loss", silence_is_a_loss},
    {"a frame that does not belong here is a loss", a_bad_frame_is_a_loss},
    {"a frame of another epoch is a loss", another_epoch_is_a_loss},
    {"a request that waits too long is refused", waiting_requests_give_up},
    {"a waiting request can be cancelled", a_waiting_request_is_cancelled_here},
    {"five failures latch the cluster down", five_failures_latch},
    {"a refused model is final and keeps its text", a_refused_model_is_final},
    {"the exit status of the job tells when nobody else does", an_exit_status_tells_when_nobody_else_does},
    {"a missing mpirun is named", a_missing_mpirun_is_named},
    {"another layout is refused", another_layout_is_refused},
    {"a wrong token never becomes ready", a_wrong_token_never_becomes_ready},
    {"waiting for readiness has an end", waiting_has_an_end},
    {"drain waits for open requests and refuses new ones", drain_waits_for_open_requests},
    {"drain cancels what is late even when nobody answers", drain_cancels_what_is_late},
    {"no process and no folder is left after destroy", nothing_is_left_after_destroy},
    {"no process and no folder is left after a kill of the gateway", nothing_is_left_after_a_kill},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_engine = {.pName = "gateway/engine", .pTests = cases};
