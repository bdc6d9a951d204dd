/* shadow.c - see shadow.h.
 * In:   plans.      Out: results.
 * Owns: see shadow.h.
 * Why:  see shadow.h. */
#include "tests/sim/shadow.h"

#include <stdlib.h>

#include "common/size.h"

#define BROKEN(...) dr_fail(DR_EINTERNAL, __VA_ARGS__)

dr_status shadow_init(struct shadow *s, const struct dr_book *book, int32_t vocab) {
    const struct dr_layout *l = book->layout;
    const size_t seqs = (size_t)l->seqs_max, pages = (size_t)l->n_page;
    *s = (struct shadow){.book = book, .vocab = vocab, .table_max = dr_ceil_div(l->context, l->page_tokens)};
    s->slot = calloc(seqs, sizeof *s->slot);
    s->ref = calloc(pages, sizeof *s->ref);
    s->end = calloc(pages, sizeof *s->end);
    s->table = calloc(seqs * (size_t)s->table_max, sizeof *s->table);
    if (!s->slot || !s->ref || !s->end || !s->table) {
        shadow_fini(s);
        return dr_fail(DR_EFULL, "no memory for a shadow of %zu pages", pages);
    }
    for (size_t i = 0; i < seqs; i++) s->slot[i].page = s->table + i * (size_t)s->table_max;
    return dr_ok();
}

void shadow_fini(struct shadow *s) {
    free(s->slot);
    free(s->ref);
    free(s->end);
    free(s->table);
    *s = (struct shadow){0};
}

uint64_t shadow_fold(uint64_t hash, const uint32_t *ids, int32_t n) {
    for (int32_t i = 0; i < n;
         i++) { /* one multiplication an id; the high half comes down so that all bits count */
        hash = (hash ^ ids[i] ^ 0x9E3779B97F4A7C15U) * 0xD6E8FEB86659FD93U;
        hash ^= hash >> 32;
    }
    return hash;
}

static dr_status take_state(struct shadow *s, const struct dr_step_plan *plan) {
    if (plan->step != s->step + 1)
        return BROKEN("step %llu after %llu", (unsigned long long)plan->step, (unsigned long long)s->step);
    s->step = plan->step;
    for (int32_t i = 0; i < plan->n_drop; i++) {
        struct shadow_slot *t = &s->slot[plan->drop[i]];
        if (!t->open) return BROKEN("slot %d is dropped, but not open", plan->drop[i]);
        for (int32_t k = 0; k < t->n_page; k++) s->ref[t->page[k]]--;
        t->open = false;
    }
    for (int32_t i = 0; i < plan->n_open; i++) {
        struct shadow_slot *t = &s->slot[plan->open[i].slot];
        if (t->open) return BROKEN("slot %d is opened twice", plan->open[i].slot);
        *t = (struct shadow_slot){.open = true, .page = t->page, .n_row = -1, .n_kept = plan->open[i].n_kept};
    }
    for (int32_t i = 0; i < plan->n_pages; i++) {
        const struct dr_pages *p = &plan->pages[i];
        struct shadow_slot *t = &s->slot[p->slot];
        if (!t->open || p->first != t->n_page || p->first + p->n > s->table_max)
            return BROKEN("slot %d: page entries from %d on, expected from %d", p->slot, p->first, t->n_page);
        for (int32_t k = 0; k < p->n; k++) {
            t->page[t->n_page++] = p->page[k];
            s->ref[p->page[k]]++;
        }
    }
    return dr_ok();
}

/* The first rows of a slot: what is before them must be in the found pages. With the MTP layer the last of
 * the found rows comes once more. */
static dr_status check_found(struct shadow *s, const struct dr_segment *g) {
    struct shadow_slot *t = &s->slot[g->slot];
    const struct dr_request *r = s->book->by_slot[g->slot];
    const int32_t per = s->book->layout->page_tokens, again = s->book->layout->mtp && t->n_kept > 0;
    uint64_t hash = 0;
    if (t->n_kept % per != 0 || g->first != t->n_kept - again || g->first >= r->n_ids)
        return BROKEN("slot %d begins at row %d of %d, %d were found", g->slot, g->first, r->n_ids,
                      t->n_kept);
    for (int32_t i = 0; i < t->n_kept / per; i++) {
        hash = shadow_fold(hash, r->ids + i * per, per);
        if (s->end[t->page[i]] != hash)
            return BROKEN("slot %d: page %u was found for entry %d, but holds something else", g->slot,
                          t->page[i], i);
    }
    t->last = again ? shadow_fold(0, r->ids, g->first) : hash;
    t->n_row = g->first;
    s->n_found += (uint64_t)g->first;
    return dr_ok();
}

/* Rows whose ids are true: drafts up to the first that is not what follows. */
static int32_t true_rows(const struct shadow *s, const struct dr_segment *g, uint64_t last) {
    int32_t n = g->n_rows - g->n_verify;
    last = shadow_fold(last, g->ids, n);
    for (; n < g->n_rows && g->ids[n] == shadow_next(last, s->vocab); n++)
        last = shadow_fold(last, g->ids + n, 1);
    return n;
}

/* Writes the n true rows of a segment; rows of wrong drafts only need a place. */
static dr_status write_rows(struct shadow *s, const struct dr_segment *g, int32_t n_true) {
    struct shadow_slot *t = &s->slot[g->slot];
    const struct dr_layout *l = s->book->layout;
    const int32_t per = l->page_tokens,
                  beyond = l->mtp ? dr_max_i32(g->has_next || g->output == DR_OUTPUT_SAMPLE, g->n_draft) : 0;
    if (g->first != t->n_row || n_true < 1 || g->first + g->n_rows + beyond > t->n_page * per ||
        g->first + g->n_rows > l->context)
        return BROKEN("slot %d: rows [%d, %d + %d) and %d beyond, expected from %d within %d pages", g->slot,
                      g->first, g->first, g->n_rows, beyond, t->n_row, t->n_page);
    for (int32_t at = g->first, end = g->first + n_true; at < end;) {
        const uint32_t page = t->page[at / per];
        const int32_t n = dr_min_i32(end - at, per - at % per);
        const bool kept = at < t->n_kept;
        if (s->ref[page] != 1 && !kept)
            return BROKEN("slot %d writes page %u, which %d tables name", g->slot, page, s->ref[page]);
        t->last = shadow_fold(t->last, g->ids + (at - g->first), n);
        at += n;
        if (!kept) s->end[page] = at % per == 0 ? t->last : 0;
    }
    for (int32_t at = g->first + n_true; at < g->first + g->n_rows + beyond; at++)
        if (s->ref[t->page[at / per]] != 1)
            return BROKEN("slot %d drafts into page %u, which %d tables name", g->slot, t->page[at / per],
                          s->ref[t->page[at / per]]);
    t->n_row += n_true;
    s->n_row += (uint64_t)n_true;
    return dr_ok();
}

/* What the segment draws: behind its true rows, with what was verified on the way, and drafts of more. */
static struct dr_result_row result_of(const struct shadow *s, const struct dr_segment *g, int32_t n_true) {
    const int32_t first = g->n_rows - g->n_verify;
    struct dr_result_row r = {
        .slot = g->slot, .position = g->first + first - 1, .n_accepted = n_true - first};
    uint64_t hash = s->slot[g->slot].last;
    for (int32_t i = first; i < n_true; i++) r.ids[r.n_ids++] = g->ids[i];
    r.ids[r.n_ids++] = shadow_next(hash, s->vocab);
    hash = shadow_fold(hash, &r.ids[r.n_ids - 1], 1);
    for (; r.n_draft < g->n_draft; r.n_draft++) {
        r.draft[r.n_draft] = (shadow_next(hash, s->vocab) + (hash % 3 == 0)) % (uint32_t)s->vocab;
        hash = shadow_fold(hash, &r.draft[r.n_draft], 1);
    }
    return r;
}

dr_status shadow_step(struct shadow *s, const struct dr_step_plan *plan, struct dr_result_row *row,
                      struct dr_step_result *out) {
    int32_t rows = 0, n = 0;
    DR_TRY(take_state(s, plan));
    if (plan->n_segment < 1 || plan->n_segment > s->book->layout->seqs_max)
        return BROKEN("a plan of %d segments", plan->n_segment);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        const struct dr_segment *g = &plan->segment[i];
        if (!s->slot[g->slot].open || !s->book->by_slot[g->slot])
            return BROKEN("slot %d has rows, but is not open", g->slot);
        if (s->slot[g->slot].n_row < 0) DR_TRY(check_found(s, g));
        const int32_t n_true = true_rows(s, g, s->slot[g->slot].last);
        DR_TRY(write_rows(s, g, n_true));
        rows += g->n_rows;
        if (g->output == DR_OUTPUT_SAMPLE) row[n++] = result_of(s, g, n_true);
    }
    if (rows > s->book->layout->step_tokens)
        return BROKEN("a plan of %d rows, at most %d", rows, s->book->layout->step_tokens);
    *out = (struct dr_step_result){.epoch = plan->epoch, .step = plan->step, .n_row = n, .row = row};
    return dr_ok();
}
