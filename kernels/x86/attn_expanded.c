/* attn_expanded.c - causal attention over one piece of expanded keys, in f32.
 * In:   queries of new tokens, keys and values of a piece of the sequence.      Out: running outputs with
 * their log-sum-exp.
 * Owns: nothing.
 * Why:  see ops.h and attn_tile.h. Compiled twice: 8 lanes (AVX2) and 16 (AVX-512), both with the bits of
 * kernels/cpu. A thread takes up to 64 tokens of a head through the splits in order; keys that none of them
 * sees are not touched. */
#include "kernels/x86/attn.h"

#include "kernels/x86/attn_tile.h"

struct run {
    const struct dr_attn_expanded *a;
    int32_t tokens; /* of a piece */
};

/* One piece of work: tokens [first, first + n) of a head. */
struct tile {
    const struct dr_attn_expanded *a;
    size_t first, head;
    bool touched[QUERIES];
};

/* Chunks of a part (nope or rope) of queries and keys enter the scores. */
static void score_part(struct work *w, const uint8_t *const *row, int32_t q_offset, int32_t dims) {
    for (int32_t d = 0; d < dims; d += CHUNK) {
        struct source src = {.row = row, .at = 4 * (size_t)d, .type = DR_ROW_F32};
        score_chunk(w, &src, q_offset + d, dr_min_i32(CHUNK, dims - d));
    }
}

/* row[j] = data + j * stride floats. */
static void rows_of(const uint8_t **row, int32_t n, const float *data, size_t stride) {
    for (int32_t j = 0; j < n; j++) row[j] = (const uint8_t *)(data + (size_t)j * stride);
}

/* Keys of the split that begins at `begin` and that some query sees. */
static int32_t next_keys(const struct tile *tile, const struct work *w, int32_t begin) {
    int32_t end = begin;
    for (int32_t l = 0; l < w->n_query; l++) end = dr_max_i32(end, tile->a->pos[tile->first + (size_t)l] + 1);
    return dr_min_i32(dr_min_i32(end, tile->a->first_key + tile->a->n_key) - begin, SPLIT);
}

/* Keys at positions [begin, end), all in one split of 256 positions, enter the states. */
static void add_split(struct tile *tile, struct work *w, int32_t begin, int32_t end) {
    const struct dr_attn_expanded *a = tile->a;
    const uint8_t *row[SPLIT];
    w->first = begin;
    w->n = 0;
    for (int32_t l = 0; l < w->n_query; l++) {
        int32_t pos = a->pos[tile->first + (size_t)l];
        w->visible[l] = pos < begin ? 0 : dr_min_i32(end - 1, pos) - begin + 1;
        tile->touched[l] = tile->touched[l] || w->visible[l] > 0;
        w->n = dr_max_i32(w->n, w->visible[l]);
    }
    if (w->n == 0) return;
    size_t at = (size_t)(begin - a->first_key), n_head = (size_t)a->n_head, nope = (size_t)a->nope_dim,
           v_dim = (size_t)a->v_dim;
    const float *v = a->v + (at * n_head + tile->head) * v_dim;
    rows_of(w->next.row, w->n, v, n_head * v_dim);
    fetch_begin(&w->next, w->n, 4 * v_dim, score_units(w, a->nope_dim) + score_units(w, a->rope_dim));
    rows_of(row, w->n, a->k + (at * n_head + tile->head) * nope, n_head * nope);
    score_part(w, row, 0, a->nope_dim);
    rows_of(row, w->n, a->k_pe + at * a->k_pe_stride, a->k_pe_stride);
    score_part(w, row, a->nope_dim, a->rope_dim);
    softmax(w, a->scale);
    join_split(w);
    int32_t more = next_keys(tile, w, end);
    rows_of(w->next.row, more, a->k + ((size_t)(end - a->first_key) * n_head + tile->head) * nope,
            n_head * nope);
    fetch_begin(&w->next, more, 4 * nope, value_units(w, a->v_dim));
    rows_of(row, w->n, v, n_head * v_dim);
    for (int32_t c = 0; c < a->v_dim; c += CHUNK) {
        struct source src = {.row = row, .at = 4 * (size_t)c, .type = DR_ROW_F32};
        value_chunk(w, &src, c, dr_min_i32(CHUNK, a->v_dim - c));
    }
}

static void run_tile(const struct dr_attn_expanded *a, size_t first, size_t head, int32_t n, struct work *w) {
    struct tile tile = {.a = a, .first = first, .head = head};
    int32_t end = a->first_key + a->n_key;
    size_t qk = (size_t)a->nope_dim + (size_t)a->rope_dim;
    w->n_query = n;
    clear_state(w);
    for (int32_t l = 0; l < n; l++) {
        size_t t = first + (size_t)l, row = t * (size_t)a->n_head + head;
        w->query[l] = a->q + t * a->q_stride + head * qk;
        w->o[l] = a->o + row * (size_t)a->v_dim;
        if (a->start || a->lse[row] == -INFINITY) continue;
        w->max[l] = a->lse[row]; /* a normalised state is one key of that score */
        w->sum[l] = 1;
    }
    for (int32_t begin = dr_max_i32(a->first_key, a->from), next; begin < end; begin = next) {
        next = dr_min_i32(end, (begin / SPLIT + 1) * SPLIT);
        add_split(&tile, w, begin, next);
    }
    for (int32_t l = 0; l < n; l++)
        if (a->start || tile.touched[l])
            a->lse[(first + (size_t)l) * (size_t)a->n_head + head] =
                finish(w->o[l], w->max[l], w->sum[l], a->v_dim);
}

/* Item = (head, tokens): neighbours share keys. Later tokens see more of them and come first. */
static void items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_attn_expanded *a = run->a;
    struct work w;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t n_tile = dr_ceil_div(a->n_tok, run->tokens);
        int32_t first = (n_tile - 1 - (int32_t)(i % n_tile)) * run->tokens;
        run_tile(a, (size_t)first, (size_t)(i / n_tile), dr_min_i32(run->tokens, a->n_tok - first), &w);
    }
}

dr_status DR_NAME(dr_x86_attn_expanded)(const struct dr_attn_expanded *a, struct dr_stream *s) {
    struct run run = {.a = a, .tokens = QUERIES};
    int64_t n_thread = dr_team_size(s->team), want = n_thread > 1 ? 4 * n_thread : 1;
    while (run.tokens > LANES && (int64_t)dr_ceil_div(a->n_tok, run.tokens) * a->n_head < want)
        run.tokens /= 2;
    dr_team_for(s->team, (int64_t)dr_ceil_div(a->n_tok, run.tokens) * a->n_head, 1, items, &run);
    return dr_ok();
}
