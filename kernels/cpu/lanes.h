/* lanes.h - the one inner loop of all products.
 * In:   a panel [n][16] of f32 (outputs in lanes) and rows of numbers.      Out: 16 sums a row.
 * Owns: nothing.
 * Why:  linear maps, experts, scores and attention values all add in this order: one fmaf after the other in
 * the order of k, from zero. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* sum[r][o] = fold over k = 0 .. n-1 of s = fmaf(panel[k * panel_step + o], x[r][k * x_step], s), from 0; o
 * < 16. A row's sums do not depend on n_row. */
void dr_lanes_sum(const float *panel, size_t panel_step, int32_t n, const float *const *x, size_t x_step,
                  int32_t n_row, float *sum);
