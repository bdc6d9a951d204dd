/* rows.c - see rows.h.
 * In:   plan.      Out: row buffers.
 * Owns: nothing.
 * Why:  see rows.h. */

#include "worker/rows.h"

#include <string.h>

static void fill_segment(struct dr_worker *w, int32_t segment) {
    const struct dr_segment *g = &w->plan->segment[segment];
    const struct dr_page_tables *pages = &w->slots.pages;
    uint32_t *ids = dr_worker_buffer(w, DR_BUF_IDS), *page = dr_worker_buffer(w, DR_BUF_PAGE);
    int32_t *pos = dr_worker_buffer(w, DR_BUF_POS), *row = dr_worker_buffer(w, DR_BUF_ROW);
    int32_t *visible = dr_worker_buffer(w, DR_BUF_VISIBLE);
    const uint32_t **table = dr_worker_buffer(w, DR_BUF_TABLE);
    int32_t at = w->n_row;
    w->run[segment].first_row = at;
    memcpy(ids + at, g->ids, (size_t)g->n_rows * sizeof *ids);
    for (int32_t r = 0; r < g->n_rows; r++) {
        int32_t p = g->first + r;
        pos[at + r] = p;
        dr_pages_place(pages, g->slot, p, &page[at + r], &row[at + r]);
        table[at + r] = dr_page_table(pages, g->slot);
        visible[at + r] = dr_pages_local_rows(pages, p + 1);
    }
    w->n_row += g->n_rows;
}

dr_status dr_rows_fill(struct dr_worker *w) {
    w->n_row = 0;
    for (int32_t i = 0; i < w->plan->n_segment; i++)
        if (w->plan->segment[i].form == DR_FORM_ABSORBED) fill_segment(w, i);
    w->n_absorbed = w->n_row;
    for (int32_t i = 0; i < w->plan->n_segment; i++)
        if (w->plan->segment[i].form != DR_FORM_ABSORBED) fill_segment(w, i);
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
