/* lanes.c - see lanes.h.
 * In:   panel and rows.      Out: sums.
 * Owns: nothing.
 * Why:  4 rows x 16 outputs are 8 vector sums of 8 lanes: as many as two multiply-add units need to hide
 * their latency of 4, and with 4 broadcasts and 2 panel vectors they fit 16 registers. The names s0..s3 (not
 * an array) keep them there in gcc 12. */
#include "kernels/cpu/lanes.h"

#include <math.h>

#include "kernels/weight.h"

#define DR_INLINE static inline __attribute__((always_inline))

DR_INLINE void four(const float *restrict w, size_t w_step, size_t n, const float *const *x, size_t step,
                    float *restrict sum) {
    const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    float s0[DR_LANES] = {0}, s1[DR_LANES] = {0}, s2[DR_LANES] = {0}, s3[DR_LANES] = {0};
    for (size_t k = 0; k < n; k++, w += w_step)
        for (size_t o = 0; o < DR_LANES; o++) {
            s0[o] = fmaf(w[o], x0[k * step], s0[o]);
            s1[o] = fmaf(w[o], x1[k * step], s1[o]);
            s2[o] = fmaf(w[o], x2[k * step], s2[o]);
            s3[o] = fmaf(w[o], x3[k * step], s3[o]);
        }
    for (size_t o = 0; o < DR_LANES; o++) {
        sum[o] = s0[o];
        sum[DR_LANES + o] = s1[o];
        sum[2 * DR_LANES + o] = s2[o];
        sum[3 * DR_LANES + o] = s3[o];
    }
}

DR_INLINE void two(const float *restrict w, size_t w_step, size_t n, const float *const *x, size_t step,
                   float *restrict sum) {
    const float *x0 = x[0], *x1 = x[1];
    float s0[DR_LANES] = {0}, s1[DR_LANES] = {0};
    for (size_t k = 0; k < n; k++, w += w_step)
        for (size_t o = 0; o < DR_LANES; o++) {
            s0[o] = fmaf(w[o], x0[k * step], s0[o]);
            s1[o] = fmaf(w[o], x1[k * step], s1[o]);
        }
    for (size_t o = 0; o < DR_LANES; o++) {
        sum[o] = s0[o];
        sum[DR_LANES + o] = s1[o];
    }
}

DR_INLINE void one(const float *restrict w, size_t w_step, size_t n, const float *x0, size_t step,
                   float *restrict sum) {
    float s0[DR_LANES] = {0};
    for (size_t k = 0; k < n; k++, w += w_step)
        for (size_t o = 0; o < DR_LANES; o++) s0[o] = fmaf(w[o], x0[k * step], s0[o]);
    for (size_t o = 0; o < DR_LANES; o++) sum[o] = s0[o];
}

DR_INLINE void rows(const float *panel, size_t panel_step, size_t n, const float *const *x, size_t step,
                    int32_t n_row, float *sum) {
    for (; n_row >= 4; n_row -= 4, x += 4, sum += 4 * DR_LANES) four(panel, panel_step, n, x, step, sum);
    if (n_row >= 2) {
        two(panel, panel_step, n, x, step, sum);
        n_row -= 2;
        x += 2;
        sum += 2 * DR_LANES;
    }
    if (n_row) one(panel, panel_step, n, x[0], step, sum);
}

void dr_lanes_sum(const float *panel, size_t panel_step, int32_t n, const float *const *x, size_t x_step,
                  int32_t n_row, float *sum) {
    size_t len = (size_t)n;
    if (x_step == 1 && panel_step == DR_LANES)
        rows(panel, DR_LANES, len, x, 1, n_row, sum);
    else if (x_step == DR_LANES)
        rows(panel, panel_step, len, x, DR_LANES, n_row, sum);
    else
        rows(panel, panel_step, len, x, x_step, n_row, sum);
}
