/* moe.c - the experts of a layer.
 * In:   rows, their experts and weights, packed experts.      Out: the weighted sum, shared expert last.
 * Owns: nothing; the caller's scratch holds the lists and the hidden rows.
 * Why:  tokens are grouped by expert (experts.h). Phase 1 of a batch makes its hidden rows, split by (expert,
 * group of 16 hidden). Phase 2 makes the outputs, split by groups of outputs; each piece walks the experts in
 * ascending order and adds to its own columns of y, so a token's additions come in the order of its experts
 * whatever the grouping. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matrix.h"
#include "kernels/exp.h"
#include "kernels/experts.h"

struct run {
    const struct dr_moe *a;
    struct dr_expert_lists l;
    struct dr_expert_batch b;
    int32_t width, n_group; /* widest hidden row, and its groups of 16 */
};

static void hidden_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_moe *a = run->a;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t e = run->l.active[run->b.begin + i / run->n_group], group = (int32_t)(i % run->n_group);
        const struct dr_expert *x = dr_experts_get(a, e);
        int32_t n_lane = dr_min_i32(DR_LANES, x->gate.n_out - group * DR_LANES);
        if (n_lane <= 0) continue; /* narrower than the widest */
        for (int32_t p = run->l.first[e], end_p = run->l.first[e + 1]; p < end_p; p += DR_MATRIX_ROWS) {
            int32_t n_row = dr_min_i32(DR_MATRIX_ROWS, end_p - p);
            const float *row[DR_MATRIX_ROWS];
            float gate[DR_MATRIX_ROWS * DR_LANES], up[DR_MATRIX_ROWS * DR_LANES];
            for (int32_t r = 0; r < n_row; r++) row[r] = a->x + (size_t)run->l.token[p + r] * (size_t)a->dim;
            dr_matrix_group(&x->gate, group, row, n_row, gate);
            dr_matrix_group(&x->up, group, row, n_row, up);
            for (int32_t j = 0; j < n_row * DR_LANES; j++) gate[j] = dr_silu(gate[j]) * up[j];
            for (int32_t r = 0; r < n_row; r++)
                memcpy(run->l.hidden + (size_t)(p - run->b.first_pair + r) * (size_t)run->width +
                           (size_t)group * DR_LANES,
                       gate + (size_t)r * DR_LANES, (size_t)n_lane * sizeof *gate);
        }
    }
}

/* Adds expert e to the columns of one group. */
static void add_expert(const struct run *run, int32_t e, int32_t group, int32_t n_lane) {
    const struct dr_moe *a = run->a;
    const struct dr_expert *x = dr_experts_get(a, e);
    for (int32_t p = run->l.first[e], end_p = run->l.first[e + 1]; p < end_p; p += DR_MATRIX_ROWS) {
        int32_t n_row = dr_min_i32(DR_MATRIX_ROWS, end_p - p);
        const float *row[DR_MATRIX_ROWS];
        float total[DR_MATRIX_ROWS * DR_LANES];
        for (int32_t r = 0; r < n_row; r++)
            row[r] = run->l.hidden + (size_t)(p - run->b.first_pair + r) * (size_t)run->width;
        dr_matrix_group(&x->down, group, row, n_row, total);
        for (int32_t r = 0; r < n_row; r++) {
            float *y = a->y + (size_t)run->l.token[p + r] * (size_t)a->dim + (size_t)group * DR_LANES;
            const float *v = total + (size_t)r * DR_LANES;
            if (e == a->n_owned)
                for (int32_t o = 0; o < n_lane; o++) y[o] += v[o];
            else
                for (int32_t o = 0; o < n_lane; o++) y[o] = fmaf(run->l.weight[p + r], v[o], y[o]);
        }
    }
}

static void output_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_moe *a = run->a;
    (void)thread;
    for (int64_t group = begin; group < end; group++) {
        int32_t n_lane = dr_min_i32(DR_LANES, a->dim - (int32_t)group * DR_LANES);
        for (size_t t = 0; run->b.begin == 0 && t < (size_t)a->n_tok; t++)
            memset(a->y + t * (size_t)a->dim + (size_t)group * DR_LANES, 0, (size_t)n_lane * sizeof *a->y);
        for (int32_t i = run->b.begin; i < run->b.end; i++)
            add_expert(run, run->l.active[i], (int32_t)group, n_lane);
    }
}

dr_status dr_cpu_moe(const struct dr_moe *a, struct dr_stream *s) {
    if (a->n_tok == 0 || a->dim == 0) return dr_ok();
    struct run run = {.a = a};
    DR_TRY(dr_experts_check(a, &run.width));
    run.l = dr_experts_carve(a->scratch, a->n_tok, a->n_active, a->n_owned, run.width);
    run.n_group = dr_weight_out_padded(run.width) / DR_LANES;
    int32_t n = dr_experts_group(a, &run.l);
    do { /* once at least: y is set to zero even where no expert is owned */
        dr_experts_next(a, &run.l, n, &run.b);
        int32_t n_expert = run.b.end - run.b.begin,
                n_row = dr_ceil_div(run.b.n_pair, dr_max_i32(1, n_expert));
        dr_team_for(s->team, (int64_t)n_expert * run.n_group, dr_matrix_grain(2 * a->dim, n_row),
                    hidden_items, &run);
        dr_team_for(s->team, dr_weight_out_padded(a->dim) / DR_LANES, 1, output_items, &run);
    } while (run.b.end < n);
    return dr_ok();
}
