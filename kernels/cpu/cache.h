/* cache.h - the formats of a cached row.
 * In:   a stored row.      Out: its numbers.
 * Owns: nothing.
 * Why:  put, unpack and absorbed attention read and write one format.
 *
 * A row is kv_lora latent numbers, then rope_dim numbers of the rotated key. f32 and bf16 rows store all in
 * that type. An fp8 row stores the latents as E4M3 in groups of 128 (the last maybe shorter), then one f32
 * scale a group, then the key in bf16. */
#pragma once

#include "kernels/ops.h"

enum { DR_CACHE_GROUP = 128 };

/* Bytes that the row uses (row_bytes of the view may be larger: rounded up). */
size_t dr_cache_row_used(const struct dr_cache_view *v);

/* Numbers [first, first + n) of the row. Never crosses from latent to key in one call. */
void dr_cache_decode(const struct dr_cache_view *v, const uint8_t *row, int32_t first, int32_t n, float *out);
