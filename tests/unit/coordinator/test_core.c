/* test_core.c - the core, case by case.
 * In:   submits, results, faults.      Out: checks.
 * Owns: nothing.
 * Why:  each promise of core.h and each refusal has a case that breaks when the promise does. */
#include <math.h>
#include <string.h>

#include "coordinator/admission.h"
#include "rig.h"

#include <CUnit/CUnit.h>

static const struct fake_wish usual = {
    .context = 128, .seqs_max = 4, .step_tokens = 16, .n_page = 64, .page_tokens = 8};

static uint32_t prompt[4096]; /* filled once by ids(); never changed afterwards */

static const uint32_t *ids(void) {
    for (uint32_t i = 0; i < 4096; i++) prompt[i] = (uint32_t)(splitmix(i) % FAKE_VOCAB);
    return prompt;
}

static void one_request_gets_its_tokens(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 40, 10);
    s.sampling.n_top = 3;
    rig_submit(&g, &s);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    CU_ASSERT_EQUAL(g.n_step, 3 + 9); /* 40 rows in chunks of 16, the last one draws; then one a step */
    CU_ASSERT_EQUAL(g.told[1].end.n_output, 10);
    CU_ASSERT_EQUAL(g.told[1].end.queue_ns, 0);
    CU_ASSERT_EQUAL(g.told[1].end.prefill_ns, 3000000);
    CU_ASSERT_EQUAL(g.told[1].end.decode_ns, 9000000);
    struct dr_stats st;
    dr_core_stats(g.core, g.now + 5, &st);
    CU_ASSERT(st.steps == 12 && st.prompt_tokens == 40 && st.generated_tokens == 10 &&
              st.last_step_age_ns == 5);
    CU_ASSERT(st.last_step_ns == 1000000 && st.pages_total == 64);
    rig_fini(&g);
}

static void several_share_a_step(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s[4];
    for (int32_t i = 0; i < 4; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids() + 11 * i, 4, 6);
        rig_submit(&g, &s[i]);
    }
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT_EQUAL(g.plan->n_segment, 4);
    CU_ASSERT_EQUAL(g.plan->n_open, 4);
    rig_finish(&g);
    rig_run(&g, 100);
    CU_ASSERT_EQUAL(g.n_step, 6);
    for (int32_t i = 0; i < 4; i++) rig_expect_answer(&g, &s[i]);
    rig_fini(&g);
}

static void decodes_go_before_prefill(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit a = fake_submit(1, ids(), 4, 50), b = fake_submit(2, ids() + 9, 60, 5);
    rig_submit(&g, &a);
    CU_ASSERT(rig_step(&g));
    rig_submit(&g, &b);
    for (int32_t i = 0; i < 3; i++) {
        CU_ASSERT(rig_begin(&g));
        CU_ASSERT_EQUAL(g.plan->n_segment, 2);
        CU_ASSERT(g.plan->segment[0].slot == 0 && g.plan->segment[0].n_rows == 1);
        CU_ASSERT(g.plan->segment[1].n_rows == 15); /* the decode takes one row of the budget of 16 */
        rig_finish(&g);
    }
    rig_run(&g, 100);
    rig_expect_answer(&g, &a);
    rig_expect_answer(&g, &b);
    rig_fini(&g);
}

/* Three prompts of 24, 4 and 40 rows in steps of 16: nobody draws a second token before all have drawn the
 * first; then all go on together. */
static void decodes_wait_for_prompts_when_asked(void) {
    struct rig g;
    rig_init(&g, usual);
    dr_core_prefill_first(g.core, true);
    struct dr_submit s[3] = {fake_submit(1, ids(), 24, 6), fake_submit(2, ids() + 5, 4, 6),
                             fake_submit(3, ids() + 9, 40, 6)};
    for (int32_t i = 0; i < 3; i++) rig_submit(&g, &s[i]);
    int32_t prefills = 0, rows = 0;
    while (rows < 24 + 4 + 40 && rig_begin(&g)) {
        for (int32_t i = 0; i < g.plan->n_segment; i++) {
            CU_ASSERT_EQUAL(g.plan->segment[i].role, DR_TOKENS_PROMPT);
            rows += g.plan->segment[i].n_rows;
        }
        rig_finish(&g);
        prefills++;
    }
    CU_ASSERT_EQUAL(prefills, 5); /* 68 rows */
    struct dr_step_news last = dr_core_last(g.core);
    CU_ASSERT(last.step == 5 && last.prompt_rows == 4 && last.generated_rows == 0);
    for (int32_t i = 0; i < 5; i++) {
        CU_ASSERT(rig_begin(&g));
        CU_ASSERT_EQUAL(g.plan->n_segment, 3);
        rig_finish(&g);
        last = dr_core_last(g.core);
        CU_ASSERT(last.prompt_rows == 0 && last.generated_rows == 3 && last.done_ns >= last.sent_ns);
    }
    for (int32_t i = 0; i < 3; i++) rig_expect_answer(&g, &s[i]);
    rig_fini(&g);
}

/* The prompt at the head of the queue does not fit beside the one that runs: that one goes on. */
static void decodes_do_not_wait_for_a_prompt_that_cannot_run(void) {
    struct rig g;
    struct fake_wish small = usual;
    small.seqs_max = 1;
    rig_init(&g, small);
    dr_core_prefill_first(g.core, true);
    struct dr_submit a = fake_submit(1, ids(), 4, 5), b = fake_submit(2, ids() + 5, 4, 5);
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_run(&g, 100);
    rig_expect_answer(&g, &a);
    rig_expect_answer(&g, &b);
    rig_fini(&g);
}

static void end_ids_stop_and_are_delivered(void) {
    struct rig g;
    struct answer free_run;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 5, 20);
    fake_answer(&g.fake, &s, &free_run);
    uint32_t end[2] = {60, free_run.ids[7]};
    int32_t first = 0;
    while (free_run.ids[first] != end[0] && free_run.ids[first] != end[1]) first++;
    s.n_end = 2;
    s.end_ids = end;
    rig_submit(&g, &s);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    CU_ASSERT_EQUAL(g.told[1].end.finish, DR_FINISH_STOP);
    CU_ASSERT_EQUAL(g.told[1].n, first + 1); /* the end token is counted and delivered */
    CU_ASSERT_EQUAL(g.told[1].end.stop_id, free_run.ids[first]);
    /* below min_tokens it is a token like others; with ignore_eos always */
    struct dr_submit later = s, never = s;
    later.request = 2;
    later.sampling.seed = never.sampling.seed = 1;
    later.min_tokens = first + 2;
    never.request = 3;
    never.ignore_eos = true;
    rig_submit(&g, &later);
    rig_submit(&g, &never);
    rig_run(&g, 100);
    rig_expect_answer(&g, &later);
    rig_expect_answer(&g, &never);
    CU_ASSERT(g.told[2].n > first + 1);
    CU_ASSERT(g.told[3].n == 20 && g.told[3].end.finish == DR_FINISH_LENGTH &&
              g.told[3].end.stop_id == UINT32_MAX);
    rig_fini(&g);
}

static void max_tokens_is_clipped_to_the_context(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 120, 1000), full = fake_submit(2, ids(), 127, 9);
    rig_submit(&g, &s);
    rig_submit(&g, &full);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    rig_expect_answer(&g, &full);
    CU_ASSERT(g.told[1].n == 8 && g.told[2].n == 1 && g.told[2].end.finish == DR_FINISH_LENGTH);
    rig_fini(&g);
}

static void scores_cover_each_prompt_token_once(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit only = fake_submit(1, ids(), 50, 0), both = fake_submit(2, ids(), 50, 4),
                     one = fake_submit(3, ids(), 1, 0);
    struct dr_submit full = fake_submit(4, ids(), 128, 0);
    only.prompt_top = 0;
    both.prompt_top = 2;
    one.prompt_top = full.prompt_top = 1;
    rig_submit(&g, &only);
    rig_submit(&g, &both);
    rig_submit(&g, &one);
    rig_submit(&g, &full); /* a whole context may be scored */
    rig_run(&g, 100);
    rig_expect_answer(&g, &only);
    rig_expect_answer(&g, &both);
    rig_expect_answer(&g, &one);
    rig_expect_answer(&g, &full);
    CU_ASSERT(g.told[1].n_scored == 49 && g.told[2].n_scored == 49 && g.told[3].n_scored == 0 &&
              g.told[4].n_scored == 127);
    CU_ASSERT(g.told[1].n == 0 && g.told[1].end.finish == DR_FINISH_LENGTH && g.told[2].n == 4);
    rig_fini(&g);
}

static void logits_of_every_prompt_row_come_before_done(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit a = fake_submit(1, ids(), 40, 0), b = fake_submit(2, ids() + 3, 9, 0),
                     c = fake_submit(3, ids(), 20, 3);
    a.logits = b.logits = true;
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_submit(&g, &c);
    CU_ASSERT(!dr_core_wants_logits(g.core));
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT(dr_core_wants_logits(g.core));
    rig_finish(&g);
    rig_run(&g, 100);
    rig_expect_answer(&g, &a);
    rig_expect_answer(&g, &b);
    rig_expect_answer(&g, &c);
    rig_fini(&g);
}

static void max_tokens_zero_only_prefills(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 20, 0);
    rig_submit(&g, &s);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    CU_ASSERT(g.told[1].n == 0 && g.told[1].end.finish == DR_FINISH_LENGTH);
    rig_fini(&g);
}

static void delivered_tokens_go_on_where_they_ended(void) {
    struct rig g;
    struct answer whole;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 20, 30);
    s.sampling.repetition = 1.1F;
    fake_answer(&g.fake, &s, &whole);
    uint32_t again[32];
    memcpy(again, ids(), 20 * sizeof *again);
    memcpy(again + 20, whole.ids, 12 * sizeof *again);
    struct dr_submit r = fake_submit(2, again, 32, 18);
    r.n_delivered = 12;
    r.sampling = s.sampling;
    rig_submit(&g, &r);
    rig_run(&g, 100);
    rig_expect_answer(&g, &r);
    CU_ASSERT(g.told[2].n == 18 && memcmp(g.told[2].ids, whole.ids + 12, 18 * sizeof *again) == 0);
    rig_fini(&g);
}

static void few_pages_preempt_the_youngest_without_a_trace(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 64, .seqs_max = 4, .step_tokens = 16, .n_page = 9, .page_tokens = 8});
    struct dr_submit s[4];
    for (int32_t i = 0; i < 4; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids() + 5 * i, 10, 40);
        s[i].sampling.presence = i % 2 ? 0.5F : 0;
        s[i].sampling.n_top = 0;
        rig_submit(&g, &s[i]);
    }
    rig_run(&g, 2000);
    for (int32_t i = 0; i < 4; i++) rig_expect_answer(&g, &s[i]);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.preempted > 0);
    CU_ASSERT(g.told[1].done_step <= g.told[4].done_step); /* the oldest is never the one to wait */
    rig_fini(&g);
}

static void preempted_scores_are_not_told_twice(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 64, .seqs_max = 2, .step_tokens = 4, .n_page = 9, .page_tokens = 8});
    struct dr_submit a = fake_submit(1, ids(), 8, 50), b = fake_submit(2, ids() + 1, 40, 6);
    b.prompt_top = 1;
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_run(&g, 2000);
    rig_expect_answer(&g, &a);
    rig_expect_answer(&g, &b);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.preempted > 0);
    rig_fini(&g);
}

static void cancel_works_in_every_phase(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 128, .seqs_max = 1, .step_tokens = 16, .n_page = 16, .page_tokens = 8});
    struct dr_submit a = fake_submit(1, ids(), 40, 10), b = fake_submit(2, ids() + 3, 40, 10),
                     c = fake_submit(3, ids() + 4, 40, 10);
    rig_cancel(&g, 99); /* unknown: nothing */
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_submit(&g, &c);
    rig_cancel(&g, 2); /* waiting */
    CU_ASSERT(g.told[2].done && g.told[2].end.finish == DR_FINISH_CANCELLED && g.told[2].end.n_output == 0);
    CU_ASSERT(rig_begin(&g));
    rig_cancel(&g, 1); /* in prefill, while its step runs */
    CU_ASSERT(g.told[1].done && g.told[1].end.finish == DR_FINISH_CANCELLED);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.pages_used == 0 && st.cancelled == 2);
    rig_finish(&g);
    CU_ASSERT(g.told[1].n == 0);
    for (int32_t i = 0; i < 5; i++) CU_ASSERT(rig_step(&g));
    CU_ASSERT_EQUAL(g.told[3].n, 3);
    CU_ASSERT(rig_begin(&g));
    rig_cancel(&g, 3); /* in decode, while its step runs: the row it brings is dropped */
    rig_finish(&g);
    CU_ASSERT(g.told[3].n == 3 && g.told[3].end.n_output == 3);
    rig_cancel(&g, 3); /* ended already */
    struct dr_submit d = fake_submit(4, ids() + 5, 4, 3);
    rig_submit(&g, &d);
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT(g.plan->n_drop == 1 &&
              g.plan->n_open == 1); /* the slot is dropped and opened again in one plan */
    rig_finish(&g);
    rig_cancel(&g, 4); /* between two steps */
    CU_ASSERT(g.told[4].done && g.told[4].n == 1);
    CU_ASSERT(!rig_begin(&g));
    rig_run(&g, 1);
    rig_fini(&g);
}

static void cancelled_logits_are_not_forwarded(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit a = fake_submit(1, ids(), 8, 0), b = fake_submit(2, ids(), 8, 2);
    a.logits = true;
    rig_submit(&g, &a);
    CU_ASSERT(rig_begin(&g));
    bool forward = false;
    struct dr_logits l = g.fake.logits[0];
    CU_ASSERT(dr_core_logits(g.core, g.now, &l, &forward).code == DR_OK);
    CU_ASSERT(forward && l.request == 1);
    CU_ASSERT(dr_core_result(g.core, g.now, &g.flight[0].result).code ==
              DR_OK); /* all rows done, pieces missing */
    rig_cancel(&g, 1);
    CU_ASSERT(g.told[1].end.finish == DR_FINISH_CANCELLED);
    rig_submit(&g, &b);
    CU_ASSERT(dr_core_plan(g.core, g.now) == NULL); /* the step is not over before its last piece */
    for (int32_t i = 1; i < g.fake.n_logits; i++) {
        l = g.fake.logits[i];
        CU_ASSERT(dr_core_logits(g.core, g.now, &l, &forward).code == DR_OK);
        CU_ASSERT(!forward);
    }
    l = g.fake.logits[0];
    CU_ASSERT(dr_core_logits(g.core, g.now, &l, &forward).code == DR_EPROTO); /* one too many */
    g.n_flight = 0;                                                           /* handed in above */
    rig_run(&g, 10);
    rig_expect_answer(&g, &b);
    rig_fini(&g);
}

static void deadlines_end_waiting_and_running(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 128, .seqs_max = 1, .step_tokens = 16, .n_page = 16, .page_tokens = 8});
    struct dr_submit a = fake_submit(1, ids(), 8, 100), b = fake_submit(2, ids(), 8, 5),
                     c = fake_submit(3, ids(), 8, 5);
    a.deadline_ms = 20;
    b.deadline_ms = 10;
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_submit(&g, &c);
    for (int32_t i = 0; i < 9; i++) CU_ASSERT(rig_step(&g)); /* 1 ms each */
    CU_ASSERT(!g.told[2].done);
    CU_ASSERT(rig_step(&g));
    CU_ASSERT(!g.told[2].done);
    CU_ASSERT(rig_step(&g));
    CU_ASSERT(g.told[2].done && g.told[2].end.finish == DR_FINISH_DEADLINE &&
              g.told[2].end.queue_ns == 10000000);
    CU_ASSERT(!g.told[1].done);
    rig_run(&g, 20);
    CU_ASSERT(g.told[1].end.finish == DR_FINISH_DEADLINE && g.told[1].n == 20);
    rig_expect_answer(&g, &c);
    rig_fini(&g);
}

static void a_numeric_fault_ends_one_request_only(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit a = fake_submit(1, ids(), 8, 5), b = fake_submit(2, ids() + 2, 8, 5);
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    CU_ASSERT(rig_begin(&g));
    struct dr_result_row *row = g.flight[0].row;
    row[0].fault = DR_FAULT_NUMERIC;
    row[0].n_ids = 0;
    rig_finish(&g);
    CU_ASSERT(g.told[1].done && g.told[1].end.finish == DR_FINISH_NUMERIC && g.told[1].n == 0);
    rig_run(&g, 20);
    rig_expect_answer(&g, &b);
    rig_fini(&g);
}

static void lost_answers_everyone(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s[6];
    for (int32_t i = 0; i < 6; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids(), 8, 5);
        rig_submit(&g, &s[i]);
    }
    CU_ASSERT(rig_begin(&g));
    dr_core_lose(g.core, g.now);
    CU_ASSERT(!rig_begin(&g)); /* drains the events */
    for (int32_t i = 1; i <= 6; i++) CU_ASSERT(g.told[i].done && g.told[i].end.finish == DR_FINISH_LOST);
    CU_ASSERT(dr_core_idle(g.core));
    rig_fini(&g);
}

static void a_long_prompt_at_the_head_is_not_overtaken(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 64, .seqs_max = 4, .step_tokens = 16, .n_page = 8, .page_tokens = 8});
    struct dr_submit a = fake_submit(1, ids(), 30, 20), b = fake_submit(2, ids() + 1, 60, 2);
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    for (uint64_t i = 3; i < 100; i++) { /* a stream of short ones that would fit */
        struct dr_submit s = fake_submit(i, ids() + i, 2, 2);
        rig_submit(&g, &s);
        CU_ASSERT(rig_step(&g));
        if (g.told[2].done) break;
    }
    CU_ASSERT(g.told[1].done && g.told[2].done);
    for (int32_t i = 3; i < 100; i++)
        CU_ASSERT(!g.told[i].done || g.told[i].done_step >= g.told[1].done_step);
    rig_run(&g, 2000);
    rig_fini(&g);
}

static void more_decodes_than_rows_take_turns(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 64, .seqs_max = 12, .step_tokens = 4, .n_page = 96, .page_tokens = 8});
    struct dr_submit s[12];
    for (int32_t i = 0; i < 12; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids() + i, 1, 30);
        rig_submit(&g, &s[i]);
    }
    for (int32_t i = 0; i < 60; i++) CU_ASSERT(rig_step(&g));
    int32_t least = 1000, most = 0;
    for (int32_t i = 1; i <= 12; i++) {
        least = g.told[i].n < least ? g.told[i].n : least;
        most = g.told[i].n > most ? g.told[i].n : most;
    }
    CU_ASSERT(least >= 15 && most <= 25); /* 60 steps x 4 rows = 20 each */
    rig_run(&g, 1000);
    for (int32_t i = 0; i < 12; i++) rig_expect_answer(&g, &s[i]);
    rig_fini(&g);
}

static void wrong_results_end_the_epoch(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit s = fake_submit(1, ids(), 8, 5);
    s.sampling.n_top = 1;
    struct dr_step_result none = {.epoch = 77, .step = 1};
    CU_ASSERT(dr_core_result(g.core, g.now, &none).code == DR_EPROTO);
    rig_submit(&g, &s);
    CU_ASSERT(rig_begin(&g));
    struct dr_step_result r = g.flight[0].result;
    r.epoch = 78;
    CU_ASSERT(dr_core_result(g.core, g.now, &r).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "result of epoch 000000000000004e, expected 000000000000004d");
    r = g.flight[0].result;
    r.step = 2;
    CU_ASSERT(dr_core_result(g.core, g.now, &r).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "result of step 2, expected that of step 1");
    r = g.flight[0].result;
    r.n_row = 0;
    CU_ASSERT(dr_core_result(g.core, g.now, &r).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "result of step 1 has 0 rows, expected 1");
    struct dr_result_row good = g.flight[0].row[0], *row = g.flight[0].row;
    row->position++;
    CU_ASSERT(dr_core_result(g.core, g.now, &g.flight[0].result).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "result of step 1: row of slot 0 position 8, expected slot 0 position 7");
    *row = good;
    row->ids[0] = FAKE_VOCAB;
    CU_ASSERT(dr_core_result(g.core, g.now, &g.flight[0].result).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "result of step 1, slot 0: token 61, the vocabulary has 61");
    *row = good;
    row->n_ids = 2;
    CU_ASSERT(dr_core_result(g.core, g.now, &g.flight[0].result).code == DR_EPROTO);
    *row = good;
    row->n_top = 0;
    rig_fini(&g);
}

static void reports_are_counted_and_failures_named(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_step_report r = {.epoch = 77, .step = 1, .rank = 0, .wait_ns = 30, .bytes = {1, 2, 3, 4, 5}};
    CU_ASSERT(dr_core_report(g.core, &r).code == DR_OK);
    CU_ASSERT(dr_core_report(g.core, &r).code == DR_OK);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.step_wait_ns == 60 && st.bytes[0] == 2 && st.bytes[4] == 10);
    r.rank = 1;
    CU_ASSERT(dr_core_report(g.core, &r).code == DR_EPROTO);
    r = (struct dr_step_report){.epoch = 77, .step = 9, .code = DR_ETIME, .text = "allreduce 3 timed out"};
    CU_ASSERT(dr_core_report(g.core, &r).code == DR_EPEER);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "rank 0, step 9: allreduce 3 timed out");
    rig_fini(&g);
}

static void a_step_has_a_deadline(void) {
    struct rig g;
    rig_init(&g, usual);
    CU_ASSERT_EQUAL(dr_core_deadline_ns(g.core), 0);
    struct dr_submit s = fake_submit(1, ids(), 8, 5);
    rig_submit(&g, &s);
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT_EQUAL(dr_core_deadline_ns(g.core), g.now + 5000000000U); /* a tiny step: the least one */
    CU_ASSERT(dr_core_expected_ns(g.core) > 0 && dr_core_step(g.core) == 1);
    rig_finish(&g);
    CU_ASSERT_EQUAL(dr_core_deadline_ns(g.core), 0);
    CU_ASSERT(rig_begin(&g));
    g.now += 3000000000U; /* a step of 3 s: 8 times that, for a step of about the same size */
    rig_finish(&g);
    CU_ASSERT(rig_begin(&g));
    uint64_t limit = dr_core_deadline_ns(g.core) - g.now;
    CU_ASSERT(limit > 20000000000U && limit < 28000000000U);
    rig_fini(&g);
}

/* One refusal: what is changed in a good Submit, and the sentence. */
struct bad {
    const char *text;
    enum dr_refusal reason;
    struct dr_submit s;
};

static void bad_submits_are_refused_by_name(void) {
    static const uint32_t wrong[2] = {3, FAKE_VOCAB};
    static const struct dr_bias bias[2] = {{FAKE_VOCAB, 1}, {3, NAN}};
    struct dr_submit s = fake_submit(5, ids(), 8, 5);
    struct rig g;
    struct bad b[32];
    int32_t n = 0;
#define BAD(why, sentence, change)                                                                           \
    b[n] = (struct bad){.text = sentence, .reason = DR_REFUSE_##why, .s = s};                                \
    b[n].s.change;                                                                                           \
    n++
    BAD(INVALID, "the prompt is empty, expected at least one token", n_ids = 0);
    BAD(INVALID, "prompt token 1 is 61, the vocabulary has 61", ids = wrong);
    BAD(INVALID, "8 of 8 tokens were delivered before, expected fewer than all", n_delivered = 8);
    BAD(INVALID, "-1 of 8 tokens were delivered before, expected fewer than all", n_delivered = -1);
    BAD(INVALID, "65 end tokens, expected at most 64", n_end = 65);
    BAD(INVALID, "max_tokens is -1, expected 0 or more", max_tokens = -1);
    BAD(INVALID, "min_tokens is -2, expected 0 or more", min_tokens = -2);
    BAD(INVALID, "21 alternatives a prompt token asked, expected -1 to 20", prompt_top = 21);
    BAD(INVALID,
        "raw logits of a prompt go without new tokens and prompt log-probabilities: max_tokens is 5, "
        "expected 0; prompt_top is -1, "
        "expected -1",
        logits = true);
    BAD(INVALID, "temperature is -1, expected 0 or more", sampling.temperature = -1);
    BAD(INVALID, "temperature is nan, expected 0 or more", sampling.temperature = NAN);
    BAD(INVALID, "top_p is 1.5, expected 0 to 1", sampling.top_p = 1.5F);
    BAD(INVALID, "min_p is -0.5, expected 0 to 1", sampling.min_p = -0.5F);
    BAD(INVALID, "top_k is -1, expected 0 or more", sampling.top_k = -1);
    BAD(INVALID, "repetition penalty is 0, expected more than 0", sampling.repetition = 0);
    BAD(INVALID, "frequency penalty is inf, expected a finite number", sampling.frequency = INFINITY);
    BAD(INVALID, "presence penalty is nan, expected a finite number", sampling.presence = NAN);
    BAD(INVALID, "21 alternatives a token asked, expected -1 to 20", sampling.n_top = 21);
    BAD(INVALID, "1025 logit biases, expected at most 1024", n_bias = 1025);
    BAD(INVALID, "logit bias names token 61, the vocabulary has 61", n_bias = 1);
    b[n - 1].s.bias = bias;
    BAD(INVALID, "logit bias of token 3 is not a number", n_bias = 1);
    b[n - 1].s.bias = bias + 1;
    BAD(TOO_LONG, "the prompt has 128 tokens, the context is 128; shorten the prompt or raise --context",
        n_ids = 128);
#undef BAD
    rig_init(&g, usual);
    for (int32_t i = 0; i < n; i++) {
        g.told[5] = (struct told){0};
        rig_submit(&g, &b[i].s);
        CU_ASSERT(g.told[5].refused && !g.told[5].accepted && g.told[5].reason == b[i].reason);
        CU_ASSERT_STRING_EQUAL(g.told[5].text, b[i].text);
    }
    g.told[5] = (struct told){0};
    rig_submit(&g, &s);
    CU_ASSERT(g.told[5].accepted);
    rig_submit(&g, &s);
    CU_ASSERT_STRING_EQUAL(g.told[5].text, "request 5 is open already");
    rig_run(&g, 100);
    dr_core_drain(g.core);
    s.request = 6;
    rig_submit(&g, &s);
    CU_ASSERT(g.told[6].refused && g.told[6].reason == DR_REFUSE_DRAINING);
    CU_ASSERT_STRING_EQUAL(g.told[6].text, "the cluster is draining and takes no new requests");
    rig_fini(&g);
}

static void a_drain_lets_open_requests_finish(void) {
    struct rig g;
    rig_init(&g, usual);
    struct dr_submit a = fake_submit(1, ids(), 8, 5), b = fake_submit(2, ids(), 8, 5);
    rig_submit(&g, &a);
    dr_core_drain(g.core);
    rig_submit(&g, &b);
    CU_ASSERT(g.told[2].refused);
    CU_ASSERT(!dr_core_idle(g.core));
    rig_run(&g, 100);
    rig_expect_answer(&g, &a);
    rig_fini(&g);
}

static void waiting_is_bounded(void) {
    struct rig g;
    rig_init(&g, (struct fake_wish){
                     .context = 2048, .seqs_max = 1, .step_tokens = 16, .n_page = 256, .page_tokens = 8});
    for (uint64_t i = 0; i < 257; i++) {
        struct dr_submit s = fake_submit(i, ids(), 2, 2);
        rig_submit(&g, &s);
    }
    CU_ASSERT(g.told[255].accepted && !g.told[256].accepted);
    CU_ASSERT(g.told[256].reason == DR_REFUSE_FULL && g.told[256].retry_ms == 1000);
    CU_ASSERT_STRING_EQUAL(g.told[256].text,
                           "256 requests are waiting, at most 256 may; try again in 1000 ms");
    rig_run(&g, 1000);
    for (uint64_t i = 300; i < 365; i++) {
        struct dr_submit s = fake_submit(i, ids(), i == 364 ? 1 : 2047, 1);
        rig_submit(&g, &s);
    }
    CU_ASSERT(g.told[363].accepted && g.told[364].accepted); /* 64 x 2,047 + 1 of 131,072 */
    struct dr_submit s = fake_submit(400, ids(), 64, 1);
    rig_submit(&g, &s);
    CU_ASSERT(g.told[400].reason == DR_REFUSE_FULL &&
              g.told[400].retry_ms == 250); /* requests ended 2 ms apart: the least advice */
    CU_ASSERT_STRING_EQUAL(g.told[400].text,
                           "131009 prompt tokens are waiting, at most 131072 may; try again in 250 ms");
    CU_ASSERT_EQUAL(dr_waiting_tokens_most(32768), 131072);
    CU_ASSERT_EQUAL(dr_waiting_tokens_most(163840), 4 * 163840);
    rig_run(&g, 10000);
    rig_fini(&g);
}

static CU_TestInfo cases[] = {
    {"one request gets its tokens in as many steps as its rows need", one_request_gets_its_tokens},
    {"several requests share a step", several_share_a_step},
    {"decodes go before prefill and leave the rest of the budget", decodes_go_before_prefill},
    {"end ids stop, are delivered, and respect min_tokens and ignore_eos", end_ids_stop_and_are_delivered},
    {"max_tokens is clipped to the context", max_tokens_is_clipped_to_the_context},
    {"scores cover each prompt token once, with and without new tokens", scores_cover_each_prompt_token_once},
    {"raw logits of every prompt row come before Done", logits_of_every_prompt_row_come_before_done},
    {"max_tokens 0 only prefills", max_tokens_zero_only_prefills},
    {"decodes wait for prompts when that is asked for", decodes_wait_for_prompts_when_asked},
    {"decodes do not wait for a prompt that cannot run", decodes_do_not_wait_for_a_prompt_that_cannot_run},
    {"delivered tokens go on where they ended, as generated rows", delivered_tokens_go_on_where_they_ended},
    {"few pages preempt the youngest and no answer changes", few_pages_preempt_the_youngest_without_a_trace},
    {"scores told before a preemption are not told twice", preempted_scores_are_not_told_twice},
    {"cancel works waiting, in prefill, in decode, between steps and afterwards",
     cancel_works_in_every_phase},
    {"raw logits of a cancelled request are counted and dropped", cancelled_logits_are_not_forwarded},
    {"deadlines end waiting and running requests", deadlines_end_waiting_and_running},
    {"a numeric fault ends one request only", a_numeric_fault_ends_one_request_only},
    {"a lost epoch answers everyone", lost_answers_everyone},
    {"a long prompt at the head is not overtaken by short ones", a_long_prompt_at_the_head_is_not_overtaken},
    {"more decodes than rows take turns", more_decodes_than_rows_take_turns},
    {"wrong results are refused by row, expected and found", wrong_results_end_the_epoch},
    {"reports are counted and a rank's failure is named", reports_are_counted_and_failures_named},
    {"a step has a deadline from its size and recent times", a_step_has_a_deadline},
    {"bad Submits are refused by name", bad_submits_are_refused_by_name},
    {"a drain lets open requests finish and refuses new ones", a_drain_lets_open_requests_finish},
    {"waiting is bounded in requests and in tokens", waiting_is_bounded},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_core = {.pName = "coordinator/core", .pTests = cases};
