/* draft.c - the MTP layer: its rows of the cache, and drafts of the tokens to come.
 * In:   HIDDEN of the last main layer; the tokens after its rows, drawn or known.      Out: the MTP layer's
 * cache rows; drafts in the segments' last result rows. HIDDEN is used up. Owns: nothing. Why:  one pass over
 * all rows keeps that layer's cache complete, whoever wants drafts; each further pass has one row for each
 * segment that wants one draft more.
 *
 * A row joins the normed state before a token and the token's embedding, and belongs to the token's position
 * (mla-family: checkpoint layer num_hidden_layers): so that pages depend on their own tokens alone. Position
 * 0 has no row. The layer's own normed output is the state before the draft.
 *
 * A draft is drawn as its token will be, with the same random numbers but without top-k and top-p: that makes
 * it come true more often than the likeliest token would. */

#include "worker/rows.h"
#include "worker/worker.h"

static dr_status norm_rows(struct dr_worker *w, float *y, const float *x, const float *gain) {
    const size_t dim = (size_t)w->config->dim;
    struct dr_rmsnorm op = {
        .y = y,
        .x = x,
        .gain = gain,
        .n_tok = w->n_row,
        .dim = w->config->dim,
        .y_stride = 2 * dim,
        .x_stride = dim,
        .eps = w->config->rms_eps,
    };
    return w->ops->rmsnorm(&op, w->stream);
}

/* HIDDEN [n_row, dim] = W [norm of the embedding; norm of the state]. The state: of the main layers in the
 * first pass, then PARTIAL. */
static dr_status join(struct dr_worker *w) {
    const struct dr_config *c = w->config;
    float *joined = dr_worker_floats(w, DR_BUF_JOINED), *normed = dr_worker_floats(w, DR_BUF_NORMED);
    float *hidden = dr_worker_floats(w, DR_BUF_HIDDEN), *state = dr_worker_floats(w, DR_BUF_PARTIAL);
    dr_parts_enter(&w->parts, DR_PART_EMBED);
    DR_TRY(dr_embed_ids(w, normed, c->n_layer, w->pass));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    DR_TRY(norm_rows(w, joined, normed, w->model.mtp_enorm));
    if (w->pass == 1) {
        DR_TRY(dr_project_norm(w, normed, hidden, w->model.norm, c->dim, (size_t)c->dim, c->rms_eps));
        state = normed;
    }
    DR_TRY(norm_rows(w, joined + c->dim, state, w->model.mtp_hnorm));
    return dr_project_linear(w, hidden, joined, &w->model.mtp_eh);
}

struct batch { /* segments that draft in this pass */
    int32_t n, segment[DR_OUT_BATCH], row[DR_OUT_BATCH];
};

/* The next segments in the order of the plan, from *at on. */
static bool next_batch(const struct dr_worker *w, int32_t *at, struct batch *b) {
    b->n = 0;
    for (; *at < w->plan->n_segment && b->n < DR_OUT_BATCH; ++*at) {
        const struct dr_run *r = &w->run[*at];
        if (w->plan->segment[*at].n_draft < w->pass) continue;
        b->segment[b->n] = *at;
        b->row[b->n++] = r->first_row + (w->pass == 1 ? r->n_true - 1 : 0);
    }
    return b->n > 0;
}

static struct dr_result_row *result_of(const struct dr_worker *w, int32_t segment) {
    return (struct dr_result_row *)dr_worker_buffer(w, DR_BUF_RESULT) + w->run[segment].result;
}

static void tap(struct dr_worker *w, const struct batch *b) {
    const int32_t cols = w->model.head.n_out;
    for (int32_t i = 0; w->n_tap > 0 && i < b->n; i++) {
        const struct dr_segment *g = &w->plan->segment[b->segment[i]];
        const struct dr_tap_rows rows = {.slot = g->slot,
                                         .first_row = i,
                                         .position = g->first + w->run[b->segment[i]].n_true + w->pass - 1,
                                         .n = 1};
        dr_tap_take(w->taps, w->n_tap, DR_TAP_MTP_LOGITS, -1, &rows, dr_worker_floats(w, DR_BUF_LOGITS),
                    (size_t)cols, cols, w->stream);
    }
}

/* Draws a draft for each row of the batch. One that is no number ends its segment's drafts; its rows of
 * further passes run on with token 0 and are not looked at. */
static dr_status draw(struct dr_worker *w, const struct batch *b) {
    struct dr_sample_want want[DR_OUT_BATCH];
    struct dr_sample_got got[DR_OUT_BATCH] = {{0}};
    for (int32_t i = 0; i < b->n; i++) {
        const struct dr_segment *g = &w->plan->segment[b->segment[i]];
        const struct dr_result_row *r = result_of(w, b->segment[i]);
        const int32_t position = g->first + w->run[b->segment[i]].n_true + w->pass;
        want[i] = (struct dr_sample_want){
            .draw = true,
            .row = dr_head_wish(w, g->slot, position, r->draft, r->n_draft),
            .min_p = w->slots.sampling[g->slot].min_p,
            .target = UINT32_MAX,
            .n_top = -1,
        };
    }
    DR_TRY(dr_sampler_run(w->sampler, w->n_batch++, want, b->n, dr_worker_floats(w, DR_BUF_LOGITS), got));
    for (int32_t i = 0; i < b->n; i++) {
        struct dr_result_row *r = result_of(w, b->segment[i]);
        const bool good = !got[i].bad && r->fault == DR_FAULT_NONE && r->n_draft == w->pass - 1;
        w->run[b->segment[i]].newest = good ? got[i].id : 0;
        if (good) r->draft[r->n_draft++] = got[i].id;
    }
    return dr_ok();
}

/* Drafts of this pass. PARTIAL: the state of each segment that wants another one, in the order of the plan.
 */
static dr_status guess(struct dr_worker *w) {
    const size_t dim = (size_t)w->config->dim;
    float *state = dr_worker_floats(w, DR_BUF_PARTIAL);
    const float *out = dr_worker_floats(w, DR_BUF_OUT);
    struct batch b;
    for (int32_t at = 0; next_batch(w, &at, &b);) {
        dr_parts_enter(&w->parts, DR_PART_HEAD);
        DR_TRY(dr_head_logits(w, w->model.mtp_norm, b.row, b.n));
        tap(w, &b);
        dr_parts_enter(&w->parts, DR_PART_SAMPLER);
        DR_TRY(draw(w, &b));
        for (int32_t i = 0; i < b.n; i++) {
            if (w->plan->segment[b.segment[i]].n_draft == w->pass) continue;
            dr_copy_rows(state, 0, out + (size_t)i * dim, 0, dim * 4, 1, w->stream);
            state += dim;
        }
    }
    return dr_ok();
}

dr_status dr_draft(struct dr_worker *w) {
    const int32_t mtp = dr_range_len(w->shard.layers); /* its place among the stage's layers */
    for (w->pass = 1; w->pass == 1 || dr_shape_drafting(&w->shape, w->pass) > 0; w->pass++) {
        DR_TRY(dr_rows_fill(w));
        DR_TRY(join(w));
        DR_TRY(dr_attention(w, mtp));
        dr_parts_enter(&w->parts, DR_PART_EXPERTS);
        DR_TRY(dr_ffn(w, mtp));
        DR_TRY(guess(w));
    }
    return dr_ok();
}
