/* test_random.c - thousands of random schedules against what must always hold.
 * In:   a seed a schedule.      Out: checks.
 * Owns: nothing.
 * Why:  each request is answered exactly once with the answer it gets alone, no page leaks, no budget is
 * passed, nobody starves, and the same calls give the same decisions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "rig.h"

#include <CUnit/CUnit.h>

enum { REQUESTS = 24, SCHEDULES = 2000 };

struct dice {
    uint64_t state;
};

static int32_t roll(struct dice *d, int32_t n) { /* 0 .. n - 1 */
    d->state = splitmix(d->state);
    return (int32_t)(d->state % (uint64_t)n);
}

struct plot { /* one schedule */
    struct dr_submit submit[REQUESTS];
    uint32_t ids[REQUESTS][512];
    uint32_t end[REQUESTS][3];
};

static struct fake_wish random_wish(struct dice *d) {
    struct fake_wish w = {
        .page_tokens = 1 + roll(d, 9),
        .seqs_max = 1 + roll(d, 8),
        .step_tokens = 1 + roll(d, 24),
        .pp = 1 + roll(d, 3),
        .reuse = (enum dr_reuse)roll(d, 3),
        .step_ns = roll(d, 2) ? 0 : 300000,
    };
    static const int32_t drafts[] = {0, 0, 1, 3, DR_DRAFTS_MAX, DR_DRAFTS_AUTO};
    w.drafts = drafts[roll(d, 6)];
    w.context = 8 + roll(d, 150);
    int32_t one = (w.context + w.page_tokens - 1) / w.page_tokens;
    w.n_page = one + roll(d, roll(d, 2) ? one : one * w.seqs_max); /* from "one sequence fits" to "all do" */
    return w;
}

static void random_submit(struct dice *d, struct plot *p, int32_t i, const struct dr_layout *l) {
    int32_t most = l->context - 1;
    int32_t n = 1 + roll(d, roll(d, 3) ? (most + 2) / 3 : most);
    for (int32_t k = 0; k < n; k++) p->ids[i][k] = (uint32_t)roll(d, FAKE_VOCAB);
    if (i > 0 && roll(d, 2)) { /* begins as an earlier one does */
        const int32_t other = roll(d, i), same = dr_min_i32(roll(d, n + 1), p->submit[other].n_ids);
        memcpy(p->ids[i], p->ids[other], (size_t)same * sizeof *p->ids[i]);
    }
    struct dr_submit s =
        fake_submit((uint64_t)i, p->ids[i], n, roll(d, 8) ? 1 + roll(d, 40) : roll(d, 2) * 4000);
    for (int32_t k = 0; k < 3; k++) p->end[i][k] = (uint32_t)roll(d, FAKE_VOCAB);
    s.end_ids = p->end[i];
    s.n_end = roll(d, 4);
    s.min_tokens = roll(d, 3) ? 0 : roll(d, 10);
    s.ignore_eos = roll(d, 6) == 0;
    s.n_delivered = n > 1 && roll(d, 5) == 0 ? roll(d, n) : 0;
    s.priority = roll(d, 4) == 0 ? roll(d, 3) - 1 : 0;
    s.sampling.n_top = roll(d, 5) - 1;
    if (roll(d, 3) == 0) s.sampling.repetition = 1.25F;
    if (roll(d, 4) == 0) s.sampling.frequency = -0.5F;
    if (roll(d, 5) == 0)
        s.prompt_top = roll(d, 4);
    else if (roll(d, 8) == 0)
        s.logits = true, s.max_tokens = 0, s.n_delivered = 0;
    if (roll(d, 12) == 0) s.deadline_ms = 1 + (uint32_t)roll(d, 60);
    s.tenant[0] = (char)('a' + roll(d, 3));
    s.salt[0] = (char)('a' + roll(d, 6) / 5);
    p->submit[i] = s;
}

static void random_cancel(struct dice *d, struct rig *g, int32_t n_sent) {
    if (n_sent == 0 || roll(d, 12) != 0) return;
    int32_t i = roll(d, n_sent);
    rig_cancel(g, (uint64_t)i);
}

struct found { /* what the schedules have met */
    uint64_t preempted, faults, cached, overlapped, accepted, wrong;
};

/* Plays one schedule; returns its trace. */
static uint64_t play(uint64_t seed, struct plot *p, struct found *found) {
    struct dice d = {.state = seed};
    struct rig g;
    memset(p, 0, sizeof *p);
    rig_init(&g, random_wish(&d));
    g.fake.faults = roll(&d, 3) == 0;
    int32_t n_sent = 0, quiet = 0;
    for (int32_t i = 0; n_sent < REQUESTS || !dr_core_idle(g.core); i++) {
        CU_ASSERT_FATAL(i < 60000); /* 24 requests of at most 160 rows: nobody starves, nothing hangs */
        while (n_sent < REQUESTS && roll(&d, 3) == 0) {
            random_submit(&d, p, n_sent, &g.layout);
            rig_submit(&g, &p->submit[n_sent]);
            n_sent++;
        }
        random_cancel(&d, &g, n_sent);
        if (roll(&d, 40) == 0) dr_core_reset_prefix(g.core);
        const bool more = rig_begin(&g);
        if (!more && g.n_flight == 0) {
            CU_ASSERT_FATAL(++quiet < 1000 || n_sent < REQUESTS);
            continue;
        }
        quiet = 0;
        random_cancel(&d, &g, n_sent);
        g.now += 200000 + (uint64_t)roll(&d, 400000);
        if (more && roll(&d, 2)) continue; /* results may take their time */
        rig_finish(&g);
    }
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.pages_used == 0 && st.running == 0 && st.waiting == 0 && g.n_open == 0);
    found->preempted += st.preempted;
    found->cached += st.cached_tokens;
    found->overlapped += g.n_flight_most > 1;
    for (int32_t i = 0; i < REQUESTS; i++) {
        const struct told *t = &g.told[i];
        CU_ASSERT(t->accepted != t->refused && t->done == t->accepted);
        if (t->refused) continue;
        found->faults += t->end.finish == DR_FINISH_NUMERIC;
        for (int32_t k = 0; k < DR_DRAFTS_MAX; k++) {
            CU_ASSERT(t->end.accepted[k] <= t->end.drafted[k]);
            found->accepted += (uint64_t)t->end.accepted[k];
            found->wrong += (uint64_t)(t->end.drafted[k] - t->end.accepted[k]);
        }
        if (t->end.finish == DR_FINISH_CANCELLED ||
            t->end.finish == DR_FINISH_DEADLINE) { /* a true beginning of the answer */
            static struct answer a;
            fake_answer(&g.fake, &p->submit[i], &a);
            CU_ASSERT(t->n <= a.n && memcmp(t->ids, a.ids, (size_t)t->n * sizeof *a.ids) == 0);
            CU_ASSERT_EQUAL(t->end.n_output, t->n);
        } else {
            rig_expect_answer(&g, &p->submit[i]);
        }
    }
    uint64_t trace = g.trace;
    rig_fini(&g);
    return trace;
}

static void random_schedules_keep_every_promise(void) {
    struct plot *p = malloc(sizeof *p);
    CU_ASSERT_FATAL(p != NULL);
    struct found found = {0};
    for (uint64_t seed = 1; seed <= SCHEDULES; seed++) {
        unsigned before = CU_get_number_of_failures();
        uint64_t trace = play(seed, p, &found);
        if (seed % 10 == 0) CU_ASSERT_EQUAL(play(seed, p, &found), trace); /* decisions repeat */
        if (CU_get_number_of_failures() > before) {
            printf("schedule of seed %llu broke a promise\n", (unsigned long long)seed);
            break;
        }
    }
    /* the schedules do reach what they are meant to test */
    CU_ASSERT(found.preempted > 1000);
    CU_ASSERT(found.faults > 50);
    CU_ASSERT(found.cached > 9000); /* with drafts a row of each hit is computed again */
    CU_ASSERT(found.overlapped > 500);
    CU_ASSERT(found.accepted > 10000 && found.wrong > 10000);
    free(p);
}

static CU_TestInfo cases[] = {
    {"random schedules answer every request once, as if alone, and leak nothing",
     random_schedules_keep_every_promise},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_random = {.pName = "coordinator/random", .pTests = cases};
