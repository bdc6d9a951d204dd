/* ffn.c - one feed-forward block: HIDDEN += MLP(norm(HIDDEN)) or the experts'.
 * In:   HIDDEN [n_row, dim].      Out: HIDDEN.
 * Owns: nothing.
 * Why:  every rank has all rows of the stage, so nothing is dispatched: each adds what it owns and one sum
 * joins the parts. */

#include <assert.h>

#include "worker/worker.h"

static_assert((int)DR_ROUTE_SOFTMAX_GREEDY == (int)DR_ROUTER_SOFTMAX_GREEDY &&
                  (int)DR_ROUTE_SOFTMAX_GROUP == (int)DR_ROUTER_SOFTMAX_GROUP &&
                  (int)DR_ROUTE_SIGMOID_NOAUX == (int)DR_ROUTER_SIGMOID_NOAUX,
              "kernels and model name the routers in one order");

/* A dense block is one expert that every token has. */
static dr_status dense(struct dr_worker *w, const struct dr_layer *y, const float *normed, float *partial) {
    struct dr_moe moe = {
        .y = partial,
        .x = normed,
        .shared = &y->mlp,
        .n_tok = w->n_row,
        .dim = w->config->dim,
        .scratch = dr_worker_buffer(w, DR_BUF_MOE),
        .scratch_bytes = w->map.size[DR_BUF_MOE],
    };
    return w->ops->moe(&moe, w->stream);
}

static dr_status experts(struct dr_worker *w, const struct dr_layer *y, int32_t layer, const float *normed,
                         float *partial) {
    const struct dr_config *c = w->config;
    float *logits = dr_worker_floats(w, DR_BUF_ROUTER), *weight = dr_worker_floats(w, DR_BUF_EXPERT_WEIGHT);
    int32_t *chosen = dr_worker_buffer(w, DR_BUF_EXPERT);
    struct dr_route route = {
        .expert = chosen,
        .weight = weight,
        .logits = logits,
        .bias = y->router_bias,
        .n_tok = w->n_row,
        .n_expert = c->n_expert,
        .n_active = c->n_active,
        .n_group = c->n_group,
        .n_group_active = c->n_group_active,
        .kind = (int32_t)c->router,
        .norm_topk = c->norm_topk,
        .scale = c->routed_scale,
    };
    struct dr_moe moe = {
        .y = partial,
        .x = normed,
        .expert = chosen,
        .weight = weight,
        .owned = y->expert,
        .shared = y->has_shared ? &y->shared : NULL,
        .n_tok = w->n_row,
        .dim = c->dim,
        .n_active = c->n_active,
        .first = w->shard.experts.begin,
        .n_owned = dr_range_len(w->shard.experts),
        .scratch = dr_worker_buffer(w, DR_BUF_MOE),
        .scratch_bytes = w->map.size[DR_BUF_MOE],
    };
    dr_parts_enter(&w->parts, DR_PART_ROUTER);
    DR_TRY(dr_project_router(w, logits, normed, &y->router));
    DR_TRY(w->ops->route(&route, w->stream));
    dr_parts_enter(&w->parts, DR_PART_EXPERTS);
    dr_worker_tap(w, DR_TAP_EXPERTS, layer, chosen, (size_t)c->n_active, c->n_active);
    dr_worker_tap(w, DR_TAP_EXPERT_WEIGHTS, layer, weight, (size_t)c->n_active, c->n_active);
    return w->ops->moe(&moe, w->stream);
}

dr_status dr_ffn(struct dr_worker *w, int32_t index) {
    const struct dr_config *c = w->config;
    const struct dr_layer *y = &w->model.layer[index];
    float *hidden = dr_worker_floats(w, DR_BUF_HIDDEN), *normed = dr_worker_floats(w, DR_BUF_NORMED);
    float *partial = dr_worker_floats(w, DR_BUF_PARTIAL);
    int32_t layer = w->shard.layers.begin + index;
    struct dr_add add = {.y = hidden, .x = partial, .n = (size_t)w->n_row * (size_t)c->dim};
    struct dr_call_name name = {.what = DR_WHAT_FFN_OUT, .layer = layer};
    DR_TRY(dr_project_norm(w, normed, hidden, y->post_norm, c->dim, (size_t)c->dim, c->rms_eps));
    DR_TRY(y->moe ? experts(w, y, layer, normed, partial) : dense(w, y, normed, partial));
    DR_TRY(dr_ledger_allreduce(&w->ledger, name, partial, add.n));
    DR_TRY(w->ops->add(&add, w->stream));
    dr_worker_tap(w, DR_TAP_HIDDEN, layer, hidden, (size_t)c->dim, c->dim);
    return dr_ok();
}
