/* block.h - large zeroed memory straight from the system.
 * In:   bytes.      Out: memory on 2 MiB pages where the system gives them.
 * Owns: nothing; the caller gives a block back with its size.
 * Why:  weights, cache and step buffers must not be touched before the threads that use them do, and small
 * pages cost up to a quarter of the reading speed. */
#pragma once

#include <stdint.h>

#include "common/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* At least `bytes` (0 counts as 1) of zeroed memory that no page has been touched of. Fails: EFULL, the text
 * says how much. */
DR_FALLIBLE dr_block_take(size_t bytes, uint8_t **out);

/* NULL is legal. bytes: as taken. */
void dr_block_give(uint8_t *block, size_t bytes);

#ifdef __cplusplus
}
#endif
