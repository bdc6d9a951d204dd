/* test_drafts.c - drafts as the coordinator deals with them, and the choice of their number.
 * In:   the fake cluster, two of whose three drafts come true; invented times.
 * Out:  plans, counts, numbers.
 * Owns: nothing.
 * Why:  a draft may cost rows, but never a token, another request's turn or a page that somebody needs. */
#include <string.h>

#include "common/size.h"
#include "coordinator/plan/drafts.h"
#include "rig.h"

#include <CUnit/CUnit.h>

static const uint32_t prompt[40] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static struct fake_wish wish(int32_t drafts) {
    return (struct fake_wish){
        .context = 120, .seqs_max = 4, .step_tokens = 16, .n_page = 64, .page_tokens = 8, .drafts = drafts};
}

/* Fewer steps for the same tokens; what was verified and what came true is counted by place, in the last step
 * as well, whatever the length. */
static void fewer_steps(void) {
    for (int32_t most = 56; most < 64; most++) {
        uint64_t steps[2];
        struct rig g;
        for (int k = 0; k < 2; k++) {
            rig_init(&g, wish(k ? 3 : 0));
            struct dr_submit s = fake_submit(0, prompt, 15, most);
            rig_submit(&g, &s);
            rig_run(&g, 200);
            rig_expect_answer(&g, &s);
            steps[k] = g.n_step;
            const struct dr_done *d = &g.told[0].end;
            int32_t accepted = 0;
            for (int32_t i = 0; i < DR_DRAFTS_MAX; i++) {
                CU_ASSERT(i < 3 * k ? d->drafted[i] > 0 : d->drafted[i] == 0);
                CU_ASSERT(i == 0 ||
                          (d->drafted[i] <= d->drafted[i - 1] && d->accepted[i] <= d->accepted[i - 1]));
                accepted += d->accepted[i];
            }
            if (k) CU_ASSERT_EQUAL(steps[0], steps[1] + (uint64_t)accepted); /* each saves a step */
            CU_ASSERT(!k || accepted > 25);
            rig_fini(&g);
        }
    }
}

/* Nothing is asked for that cannot become output: neither at the last tokens nor for an answer of one. */
static void no_waste(void) {
    struct rig g;
    rig_init(&g, wish(8));
    for (uint64_t i = 0; i < 4; i++) {
        struct dr_submit s = fake_submit(i, prompt, 5 + (int32_t)i, 1 + (int32_t)i);
        rig_submit(&g, &s);
    }
    while (rig_begin(&g)) {
        for (int32_t i = 0; i < g.plan->n_segment; i++) {
            const struct dr_segment *p = &g.plan->segment[i];
            const struct dr_request *r = dr_core_book(g.core)->by_slot[p->slot];
            const int32_t left = r->max_new - dr_request_output(r);
            CU_ASSERT(p->n_verify <= dr_max_i32(0, left - 1) && p->n_draft <= dr_max_i32(0, left - 2));
            if (r->max_new <= 2) CU_ASSERT(p->n_draft == 0);
        }
        g.now += 1000;
        rig_finish(&g);
    }
    CU_ASSERT(dr_core_idle(g.core));
    rig_fini(&g);
}

/* Four sequences in a step of 8 rows: a draft each at most; in one of 4 none. */
static void rows_are_for_tokens_first(void) {
    for (int32_t rows = 4; rows <= 8; rows += 4) {
        struct fake_wish w = wish(5);
        struct rig g;
        int32_t most = 0;
        w.step_tokens = rows;
        rig_init(&g, w);
        for (uint64_t i = 0; i < 4; i++) {
            struct dr_submit s = fake_submit(i, prompt, 1, 40);
            rig_submit(&g, &s);
        }
        for (int32_t step = 0; step < 60 && rig_begin(&g); step++) {
            int32_t decodes = 0;
            for (int32_t i = 0; i < g.plan->n_segment; i++) {
                decodes += g.plan->segment[i].role == DR_TOKENS_GENERATED;
                if (g.plan->n_segment == 4) most = dr_max_i32(most, g.plan->segment[i].n_verify);
            }
            CU_ASSERT(step < 6 || step > 12 || decodes == 4);
            g.now += 1000;
            rig_finish(&g);
        }
        CU_ASSERT_EQUAL(most, rows / 4 - 1);
        rig_run(&g, 400);
        rig_fini(&g);
    }
}

/* With no page to spare a draft is left out; nobody is preempted for one. */
static void pages_are_for_tokens_first(void) {
    struct fake_wish w = wish(8);
    struct rig g;
    w.context = 64;
    w.n_page = 8;
    w.seqs_max = 2;
    rig_init(&g, w);
    struct dr_submit s[2];
    for (uint64_t i = 0; i < 2; i++) {
        s[i] = fake_submit(i, prompt, 8, 23); /* 31 positions and 4 pages each: just enough for both */
        rig_submit(&g, &s[i]);
    }
    rig_run(&g, 200);
    for (int i = 0; i < 2; i++) rig_expect_answer(&g, &s[i]);
    CU_ASSERT_EQUAL(dr_core_book(g.core)->n_preempted, 0);
    rig_fini(&g);
}

static void bad_results(void) {
    struct fake_wish w = wish(2);
    for (int how = 0; how < 5; how++) {
        struct rig g;
        rig_init(&g, w);
        struct dr_submit s = fake_submit(0, prompt, 8, 50);
        rig_submit(&g, &s);
        while (rig_begin(&g) && g.plan->segment[0].n_verify < 2) rig_finish(&g);
        struct dr_step_result r = g.flight[0].result;
        struct dr_result_row row = r.row[0];
        const char *says = "drafts accepted";
        const struct dr_request *q = dr_core_book(g.core)->running[0];
        row.n_ids = 1, row.n_accepted = 0;
        switch (how) {
        case 0: /* a token too many */
            row.n_ids = 2;
            break;
        case 1: /* accepted without a token behind it */
            row.n_accepted = 1;
            break;
        case 2: /* accepted, but another one */
            row.n_ids = 2, row.n_accepted = 1;
            row.ids[0] = (q->ids[q->n_ids] + 1) % FAKE_VOCAB;
            says = "it was";
            break;
        case 3: /* more drafts than asked */
            row.n_draft = 3;
            says = "3 drafts, expected at most 2";
            break;
        default: /* a draft outside of the vocabulary */
            row.n_draft = 1;
            row.draft[0] = FAKE_VOCAB;
            says = "token 61";
            break;
        }
        r.row = &row;
        CU_ASSERT(dr_core_result(g.core, g.now, &r).code == DR_EPROTO);
        CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), says));
        rig_fini(&g);
    }
}

/* ---- auto ---- */

/* Steps of n sequences with the times of a model: a step costs `fixed` and `row` for each row, `made` for
 * each draft made; each draft comes true with `chance`. Returns the number wanted most of the time at the
 * end. */
static int32_t settle(struct dr_drafts *d, int32_t n, double fixed, double row, double made, double chance,
                      uint64_t seed, int32_t steps) {
    int32_t count[DR_DRAFTS_MAX + 1] = {0}, best = 0;
    for (int32_t i = 0; i < steps; i++) {
        const int32_t k = dr_drafts_wanted(d, n);
        int32_t tokens = 0;
        for (int32_t s = 0; s < n; s++, tokens++)
            for (int32_t j = 0; j < k; j++, tokens++) {
                seed = splitmix(seed);
                if ((double)(seed % 1000) >= 1000 * chance) break;
            }
        seed = splitmix(seed);
        const double noise = 1 + (double)(seed % 200) / 1000; /* up to a fifth slower */
        dr_drafts_measured(d, n, (fixed + n * (row * (1 + k) + made * k)) * noise, tokens);
        if (i >= steps / 2) count[k]++;
    }
    for (int32_t k = 1; k <= DR_DRAFTS_AUTO_MOST; k++)
        if (count[k] > count[best]) best = k;
    return best;
}

static void as_many_as_pay(void) {
    struct dr_drafts d;
    dr_drafts_init(&d, DR_DRAFTS_AUTO);
    CU_ASSERT_EQUAL(dr_drafts_wanted(&d, 1), 0);                  /* until it has been measured */
    CU_ASSERT_EQUAL(settle(&d, 1, 100, 5, 3, 0.9, 1, 3000), 3);   /* rows are cheap, drafts come true */
    CU_ASSERT_EQUAL(settle(&d, 64, 100, 50, 5, 0.5, 2, 3000), 0); /* rows are all: none pays */
    CU_ASSERT_EQUAL(settle(&d, 2, 100, 12, 20, 0.3, 3, 3000), 0);
    CU_ASSERT_EQUAL(settle(&d, 16, 1600, 15, 4, 0.85, 4, 6000), 3);
    CU_ASSERT_EQUAL(settle(&d, 8, 200, 10, 4, 0.6, 5, 6000), 1); /* the first one pays, further ones do not */
    CU_ASSERT_EQUAL(settle(&d, 1, 100, 120, 3, 0.2, 6, 3000), 0); /* the machine has changed */
    CU_ASSERT_EQUAL(settle(&d, 1, 100, 5, 3, 0.9, 7, 6000), 3);   /* and back */
    dr_drafts_init(&d, 5);
    dr_drafts_measured(&d, 1, 1e9, 1);
    CU_ASSERT(dr_drafts_wanted(&d, 1) == 5 && dr_drafts_wanted(&d, 1024) == 5);
    dr_drafts_init(&d, DR_DRAFTS_AUTO);
    for (int32_t n = 1; n <= DR_SEQS_MAX; n++) { /* every number has a class */
        dr_drafts_measured(&d, n, 1, 1);
        CU_ASSERT(dr_drafts_wanted(&d, n) <= DR_DRAFTS_AUTO_MOST);
    }
}

/* The whole coordinator on a clock on which a row costs next to nothing, then much. */
static void measured_steps(void) {
    for (int dear = 0; dear < 2; dear++) {
        struct fake_wish w = wish(DR_DRAFTS_AUTO);
        struct rig g;
        int32_t drafts = 0;
        w.context = 600;
        w.n_page = 300;
        rig_init(&g, w);
        for (uint64_t i = 0; i < 2; i++) {
            struct dr_submit s = fake_submit(i, prompt, 4, 560);
            rig_submit(&g, &s);
        }
        for (int32_t step = 0; rig_begin(&g); step++) {
            int32_t rows = 0;
            for (int32_t i = 0; i < g.plan->n_segment; i++) {
                rows += g.plan->segment[i].n_rows;
                if (step > 100) drafts += g.plan->segment[i].n_draft;
            }
            g.now += (uint64_t)(1000000 + rows * (dear ? 1500000 : 20000));
            rig_finish(&g);
        }
        CU_ASSERT(dear ? drafts < 160 : drafts > 300);
        rig_fini(&g);
    }
}

static CU_TestInfo cases[] = {
    {"drafts that come true save their step, and are counted by place", fewer_steps},
    {"no draft is made that could not become output", no_waste},
    {"rows of a step are for tokens first, then for drafts", rows_are_for_tokens_first},
    {"nobody is preempted for a draft", pages_are_for_tokens_first},
    {"results that contradict the drafts end the epoch by name", bad_results},
    {"auto finds the number of drafts with the least time for a token, and finds it again", as_many_as_pay},
    {"auto measures the coordinator's own steps", measured_steps},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_drafts = {.pName = "coordinator/drafts", .pTests = cases};
