/* bound.c - see bound.h.
 * In:   shapes and peaks.      Out: bounds.
 * Owns: lists of one rank at a time.
 * Why:  see bound.h. */
#include "gateway/bench/bound.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

struct dr_bench_peaks dr_bench_peaks_of(const struct dr_probe *p, const char *inputs, int32_t stage_hosts) {
    const bool bf16 = !strcmp(inputs, "bf16") && p->bf16_flop_s > 0, int8 = !strcmp(inputs, "int8");
    return (struct dr_bench_peaks){
        .read_bytes_s = p->read_bytes_s * stage_hosts,
        .linear_op_s = (int8   ? p->int8_op_s
                        : bf16 ? p->bf16_flop_s
                               : p->f32_flop_s) *
                       stage_hosts,
        .attention_op_s = p->f32_flop_s * stage_hosts,
    };
}

/* Where a case's rows stand: prompts are cut into chunks, one sequence after the other. With one stage a step
 * is filled with several prompts; with more, chunks follow each other from stage to stage. */
struct walk {
    const struct dr_bench_case *c;
    const struct dr_layout *l;
    int32_t sequence, at; /* next prompt row of this sequence */
};

/* Steps over which the sequences that generate are spread. */
static int32_t cohorts(const struct dr_bench_case *c, const struct dr_layout *l) {
    return dr_min_i32(l->pp, c->batch);
}

static int32_t steps_of(const struct dr_bench_case *c, const struct dr_layout *l) {
    if (c->gen) return 1; /* generated steps differ little */
    return l->pp == 1 ? dr_ceil_div(c->prompt * c->batch, l->step_tokens)
                      : c->batch * dr_ceil_div(c->prompt, dr_layout_chunk(l));
}

static struct dr_cost_shape generation(const struct dr_bench_case *c, const struct dr_layout *l) {
    const double rows = (double)c->batch / cohorts(c, l);
    return (struct dr_cost_shape){
        .absorbed = rows,
        .out = rows,
        .visible = dr_bench_case_prompt(c) + (c->gen + 1) / 2.0, /* from prompt + 1 to prompt + gen */
    };
}

static struct dr_cost_shape next_step(struct walk *w) {
    const struct dr_bench_case *c = w->c;
    struct dr_cost_shape s = {.expanded = 0};
    if (c->gen) return generation(c, w->l);
    for (int32_t room = w->l->pp == 1 ? w->l->step_tokens : dr_layout_chunk(w->l);
         room > 0 && w->sequence < c->batch;) {
        const int32_t n = dr_min_i32(room, c->prompt - w->at);
        const double first = c->depth + w->at, end = first + n;
        s.expanded += n;
        s.past += end;
        s.keys += n * (first + end + 1) / 2;
        s.out += w->at + n == c->prompt;
        room -= n;
        w->at += n;
        if (w->at < c->prompt) break;
        w->at = 0;
        w->sequence++;
        if (w->l->pp > 1) break;
    }
    return s;
}

/* Adds to bytes[] what one rank reads in every step of every case. */
static dr_status add_rank(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                          int32_t rank, const struct dr_bench_case *cases, int32_t n_case, double *bytes) {
    const int32_t n = dr_footprint_list(c, t, l, rank, NULL, 0);
    struct dr_holding *list = calloc((size_t)n + 1, sizeof *list);
    if (!list) return dr_fail(DR_EFULL, "no memory for a list of %d weights", n);
    (void)dr_footprint_list(c, t, l, rank, list, n);
    for (int32_t i = 0; i < n_case; i++) {
        struct walk w = {.c = &cases[i], .l = l};
        for (int32_t k = steps_of(&cases[i], l); k > 0; k--) {
            const struct dr_cost_shape s = next_step(&w);
            *bytes++ += dr_cost_weight_bytes(c, list, n, &s);
        }
    }
    free(list);
    return dr_ok();
}

/* Times of a step over the stages. */
struct step_time {
    double sum, most, memory; /* of all stages; of the slowest; of the sum, while memory is the slower */
};

static void add_step(struct dr_bench_bound *b, const struct dr_cost *cost, double weight_bytes,
                     const struct dr_bench_peaks *peaks, struct step_time *t) {
    const double memory = (weight_bytes + cost->cache_bytes) / peaks->read_bytes_s;
    const double work = cost->linear_flop / peaks->linear_op_s + cost->attention_flop / peaks->attention_op_s;
    const double seconds = memory > work ? memory : work;
    b->weight_bytes += weight_bytes;
    b->cache_bytes += cost->cache_bytes;
    b->linear_flop += cost->linear_flop;
    b->attention_flop += cost->attention_flop;
    t->sum += seconds;
    if (seconds > t->most) t->most = seconds;
    if (memory > work) t->memory += memory;
}

static void add_stage(const struct dr_config *c, const struct dr_layout *l, int32_t stage,
                      const struct dr_bench_case *cases, int32_t n_case, const struct dr_bench_peaks *peaks,
                      const double *bytes, struct dr_bench_bound *out, struct step_time *time) {
    for (int32_t i = 0; i < n_case; i++) {
        struct walk w = {.c = &cases[i], .l = l};
        for (int32_t k = steps_of(&cases[i], l); k > 0; k--) {
            const struct dr_cost_shape s = next_step(&w);
            const struct dr_cost cost = dr_cost_stage(c, l, stage, &s);
            add_step(&out[i], &cost, *bytes++, peaks, time++);
        }
    }
}

/* Averages over the n steps of a case. Cohorts go around in the time of a pass through all stages, or of the
 * slowest stage working on each of them. Chunks come out of the slowest stage one after the other, the last
 * one then passes the rest. */
static void finish(const struct dr_bench_case *c, const struct dr_layout *l, const struct step_time *t,
                   int32_t n, struct dr_bench_bound *out) {
    double seconds = 0, sum = 0, memory = 0;
    for (int32_t k = 0; k < n; k++) {
        seconds += t[k].most;
        sum += t[k].sum;
        memory += t[k].memory;
    }
    if (c->gen) {
        const int32_t around = cohorts(c, l);
        seconds = (sum > around * seconds ? sum : around * seconds) / around;
    } else {
        seconds += t[n - 1].sum - t[n - 1].most;
    }
    out->weight_bytes /= n;
    out->cache_bytes /= n;
    out->linear_flop /= n;
    out->attention_flop /= n;
    out->seconds = seconds / n;
    out->memory_seconds = out->seconds * memory / sum;
    out->tokens = c->gen ? (double)c->batch / cohorts(c, l) : c->prompt * (double)c->batch / n;
}

dr_status dr_bench_bound_make(const struct dr_config *c, const struct dr_tensors *t,
                              const struct dr_layout *l, const struct dr_bench_case *cases, int32_t n_case,
                              const struct dr_bench_peaks *peaks, struct dr_bench_bound *out) {
    size_t n = 0;
    for (int32_t i = 0; i < n_case; i++) n += (size_t)steps_of(&cases[i], l);
    double *bytes = calloc(n, sizeof *bytes);
    struct step_time *time = calloc(n, sizeof *time);
    dr_status st = bytes && time ? dr_ok() : dr_fail(DR_EFULL, "no memory for the bounds of %zu steps", n);
    memset(out, 0, (size_t)n_case * sizeof *out);
    for (int32_t stage = 0; st.code == DR_OK && stage < l->pp; stage++) {
        memset(bytes, 0, n * sizeof *bytes);
        for (int32_t k = 0; st.code == DR_OK && k < l->tp; k++)
            st = add_rank(c, t, l, stage * l->tp + k, cases, n_case, bytes);
        if (st.code == DR_OK) add_stage(c, l, stage, cases, n_case, peaks, bytes, out, time);
    }
    for (int32_t i = 0, at = 0; st.code == DR_OK && i < n_case; at += steps_of(&cases[i], l), i++)
        finish(&cases[i], l, time + at, steps_of(&cases[i], l), &out[i]);
    free(bytes);
    free(time);
    return st;
}
