/* rope.c - rotary positions: angles, and the rotation of interleaved pairs.
 * In:   positions; rows of queries or keys.      Out: cosines and sines; rotated rows.
 * Owns: nothing.
 * Why:  see ops.h; the angle is computed in f64, because position times frequency in f32 loses the low bits
 * at long context. */
#include "kernels/cpu/cpu.h"

#include <math.h>

static void angles(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_rope_angles *a = arg;
    size_t n = (size_t)a->n_pair;
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++)
        for (size_t i = 0; i < n; i++) {
            double angle = (double)a->pos[t] * a->freq[i];
            a->cos[t * n + i] = (float)(cos(angle) * a->gain);
            a->sin[t * n + i] = (float)(sin(angle) * a->gain);
        }
}

dr_status dr_cpu_rope_angles(const struct dr_rope_angles *a, struct dr_stream *s) {
    struct dr_rope_angles args = *a;
    dr_team_for(s->team, a->n_tok, 16, angles, &args);
    return dr_ok();
}

static void rotate(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_rope *a = arg;
    size_t n = (size_t)a->n_pair;
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        const float *c = a->cos + t * n, *s = a->sin + t * n;
        for (size_t h = 0; h < (size_t)a->n_head; h++) {
            float *x = a->x + t * a->x_stride + h * a->x_head_stride;
            for (size_t i = 0; i < n; i++) {
                float even = x[2 * i], odd = x[2 * i + 1];
                x[2 * i] = fmaf(even, c[i], -(odd * s[i]));
                x[2 * i + 1] = fmaf(odd, c[i], even * s[i]);
            }
        }
    }
}

dr_status dr_cpu_rope(const struct dr_rope *a, struct dr_stream *s) {
    struct dr_rope args = *a;
    dr_team_for(s->team, a->n_tok, 16, rotate, &args);
    return dr_ok();
}
