/* expanded.c - attention of prompt rows, with keys and values made from the cached latents.
 * In:   Q of an expanded segment's rows; the cache, which already holds the segment's own rows.      Out:
 * HEADS of these rows. Owns: nothing. Why:  keys come in pieces of DR_PIECE_PAGES pages at fixed positions,
 * merged in ascending order: memory does not grow with the context, and a row's result depends neither on the
 * chunk that it came in nor on other rows. */

#include "worker/worker.h"

struct piece {
    int32_t index;    /* of the layer's pieces, all segments */
    int32_t first, n; /* positions */
};

/* LATENT [n, kv_lora + rope] in the order of position: own rows, the other members' rows, decoded from the
 * cache type. */
static dr_status gather(struct dr_worker *w, int32_t index, int32_t slot, const struct piece *p,
                        float *latent) {
    int32_t c = w->layout->c;
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], sum = 0;
    uint8_t *mine = dr_worker_buffer(w, DR_BUF_MINE),
            *all = c > 1 ? dr_worker_buffer(w, DR_BUF_GATHERED) : mine;
    struct dr_call_name name = {
        .what = DR_WHAT_PREFILL, .layer = w->shard.layers.begin + index, .index = p->index};
    for (int32_t m = 0; m < c; m++) {
        at[m] = sum;
        bytes[m] = (size_t)((p->n + c - 1 - m) / c) * w->cache.row_bytes; /* p->first is a multiple of c */
        sum += bytes[m];
    }
    struct dr_cache_gather own = {
        .cache = dr_cache_layer(&w->cache, index),
        .out = mine,
        .table = dr_page_table(&w->slots.pages, slot),
        .first = p->first / c,
        .n = (p->n + c - 1 - w->shard.member) / c,
    };
    struct dr_cache_unpack unpack = {
        .cache = own.cache,
        .y = latent,
        .in = all,
        .run = at,
        .c = c,
        .first_pos = p->first,
        .n = p->n,
    };
    DR_TRY(w->ops->cache_gather(&own, w->stream));
    DR_TRY(dr_ledger_allgatherv(&w->ledger, DR_GROUP_CACHE, name, mine, all, bytes, at));
    return w->ops->cache_unpack(&unpack, w->stream);
}

/* [n, heads, out]: the latents through every own head's matrix. */
static dr_status expand(struct dr_worker *w, const struct dr_weight *head, int32_t n, const float *latent,
                        float *y) {
    size_t heads = (size_t)dr_range_len(w->shard.heads), out = (size_t)head[0].n_out;
    struct dr_linear_heads op = {
        .y = y,
        .x = latent,
        .w = head,
        .n_tok = n,
        .n_head = (int32_t)heads,
        .y_stride = heads * out,
        .y_head_stride = out,
        .x_stride = (size_t)dr_config_row_dim(w->config),
        .x_head_stride = 0,
    };
    return dr_project_heads(w, op);
}

static dr_status attend(struct dr_worker *w, int32_t index, int32_t segment, const struct piece *p) {
    const struct dr_config *c = w->config;
    const struct dr_layer *y = &w->model.layer[index];
    const struct dr_run *r = &w->run[segment];
    size_t heads = (size_t)dr_range_len(w->shard.heads), first = (size_t)r->first_row;
    float *latent = dr_worker_floats(w, DR_BUF_LATENT), *k = dr_worker_floats(w, DR_BUF_K),
          *v = dr_worker_floats(w, DR_BUF_V);
    struct dr_attn_expanded op = {
        .o = dr_worker_floats(w, DR_BUF_HEADS) + first * heads * (size_t)c->v_dim,
        .lse = dr_worker_floats(w, DR_BUF_LSE),
        .q = dr_worker_floats(w, DR_BUF_Q) + first * heads * (size_t)dr_config_qk_dim(c),
        .k = k,
        .k_pe = latent + c->kv_lora,
        .v = v,
        .pos = (const int32_t *)dr_worker_buffer(w, DR_BUF_POS) + first,
        .n_tok = r->n,
        .n_head = (int32_t)heads,
        .n_key = p->n,
        .first_key = p->first,
        .from = w->pass > 0,
        .nope_dim = c->nope_dim,
        .rope_dim = c->rope_dim,
        .v_dim = c->v_dim,
        .q_stride = heads * (size_t)dr_config_qk_dim(c),
        .k_pe_stride = (size_t)dr_config_row_dim(c),
        .scale = w->softmax_scale,
        .start = p->first == 0,
        .exact = w->layout->cache_type == DR_CACHE_F32,
    };
    dr_parts_enter(&w->parts, DR_PART_ATTENTION);
    DR_TRY(gather(w, index, w->plan->segment[segment].slot, p, latent));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    DR_TRY(expand(w, y->uk, p->n, latent, k));
    DR_TRY(expand(w, y->uv + dr_worker_held_at(w, w->shard.member), p->n, latent, v));
    dr_parts_enter(&w->parts, DR_PART_ATTENTION);
    DR_TRY(w->ops->attn_expanded(&op, w->stream));
    dr_parts_enter(&w->parts, DR_PART_PROJECT);
    return dr_ok();
}

dr_status dr_attention_expanded(struct dr_worker *w, int32_t index) {
    int32_t keys = DR_PIECE_PAGES * w->layout->page_tokens;
    struct piece p = {0};
    for (int32_t i = 0; i < w->plan->n_segment; i++) {
        const int32_t end = w->run[i].keys;
        if (w->plan->segment[i].form != DR_FORM_EXPANDED) continue;
        for (p.first = 0; p.first < end; p.first += keys, p.index++) {
            p.n = dr_min_i32(end - p.first, keys);
            DR_TRY(attend(w, index, i, &p));
        }
    }
    return dr_ok();
}
