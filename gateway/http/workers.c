/* workers.c - the queue of turns.
 * In:   jobs.      Out: turns.
 * Owns: threads.
 * Why:  see workers.h. */
#include "gateway/http/workers.h"

#include <string.h>

static void *run(void *arg) {
    struct dr_workers *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->first && !w->stopping) pthread_cond_wait(&w->work, &w->lock);
        struct dr_job *job = w->first;
        if (!job) break;
        w->first = job->next;
        if (!w->first) w->last = NULL;
        job->state = DR_JOB_RUNNING;
        pthread_mutex_unlock(&w->lock);
        w->turn(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

dr_status dr_workers_init(struct dr_workers *w, int32_t n, void (*turn)(struct dr_job *job)) {
    memset(w, 0, sizeof *w);
    w->turn = turn;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    for (; w->n < n && w->n < DR_WORKERS_MAX; w->n++) {
        if (pthread_create(&w->thread[w->n], NULL, run, w) == 0) continue;
        dr_workers_fini(w);
        return dr_fail(DR_EFULL, "cannot start a worker thread of the HTTP server");
    }
    return dr_ok();
}

bool dr_workers_push(struct dr_workers *w, struct dr_job *job) {
    pthread_mutex_lock(&w->lock);
    bool idle = job->state == DR_JOB_IDLE;
    if (job->state == DR_JOB_RUNNING) job->state = DR_JOB_AGAIN;
    if (idle) {
        job->state = DR_JOB_QUEUED;
        job->next = NULL;
        if (w->last)
            w->last->next = job;
        else
            w->first = job;
        w->last = job;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    return idle;
}

bool dr_workers_rest(struct dr_workers *w, struct dr_job *job) {
    pthread_mutex_lock(&w->lock);
    bool rest = job->state == DR_JOB_RUNNING;
    job->state = rest ? DR_JOB_IDLE : DR_JOB_RUNNING;
    pthread_mutex_unlock(&w->lock);
    return rest;
}

void dr_workers_fini(struct dr_workers *w) {
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (int32_t i = 0; i < w->n; i++) pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->lock);
    w->n = 0;
}
