/* sampler.h - from logits cut over the vocabulary to tokens and log-probabilities.
 * In:   raw logits of some rows (this rank's columns), each row's wishes.      Out: the same token on every
 * rank of the stage. Owns: nothing; work buffers are the caller's. Why:  for equal logits the draw is equal
 * for every cut: maxima, integer masses and Gumbel numbers are exact in any order.
 *
 * Order: bias, repetition, frequency and presence, temperature (adjust); then min-p, top-k, top-p as one
 * threshold on the order-preserving key of the adjusted logit; then the arg-max of logit + Gumbel(seed,
 * position, id). Log-probabilities are of the raw logits. */
#pragma once

#include "kernels/ops.h"
#include "worker/collective/ledger.h"

struct dr_sample_want {       /* one row */
    bool draw;                /* a token is drawn; false: the row is scored */
    struct dr_sample_row row; /* draw only: wishes of the adjustment and the draw */
    bool top_k_on, top_p_on;  /* as in the step's shape: they decide the collectives */
    int32_t top_k;
    float top_p, min_p; /* min_p 0: off */
    uint32_t target;    /* scored rows: the id whose log-probability is asked; UINT32_MAX: none */
    int32_t n_top;      /* -1: no log-probabilities; else alternatives */
};

struct dr_sample_got {
    bool bad;      /* NaN or infinity among the logits, or nothing left to draw: no token */
    uint32_t id;   /* drawn, or the target; UINT32_MAX: none */
    float logprob; /* of id; 0 when not asked */
    int32_t n_top;
    struct dr_top *top; /* in: room for want's n_top; out: descending, ties by lowest id */
};

struct dr_sampler { /* first part set by the caller, borrowed */
    const struct dr_ops *ops;
    struct dr_stream *stream;
    struct dr_ledger *ledger;
    int32_t first, n_col; /* this rank's columns of the vocabulary */
    float *adjusted;      /* [DR_OUT_BATCH, n_col] */
    uint8_t *in, *sum;    /* [DR_OUT_BATCH * DR_SAMPLE_BINS_BYTES] each */
    uint8_t *all;         /* that times the ranks of the stage */

    /* the batch */
    int32_t n, batch;
    const struct dr_sample_want *want;
    const float *logits; /* [n, n_col] */
    float raw_max[DR_OUT_BATCH], max[DR_OUT_BATCH];
    bool bad[DR_OUT_BATCH];
    uint64_t mass[DR_OUT_BATCH]; /* of the raw logits, whole vocabulary */
    uint32_t least[DR_OUT_BATCH], prefix[DR_OUT_BATCH];
    struct dr_sample_row row[DR_OUT_BATCH];
};

#ifdef __cplusplus
extern "C" {
#endif

/* All ranks of the stage, with the same wishes but for the local columns. n <= DR_OUT_BATCH. batch: number of
 * the batch in its step. Fails: what ops and ledger say. */
DR_FALLIBLE dr_sampler_run(struct dr_sampler *s, int32_t batch, const struct dr_sample_want *want, int32_t n,
                           const float *logits, struct dr_sample_got *got);

#ifdef __cplusplus
}
#endif
