/* requests.c - the open requests of an engine.
 * In:   submits, news and ends.      Out: calls of the sinks.
 * Owns: struct dr_request from submit to its one end.
 * Why:  exactly one end a request, whatever happens to the cluster, is argued in this file alone.
 *
 * Other threads only add (at the newest end) and mark; the engine thread alone removes. So it may keep a
 * request's address without the lock, and the sinks run without it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/cluster/state.h"

static struct dr_request **bucket_of(struct dr_engine *e, uint64_t id) {
    return &e->bucket[id % DR_BUCKETS];
}

struct dr_request *dr_request_find(struct dr_engine *e, uint64_t id) {
    for (struct dr_request *r = *bucket_of(e, id); r; r = r->chain)
        if (r->id == id) return r;
    return NULL;
}

void dr_request_add(struct dr_engine *e, struct dr_request *r) {
    struct dr_request **head = bucket_of(e, r->id);
    r->chain = *head;
    *head = r;
    r->older = e->newest;
    r->newer = NULL;
    if (e->newest)
        e->newest->newer = r;
    else
        e->oldest = r;
    e->newest = r;
    e->n_open++;
}

/* Engine thread, lock held. */
static void take_out(struct dr_engine *e, struct dr_request *r) {
    struct dr_request **at = bucket_of(e, r->id);
    while (*at != r) at = &(*at)->chain;
    *at = r->chain;
    if (r->older)
        r->older->newer = r->newer;
    else
        e->oldest = r->newer;
    if (r->newer)
        r->newer->older = r->older;
    else
        e->newest = r->older;
}

/* The count falls after the callback: whoever waits for zero may free what the sinks point to. */
static void drop(struct dr_engine *e, struct dr_request *r) {
    free(r->frame);
    free(r);
    pthread_mutex_lock(&e->lock);
    e->n_open--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void dr_request_end(struct dr_engine *e, struct dr_request *r, const struct dr_done *done) {
    pthread_mutex_lock(&e->lock);
    take_out(e, r);
    pthread_mutex_unlock(&e->lock);
    r->sink.on_done(r->sink.arg, done);
    drop(e, r);
}

void dr_request_refuse(struct dr_engine *e, struct dr_request *r, const struct dr_refused *refused) {
    pthread_mutex_lock(&e->lock);
    take_out(e, r);
    pthread_mutex_unlock(&e->lock);
    r->sink.on_refused(r->sink.arg, refused);
    drop(e, r);
}

static void end_here(struct dr_engine *e, struct dr_request *r, enum dr_finish finish) {
    const struct dr_done done = {
        .request = r->id, .finish = finish, .stop_id = UINT32_MAX, .n_prompt = r->n_prompt};
    dr_request_end(e, r, &done);
}

static void refuse_here(struct dr_engine *e, struct dr_request *r, const char *why) {
    struct dr_refused refused = {.request = r->id, .reason = DR_REFUSE_DRAINING, .retry_ms = 5000};
    snprintf(refused.text, sizeof refused.text, "%s", why);
    dr_request_refuse(e, r, &refused);
}

/* The oldest request for which `want` says yes, looked up afresh each time: sinks may take a while and others
 * add. */
static struct dr_request *next_of(struct dr_engine *e, bool (*want)(const struct dr_request *, uint64_t),
                                  uint64_t arg) {
    pthread_mutex_lock(&e->lock);
    struct dr_request *r = e->oldest;
    while (r && !want(r, arg)) r = r->newer;
    pthread_mutex_unlock(&e->lock);
    return r;
}

static bool is_any(const struct dr_request *r, uint64_t arg) {
    (void)r, (void)arg;
    return true;
}

static bool is_sent(const struct dr_request *r, uint64_t arg) {
    (void)arg;
    return r->sent;
}

static bool is_waiting(const struct dr_request *r, uint64_t arg) {
    (void)arg;
    return !r->sent;
}

static bool is_cancelled(const struct dr_request *r, uint64_t arg) {
    (void)arg;
    return !r->sent && r->cancelled;
}

static bool is_late(const struct dr_request *r, uint64_t now) {
    return !r->sent && r->expire_ns <= now;
}

void dr_request_end_all(struct dr_engine *e, enum dr_finish finish, bool sent_only) {
    for (struct dr_request *r; (r = next_of(e, sent_only ? is_sent : is_any, 0));) end_here(e, r, finish);
}

void dr_request_refuse_waiting(struct dr_engine *e, const char *why) {
    for (struct dr_request *r; (r = next_of(e, is_waiting, 0));) refuse_here(e, r, why);
}

uint64_t dr_request_expire(struct dr_engine *e, uint64_t now) {
    for (struct dr_request *r; (r = next_of(e, is_cancelled, 0));) end_here(e, r, DR_FINISH_CANCELLED);
    for (struct dr_request *r; (r = next_of(e, is_late, now));)
        refuse_here(e, r, "the cluster is still being started; try again in a few seconds");
    uint64_t first = UINT64_MAX;
    pthread_mutex_lock(&e->lock);
    for (const struct dr_request *r = e->oldest; r; r = r->newer)
        if (!r->sent && r->expire_ns < first) first = r->expire_ns;
    pthread_mutex_unlock(&e->lock);
    return first;
}

void dr_request_send_waiting(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    for (struct dr_request *r = e->oldest; r && e->link; r = r->newer) {
        if (r->sent || r->cancelled) continue;
        memcpy(r->frame + 8, &e->facts.epoch,
               sizeof e->facts.epoch); /* encoded under an older epoch; see proto/codec.h */
        dr_status st = dr_link_send(e->link, r->frame, r->frame_bytes);
        r->sent = true; /* a failed link ends it as LOST when the loop sees the failure */
        dr_ignore(st, "the loop polls the same link and ends the epoch");
    }
    pthread_mutex_unlock(&e->lock);
}
