/* int8.h - rows rounded to 8-bit integers, for the kernels of I8 weights.
 * In:   rows of inputs.      Out: codes with a scale for each block of 128 inputs.
 * Owns: nothing.
 * Why:  AVX2 and VNNI want the codes in different order, but the same codes: a block's sum is an exact
 * integer (128 * 127 * 127 < 2^21), so all forms give the same bits: total = fma((float)sum, row scale *
 * weight scale, total), blocks in order. */
#pragma once

#include <math.h>
#include <string.h>

#include "kernels/x86/matrix.h"
#include "kernels/x86/vec.h"

enum { DR_SCALES_AHEAD = 4 }; /* blocks: 32 KiB of weights */

/* Block b of the inputs of one row, with the zeros in front of the first block and behind the last. */
static inline void dr_int8_block(const struct dr_weight *w, int32_t b, const float *x, float *block) {
    int32_t k = dr_weight_block_input(w, b), len = dr_weight_block_input(w, b + 1) - k;
    memset(block, 0, DR_BLOCK * sizeof *block);
    memcpy(block + (b == 0 ? dr_weight_lead(DR_W_I8, w->phase) : 0), x + k, (size_t)len * sizeof *block);
}

/* A block of a strip, as tiles see it. */
struct dr_int8_cells {
    const uint8_t *data;     /* its first step, first cell */
    size_t step;             /* bytes between steps */
    int32_t n, index, first; /* steps; the block's number; number of its first step */
    const float *scale;      /* [64] of the weights */
};

/* Asks for the strip's scales of a block to come: 8-bit weights have a line for every 16 outputs and 128
 * inputs, far apart. */
static inline void dr_int8_scales_ask(const struct dr_weight *w, int32_t strip, int32_t b) {
    if (!w->scale || b >= dr_weight_blocks(w->n_in, w->phase)) return;
    const float *from = w->scale + (size_t)b * (size_t)dr_weight_out_padded(w->n_out) + strip * DR_STRIP;
    for (int32_t o = 0; o < dr_min_i32(DR_STRIP, w->n_out - strip * DR_STRIP); o += 16)
        __builtin_prefetch(from + o);
}

static inline void dr_int8_cells(const struct dr_weight *w, int32_t strip, const struct dr_strip *s,
                                 int32_t b, struct dr_int8_cells *out, float *scale) {
    int32_t first = dr_weight_block_step(w, b);
    *out = (struct dr_int8_cells){.step = (size_t)s->cells * DR_CELL_BYTES,
                                  .n = dr_weight_block_step(w, b + 1) - first,
                                  .index = b,
                                  .first = first,
                                  .scale = scale};
    out->data = s->data + (size_t)first * out->step;
    dr_strip_scales(w, strip, b, 1, scale);
    dr_int8_scales_ask(w, strip, b + DR_SCALES_AHEAD);
}

/* A tile's sums of one row and vector enter its total. */
DR_INLINE void dr_int8_put(float *total, vi sum, vf row_scale, const float *scale) {
    vf s = vf_mul(row_scale, vf_load(scale));
    vf_store(total, vf_fma(vi_to_vf(sum), s, vf_load(total)));
}
