/* bound.h - what memory and arithmetic allow for a case.
 * In:   config, tensors, layout, cases, measured peaks.      Out: bytes, operations and time of each case.
 * Owns: nothing.
 * Why:  model/cost knows one step of one stage; this adds the steps of a case and the stages of a cluster.
 *
 * The model: a stage's ranks share what its machines read and compute; in a step the slower of memory and
 * arithmetic counts; every stage has a step while there are enough of them (cohorts of sequences, chunks of a
 * prompt). Nothing else costs time. */
#pragma once

#include "gateway/bench/plan.h"
#include "kernels/probe.h"
#include "model/cost.h"

struct dr_bench_peaks { /* of the machines of one stage together */
    double read_bytes_s;
    double linear_op_s, attention_op_s; /* products with weights as they are rounded; scores, in f32 */
};

struct dr_bench_bound { /* a step of the case, averaged over its steps */
    double weight_bytes, cache_bytes, linear_flop, attention_flop;
    double seconds;        /* predicted */
    double memory_seconds; /* of these, while memory is the slower */
    double tokens;         /* of a step */
};

static inline double dr_bench_bound_rate(const struct dr_bench_bound *b) { /* predicted tokens a second */
    return b->seconds > 0 ? b->tokens / b->seconds : 0;
}

#ifdef __cplusplus
extern "C" {
#endif

/* inputs: what the ranks round inputs to ("f32", "bf16", "int8"); stage_hosts: machines of a stage. */
struct dr_bench_peaks dr_bench_peaks_of(const struct dr_probe *p, const char *inputs, int32_t stage_hosts);

/* out: [n_case]. t may be NULL (dtypes are guessed then). Fails: EFULL. */
DR_FALLIBLE dr_bench_bound_make(const struct dr_config *c, const struct dr_tensors *t,
                                const struct dr_layout *l, const struct dr_bench_case *cases, int32_t n_case,
                                const struct dr_bench_peaks *peaks, struct dr_bench_bound *out);

#ifdef __cplusplus
}
#endif
