/* rows.h - the rows of a step: which token, where, which cache row.
 * In:   a checked plan; the pass.      Out: IDS, POS, PAGE, ROW, TABLE, VISIBLE, COS and SIN of every row;
 * the place of each segment. Owns: nothing. Why:  after this the layers see rows only; segments matter again
 * where keys are gathered and where results are made. */
#pragma once

#include "worker/worker.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills the worker's row buffers, run[], n_row and n_absorbed for w->pass. Passes 1 and up read what the head
 * and the pass before found (n_true, newest). Fails: what the ops say. */
DR_FALLIBLE dr_rows_fill(struct dr_worker *w);

#ifdef __cplusplus
}
#endif
