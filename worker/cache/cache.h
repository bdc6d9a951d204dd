/* cache.h - this rank's part of the latent cache.
 * In:   the block sized by model/footprint.      Out: a view of one layer for the ops.
 * Owns: nothing; the block is the worker's.
 * Why:  a page holds all layers of the rank back to back, so that a page is one piece of memory to copy,
 * store or drop. */
#pragma once

#include "kernels/ops.h"
#include "model/footprint.h"

struct dr_cache {
    uint8_t *base; /* page i: base + i * page_bytes; its layer j: + j * page_rows * row_bytes */
    size_t page_bytes, row_bytes;
    enum dr_row_type type;
    int32_t page_rows, kv_lora, rope_dim;
};

#ifdef __cplusplus
extern "C" {
#endif

/* base: dr_footprint_page_bytes(stage) x n_page bytes. */
struct dr_cache dr_cache_make(const struct dr_config *c, const struct dr_layout *l, int32_t stage,
                              uint8_t *base);

/* local_layer: 0 is the stage's first; the MTP layer comes after the main ones. */
struct dr_cache_view dr_cache_layer(const struct dr_cache *cache, int32_t local_layer);

#ifdef __cplusplus
}
#endif
