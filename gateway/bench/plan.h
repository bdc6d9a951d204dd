/* plan.h - what a bench measures: clusters, and cases on each of them.
 * In:   the options of `deeprack bench`.      Out: lists, checked; options of one cluster.
 * Owns: the array of cases until dr_bench_plan_fini.
 * Why:  everything that can be refused is refused before the first cluster starts. */
#pragma once

#include "common/option.h"
#include "model/config.h"
#include "model/layout.h"

enum { DR_BENCH_LIST_MAX = 32, DR_BENCH_LAYOUTS_MAX = 32, DR_BENCH_SETS_MAX = 12, DR_BENCH_TEXT = 128 };

/* Either prompt (prefill) or gen (generation) is 0. */
struct dr_bench_case {
    int32_t prompt, gen; /* tokens that are timed, of each sequence */
    int32_t depth;       /* tokens in the cache before; generation needs one at least and takes it */
    int32_t batch;
};

struct dr_bench_set { /* an option of one cluster */
    enum dr_option id;
    char value[DR_BENCH_TEXT];
};

struct dr_bench_layout {
    char text[DR_BENCH_TEXT]; /* as given; "" without --layouts */
    int32_t n_set;
    struct dr_bench_set set[DR_BENCH_SETS_MAX];
};

struct dr_bench_plan {
    struct dr_bench_layout layout[DR_BENCH_LAYOUTS_MAX];
    int32_t n_layout;
    enum dr_weights weights[2];
    int32_t n_weights;
    struct dr_bench_case *cases; /* owned; of one length and depth neighbours, in ascending batch */
    int32_t n_case, reps, warmup;
    uint64_t seed;
    int32_t context, batch_most; /* what the cases need */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EUSAGE naming the option and what was found; EFULL. */
DR_FALLIBLE dr_bench_plan_make(const struct dr_options *o, struct dr_bench_plan *out);
void dr_bench_plan_fini(struct dr_bench_plan *p);

/* The options of one cluster: a copy of `o` with the layout's and the weights' set, context and sequences as
 * the cases need unless given. Fails: EUSAGE as a flag would; EFULL. The caller ends *out. */
DR_FALLIBLE dr_bench_plan_options(const struct dr_bench_plan *p, const struct dr_options *o, int32_t layout,
                                  enum dr_weights weights, struct dr_options *out);

/* Refuses cases that this cluster's cache cannot hold at once: their times would be those of a queue. Fails:
 * EMODEL. */
DR_FALLIBLE dr_bench_plan_fits(const struct dr_bench_plan *p, const struct dr_layout *l);

/* Prompt tokens and tokens to draw of each sequence of a case. */
int32_t dr_bench_case_prompt(const struct dr_bench_case *c);
int32_t dr_bench_case_draws(const struct dr_bench_case *c);

/* Token `position` of sequence `sequence`; a longer prompt begins with the shorter one. */
uint32_t dr_bench_id(uint64_t seed, int32_t sequence, int32_t position, int32_t vocab);

/* "pp512", "tg128 @ 4096, 8 sequences" */
const char *dr_bench_case_name(const struct dr_bench_case *c, char out[64]);

#ifdef __cplusplus
}
#endif
