/* moe.c - the experts of a layer, as fast as the processor allows.
 * In:   rows, their experts and weights, packed experts.      Out: the weighted sum, shared expert last.
 * Owns: nothing; the caller's scratch holds lists, prepared rows and hidden rows.
 * Why:  the order of additions is that of kernels/cpu/moe.c. Up, gate and SiLU are one pass over a strip of
 * 64 hidden numbers; hidden rows are prepared once for the down matrices. */
#include <math.h>
#include <string.h>

#include "kernels/exp.h"
#include "kernels/experts.h"
#include "kernels/x86/x86.h"

struct run {
    const struct dr_moe *a;
    const struct dr_matrix_set *set;
    struct dr_expert_lists l;
    struct dr_expert_batch b;
    int32_t width, n_strip; /* widest hidden row, and its strips */
    int32_t n_thread;
    uint8_t *x, *hidden;          /* prepared rows: of tokens; of the batch's pairs */
    size_t x_bytes, hidden_bytes; /* of one prepared row */
};

static const struct dr_family *family(const struct run *run, const struct dr_weight *w) {
    return &run->set->by_type[w->type];
}

/* Gate and up matrices of all experts have the tokens' rows in one prepared form, unless a checkpoint mixes
 * types. */
static bool one_type(const struct dr_moe *a) {
    const struct dr_expert *some = a->n_owned > 0 ? a->owned : a->shared;
    for (int32_t e = 0; e <= a->n_owned; e++) {
        const struct dr_expert *x = dr_experts_get(a, e);
        if (x && (x->gate.type != some->gate.type || x->up.type != some->gate.type ||
                  x->gate.phase != some->gate.phase || x->up.phase != some->gate.phase))
            return false;
    }
    return some != NULL;
}

static void token_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_weight *w = run->a->n_owned > 0 ? &run->a->owned->gate : &run->a->shared->gate;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        family(run, w)->prepare(w, run->a->x + (size_t)t * (size_t)run->a->dim,
                                run->x + (size_t)t * run->x_bytes);
}

/* Rows [p, p + n) of expert x, one strip of its hidden numbers. */
static void hidden_strip(const struct run *run, const struct dr_expert *x, int32_t strip, int32_t p,
                         int32_t n) {
    const void *row[DR_TILE_ROWS] = {NULL};
    _Alignas(64) float gate[DR_TILE_ROWS * DR_STRIP], up[DR_TILE_ROWS * DR_STRIP];
    int32_t n_lane = dr_min_i32(DR_STRIP, x->gate.n_out - strip * DR_STRIP);
    for (int32_t r = 0; r < n; r++) row[r] = run->x + (size_t)run->l.token[p + r] * run->x_bytes;
    dr_strip_ask(&x->up, strip);
    family(run, &x->gate)->strip(&x->gate, strip, row, n, gate);
    dr_strip_ask(&x->gate, strip + run->n_thread); /* where this thread goes on, if all are equally fast */
    family(run, &x->up)->strip(&x->up, strip, row, n, up);
    for (int32_t r = 0; r < n; r++) {
        float *out =
            run->l.hidden + (size_t)(p - run->b.first_pair + r) * (size_t)run->width + strip * DR_STRIP;
        const float *g = gate + r * DR_STRIP, *u = up + r * DR_STRIP;
        for (int32_t o = 0; o < n_lane; o++) out[o] = dr_silu(g[o]) * u[o];
    }
}

/* Item = (expert of the batch, strip of hidden numbers). */
static void hidden_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t e = run->l.active[run->b.begin + i / run->n_strip], strip = (int32_t)(i % run->n_strip);
        const struct dr_expert *x = dr_experts_get(run->a, e);
        if (strip >= dr_weight_strips(&x->gate)) continue; /* narrower than the widest */
        for (int32_t p = run->l.first[e], end_p = run->l.first[e + 1]; p < end_p; p += DR_TILE_ROWS)
            hidden_strip(run, x, strip, p, dr_min_i32(DR_TILE_ROWS, end_p - p));
    }
}

/* Item = pair of the batch. */
static void pair_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    int32_t at = run->b.begin;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        while (run->l.first[run->l.active[at] + 1] - run->b.first_pair <= i) at++;
        const struct dr_weight *w = &dr_experts_get(run->a, run->l.active[at])->down;
        family(run, w)->prepare(w, run->l.hidden + (size_t)i * (size_t)run->width,
                                run->hidden + (size_t)i * run->hidden_bytes);
    }
}

/* Adds expert e to the outputs of one strip. */
static void add_expert(const struct run *run, int32_t e, int32_t strip, int32_t n_lane) {
    const struct dr_moe *a = run->a;
    const struct dr_weight *w = &dr_experts_get(a, e)->down;
    const void *row[DR_TILE_ROWS] = {NULL};
    _Alignas(64) float total[DR_TILE_ROWS * DR_STRIP];
    for (int32_t p = run->l.first[e], end_p = run->l.first[e + 1], n; p < end_p; p += n) {
        n = dr_min_i32(DR_TILE_ROWS, end_p - p);
        for (int32_t r = 0; r < n; r++)
            row[r] = run->hidden + (size_t)(p - run->b.first_pair + r) * run->hidden_bytes;
        family(run, w)->strip(w, strip, row, n, total);
        for (int32_t r = 0; r < n; r++) {
            float *y = a->y + (size_t)run->l.token[p + r] * (size_t)a->dim + (size_t)strip * DR_STRIP;
            const float *v = total + r * DR_STRIP;
            if (e == a->n_owned)
                for (int32_t o = 0; o < n_lane; o++) y[o] += v[o];
            else
                for (int32_t o = 0; o < n_lane; o++) y[o] = fmaf(run->l.weight[p + r], v[o], y[o]);
        }
    }
}

/* Item = strip of outputs; experts in ascending order. */
static void output_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_moe *a = run->a;
    (void)thread;
    for (int64_t strip = begin; strip < end; strip++) {
        int32_t n_lane = dr_min_i32(DR_STRIP, a->dim - (int32_t)strip * DR_STRIP);
        for (size_t t = 0; run->b.begin == 0 && t < (size_t)a->n_tok; t++)
            memset(a->y + t * (size_t)a->dim + (size_t)strip * DR_STRIP, 0, (size_t)n_lane * sizeof *a->y);
        for (int32_t i = run->b.begin; i < run->b.end; i++) {
            bool last = i + 1 == run->b.end;
            const struct dr_expert *next = dr_experts_get(a, run->l.active[last ? run->b.begin : i + 1]);
            dr_strip_ask(&next->down, (int32_t)strip + (last ? run->n_thread : 0));
            add_expert(run, run->l.active[i], (int32_t)strip, n_lane);
        }
    }
}

static void batch(struct run *run, struct dr_team *team) {
    enum { PIECE = 32768 }; /* multiply-adds: a few microseconds, so that claiming a piece does not show */
    int32_t n_expert = run->b.end - run->b.begin, n_row = dr_ceil_div(run->b.n_pair, dr_max_i32(1, n_expert));
    int64_t strip = 2 * (int64_t)DR_STRIP * (run->a->dim + 1) * (n_row + 3);
    int64_t pair = run->width + 1, out = (int64_t)DR_STRIP * pair * (run->b.n_pair + 3 * n_expert + 1);
    dr_team_for(team, (int64_t)n_expert * run->n_strip, strip >= PIECE ? 1 : PIECE / strip, hidden_items,
                run);
    dr_team_for(team, run->b.n_pair, pair >= PIECE ? 1 : PIECE / pair, pair_items, run);
    dr_team_for(team, dr_ceil_div(run->a->dim, DR_STRIP), out >= PIECE ? 1 : PIECE / out, output_items, run);
}

size_t dr_moe_scratch_bytes(int32_t n_tok, int32_t dim, int32_t expert_dim, int32_t n_active,
                            int32_t n_owned) {
    return dr_experts_carve(NULL, n_tok, n_active, n_owned, expert_dim).bytes +
           (size_t)n_tok * dr_prepared_bytes(dim) +
           (size_t)dr_experts_batch_max(n_tok, n_active, n_owned) * dr_prepared_bytes(expert_dim);
}

dr_status dr_x86_moe(const struct dr_moe *a, struct dr_stream *s, const struct dr_matrix_set *set) {
    if (a->n_tok == 0 || a->dim == 0) return dr_ok();
    if (!one_type(a)) return dr_cpu_moe(a, s);
    struct run run = {.a = a, .set = set};
    DR_TRY(dr_experts_check(a, &run.width));
    run.l = dr_experts_carve(a->scratch, a->n_tok, a->n_active, a->n_owned, run.width);
    run.n_strip = dr_ceil_div(run.width, DR_STRIP);
    run.n_thread = dr_team_size(s->team);
    run.x_bytes = dr_prepared_bytes(a->dim);
    run.hidden_bytes = dr_prepared_bytes(run.width);
    run.x = run.l.rest;
    run.hidden = run.x + (size_t)a->n_tok * run.x_bytes;
    int32_t n = dr_experts_group(a, &run.l);
    dr_team_for(s->team, a->n_tok, a->dim >= 4096 ? 4 : 16, token_items, &run);
    do { /* once at least: y is set to zero even where no expert is owned */
        dr_experts_next(a, &run.l, n, &run.b);
        batch(&run, s->team);
    } while (run.b.end < n);
    return dr_ok();
}
