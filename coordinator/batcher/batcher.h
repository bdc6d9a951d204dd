/* batcher.h - chooses who takes part in the next step, with which rows.
 * In:   the book.      Out: a draft: one item a running request that takes part.
 * Owns: the draft's items.
 * Why:  batching is the only stage that may delay a request, so fairness is argued in this file alone.
 *
 * A step: decodes first, oldest first; then chunks of prefill in serving order; then requests from the queue
 * while slots, pages and rows are left. The head of the queue is never overtaken for being large; it is
 * parked, and others go before it, only while a running request computes the very page that it needs next.
 * When a decode finds no page, the youngest running request that is neither in the draft nor in a step under
 * way is preempted. The oldest one is never preempted for a younger one, and one sequence of full context
 * always fits the cache, so the oldest always proceeds: no deadlock, no starvation.
 *
 * Cohorts: with P stages up to P + 1 steps are under way, and a request's decode is in one of them at a time.
 * So that the running sequences spread over P steps, one takes at most a P-th of them; chunks of one prompt
 * may follow each other before the first has come back.
 *
 * Drafts: a decode brings those that it has and asks for new ones, but never at the cost of another decode:
 * not when rows or pages are short.
 *
 * Time: a step with decodes is made to take about step_ns, one of prompts alone PROMPT_FACTOR times as long,
 * by what steps have taken so far; chunks shrink as the context behind them grows, but not to where the step
 * would mostly work on something else (chunk_least). */
#pragma once

#include "coordinator/book.h"
#include "coordinator/plan/drafts.h"
#include "coordinator/plan/pace.h"

struct dr_draft_item {
    struct dr_request *request;
    int32_t first, n_rows;
    int32_t n_verify, n_draft; /* as in dr_segment */
    enum dr_tokens_role role;
    enum dr_output output;
};

struct dr_draft {
    struct dr_draft_item *item; /* [seqs_max] owned by the batcher, in the order of the plan's segments */
    int32_t n, n_rows;
    int32_t n_decode, n_verify;      /* decodes, and the drafts that they bring */
    int32_t wanted;                  /* drafts after each token */
    size_t open_bytes, result_bytes; /* estimates against the frame's limit */
    double work, decode_work;        /* pace.h; of the decodes alone */
    bool has_logits, has_chunk;
    /* requests that would be preempted but could not be opened again within a frame: to be ended */
    struct dr_request *stuck;
};

struct dr_batcher {
    struct dr_book *book; /* borrowed, as pace and drafts */
    const struct dr_pace *pace;
    const struct dr_drafts *drafts;
    struct dr_draft draft;
    uint64_t step_ns; /* wanted time of a step; 0: none */
    int32_t step_tokens, vocab, n_cohort, under_way;
    int32_t turn;       /* first decode of the next step when not all fit */
    bool prefill_first; /* decodes wait for every prompt that can run: for benches, never for people */
};

enum {
    DR_OPEN_BYTES_MAX =
        640 << 10, /* of all Opens of a plan, encoded: the rest of a 1 MiB frame holds ids and pages */
    DR_RESULT_BYTES_MAX = 640 << 10, /* of a StepResult's rows */
    DR_LOGITS_ROWS_MAX = 32,         /* a step: a worker may have 64 frames unsent */
    DR_LOGITS_BYTES_MAX = 8 << 20,   /* a step */
};

/* book, pace and drafts are borrowed. Fails: EFULL. */
DR_FALLIBLE dr_batcher_init(struct dr_batcher *b, struct dr_book *book, const struct dr_pace *pace,
                            const struct dr_drafts *drafts, uint64_t step_ns);
void dr_batcher_fini(struct dr_batcher *b);

/* Makes the draft of the next step; draft->n = 0: nothing to do. under_way: steps whose results are not in.
 * May start and preempt requests. When draft->stuck is set, the caller ends that request and calls again. The
 * draft is valid until the next call. */
const struct dr_draft *dr_batcher_draft(struct dr_batcher *b, int32_t under_way);

/* Bytes that the Open of r takes in a frame, at most. */
size_t dr_batcher_open_bytes(const struct dr_request *r, int32_t vocab);
