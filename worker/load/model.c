/* model.c - see model.h.
 * In:   holdings.      Out: pointers.
 * Owns: see model.h.
 * Why:  see model.h. */

#include "worker/load/model.h"

#include <assert.h>

static_assert((int)DR_W_F32 == (int)DR_DTYPE_F32 && (int)DR_W_BF16 == (int)DR_DTYPE_BF16 &&
                  (int)DR_W_F16 == (int)DR_DTYPE_F16 && (int)DR_W_F8 == (int)DR_DTYPE_F8_E4M3 &&
                  (int)DR_W_I8 == (int)DR_DTYPE_I8 && (int)DR_W_COUNT == (int)DR_DTYPE_COUNT,
              "the ops and the checkpoint number the element types alike");

static struct dr_weight weight_of(const struct dr_holding *h, const uint8_t *block) {
    return (struct dr_weight){
        .type = (enum dr_wtype)h->dtype,
        .n_out = dr_holding_out(h),
        .n_in = dr_holding_in(h),
        .phase = dr_holding_phase(h),
        .out_phase = dr_holding_out_phase(h),
        .data = block + h->offset,
        .scale = h->scale_bytes ? (const float *)(const void *)(block + h->offset + h->data_bytes) : NULL,
    };
}

/* A head has up to three holdings: W_UK^T, W_UK, W_UV. */
static void place_head(struct dr_layer *y, const struct dr_shard *s, struct dr_range held,
                       const struct dr_config *c, const struct dr_holding *h, struct dr_weight w) {
    if (h->kind == DR_HOLD_TRANSPOSED)
        y->uk_t[h->head - held.begin] = w;
    else if (h->row0 % (c->nope_dim + c->v_dim) == 0)
        y->uk[h->head - s->heads.begin] = w;
    else
        y->uv[h->head - held.begin] = w;
}

static dr_status place(struct dr_model *m, const struct dr_config *c, const struct dr_shard *s,
                       struct dr_range held, const struct dr_holding *h, const uint8_t *block) {
    struct dr_weight w = weight_of(h, block);
    const float *vector = (const float *)w.data;
    int32_t at = h->layer < c->n_layer ? h->layer - s->layers.begin : m->n_layer - 1;
    struct dr_layer *y = h->layer < 0 ? NULL : &m->layer[at];
    int32_t e = h->expert - s->experts.begin;
    switch (h->role) {
    case DR_ROLE_EMBED:
        m->embed = w.data;
        m->embed_type = w.type;
        break;
    case DR_ROLE_NORM:
        m->norm = vector;
        break;
    case DR_ROLE_HEAD:
        m->head = w;
        break;
    case DR_ROLE_INPUT_NORM:
        y->input_norm = vector;
        break;
    case DR_ROLE_POST_NORM:
        y->post_norm = vector;
        break;
    case DR_ROLE_Q:
    case DR_ROLE_Q_B:
        y->q = w;
        break;
    case DR_ROLE_Q_A:
        y->q_a = w;
        break;
    case DR_ROLE_Q_A_NORM:
        y->q_a_norm = vector;
        break;
    case DR_ROLE_KV_A:
        y->kv_a = w;
        break;
    case DR_ROLE_KV_A_NORM:
        y->kv_a_norm = vector;
        break;
    case DR_ROLE_KV_B:
        place_head(y, s, held, c, h, w);
        break;
    case DR_ROLE_O:
        y->o = w;
        break;
    case DR_ROLE_MLP_GATE:
        y->mlp.gate = w;
        break;
    case DR_ROLE_MLP_UP:
        y->mlp.up = w;
        break;
    case DR_ROLE_MLP_DOWN:
        y->mlp.down = w;
        break;
    case DR_ROLE_ROUTER:
        y->router = w;
        break;
    case DR_ROLE_ROUTER_BIAS:
        y->router_bias = vector;
        break;
    case DR_ROLE_EXPERT_GATE:
        y->expert[e].gate = w;
        break;
    case DR_ROLE_EXPERT_UP:
        y->expert[e].up = w;
        break;
    case DR_ROLE_EXPERT_DOWN:
        y->expert[e].down = w;
        break;
    case DR_ROLE_SHARED_GATE:
        y->shared.gate = w;
        break;
    case DR_ROLE_SHARED_UP:
        y->shared.up = w;
        break;
    case DR_ROLE_SHARED_DOWN:
        y->shared.down = w;
        y->has_shared = true;
        break;
    case DR_ROLE_MTP_EH:
        m->mtp_eh = w;
        break;
    case DR_ROLE_MTP_ENORM:
        m->mtp_enorm = vector;
        break;
    case DR_ROLE_MTP_HNORM:
        m->mtp_hnorm = vector;
        break;
    case DR_ROLE_MTP_NORM:
        m->mtp_norm = vector;
        break;
    case DR_ROLE_COUNT:
        return dr_fail(DR_EMODEL, "a holding of the footprint has no role");
    }
    return dr_ok();
}

dr_status dr_model_init(struct dr_model *m, const struct dr_config *c, const struct dr_layout *l,
                        int32_t rank, const struct dr_holding *list, int32_t n, const uint8_t *block) {
    struct dr_shard s = dr_layout_shard(c, l, rank);
    const struct dr_range held = dr_layout_held_heads(l, &s);
    size_t layers = (size_t)dr_range_len(s.layers) + s.mtp, heads = (size_t)dr_range_len(held);
    size_t experts = c->n_expert > 0 ? (size_t)dr_range_len(s.experts) : 0;
    size_t bytes = layers * (sizeof *m->layer + 3 * heads * sizeof(struct dr_weight) +
                             experts * sizeof(struct dr_expert));
    struct dr_model made = {.n_layer = (int32_t)layers};
    DR_TRY(dr_arena_init(&made.tables, bytes + 64 * (2 + 4 * layers)));
    made.layer = dr_arena_take(&made.tables, layers * sizeof *made.layer, 64);
    for (size_t i = 0; i < layers; i++) {
        struct dr_layer *y = &made.layer[i];
        int32_t number = i < (size_t)dr_range_len(s.layers) ? s.layers.begin + (int32_t)i : c->n_layer;
        y->moe = dr_config_is_moe(c, number);
        y->uk_t = dr_arena_take(&made.tables, heads * sizeof *y->uk_t, 64);
        y->uk = dr_arena_take(&made.tables, heads * sizeof *y->uk, 64);
        y->uv = dr_arena_take(&made.tables, heads * sizeof *y->uv, 64);
        y->expert = dr_arena_take(&made.tables, experts * sizeof *y->expert, 64);
    }
    for (int32_t i = 0; i < n; i++) {
        dr_status st = place(&made, c, &s, held, &list[i], block);
        if (st.code != DR_OK) {
            dr_model_fini(&made);
            return st;
        }
    }
    *m = made;
    return dr_ok();
}

void dr_model_fini(struct dr_model *m) {
    dr_arena_fini(&m->tables);
    *m = (struct dr_model){0};
}
