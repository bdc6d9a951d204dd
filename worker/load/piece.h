/* piece.h - one read of the loader: a run of rows of a holding, or a holding's scales.
 * In:   a holding and its first row.      Out: those rows, packed into the block.
 * Owns: nothing; the caller gives a bounce buffer.
 * Why:  everything that can be wrong with a checkpoint's bytes is found here and named with tensor, file, row
 * and column. */
#pragma once

#include "model/footprint.h"

struct dr_piece {
    const struct dr_tensor *tensor;
    const struct dr_holding *holding;
    int32_t row, n_rows; /* within the holding; row -1: its scales, n_rows 0 */
};

#ifdef __cplusplus
extern "C" {
#endif

/* -1 for a holding whose scales are read from the checkpoint, else 0. */
int32_t dr_piece_first_row(const struct dr_holding *h);

/* The piece that starts at `row`. */
struct dr_piece dr_piece_at(const struct dr_tensors *t, const struct dr_holding *h, int32_t row);

/* Largest buffer that a piece of the holding needs; bytes of the tensor's data that a piece covers (scales
 * count nothing). */
size_t dr_piece_buffer_bytes(const struct dr_tensors *t, const struct dr_holding *h);
uint64_t dr_piece_bytes(const struct dr_piece *p);

/* Reads and packs. Fails: EIO, EMODEL as dr_load says. Different pieces may be loaded by different threads.
 */
DR_FALLIBLE dr_piece_load(const struct dr_piece *p, uint8_t *buffer, size_t room, uint8_t *block);

#ifdef __cplusplus
}
#endif
