/* logit_adjust.c - what a request wishes of its logits.
 * In:   raw logits and wishes.      Out: adjusted logits.
 * Owns: nothing.
 * Why:  see ops.h; the order is part of the contract, since sums and products do not commute in f32. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* y, whose id column i is, after `more` outputs that count_output does not know. */
static float penalized(const struct dr_sample_row *w, float y, size_t i, uint32_t more) {
    uint32_t output = (w->count_output ? w->count_output[i] : 0) + more;
    if (output > UINT16_MAX) output = UINT16_MAX;
    const uint32_t all = output + (w->count_prompt ? w->count_prompt[i] : 0);
    if (all > 0 && w->repetition != 1) y = y > 0 ? y / w->repetition : y * w->repetition;
    if (output > 0) {
        y -= w->frequency * (float)output;
        y -= w->presence;
    }
    return y;
}

/* first: id of column 0. The columns of w->seen are done once more, from what they were. */
static void penalize(const struct dr_sample_row *w, float *y, size_t n, int32_t first) {
    size_t at[DR_SEEN_MAX];
    uint32_t times[DR_SEEN_MAX];
    float was[DR_SEEN_MAX];
    int32_t n_at = 0;
    for (int32_t k = 0; k < w->n_seen; k++) {
        const int64_t i = (int64_t)w->seen[k] - first;
        int32_t j = 0;
        if (i < 0 || i >= (int64_t)n) continue;
        while (j < n_at && at[j] != (size_t)i) j++;
        if (j == n_at) {
            at[n_at] = (size_t)i;
            was[n_at] = y[i];
            times[n_at++] = 0;
        }
        times[j]++;
    }
    for (size_t i = 0; i < n; i++) y[i] = penalized(w, y[i], i, 0);
    for (int32_t j = 0; j < n_at; j++) y[at[j]] = penalized(w, was[j], at[j], times[j]);
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
    if (w->count_prompt || w->count_output) penalize(w, y, n, a->first);
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
