/* weight.c - checkpoint rows into strips.
 * In:   row-major source rows.      Out: strips of 16 outputs, k-major.
 * Owns: nothing.
 * Why:  see weight.h. */
#include "kernels/weight.h"

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
    case DR_W_COUNT:
        break;
    }
    DR_ASSERT(!"a weight type");
    return 0;
}

float dr_weight_at(const struct dr_weight *w, int32_t o, int32_t k) {
    DR_ASSERT(o >= 0 && o < w->n_out && k >= 0 && k < w->n_in);
    size_t index = ((size_t)(o / DR_STRIP) * (size_t)w->n_in + (size_t)k) * DR_STRIP + (size_t)(o % DR_STRIP);
    float v = dr_wtype_decode(w->type, w->data, index);
    if (!w->scale) return v;
    size_t block = (size_t)((w->phase + k) / DR_BLOCK);
    return v * w->scale[block * (size_t)dr_weight_out_padded(w->n_out) + (size_t)o];
}

/* Column of the first F8 NaN of a row, or -1. */
static int32_t find_nan(const uint8_t *row, int32_t n) {
    for (int32_t k = 0; k < n; k++)
        if ((row[k] & 0x7f) == 0x7f) return k;
    return -1;
}

/* n_row <= 16 rows of one strip to lanes lane, lane + 1, ... of dst. One instance an element size. */
static inline __attribute__((always_inline)) void interleave(uint8_t *dst, int32_t lane, const uint8_t *src,
                                                             size_t src_stride, int32_t n_row, int32_t n_in,
                                                             size_t bytes) {
    for (size_t k = 0; k < (size_t)n_in; k++)
        for (size_t r = 0; r < (size_t)n_row; r++)
            memcpy(dst + (k * DR_STRIP + (size_t)lane + r) * bytes, src + r * src_stride + k * bytes, bytes);
}

dr_status dr_weight_pack_rows(struct dr_weight *w, void *data, int32_t row, int32_t n_row, const void *src,
                              size_t src_stride) {
    DR_ASSERT(row >= 0 && n_row >= 0 && row + n_row <= w->n_out);
    size_t bytes = dr_weight_elem_bytes(w->type);
    const uint8_t *from = src;
    if (w->type == DR_W_F8)
        for (int32_t r = 0; r < n_row; r++) {
            int32_t k = find_nan(from + (size_t)r * src_stride, w->n_in);
            if (k >= 0)
                return dr_fail(DR_EMODEL,
                               "F8 code at row %d, column %d of the slice: expected a number, found NaN",
                               row + r, k);
        }
    for (int32_t r = 0; r < n_row;) {
        int32_t lane = (row + r) % DR_STRIP, n = dr_min_i32(DR_STRIP - lane, n_row - r);
        uint8_t *dst = (uint8_t *)data + (size_t)((row + r) / DR_STRIP) * (size_t)w->n_in * DR_STRIP * bytes;
        const uint8_t *at = from + (size_t)r * src_stride;
        if (bytes == 1)
            interleave(dst, lane, at, src_stride, n, w->n_in, 1);
        else if (bytes == 2)
            interleave(dst, lane, at, src_stride, n, w->n_in, 2);
        else
            interleave(dst, lane, at, src_stride, n, w->n_in, 4);
        r += n;
    }
    return dr_ok();
}

dr_status dr_weight_pack_cols(struct dr_weight *w, void *data, int32_t first_in, int32_t n_in,
                              const void *src, size_t src_stride) {
    DR_ASSERT(first_in >= 0 && n_in >= 0 && first_in + n_in <= w->n_in);
    size_t bytes = dr_weight_elem_bytes(w->type);
    for (int32_t r = 0; r < n_in; r++) {
        const uint8_t *at = (const uint8_t *)src + (size_t)r * src_stride;
        if (w->type == DR_W_F8) {
            int32_t o = find_nan(at, w->n_out);
            if (o >= 0)
                return dr_fail(DR_EMODEL,
                               "F8 code at row %d, column %d of the slice: expected a number, found NaN",
                               first_in + r, o);
        }
        for (int32_t o = 0; o < w->n_out; o += DR_STRIP) {
            size_t cell = (size_t)(o / DR_STRIP) * (size_t)w->n_in + (size_t)(first_in + r);
            memcpy((uint8_t *)data + cell * DR_STRIP * bytes, at + (size_t)o * bytes,
                   (size_t)dr_min_i32(DR_STRIP, w->n_out - o) * bytes);
        }
    }
    return dr_ok();
}
