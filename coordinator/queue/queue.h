/* queue.h - who waits, and whose turn it is.
 * In:   accepted requests, preempted requests.      Out: the next one to start.
 * Owns: the list; the records are the pool's.
 * Why:  waiting is bounded, and order is decided in this file alone.
 *
 * Order: lower priority number; then preempted before new ones; then the tenant's turn; then age. A tenant's
 * k-th waiting request is of turn k from now, so tenants of equal priority take turns however many requests
 * each has. Finding the head reads the whole list: at most some 1,300 records, a few microseconds. */
#pragma once

#include "coordinator/queue/request.h"

struct dr_queue {
    struct dr_request **item; /* [room] owned, in no order */
    int32_t n, room;
    int64_t n_tokens; /* ids of all waiting requests */
    uint64_t round;   /* turn of the request that left last */
};

/* Fails: EFULL. */
DR_FALLIBLE dr_queue_init(struct dr_queue *q, int32_t room);
void dr_queue_fini(struct dr_queue *q);

/* Appends; gives the request its turn and state WAITING. */
void dr_queue_push(struct dr_queue *q, struct dr_request *r);

/* The request whose turn it is, parked ones passed over; or NULL. */
struct dr_request *dr_queue_head(const struct dr_queue *q);

/* Nobody is parked any more. */
void dr_queue_unpark(struct dr_queue *q);

/* Takes r, which must be waiting, out of the list. */
void dr_queue_remove(struct dr_queue *q, struct dr_request *r);
