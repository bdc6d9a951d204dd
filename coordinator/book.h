/* book.h - every open request and what it holds: the only place where slots and pages change hands.
 * In:   accept, start, preempt, end.      Out: the running requests in serving order, slots to drop.
 * Owns: pool, queue, ledger, the list of running requests, the slots.
 * Why:  a request is in exactly one of {waiting, running}, and whatever it leaves, it leaves with nothing in
 * its hands. */
#pragma once

#include "coordinator/ledger/ledger.h"
#include "coordinator/queue/pool.h"
#include "coordinator/queue/queue.h"

struct dr_book {
    struct dr_pool pool;
    struct dr_queue queue;
    struct dr_ledger ledger;
    const struct dr_layout *layout; /* borrowed */
    uint64_t n_arrival;
    int32_t n_running;
    struct dr_request **running; /* [seqs_max] owned, in serving order (dr_request_before) */
    struct dr_request **by_slot; /* [seqs_max] owned; NULL: free */
    int32_t n_spare;
    int32_t *spare; /* [seqs_max] owned: stack of free slots */
    int32_t n_drop;
    int32_t *drop; /* [seqs_max] owned: slots that the workers have open and nobody has */
    uint64_t n_preempted;
};

/* layout: borrowed for the book's life. Fails: EFULL. */
DR_FALLIBLE dr_book_init(struct dr_book *b, const struct dr_layout *layout);
void dr_book_fini(struct dr_book *b);

/* A new record, not yet waiting; never NULL while fewer than DR_WAITING_MAX wait. dr_book_accept puts it into
 * the queue. */
struct dr_request *dr_book_open(struct dr_book *b);
void dr_book_accept(struct dr_book *b, struct dr_request *r);

/* Whether a slot is free and the pages for all of r's tokens and one more page (or all that r can ever use)
 * are. */
bool dr_book_fits(const struct dr_book *b, const struct dr_request *r);

/* Waiting -> running: slot and the pages of all known tokens. dr_book_fits must hold. */
void dr_book_start(struct dr_book *b, struct dr_request *r);

/* Running -> waiting, in front: gives slot and pages back, keeps its tokens. */
void dr_book_preempt(struct dr_book *b, struct dr_request *r);

/* Any state -> gone. r is invalid afterwards. */
void dr_book_end(struct dr_book *b, struct dr_request *r);

static inline int32_t dr_book_open_count(const struct dr_book *b) {
    return b->queue.n + b->n_running;
}

/* Reads everything: lists, slots and ledger agree. Fails: EINTERNAL. For tests. */
DR_FALLIBLE dr_book_check(const struct dr_book *b);
