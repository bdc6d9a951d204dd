/* limits.h - the largest of everything that arrives from outside a process.
 * In:   nothing.      Out: constants, each with its reason.
 * Owns: nothing.
 * Why:  a count or a length is compared with one of these before it is used to allocate, to index or to loop.
 */
#pragma once

#include <stdint.h>

enum {
    DR_PROTOCOL = 1,              /* compared in Hello; an incompatible change adds one */
    DR_LINK_FRAME_MAX = 16 << 20, /* a million token ids are about 3 MiB of varints */
    DR_MPI_FRAME_MAX = 1 << 20,   /* plans: 8,192 ids and 4,096 pages are about 60 KiB */
    DR_LINK_QUEUE_MAX = 64 << 20, /* bytes the coordinator may have waiting for a slow gateway */
    DR_REPORT_MAX = 512,          /* StepReport bytes */
    DR_PART_BITS = 49,            /* ns of a part of a step: 6 days, so that a report stays small */
    DR_STEP_TOKENS_MAX = 8192,
    DR_SEQS_MAX = 1024, /* slots */
    DR_SEGMENTS_MAX = 2 * DR_SEQS_MAX,
    DR_PROMPT_IDS_MAX = 1 << 20,
    DR_STOP_IDS_MAX = 64,
    DR_BIAS_MAX = 1024, /* logit_bias entries */
    DR_TOP_MAX = 20,    /* log-probabilities a token */
    DR_DRAFTS_MAX = 8,
    DR_CHOICES_MAX = 8,   /* n */
    DR_WAITING_MAX = 256, /* queued requests */
    DR_TEXT_MAX = 1023,   /* texts in messages */
    DR_HOST_MAX = 63,
    DR_ISA_TEXT = 15,
    DR_INPUTS_TEXT = 15,
    DR_SALT_MAX = 128,
};

/* Prompt tokens that may wait in the queue: four contexts, but not fewer than 131,072. What waits is work and
 * so time; with a short context four prompts are little of both. */
static inline int64_t dr_waiting_tokens_most(int32_t context) {
    const int64_t four = 4 * (int64_t)context, least = 131072;
    return four > least ? four : least;
}
