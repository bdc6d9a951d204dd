/* rmsnorm.c - root-mean-square normalisation.
 * In:   rows.      Out: rows of mean square 1, times a gain.
 * Owns: nothing.
 * Why:  see ops.h. */
#include "kernels/cpu/cpu.h"

#include <math.h>

enum { LANES = 8 };

/* Lane l adds the squares of x[l], x[l + 8], ... in f64; the lanes meet in a fixed tree: 0+4, 1+5, 2+6, 3+7,
 * then 0+2, 1+3, then 0+1. */
static double square_sum(const float *x, size_t dim) {
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= dim; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += (double)x[i + l] * (double)x[i + l];
    for (size_t l = 0; i < dim; i++, l++) lane[l] += (double)x[i] * (double)x[i];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

static void rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_rmsnorm *a = arg;
    size_t dim = (size_t)a->dim;
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        const float *x = a->x + t * a->x_stride;
        float *y = a->y + t * a->y_stride;
        float r = (float)(1.0 / sqrt(square_sum(x, dim) / (double)dim + (double)a->eps));
        for (size_t i = 0; i < dim; i++) y[i] = a->gain[i] * (x[i] * r);
    }
}

dr_status dr_cpu_rmsnorm(const struct dr_rmsnorm *a, struct dr_stream *s) {
    struct dr_rmsnorm args = *a;
    if (a->dim == 0) return dr_ok();
    dr_team_for(s->team, a->n_tok, 16, rows, &args);
    return dr_ok();
}
