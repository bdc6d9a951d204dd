/* queue.c - see queue.h.
 * In:   requests.      Out: the head.
 * Owns: the list.
 * Why:  see queue.h. */
#include "coordinator/queue/queue.h"

#include <stdlib.h>

dr_status dr_queue_init(struct dr_queue *q, int32_t room) {
    struct dr_queue out = {.room = room, .item = calloc((size_t)room, sizeof *out.item)};
    if (!out.item) return dr_fail(DR_EFULL, "coordinator: no memory for a queue of %d requests", room);
    *q = out;
    return dr_ok();
}

void dr_queue_fini(struct dr_queue *q) {
    free(q->item);
    *q = (struct dr_queue){0};
}

void dr_queue_push(struct dr_queue *q, struct dr_request *r) {
    DR_ASSERT(q->n < q->room && r->state != DR_REQUEST_WAITING);
    uint64_t round = q->round;
    for (int32_t i = 0; i < q->n; i++) {
        const struct dr_request *o = q->item[i];
        if (o->tenant == r->tenant && o->priority == r->priority && o->round >= round) round = o->round + 1;
    }
    r->round = round;
    r->state = DR_REQUEST_WAITING;
    q->item[q->n++] = r;
    q->n_tokens += r->n_ids;
}

static bool goes_before(const struct dr_request *a, const struct dr_request *b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (a->preempted != b->preempted) return a->preempted;
    if (!a->preempted && a->round != b->round) return a->round < b->round;
    return a->arrival < b->arrival;
}

struct dr_request *dr_queue_head(const struct dr_queue *q) {
    struct dr_request *best = NULL;
    for (int32_t i = 0; i < q->n; i++)
        if (!q->item[i]->parked && (!best || goes_before(q->item[i], best))) best = q->item[i];
    return best;
}

void dr_queue_unpark(struct dr_queue *q) {
    for (int32_t i = 0; i < q->n; i++) q->item[i]->parked = false;
}

void dr_queue_remove(struct dr_queue *q, struct dr_request *r) {
    int32_t i = 0;
    while (i < q->n && q->item[i] != r) i++;
    DR_ASSERT(i < q->n && r->state == DR_REQUEST_WAITING);
    q->item[i] = q->item[--q->n];
    q->n_tokens -= r->n_ids;
    if (!r->preempted && r->round > q->round) q->round = r->round;
    r->state = DR_REQUEST_FREE;
}
