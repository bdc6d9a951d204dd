/* fake.h - a cluster that computes tokens from what the plans told it, and the same tokens straight from a
 * request. In:   step plans.      Out: step results, raw logits; for the oracle: the whole answer of one
 * request alone. Owns: a cache of one word a row, tables and penalty sums by slot. Why:  a token depends on
 * every row's id, position and role as read through the page tables, and on what Open and samples said about
 * penalties: a lost, shared, stale or mislabelled row changes the answer. With the MTP layer each page has a
 * second word a row, made from all rows before it and its token; drafts are made only when all of these are
 * as they must be, and two in three come true. */
#pragma once

#include "common/arena.h"
#include "coordinator/book.h"
#include "coordinator/core.h"
#include "tests/support/splitmix.h"

enum { FAKE_VOCAB = 61, FAKE_LOGITS_PIECE = 40, FAKE_TOP = (1 + DR_DRAFTS_MAX) * DR_TOP_MAX };

struct fake_slot {
    bool open;
    struct dr_open facts; /* arrays are not kept */
    int32_t n_page, n_done;
    uint32_t page[8192];
    uint64_t seen_prompt, seen_output;
    enum dr_form form; /* of its prompt rows */
};

struct fake {
    const struct dr_layout *layout;
    uint64_t *cache, *mtp;  /* [n_page * page_tokens] */
    struct fake_slot *slot; /* [seqs_max] */
    int32_t *bad;           /* [seqs_max] */
    int32_t n_row, n_logits, n_bad;
    struct dr_result_row *row; /* [step_tokens] */
    struct dr_top *top;        /* [step_tokens * FAKE_TOP] */
    struct dr_logits *logits;  /* [step_tokens * 2] */
    float value[FAKE_VOCAB];
    uint64_t step;
    bool faults;         /* one drawn row in 512 is NaN, and one computed row in 2,048 */
    enum dr_reuse reuse; /* as the core's: with ANY a row does not depend on its role */
};

void fake_init(struct fake *f, const struct dr_layout *layout);
void fake_fini(struct fake *f);

/* Runs a plan, checking everything a worker would. Returns the result; rows live until the next call. */
struct dr_step_result fake_step(struct fake *f, const struct dr_step_plan *plan);

/* What a request must get. */
struct answer {
    int32_t n, n_scored;
    enum dr_finish finish;
    uint32_t stop_id;
    uint32_t ids[4096];
    float logprob[4096];
    float score[4096]; /* of the prompt's tokens 1 .. n_scored */
};
void fake_answer(const struct fake *f, const struct dr_submit *s, struct answer *out);

/* A config and a layout for tests; page_tokens is small on purpose. */
struct dr_config fake_config(void);
struct fake_wish {
    int32_t context, seqs_max, step_tokens, n_page, page_tokens;
    int32_t pp; /* 0: 1 */
    enum dr_reuse reuse;
    uint64_t step_ns;
    int32_t drafts; /* as in dr_core_setup; not 0: the layout has the MTP layer */
};
struct dr_layout fake_layout(struct fake_wish w);
struct dr_submit fake_submit(uint64_t request, const uint32_t *ids, int32_t n, int32_t max_tokens);
