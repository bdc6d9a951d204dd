/* cache.c - see cache.h.
 * In:   block.      Out: views.
 * Owns: nothing.
 * Why:  see cache.h. */

#include "worker/cache/cache.h"

#include <assert.h>

static_assert((int)DR_ROW_F32 == (int)DR_CACHE_F32 && (int)DR_ROW_BF16 == (int)DR_CACHE_BF16 &&
                  (int)DR_ROW_FP8 == (int)DR_CACHE_FP8,
              "the ops and the layout number the row types alike");

struct dr_cache dr_cache_make(const struct dr_config *c, const struct dr_layout *l, int32_t stage,
                              uint8_t *base) {
    return (struct dr_cache){
        .base = base,
        .page_bytes = dr_footprint_page_bytes(c, l, stage),
        .row_bytes = dr_footprint_row_bytes(c, l->cache_type),
        .type = (enum dr_row_type)l->cache_type,
        .page_rows = l->page_rows,
        .kv_lora = c->kv_lora,
        .rope_dim = c->rope_dim,
    };
}

struct dr_cache_view dr_cache_layer(const struct dr_cache *cache, int32_t local_layer) {
    return (struct dr_cache_view){
        .base = cache->base + (size_t)local_layer * (size_t)cache->page_rows * cache->row_bytes,
        .page_stride = cache->page_bytes,
        .row_bytes = cache->row_bytes,
        .type = cache->type,
        .kv_lora = cache->kv_lora,
        .rope_dim = cache->rope_dim,
        .page_rows = cache->page_rows,
    };
}
