/* tap.h - named places of a step whose rows can be copied out.
 * In:   which place, layer and slot, and a buffer.      Out: rows with their positions.
 * Owns: nothing; buffers are the caller's.
 * Why:  golden tests and `score --taps` compare what a layer made; data, not a seam: always compiled, set
 * from outside. */
#pragma once

#include "kernels/device.h"

/* Residual stream before layer 0 and after each layer; a layer's cache rows before rounding; chosen experts;
 * logits of drafts (the rank's columns), at the position of the token before the draft. The MTP layer is the
 * one after the last. */
enum dr_tap_kind {
    DR_TAP_EMBED,
    DR_TAP_HIDDEN,
    DR_TAP_CKV,
    DR_TAP_KPE,
    DR_TAP_EXPERTS,
    DR_TAP_EXPERT_WEIGHTS,
    DR_TAP_MTP_LOGITS,
    DR_TAP_KIND_COUNT
};

struct dr_tap {
    enum dr_tap_kind kind;
    int32_t layer; /* ignored by EMBED and MTP_LOGITS */
    int32_t slot;
    int32_t width; /* elements a row: dim, dim, kv_lora, rope_dim, n_active, n_active, own columns; checked */
    int32_t room;  /* rows of the buffers */
    void *row;     /* [room, width] f32; int32 for EXPERTS */
    int32_t *position; /* [room] */
    int32_t n; /* rows written; grows from step to step, further rows are dropped when room is reached */
};

/* Rows of one slot in a step: row index of the first, its position, how many. */
struct dr_tap_rows {
    int32_t slot, first_row, position, n;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Copies the rows to every tap of (kind, layer, slot). x: [rows of the step, width], x_stride elements (4
 * bytes each) between rows. */
void dr_tap_take(struct dr_tap *taps, int32_t n_tap, enum dr_tap_kind kind, int32_t layer,
                 const struct dr_tap_rows *rows, const void *x, size_t x_stride, int32_t width,
                 struct dr_stream *s);

#ifdef __cplusplus
}
#endif
