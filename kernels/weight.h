/* weight.h - a matrix in the order in which the kernels stream it.
 * In:   rows of a checkpoint tensor (out x in, row-major, BF16, F16, F32 or F8_E4M3 with block scales).
 * Out:  strips of 64 outputs made of cells. Owns: nothing; the caller gives the bytes.
 * Why:  outputs lie in lanes and every output adds its inputs in the order of k (kernels/README.md, "order of
 * additions"): one row, eight rows and any number of threads give the same bits, on every instruction set.
 *
 * A cell is one cache line: 16 dwords, one for each of 16 outputs, with the output's next 4 / element bytes
 * inputs in ascending order (1 of F32, 2 of BF16 and F16, 4 of F8 and I8). A strip holds 64 outputs (the last
 * one 16, 32, 48 or 64): for each step over the inputs its 4 (3, 2, 1) cells side by side, so that a strip
 * is read as one stream. Outputs and inputs are padded with zeros to whole cells.
 *
 * Scale blocks are at absolute inputs and outputs of the whole tensor: `phase` is (absolute column of the
 * first input) % 128, so the first block of a slice is 128 - phase inputs long and the others 128 (the last
 * maybe shorter). A slice that does not begin at a multiple of a cell's inputs has zeros in front ("lead"),
 * so that no cell lies across two blocks.
 * Sum of a row: for each block, s = 0, s = fma(w, x, s) in the order of k, total = fma(s, scale, total). */
#pragma once

#include "common/size.h"
#include "common/status.h"

enum { DR_LANES = 16, DR_CELL_BYTES = 64, DR_STRIP = 64, DR_BLOCK = 128 };

enum dr_wtype {
    DR_W_F32,
    DR_W_BF16,
    DR_W_F16,
    DR_W_F8,
    DR_W_I8, /* made at load from the others, never in a checkpoint: value = code * scale, |code| <= 127 */
    DR_W_COUNT
}; /* same order as model/tensors.h's dr_dtype */

struct dr_weight {
    enum dr_wtype type;
    int32_t n_out, n_in;
    int32_t phase;      /* absolute first input % 128 */
    int32_t out_phase;  /* F8: absolute first output % 128 */
    const void *data;   /* borrowed, 64-byte aligned, dr_weight_data_bytes */
    const float *scale; /* borrowed; F8: [n_block][n_out_block], one a block of 128 x 128 of the tensor; I8:
                           [n_block][out_padded], one an output and 128 inputs; NULL: all 1 */
};

static inline int32_t dr_weight_out_padded(int32_t n_out) {
    return (n_out + DR_LANES - 1) / DR_LANES * DR_LANES;
}

/* Blocks of 128 that [phase, phase + n) touches, along either side. */
static inline int32_t dr_weight_blocks(int32_t n, int32_t phase) {
    return n == 0 ? 0 : (phase + n + DR_BLOCK - 1) / DR_BLOCK;
}

static inline size_t dr_weight_elem_bytes(enum dr_wtype t) {
    return t == DR_W_F32 ? 4 : t == DR_W_BF16 || t == DR_W_F16 ? 2 : 1;
}

/* Inputs of a cell. */
static inline int32_t dr_weight_per(enum dr_wtype t) {
    return 4 / (int32_t)dr_weight_elem_bytes(t);
}

static inline int32_t dr_weight_lead(enum dr_wtype t, int32_t phase) {
    return phase % dr_weight_per(t);
}

/* Cells along the inputs. */
static inline int32_t dr_weight_steps(enum dr_wtype t, int32_t n_in, int32_t phase) {
    return n_in == 0 ? 0 : dr_ceil_div(dr_weight_lead(t, phase) + n_in, dr_weight_per(t));
}

static inline size_t dr_weight_data_bytes(enum dr_wtype t, int32_t n_out, int32_t n_in, int32_t phase) {
    return (size_t)(dr_weight_out_padded(n_out) / DR_LANES) * (size_t)dr_weight_steps(t, n_in, phase) *
           DR_CELL_BYTES;
}

/* Multiple of 64; 0 for types without scales. */
static inline size_t dr_weight_scale_bytes(enum dr_wtype t, int32_t n_out, int32_t n_in, int32_t phase,
                                           int32_t out_phase) {
    size_t blocks = (size_t)dr_weight_blocks(n_in, phase);
    size_t row = t == DR_W_F8   ? (size_t)dr_weight_blocks(n_out, out_phase)
                 : t == DR_W_I8 ? (size_t)dr_weight_out_padded(n_out)
                                : 0;
    return dr_size_align(blocks * row * 4, 64);
}

/* One strip: steps of `cells` cells. */
struct dr_strip {
    const uint8_t *data;
    int32_t cells; /* 1 .. 4 groups of 16 outputs */
    int32_t steps; /* along the inputs */
};

static inline struct dr_strip dr_weight_strip(const struct dr_weight *w, int32_t strip) {
    int32_t left = dr_weight_out_padded(w->n_out) / DR_LANES - 4 * strip;
    struct dr_strip s;
    s.cells = dr_min_i32(left, 4);
    s.steps = dr_weight_steps(w->type, w->n_in, w->phase);
    s.data = (const uint8_t *)w->data + (size_t)strip * 4 * (size_t)s.steps * DR_CELL_BYTES;
    return s;
}

static inline int32_t dr_weight_strips(const struct dr_weight *w) {
    return dr_ceil_div(w->n_out, DR_STRIP);
}

/* The steps of block b: [begin, end). */
static inline int32_t dr_weight_block_step(const struct dr_weight *w, int32_t b) {
    int32_t per = dr_weight_per(w->type),
            at = (b * DR_BLOCK - w->phase + dr_weight_lead(w->type, w->phase)) / per;
    return b == 0 ? 0 : dr_min_i32(at, dr_weight_steps(w->type, w->n_in, w->phase));
}

/* Scale of output o (of the slice) in block b. */
static inline float dr_weight_scale(const struct dr_weight *w, int32_t b, int32_t o) {
    if (!w->scale) return 1;
    if (w->type == DR_W_I8) return w->scale[(size_t)b * (size_t)dr_weight_out_padded(w->n_out) + (size_t)o];
    return w->scale[b * dr_weight_blocks(w->n_out, w->out_phase) + (w->out_phase + o) / DR_BLOCK];
}

#ifdef __cplusplus
extern "C" {
#endif

/* Stores rows [row, row + n_row) of the slice into data. src: n_row rows of n_in elements, `src_stride` bytes
 * apart, first element of the slice first; any alignment. Padding must have been zeroed by the caller (fresh
 * memory is). Different groups of 16 rows may be packed by different threads. */
void dr_weight_pack_rows(const struct dr_weight *w, void *data, int32_t row, int32_t n_row, const void *src,
                         size_t src_stride);

/* The transpose: source row r becomes input first_in + r of every output. src rows hold n_out elements. Used
 * for W_UK^T. Different outputs share no byte, different inputs of a cell do share its cache line. */
void dr_weight_pack_cols(const struct dr_weight *w, void *data, int32_t first_in, int32_t n_in,
                         const void *src, size_t src_stride);

/* 128 values to codes: the nearest multiples, ties to even, of the largest size / 127. Returns that step: 0
 * for zeros (and sizes below about 1e-36, which count as zeros), NaN when a value is infinite or NaN (codes 0
 * then). */
float dr_weight_round_block(const float *v, int8_t *code);

/* One output of an I8 matrix from its f32 values row [n_in], to codes [n_in] in row-major form for
 * dr_weight_pack_rows, block by block of 128 inputs. factor [n_block], NULL: all 1: multiplies the values of
 * a block. scale: of this output in the first block; blocks are out_padded apart. Returns the first block
 * with an infinite value or NaN, -1: none. */
int32_t dr_weight_quantise(const struct dr_weight *w, const float *row, const float *factor, int8_t *code,
                           float *scale);

/* The same, with the same bits, from E4M3 codes without NaN. */
int32_t dr_weight_quantise_f8(const struct dr_weight *w, const uint8_t *row, const float *factor,
                              int8_t *code, float *scale);

/* Inputs of the slice in block b: [begin, end). */
static inline int32_t dr_weight_block_input(const struct dr_weight *w, int32_t b) {
    return b == 0 ? 0 : dr_min_i32(b * DR_BLOCK - w->phase, w->n_in);
}

/* Index of the first F8 code that is NaN (0x7f, 0xff), -1: none. */
int32_t dr_weight_find_nan(const uint8_t *code, int32_t n);

/* Element (o, k) as f32, scale applied: for tests and messages. */
float dr_weight_at(const struct dr_weight *w, int32_t o, int32_t k);

/* Exact value of one element of a row-major source; I8: the code. */
float dr_wtype_decode(enum dr_wtype t, const void *src, size_t index);

#ifdef __cplusplus
}
#endif
