/* weight.c - checkpoint rows into strips.
 * In:   row-major source rows.      Out: strips of cells.
 * Owns: nothing.
 * Why:  see weight.h. */
#include "kernels/weight.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

static float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float decode_f16(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    float v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
    return h & 0x8000 ? -v : v;
}

static float decode_f8(uint8_t c) { /* E4M3: bias 7, no infinity, 0x7f and 0xff are NaN */
    int e = c >> 3 & 15, m = c & 7;
    float v = e == 15 && m == 7 ? NAN : e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    return c & 0x80 ? -v : v;
}

float dr_wtype_decode(enum dr_wtype t, const void *src, size_t index) {
    const uint8_t *at = (const uint8_t *)src + index * dr_weight_elem_bytes(t);
    uint16_t half;
    float f;
    switch (t) {
    case DR_W_F32:
        memcpy(&f, at, sizeof f);
        return f;
    case DR_W_BF16:
        memcpy(&half, at, sizeof half);
        return bits_float((uint32_t)half << 16);
    case DR_W_F16:
        memcpy(&half, at, sizeof half);
        return decode_f16(half);
    case DR_W_F8:
        return decode_f8(*at);
    case DR_W_I8:
        return (float)(int8_t)*at;
    case DR_W_COUNT:
        break;
    }
    DR_ASSERT(!"a weight type");
    return 0;
}

/* Byte offset of element (o, k). */
static size_t place(const struct dr_weight *w, int32_t o, int32_t k) {
    struct dr_strip s = dr_weight_strip(w, o / DR_STRIP);
    int32_t per = dr_weight_per(w->type), at = dr_weight_lead(w->type, w->phase) + k;
    size_t cell = (size_t)(at / per) * (size_t)s.cells + (size_t)(o % DR_STRIP / DR_LANES);
    size_t strip = (size_t)(o / DR_STRIP) * 4 * (size_t)s.steps;
    return (strip + cell) * DR_CELL_BYTES + (size_t)(o % DR_LANES) * 4 +
           (size_t)(at % per) * dr_weight_elem_bytes(w->type);
}

float dr_weight_at(const struct dr_weight *w, int32_t o, int32_t k) {
    DR_ASSERT(o >= 0 && o < w->n_out && k >= 0 && k < w->n_in);
    float v = dr_wtype_decode(w->type, (const uint8_t *)w->data + place(w, o, k), 0);
    return v * dr_weight_scale(w, (w->phase + k) / DR_BLOCK, o);
}

int32_t dr_weight_find_nan(const uint8_t *code, int32_t n) {
    enum { RUN = 256 };
    int32_t at = 0;
    for (; at + RUN <= n; at += RUN) {
        uint8_t found = 0; /* bytes, so that a vector holds as many as it can */
        for (int32_t k = 0; k < RUN; k++) found |= (uint8_t)((code[at + k] & 0x7f) == 0x7f);
        if (found) break;
    }
    for (; at < n; at++)
        if ((code[at] & 0x7f) == 0x7f) return at;
    return -1;
}

static __m256i load8(const uint8_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

static void store8(uint8_t *at, __m256i low, __m256i high, int half) {
    __m256i v =
        half == 0 ? _mm256_permute2x128_si256(low, high, 0x20) : _mm256_permute2x128_si256(low, high, 0x31);
    _mm256_storeu_si256((__m256i *)(void *)at, v);
}

/* Eight dwords of eight rows, `stride` bytes apart, to eight dwords of cells that are `step` bytes apart. */
static void transpose8(uint8_t *dst, size_t step, const uint8_t *src, size_t stride) {
    __m256i pair[8], four[8];
    for (size_t i = 0; i < 4; i++) {
        __m256i a = load8(src + 2 * i * stride), b = load8(src + (2 * i + 1) * stride);
        pair[2 * i] = _mm256_unpacklo_epi32(a, b);
        pair[2 * i + 1] = _mm256_unpackhi_epi32(a, b);
    }
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 2; k++) {
            four[4 * i + 2 * k] = _mm256_unpacklo_epi64(pair[4 * i + k], pair[4 * i + 2 + k]);
            four[4 * i + 2 * k + 1] = _mm256_unpackhi_epi64(pair[4 * i + k], pair[4 * i + 2 + k]);
        }
    for (size_t k = 0; k < 4; k++) { /* four[k]: dword k and k + 4 of rows 0-3; four[4 + k]: of rows 4-7 */
        store8(dst + k * step, four[k], four[4 + k], 0);
        store8(dst + (k + 4) * step, four[k], four[4 + k], 1);
    }
}

/* 16 whole rows of one group of outputs. dst: the group's cell of the first step. */
static void pack_group(uint8_t *dst, size_t step, const uint8_t *src, size_t stride, size_t row_bytes) {
    size_t eights = row_bytes / 32;
    for (size_t i = 0; i < eights; i++)
        for (size_t r = 0; r < DR_LANES; r += 8)
            transpose8(dst + i * 8 * step + r * 4, step, src + r * stride + i * 32, stride);
    for (size_t r = 0; r < DR_LANES; r++)
        for (size_t at = eights * 32; at < row_bytes; at += 4)
            memcpy(dst + at / 4 * step + r * 4, src + r * stride + at,
                   row_bytes - at < 4 ? row_bytes - at : 4);
}

void dr_weight_pack_rows(const struct dr_weight *w, void *data, int32_t row, int32_t n_row, const void *src,
                         size_t src_stride) {
    DR_ASSERT(row >= 0 && n_row >= 0 && row + n_row <= w->n_out);
    size_t bytes = dr_weight_elem_bytes(w->type), row_bytes = (size_t)w->n_in * bytes;
    bool whole = dr_weight_lead(w->type, w->phase) == 0;
    for (int32_t r = 0; r < n_row;) {
        int32_t o = row + r;
        const uint8_t *from = (const uint8_t *)src + (size_t)r * src_stride;
        struct dr_strip s = dr_weight_strip(w, o / DR_STRIP);
        if (whole && o % DR_LANES == 0 && n_row - r >= DR_LANES) {
            pack_group((uint8_t *)data + place(w, o, 0), (size_t)s.cells * DR_CELL_BYTES, from, src_stride,
                       row_bytes);
            r += DR_LANES;
            continue;
        }
        for (int32_t k = 0; k < w->n_in; k++)
            memcpy((uint8_t *)data + place(w, o, k), from + (size_t)k * bytes, bytes);
        r++;
    }
}

void dr_weight_pack_cols(const struct dr_weight *w, void *data, int32_t first_in, int32_t n_in,
                         const void *src, size_t src_stride) {
    DR_ASSERT(first_in >= 0 && n_in >= 0 && first_in + n_in <= w->n_in);
    size_t bytes = dr_weight_elem_bytes(w->type);
    for (int32_t r = 0; r < n_in; r++)
        for (int32_t o = 0; o < w->n_out; o += DR_LANES) {
            const uint8_t *from = (const uint8_t *)src + (size_t)r * src_stride + (size_t)o * bytes;
            uint8_t *to = (uint8_t *)data + place(w, o, first_in + r);
            int32_t lanes = dr_min_i32(DR_LANES, w->n_out - o);
            for (int32_t l = 0; l < lanes; l++) memcpy(to + 4 * l, from + (size_t)l * bytes, bytes);
        }
}
