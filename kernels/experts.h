/* experts.h - tokens grouped by expert.
 * In:   the choices of a router.      Out: lists of pairs, batches of experts.
 * Owns: nothing; lists lie in the caller's scratch.
 * Why:  each expert's weights are read once a call, in every backend in the same order.
 *
 * A pair is one token at one owned expert. Pairs are ordered by expert, then token; the shared expert is one
 * more expert that every token has. Experts pass in ascending batches, so that hidden rows do not grow with
 * n_active. */
#pragma once

#include "kernels/ops.h"

enum { DR_MOE_PAIRS_LEAST = 64 }; /* of a batch: few tokens take all their experts at once */

struct dr_expert_lists {
    int32_t *first; /* [n_owned + 2] pairs of local expert e: [first[e], first[e + 1]); shared: e = n_owned */
    int32_t *active; /* [n_owned + 1] local experts with pairs, ascending */
    int32_t *token;  /* [n_pair] */
    float *weight;   /* [n_pair]; not read for the shared expert */
    float *hidden;   /* [pairs of a batch, width] */
    uint8_t *rest;   /* 64-byte aligned: what the backend has for itself */
    size_t bytes;    /* up to rest */
};

struct dr_expert_batch {
    int32_t begin, end; /* active[begin .. end) */
    int32_t first_pair; /* its hidden row is row 0 */
    int32_t n_pair;
};

/* Pairs of a batch, at most; an expert alone has at most n_tok. */
int32_t dr_experts_batch_max(int32_t n_tok, int32_t n_active, int32_t n_owned);

/* Carves scratch; with base NULL only `bytes` means something. */
struct dr_expert_lists dr_experts_carve(void *base, int32_t n_tok, int32_t n_active, int32_t n_owned,
                                        int32_t width);

/* Counting sort by expert; tokens stay in order. Experts of other ranks are left out. Returns the number of
 * experts with pairs, shared included. */
int32_t dr_experts_group(const struct dr_moe *a, const struct dr_expert_lists *l);

/* Moves on to the experts after the batch whose pairs fit the hidden rows; begin == end when none are left.
 */
void dr_experts_next(const struct dr_moe *a, const struct dr_expert_lists *l, int32_t n_experts,
                     struct dr_expert_batch *b);

/* Local expert e, or the shared one at e = n_owned (NULL: none). */
static inline const struct dr_expert *dr_experts_get(const struct dr_moe *a, int32_t e) {
    return e < a->n_owned ? a->owned + e : a->shared;
}

/* Checks shapes and scratch; *width: the widest hidden row. */
DR_FALLIBLE dr_experts_check(const struct dr_moe *a, int32_t *width);
