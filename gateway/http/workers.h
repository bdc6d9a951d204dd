/* workers.h - a few threads that give jobs their turns.
 * In:   jobs that have something to do.      Out: calls of one function, at most one at a time for each job.
 * Owns: the queue and the threads.
 * Why:  tokenizing a megabyte must not hold up the event loop; a job never runs twice at once, so it needs no
 * lock of its own. */
#pragma once

#include <pthread.h>

#include "common/status.h"

enum { DR_WORKERS_MAX = 8 };

enum dr_job_state { DR_JOB_IDLE, DR_JOB_QUEUED, DR_JOB_RUNNING, DR_JOB_AGAIN };

struct dr_job {              /* a field of what is worked on; the zero object is idle */
    enum dr_job_state state; /* under the queue's lock */
    struct dr_job *next;
};

struct dr_workers {
    pthread_mutex_t lock; /* queue and states; no other lock is taken under it, so any thread may push */
    pthread_cond_t work;
    struct dr_job *first, *last;
    void (*turn)(
        struct dr_job *job); /* takes turns until dr_workers_rest says true; may give the job up then */
    pthread_t thread[DR_WORKERS_MAX];
    int32_t n;
    bool stopping;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Starts n threads. Fails: EFULL. */
DR_FALLIBLE dr_workers_init(struct dr_workers *w, int32_t n, void (*turn)(struct dr_job *job));

/* The job has something to do: it gets a turn, or one more after the running one. The caller holds a
 * reference to the job; true: the job was idle and the reference is now the queue's, to be given up by the
 * turn function after dr_workers_rest said true; false: it is still the caller's. Never blocks for long. */
bool dr_workers_push(struct dr_workers *w, struct dr_job *job);

/* At the end of a turn: false: something came meanwhile, take another turn at once; true: the job is idle
 * again and may be given up. */
bool dr_workers_rest(struct dr_workers *w, struct dr_job *job);

/* Works off the queue and joins. Nothing may be pushed afterwards. */
void dr_workers_fini(struct dr_workers *w);

#ifdef __cplusplus
}
#endif
