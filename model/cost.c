/* cost.c - see cost.h.
 * In:   shapes.      Out: bytes, operations.
 * Owns: nothing.
 * Why:  see cost.h. */
#include "model/cost.h"

#include <math.h>

#include "model/roles.h"

static double role_madd(const struct dr_config *c, enum dr_role role, int32_t layer) {
    int32_t rows, cols;
    if (!dr_role_wanted(c, role, layer)) return 0;
    dr_role_shape(c, role, &rows, &cols);
    return (double)rows * (double)cols;
}

double dr_cost_layers_madd(const struct dr_config *c, int32_t begin, int32_t end) {
    static const enum dr_role every[] = {
        DR_ROLE_Q,           DR_ROLE_Q_A,       DR_ROLE_Q_B,         DR_ROLE_KV_A,     DR_ROLE_KV_B,
        DR_ROLE_O,           DR_ROLE_MLP_GATE,  DR_ROLE_MLP_UP,      DR_ROLE_MLP_DOWN, DR_ROLE_ROUTER,
        DR_ROLE_SHARED_GATE, DR_ROLE_SHARED_UP, DR_ROLE_SHARED_DOWN,
    };
    static const enum dr_role expert[] = {DR_ROLE_EXPERT_GATE, DR_ROLE_EXPERT_UP, DR_ROLE_EXPERT_DOWN};
    double sum = 0;
    for (int32_t layer = begin; layer < end; layer++) {
        for (size_t i = 0; i < sizeof every / sizeof *every; i++) sum += role_madd(c, every[i], layer);
        for (size_t i = 0; i < sizeof expert / sizeof *expert; i++)
            sum += c->n_active * role_madd(c, expert[i], layer);
    }
    return sum;
}

double dr_cost_head_madd(const struct dr_config *c) {
    return (double)c->vocab * (double)c->dim;
}

/* A key is a whole row of the cache, a value its latent part. */
double dr_cost_absorbed_flop(const struct dr_config *c) {
    return 2.0 * c->n_head * (dr_config_row_dim(c) + c->kv_lora);
}

double dr_cost_expanded_flop(const struct dr_config *c) {
    return 2.0 * c->n_head * (dr_config_qk_dim(c) + c->v_dim);
}

double dr_cost_expansion_flop(const struct dr_config *c) {
    return 2.0 * c->kv_lora * c->n_head * (c->nope_dim + c->v_dim);
}

bool dr_cost_value_pays(const struct dr_config *c, double rows, double width, double link_bytes_s,
                        double read_bytes_s) {
    const double saved = 4.0 * (2 * c->kv_lora - c->nope_dim - c->v_dim);
    const double read = width * c->kv_lora * (c->nope_dim + c->v_dim);
    return rows * saved / link_bytes_s > read / read_bytes_s;
}

double dr_cost_touched(const struct dr_config *c, double rows) {
    if (c->n_expert == 0) return 0;
    return c->n_expert * (1 - pow(1 - (double)c->n_active / c->n_expert, rows));
}

static bool is_expert(enum dr_role r) {
    return dr_role_scope(r) == DR_SCOPE_EXPERT;
}

/* kv_b lies there in three forms: W_UK^T for absorbed rows, W_UK for expanded ones, W_UV for both. */
static bool in_use(const struct dr_config *c, const struct dr_holding *h, const struct dr_cost_shape *s) {
    if (h->role == DR_ROLE_KV_B && h->kind == DR_HOLD_TRANSPOSED) return s->absorbed > 0;
    if (h->role == DR_ROLE_KV_B && h->row0 % (c->nope_dim + c->v_dim) == 0) return s->expanded > 0;
    if (h->role == DR_ROLE_HEAD || h->role == DR_ROLE_NORM) return s->out > 0;
    return true;
}

double dr_cost_weight_bytes(const struct dr_config *c, const struct dr_holding *list, int32_t n,
                            const struct dr_cost_shape *s) {
    const double rows = s->absorbed + s->expanded;
    const double share = c->n_expert > 0 ? dr_cost_touched(c, rows) / c->n_expert : 0;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct dr_holding *h = &list[i];
        const double bytes = (double)(h->data_bytes + h->scale_bytes);
        if (h->kind == DR_HOLD_ROWS) { /* looked up; each row has one owner among the ranks of the stage */
            const double owned = rows * h->rows / c->vocab;
            sum += (owned < h->rows ? owned : h->rows) * (bytes / h->rows);
        } else if (in_use(c, h, s)) {
            sum += is_expert(h->role) ? share * bytes : bytes;
        }
    }
    return sum;
}

struct dr_cost dr_cost_stage(const struct dr_config *c, const struct dr_layout *l, int32_t stage,
                             const struct dr_cost_shape *s) {
    const int32_t begin = l->layer_begin[stage], end = l->layer_begin[stage + 1];
    const double layers = end - begin, rows = s->absorbed + s->expanded;
    const double copies = l->tp / l->c; /* each cache group reads the whole cache */
    const double again = s->past > s->expanded ? s->past - s->expanded : 0; /* the own latents are counted */
    const bool last = stage == l->pp - 1;
    return (struct dr_cost){
        .cache_bytes = copies * layers * (double)dr_footprint_row_bytes(c, l->cache_type) *
                       (s->absorbed * s->visible + s->past),
        .linear_flop = 2 * rows * dr_cost_layers_madd(c, begin, end) +
                       layers * again * dr_cost_expansion_flop(c) +
                       (last ? 2 * s->out * dr_cost_head_madd(c) : 0),
        .attention_flop = layers * (s->absorbed * s->visible * dr_cost_absorbed_flop(c) +
                                    s->keys * dr_cost_expanded_flop(c)),
    };
}
