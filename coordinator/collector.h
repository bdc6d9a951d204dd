/* collector.h - what a step brought, request by request.
 * In:   the step under way; its result and raw logits.      Out: news, requests that have ended and why.
 * Owns: the flight, the news arrays, the list of ended requests.
 * Why:  a result is checked against what was asked, row by row, before it touches a request. */
#pragma once

#include "coordinator/batcher/batcher.h"

struct dr_flight_item {
    struct dr_request *request; /* NULL: ended while the step ran */
    int32_t slot, first, n_rows;
    enum dr_output output;
};

struct dr_flight { /* one step under way; with P cohorts there will be P of them */
    bool busy, has_result;
    uint64_t step, sent_ns, deadline_ns, expected_ns;
    double work;         /* pace.h */
    int32_t n, n_row;    /* items; output rows expected */
    int64_t logits_left; /* values of raw logits still to come */
    int32_t prompt_rows, generated_rows;
    struct dr_flight_item *item; /* [seqs_max] owned */
};

struct dr_ended {
    struct dr_request *request; /* NULL: ended otherwise meanwhile */
    enum dr_finish finish;
    uint32_t stop_id;
};

struct dr_collector {
    const struct dr_config *config; /* borrowed */
    struct dr_flight flight;
    int32_t n_ended, n_news, n_news_row;
    int64_t n_news_top;
    struct dr_ended *ended; /* [seqs_max] owned */
    struct dr_token_news
        *news; /* [seqs_max] owned; arrays below, [step_tokens] and [step_tokens * DR_TOP_MAX] */
    uint32_t *ids;
    float *logprob;
    struct dr_top *top;
    uint64_t n_drawn; /* tokens drawn so far */
};

/* Fails: EFULL. */
DR_FALLIBLE dr_collector_init(struct dr_collector *c, const struct dr_config *config,
                              const struct dr_layout *layout);
void dr_collector_fini(struct dr_collector *c);

/* Notes the step of this draft as under way; the caller fills in times. */
void dr_collector_begin(struct dr_collector *c, const struct dr_draft *d, uint64_t step);

/* r ends for another reason: its rows of the step under way are dropped when they come. */
void dr_collector_forget(struct dr_collector *c, struct dr_request *r);

/* Checks the result against the flight, appends tokens to requests, fills news and ended. Fails: EPROTO
 * naming the row, expected and found; the epoch is over then. */
DR_FALLIBLE dr_collector_result(struct dr_collector *c, const struct dr_step_result *result, uint64_t now_ns);

/* Counts a piece of raw logits; *request is its request, NULL when that has ended. Fails: EPROTO. */
DR_FALLIBLE dr_collector_logits(struct dr_collector *c, const struct dr_logits *l,
                                const struct dr_request **request);

/* Result and all raw logits are here. */
static inline bool dr_collector_complete(const struct dr_collector *c) {
    return c->flight.busy && c->flight.has_result && c->flight.logits_left == 0;
}

/* The step is over: the next may begin. `ended` stays readable until then. */
void dr_collector_end(struct dr_collector *c);
