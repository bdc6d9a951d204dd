/* footprint.c - counts what a rank holds.
 * In:   config, dtypes, layout, rank.      Out: a list of holdings, bytes by line.
 * Owns: nothing.
 * Why:  see footprint.h. */
#include "model/footprint.h"

#include "common/size.h"
#include "model/roles.h"
#include "model/workspace.h"

enum { LANES = 16, CELL = 64, BLOCK = 128, ALIGN = 64, FP8_GROUP = 128 };

size_t dr_footprint_row_bytes(const struct dr_config *c, enum dr_cache_type type) {
    size_t lat = (size_t)c->kv_lora, rope = (size_t)c->rope_dim;
    switch (type) {
    case DR_CACHE_F32:
        return 4 * (lat + rope);
    case DR_CACHE_BF16:
        return dr_size_align(2 * (lat + rope), 4);
    case DR_CACHE_FP8:
        break;
    }
    return dr_size_align(lat + 4 * ((lat + FP8_GROUP - 1) / FP8_GROUP) + 2 * rope, 4);
}

size_t dr_footprint_token_bytes(const struct dr_config *c, const struct dr_layout *l) {
    return (size_t)(c->n_layer + l->mtp) * dr_footprint_row_bytes(c, l->cache_type);
}

size_t dr_footprint_page_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t stage) {
    int32_t layers = l->layer_begin[stage + 1] - l->layer_begin[stage] + (l->mtp && stage == l->pp - 1);
    return (size_t)l->page_rows * (size_t)layers * dr_footprint_row_bytes(c, l->cache_type);
}

static size_t packed_data(enum dr_dtype t, int32_t n_out, int32_t n_in, int32_t first_in) {
    int32_t per =
        4 / (int32_t)dr_dtype_bytes(t); /* inputs of a cell: zeros in front make blocks begin with one */
    size_t steps = n_in == 0 ? 0 : (size_t)dr_ceil_div(first_in % per + n_in, per);
    return dr_size_align((size_t)n_out, LANES) / LANES * steps * CELL;
}

static size_t blocks(int32_t n, int32_t first) {
    return n == 0 ? 0 : (size_t)dr_ceil_div(first % BLOCK + n, BLOCK);
}

static size_t packed_scale(enum dr_dtype t, int32_t n_out, int32_t n_in, int32_t first_in,
                           int32_t first_out) {
    size_t row = t == DR_DTYPE_F8_E4M3 ? blocks(n_out, first_out)
                 : t == DR_DTYPE_I8    ? dr_size_align((size_t)n_out, LANES)
                                       : 0;
    return dr_size_align(blocks(n_in, first_in) * row * sizeof(float), ALIGN);
}

size_t dr_footprint_packed_bytes(enum dr_dtype t, int32_t n_out, int32_t n_in, int32_t first_in,
                                 int32_t first_out) {
    return packed_data(t, n_out, n_in, first_in) + packed_scale(t, n_out, n_in, first_in, first_out);
}

/* A walk over the holdings of one rank. */
struct walk {
    const struct dr_config *c;
    const struct dr_tensors *t; /* may be NULL */
    struct dr_shard s;
    enum dr_weights weights;
    struct dr_holding *out;
    int32_t room, n;
    size_t offset;
};

static enum dr_dtype stored_dtype(const struct walk *w, enum dr_role role, int32_t layer, int32_t expert) {
    if (w->t) return dr_tensors_get(w->t, role, layer, expert)->dtype;
    return dr_role_usual_dtype(w->c, role);
}

/* Completes a slice (everything but dtype and sizes is set) and appends it. */
static void put(struct walk *w, struct dr_holding h) {
    bool matrix = h.kind == DR_HOLD_PACKED || h.kind == DR_HOLD_TRANSPOSED;
    h.dtype = h.kind == DR_HOLD_VECTOR ? DR_DTYPE_F32 : stored_dtype(w, h.role, h.layer, h.expert);
    if (w->weights == DR_WEIGHTS_INT8 && matrix && h.role != DR_ROLE_ROUTER) h.dtype = DR_DTYPE_I8;
    h.offset = w->offset;
    size_t plain = (size_t)h.rows * (size_t)h.cols * dr_dtype_bytes(h.dtype);
    if (h.kind == DR_HOLD_ROWS || h.kind == DR_HOLD_VECTOR) {
        h.data_bytes = dr_size_align(plain, ALIGN);
    } else {
        int32_t out = dr_holding_out(&h), in = dr_holding_in(&h);
        h.data_bytes = packed_data(h.dtype, out, in, dr_holding_phase(&h));
        h.scale_bytes = packed_scale(h.dtype, out, in, dr_holding_phase(&h), dr_holding_out_phase(&h));
    }
    w->offset += h.data_bytes + h.scale_bytes;
    if (w->n < w->room) w->out[w->n] = h;
    w->n++;
}

static struct dr_range all(int32_t n) {
    return (struct dr_range){.begin = 0, .end = n};
}

static struct dr_range scaled(struct dr_range r, int32_t by) {
    return (struct dr_range){.begin = r.begin * by, .end = r.end * by};
}

static struct dr_holding slice(enum dr_hold_kind kind, enum dr_role role, int32_t layer, struct dr_range rows,
                               struct dr_range cols) {
    return (struct dr_holding){.role = role,
                               .layer = layer,
                               .expert = -1,
                               .head = -1,
                               .kind = kind,
                               .row0 = rows.begin,
                               .rows = dr_range_len(rows),
                               .col0 = cols.begin,
                               .cols = dr_range_len(cols)};
}

static void put_whole(struct walk *w, enum dr_hold_kind kind, enum dr_role role, int32_t layer) {
    int32_t rows, cols;
    dr_role_shape(w->c, role, &rows, &cols);
    put(w, slice(kind, role, layer, all(rows), all(cols)));
}

static void put_rows(struct walk *w, enum dr_hold_kind kind, enum dr_role role, int32_t layer,
                     struct dr_range cut) {
    int32_t rows, cols;
    dr_role_shape(w->c, role, &rows, &cols);
    put(w, slice(kind, role, layer, cut, all(cols)));
}

/* gate and up by rows, down by the same columns. expert -1: dense or shared. */
static void put_mlp(struct walk *w, enum dr_role gate, enum dr_role up, enum dr_role down, int32_t layer,
                    int32_t expert, struct dr_range cut) {
    struct dr_holding pieces[3] = {slice(DR_HOLD_PACKED, gate, layer, cut, all(w->c->dim)),
                                   slice(DR_HOLD_PACKED, up, layer, cut, all(w->c->dim)),
                                   slice(DR_HOLD_PACKED, down, layer, all(w->c->dim), cut)};
    for (int i = 0; i < 3; i++) {
        pieces[i].expert = expert;
        put(w, pieces[i]);
    }
}

/* Three forms of one head's rows of kv_b: for the absorbed query, the expanded key, and the value. Keys are
 * expanded for own heads only. */
static void put_kv_b(struct walk *w, int32_t layer, int32_t head) {
    const bool own = head >= w->s.heads.begin && head < w->s.heads.end;
    const struct dr_config *c = w->c;
    int32_t row = head * (c->nope_dim + c->v_dim);
    struct dr_range uk = {.begin = row, .end = row + c->nope_dim};
    struct dr_range uv = {.begin = uk.end, .end = uk.end + c->v_dim};
    struct dr_holding pieces[3] = {slice(DR_HOLD_TRANSPOSED, DR_ROLE_KV_B, layer, uk, all(c->kv_lora)),
                                   slice(DR_HOLD_PACKED, DR_ROLE_KV_B, layer, uk, all(c->kv_lora)),
                                   slice(DR_HOLD_PACKED, DR_ROLE_KV_B, layer, uv, all(c->kv_lora))};
    for (int i = 0; i < 3; i++) {
        pieces[i].head = head;
        if (own || i != 1) put(w, pieces[i]);
    }
}

static void put_attention(struct walk *w, const struct dr_layout *l, int32_t layer) {
    const struct dr_config *c = w->c;
    struct dr_range q = scaled(w->s.heads, dr_config_qk_dim(c));
    struct dr_range kv = dr_layout_held_heads(l, &w->s);
    put_whole(w, DR_HOLD_VECTOR, DR_ROLE_INPUT_NORM, layer);
    if (c->q_lora == 0) {
        put_rows(w, DR_HOLD_PACKED, DR_ROLE_Q, layer, q);
    } else {
        put_whole(w, DR_HOLD_PACKED, DR_ROLE_Q_A, layer);
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_Q_A_NORM, layer);
        put_rows(w, DR_HOLD_PACKED, DR_ROLE_Q_B, layer, q);
    }
    put_whole(w, DR_HOLD_PACKED, DR_ROLE_KV_A, layer);
    put_whole(w, DR_HOLD_VECTOR, DR_ROLE_KV_A_NORM, layer);
    for (int32_t h = kv.begin; h < kv.end; h++) put_kv_b(w, layer, h);
    put(w, slice(DR_HOLD_PACKED, DR_ROLE_O, layer, all(c->dim), scaled(w->s.heads, c->v_dim)));
    put_whole(w, DR_HOLD_VECTOR, DR_ROLE_POST_NORM, layer);
}

static void put_layer(struct walk *w, const struct dr_layout *l, int32_t layer) {
    const struct dr_config *c = w->c;
    put_attention(w, l, layer);
    if (!dr_config_is_moe(c, layer)) {
        put_mlp(w, DR_ROLE_MLP_GATE, DR_ROLE_MLP_UP, DR_ROLE_MLP_DOWN, layer, -1, w->s.mlp_cols);
        return;
    }
    put_whole(w, DR_HOLD_PACKED, DR_ROLE_ROUTER, layer);
    if (dr_role_wanted(c, DR_ROLE_ROUTER_BIAS, layer))
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_ROUTER_BIAS, layer);
    for (int32_t e = w->s.experts.begin; e < w->s.experts.end; e++)
        put_mlp(w, DR_ROLE_EXPERT_GATE, DR_ROLE_EXPERT_UP, DR_ROLE_EXPERT_DOWN, layer, e, w->s.expert_cols);
    if (c->n_shared > 0)
        put_mlp(w, DR_ROLE_SHARED_GATE, DR_ROLE_SHARED_UP, DR_ROLE_SHARED_DOWN, layer, -1, w->s.shared_cols);
}

static void walk_rank(struct walk *w, const struct dr_layout *l) {
    const struct dr_shard *s = &w->s;
    if (s->first || s->mtp) put_rows(w, DR_HOLD_ROWS, DR_ROLE_EMBED, -1, s->vocab);
    for (int32_t i = s->layers.begin; i < s->layers.end; i++) put_layer(w, l, i);
    if (s->last) {
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_NORM, -1);
        put_rows(w, DR_HOLD_PACKED, DR_ROLE_HEAD, -1, s->vocab);
    }
    if (s->mtp) {
        int32_t layer = w->c->n_layer;
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_MTP_ENORM, layer);
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_MTP_HNORM, layer);
        put_whole(w, DR_HOLD_PACKED, DR_ROLE_MTP_EH, layer);
        put_layer(w, l, layer);
        put_whole(w, DR_HOLD_VECTOR, DR_ROLE_MTP_NORM, layer);
    }
}

int32_t dr_footprint_list(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                          int32_t rank, struct dr_holding *out, int32_t room) {
    struct walk w = {
        .c = c, .t = t, .s = dr_layout_shard(c, l, rank), .weights = l->weights, .out = out, .room = room};
    walk_rank(&w, l);
    return w.n;
}

static size_t weight_bytes(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                           int32_t rank) {
    struct walk w = {.c = c, .t = t, .s = dr_layout_shard(c, l, rank), .weights = l->weights};
    walk_rank(&w, l);
    return w.offset;
}

/* The lines besides the weights, for the layout's number of pages. */
static struct dr_footprint add_lines(const struct dr_config *c, const struct dr_layout *l, int32_t rank,
                                     size_t weights) {
    struct dr_footprint f = {.weights = weights,
                             .cache = (size_t)l->n_page * dr_footprint_page_bytes(c, l, rank / l->tp),
                             .workspace = dr_workspace_bytes(c, l, rank),
                             .collective = dr_workspace_collective_bytes(c, l, rank)};
    f.total = f.weights + f.cache + f.workspace + f.collective;
    return f;
}

struct dr_footprint dr_footprint_rank(const struct dr_config *c, const struct dr_tensors *t,
                                      const struct dr_layout *l, int32_t rank) {
    return add_lines(c, l, rank, weight_bytes(c, t, l, rank));
}

int32_t dr_footprint_pages_within(const struct dr_config *c, const struct dr_tensors *t,
                                  const struct dr_layout *l, int32_t rank, size_t bytes) {
    size_t weights = weight_bytes(c, t, l, rank);
    struct dr_layout trial = *l;
    int32_t fits = 0,
            fails = DR_PAGES_MAX; /* bisection: the workspace may hold page tables, so no division */
    while (fails - fits > 1) {
        trial.n_page = fits + (fails - fits) / 2;
        if (add_lines(c, &trial, rank, weights).total <= bytes)
            fits = trial.n_page;
        else
            fails = trial.n_page;
    }
    return fits;
}
