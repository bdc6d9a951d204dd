/* state.h - the inside of an engine, shared by the files of this folder (and by its test).
 * In:   what resolve.c made of the options.      Out: nothing; see engine.h for the outside.
 * Owns: see struct dr_engine.
 * Why:  engine.c (any thread), loop.c (engine thread) and requests.c work on one object under one lock. */
#pragma once

#include <pthread.h>

#include "gateway/cluster/engine.h"
#include "gateway/cluster/launch.h"
#include "gateway/cluster/progress.h"
#include "gateway/cluster/supervisor.h"
#include "proto/link.h"

enum { DR_FAILURES_MAX = 5, DR_BUCKETS = 1024 };

struct dr_engine_times { /* all ns; tests shorten them */
    uint64_t connect, silence, queue_wait, backoff_first, backoff_most, window, settle, refusal;
};

struct dr_engine_setup {
    struct dr_launch launch;          /* run and link are filled by dr_engine_start */
    const struct dr_options *options; /* borrowed for the engine's life */
    const struct dr_config *config;   /* the same */
    struct dr_layout layout;
    uint64_t tensors_hash;
    struct dr_engine_times times;
    bool one_shot; /* progress as plain lines: not a server */
};

enum dr_phase {
    DR_PHASE_DOWN,
    DR_PHASE_LAUNCHED,
    DR_PHASE_LINKED,
    DR_PHASE_READY,
    DR_PHASE_STOPPING,
    DR_PHASE_PAUSE
};

struct dr_request {
    uint64_t id;
    struct dr_engine_sink sink;
    int32_t n_prompt;
    uint8_t *frame; /* SUBMIT, owned until it is sent */
    size_t frame_bytes;
    bool sent, cancelled;
    uint64_t expire_ns;               /* while unsent */
    struct dr_request *chain;         /* bucket */
    struct dr_request *older, *newer; /* all open ones, in the order of submit */
};

struct dr_engine {
    struct dr_engine_setup setup;
    pthread_t thread;
    int wake; /* eventfd */

    pthread_mutex_t lock;         /* guards from here to `own`; never held during a callback */
    pthread_cond_t changed;       /* state or n_open */
    struct dr_engine_facts facts; /* open_requests is n_open */
    uint64_t alive_ns;            /* when the last ALIVE came */
    uint64_t next_id;
    bool stop, draining, abandon;
    bool was_ready;
    uint32_t watch_bits;
    bool watch_unsent;   /* this epoch's coordinator does not know the bits yet */
    bool reset_unsent;   /* nor that it shall forget its prefixes */
    bool queue_full;     /* by the last STATS of this epoch */
    uint64_t refused_ns; /* when `refused` came, the last one for want of room in this epoch; 0: none */
    struct dr_refused refused;
    struct dr_step_sink watch;
    struct dr_request *bucket[DR_BUCKETS], *oldest, *newest;
    int32_t n_open;
    struct dr_link *link; /* set and destroyed by the engine thread under the lock */

    /* own: the engine thread's */
    enum dr_phase phase;
    struct dr_listener *listener;
    uint8_t token[DR_TOKEN_BYTES];
    struct dr_supervisor job;
    int rank_fd[DR_RANKS_MAX]; /* pidfds of ranks on this machine */
    int32_t rank_of_fd[DR_RANKS_MAX];
    int32_t n_rank_fd;
    uint64_t failed_ns[DR_FAILURES_MAX]; /* times of the last failures, oldest first */
    int32_t n_failed;
    uint64_t phase_ns; /* since when */
    uint64_t next_ns;  /* PAUSE: launch then; STOPPING: press harder then */
    bool verdict;      /* STOPPING: no relaunch after it */
    bool has_fault;
    struct dr_fault_note fault; /* last words of a rank in this epoch */
    struct dr_progress_bar bar;
    struct dr_arena arena; /* of one small frame */
};

#ifdef __cplusplus
extern "C" {
#endif

struct dr_engine_times dr_engine_times_default(double deadline_scale);

/* RUN, listener and thread; starts the job at once. */
DR_FALLIBLE dr_engine_start(const struct dr_engine_setup *setup, struct dr_engine **out);

/* loop.c: the body of the engine thread. */
void *dr_engine_loop(void *engine);
void dr_engine_wake(struct dr_engine *e);

/* requests.c. Those that say so are called with the lock held; none of the others. */
struct dr_request *dr_request_find(struct dr_engine *e, uint64_t id); /* lock held */
void dr_request_add(struct dr_engine *e, struct dr_request *r);       /* lock held */
void dr_request_send_waiting(struct dr_engine *e);                    /* engine thread */
void dr_request_end(struct dr_engine *e, struct dr_request *r,
                    const struct dr_done *done); /* engine thread */
void dr_request_refuse(struct dr_engine *e, struct dr_request *r,
                       const struct dr_refused *refused); /* engine thread */
/* Ends requests with `finish`: all, or those that were sent (waiting ones stay for the next epoch). */
void dr_request_end_all(struct dr_engine *e, enum dr_finish finish, bool sent_only);
void dr_request_refuse_waiting(struct dr_engine *e, const char *why);
/* Waiting ones that were cancelled or have waited too long; returns when to look again (UINT64_MAX: never).
 */
uint64_t dr_request_expire(struct dr_engine *e, uint64_t now);

#ifdef __cplusplus
}
#endif
