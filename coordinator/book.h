/* book.h - every open request and what it holds: the only place where slots and pages change hands.
 * In:   accept, start, preempt, end.      Out: the running requests in serving order, slots to drop.
 * Owns: pool, queue, ledger, the list of running requests, the slots.
 * Why:  a request is in exactly one of {waiting, running}, and whatever it leaves, it leaves with nothing in
 * its hands. */
#pragma once

#include "coordinator/ledger/ledger.h"
#include "coordinator/plan/form.h"
#include "coordinator/queue/pool.h"
#include "coordinator/queue/queue.h"

enum dr_reuse { DR_REUSE_OFF, DR_REUSE_ANY, DR_REUSE_EXACT };

struct dr_book {
    struct dr_pool pool;
    struct dr_queue queue;
    struct dr_ledger ledger;
    const struct dr_config *config; /* borrowed, as layout */
    const struct dr_layout *layout;
    enum dr_reuse reuse;
    uint64_t n_arrival;
    int32_t n_running;
    struct dr_request **running; /* [seqs_max] owned, in serving order (dr_request_before) */
    struct dr_request **by_slot; /* [seqs_max] owned; NULL: free */
    int32_t n_spare;
    int32_t *spare; /* [seqs_max] owned: stack of free slots */
    int32_t n_drop;
    int32_t *drop;                  /* [seqs_max] owned: slots that the workers have open and nobody has */
    uint64_t n_preempted, n_cached; /* preemptions; prompt tokens found in the cache, each request once */
};

/* config and layout: borrowed for the book's life. Fails: EFULL. */
DR_FALLIBLE dr_book_init(struct dr_book *b, const struct dr_config *config, const struct dr_layout *layout,
                         enum dr_reuse reuse);
void dr_book_fini(struct dr_book *b);

/* A new record, not yet waiting; never NULL while fewer than DR_WAITING_MAX wait. dr_book_accept puts it into
 * the queue. salt: of the names of its pages. */
struct dr_request *dr_book_open(struct dr_book *b);
void dr_book_accept(struct dr_book *b, struct dr_request *r, const char *salt);

/* Whether a waiting request may start. LACKS: no slot is free, or not the pages for all of its tokens and one
 * page more (or all that it can ever use). PARK: the next page that it needs is being computed by a running
 * request: it will be shared when it is there, so computing it twice would be waste. YES also sets what it
 * would start with: n_done, n_sched, form. */
enum dr_readiness { DR_READY_YES, DR_READY_LACKS, DR_READY_PARK };
enum dr_readiness dr_book_ready(const struct dr_book *b, struct dr_request *r);

/* Waiting -> running: slot, the pages that the cache has of its prefix, own pages for the rest of its known
 * tokens. dr_book_ready must have said YES. */
void dr_book_start(struct dr_book *b, struct dr_request *r);

/* Positions that r's known tokens and a step's drafts want pages for. The MTP layer's rows reach one position
 * beyond: the token that will be drawn; drafts in a row reach further. */
int32_t dr_book_positions(const struct dr_book *b, const struct dr_request *r, int32_t n_verify,
                          int32_t n_draft);

/* n more rows of a running request are in the cache and all finite: whole pages may be shared from now on. */
void dr_book_advance(struct dr_book *b, struct dr_request *r, int32_t n);

/* A running request has failed: nobody shall find its pages again. */
void dr_book_disown(struct dr_book *b, struct dr_request *r);

/* No prefix that was computed up to now will be found again; who runs goes on. */
void dr_book_reset(struct dr_book *b);

/* Running -> waiting, in front: gives slot and pages back, keeps its tokens. */
void dr_book_preempt(struct dr_book *b, struct dr_request *r);

/* Any state -> gone. r is invalid afterwards. */
void dr_book_end(struct dr_book *b, struct dr_request *r);

static inline int32_t dr_book_open_count(const struct dr_book *b) {
    return b->queue.n + b->n_running;
}

/* Reads everything: lists, slots and ledger agree. Fails: EINTERNAL. For tests. */
DR_FALLIBLE dr_book_check(const struct dr_book *b);
