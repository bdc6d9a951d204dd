/* load.h - from the checkpoint's bytes to packed weights.
 * In:   holdings and the checkpoint's files.      Out: the rank's block, filled.
 * Owns: reader threads and one bounce buffer each, until it returns.
 * Why:  each rank reads its own ranges with pread, several at a time, and packs while others read. */
#pragma once

#include "model/footprint.h"
#include "worker/step.h"

struct dr_load_params {
    const struct dr_tensors *tensors;
    const struct dr_holding *list; /* [n] */
    int32_t n, n_reader;
    uint8_t *block;             /* zeroed; holdings lie at their offsets */
    dr_load_progress *progress; /* may be NULL */
    void *arg;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Blocks until all is read or something failed; all readers have ended then.
 * Fails: EIO when a read fails; EMODEL for a file that is too short, an F8 code that is NaN, a scale that is
 * no positive number - each naming tensor, file, row and column; EFULL when a thread or a buffer is not to be
 * had. */
DR_FALLIBLE dr_load(const struct dr_load_params *p);

/* Bytes of the checkpoint that dr_load will read for these holdings. */
uint64_t dr_load_bytes(const struct dr_tensors *t, const struct dr_holding *list, int32_t n);

#ifdef __cplusplus
}
#endif
