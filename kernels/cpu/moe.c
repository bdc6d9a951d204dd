/* moe.c - the experts of a layer.
 * In:   rows, their experts and weights, packed experts.      Out: the weighted sum, shared expert last.
 * Owns: nothing; the caller's scratch holds the lists and the hidden rows.
 * Why:  tokens are grouped by expert so that each expert's weights are read once a call.
 *
 * A pair is one token at one owned expert. Pairs lie in scratch ordered by expert, then token; the shared
 * expert is one more expert that every token has. Experts pass in ascending batches of at most 2 n_tok pairs,
 * so that hidden rows do not grow with n_active. Phase 1 of a batch makes its hidden rows, split by (expert,
 * group of hidden). Phase 2 makes the outputs, split by group of outputs; each piece walks the experts in
 * ascending order and adds to its own columns of y, so a token's additions come in the order of its experts
 * whatever the grouping. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/matrix.h"
#include "kernels/exp.h"

struct lists {
    int32_t *first; /* [n_owned + 2] pairs of local expert e: [first[e], first[e + 1]); the shared expert is e
                       = n_owned */
    int32_t *active; /* [n_owned + 1] local experts with pairs, ascending */
    int32_t *token;  /* [n_pair] */
    float *weight;   /* [n_pair]; not read for the shared expert */
    float *hidden;   /* [pairs of a batch, width] */
    size_t bytes;
};

static size_t pairs_max(int32_t n_tok, int32_t n_active, int32_t n_owned) {
    return (size_t)n_tok * ((size_t)dr_min_i32(n_active, n_owned) + 1);
}

/* Pairs of a batch; an expert alone has at most n_tok. */
static size_t batch_max(int32_t n_tok, int32_t n_active, int32_t n_owned) {
    size_t all = pairs_max(n_tok, n_active, n_owned), two = 2 * (size_t)n_tok;
    return all < two ? all : two;
}

/* Carves scratch; with base NULL only `bytes` means something. */
static struct lists carve(uint8_t *base, int32_t n_tok, int32_t n_active, int32_t n_owned_experts,
                          int32_t hidden_width) {
    size_t n_pair = pairs_max(n_tok, n_active, n_owned_experts),
           n_row = batch_max(n_tok, n_active, n_owned_experts);
    size_t n_owned = (size_t)n_owned_experts, width = (size_t)hidden_width, first = 0;
    size_t active = first + dr_size_align((n_owned + 2) * sizeof(int32_t), 64);
    size_t token = active + dr_size_align((n_owned + 1) * sizeof(int32_t), 64);
    size_t weight = token + dr_size_align(n_pair * sizeof(int32_t), 64);
    size_t hidden = weight + dr_size_align(n_pair * sizeof(float), 64);
    struct lists l = {.bytes = hidden + dr_size_align(n_row * width * sizeof(float), 64)};
    if (base) {
        l.first = (int32_t *)(void *)(base + first);
        l.active = (int32_t *)(void *)(base + active);
        l.token = (int32_t *)(void *)(base + token);
        l.weight = (float *)(void *)(base + weight);
        l.hidden = (float *)(void *)(base + hidden);
    }
    return l;
}

size_t dr_moe_scratch_bytes(int32_t n_tok, int32_t dim, int32_t expert_dim, int32_t n_active,
                            int32_t n_owned) {
    (void)dim; /* outputs are added where they belong */
    return carve(NULL, n_tok, n_active, n_owned, expert_dim).bytes;
}

struct run {
    const struct dr_moe *a;
    struct lists l;
    int32_t n_active;       /* experts with pairs, shared included */
    int32_t begin, end;     /* the batch: active[begin .. end) */
    int32_t first_pair;     /* of the batch: its hidden row is row 0 */
    int32_t n_pair;         /* of the batch */
    int32_t width, n_group; /* widest hidden row, and its groups */
};

static const struct dr_expert *expert_of(const struct dr_moe *a, int32_t e) {
    return e < a->n_owned ? a->owned + e : a->shared;
}

/* Counting sort by expert; tokens stay in order. Experts of other ranks are left out. */
static void group_pairs(struct run *run) {
    const struct dr_moe *a = run->a;
    int32_t *first = run->l.first;
    size_t n_chosen = (size_t)a->n_tok * (size_t)a->n_active;
    memset(first, 0, ((size_t)a->n_owned + 2) * sizeof *first);
    for (size_t i = 0; i < n_chosen; i++) {
        int32_t e = a->expert[i] - a->first;
        if (e >= 0 && e < a->n_owned) first[e + 1]++;
    }
    first[a->n_owned + 1] = a->shared ? a->n_tok : 0;
    for (int32_t e = 0; e <= a->n_owned; e++) first[e + 1] += first[e];
    /* filling moves first[e] to the end of e's pairs ... */
    for (size_t i = 0; i < n_chosen; i++) {
        int32_t e = a->expert[i] - a->first;
        if (e < 0 || e >= a->n_owned) continue;
        run->l.token[first[e]] = (int32_t)(i / (size_t)a->n_active);
        run->l.weight[first[e]++] = a->weight[i];
    }
    for (int32_t t = 0; a->shared && t < a->n_tok; t++) run->l.token[first[a->n_owned]++] = t;
    /* ... which is the start of e + 1 */
    for (int32_t e = a->n_owned; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
    run->n_active = 0;
    for (int32_t e = 0; e <= a->n_owned; e++)
        if (first[e + 1] > first[e]) run->l.active[run->n_active++] = e;
}

/* The experts after the last batch whose pairs fit the hidden rows. */
static void next_batch(struct run *run) {
    const struct dr_moe *a = run->a;
    int32_t most = (int32_t)batch_max(a->n_tok, a->n_active, a->n_owned);
    run->begin = run->end;
    run->n_pair = 0;
    for (; run->end < run->n_active; run->end++) {
        const int32_t *first = run->l.first + run->l.active[run->end];
        int32_t n = first[1] - first[0];
        DR_ASSERT(n <= most); /* a token names an expert once */
        if (run->n_pair + n > most) break;
        if (run->end == run->begin) run->first_pair = first[0];
        run->n_pair += n;
    }
}

static void hidden_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_moe *a = run->a;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t e = run->l.active[run->begin + i / run->n_group], group = (int32_t)(i % run->n_group);
        const struct dr_expert *x = expert_of(a, e);
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
                memcpy(run->l.hidden + (size_t)(p - run->first_pair + r) * (size_t)run->width +
                           (size_t)group * DR_LANES,
                       gate + (size_t)r * DR_LANES, (size_t)n_lane * sizeof *gate);
        }
    }
}

/* Adds expert e to the columns of one group. */
static void add_expert(const struct run *run, int32_t e, int32_t group, int32_t n_lane) {
    const struct dr_moe *a = run->a;
    const struct dr_expert *x = expert_of(a, e);
    for (int32_t p = run->l.first[e], end_p = run->l.first[e + 1]; p < end_p; p += DR_MATRIX_ROWS) {
        int32_t n_row = dr_min_i32(DR_MATRIX_ROWS, end_p - p);
        const float *row[DR_MATRIX_ROWS];
        float total[DR_MATRIX_ROWS * DR_LANES];
        for (int32_t r = 0; r < n_row; r++)
            row[r] = run->l.hidden + (size_t)(p - run->first_pair + r) * (size_t)run->width;
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
        for (size_t t = 0; run->begin == 0 && t < (size_t)a->n_tok; t++)
            memset(a->y + t * (size_t)a->dim + (size_t)group * DR_LANES, 0, (size_t)n_lane * sizeof *a->y);
        for (int32_t i = run->begin; i < run->end; i++)
            add_expert(run, run->l.active[i], (int32_t)group, n_lane);
    }
}

dr_status dr_cpu_moe(const struct dr_moe *a, struct dr_stream *s) {
    if (a->n_tok == 0 || a->dim == 0) return dr_ok();
    struct run run = {.a = a};
    for (int32_t e = 0; e <= a->n_owned; e++) {
        const struct dr_expert *x = expert_of(a, e);
        if (!x) continue;
        DR_ASSERT(x->gate.n_in == a->dim && x->up.n_in == a->dim && x->down.n_out == a->dim);
        DR_ASSERT(x->gate.n_out == x->up.n_out && x->down.n_in == x->gate.n_out);
        run.width = dr_max_i32(run.width, x->gate.n_out);
    }
    run.l = carve(a->scratch, a->n_tok, a->n_active, a->n_owned, run.width);
    run.n_group = dr_weight_out_padded(run.width) / DR_LANES;
    group_pairs(&run);
    do { /* once at least: y is set to zero even where no expert is owned */
        next_batch(&run);
        int32_t n_expert = run.end - run.begin, n_row = dr_ceil_div(run.n_pair, dr_max_i32(1, n_expert));
        dr_team_for(s->team, (int64_t)n_expert * run.n_group, dr_matrix_grain(2 * a->dim, n_row),
                    hidden_items, &run);
        dr_team_for(s->team, dr_weight_out_padded(a->dim) / DR_LANES, 1, output_items, &run);
    } while (run.end < run.n_active);
    return dr_ok();
}
