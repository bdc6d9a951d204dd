/* player.c - see player.h.
 * In:   prompts.      Out: tokens.
 * Owns: nothing.
 * Why:  see player.h. */

#include "tests/golden/player.h"

#include <string.h>

enum { SEGMENT_PAGES = 16 };

struct cast { /* what the sink needs */
    struct play *p;
    int32_t n, vocab;
};

struct draft { /* a plan under construction */
    struct dr_step_plan plan;
    struct dr_open open[PLAY_MAX];
    struct dr_pages pages[PLAY_MAX];
    uint32_t page[PLAY_MAX][SEGMENT_PAGES];
    struct dr_segment segment[PLAY_MAX];
    uint32_t ids[PLAY_MAX][DR_STEP_TOKENS_MAX];
    int32_t drop[PLAY_MAX];
};

uint32_t play_argmax(const float *row, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (row[i] > row[best]) best = i;
    return (uint32_t)best;
}

/* Ranks write their own columns: no two threads touch the same value. */
static dr_status take_logits(void *arg, const struct dr_logits *chunk) {
    const struct cast *c = arg;
    for (int32_t i = 0; i < c->n; i++) {
        const struct play *p = &c->p[i];
        if (p->slot != chunk->slot) continue;
        float *row =
            chunk->position < p->n_prompt ? p->logits + (size_t)chunk->position * (size_t)c->vocab : p->last;
        memcpy(row + chunk->first, chunk->value, (size_t)chunk->n * sizeof *row);
    }
    return dr_ok();
}

static bool over(const struct play *p) {
    return p->n_got == p->n_new;
}

/* Pages of the positions [0, end) that the slot has not got yet; numbers far apart and out of order on
 * purpose. */
static void add_pages(struct draft *d, const struct rig *r, const struct play *p, int32_t begin,
                      int32_t end) {
    int32_t tokens = r->layout.page_tokens, per_slot = r->layout.n_page / r->layout.seqs_max;
    int32_t first = (begin + tokens - 1) / tokens, last = (end + tokens - 1) / tokens, at = d->plan.n_pages;
    if (begin == 0) first = 0;
    if (first == last) return;
    for (int32_t i = first; i < last; i++)
        d->page[at][i - first] =
            (uint32_t)(r->layout.n_page - 1 - ((per_slot - 1 - i) * r->layout.seqs_max + p->slot));
    d->pages[at] = (struct dr_pages){.slot = p->slot, .first = first, .n = last - first, .page = d->page[at]};
    d->plan.n_pages++;
}

static void add_rows(struct draft *d, const struct rig *r, const struct play *p) {
    int32_t at = d->plan.n_segment++;
    bool prompt = p->n_done < p->n_prompt;
    int32_t left = p->n_prompt - p->n_done, n = prompt ? (left < p->chunk ? left : p->chunk) : 1;
    for (int32_t i = 0; i < n; i++)
        d->ids[at][i] = prompt ? (uint32_t)p->prompt[p->n_done + i] : p->ids[p->n_done - p->n_prompt];
    d->segment[at] = (struct dr_segment){
        .slot = p->slot,
        .first = p->n_done,
        .n_rows = n,
        .source = DR_SOURCE_IDS,
        .ids = d->ids[at],
        .role = prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED,
        .form = prompt ? DR_FORM_EXPANDED : DR_FORM_ABSORBED,
        .output = prompt || p->n_got == p->n_new - 1 ? DR_OUTPUT_LOGITS : DR_OUTPUT_SAMPLE,
    };
    add_pages(d, r, p, p->n_done, p->n_done + n);
}

static void add_open(struct draft *d, const struct play *p) {
    d->drop[d->plan.n_drop++] = p->slot; /* of an earlier play */
    d->open[d->plan.n_open++] = (struct dr_open){
        .slot = p->slot,
        .n_prompt = p->n_prompt,
        .sampling = {.top_p = 1, .repetition = 1, .n_top = p->n_top},
    };
}

static void take_tokens(const struct rig *r, const struct draft *d, struct play *p, int32_t n) {
    const struct dr_step_result *result = rig_result(r);
    int32_t row = 0;
    for (int32_t i = 0; i < d->plan.n_segment; i++) {
        const struct dr_segment *g = &d->segment[i];
        struct play *of = p;
        while (of < p + n - 1 && of->slot != g->slot) of++;
        const struct dr_result_row *out = &result->row[row];
        row += g->output == DR_OUTPUT_SAMPLE ? 1 : g->n_rows;
        of->n_done += g->n_rows;
        if (g->output == DR_OUTPUT_SAMPLE) {
            of->logprob[of->n_got] = out->logprob[0];
            of->ids[of->n_got++] = out->n_ids == 1 && out->slot == of->slot ? out->ids[0] : UINT32_MAX;
        } else if (of->n_done == of->n_prompt) {
            of->ids[of->n_got++] = play_argmax(
                of->logits + (size_t)(of->n_prompt - 1) * (size_t)r->config.vocab, r->config.vocab);
        } else if (of->n_done > of->n_prompt) {
            of->ids[of->n_got++] = play_argmax(of->last, r->config.vocab);
        }
    }
}

dr_status play_all(struct rig *r, struct play *p, int32_t n) {
    static _Thread_local struct draft d;
    static _Thread_local struct cast cast; /* the rig keeps its address */
    cast = (struct cast){.p = p, .n = n, .vocab = r->config.vocab};
    for (int32_t i = 0; i < n; i++) p[i].n_done = p[i].n_got = 0;
    r->sink = take_logits;
    r->sink_arg = &cast;
    for (int32_t step = 0;; step++) {
        int32_t left = 0;
        d.plan =
            (struct dr_step_plan){.open = d.open, .pages = d.pages, .segment = d.segment, .drop = d.drop};
        for (int32_t i = 0; i < n; i++) {
            left += !over(&p[i]);
            if (over(&p[i]) || step < p[i].start) continue;
            if (step == p[i].start) add_open(&d, &p[i]);
            add_rows(&d, r, &p[i]);
        }
        if (left == 0) return dr_ok();
        DR_TRY(rig_step(r, &d.plan));
        take_tokens(r, &d, p, n);
    }
}
