/* attn_expanded.c - causal attention over one piece of expanded keys.
 * In:   queries of new tokens, keys and values of a piece of the sequence.      Out: running outputs with
 * their log-sum-exp. Owns: nothing. Why:  see ops.h; 16 tokens of a head lie in lanes, so a key is read once
 * for all of them. Splits end at positions divisible by 256. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/attention.h"

enum { LANES = DR_ATTN_LANES };

/* 16 tokens of one head. */
struct tile {
    const struct dr_attn_expanded *a;
    size_t first, head;
    struct dr_attn_state state;
    bool touched[LANES];
};

/* Adds to the scores the dot products of one part (nope or rope) of queries and keys. */
static void score_part(const struct tile *tile, struct dr_attn_split *s, size_t q_offset, int32_t width,
                       const float *keys, size_t key_stride) {
    const struct dr_attn_expanded *a = tile->a;
    float packed[DR_ATTN_CHUNK * LANES];
    const float *q[LANES];
    size_t qk = (size_t)a->nope_dim + (size_t)a->rope_dim;
    for (int32_t d = 0, dims; d < width; d += dims) {
        dims = dr_min_i32(DR_ATTN_CHUNK, width - d);
        for (int32_t l = 0; l < s->n_lane; l++)
            q[l] = a->q + (tile->first + (size_t)l) * a->q_stride + tile->head * qk + q_offset + (size_t)d;
        dr_attn_pack_queries(packed, q, s->n_lane, dims);
        for (int32_t j = 0, n; j < s->n; j += n) {
            n = dr_attn_block(s, j);
            dr_attn_score(s, j, n, packed, dims, keys + (size_t)j * key_stride + (size_t)d, key_stride);
        }
    }
}

static void value_part(struct tile *tile, const struct dr_attn_split *s, const struct dr_attn_join *join,
                       const float *values) {
    const struct dr_attn_expanded *a = tile->a;
    size_t stride = (size_t)a->n_head * (size_t)a->v_dim;
    float edge[DR_ATTN_BLOCK * LANES], total[LANES * LANES];
    for (int32_t c = 0; c < a->v_dim; c += LANES) {
        int32_t n_col = dr_min_i32(LANES, a->v_dim - c);
        memset(total, 0, sizeof total);
        for (int32_t j = 0, n; j < s->n; j += n) {
            const float *v = values + (size_t)j * stride + (size_t)c;
            n = dr_attn_block(s, j);
            if (n_col == LANES) {
                dr_attn_value(s, j, n, v, stride, total);
                continue;
            }
            memset(edge, 0, sizeof edge);
            for (int32_t i = 0; i < n; i++)
                memcpy(edge + i * LANES, v + (size_t)i * stride, (size_t)n_col * sizeof *v);
            dr_attn_value(s, j, n, edge, LANES, total);
        }
        for (int32_t l = 0; l < s->n_lane; l++)
            dr_attn_apply(join, &tile->state, l, c, n_col, total + l * LANES);
    }
}

/* Keys at positions [begin, end), all in one split of 256 positions, enter the state. */
static void add_split(struct tile *tile, int32_t n_lane, int32_t begin, int32_t end) {
    const struct dr_attn_expanded *a = tile->a;
    struct dr_attn_split s = {.first = begin, .n_lane = n_lane};
    bool seen[LANES] = {false};
    for (int32_t l = 0; l < n_lane; l++) {
        s.visible[l] = dr_max_i32(0, dr_min_i32(end - begin, a->pos[tile->first + (size_t)l] - begin + 1));
        seen[l] = s.visible[l] > 0;
        tile->touched[l] = tile->touched[l] || seen[l];
        s.n = dr_max_i32(s.n, s.visible[l]);
    }
    if (s.n == 0) return;
    size_t at = (size_t)(begin - a->first_key), n_head = (size_t)a->n_head;
    memset(s.p, 0, (size_t)s.n * LANES * sizeof *s.p);
    score_part(tile, &s, 0, a->nope_dim, a->k + (at * n_head + tile->head) * (size_t)a->nope_dim,
               n_head * (size_t)a->nope_dim);
    score_part(tile, &s, (size_t)a->nope_dim, a->rope_dim, a->k_pe + at * a->k_pe_stride, a->k_pe_stride);
    dr_attn_softmax(&s, a->scale);
    struct dr_attn_join join = dr_attn_join(&tile->state, s.max, s.sum, seen);
    value_part(tile, &s, &join, a->v + (at * n_head + tile->head) * (size_t)a->v_dim);
}

static void run_tile(const struct dr_attn_expanded *a, size_t first, size_t head) {
    struct tile tile = {.a = a, .first = first, .head = head};
    int32_t n_lane = dr_min_i32(LANES, a->n_tok - (int32_t)first), end = a->first_key + a->n_key;
    for (int32_t l = 0; l < n_lane; l++) {
        size_t row = (first + (size_t)l) * (size_t)a->n_head + head;
        bool empty = a->start || a->lse[row] == -INFINITY;
        tile.state.o[l] = a->o + row * (size_t)a->v_dim;
        tile.state.max[l] = empty ? -INFINITY : a->lse[row]; /* a normalised state is one key of that score */
        tile.state.sum[l] = empty ? 0 : 1;
    }
    for (int32_t begin = dr_max_i32(a->first_key, a->from), next; begin < end; begin = next) {
        next = dr_min_i32(end, (begin / DR_ATTN_SPLIT + 1) * DR_ATTN_SPLIT);
        add_split(&tile, n_lane, begin, next);
    }
    for (int32_t l = 0; l < n_lane; l++)
        if (a->start || tile.touched[l])
            a->lse[(first + (size_t)l) * (size_t)a->n_head + head] = dr_attn_finish(&tile.state, l, a->v_dim);
}

/* Item = (tile of 16 tokens, head). */
static void items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_attn_expanded *a = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        run_tile(a, (size_t)(i / a->n_head) * LANES, (size_t)(i % a->n_head));
}

dr_status dr_cpu_attn_expanded(const struct dr_attn_expanded *a, struct dr_stream *s) {
    struct dr_attn_expanded args = *a;
    dr_team_for(s->team, (int64_t)dr_ceil_div(a->n_tok, LANES) * a->n_head, 1, items, &args);
    return dr_ok();
}
