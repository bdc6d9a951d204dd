/* slots.h - what a worker keeps about each running sequence, and the check of a plan against it.
 * In:   drops, opens and pages of a plan.      Out: sampling, penalty counts, biases, page tables by slot.
 * Owns: nothing; arrays lie in the worker's blocks.
 * Why:  a plan is decoded elsewhere, but only here it is known whether it fits this rank: every index is
 * checked before its use. */
#pragma once

#include "model/workspace.h"
#include "proto/message.h"
#include "worker/cache/pages.h"

struct dr_slot {
    bool open;
    bool counts; /* penalties are on: counts are kept (last stage) */
    int32_t n_prompt, n_bias;
    int32_t n_kept; /* positions whose cache rows others wrote: they are not written again */
};

struct dr_slots {
    int32_t n, vocab_first, n_vocab;       /* slots; this rank's columns of the vocabulary */
    bool last;                             /* last stage: counts and biases are kept */
    bool mtp;                              /* the MTP layer is loaded: rows reach one position further */
    int32_t vocab, context, step_tokens;   /* limits of a plan */
    struct dr_slot *slot;                  /* [n] */
    struct dr_sampling *sampling;          /* [n] */
    uint16_t *count_prompt, *count_output; /* [n, n_vocab] of the own columns */
    uint32_t *bias_id;                     /* [n, DR_WORK_BIAS_MAX] */
    float *bias;
    struct dr_page_tables pages;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Drops, opens and pages of the plan, in this order. Fails: EPROTO naming the slot and what is wrong; slots
 * before it have changed. */
DR_FALLIBLE dr_slots_apply(struct dr_slots *s, const struct dr_step_plan *plan);

/* Whether this worker can run the plan's segments; call after apply. Fails: EPROTO naming the segment,
 * expected and found. */
DR_FALLIBLE dr_slots_check(const struct dr_slots *s, const struct dr_step_plan *plan);

/* Counts a token that was drawn for a slot; nothing when penalties are off or another rank owns the id. */
void dr_slots_count(struct dr_slots *s, int32_t slot, uint32_t id);

#ifdef __cplusplus
}
#endif
