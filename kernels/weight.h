/* weight.h - a matrix in the order in which the kernels stream it.
 * In:   rows of a checkpoint tensor (out x in, row-major, BF16, F16, F32 or F8_E4M3 with block scales).
 * Out:  strips of 16 outputs, k-major: element (o, k) is at ((o / 16) * n_in + k) * 16 + o % 16; outputs
 * padded with zeros. Owns: nothing; the caller gives the bytes. Why:  outputs lie in lanes and every output
 * adds its inputs in the order of k (kernels/README.md, "order of additions"): one row, eight rows and any
 * number of threads give the same bits, on every instruction set.
 *
 * Scale blocks are at absolute inputs: `phase` is (absolute column of the first input) % 128, so the first
 * block of a slice is 128 - phase inputs long and the others 128 (the last maybe shorter). scale[b *
 * out_padded + o] belongs to block b, output o: a cut anywhere in a 128 x 128 block keeps its exact scale.
 * Sum of a row: for each block, s = 0, s = fma(w, x, s) in the order of k, total = fma(s, scale, total);
 * without scales total = total + s. */
#pragma once

#include "common/size.h"
#include "common/status.h"

enum { DR_STRIP = 16, DR_BLOCK = 128 };

enum dr_wtype {
    DR_W_F32,
    DR_W_BF16,
    DR_W_F16,
    DR_W_F8,
    DR_W_COUNT
}; /* same order as model/tensors.h's dr_dtype */

struct dr_weight {
    enum dr_wtype type;
    int32_t n_out, n_in;
    int32_t phase;      /* absolute first input % 128 */
    const void *data;   /* borrowed, 64-byte aligned, dr_weight_data_bytes */
    const float *scale; /* borrowed, [n_block][out_padded]; NULL: all 1 */
};

static inline int32_t dr_weight_out_padded(int32_t n_out) {
    return (n_out + DR_STRIP - 1) / DR_STRIP * DR_STRIP;
}

static inline int32_t dr_weight_blocks(int32_t n_in, int32_t phase) {
    return n_in == 0 ? 0 : (phase + n_in + DR_BLOCK - 1) / DR_BLOCK;
}

static inline size_t dr_weight_elem_bytes(enum dr_wtype t) {
    return t == DR_W_F32 ? 4 : t == DR_W_F8 ? 1 : 2;
}

static inline size_t dr_weight_data_bytes(enum dr_wtype t, int32_t n_out, int32_t n_in) { /* multiple of 64 */
    return dr_size_align((size_t)dr_weight_out_padded(n_out) * (size_t)n_in * dr_weight_elem_bytes(t), 64);
}

static inline size_t dr_weight_scale_bytes(int32_t n_out, int32_t n_in, int32_t phase) { /* multiple of 64 */
    return dr_size_align((size_t)dr_weight_blocks(n_in, phase) * (size_t)dr_weight_out_padded(n_out) * 4, 64);
}

#ifdef __cplusplus
extern "C" {
#endif

/* Stores rows [row, row + n_row) of the slice into data. src: n_row rows of n_in elements, `src_stride` bytes
 * apart, first element of the slice first; any alignment. Padding outputs of the last strip must have been
 * zeroed by the caller (fresh memory is). Fails: EMODEL when an F8 code is NaN (0x7f, 0xff): text gives row
 * and column of the slice. Different rows may be packed by different threads. */
DR_FALLIBLE dr_weight_pack_rows(struct dr_weight *w, void *data, int32_t row, int32_t n_row, const void *src,
                                size_t src_stride);

/* The transpose: source row r becomes input r of every output. src rows hold n_out elements. Used for W_UK^T.
 */
DR_FALLIBLE dr_weight_pack_cols(struct dr_weight *w, void *data, int32_t first_in, int32_t n_in,
                                const void *src, size_t src_stride);

/* Element (o, k) as f32, scale applied: for tests and messages. */
float dr_weight_at(const struct dr_weight *w, int32_t o, int32_t k);

/* Exact value of one element of a row-major source. */
float dr_wtype_decode(enum dr_wtype t, const void *src, size_t index);

#ifdef __cplusplus
}
#endif
