/* attn_load_f32.h - queries, keys and values of one split in f32.
 * In:   attn_work.h.      Out: its q and keys.
 * Owns: nothing.
 * Why:  see attn_tile.h. */
#pragma once

#include <string.h>

#include "kernels/x86/attn_work.h"

/* Rows [first, first + n) to f32: row i's strip s of LANES columns goes to out + i * row_step + s *
 * strip_step. The last strip is filled with zeros. */
DR_INLINE void widen_rows(enum dr_row_type type, const struct source *src, int32_t first, int32_t n,
                          int32_t dims, float *out, size_t row_step, size_t strip_step) {
    const size_t bytes = number_bytes(type);
    for (int32_t i = 0; i < n; i++, out += row_step) {
        const uint8_t *at = src->row[first + i] + src->at;
        vf scale = row_scale(type, src, first + i);
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

/* Keys [first, first + n): dims numbers of each, at w->keys [key][ROW]. */
static void load_keys(struct work *w, const struct source *src, int32_t first, int32_t n, int32_t dims) {
    widen_source(src, first, n, dims, w->keys, ROW, LANES);
}

/* Values of all keys: dims columns at w->keys [strip][key][LANES]. */
static void load_values(struct work *w, const struct source *src, int32_t dims) {
    widen_source(src, 0, w->n, dims, w->keys, LANES, STRIP);
}

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
