/* watch.h - an eye on every client socket.
 * In:   sockets and what they are at.      Out: 408 to those that are too slow, a cut for requests whose
 * client has gone. Owns: one thread and the list of sockets; the descriptors stay libmicrohttpd's. Why:  a
 * suspended connection leaves the event loop, so nobody else would see its client vanish; and a time-out of
 * idleness alone lets a client live for ever that sends a byte now and then. */
#pragma once

#include <pthread.h>

#include "common/status.h"

struct dr_visit;

enum dr_phase {
    DR_PHASE_HEADERS, /* first request's line and headers: 408 at the deadline */
    DR_PHASE_IDLE,    /* between requests: closed at the deadline */
    DR_PHASE_BODY,    /* 408 at the deadline */
    DR_PHASE_BUSY,    /* we work: a hang-up cuts the visit */
    DR_PHASE_CUT,     /* nothing more to do */
};

struct dr_socket {
    int fd; /* borrowed */
    enum dr_phase phase;
    uint64_t deadline_ns;   /* of HEADERS, IDLE, BODY */
    struct dr_visit *visit; /* borrowed, while BUSY */
    struct dr_socket *next, *prev;
};

struct dr_watch {
    pthread_mutex_t lock; /* list and its sockets; an visit's lock may be taken under it */
    struct dr_socket *first;
    int32_t n;
    int wake_fd; /* eventfd: the list has got something to poll */
    bool stopping;
    pthread_t thread;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EFULL. */
DR_FALLIBLE dr_watch_init(struct dr_watch *w);
void dr_watch_fini(struct dr_watch *w);

/* A new connection; NULL: no memory (the connection is then not watched). close: its descriptor is about to
 * be closed. */
struct dr_socket *dr_watch_open(struct dr_watch *w, int fd);
void dr_watch_close(struct dr_watch *w, struct dr_socket *s);

/* What the socket is at from now on; s may be NULL. visit: for BUSY only; it stays valid until another
 * phase is set. */
void dr_watch_set(struct dr_watch *w, struct dr_socket *s, enum dr_phase phase, struct dr_visit *visit);

/* Calls fn for the visit of every BUSY socket, with the list's lock held. */
void dr_watch_each(struct dr_watch *w, void (*fn)(struct dr_visit *v));

#ifdef __cplusplus
}
#endif
