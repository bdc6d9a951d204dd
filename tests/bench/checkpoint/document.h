/* document.h - the config.json that goes with a random checkpoint.
 * In:   a config.json and the type of the weights.      Out: the same document, its quantization_config set
 * or taken away; its numbers. Owns: the text until the caller frees it. Why:  everything else in the file is
 * passed on as it is, and checked to mean the same. */
#pragma once

#include "model/tensors.h"

/* *text: malloc'd, ends in a newline and a NUL. weights: F8_E4M3 or BF16.
 * Fails: ENOENT, EIO, EINVAL (no JSON), EMODEL (what model/config refuses), EFULL; texts name the file. */
DR_FALLIBLE dr_document_read(const char *path, enum dr_dtype weights, struct dr_config *out, char **text);
