/* rig.c - see rig.h.
 * In:   calls.      Out: records.
 * Owns: what rig.h says.
 * Why:  see rig.h. */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <CUnit/CUnit.h>

void rig_init(struct rig *g, struct fake_wish w) {
    *g = (struct rig){.config = fake_config(), .layout = fake_layout(w), .now = 1000};
    struct dr_core_setup setup = {
        .config = &g->config,
        .layout = &g->layout,
        .epoch = 77,
        .deadline_scale = 1,
        .reuse = w.reuse,
        .step_ns = w.step_ns,
        .drafts = w.drafts,
    };
    CU_ASSERT_FATAL(dr_core_create(&setup, &g->core).code == DR_OK);
    fake_init(&g->fake, &g->layout);
    g->fake.reuse = w.reuse;
    g->told = calloc(RIG_REQUESTS_MAX, sizeof *g->told);
    CU_ASSERT_FATAL(g->told != NULL);
}

void rig_fini(struct rig *g) {
    dr_core_destroy(g->core);
    fake_fini(&g->fake);
    free(g->told);
    for (int32_t i = 0; i < RIG_FLIGHTS_MAX; i++) {
        free(g->flight[i].row);
        free(g->flight[i].top);
        free(g->flight[i].bad);
    }
}

static void trace(struct rig *g, uint64_t x) {
    g->trace = splitmix(g->trace ^ x);
}

static void take_news(struct rig *g, const struct dr_token_news *n) {
    struct told *t = &g->told[n->request];
    CU_ASSERT(t->accepted && !t->done);
    for (int32_t i = 0; i < n->n; i++) {
        trace(g, n->request * 1000003 + n->ids[i]);
        if (n->prompt) {
            CU_ASSERT(n->position + i == t->n_scored); /* each prompt token once, in order */
            t->score[t->n_scored++] = n->logprob[i];
        } else {
            t->logprob[t->n] = n->logprob ? n->logprob[i] : 0;
            t->ids[t->n++] = n->ids[i];
        }
    }
}

static void take_event(struct rig *g, const struct dr_core_event *e) {
    trace(g, e->type);
    switch ((int)e->type) {
    case DR_MSG_ACCEPTED:
        CU_ASSERT(!g->told[e->request].accepted && !g->told[e->request].refused);
        g->told[e->request].accepted = true;
        g->n_open++;
        break;
    case DR_MSG_REFUSED: {
        struct told *t = &g->told[e->refused->request];
        t->refused = true;
        t->reason = e->refused->reason;
        t->retry_ms = e->refused->retry_ms;
        snprintf(t->text, sizeof t->text, "%.255s", e->refused->text);
        break;
    }
    case DR_MSG_TOKENS:
        for (int32_t i = 0; i < e->tokens.n; i++) take_news(g, &e->tokens.news[i]);
        break;
    case DR_MSG_DONE: {
        struct told *t = &g->told[e->done.request];
        CU_ASSERT(t->accepted && !t->done);
        t->done = true;
        t->end = e->done;
        t->done_step = g->n_step;
        g->n_open--;
        trace(g, e->done.request * 31 + e->done.finish);
        break;
    }
    default:
        CU_FAIL("unknown event");
    }
}

static void drain(struct rig *g) {
    struct dr_core_event e;
    while (dr_core_event(g->core, &e)) take_event(g, &e);
    dr_status st = dr_book_check(dr_core_book(g->core));
    CU_ASSERT(st.code == DR_OK);
    if (st.code != DR_OK) puts(dr_error_text());
}

void rig_submit(struct rig *g, const struct dr_submit *s) {
    CU_ASSERT_FATAL(s->request < RIG_REQUESTS_MAX);
    dr_core_submit(g->core, g->now, s);
    drain(g);
}

void rig_cancel(struct rig *g, uint64_t request) {
    dr_core_cancel(g->core, g->now, request);
    drain(g);
}

static void *grown(void *old, size_t n, size_t size) {
    void *at = realloc(old, (n + 1) * size);
    CU_ASSERT_FATAL(at != NULL);
    return at;
}

/* Keeps a result of the fake, whose rows live until its next step. */
static void keep(struct rig *g, const struct dr_step_result *r) {
    CU_ASSERT_FATAL(g->n_flight < RIG_FLIGHTS_MAX);
    struct rig_flight *f = &g->flight[g->n_flight++];
    f->row = grown(f->row, (size_t)r->n_row, sizeof *f->row);
    f->top = grown(f->top, (size_t)r->n_row * FAKE_TOP, sizeof *f->top);
    f->bad = grown(f->bad, (size_t)r->n_bad, sizeof *f->bad);
    f->result = *r;
    f->result.row = f->row;
    f->result.bad = f->bad;
    memcpy(f->bad, r->bad, (size_t)r->n_bad * sizeof *f->bad);
    for (int32_t i = 0; i < r->n_row; i++) {
        f->row[i] = r->row[i];
        f->row[i].top = &f->top[i * FAKE_TOP];
        memcpy(&f->top[i * FAKE_TOP], r->row[i].top,
               (size_t)(r->row[i].n_ids * r->row[i].n_top) * sizeof *f->top);
    }
    if (g->n_flight > g->n_flight_most) g->n_flight_most = g->n_flight;
}

bool rig_begin(struct rig *g) {
    g->plan = dr_core_plan(g->core, g->now);
    bool due = g->plan != NULL;
    if (due) {
        struct dr_step_result result = fake_step(&g->fake, g->plan);
        keep(g, &result);
        trace(g, g->plan->schedule_hash);
        for (int32_t i = 0; i < g->plan->n_segment; i++) {
            const struct dr_segment *s = &g->plan->segment[i];
            trace(g, ((uint64_t)s->slot << 40) ^ ((uint64_t)s->first << 16) ^ (uint64_t)s->n_rows);
            if (s->role == DR_TOKENS_PROMPT)
                g->n_prompt_row += (uint64_t)s->n_rows;
            else
                g->n_generated_row += (uint64_t)s->n_rows;
        }
    }
    drain(g);
    return due;
}

void rig_finish(struct rig *g) {
    g->n_step++;
    CU_ASSERT_FATAL(g->n_flight > 0);
    const struct rig_flight f = g->flight[0];
    int32_t half = g->fake.n_logits / 2; /* some pieces come before the result, some after */
    for (int32_t i = 0; i < g->fake.n_logits; i++) {
        bool forward = false;
        struct dr_logits l = g->fake.logits[i];
        if (i == half) {
            CU_ASSERT_FATAL(dr_core_result(g->core, g->now, &f.result).code == DR_OK);
            drain(g);
        }
        CU_ASSERT(dr_core_logits(g->core, g->now, &l, &forward).code == DR_OK);
        if (forward) g->told[l.request].n_logits += l.n;
        drain(g);
    }
    if (g->fake.n_logits == 0) {
        dr_status st = dr_core_result(g->core, g->now, &f.result);
        if (st.code != DR_OK) puts(dr_error_text());
        CU_ASSERT_FATAL(st.code == DR_OK);
    }
    g->plan = NULL;
    g->n_flight--;
    memmove(&g->flight[0], &g->flight[1], sizeof g->flight - sizeof g->flight[0]);
    g->flight[RIG_FLIGHTS_MAX - 1] = f; /* its memory is used again */
    drain(g);
}

bool rig_step(struct rig *g) {
    while (rig_begin(g))
        ;
    if (g->n_flight == 0) return false;
    g->now += 1000000;
    rig_finish(g);
    return true;
}

void rig_run(struct rig *g, int32_t most) {
    for (int32_t i = 0; i < most && !dr_core_idle(g->core); i++) CU_ASSERT_FATAL(rig_step(g));
    CU_ASSERT(dr_core_idle(g->core));
    struct dr_stats s;
    dr_core_stats(g->core, g->now, &s);
    CU_ASSERT_EQUAL(s.pages_used, 0);
    CU_ASSERT(s.running == 0 && s.waiting == 0 && s.waiting_tokens == 0 && g->n_open == 0);
}

void rig_expect_answer(const struct rig *g, const struct dr_submit *s) {
    static struct answer a;
    const struct told *t = &g->told[s->request];
    fake_answer(&g->fake, s, &a);
    CU_ASSERT(t->done);
    CU_ASSERT_EQUAL(t->end.finish, a.finish);
    CU_ASSERT_EQUAL(t->end.stop_id, a.stop_id);
    CU_ASSERT_EQUAL(t->end.n_output, a.n);
    CU_ASSERT_EQUAL(t->end.n_prompt, s->n_ids - s->n_delivered);
    CU_ASSERT_EQUAL(t->n, a.n);
    CU_ASSERT(memcmp(t->ids, a.ids, (size_t)a.n * sizeof a.ids[0]) == 0);
    if (s->sampling.n_top >= 0)
        CU_ASSERT(memcmp(t->logprob, a.logprob, (size_t)a.n * sizeof a.logprob[0]) == 0);
    /* what was scored before a bad row is told */
    const bool failed = a.finish == DR_FINISH_NUMERIC;
    CU_ASSERT(t->n_scored == a.n_scored || (failed && t->n_scored < a.n_scored));
    CU_ASSERT(memcmp(t->score, a.score, (size_t)t->n_scored * sizeof a.score[0]) == 0);
    CU_ASSERT(t->n_logits == (s->logits ? s->n_ids * FAKE_VOCAB : 0) || failed);
}
