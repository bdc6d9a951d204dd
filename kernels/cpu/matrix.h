/* matrix.h - a packed matrix times rows.
 * In:   a dr_weight and f32 rows.      Out: f32 rows.
 * Owns: nothing.
 * Why:  linear, linear_heads and moe share one walk over groups of outputs and scale blocks. */
#pragma once

#include "kernels/team.h"
#include "kernels/weight.h"

enum { DR_MATRIX_ROWS = 64 }; /* rows of a tile: their sums of one group are 4 KiB */

/* total[r][o] of outputs [16 group, 16 group + 16) for n_row <= 64 rows: a block is decoded once for all of
 * them. Lanes beyond n_out are 0 or NaN garbage. */
void dr_matrix_group(const struct dr_weight *w, int32_t group, const float *const *x, int32_t n_row,
                     float *total);

/* y[t,h,:] (+)= w[h] x[t,h,:] by the whole team. */
struct dr_matrix_job {
    float *y;
    const float *x;
    const struct dr_weight *w; /* [n_head] of one shape */
    int32_t n_tok, n_head;
    size_t y_stride, y_head_stride, x_stride, x_head_stride;
    bool add;
};
void dr_matrix_run(const struct dr_matrix_job *job, struct dr_team *team);

/* Pieces of about 16 K multiply-adds (1-2 us), so that claiming one (0.05 us) does not show. */
int64_t dr_matrix_grain(int32_t n_in, int32_t n_row);
