/* test_bench_run.c - a run of a case, against a coordinator played by the test.
 * In:   frames.      Out: what the runner makes of them.
 * Owns: a rig and a thread that runs the case.
 * Why:  a run must end whatever the cluster does, and must not end before every report is there. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "gateway/bench/run.h"
#include "tests/support/runner.h"
#include "tests/unit/gateway/cluster_rig.h"

enum { FITTING = 64 };

struct play {
    struct rig r;
    struct dr_interrupt interrupt;
    struct dr_bench_runner *runner;
    struct dr_bench_case c;
    struct dr_bench_run run;
    pthread_t thread;
    enum dr_code code;
    char text[512];
    uint64_t request[FITTING];
    char salt[DR_SALT_MAX + 1]; /* of the last submit */
};

static void *run_case(void *arg) {
    struct play *p = arg;
    dr_status st = dr_bench_runner_run(p->runner, &p->c, &p->run);
    p->code = st.code;
    snprintf(p->text, sizeof p->text, "%s", st.code == DR_OK ? "" : dr_error_text());
    return NULL;
}

static void open_rig(struct play *p, struct dr_bench_case c) {
    memset(p, 0, sizeof *p);
    p->interrupt.fd = -1;
    p->c = c;
    rig_prepare(&p->r, NULL);
    rig_up(&p->r);
    CU_ASSERT_EQUAL_FATAL(dr_bench_runner_create(p->r.engine, &p->interrupt, &p->r.setup.layout,
                                                 p->r.config.vocab, 3, &p->runner)
                              .code,
                          DR_OK);
    CU_ASSERT_TRUE(rig_expect(&p->r, DR_MSG_WATCH, NULL, NULL));
}

static void open_play(struct play *p, struct dr_bench_case c) {
    open_rig(p, c);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&p->thread, NULL, run_case, p), 0);
}

static void close_play(struct play *p) {
    rig_stop(&p->r);
    dr_bench_runner_destroy(p->runner);
}

/* The next n submits: greedy, of the case's lengths, ids of the seed. */
static void expect_submits(struct play *p, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const uint8_t *body = NULL;
        size_t bytes = 0;
        struct dr_submit s;
        CU_ASSERT_TRUE_FATAL(rig_expect(&p->r, DR_MSG_SUBMIT, &body, &bytes));
        dr_arena_rewind(&p->r.arena, 0);
        CU_ASSERT_EQUAL_FATAL(dr_decode_submit(body, bytes, &p->r.arena, &s).code, DR_OK);
        CU_ASSERT(s.ignore_eos && s.sampling.temperature == 0 && s.n_end == 0);
        CU_ASSERT_EQUAL(s.n_ids, dr_bench_case_prompt(&p->c));
        CU_ASSERT_EQUAL(s.max_tokens, dr_bench_case_draws(&p->c));
        for (int32_t k = 0; k < s.n_ids; k++)
            CU_ASSERT_EQUAL(s.ids[k], dr_bench_id(3, i, k, p->r.config.vocab));
        p->request[i] = s.request;
        snprintf(p->salt, sizeof p->salt, "%s", s.salt);
    }
}

static void step(struct play *p, uint64_t number, int32_t prompt, int32_t generated) {
    rig_step(&p->r, &(struct dr_step_news){.step = number,
                                           .sent_ns = 100 * number,
                                           .done_ns = 100 * number + 90,
                                           .prompt_rows = prompt,
                                           .generated_rows = generated,
                                           .n_decode = generated,
                                           .n_drawn = generated});
}

static void report(struct play *p, uint64_t number, int32_t rank) {
    struct dr_step_report r = {.epoch = p->r.epoch, .step = number, .rank = rank, .begin_ns = 1, .end_ns = 5};
    r.part_ns[DR_PART_REST] = 4;
    r.peak_bytes = 1000 + (uint64_t)rank;
    rig_report(&p->r, &r);
}

/* Two sequences of two timed tokens; a report overtakes the news of its step, the last comes after the end.
 */
static void a_run_waits_for_every_report(void) {
    struct play p;
    open_play(&p, (struct dr_bench_case){.gen = 2, .depth = 3, .batch = 2});
    expect_submits(&p, 2);
    step(&p, 7, 6, 0);
    report(&p, 7, 0);
    report(&p, 7, 1);
    for (uint32_t i = 0; i < 3; i++) {
        if (i > 0) {
            report(&p, 7 + i, 1);
            step(&p, 7 + i, 0, 2);
        }
        if (i == 1) report(&p, 8, 0);
        for (int k = 0; k < 2; k++)
            rig_tokens(&p.r, p.request[k], 3 + (int32_t)i, (const uint32_t[]){5 + i}, 1);
    }
    rig_done(&p.r, p.request[1], DR_FINISH_LENGTH);
    rig_done(&p.r, p.request[0], DR_FINISH_LENGTH);
    report(&p, 9, 0);
    pthread_join(p.thread, NULL);
    CU_ASSERT_EQUAL(p.code, DR_OK);
    CU_ASSERT(p.run.n_step == 3 && p.run.n_rank == 2 && p.run.n_timed == 2 && p.run.tokens == 4);
    CU_ASSERT(p.run.begin_ns == 790 && p.run.end_ns == 990);
    CU_ASSERT(p.run.report[3].peak_bytes == 1001 && p.run.report[4].peak_bytes == 1000);
    CU_ASSERT(p.run.digest != p.run.digest_one && p.run.digest != 0);
    close_play(&p);
}

static void what_the_cluster_does_ends_the_run(void) {
    static const struct {
        const char *text;
        enum dr_code code;
    } expected[] = {
        {"a sequence was refused: full", DR_EREQUEST},
        {"the cluster was lost", DR_EPEER},
        {"the model's logits are no numbers (infinite or NaN)", DR_EREQUEST},
        {"a sequence ended before its length", DR_EREQUEST},
        {"the cluster's reports of this run are not of this run", DR_EREQUEST},
        {"sequence 0 has 1 ids, expected 3", DR_EREQUEST},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct play p;
        open_play(&p, (struct dr_bench_case){.gen = 2, .batch = 1});
        expect_submits(&p, 1);
        const uint64_t id = p.request[0];
        rig_tokens(&p.r, id, 1, (const uint32_t[]){5}, 1);
        if (i == 0) {
            struct dr_refused refused = {.request = id, .reason = DR_REFUSE_FULL, .text = "full"};
            uint8_t frame[2048];
            size_t bytes = 0;
            CU_ASSERT(dr_encode_refused(&refused, p.r.epoch, &p.r.arena, frame, sizeof frame, &bytes).code ==
                      DR_OK);
            CU_ASSERT_EQUAL(dr_link_send(p.r.link, frame, bytes).code, DR_OK);
        }
        if (i == 1) rig_hang_up(&p.r);
        if (i == 2) rig_done(&p.r, id, DR_FINISH_NUMERIC);
        if (i == 3) rig_done(&p.r, id, DR_FINISH_STOP);
        if (i == 4) {
            step(&p, 7, 1, 0);
            step(&p, 7, 1, 0); /* twice the same */
            rig_tokens(&p.r, id, 2, (const uint32_t[]){5, 6}, 2);
            rig_done(&p.r, id, DR_FINISH_LENGTH);
        }
        if (i == 5) rig_done(&p.r, id, DR_FINISH_LENGTH);
        pthread_join(p.thread, NULL);
        CU_ASSERT_EQUAL(p.code, expected[i].code);
        CU_ASSERT_STRING_EQUAL(p.text, expected[i].text);
        close_play(&p);
    }
}

/* Plays one more run of p->c with one sequence, of whose prompt `found` tokens were in the cache. */
static void play_found(struct play *p, uint64_t first_step, int32_t found) {
    const int32_t n = dr_bench_case_prompt(&p->c), draws = dr_bench_case_draws(&p->c);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&p->thread, NULL, run_case, p), 0);
    expect_submits(p, 1);
    for (int32_t i = 0; i < draws; i++) {
        step(p, first_step + (uint64_t)i, i == 0 ? n - found : 0, i == 0 ? 0 : 1);
        for (int32_t rank = 0; rank < 2; rank++) report(p, first_step + (uint64_t)i, rank);
        rig_tokens(&p->r, p->request[0], n + i, (const uint32_t[]){5}, 1);
    }
    const struct dr_done done = {.request = p->request[0],
                                 .finish = DR_FINISH_LENGTH,
                                 .stop_id = UINT32_MAX,
                                 .n_prompt = n,
                                 .n_cached = found,
                                 .n_output = draws};
    uint8_t frame[512];
    size_t bytes = 0;
    CU_ASSERT(dr_encode_done(&done, p->r.epoch, &p->r.arena, frame, sizeof frame, &bytes).code == DR_OK);
    CU_ASSERT_EQUAL(dr_link_send(p->r.link, frame, bytes).code, DR_OK);
    pthread_join(p->thread, NULL);
}

/* Only a repetition of a generation case has the salt of the run before; it ends with fewer rows. A prefill
 * that finds anything is no measurement. */
static void repetitions_find_what_they_do_not_measure(void) {
    struct play p;
    char salt[DR_SALT_MAX + 1];
    const struct dr_bench_case gen = {.gen = 2, .depth = 9, .batch = 1},
                               deeper = {.gen = 2, .depth = 10, .batch = 1},
                               prefill = {.prompt = 12, .batch = 1};
    open_rig(&p, gen);
    play_found(&p, 7, 0);
    CU_ASSERT(p.code == DR_OK && p.salt[0]);
    snprintf(salt, sizeof salt, "%s", p.salt);
    play_found(&p, 20, 8);
    CU_ASSERT(p.code == DR_OK && p.run.tokens == 2 && strcmp(p.salt, salt) == 0);
    p.c = deeper;
    play_found(&p, 30, 0);
    CU_ASSERT(p.code == DR_OK && strcmp(p.salt, salt) != 0);
    for (uint64_t i = 0; i < 2; i++) {
        p.c = prefill;
        snprintf(salt, sizeof salt, "%s", p.salt);
        play_found(&p, 40 + 10 * i, i ? 8 : 0);
        CU_ASSERT(p.code == (i ? DR_EREQUEST : DR_OK) && strcmp(p.salt, salt) != 0);
    }
    CU_ASSERT_STRING_EQUAL(
        p.text, "8 prompt tokens were found in the cache, expected none: no time of computing them");
    close_play(&p);
}

/* The queue holds 131,072 tokens of this short context: 64 prompts of almost a context. The one behind them
 * waits until a step has taken just enough rows of the first. */
static void submits_wait_for_the_queue(void) {
    struct play p;
    struct dr_bench_case c = {.prompt = 1, .batch = FITTING + 2};
    struct dr_config config;
    CU_ASSERT_EQUAL_FATAL(dr_config_load(DR_SOURCE_DIR "/deploy/models/lexi-15m", &config).code, DR_OK);
    const int32_t n = c.prompt = config.n_position - 1;
    const int32_t least = (FITTING + 1) * n - (int32_t)dr_waiting_tokens_most(config.n_position);
    CU_ASSERT_FATAL(least > 1 && least < n);
    open_play(&p, c);
    expect_submits(&p, FITTING);
    step(&p, 1, least - 1, 0);
    step(&p, 2, 1, 0);
    const uint8_t *body = NULL;
    size_t bytes = 0;
    struct dr_submit s = {.n_ids = 0};
    CU_ASSERT_TRUE(rig_expect(&p.r, DR_MSG_SUBMIT, &body, &bytes));
    dr_arena_rewind(&p.r.arena, 0);
    CU_ASSERT(dr_decode_submit(body, bytes, &p.r.arena, &s).code == DR_OK);
    CU_ASSERT(s.n_ids == n && s.ids[9] == dr_bench_id(3, FITTING, 9, config.vocab));
    rig_hang_up(&p.r);
    pthread_join(p.thread, NULL);
    CU_ASSERT_EQUAL(p.code, DR_EPEER);
    close_play(&p);
}

static CU_TestInfo cases[] = {
    {"a run ends when every report is there", a_run_waits_for_every_report},
    {"a run ends with the cluster's reason", what_the_cluster_does_ends_the_run},
    {"repetitions find only what they do not measure", repetitions_find_what_they_do_not_measure},
    {"submits wait for the coordinator's queue", submits_wait_for_the_queue},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bench_run = {.pName = "gateway/bench_run", .pTests = cases};
