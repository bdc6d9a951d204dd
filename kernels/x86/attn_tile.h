/* attn_tile.h - up to 64 queries against one split of keys, in f32.
 * In:   queries, keys and values as they are stored.      Out: a running state a query, as in
 * kernels/cpu/attention.h and with its bits.
 * Owns: nothing.
 * Why:  absorbed (heads of a token) and expanded attention (tokens of a head) are the same work. Keys are
 * widened once for all queries, in pieces that stay near: 48 keys x 128 numbers for scores, 128 columns of a
 * split for values. Included by sources that are compiled for both vector widths.
 *
 * Scores: queries in lanes, packed [number][lane]; keys broadcast. Softmax: vertical. Values: columns in
 * lanes, weights broadcast. */
#pragma once

#include <math.h>
#include <string.h>

#include "common/size.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cache.h"
#include "kernels/exp.h"
#include "kernels/x86/vec.h"

enum {
    LANES = 2 * VL,               /* queries of a group, columns of a strip */
    TILE_ROWS = VL == 8 ? 6 : 12, /* x 2 vectors: 12 of 16 or 24 of 32 registers hold sums */
    QUERIES = 64,                 /* of a thread at once */
    GROUPS = QUERIES / LANES,
    SPLIT = DR_ATTN_SPLIT,
    STRIP = SPLIT * LANES + 16, /* numbers between strips: neighbours lie in different sets of the caches */
    CHUNK = DR_ATTN_CHUNK,
    BLOCK = DR_ATTN_BLOCK,
    KEYS = 48, /* widened together: 24 KiB, full tiles */
};

/* One chunk of numbers of the split's keys: row j begins at row[j] + at. */
struct source {
    const uint8_t *const *row;
    size_t at;             /* bytes */
    size_t scale;          /* DR_ROW_FP8: where the row keeps the chunk's scale */
    enum dr_row_type type; /* of the chunk */
};

/* Rows that will be wanted next, asked for line by line while tiles are computed. */
struct fetch {
    const uint8_t *row[SPLIT];
    int32_t n, lines; /* rows, lines of a row */
    int32_t j, line;  /* the next one */
    int32_t step;     /* lines a unit: one tile of scores, one block of values */
};

struct work {
    _Alignas(64) float p[QUERIES * SPLIT]; /* [group][key][LANES]: raw scores, then weights */
    float q[QUERIES * CHUNK];              /* [group][number][LANES] */
    float keys[CHUNK / LANES * STRIP];     /* [key][CHUNK], or values as [strip][key][LANES], STRIP apart */
    const float *query[QUERIES];
    /* the split */
    int32_t n_query, n, first; /* keys; number of the first one, for the borders of blocks */
    int32_t visible[QUERIES];  /* the query sees keys [0, visible) of the split */
    float split_max[QUERIES], split_sum[QUERIES];
    /* the state: max -inf and sum 0 are empty; o is unnormalised and not read while empty */
    float max[QUERIES], sum[QUERIES];
    float *o[QUERIES];
    /* how the split enters it */
    float old[QUERIES], fresh[QUERIES];
    bool empty[QUERIES];
    struct fetch next;
};

static int32_t score_units(const struct work *w, int32_t dims) {
    return dr_ceil_div(w->n_query, LANES) * dr_ceil_div(w->n, TILE_ROWS) * dr_ceil_div(dims, CHUNK);
}

static int32_t value_units(const struct work *w, int32_t dims) {
    return dr_ceil_div(w->n_query, LANES) * dr_ceil_div(w->n, BLOCK) * dr_ceil_div(dims, LANES);
}

/* The first `bytes` of n rows (already in f->row) are wanted in the course of `units`. */
static void fetch_begin(struct fetch *f, int32_t n, size_t bytes, int32_t units) {
    f->n = n;
    f->lines = (int32_t)((bytes + 63) / 64);
    f->j = f->line = 0;
    f->step = n > 0 ? dr_ceil_div(f->lines * n, units) : 0;
}

static void fetch_some(struct fetch *f) {
    for (int32_t i = 0; i < f->step && f->j < f->n; i++) {
        __builtin_prefetch(f->row[f->j] + f->line * 64, 0, 2); /* not the first level: tiles need all of it */
        if (++f->line == f->lines) f->line = 0, f->j++;
    }
}

/* ---- widening ---- */

/* VL numbers of the chunk; f8: the scale. */
DR_INLINE vf widen(enum dr_row_type type, const uint8_t *at, size_t i, vf scale) {
    if (type == DR_ROW_F32) return vi_as_vf(vi_load(at + 4 * i));
    if (type == DR_ROW_BF16) return vi_as_vf(vi_sll(vi_load_u16(at + 2 * i), 16));
    vi code = vi_and(vi_sll(vi_load_i8(at + i), 20), vi_set((int32_t)0x87f00000));
    return vf_mul(vf_mul(vi_as_vf(code), vf_set(0x1p120f)), scale); /* two steps: the product may overflow */
}

/* Rows [first, first + n) to f32: row i's strip s of LANES columns goes to out + i * row_step + s *
 * strip_step. The last strip is filled with zeros. */
DR_INLINE void widen_rows(enum dr_row_type type, const struct source *src, int32_t first, int32_t n,
                          int32_t dims, float *out, size_t row_step, size_t strip_step) {
    const size_t bytes = type == DR_ROW_F32 ? 4 : type == DR_ROW_BF16 ? 2 : 1;
    for (int32_t i = 0; i < n; i++, out += row_step) {
        const uint8_t *at = src->row[first + i] + src->at;
        float factor = 1;
        if (type == DR_ROW_FP8) memcpy(&factor, src->row[first + i] + src->scale, sizeof factor);
        vf scale = vf_set(factor);
        float *to = out;
        int32_t d = 0;
        for (; d + LANES <= dims; d += LANES, to += strip_step) {
            vf_store(to, widen(type, at, (size_t)d, scale));
            vf_store(to + VL, widen(type, at, (size_t)d + VL, scale));
        }
        if (d == dims) continue;
        _Alignas(64) uint8_t edge[LANES * 4] = {0};
        memcpy(edge, at + (size_t)d * bytes, (size_t)(dims - d) * bytes);
        vf_store(to, widen(type, edge, 0, scale));
        vf_store(to + VL, widen(type, edge, VL, scale));
    }
}

static void widen_source(const struct source *src, int32_t first, int32_t n, int32_t dims, float *out,
                         size_t row_step, size_t strip_step) {
    if (src->type == DR_ROW_F32)
        widen_rows(DR_ROW_F32, src, first, n, dims, out, row_step, strip_step);
    else if (src->type == DR_ROW_BF16)
        widen_rows(DR_ROW_BF16, src, first, n, dims, out, row_step, strip_step);
    else
        widen_rows(DR_ROW_FP8, src, first, n, dims, out, row_step, strip_step);
}

/* ---- queries ---- */

/* out[d * LANES + l] = in[l][d] for 8 lanes and 8 numbers. */
DR_INLINE void transpose8(const float *const *in, int32_t d, float *out) {
    __m256 r[8], t[8];
    DR_UNROLL for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(in[i] + d);
    DR_UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    DR_UNROLL for (int i = 0; i < 8; i += 4) DR_UNROLL for (int k = 0; k < 2; k++) {
        r[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0x44);
        r[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0xee);
    }
    DR_UNROLL for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * LANES, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * LANES, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* Numbers [d, d + dims) of all queries; lanes beyond the last are zero. */
static void pack_queries(struct work *w, int32_t d, int32_t dims) {
    for (int32_t l0 = 0, end = dr_ceil_div(w->n_query, VL) * VL; l0 < end; l0 += 8) {
        const float *const *in = w->query + l0;
        float *out = w->q + l0 / LANES * LANES * CHUNK + l0 % LANES;
        int32_t i = 0, lanes = dr_min_i32(8, w->n_query - l0);
        if (lanes == 8)
            for (; i + 8 <= dims; i += 8) transpose8(in, d + i, out + i * LANES);
        for (; i < dims; i++)
            for (int32_t l = 0; l < 8; l++) out[i * LANES + l] = l < lanes ? in[l][d + i] : 0;
    }
}

/* ---- scores ---- */

/* nr keys times nv vectors of queries; `first`: the chunk starts the scores. */
DR_INLINE void score_tile(int nr, int nv, const float *q, const float *key, int32_t dims, bool first,
                          float *p) {
    vf acc[2 * TILE_ROWS][2];
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    for (int32_t d = 0; d < dims; d++, q += LANES) {
        vf w[2];
        DR_UNROLL for (int v = 0; v < nv; v++) w[v] = vf_load(q + v * VL);
        DR_UNROLL for (int r = 0; r < nr; r++) {
            vf in = vf_set(key[r * CHUNK + d]);
            DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(w[v], in, acc[r][v]);
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
    int32_t j = 0;
    if (nv == 1)
        for (; j + TALL <= n; j += TALL) score_tile(TALL, 1, q, keys + j * CHUNK, dims, first, p + j * LANES);
    for (int32_t nr; j < n; j += nr) {
        nr = dr_min_i32(TILE_ROWS, n - j);
        fetch_some(next);
#define DR_TILE(rows)                                                                                        \
    case rows:                                                                                               \
        score_tile(rows, nv, q, keys + j * CHUNK, dims, first, p + j * LANES);                               \
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
        widen_source(src, j, dr_min_i32(KEYS, w->n - j), dims, w->keys, CHUNK, LANES);
        for (int32_t g = 0; g * LANES < w->n_query; g++) {
            int32_t n = dr_min_i32(KEYS, group_keys(w, g) - j);
            const float *q = w->q + g * LANES * CHUNK;
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

/* part[r][LANES] += weighted keys [from, min(n, to[r])) of nr queries that see unequally much of a block. */
static void ragged_keys(int32_t nr, const float *values, const float *p, int32_t from, int32_t n,
                        const int32_t *to, float *part) {
    for (int32_t r = 0; r < nr; r++, part += LANES)
        for (int32_t k = from; k < n && k < to[r]; k++)
            for (int v = 0; v < 2; v++)
                vf_store(part + v * VL, vf_fma(vf_load(values + k * LANES + v * VL), vf_set(p[k * LANES + r]),
                                               vf_load(part + v * VL)));
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
    for (int32_t k = 0; k < common; k++) {
        vf v0 = vf_load(values + k * LANES), v1 = vf_load(values + k * LANES + VL);
        DR_UNROLL for (int r = 0; r < nr; r++) {
            vf in = vf_set(p[k * LANES + r]);
            acc[r][0] = vf_fma(v0, in, acc[r][0]);
            acc[r][1] = vf_fma(v1, in, acc[r][1]);
        }
    }
    if (common < n && common < longest) {
        float part[TILE_ROWS * LANES];
        DR_UNROLL for (int i = 0; i < 2 * nr; i++) vf_store(part + i * VL, acc[i / 2][i % 2]);
        ragged_keys(nr, values, p, common, n, to, part);
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
        n = dr_min_i32(BLOCK - (w->first + j) % BLOCK, w->n - j);
        for (int32_t l = 0; l < w->n_query; l++) to[l] = w->visible[l] - j;
        for (int32_t g = 0; g * LANES < w->n_query; g++) {
            int32_t lanes = dr_min_i32(LANES, w->n_query - g * LANES), tiles = dr_ceil_div(lanes, TILE_ROWS);
            const float *p = w->p + (g * SPLIT + j) * LANES;
            fetch_some(&w->next);
            for (int32_t i = 0; i < tiles; i++) {
                int32_t l = lanes * i / tiles, query = g * LANES + l;
                value_rows(lanes * (i + 1) / tiles - l, n, to + query, values + j * LANES, p + l,
                           total + query * LANES);
            }
        }
    }
}

/* Columns [c, c + dims) of the outputs; dims <= 128. */
static void value_chunk(struct work *w, const struct source *src, int32_t c, int32_t dims) {
    float total[QUERIES * LANES];
    widen_source(src, 0, w->n, dims, w->keys, LANES, STRIP);
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
