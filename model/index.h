/* index.h - model.safetensors.index.json: which tensor is in which file.
 * In:   the text of the index.      Out: the files, and a claim for each tensor found in one of them.
 * Owns: the parsed text until dr_index_destroy.
 * Why:  index and files must agree in both directions: each claim takes one entry away, and nothing may be
 * left. */
#pragma once

#include "common/status.h"

enum { DR_INDEX_BYTES_MAX = 64 << 20, DR_INDEX_FILES_MAX = 4096 }; /* V3: 9 MB, 163 files */

struct dr_index;

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EMODEL (no JSON, no weight_map, a value that is no plain *.safetensors name, too many files), EFULL.
 */
DR_FALLIBLE dr_index_parse(const char *json, size_t bytes, struct dr_index **out);
void dr_index_destroy(struct dr_index *ix);

int32_t dr_index_files(const struct dr_index *ix);
const char *dr_index_file(const struct dr_index *ix, int32_t i); /* borrowed; in ascending order of names */

/* `tensor` was found in `file`. Fails: EMODEL when the index says otherwise, or says so once only and it is
 * the second time. */
DR_FALLIBLE dr_index_claim(struct dr_index *ix, const char *tensor, const char *file);

/* After all claims. Fails: EMODEL naming a tensor that the index lists and no file holds. */
DR_FALLIBLE dr_index_finish(const struct dr_index *ix);

#ifdef __cplusplus
}
#endif
