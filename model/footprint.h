/* footprint.h - the bytes of a rank, before anything is allocated.
 * In:   config, checkpoint table (dtypes), layout, rank.      Out: bytes by line, rows of the cache, what fits.
 * Owns: nothing.
 * Why:  `inspect` and `plan` print it, the worker obeys it: the same function sizes the allocation.
 *
 * footprint owns the row format of the cache: f32 and bf16 rows are latent then rotated key; fp8 rows are ceil(lat/128) groups of E4M3,
 * then their f32 power-of-two scales, then the rotated key in bf16; each row rounded up to 4 bytes. */
#pragma once

#include "model/layout.h"
#include "model/tensors.h"

struct dr_footprint {
    size_t weights;         /* packed weights, both orientations of kv_b, norms, router */
    size_t cache;           /* n_page x page_rows x layers x row bytes */
    size_t workspace;       /* activations of one step, attention pieces, sampler */
    size_t collective;      /* buffers of the group */
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

/* Bytes of one packed matrix (kernels/weight.h states the format): outputs padded to 16, k-major strips, one f32 scale per
 * output and block of 128 absolute inputs where `scaled`. first_in: absolute column of the slice's first input. */
size_t dr_footprint_packed_bytes(enum dr_dtype t, int32_t n_out, int32_t n_in, int32_t first_in, bool scaled);

/* All lines for one rank. t may be NULL: then dtypes are guessed from the config (FP8 linears if c->fp8, else BF16). */
struct dr_footprint dr_footprint_rank(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                                      int32_t rank);

/* Largest number of pages so that the rank's total stays within `bytes`; 0 if not even the weights fit. */
int32_t dr_footprint_pages_within(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                                  int32_t rank, size_t bytes);

#ifdef __cplusplus
}
#endif
