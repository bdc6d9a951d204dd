/* visit.h - one request and its answer.
 * In:   a routed request with its body.      Out: a reply, or a stream that the event loop reads.
 * Owns: body, answer, what is not sent yet; counted references: the event loop's and, while queued, the
 * workers'. Why:  three threads meet here: the event loop sends, a worker computes, the watcher cuts.
 *
 * Life: the event loop collects the body, dr_visit_begin suspends the connection and queues a turn; the
 * worker reads, tokenizes and submits; further turns come with news; each may resume the connection;
 * dr_visit_end when libmicrohttpd is done with it. */
#pragma once

#include <microhttpd.h>
#include <stdatomic.h>

#include "gateway/api/answer.h"
#include "gateway/http/guard.h"
#include "gateway/http/keys.h"
#include "gateway/http/route.h"
#include "gateway/http/watch.h"
#include "gateway/http/workers.h"

enum {
    DR_VISIT_PENDING_MAX = 1 << 20, /* bytes a slow reader may leave unread before it is cut */
    DR_VISIT_KEEPALIVE_S = 15,
};

struct dr_http { /* what all visits of a server share */
    struct dr_api api;
    struct dr_keys keys;
    struct dr_workers workers;
    struct dr_watch watch;
    atomic_bool draining;  /* no new work */
    atomic_bool stopping;  /* nothing may be suspended any more */
    pthread_mutex_t lock;  /* n_open; no other lock is taken under it */
    pthread_cond_t closed; /* n_open is 0 */
    int32_t n_open;        /* visits that the event loop has not finished */
};

struct dr_visit {
    /* set by the event loop before begin, constant afterwards */
    struct dr_http *http;
    struct MHD_Connection *connection;
    struct dr_socket *socket; /* may be NULL */
    enum dr_route route;
    char request_id[DR_GUARD_ID_MAX + 1];
    int32_t key; /* index of the API key, -1: none */
    uint64_t start_ns;
    struct dr_text body;

    /* the event loop's */
    struct dr_problem problem; /* status 0: none; sent once the body is there */
    bool begun, fatal;
    size_t ignored_bytes; /* of a body that is refused anyway */
    int status;           /* of the response that was queued */

    /* under lock */
    pthread_mutex_t lock; /* libmicrohttpd's own lock may be taken under it */
    bool suspended;       /* the connection waits to be resumed */
    bool gone;            /* nobody will read the answer */
    bool shut;            /* the server stops: say so and end */
    bool ready;           /* a status is decided */
    bool streaming, ended, broken;
    struct dr_reply reply;  /* ready and not streaming */
    struct dr_json_out out; /* streaming: not read yet are [sent, n) */
    size_t sent;
    uint64_t last_out_ns;

    /* the worker's: one turn at a time */
    struct dr_job job;
    bool asked;
    struct dr_answer *answer; /* owned */

    atomic_int references;
};

#ifdef __cplusplus
extern "C" {
#endif

/* NULL: no memory. One reference, the event loop's. */
struct dr_visit *dr_visit_create(struct dr_http *http, struct MHD_Connection *connection,
                                 enum dr_route route);

/* Event loop: the body is complete; suspends the connection and starts the work. */
void dr_visit_begin(struct dr_visit *v);

/* Event loop: reader of a stream's response, an MHD_ContentReaderCallback. */
ssize_t dr_visit_read(void *cls, uint64_t pos, char *buf, size_t max);

/* Event loop: libmicrohttpd has finished with the request; gives up its reference. */
void dr_visit_end(struct dr_visit *v);

/* Any thread, under the watcher's lock: the client has gone. */
void dr_visit_cut(struct dr_visit *v);
/* The same, the server stops: a stream gets an error event, others 503. */
void dr_visit_shut(struct dr_visit *v);
/* The same, each second at least: comments in quiet streams. */
void dr_visit_tick(struct dr_visit *v, uint64_t now_ns);

/* A worker's turns. */
void dr_visit_turn(struct dr_job *job);

#ifdef __cplusplus
}
#endif
