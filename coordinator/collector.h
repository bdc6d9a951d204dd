/* collector.h - what a step brought, request by request.
 * In:   the steps under way; their results and raw logits.      Out: news, requests that have ended and why.
 * Owns: the flights, the news arrays, the list of ended requests.
 * Why:  a result is checked against what was asked, row by row, before it touches a request. */
#pragma once

#include "coordinator/batcher/batcher.h"

struct dr_flight_item {
    struct dr_request *request; /* NULL: ended while the step ran */
    int32_t slot, first, n_rows, n_verify, n_draft;
    enum dr_output output;
};

struct dr_flight { /* one step under way */
    bool has_result;
    uint64_t step, sent_ns, deadline_ns, expected_ns;
    double work;         /* pace.h */
    int32_t n, n_row;    /* items; output rows expected */
    int64_t logits_left; /* values of raw logits still to come; then no other step is under way */
    int32_t prompt_rows, generated_rows;
    int32_t n_decode, n_verify, wanted; /* as in dr_draft: decodes are the first items */
    int32_t n_drawn;                    /* tokens that its decodes brought */
    double decode_work;                 /* their part of `work`, without what every step costs */
    struct dr_flight_item *item;        /* [seqs_max] owned */
};

struct dr_ended {
    struct dr_request *request; /* NULL: ended otherwise meanwhile */
    enum dr_finish finish;
    uint32_t stop_id;
};

struct dr_collector {
    const struct dr_config *config; /* borrowed, as book */
    struct dr_book *book;
    /* Steps end in the order in which they were sent: the oldest is flight[at], the next flight[(at + 1) %
     * room]. */
    struct dr_flight *flight; /* [room] owned */
    int32_t room, at, n_flight;
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

/* config and book: borrowed. room: steps under way, at most. Fails: EFULL. */
DR_FALLIBLE dr_collector_init(struct dr_collector *c, const struct dr_config *config, struct dr_book *book,
                              int32_t room);
void dr_collector_fini(struct dr_collector *c);

/* Notes the step of this draft as under way, its rows as scheduled; the caller fills in times. A place must
 * be free.
 */
struct dr_flight *dr_collector_begin(struct dr_collector *c, const struct dr_draft *d, uint64_t step);

/* The oldest step under way, or NULL. */
static inline struct dr_flight *dr_collector_oldest(const struct dr_collector *c) {
    return c->n_flight > 0 ? &c->flight[c->at] : NULL;
}

/* Whether another step may begin. */
static inline bool dr_collector_free(const struct dr_collector *c) {
    const struct dr_flight *f = dr_collector_oldest(c);
    return c->n_flight < c->room && !(f && f->logits_left > 0);
}

/* r ends for another reason: its rows of the steps under way are dropped when they come. */
void dr_collector_forget(struct dr_collector *c, struct dr_request *r);

/* Checks the result against the oldest flight, appends tokens to requests, fills news and ended. Fails:
 * EPROTO naming the row, expected and found; the epoch is over then. */
DR_FALLIBLE dr_collector_result(struct dr_collector *c, const struct dr_step_result *result, uint64_t now_ns);

/* Counts a piece of raw logits; *request is its request, NULL when that has ended. Fails: EPROTO. */
DR_FALLIBLE dr_collector_logits(struct dr_collector *c, const struct dr_logits *l,
                                const struct dr_request **request);

/* Result and all raw logits of the oldest step are here. */
static inline bool dr_collector_complete(const struct dr_collector *c) {
    const struct dr_flight *f = dr_collector_oldest(c);
    return f && f->has_result && f->logits_left == 0;
}

/* The oldest step is over: its place is free. `ended` stays readable until the next result. */
void dr_collector_end(struct dr_collector *c);
