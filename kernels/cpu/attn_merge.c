/* attn_merge.c - parts of attention over disjoint keys into one.
 * In:   normalised parts with their log-sum-exp.      Out: the normalised whole.
 * Owns: nothing.
 * Why:  see ops.h; the order of members is fixed, so every rank gets the same bits. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "kernels/exp.h"

/* A part with lse = -inf saw no key: its weight is 0 and its numbers are not read. */
static void merge_head(const struct dr_attn_merge *a, size_t row) {
    size_t dim = (size_t)a->dim;
    float *o = a->o + row * dim, most = -INFINITY, sum = 0;
    memset(o, 0, dim * sizeof *o);
    for (int32_t m = 0; m < a->c; m++) most = a->part_lse[m][row] > most ? a->part_lse[m][row] : most;
    for (int32_t m = 0; m < a->c; m++) {
        float lse = a->part_lse[m][row];
        if (lse == -INFINITY) continue;
        float w = dr_exp(lse - most);
        const float *part = a->part_o[m] + row * dim;
        for (size_t i = 0; i < dim; i++) o[i] = fmaf(w, part[i], o[i]);
        sum += w;
    }
    if (sum != 0)
        for (size_t i = 0; i < dim; i++) o[i] /= sum;
    if (a->lse) a->lse[row] = sum != 0 ? most + dr_ln(sum) : -INFINITY;
}

static void heads(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++) merge_head(arg, (size_t)i);
}

dr_status dr_cpu_attn_merge(const struct dr_attn_merge *a, struct dr_stream *s) {
    struct dr_attn_merge args = *a;
    dr_team_for(s->team, (int64_t)a->n_tok * a->n_head, 16, heads, &args);
    return dr_ok();
}
