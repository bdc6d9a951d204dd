/* footprint.h - the bytes of a rank, before anything is allocated.
 * In:   config, checkpoint table (dtypes), layout, rank.      Out: bytes by line, rows of the cache, what
 * fits. Owns: nothing. Why:  `inspect` and `plan` print it, the worker obeys it: the same function sizes the
 * allocation.
 *
 * footprint owns the row format of the cache: f32 and bf16 rows are latent then rotated key; fp8 rows are
 * ceil(lat/128) groups of E4M3, then their f32 power-of-two scales, then the rotated key in bf16; each row
 * rounded up to 4 bytes. */
#pragma once

#include "model/layout.h"
#include "model/tensors.h"

/* What becomes of a tensor's slice in the memory of a rank. One holding is exactly one matrix or vector. */
enum dr_hold_kind {
    DR_HOLD_PACKED,     /* kernels/weight.h: outputs = rows, inputs = columns, phase = col0 % 128 */
    DR_HOLD_TRANSPOSED, /* the same of the transpose: outputs = columns, inputs = rows, phase = row0 % 128
                           (W_UK^T of one head) */
    DR_HOLD_ROWS,       /* row-major in the file's own dtype, rows back to back (embedding) */
    DR_HOLD_VECTOR,     /* f32, whatever the file's dtype (norms, router bias) */
    DR_HOLD_KIND_COUNT
};

/* One thing that a rank holds. The slice is in the coordinates of the checkpoint tensor; vectors are [1, n]
 * as in model/tensors.h. */
struct dr_holding {
    enum dr_role role;
    int32_t layer, expert, head; /* -1: none; head: absolute, set for the pieces of kv_b only */
    enum dr_hold_kind kind;
    enum dr_dtype dtype; /* of the bytes in memory: the file's, f32 for DR_HOLD_VECTOR */
    int32_t row0, rows, col0, cols;
    size_t offset;      /* in the rank's block of weights; a multiple of 64 */
    size_t data_bytes;  /* at `offset`; a multiple of 64 */
    size_t scale_bytes; /* at offset + data_bytes; 0 without scales (every dtype but F8_E4M3 and I8), else a
                           multiple of 64 */
};

static inline int32_t dr_holding_out(const struct dr_holding *h) {
    return h->kind == DR_HOLD_TRANSPOSED ? h->cols : h->rows;
}

static inline int32_t dr_holding_in(const struct dr_holding *h) {
    return h->kind == DR_HOLD_TRANSPOSED ? h->rows : h->cols;
}

static inline int32_t dr_holding_phase(const struct dr_holding *h) {
    return (h->kind == DR_HOLD_TRANSPOSED ? h->row0 : h->col0) % 128;
}

static inline int32_t dr_holding_out_phase(const struct dr_holding *h) {
    return (h->kind == DR_HOLD_TRANSPOSED ? h->col0 : h->row0) % 128;
}

struct dr_footprint {
    size_t
        weights; /* sum over dr_footprint_list: packed weights, all forms of kv_b, norms, router, embedding */
    size_t cache;      /* n_page x page_rows x layers x row bytes */
    size_t workspace;  /* activations of one step, attention pieces, sampler */
    size_t collective; /* buffers of the group */
    size_t total;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of one cached row of one layer. */
size_t dr_footprint_row_bytes(const struct dr_config *c, enum dr_cache_type type);

/* Cache bytes a token of the whole model: layers (with MTP if loaded) x row bytes. */
size_t dr_footprint_token_bytes(const struct dr_config *c, const struct dr_layout *l);

/* Bytes of one page on a rank of `stage`: all its layers. */
size_t dr_footprint_page_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t stage);

/* Bytes of one packed matrix (kernels/weight.h states the format) with its scales: one f32 for each block of
 * 128 x 128 of the tensor (F8_E4M3), or for each output and 128 inputs (I8). first_in, first_out: absolute
 * column and row of the slice's first element. */
size_t dr_footprint_packed_bytes(enum dr_dtype t, int32_t n_out, int32_t n_in, int32_t first_in,
                                 int32_t first_out);

/* Lists what `rank` holds, in load order, offsets ascending without holes. Writes at most `room` entries (out
 * may be NULL with room 0) and returns how many there are. Pure. t as in dr_footprint_rank. Order and form:
 *   first stage, and last stage with the MTP layer:  EMBED rows (vocab)
 *   each main layer:  INPUT_NORM vector | Q packed rows (heads) or Q_A packed whole, Q_A_NORM, Q_B packed
 * rows (heads) | KV_A packed whole, KV_A_NORM | for each head (own heads; the cache group's under
 * DR_EXCHANGE_VALUE) three pieces of KV_B: W_UK^T transposed [kv_lora out, nope in], W_UK packed [nope out,
 * kv_lora in], W_UV packed [v_dim out, kv_lora in] | O packed columns (heads) | POST_NORM | dense: MLP_GATE,
 * MLP_UP packed rows, MLP_DOWN packed columns (mlp_cols) | MoE: ROUTER packed whole, ROUTER_BIAS vector
 * (sigmoid router only), for each expert of `experts` GATE, UP packed rows and DOWN packed columns
 * (expert_cols), then the shared expert likewise (shared_cols) if the model has one last stage:  NORM vector
 * | HEAD packed rows (vocab); of a tied model the slice is one of the embedding's last stage with the MTP
 * layer:  MTP_ENORM, MTP_HNORM vectors | MTP_EH packed whole | a layer as above with layer = n_layer |
 * MTP_NORM */
int32_t dr_footprint_list(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                          int32_t rank, struct dr_holding *out, int32_t room);

/* All lines for one rank. t may be NULL: then dtypes are guessed from the config (FP8 linears if c->fp8, else
 * BF16). */
struct dr_footprint dr_footprint_rank(const struct dr_config *c, const struct dr_tensors *t,
                                      const struct dr_layout *l, int32_t rank);

/* Largest number of pages so that the rank's total stays within `bytes`; 0 if not even the weights fit. */
int32_t dr_footprint_pages_within(const struct dr_config *c, const struct dr_tensors *t,
                                  const struct dr_layout *l, int32_t rank, size_t bytes);

#ifdef __cplusplus
}
#endif
