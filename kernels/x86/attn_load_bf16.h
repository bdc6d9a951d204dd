/* attn_load_bf16.h - queries, keys and values of one split as pairs of bfloat16.
 * In:   attn_work.h.      Out: its q, keys and p.
 * Owns: nothing.
 * Why:  see attn_tile.h. */
#pragma once

#include <string.h>

#include "kernels/x86/attn_work.h"
#include "kernels/x86/bf16.h"

/* 32 numbers of the chunk as 16 pairs. */
DR_INLINE vi pairs(enum dr_row_type type, const uint8_t *at, size_t i, vf scale) {
    if (type == DR_ROW_BF16) return vi_load(at + 2 * i);
    return dr_bf16_pairs(widen(type, at, i, scale), widen(type, at, i + VL, scale));
}

/* The same for numbers [d, dims) of a row that begins at `at`; zeros fill up where fewer than 32 are left. */
DR_INLINE vi row_pairs(enum dr_row_type type, const uint8_t *at, int32_t d, int32_t dims, vf scale) {
    const size_t bytes = number_bytes(type);
    if (d + LANES <= dims) return pairs(type, at, (size_t)d, scale);
    _Alignas(64) uint8_t edge[LANES * 4] = {0};
    memcpy(edge, at + (size_t)d * bytes, (size_t)(dims - d) * bytes);
    return pairs(type, edge, 0, scale);
}

DR_INLINE void keys_of(enum dr_row_type type, float *out, const struct source *src, int32_t first, int32_t n,
                       int32_t dims) {
    for (int32_t j = first; j < first + n; j++, out += ROW) {
        vf scale = row_scale(type, src, j);
        for (int32_t d = 0; d < dims; d += LANES)
            vf_store(out + d / PER, vi_as_vf(row_pairs(type, src->row[j] + src->at, d, dims, scale)));
    }
}

/* Keys [first, first + n): dims numbers of each, at w->keys [key][ROW]. */
static void load_keys(struct work *w, const struct source *src, int32_t first, int32_t n, int32_t dims) {
    if (src->type == DR_ROW_F32)
        keys_of(DR_ROW_F32, w->keys, src, first, n, dims);
    else if (src->type == DR_ROW_BF16)
        keys_of(DR_ROW_BF16, w->keys, src, first, n, dims);
    else
        keys_of(DR_ROW_FP8, w->keys, src, first, n, dims);
}

DR_INLINE void values_of(enum dr_row_type type, float *out, const struct source *src, int32_t n,
                         int32_t dims) {
    _Alignas(64) uint16_t low[LANES], high[LANES]; /* columns of both rows in turn */
    for (int i = 0; i < LANES; i++) {
        low[i] = (uint16_t)(i / 2 + i % 2 * LANES);
        high[i] = (uint16_t)(low[i] + VL);
    }
    const vi first = vi_load(low), second = vi_load(high);
    for (int32_t j = 0; j < n; j += 2, out += LANES) {
        int32_t other = dr_min_i32(j + 1, n - 1);
        vf scale = row_scale(type, src, j), scale2 = row_scale(type, src, other);
        for (int32_t d = 0; d < dims; d += LANES) {
            vi a = row_pairs(type, src->row[j] + src->at, d, dims, scale), b = vi_set(0);
            if (j + 1 < n) b = row_pairs(type, src->row[other] + src->at, d, dims, scale2);
            float *to = out + d / LANES * STRIP;
            vf_store(to, vi_as_vf(_mm512_permutex2var_epi16(a, first, b)));
            vf_store(to + VL, vi_as_vf(_mm512_permutex2var_epi16(a, second, b)));
        }
    }
}

/* Values of all keys: dims columns at w->keys [strip][key / 2][LANES]; behind an odd number of them zeros. */
static void load_values(struct work *w, const struct source *src, int32_t dims) {
    if (src->type == DR_ROW_F32)
        values_of(DR_ROW_F32, w->keys, src, w->n, dims);
    else if (src->type == DR_ROW_BF16)
        values_of(DR_ROW_BF16, w->keys, src, w->n, dims);
    else
        values_of(DR_ROW_FP8, w->keys, src, w->n, dims);
}

/* r[i] lane l becomes r[l] lane i. */
DR_INLINE void transpose16(vi *r) {
    vi t[16];
    DR_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    DR_UNROLL for (int i = 0; i < 16; i += 4) DR_UNROLL for (int k = 0; k < 2; k++) {
        r[i + 2 * k] = _mm512_unpacklo_epi64(t[i + k], t[i + k + 2]);
        r[i + 2 * k + 1] = _mm512_unpackhi_epi64(t[i + k], t[i + k + 2]);
    } /* r[4a + k]: lanes 4m + k of rows 4a .. 4a + 3, in its 128-bit part m */
    DR_UNROLL for (int k = 0; k < 4; k++) DR_UNROLL for (int i = 0; i < 2; i++) {
        t[k + 8 * i] = _mm512_shuffle_i32x4(r[k + 8 * i], r[k + 8 * i + 4], 0x88);
        t[k + 8 * i + 4] = _mm512_shuffle_i32x4(r[k + 8 * i], r[k + 8 * i + 4], 0xdd);
    } /* t[k + 8i]: parts 0 and 2 of both, then t[k + 8i + 4]: parts 1 and 3 */
    DR_UNROLL for (int k = 0; k < 4; k++) DR_UNROLL for (int i = 0; i < 2; i++) {
        r[k + 4 * i] = _mm512_shuffle_i32x4(t[k + 4 * i], t[k + 4 * i + 8], 0x88);
        r[k + 4 * i + 8] = _mm512_shuffle_i32x4(t[k + 4 * i], t[k + 4 * i + 8], 0xdd);
    }
}

/* Numbers [d, d + dims) of all queries; lanes beyond the last are zero. */
static void pack_queries(struct work *w, int32_t d, int32_t dims) {
    for (int32_t l0 = 0, end = dr_ceil_div(w->n_query, VL) * VL; l0 < end; l0 += VL)
        for (int32_t i = 0; i < dims; i += LANES) {
            vi r[16];
            for (int32_t l = 0; l < VL; l++)
                r[l] = l0 + l < w->n_query ? row_pairs(DR_ROW_F32, (const uint8_t *)(w->query[l0 + l] + d), i,
                                                       dims, vf_set(1))
                                           : vi_set(0);
            transpose16(r);
            float *out = w->q + l0 / LANES * LANES * ROW + i / PER * LANES + l0 % LANES;
            for (int32_t k = 0; k < 16; k++) vf_store(out + k * LANES, vi_as_vf(r[k]));
        }
}

/* Weights of n keys of a group [key][LANES] become pairs of keys [key / 2][LANES]. */
static void pair_weights(float *p, int32_t n) {
    for (int32_t j = 0; j < n; j += 2)
        for (int v = 0; v < LANES; v += VL) {
            vf a = vf_load(p + j * LANES + v), b = j + 1 < n ? vf_load(p + (j + 1) * LANES + v) : vf_zero();
            vf_store(p + j / 2 * LANES + v, vi_as_vf(dr_bf16_join(a, b)));
        }
}
