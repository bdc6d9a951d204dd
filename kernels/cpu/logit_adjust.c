/* logit_adjust.c - what a request wishes of its logits.
 * In:   raw logits and wishes.      Out: adjusted logits.
 * Owns: nothing.
 * Why:  see ops.h; the order is part of the contract, since sums and products do not commute in f32. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

static void penalize(const struct dr_sample_row *w, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t output = w->count_output ? w->count_output[i] : 0;
        uint32_t all = output + (w->count_prompt ? w->count_prompt[i] : 0);
        if (all > 0 && w->repetition != 1) y[i] = y[i] > 0 ? y[i] / w->repetition : y[i] * w->repetition;
        if (output > 0) {
            y[i] -= w->frequency * (float)output;
            y[i] -= w->presence;
        }
    }
}

static void adjust_row(const struct dr_logit_adjust *a, size_t r) {
    const struct dr_sample_row *w = a->rows + r;
    size_t n = (size_t)a->n;
    float *y = a->adjusted + r * n;
    memcpy(y, a->logits + r * n, n * sizeof *y);
    if (w->mask)
        for (size_t i = 0; i < n; i++)
            if (!(w->mask[i / 32] >> i % 32 & 1)) y[i] = -INFINITY;
    if (w->n_masked_from > 0)
        for (size_t i = (size_t)dr_max_i32(0, w->n_masked_from - a->first); i < n; i++) y[i] = -INFINITY;
    for (int32_t b = 0; b < w->n_bias; b++) {
        int64_t i = (int64_t)w->bias_id[b] - a->first;
        if (i >= 0 && i < a->n) y[i] += w->bias[b];
    }
    if (w->count_prompt || w->count_output) penalize(w, y, n);
    if (w->temperature > 0 && w->temperature != 1)
        for (size_t i = 0; i < n; i++) y[i] /= w->temperature;
}

static void rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    for (int64_t r = begin; r < end; r++) adjust_row(arg, (size_t)r);
}

dr_status dr_cpu_logit_adjust(const struct dr_logit_adjust *a, struct dr_stream *s) {
    struct dr_logit_adjust args = *a;
    dr_team_for(s->team, a->n_row, 1, rows, &args);
    return dr_ok();
}
