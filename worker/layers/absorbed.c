/* absorbed.c - attention of generated rows, in the latent space of the cache.
 * In:   Q of the absorbed rows (the first n_absorbed of the step); the cache.      Out: HEADS of these rows.
 * Owns: nothing.
 * Why:  the cache is cut by position, so each member of the cache group computes all heads of the group over
 * its own rows; partial results go back to the owners of the heads and meet by their log-sum-exp. One member:
 * the same code without the two exchanges.
 *
 * What travels is the layout's choice. latent: queries and results in latent space, kv_lora + rope and
 * kv_lora numbers a head; each member holds kv_b of its own heads. value: plain queries and values, nope +
 * rope and v numbers a head; each member holds kv_b of all heads of the group and applies it to its own part.
 * Both are linear in what they merge.
 *
 *     latent:  absorb own -> gather u -> attend -> exchange z -> merge -> W_UV own
 *     value:   gather q -> absorb all -> attend -> W_UV all -> exchange values -> merge
 *
 * Rows pass in batches of DR_ABSORBED_BATCH, so that the exchange's memory has a bound. Buffers of several
 * members hold block after block, member m's with the heads of m. */

#include "worker/worker.h"

struct batch {
    int32_t index, first, n; /* rows [first, first + n) of the step */
};

static size_t member_heads(const struct dr_worker *w, int32_t m) {
    return (size_t)dr_range_len(w->member_heads[m]);
}

/* y [n, heads of m, y_dim] of x [n, heads of m, x_dim]: each head's rows times its own of this rank's
 * `weights`, which may take and give less than a whole row: its first elements. */
static dr_status per_head(struct dr_worker *w, int32_t n, int32_t m, const struct dr_weight *weights,
                          const float *x, size_t x_dim, float *y, size_t y_dim) {
    size_t heads = member_heads(w, m);
    struct dr_linear_heads op = {
        .y = y,
        .x = x,
        .w = weights + dr_worker_held_at(w, m),
        .n_tok = n,
        .n_head = (int32_t)heads,
        .y_stride = heads * y_dim,
        .y_head_stride = y_dim,
        .x_stride = heads * x_dim,
        .x_head_stride = x_dim,
    };
    return dr_project_heads(w, op);
}

/* u [n, heads of m, kv_lora + rope] of q [n, heads of m, nope + rope]: W_UK^T q_nope, then the rotated part
 * as it is.
 */
static dr_status absorb(struct dr_worker *w, const struct dr_layer *y, int32_t n, int32_t m, const float *q,
                        float *u) {
    const struct dr_config *c = w->config;
    size_t qk = (size_t)dr_config_qk_dim(c), row = (size_t)dr_config_row_dim(c);
    DR_TRY(per_head(w, n, m, y->uk_t, q, qk, u, row));
    dr_copy_rows(u + c->kv_lora, row * 4, q + c->nope_dim, qk * 4, (size_t)c->rope_dim * 4,
                 (size_t)n * member_heads(w, m), w->stream);
    return dr_ok();
}

/* y [n, heads of m, v] of z [n, heads of m, kv_lora]: W_UV z. */
static dr_status values(struct dr_worker *w, const struct dr_layer *layer, int32_t n, int32_t m,
                        const float *z, float *y) {
    return per_head(w, n, m, layer->uv, z, (size_t)w->config->kv_lora, y, (size_t)w->config->v_dim);
}

/* Everybody's [n, heads of m, width] into `all`, from this rank's `own`. */
static dr_status gather(struct dr_worker *w, int32_t layer, const struct batch *b, size_t width,
                        const float *own, float *all) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], sum = 0;
    struct dr_call_name name = {.what = DR_WHAT_QUERY, .layer = layer, .index = b->index};
    for (int32_t m = 0; m < w->layout->c; m++) {
        at[m] = sum;
        bytes[m] = (size_t)b->n * member_heads(w, m) * width * 4;
        sum += bytes[m];
    }
    return dr_ledger_allgatherv(&w->ledger, DR_GROUP_CACHE, name, own, all, bytes, at);
}

/* PART: for each member m, o [n, heads of m, kv_lora] then lse [n, heads of m], over this rank's rows of the
 * cache. u: for each member [n, heads of m, kv_lora + rope]. */
static dr_status attend(struct dr_worker *w, int32_t index, const struct batch *b, const float *u,
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
            .from = dr_worker_hidden_rows(w),
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

/* Each member ends with its own heads' parts of all members and merges them in member order: out [n, own
 * heads, width]. part: for each member m [n, heads of m, width] then lse [n, heads of m]. */
static dr_status exchange(struct dr_worker *w, int32_t layer, const struct batch *b, size_t width,
                          const float *part, float *out) {
    size_t send[DR_GROUP_MEMBERS_MAX], send_at[DR_GROUP_MEMBERS_MAX], recv[DR_GROUP_MEMBERS_MAX],
        recv_at[DR_GROUP_MEMBERS_MAX];
    const float *part_o[DR_GROUP_MEMBERS_MAX], *part_lse[DR_GROUP_MEMBERS_MAX];
    size_t sum = 0, cells = (size_t)b->n * member_heads(w, w->shard.member);
    const float *in = dr_worker_floats(w, DR_BUF_PART_IN);
    struct dr_call_name name = {.what = DR_WHAT_PARTIAL, .layer = layer, .index = b->index};
    for (int32_t m = 0; m < w->layout->c; m++) {
        send[m] = (size_t)b->n * member_heads(w, m) * (width + 1) * 4;
        send_at[m] = sum;
        sum += send[m];
        recv[m] = cells * (width + 1) * 4;
        recv_at[m] = (size_t)m * recv[m];
        part_o[m] = in + (size_t)m * cells * (width + 1);
        part_lse[m] = part_o[m] + cells * width;
    }
    struct dr_attn_merge merge = {
        .o = out,
        .part_o = part_o,
        .part_lse = part_lse,
        .c = w->layout->c,
        .n_tok = b->n,
        .n_head = dr_range_len(w->shard.heads),
        .dim = (int32_t)width,
    };
    DR_TRY(dr_ledger_alltoallv(&w->ledger, name, part, send, send_at, dr_worker_buffer(w, DR_BUF_PART_IN),
                               recv, recv_at));
    return w->ops->attn_merge(&merge, w->stream);
}

static dr_status run_latent(struct dr_worker *w, const struct dr_layer *y, int32_t index,
                            const struct batch *b, const float *q, float *heads) {
    const int32_t me = w->shard.member, layer = w->shard.layers.begin + index;
    const bool cut = w->layout->c > 1;
    float *own = dr_worker_floats(w, DR_BUF_U_OWN), *u = cut ? dr_worker_floats(w, DR_BUF_U) : own;
    float *part = dr_worker_floats(w, DR_BUF_PART), *z = cut ? dr_worker_floats(w, DR_BUF_Z) : part;
    DR_TRY(absorb(w, y, b->n, me, q, own));
    if (cut) DR_TRY(gather(w, layer, b, (size_t)dr_config_row_dim(w->config), own, u));
    dr_parts_enter(&w->parts, DR_PART_ATTENTION);
    DR_TRY(attend(w, index, b, u, part));
    if (cut) DR_TRY(exchange(w, layer, b, (size_t)w->config->kv_lora, part, z));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    return values(w, y, b->n, me, z, heads);
}

static dr_status run_value(struct dr_worker *w, const struct dr_layer *y, int32_t index,
                           const struct batch *b, const float *own, float *heads) {
    const size_t qk = (size_t)dr_config_qk_dim(w->config), row = (size_t)dr_config_row_dim(w->config),
                 lat = (size_t)w->config->kv_lora, v = (size_t)w->config->v_dim;
    const int32_t layer = w->shard.layers.begin + index;
    float *q = dr_worker_floats(w, DR_BUF_Q_ALL), *u = dr_worker_floats(w, DR_BUF_U);
    float *part = dr_worker_floats(w, DR_BUF_PART), *part_v = dr_worker_floats(w, DR_BUF_PART_V);
    DR_TRY(gather(w, layer, b, qk, own, q));
    for (size_t m = 0, at = 0; m < (size_t)w->layout->c;
         at += (size_t)b->n * member_heads(w, (int32_t)m), m++)
        DR_TRY(absorb(w, y, b->n, (int32_t)m, q + at * qk, u + at * row));
    dr_parts_enter(&w->parts, DR_PART_ATTENTION);
    DR_TRY(attend(w, index, b, u, part));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    for (size_t m = 0, at = 0; m < (size_t)w->layout->c; m++) {
        const size_t cells = (size_t)b->n * member_heads(w, (int32_t)m);
        const float *from = part + at * (lat + 1);
        float *to = part_v + at * (v + 1);
        DR_TRY(values(w, y, b->n, (int32_t)m, from, to));
        dr_copy_rows(to + cells * v, 0, from + cells * lat, 0, cells * 4, 1, w->stream); /* log-sum-exps */
        at += cells;
    }
    dr_parts_enter(&w->parts, DR_PART_ATTENTION);
    DR_TRY(exchange(w, layer, b, v, part_v, heads));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    return dr_ok();
}

dr_status dr_attention_absorbed(struct dr_worker *w, int32_t index) {
    const struct dr_layer *y = &w->model.layer[index];
    const size_t own = member_heads(w, w->shard.member), qk = (size_t)dr_config_qk_dim(w->config),
                 v = (size_t)w->config->v_dim;
    const bool value = w->layout->c > 1 && w->layout->exchange == DR_EXCHANGE_VALUE;
    for (struct batch b = {0}; b.first < w->n_absorbed; b.first += DR_ABSORBED_BATCH, b.index++) {
        b.n = dr_min_i32(w->n_absorbed - b.first, DR_ABSORBED_BATCH);
        const float *q = dr_worker_floats(w, DR_BUF_Q) + (size_t)b.first * own * qk;
        float *heads = dr_worker_floats(w, DR_BUF_HEADS) + (size_t)b.first * own * v;
        DR_TRY(value ? run_value(w, y, index, &b, q, heads) : run_latent(w, y, index, &b, q, heads));
    }
    return dr_ok();
}
