/* rows.c - see rows.h.
 * In:   plan, pass.      Out: row buffers.
 * Owns: nothing.
 * Why:  see rows.h. */

#include "worker/rows.h"

/* Appends a row. stored: its position has a place in the cache, where the row goes unless others wrote it. */
static void add_row(struct dr_worker *w, int32_t slot, int32_t position, uint32_t id, bool stored) {
    const struct dr_page_tables *pages = &w->slots.pages;
    const int32_t at = w->n_row++;
    uint32_t *page = (uint32_t *)dr_worker_buffer(w, DR_BUF_PAGE) + at;
    ((uint32_t *)dr_worker_buffer(w, DR_BUF_IDS))[at] = id;
    ((int32_t *)dr_worker_buffer(w, DR_BUF_POS))[at] = position;
    ((const uint32_t **)dr_worker_buffer(w, DR_BUF_TABLE))[at] = dr_page_table(pages, slot);
    ((int32_t *)dr_worker_buffer(w, DR_BUF_VISIBLE))[at] = dr_pages_local_rows(pages, position + stored);
    *page = UINT32_MAX;
    if (stored && position >= w->slots.slot[slot].n_kept)
        dr_pages_place(pages, slot, position, page, (int32_t *)dr_worker_buffer(w, DR_BUF_ROW) + at);
}

/* The token after a row of the segment: known with the plan, or found by the head. */
static uint32_t next_id(const struct dr_worker *w, int32_t segment, int32_t row) {
    const struct dr_segment *g = &w->plan->segment[segment];
    if (row + 1 == w->run[segment].n_true) return w->run[segment].newest;
    return row + 1 < g->n_rows ? g->ids[row + 1] : 0;
}

/* All rows of a segment; in the MTP layer each one is of the next token and of its position. */
static void add_segment(struct dr_worker *w, int32_t segment) {
    const struct dr_segment *g = &w->plan->segment[segment];
    const int32_t later = w->pass > 0;
    struct dr_run *r = &w->run[segment];
    r->first_row = w->n_row;
    r->position = g->first + later;
    r->n = g->n_rows;
    r->keys = dr_shape_keys(&w->segment[segment], w->pass);
    for (int32_t i = 0; i < g->n_rows; i++)
        add_row(w, g->slot, r->position + i, later ? next_id(w, segment, i) : g->ids[i],
                r->position + i < g->first + g->n_rows || w->segment[segment].next);
}

/* The newest draft of each segment that wants another one. */
static void add_drafts(struct dr_worker *w) {
    for (int32_t i = 0; i < w->plan->n_segment; i++) {
        const struct dr_segment *g = &w->plan->segment[i];
        struct dr_run *r = &w->run[i];
        r->first_row = w->n_row;
        r->position = g->first + r->n_true + w->pass - 1;
        r->n = g->n_draft >= w->pass;
        r->keys = 0;
        if (r->n) add_row(w, g->slot, r->position, r->newest, true);
    }
}

dr_status dr_rows_fill(struct dr_worker *w) {
    w->n_row = 0;
    if (w->pass > 1) add_drafts(w);
    for (int32_t i = 0; i < w->plan->n_segment && w->pass < 2; i++)
        if (w->plan->segment[i].form == DR_FORM_ABSORBED) add_segment(w, i);
    w->n_absorbed = w->n_row;
    for (int32_t i = 0; i < w->plan->n_segment && w->pass < 2; i++)
        if (w->plan->segment[i].form != DR_FORM_ABSORBED) add_segment(w, i);
    struct dr_rope_angles angles = {
        .cos = dr_worker_floats(w, DR_BUF_COS),
        .sin = dr_worker_floats(w, DR_BUF_SIN),
        .pos = dr_worker_buffer(w, DR_BUF_POS),
        .freq = w->rope_freq,
        .n_tok = w->n_row,
        .n_pair = w->config->rope_dim / 2,
        .gain = (double)w->rope_gain,
    };
    return w->ops->rope_angles(&angles, w->stream);
}
