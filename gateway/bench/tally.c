/* tally.c - see tally.h.
 * In:   runs.      Out: sums.
 * Owns: see tally.h.
 * Why:  see tally.h. */
#include "gateway/bench/tally.h"

#include <stdlib.h>
#include <string.h>

dr_status dr_bench_tally_init(struct dr_bench_tally *t, int32_t n_rank, int32_t reps) {
    *t = (struct dr_bench_tally){.n_rank = n_rank, .room = reps};
    t->rate = calloc((size_t)reps, sizeof *t->rate);
    t->steps = calloc((size_t)reps, sizeof *t->steps);
    t->ns = calloc((size_t)reps, sizeof *t->ns);
    t->sums = calloc((size_t)reps * (size_t)n_rank, sizeof *t->sums);
    if (t->rate && t->steps && t->ns && t->sums) return dr_ok();
    dr_bench_tally_fini(t);
    return dr_fail(DR_EFULL, "no memory for %d repetitions on %d ranks", reps, n_rank);
}

void dr_bench_tally_fini(struct dr_bench_tally *t) {
    free(t->rate);
    free(t->steps);
    free(t->ns);
    free(t->sums);
    *t = (struct dr_bench_tally){.n = 0};
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The middle one, or the mean of the two in the middle. */
static void summarise(struct dr_bench_tally *t) {
    double *sorted = malloc((size_t)t->n * sizeof *sorted);
    DR_ASSERT(sorted != NULL); /* a few numbers */
    memcpy(sorted, t->rate, (size_t)t->n * sizeof *sorted);
    qsort(sorted, (size_t)t->n, sizeof *sorted, ascending);
    t->median = (sorted[(t->n - 1) / 2] + sorted[t->n / 2]) / 2;
    t->least = sorted[0];
    t->most = sorted[t->n - 1];
    for (t->middle = 0; t->rate[t->middle] != sorted[(t->n - 1) / 2];) t->middle++;
    free(sorted);
}

static void add_report(struct dr_bench_rank_sum *s, const struct dr_bench_rank_step *r) {
    s->step_ns += r->end_ns - r->begin_ns;
    s->wait_ns += r->wait_ns;
    for (int i = 0; i < DR_PART_COUNT; i++) s->part_ns[i] += r->part_ns[i];
    for (int i = 0; i < DR_BYTES_KIND_COUNT; i++) {
        s->wait_kind_ns[i] += r->wait_kind_ns[i];
        s->bytes[i] += r->bytes[i];
    }
}

void dr_bench_tally_add(struct dr_bench_tally *t, const struct dr_bench_run *run) {
    DR_ASSERT(t->n < t->room && run->n_rank == t->n_rank);
    const uint64_t ns = run->end_ns - run->begin_ns;
    struct dr_bench_rank_sum *sums = t->sums + (size_t)t->n * (size_t)t->n_rank;
    t->steps[t->n] = run->n_timed;
    t->ns[t->n] = ns;
    t->rate[t->n++] = (double)run->tokens / ((double)(ns ? ns : 1) / 1e9);
    t->digest = run->digest;
    for (int32_t i = 0; i < run->n_step; i++)
        for (int32_t k = 0; run->step[i].timed && k < t->n_rank; k++)
            add_report(&sums[k], &run->report[(size_t)i * (size_t)t->n_rank + (size_t)k]);
    summarise(t);
}

static double a_step(const struct dr_bench_tally *t, uint64_t sum_ns) {
    return t->n > 0 && t->steps[t->middle] > 0 ? (double)sum_ns / 1e6 / t->steps[t->middle] : 0;
}

double dr_bench_tally_part_ms(const struct dr_bench_tally *t, enum dr_step_part part) {
    uint64_t sum = 0;
    for (int32_t k = 0; k < t->n_rank; k++) sum += dr_bench_tally_rank(t, k)->part_ns[part];
    return a_step(t, sum) / t->n_rank;
}

double dr_bench_tally_step_ms(const struct dr_bench_tally *t) {
    return t->n > 0 ? a_step(t, t->ns[t->middle]) : 0;
}

double dr_bench_tally_between_ms(const struct dr_bench_tally *t) {
    double all = 0;
    for (int p = 0; p < DR_PART_COUNT; p++) all += dr_bench_tally_part_ms(t, (enum dr_step_part)p);
    return dr_bench_tally_step_ms(t) - all;
}
