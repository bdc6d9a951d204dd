/* matrix.h - packed matrices times rows, as fast as the processor allows.
 * In:   dr_weight, rows of inputs in f32.      Out: sums.
 * Owns: nothing; inputs are prepared in the caller's scratch.
 * Why:  every kernel family has the same two steps: rows are prepared once (padded, scaled or rounded), then
 * strips of 64 outputs are multiplied with up to DR_TILE_ROWS prepared rows.
 *
 * A family (f32, int8, bf16) is a pair of functions for one type of weights. The sum of a row does not depend
 * on how many rows go together, on the strip's place or on the vector width (kernels/README.md). */
#pragma once

#include "kernels/device.h"
#include "kernels/weight.h"

enum { DR_TILE_ROWS = 256 };

/* Makes a prepared row of dr_prepared_bytes, 64-byte aligned, of one row of inputs x [n_in] for the matrix's
 * geometry: padded so that cells and inputs begin together, and in the family's own numbers. */
typedef void dr_prepare_fn(const struct dr_weight *w, const float *x, void *row);

/* total[r * 64 + o] for outputs o of the strip and rows r < n_row <= DR_TILE_ROWS; row r is prepared at
 * row[r]. Outputs beyond the strip's cells are not written. */
typedef void dr_strip_fn(const struct dr_weight *w, int32_t strip, const void *const *row, int32_t n_row,
                         float *total);

struct dr_family {
    dr_prepare_fn *prepare;
    dr_strip_fn *strip;
};

/* The families of one instruction set and precision, by type of the weights. */
struct dr_matrix_set {
    const char *name;
    struct dr_family by_type[DR_W_COUNT];
    struct dr_family exact[DR_W_COUNT]; /* inputs never rounded: the router */
};

/* scale[0 .. 64): of the strip's outputs in block b, times factor; beyond the last output anything finite. */
static inline void dr_strip_scales(const struct dr_weight *w, int32_t strip, int32_t b, float factor,
                                   float *scale) {
    int32_t first = strip * DR_STRIP, n = dr_min_i32(DR_STRIP, w->n_out - first);
    if (w->type == DR_W_I8 && w->scale) {
        const float *from = w->scale + (size_t)b * (size_t)dr_weight_out_padded(w->n_out) + first;
        for (int32_t o = n; o < DR_STRIP; o++) scale[o] = 0;
        for (int32_t o = 0; o < n; o++) scale[o] = from[o] * factor;
        return;
    }
    for (int32_t o = 0, end; o < DR_STRIP; o = end) { /* outputs up to a border of 128 share a scale */
        end = dr_min_i32(DR_STRIP, o + DR_BLOCK - (w->out_phase + first + o) % DR_BLOCK);
        float s = factor * dr_weight_scale(w, b, dr_min_i32(first + o, w->n_out - 1));
        for (int32_t i = o; i < end; i++) scale[i] = s;
    }
}

/* Asks for the first page of a strip that will be read soon: the hardware sees a stream only after some
 * misses. */
static inline void dr_strip_ask(const struct dr_weight *w, int32_t strip) {
    enum { FIRST = 4096 };
    if (strip >= dr_weight_strips(w)) return;
    struct dr_strip s = dr_weight_strip(w, strip);
    size_t bytes = (size_t)s.steps * (size_t)s.cells * DR_CELL_BYTES;
    for (size_t at = 0; at < FIRST && at < bytes; at += DR_CELL_BYTES) __builtin_prefetch(s.data + at, 0, 2);
}

/* Bytes of one prepared row of any family: a multiple of 64. */
static inline size_t dr_prepared_bytes(int32_t n_in) {
    return dr_size_align(((size_t)n_in + 8) * 4 + (size_t)(n_in / DR_BLOCK + 2) * 8, 64);
}

/* y[t,h,:] (+)= w[h] x[t,h,:] by the whole team. Rows go in tiles as large as the scratch allows (at least
 * one row of all heads that share no input); the bits do not depend on its size. */
struct dr_matrix_run {
    float *y;
    const float *x;
    const struct dr_weight *w; /* [n_head] of one type, shape and phase */
    int32_t n_tok, n_head;
    size_t y_stride, y_head_stride, x_stride, x_head_stride;
    bool add;
    uint8_t *scratch; /* 64-byte aligned */
    size_t scratch_bytes;
};
void dr_x86_matrix_run(const struct dr_matrix_run *job, const struct dr_family *family, struct dr_team *team);

/* matrix_f32.c: any type; inputs stay f32. The same bits for both widths and as kernels/cpu. */
dr_prepare_fn dr_prepare_f32;
dr_strip_fn dr_strip_f32_avx2, dr_strip_f32_avx512;

/* matrix_int8_avx2.c, matrix_int8_vnni.c: I8 weights; inputs are rounded to 8 bits, one scale a block of 128.
 * The same bits on all instruction sets: sums inside a block are exact. */
dr_prepare_fn dr_prepare_int8_avx2, dr_prepare_int8_vnni;
dr_strip_fn dr_strip_int8_avx2, dr_strip_int8_vnni;

/* matrix_bf16.c: F8 and BF16 weights; inputs are rounded to bfloat16. */
dr_prepare_fn dr_prepare_bf16;
dr_strip_fn dr_strip_bf16;
