/* beat.c - see beat.h.
 * In:   worker.      Out: beats.
 * Owns: the thread.
 * Why:  see beat.h. */

#include "worker/beat.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "common/arena.h"

enum { FRAME_BYTES = 512, SCRATCH_BYTES = 16 << 10 };

struct dr_beater {
    struct dr_channel *channel;
    int32_t rank;
    uint64_t epoch;
    struct dr_arena scratch;
    pthread_t thread;
    pthread_mutex_t lock; /* worker, leave */
    pthread_cond_t news;
    const struct dr_worker *worker;
    bool leave;
};

static dr_status send_beat(struct dr_beater *b, const struct dr_worker *w) {
    struct dr_beat beat = {.epoch = b->epoch, .rank = b->rank, .op = -1};
    uint8_t frame[FRAME_BYTES];
    size_t bytes = 0;
    if (w) {
        beat.step = dr_worker_step_id(w);
        beat.op = dr_worker_op(w) - 1;
    }
    DR_TRY(dr_encode_beat(&beat, b->epoch, &b->scratch, frame, sizeof frame, &bytes));
    return dr_channel_send(b->channel, 0, frame, bytes);
}

static void *run(void *arg) {
    struct dr_beater *b = arg;
    (void)pthread_mutex_lock(&b->lock);
    while (!b->leave) {
        struct timespec until;
        dr_ignore(send_beat(b, b->worker), "the thread that steps finds a lost coordinator itself");
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        while (!b->leave && pthread_cond_timedwait(&b->news, &b->lock, &until) == 0) {
        }
    }
    (void)pthread_mutex_unlock(&b->lock);
    return NULL;
}

static void drop(struct dr_beater *b) {
    (void)pthread_cond_destroy(&b->news);
    (void)pthread_mutex_destroy(&b->lock);
    dr_arena_fini(&b->scratch);
    free(b);
}

dr_status dr_beater_create(struct dr_channel *channel, int32_t rank, uint64_t epoch, struct dr_beater **out) {
    struct dr_beater *b = calloc(1, sizeof *b);
    pthread_condattr_t attr;
    if (!b) return dr_fail(DR_EFULL, "no memory for the beat");
    b->channel = channel;
    b->rank = rank;
    b->epoch = epoch;
    (void)pthread_mutex_init(&b->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&b->news, &attr);
    (void)pthread_condattr_destroy(&attr);
    dr_status st = dr_arena_init(&b->scratch, SCRATCH_BYTES);
    if (st.code == DR_OK && pthread_create(&b->thread, NULL, run, b) != 0)
        st = dr_fail(DR_EFULL, "no thread for the beat");
    if (st.code != DR_OK) {
        drop(b);
        return st;
    }
    *out = b;
    return dr_ok();
}

void dr_beater_destroy(struct dr_beater *b) {
    if (!b) return;
    (void)pthread_mutex_lock(&b->lock);
    b->leave = true;
    (void)pthread_cond_signal(&b->news);
    (void)pthread_mutex_unlock(&b->lock);
    (void)pthread_join(b->thread, NULL);
    drop(b);
}

void dr_beater_watch(struct dr_beater *b, const struct dr_worker *w) {
    (void)pthread_mutex_lock(&b->lock);
    b->worker = w;
    (void)pthread_mutex_unlock(&b->lock);
}
