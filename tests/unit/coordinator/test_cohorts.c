/* test_cohorts.c - several stages: how many steps are under way, and who is in which.
 * In:   submits on layouts with P stages.      Out: checks.
 * Owns: nothing.
 * Why:  a stage without a step is idle; a sequence in two steps at once would draw from tokens that do not
 * exist. */
#include "rig.h"

#include <CUnit/CUnit.h>

static struct fake_wish stages(int32_t pp) {
    return (struct fake_wish){
        .context = 1024, .seqs_max = 12, .step_tokens = 256, .n_page = 512, .page_tokens = 8, .pp = pp};
}

static const uint32_t *ids(void) {
    static uint32_t prompt[4096];
    for (uint32_t i = 0; i < 4096; i++) prompt[i] = (uint32_t)(splitmix(i + 99) % FAKE_VOCAB);
    return prompt;
}

static void one_stage_has_one_step(void) {
    struct rig g;
    rig_init(&g, stages(1));
    struct dr_submit s = fake_submit(1, ids(), 600, 5);
    rig_submit(&g, &s);
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT(!rig_begin(&g));
    CU_ASSERT_EQUAL(g.n_flight, 1);
    rig_finish(&g);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    rig_fini(&g);
}

/* Chunks of one prompt follow each other before the first has come back. */
static void chunks_of_a_prompt_overlap(void) {
    for (int32_t pp = 2; pp <= 3; pp++) {
        struct rig g;
        rig_init(&g, stages(pp));
        struct dr_submit s = fake_submit(1, ids(), 600, 5);
        rig_submit(&g, &s);
        for (int32_t i = 0; i < pp + 1; i++) {
            CU_ASSERT(rig_begin(&g));
            CU_ASSERT_EQUAL(g.plan->segment[0].n_rows, 256 / pp);
            CU_ASSERT_EQUAL(g.plan->segment[0].first, i * (256 / pp));
        }
        CU_ASSERT(!rig_begin(&g)); /* P + 1 are enough */
        CU_ASSERT_EQUAL(dr_core_step(g.core), 1);
        rig_finish(&g);
        CU_ASSERT_EQUAL(dr_core_step(g.core), 2);
        rig_run(&g, 100);
        rig_expect_answer(&g, &s);
        rig_fini(&g);
    }
}

/* Sequences that generate spread over P steps, and each is in one of them. */
static void decodes_form_cohorts(void) {
    struct rig g;
    rig_init(&g, stages(3));
    struct dr_submit s[9];
    for (int32_t i = 0; i < 9; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids() + 10 * i, 4, 60);
        rig_submit(&g, &s[i]);
    }
    for (int32_t i = 0; i < 12; i++) CU_ASSERT(rig_step(&g));
    CU_ASSERT_EQUAL(g.n_flight, 2); /* and the one that comes now */
    for (int32_t i = 0; i < 12; i++) {
        uint32_t seen = 0;
        CU_ASSERT(rig_begin(&g));
        CU_ASSERT_EQUAL(g.plan->n_segment, 3);
        for (int32_t k = 0; k < g.plan->n_segment; k++) seen |= 1U << g.plan->segment[k].slot;
        CU_ASSERT_EQUAL(__builtin_popcount(seen), 3);
        CU_ASSERT(!rig_begin(&g)); /* everybody is in a step */
        g.now += 1000000;
        rig_finish(&g);
    }
    rig_run(&g, 1000);
    for (int32_t i = 0; i < 9; i++) rig_expect_answer(&g, &s[i]);
    rig_fini(&g);
}

/* Pages run out while all others are in steps under way: who needs one waits, nobody older goes. */
static void preemption_waits_for_steps(void) {
    struct rig g;
    struct fake_wish w = stages(2);
    w.n_page = 128;
    w.context = 512;
    rig_init(&g, w);
    struct dr_submit s[4];
    for (int32_t i = 0; i < 4; i++) {
        s[i] = fake_submit((uint64_t)i + 1, ids() + 10 * i, 100, 300);
        rig_submit(&g, &s[i]);
    }
    rig_run(&g, 10000);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.preempted > 0);
    for (int32_t i = 0; i < 4; i++) rig_expect_answer(&g, &s[i]);
    CU_ASSERT(g.told[1].done_step <= g.told[4].done_step); /* the oldest is never behind the youngest */
    rig_fini(&g);
}

static void raw_logits_are_alone(void) {
    struct rig g;
    rig_init(&g, stages(2));
    struct dr_submit s = fake_submit(1, ids(), 100, 0), other = fake_submit(2, ids() + 9, 100, 30);
    s.logits = true;
    rig_submit(&g, &s);
    rig_submit(&g, &other);
    for (int32_t i = 0; i < 200 && !dr_core_idle(g.core); i++) {
        bool logits = false;
        while (rig_begin(&g))
            for (int32_t k = 0; k < g.plan->n_segment; k++)
                if (g.plan->segment[k].output == DR_OUTPUT_LOGITS) logits = true;
        if (logits) CU_ASSERT_EQUAL(g.n_flight, 1);
        g.now += 1000000;
        rig_finish(&g);
    }
    rig_expect_answer(&g, &s);
    rig_expect_answer(&g, &other);
    rig_fini(&g);
}

/* What a plan takes on a machine that computes 4,000 rows a second (pace.h; the fake's numbers). */
static double plan_ns(const struct dr_step_plan *p) {
    double work = 8 * 23840; /* pace.c: FIXED_ROWS */
    for (int32_t i = 0; i < p->n_segment; i++) {
        const struct dr_segment *s = &p->segment[i];
        const double seen = s->n_rows * (s->first + s->n_rows / 2.0);
        work += s->n_rows * 23840.0;
        work +=
            s->form == DR_FORM_ABSORBED ? seen * 3 * 4 * 36 : seen * 240 + (s->first + s->n_rows) * 3072.0;
    }
    return work * 1e9 / 4000 / 23840;
}

/* A prompt beside a sequence that generates: steps stay near 100 ms while chunks go down from some 190 rows
 * to 64, where they stay whatever the context costs. */
static void chunks_shrink_as_context_grows(void) {
    struct rig g;
    struct fake_wish w = {
        .context = 1 << 14, .seqs_max = 4, .step_tokens = 512, .n_page = 1 << 12, .page_tokens = 8};
    static uint32_t prompt[6000];
    int32_t rows[512], n = 0, sizes = 0;
    w.step_ns = 100000000;
    rig_init(&g, w);
    for (uint32_t i = 0; i < 6000; i++) prompt[i] = i % FAKE_VOCAB;
    struct dr_submit a = fake_submit(1, ids(), 4, 2000), b = fake_submit(2, prompt, 6000, 1);
    rig_submit(&g, &a);
    while (!g.told[2].done && n < 512) {
        CU_ASSERT_FATAL(rig_begin(&g));
        const double ns = plan_ns(g.plan);
        if (g.plan->n_segment == 2) {
            rows[n++] = g.plan->segment[1].n_rows;
            CU_ASSERT(rows[n - 1] <= 64 || (ns < 1.02e8 && ns > 0.97e8));
        }
        g.now += (uint64_t)ns;
        rig_finish(&g);
        if (g.n_step == 1) rig_submit(&g, &b);
    }
    CU_ASSERT_FATAL(n > 20);
    CU_ASSERT(rows[0] > 180 && rows[0] < 195 && rows[n - 2] == 64);
    for (int32_t i = 1; i + 1 < n; i++) {
        CU_ASSERT(rows[i] <= rows[i - 1]);
        sizes += rows[i] < rows[i - 1];
    }
    CU_ASSERT(sizes >= 4);
    rig_cancel(&g, 1);
    rig_fini(&g);
}

static CU_TestInfo cases[] = {
    {"one stage has one step under way", one_stage_has_one_step},
    {"chunks of a prompt overlap", chunks_of_a_prompt_overlap},
    {"sequences that generate form cohorts", decodes_form_cohorts},
    {"preemption waits for the steps under way", preemption_waits_for_steps},
    {"raw logits are alone under way", raw_logits_are_alone},
    {"chunks shrink as context grows", chunks_shrink_as_context_grows},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cohorts = {.pName = "coordinator/cohorts", .pTests = cases};
