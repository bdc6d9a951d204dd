/* attn_tile.h - up to 64 queries against one split of keys.
 * In:   queries, keys and values as they are stored.      Out: a running state a query, as in
 * kernels/cpu/attention.h; in f32 with its bits.
 * Owns: nothing.
 * Why:  absorbed (heads of a token) and expanded attention (tokens of a head) are the same work. Keys are
 * widened once for all queries, in pieces that stay near: 48 keys x 128 numbers for scores, 128 columns of a
 * split for values. Included by sources that are compiled for both vector widths.
 *
 * Scores: queries in lanes, packed [number][lane]; keys broadcast. Softmax: vertical. Values: columns in
 * lanes, weights broadcast.
 *
 * With DR_BF16 a lane holds a pair of bfloat16, neighbours along the sum: two numbers of queries and keys,
 * two keys of weights and values. Queries, keys, values and weights (exp(score - largest)) are rounded; sums
 * and softmax stay f32. Pairs of keys begin at the split's first one; a hidden key in one counts as 0. */
#pragma once

#include <math.h>
#include <string.h>

#include "kernels/exp.h"
#ifdef DR_BF16
#include "kernels/x86/attn_load_bf16.h"
#else
#include "kernels/x86/attn_load_f32.h"
#endif

/* What a lane multiplies, in all lanes. */
DR_INLINE vf lane(const float *at) {
    int32_t bits;
    memcpy(&bits, at, sizeof bits);
    return vi_as_vf(vi_set(bits));
}

/* acc + a b in every lane. */
DR_INLINE vf mac(vf a, vf b, vf acc) {
#ifdef DR_BF16
    return dr_bf16_dot(acc, vf_as_vi(a), vf_as_vi(b));
#else
    return vf_fma(a, b, acc);
#endif
}

/* ---- scores ---- */

/* nr keys times nv vectors of queries, n lanes of each; `first`: the chunk starts the scores. */
DR_INLINE void score_tile(int nr, int nv, const float *q, const float *key, int32_t n, bool first, float *p) {
    vf acc[2 * TILE_ROWS][2];
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    for (int32_t d = 0; d < n; d++, q += LANES) {
        vf w[2];
        DR_UNROLL for (int v = 0; v < nv; v++) w[v] = vf_load(q + v * VL);
        DR_UNROLL for (int r = 0; r < nr; r++) {
            vf in = lane(key + r * ROW + d);
            DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = mac(w[v], in, acc[r][v]);
        }
    }
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) {
        float *at = p + r * LANES + v * VL;
        vf_store(at, vf_add(first ? vf_zero() : vf_load(at), acc[r][v]));
    }
}

#define DR_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#if DR_VL == 16
#define DR_MORE_TILES(X) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define DR_MORE_TILES(X)
#endif

/* n keys times the nv vectors of a group. */
DR_INLINE void score_keys(struct fetch *next, int nv, const float *q, const float *keys, int32_t n,
                          int32_t dims, bool first, float *p) {
    enum { TALL = 2 * TILE_ROWS };
    int32_t j = 0, lanes = dr_ceil_div(dims, PER);
    if (nv == 1)
        for (; j + TALL <= n; j += TALL) score_tile(TALL, 1, q, keys + j * ROW, lanes, first, p + j * LANES);
    for (int32_t nr; j < n; j += nr) {
        nr = dr_min_i32(TILE_ROWS, n - j);
        fetch_some(next);
#define DR_TILE(rows)                                                                                        \
    case rows:                                                                                               \
        score_tile(rows, nv, q, keys + j * ROW, lanes, first, p + j * LANES);                                \
        break;
        switch (nr) {
            DR_TILES(DR_TILE)
            DR_MORE_TILES(DR_TILE)
        default:
            break;
        }
#undef DR_TILE
    }
}

/* Keys of the split that some query of the group sees. */
static int32_t group_keys(const struct work *w, int32_t group) {
    int32_t n = 0;
    for (int32_t l = group * LANES; l < (group + 1) * LANES && l < w->n_query; l++)
        n = dr_max_i32(n, w->visible[l]);
    return n;
}

/* Numbers [d, d + dims) of queries and keys enter the scores; dims <= 128. */
static void score_chunk(struct work *w, const struct source *src, int32_t d, int32_t dims) {
    pack_queries(w, d, dims);
    for (int32_t j = 0; j < w->n; j += KEYS) {
        load_keys(w, src, j, dr_min_i32(KEYS, w->n - j), dims);
        for (int32_t g = 0; g * LANES < w->n_query; g++) {
            int32_t n = dr_min_i32(KEYS, group_keys(w, g) - j);
            const float *q = w->q + g * LANES * ROW;
            float *p = w->p + (g * SPLIT + j) * LANES;
            if (w->n_query - g * LANES > VL)
                score_keys(&w->next, 2, q, w->keys, n, dims, d == 0, p);
            else
                score_keys(&w->next, 1, q, w->keys, n, dims, d == 0, p);
        }
    }
}

/* ---- softmax ---- */

/* One group: nv vectors, n keys of which all queries see the first `common`. */
DR_INLINE void softmax_group(int nv, struct work *w, int32_t group, int32_t n, int32_t common, float factor) {
    const vf scale = vf_set(factor), none = vf_set(-INFINITY);
    int32_t lane0 = group * LANES, bound[LANES];
    vf max[2], sum[2];
    vi visible[2];
    for (int32_t l = 0; l < LANES; l++) bound[l] = lane0 + l < w->n_query ? w->visible[lane0 + l] : 0;
    DR_UNROLL for (int v = 0; v < nv; v++) max[v] = none, sum[v] = vf_zero(),
                                           visible[v] = vi_load(bound + v * VL);
    float *p = w->p + group * SPLIT * LANES;
    for (int32_t j = 0; j < n; j++) DR_UNROLL for (int v = 0; v < nv; v++) {
            vf s = vf_mul(vf_load(p + j * LANES + v * VL), scale);
            if (j >= common) s = vf_if_above(visible[v], vi_set(j), s, none);
            max[v] = vf_max(s, max[v]);
        }
    for (int32_t j = 0; j < n; j++) DR_UNROLL for (int v = 0; v < nv; v++) {
            float *at = p + j * LANES + v * VL;
            vf weight = vf_exp(vf_sub(vf_mul(vf_load(at), scale), max[v]));
            if (j >= common) weight = vf_if_above(visible[v], vi_set(j), weight, vf_zero());
            vf_store(at, weight);
            sum[v] = vf_add(sum[v], weight);
        }
    DR_UNROLL for (int v = 0; v < nv; v++) {
        vf_store(w->split_max + lane0 + v * VL, max[v]);
        vf_store(w->split_sum + lane0 + v * VL, sum[v]);
    }
}

static void softmax(struct work *w, float scale) {
    for (int32_t g = 0; g * LANES < w->n_query; g++) {
        int32_t n = group_keys(w, g), common = n, lanes = dr_min_i32(LANES, w->n_query - g * LANES);
        for (int32_t l = 0; l < lanes; l++) common = dr_min_i32(common, w->visible[g * LANES + l]);
        if (lanes > VL)
            softmax_group(2, w, g, n, common, scale);
        else
            softmax_group(1, w, g, n, common, scale);
#ifdef DR_BF16
        pair_weights(w->p + g * SPLIT * LANES, n);
#endif
    }
}

/* The split's largest scores and sums enter the state; decides how its outputs do. */
static void join_split(struct work *w) {
    for (int32_t l = 0; l < w->n_query; l++) {
        float max = w->split_max[l], sum = w->split_sum[l];
        if (w->visible[l] == 0) continue;
        w->empty[l] = w->sum[l] == 0;
        if (w->empty[l]) {
            w->max[l] = max;
            w->sum[l] = sum;
            continue;
        }
        float most = max > w->max[l] ? max : w->max[l];
        w->old[l] = dr_exp(w->max[l] - most);
        w->fresh[l] = dr_exp(max - most);
        w->max[l] = most;
        w->sum[l] = fmaf(sum, w->fresh[l], w->sum[l] * w->old[l]);
    }
}

/* ---- values ---- */

/* part[r][LANES] += weighted keys from lane `unit` on to min(n, to[r]), of nr queries that see unequally much
 * of a block. */
static void ragged_keys(int32_t nr, const float *values, const float *p, int32_t unit, int32_t n,
                        const int32_t *to, float *part) {
    for (int32_t r = 0; r < nr; r++, part += LANES)
        for (int32_t k = unit, end = dr_min_i32(n, to[r]); k * PER < end; k++)
            for (int v = 0; v < 2; v++) {
                vf value = vf_load(values + k * LANES + v * VL);
                if (k * PER + 1 == end && PER == 2) value = vi_as_vf(vi_and(vf_as_vi(value), vi_set(0xffff)));
                vf_store(part + v * VL, mac(value, lane(p + k * LANES + r), vf_load(part + v * VL)));
            }
}

/* total[r][LANES] += weighted sums of one strip over keys [0, n) of a block, for nr queries whose weights lie
 * side by side; query r sees the first to[r] of them. A hidden key is left out, not weighted with 0: 0 times
 * NaN is NaN. */
DR_INLINE void value_tile(int nr, int32_t n, const int32_t *to, const float *values, const float *p,
                          float *total) {
    vf acc[TILE_ROWS][2];
    int32_t common = n, longest = 0;
    DR_UNROLL for (int r = 0; r < nr; r++) {
        acc[r][0] = acc[r][1] = vf_zero();
        common = dr_min_i32(common, to[r]);
        longest = dr_max_i32(longest, to[r]);
    }
    common = dr_max_i32(common, 0);
    int32_t units = common == n ? dr_ceil_div(n, PER) : common / PER;
    for (int32_t k = 0; k < units; k++) {
        vf v0 = vf_load(values + k * LANES), v1 = vf_load(values + k * LANES + VL);
        DR_UNROLL for (int r = 0; r < nr; r++) {
            vf in = lane(p + k * LANES + r);
            acc[r][0] = mac(v0, in, acc[r][0]);
            acc[r][1] = mac(v1, in, acc[r][1]);
        }
    }
    if (common < n && common < longest) {
        float part[TILE_ROWS * LANES];
        DR_UNROLL for (int i = 0; i < 2 * nr; i++) vf_store(part + i * VL, acc[i / 2][i % 2]);
        ragged_keys(nr, values, p, units, n, to, part);
        DR_UNROLL for (int i = 0; i < 2 * nr; i++) acc[i / 2][i % 2] = vf_load(part + i * VL);
    }
    DR_UNROLL for (int i = 0; i < 2 * nr; i++)
        vf_store(total + i * VL, vf_add(vf_load(total + i * VL), acc[i / 2][i % 2]));
}

/* Columns [c, c + n) of query l. */
static void apply(const struct work *w, int32_t l, int32_t c, int32_t n, const float *total) {
    float *o = w->o[l] + c, old = w->old[l], fresh = w->fresh[l];
    if (w->visible[l] == 0) return;
    if (n < LANES) {
        for (int32_t i = 0; i < n; i++) o[i] = w->empty[l] ? total[i] : fmaf(total[i], fresh, o[i] * old);
        return;
    }
    for (int v = 0; v < 2; v++) {
        vf t = vf_load(total + v * VL);
        if (!w->empty[l]) t = vf_fma(t, vf_set(fresh), vf_mul(vf_load(o + v * VL), vf_set(old)));
        vf_store(o + v * VL, t);
    }
}

static void value_rows(int32_t nr, int32_t n, const int32_t *to, const float *values, const float *p,
                       float *total) {
#define DR_TILE(rows)                                                                                        \
    case rows:                                                                                               \
        value_tile(rows, n, to, values, p, total);                                                           \
        break;
    switch (nr) {
        DR_TILES(DR_TILE)
        DR_MORE_TILES(DR_TILE)
    default:
        break;
    }
#undef DR_TILE
}

/* total[query][LANES] = weighted sums of one strip. */
static void value_strip(struct work *w, const float *values, float *total) {
    int32_t to[QUERIES];
    memset(total, 0, (size_t)w->n_query * LANES * sizeof *total);
    for (int32_t j = 0, n; j < w->n; j += n) {
        n = dr_min_i32(PER == 1 ? BLOCK - (w->first + j) % BLOCK : BLOCK, w->n - j);
        for (int32_t l = 0; l < w->n_query; l++) to[l] = w->visible[l] - j;
        for (int32_t g = 0; g * LANES < w->n_query; g++) {
            int32_t lanes = dr_min_i32(LANES, w->n_query - g * LANES), tiles = dr_ceil_div(lanes, TILE_ROWS);
            const float *p = w->p + (g * SPLIT + j / PER) * LANES;
            fetch_some(&w->next);
            for (int32_t i = 0; i < tiles; i++) {
                int32_t l = lanes * i / tiles, query = g * LANES + l;
                value_rows(lanes * (i + 1) / tiles - l, n, to + query, values + j / PER * LANES, p + l,
                           total + query * LANES);
            }
        }
    }
}

/* Columns [c, c + dims) of the outputs; dims <= 128. */
static void value_chunk(struct work *w, const struct source *src, int32_t c, int32_t dims) {
    float total[QUERIES * LANES];
    load_values(w, src, dims);
    for (int32_t col = 0; col < dims; col += LANES) {
        value_strip(w, w->keys + col / LANES * STRIP, total);
        for (int32_t l = 0; l < w->n_query; l++)
            apply(w, l, c + col, dr_min_i32(LANES, dims - col), total + l * LANES);
    }
}

/* ---- state ---- */

static void clear_state(struct work *w) {
    for (int32_t l = 0; l < QUERIES; l++) w->max[l] = -INFINITY, w->sum[l] = 0;
}

/* o[0..dim) /= sum; the log-sum-exp; an empty state gives zeros and -inf. */
static float finish(float *o, float max, float sum, int32_t dim) {
    int32_t i = 0;
    if (sum == 0) {
        memset(o, 0, (size_t)dim * sizeof *o);
        return -INFINITY;
    }
    for (; i + VL <= dim; i += VL) vf_store(o + i, vf_div(vf_load(o + i), vf_set(sum)));
    for (; i < dim; i++) o[i] /= sum;
    return max + dr_ln(sum);
}
