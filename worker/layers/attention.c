/* attention.c - one MLA block: HIDDEN += Wo attention(norm(HIDDEN)).
 * In:   HIDDEN [n_row, dim], cos and sin of the rows' positions.      Out: HIDDEN; the rows' latents in the
 * cache. Owns: nothing. Why:  projections and the output are the same for all rows; between them each form of
 * attention takes its own rows. */

#include "worker/worker.h"

/* The norms inside attention keep this epsilon whatever the config says, as in the published code. */
static const float lora_eps = 1e-6f;

static dr_status rotate(struct dr_worker *w, float *x, int32_t n_head, size_t stride, size_t head_stride) {
    struct dr_rope op = {
        .x = x,
        .cos = dr_worker_floats(w, DR_BUF_COS),
        .sin = dr_worker_floats(w, DR_BUF_SIN),
        .n_tok = w->n_row,
        .n_head = n_head,
        .n_pair = w->config->rope_dim / 2,
        .x_stride = stride,
        .x_head_stride = head_stride,
    };
    return w->ops->rope(&op, w->stream);
}

/* Queries of the own heads: Q [n_row, heads, nope + rope], the rotated part rotated. */
static dr_status queries(struct dr_worker *w, const struct dr_layer *y, const float *normed) {
    const struct dr_config *c = w->config;
    float *q = dr_worker_floats(w, DR_BUF_Q), *cq = dr_worker_floats(w, DR_BUF_CQ);
    int32_t heads = dr_range_len(w->shard.heads), qk = dr_config_qk_dim(c);
    if (c->q_lora > 0) {
        DR_TRY(dr_project_linear(w, cq, normed, &y->q_a));
        DR_TRY(dr_project_norm(w, cq, cq, y->q_a_norm, c->q_lora, (size_t)c->q_lora, lora_eps));
        normed = cq;
    }
    DR_TRY(dr_project_linear(w, q, normed, &y->q));
    return rotate(w, q + c->nope_dim, heads, (size_t)heads * (size_t)qk, (size_t)qk);
}

/* Latent and rotated key: KV [n_row, kv_lora + rope], and this rank's positions of it in the cache. */
static dr_status latents(struct dr_worker *w, const struct dr_layer *y, int32_t index, const float *normed) {
    const struct dr_config *c = w->config;
    float *kv = dr_worker_floats(w, DR_BUF_KV);
    size_t row = (size_t)dr_config_row_dim(c);
    struct dr_cache_put put = {
        .cache = dr_cache_layer(&w->cache, index),
        .latent = kv,
        .k_pe = kv + c->kv_lora,
        .page = dr_worker_buffer(w, DR_BUF_PAGE),
        .row = dr_worker_buffer(w, DR_BUF_ROW),
        .n_tok = w->n_row,
        .latent_stride = row,
        .k_pe_stride = row,
    };
    DR_TRY(dr_project_linear(w, kv, normed, &y->kv_a));
    DR_TRY(dr_project_norm(w, kv, kv, y->kv_a_norm, c->kv_lora, row, lora_eps));
    DR_TRY(rotate(w, kv + c->kv_lora, 1, row, 0));
    dr_worker_tap(w, DR_TAP_CKV, w->shard.layers.begin + index, kv, row, c->kv_lora);
    dr_worker_tap(w, DR_TAP_KPE, w->shard.layers.begin + index, kv + c->kv_lora, row, c->rope_dim);
    return w->ops->cache_put(&put, w->stream);
}

dr_status dr_attention(struct dr_worker *w, int32_t index) {
    const struct dr_config *c = w->config;
    const struct dr_layer *y = &w->model.layer[index];
    float *hidden = dr_worker_floats(w, DR_BUF_HIDDEN), *normed = dr_worker_floats(w, DR_BUF_NORMED);
    float *partial = dr_worker_floats(w, DR_BUF_PARTIAL);
    struct dr_call_name name = {.what = DR_WHAT_ATTN_OUT, .layer = w->shard.layers.begin + index};
    struct dr_add add = {.y = hidden, .x = partial, .n = (size_t)w->n_row * (size_t)c->dim};
    DR_TRY(dr_project_norm(w, normed, hidden, y->input_norm, c->dim, (size_t)c->dim, c->rms_eps));
    DR_TRY(queries(w, y, normed));
    DR_TRY(latents(w, y, index, normed));
    DR_TRY(dr_attention_absorbed(w, index));
    DR_TRY(dr_attention_expanded(w, index));
    DR_TRY(dr_project_linear(w, partial, dr_worker_floats(w, DR_BUF_HEADS), &y->o));
    DR_TRY(dr_ledger_allreduce(&w->ledger, name, partial, add.n));
    return w->ops->add(&add, w->stream);
}
