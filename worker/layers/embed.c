/* embed.c - ids to the residual stream.
 * In:   IDS of the step's rows.      Out: HIDDEN [n_row, dim], the same on all ranks of the stage.
 * Owns: nothing.
 * Why:  the table is cut by vocabulary: the owner of an id gives its row, the others zeros, and their sum is
 * exact. */

#include "worker/worker.h"

dr_status dr_embed_ids(struct dr_worker *w, float *y, int32_t layer, int32_t index) {
    struct dr_embed embed = {
        .y = y,
        .ids = dr_worker_buffer(w, DR_BUF_IDS),
        .table = w->model.embed,
        .type = w->model.embed_type,
        .first = (uint32_t)w->shard.vocab.begin,
        .n_row = (uint32_t)dr_range_len(w->shard.vocab),
        .n_tok = w->n_row,
        .dim = w->config->dim,
    };
    struct dr_call_name name = {.what = DR_WHAT_EMBED, .layer = layer, .index = index};
    DR_TRY(w->ops->embed(&embed, w->stream));
    return dr_ledger_allreduce(&w->ledger, name, y, (size_t)w->n_row * (size_t)w->config->dim);
}

dr_status dr_embed_rows(struct dr_worker *w) {
    float *hidden = dr_worker_floats(w, DR_BUF_HIDDEN);
    DR_TRY(dr_embed_ids(w, hidden, -1, 0));
    dr_worker_tap(w, DR_TAP_EMBED, -1, hidden, (size_t)w->config->dim, w->config->dim);
    return dr_ok();
}
