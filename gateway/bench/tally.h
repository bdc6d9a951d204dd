/* tally.h - the repetitions of a case, added up.
 * In:   runs.      Out: rates with median and range; where the time of a step went, by rank.
 * Owns: its arrays until dr_bench_tally_fini.
 * Why:  a bench that prints one number hides how far it can be trusted. */
#pragma once

#include "gateway/bench/run.h"

struct dr_bench_rank_sum { /* over the timed steps of one repetition */
    uint64_t step_ns, wait_ns;
    uint64_t part_ns[DR_PART_COUNT], wait_kind_ns[DR_BYTES_KIND_COUNT], bytes[DR_BYTES_KIND_COUNT];
};

struct dr_bench_tally {
    int32_t n_rank, n, room;
    double *rate; /* [n] tokens a second of each repetition, in order */
    double median, least, most;
    uint64_t digest;
    /* the repetition with the median rate (of an even number the slower of the two in the middle): its
     * numbers belong together, means over all would be those of no run */
    int32_t middle;
    int32_t *steps;                 /* [n] of each repetition */
    uint64_t *ns;                   /* [n] */
    struct dr_bench_rank_sum *sums; /* [n, n_rank] */
};

/* Of rank k in the median repetition. */
static inline const struct dr_bench_rank_sum *dr_bench_tally_rank(const struct dr_bench_tally *t, int32_t k) {
    return &t->sums[(size_t)t->middle * (size_t)t->n_rank + (size_t)k];
}

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EFULL. */
DR_FALLIBLE dr_bench_tally_init(struct dr_bench_tally *t, int32_t n_rank, int32_t reps);
void dr_bench_tally_fini(struct dr_bench_tally *t);

/* One more repetition; at most `reps`. Median and range are those of the repetitions so far. */
void dr_bench_tally_add(struct dr_bench_tally *t, const struct dr_bench_run *run);

/* Milliseconds of a step of the median repetition, averaged over its steps and the ranks: one part; all of
 * them; what is in none of them: between the end of a rank's step and the begin of its next one. Parts, and
 * what is in none, add up to the whole. */
double dr_bench_tally_part_ms(const struct dr_bench_tally *t, enum dr_step_part part);
double dr_bench_tally_step_ms(const struct dr_bench_tally *t);
double dr_bench_tally_between_ms(const struct dr_bench_tally *t);

#ifdef __cplusplus
}
#endif
