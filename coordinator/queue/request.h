/* request.h - one open request, from Accepted to Done.
 * In:   fields of a Submit, then what each step brings.      Out: read by batcher, plan and collector.
 * Owns: nothing; arrays are stripes of the pool (pool.h).
 * Why:  waiting, running and preempted are states of one record, so a request cannot be in two places.
 *
 * Tokens: ids[0 .. n_ids) are known; rows [0 .. n_done) are in the cache, rows [n_done .. n_sched) are in
 * steps under way. A decode has one row left, the token drawn last; everything else is prefill, also after
 * preemption, when both fall back to what the cache still has and the drawn tokens stay. Behind the known
 * tokens lie n_guess drafts of the ones to come: a decode may bring them along, and its result says which
 * came true. */
#pragma once

#include "coordinator/ledger/prefix.h"
#include "proto/message.h"

enum dr_request_state { DR_REQUEST_FREE, DR_REQUEST_WAITING, DR_REQUEST_RUNNING };

struct dr_request {
    enum dr_request_state state;
    uint64_t id;      /* the gateway's number */
    uint64_t arrival; /* counts Submits; the smaller one is older */
    uint64_t round;   /* turn among the tenants of equal priority (queue.h) */
    uint64_t tenant;  /* hash of its name */
    int32_t priority; /* lower first */
    bool preempted;   /* has run before: in front of all others of its priority */
    bool parked;      /* batcher: waits for another request that computes the same prefix */
    bool taken;       /* batcher: already part of the step being made */
    int32_t slot;     /* -1 unless running */
    int32_t n_flight; /* steps under way that have rows of it */

    uint32_t *ids;          /* [context], stripe of the pool */
    int32_t n_ids, n_given; /* known now; with the Submit */
    int32_t n_guess;        /* drafts: ids[n_ids .. n_ids + n_guess) */
    int32_t n_prompt; /* rows of role PROMPT: n_given without the tokens that an earlier epoch delivered */
    int32_t n_done, n_sched; /* rows in the cache; and with the steps under way */
    enum dr_form form;       /* of its prompt rows, since it was started last */
    int32_t n_told; /* prompt rows whose log-probabilities or logits went up: not repeated after preemption */
    int32_t max_new,
        min_new;         /* tokens to draw: at most (clipped to the context); before an end token stops */
    int32_t n_page_sent; /* page-table entries that the workers have */
    bool open_sent;      /* Open went out for the current slot */

    /* The names of its whole pages (prefix.h): name[0] is the root, name[i + 1] that of page i. */
    struct dr_digest *name; /* [context / page_tokens + 1], stripe of the pool */
    int32_t n_name;         /* pages named so far */
    int32_t n_shared;       /* pages at the start of its table that others computed */
    int32_t n_filled;       /* pages at the start of its table whose rows are all there */
    int32_t n_found;        /* while it waits: pages that the cache has, as of found_at */
    uint64_t found_at;      /* prefix.h: n_forgotten at that time */
    int32_t n_cached;       /* prompt tokens that were not computed when it first started */
    bool secret;            /* its pages get no names any more */

    int32_t drafted[DR_DRAFTS_MAX], accepted[DR_DRAFTS_MAX]; /* as in dr_done */

    bool ignore_eos, logits;
    int32_t prompt_top; /* -1: none */
    struct dr_sampling sampling;
    int32_t n_bias, n_end;
    struct dr_bias *bias; /* [DR_BIAS_MAX], stripe of the pool */
    uint32_t end_ids[DR_STOP_IDS_MAX];

    uint64_t submit_ns, deadline_ns;      /* deadline 0: none */
    uint64_t start_ns, first_ns, last_ns; /* first plan, first token, last token; 0: not yet */
};

static inline int32_t dr_request_output(const struct dr_request *r) { /* tokens drawn in this epoch */
    return r->n_ids - r->n_given;
}

static inline int32_t dr_request_left(const struct dr_request *r) { /* known rows that nobody computes yet */
    return r->n_ids - r->n_sched;
}

/* True when all its known rows but drawn ones are computed or under way: it generates. */
static inline bool dr_request_generates(const struct dr_request *r) {
    return r->n_ids > r->n_given && dr_request_left(r) <= 1;
}

/* True when only the newest drawn token is left to compute. */
static inline bool dr_request_decodes(const struct dr_request *r) {
    return dr_request_left(r) == 1 && r->n_ids > r->n_given;
}

static inline bool dr_request_scores(const struct dr_request *r) {
    return r->prompt_top >= 0;
}

static inline bool dr_request_penalised(const struct dr_request *r) {
    const struct dr_sampling *s = &r->sampling;
    return s->repetition != 1.0F || s->frequency != 0.0F || s->presence != 0.0F;
}

/* Serving order: true when a goes before b. Total, because arrivals are distinct. */
static inline bool dr_request_before(const struct dr_request *a, const struct dr_request *b) {
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
}
