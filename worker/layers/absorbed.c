/* absorbed.c - attention of generated rows, in the latent space of the cache.
 * In:   Q of the absorbed rows (the first n_absorbed of the step); the cache.      Out: HEADS of these rows.
 * Owns: nothing.
 * Why:  the cache is cut by position, so each member of the cache group computes all heads of the group over
 * its own rows; partial results go back to the owners of the heads and meet by their log-sum-exp. One member:
 * the same code without the two exchanges.
 *
 * Rows pass in batches of DR_ABSORBED_BATCH, so that the exchange's memory has a bound. */

#include "worker/worker.h"

struct batch {
    int32_t index, first, n; /* rows [first, first + n) of the step */
};

static size_t member_heads(const struct dr_worker *w, int32_t m) {
    return (size_t)dr_range_len(w->member_heads[m]);
}

/* u [n, heads, kv_lora + rope]: W_UK^T q_nope, then the rotated part as it is. */
static dr_status absorb(struct dr_worker *w, const struct dr_layer *y, const struct batch *b, float *u) {
    const struct dr_config *c = w->config;
    size_t qk = (size_t)dr_config_qk_dim(c), row = (size_t)dr_config_row_dim(c),
           heads = member_heads(w, w->shard.member);
    const float *q = dr_worker_floats(w, DR_BUF_Q) + (size_t)b->first * heads * qk;
    struct dr_linear_heads op = {
        .y = u,
        .x = q,
        .w = y->uk_t,
        .n_tok = b->n,
        .n_head = (int32_t)heads,
        .y_stride = heads * row,
        .y_head_stride = row,
        .x_stride = heads * qk,
        .x_head_stride = qk,
    };
    DR_TRY(dr_project_heads(w, op));
    dr_copy_rows(u + c->kv_lora, row * 4, q + c->nope_dim, qk * 4, (size_t)c->rope_dim * 4,
                 (size_t)b->n * heads, w->stream);
    return dr_ok();
}

/* Queries of all heads of the group: block m holds member m's [n, heads, row]. Returns its start in *out. */
static dr_status gather_queries(struct dr_worker *w, int32_t layer, const struct batch *b, float *own,
                                float **out) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], sum = 0;
    struct dr_call_name name = {.what = DR_WHAT_QUERY, .layer = layer, .index = b->index};
    *out = own;
    if (w->layout->c == 1) return dr_ok();
    *out = dr_worker_floats(w, DR_BUF_U);
    for (int32_t m = 0; m < w->layout->c; m++) {
        at[m] = sum;
        bytes[m] = (size_t)b->n * member_heads(w, m) * (size_t)dr_config_row_dim(w->config) * 4;
        sum += bytes[m];
    }
    return dr_ledger_allgatherv(&w->ledger, DR_GROUP_CACHE, name, own, *out, bytes, at);
}

/* PART: for each member m, o [n, heads of m, kv_lora] then lse [n, heads of m], over this rank's rows of the
 * cache. */
static dr_status partials(struct dr_worker *w, int32_t index, const struct batch *b, const float *u,
                          float *part) {
    const struct dr_config *c = w->config;
    for (int32_t m = 0; m < w->layout->c; m++) {
        size_t heads = member_heads(w, m), cells = (size_t)b->n * heads;
        struct dr_attn_absorbed op = {
            .o = part,
            .lse = part + cells * (size_t)c->kv_lora,
            .u = u,
            .cache = dr_cache_layer(&w->cache, index),
            .table = (const uint32_t *const *)dr_worker_buffer(w, DR_BUF_TABLE) + b->first,
            .n_visible = (const int32_t *)dr_worker_buffer(w, DR_BUF_VISIBLE) + b->first,
            .n_tok = b->n,
            .n_head = (int32_t)heads,
            .split_rows = DR_PIECE_PAGES * w->layout->page_rows,
            .scale = w->softmax_scale,
            .scratch = dr_worker_buffer(w, DR_BUF_ATTN_SCRATCH),
            .scratch_bytes = w->map.size[DR_BUF_ATTN_SCRATCH],
        };
        DR_TRY(w->ops->attn_absorbed(&op, w->stream));
        u += cells * (size_t)dr_config_row_dim(c);
        part += cells * (size_t)(c->kv_lora + 1);
    }
    return dr_ok();
}

/* Each member ends with its own heads' parts of all members and merges them in member order: *z [n, heads,
 * kv_lora]. */
static dr_status exchange(struct dr_worker *w, int32_t layer, const struct batch *b, float *part,
                          const float **z) {
    size_t send[DR_GROUP_MEMBERS_MAX], send_at[DR_GROUP_MEMBERS_MAX], recv[DR_GROUP_MEMBERS_MAX],
        recv_at[DR_GROUP_MEMBERS_MAX];
    const float *part_o[DR_GROUP_MEMBERS_MAX], *part_lse[DR_GROUP_MEMBERS_MAX];
    size_t lat = (size_t)w->config->kv_lora, sum = 0, cells = (size_t)b->n * member_heads(w, w->shard.member);
    const float *in = dr_worker_floats(w, DR_BUF_PART_IN);
    struct dr_call_name name = {.what = DR_WHAT_PARTIAL, .layer = layer, .index = b->index};
    *z = part;
    if (w->layout->c == 1) return dr_ok();
    for (int32_t m = 0; m < w->layout->c; m++) {
        send[m] = (size_t)b->n * member_heads(w, m) * (lat + 1) * 4;
        send_at[m] = sum;
        sum += send[m];
        recv[m] = cells * (lat + 1) * 4;
        recv_at[m] = (size_t)m * recv[m];
        part_o[m] = in + (size_t)m * cells * (lat + 1);
        part_lse[m] = part_o[m] + cells * lat;
    }
    struct dr_attn_merge merge = {
        .o = dr_worker_floats(w, DR_BUF_Z),
        .part_o = part_o,
        .part_lse = part_lse,
        .c = w->layout->c,
        .n_tok = b->n,
        .n_head = dr_range_len(w->shard.heads),
        .dim = w->config->kv_lora,
    };
    DR_TRY(dr_ledger_alltoallv(&w->ledger, name, part, send, send_at, dr_worker_buffer(w, DR_BUF_PART_IN),
                               recv, recv_at));
    *z = merge.o;
    return w->ops->attn_merge(&merge, w->stream);
}

/* HEADS of the batch: W_UV z. */
static dr_status values(struct dr_worker *w, const struct dr_layer *y, const struct batch *b,
                        const float *z) {
    size_t heads = member_heads(w, w->shard.member), lat = (size_t)w->config->kv_lora,
           v = (size_t)w->config->v_dim;
    struct dr_linear_heads op = {
        .y = dr_worker_floats(w, DR_BUF_HEADS) + (size_t)b->first * heads * v,
        .x = z,
        .w = y->uv,
        .n_tok = b->n,
        .n_head = (int32_t)heads,
        .y_stride = heads * v,
        .y_head_stride = v,
        .x_stride = heads * lat,
        .x_head_stride = lat,
    };
    return dr_project_heads(w, op);
}

dr_status dr_attention_absorbed(struct dr_worker *w, int32_t index) {
    const struct dr_layer *y = &w->model.layer[index];
    float *own = dr_worker_floats(w, DR_BUF_U_OWN), *part = dr_worker_floats(w, DR_BUF_PART), *u;
    int32_t layer = w->shard.layers.begin + index;
    const float *z;
    for (struct batch b = {0}; b.first < w->n_absorbed; b.first += DR_ABSORBED_BATCH, b.index++) {
        b.n = dr_min_i32(w->n_absorbed - b.first, DR_ABSORBED_BATCH);
        DR_TRY(absorb(w, y, &b, own));
        DR_TRY(gather_queries(w, layer, &b, own, &u));
        dr_parts_enter(&w->parts, DR_PART_ATTENTION);
        DR_TRY(partials(w, index, &b, u, part));
        DR_TRY(exchange(w, layer, &b, part, &z));
        dr_parts_enter(&w->parts, DR_PART_PROJECT);
        DR_TRY(values(w, y, &b, z));
    }
    return dr_ok();
}
