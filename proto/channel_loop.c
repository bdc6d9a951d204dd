/* channel_loop.c - the channel inside one process: queues, one mutex, faults on request.
 * In:   frames of any end.      Out: frames, in order per pair of ends.
 * Owns: the state that the ends share; the last end to be destroyed frees it.
 * Why:  a coordinator and its workers run as threads of one test, and a test can lose, delay or cut what it
 * likes. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "proto/channel.h"

/* As long as a silent peer may stay undetected (suspected at 3 s, dead at 5 s). */
static const uint64_t SEND_WAIT_NS = 5000000000u;

struct frame {
    struct frame *next;
    int32_t from;
    size_t bytes;
    uint64_t due_ns; /* not to be seen before */
    uint8_t data[];
};

struct queue {
    struct frame *head, *tail;
    pthread_cond_t news; /* a frame came, or a peer went */
};

struct pair { /* [from * n_end + to] */
    struct dr_channel_fault fault;
    uint64_t due_ns; /* of the latest frame: a shorter delay does not overtake */
    int32_t unsent;
};

struct shared {
    pthread_mutex_t lock; /* everything below; taken alone */
    pthread_cond_t space; /* a receiver took a frame, or a peer went */
    int32_t n_end, n_alive;
    bool *gone;          /* [n_end] */
    struct queue *queue; /* [n_end] */
    struct pair *pair;   /* [n_end * n_end] */
};

struct loop {
    struct dr_channel base;
    struct shared *sh;
};

static struct pair *pair_of(struct shared *sh, int32_t from, int32_t to) {
    return &sh->pair[(size_t)from * (size_t)sh->n_end + (size_t)to];
}

static bool lost(struct shared *sh, int32_t from, int32_t to, int32_t peer) {
    return sh->gone[peer] || pair_of(sh, from, to)->fault.cut;
}

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns) {
    struct timespec t = dr_clock_timespec(until_ns);
    pthread_cond_timedwait(cond, lock, &t); /* woken early or late: the caller looks again */
}

/* Lock held. The coordinator never waits: its peers' plans are small and 64 untaken ones mean a dead worker.
 */
static dr_status room_for(struct loop *ch, int32_t to) {
    struct shared *sh = ch->sh;
    struct pair *p = pair_of(sh, ch->base.end, to);
    uint64_t until = dr_clock_ns() + SEND_WAIT_NS;
    while (p->unsent >= DR_CHANNEL_UNSENT_MAX && !lost(sh, ch->base.end, to, to)) {
        if (ch->base.end == 0 || dr_clock_ns() >= until)
            return dr_fail(DR_EPEER, "end %d: %d frames to end %d are unsent; it does not take them",
                           ch->base.end, p->unsent, to);
        wait_until(&sh->space, &sh->lock, until);
    }
    if (lost(sh, ch->base.end, to, to)) return dr_fail(DR_EPEER, "end %d: end %d is gone", ch->base.end, to);
    return dr_ok();
}

static dr_status send_frame(struct dr_channel *base, int32_t to, const uint8_t *frame, size_t bytes) {
    struct loop *ch = (struct loop *)base;
    struct shared *sh = ch->sh;
    DR_ASSERT(to >= 0 && to < base->n_end && to != base->end);
    if (bytes > DR_FRAME_HEADER + DR_MPI_FRAME_MAX)
        return dr_fail(DR_EFULL, "end %d: a frame of %zu bytes, allowed 0..%d", base->end, bytes,
                       DR_FRAME_HEADER + DR_MPI_FRAME_MAX);
    struct frame *f = malloc(sizeof *f + bytes);
    if (!f) return dr_fail(DR_EFULL, "end %d: no memory for a frame of %zu bytes", base->end, bytes);
    *f = (struct frame){.from = base->end, .bytes = bytes};
    memcpy(f->data, frame, bytes);
    pthread_mutex_lock(&sh->lock);
    dr_status st = room_for(ch, to);
    struct pair *p = pair_of(sh, base->end, to);
    if (st.code != DR_OK || p->fault.drop) {
        free(f);
    } else {
        uint64_t due = dr_clock_ns() + p->fault.delay_ns;
        f->due_ns = p->due_ns = due > p->due_ns ? due : p->due_ns;
        struct queue *q = &sh->queue[to];
        if (q->tail)
            q->tail->next = f;
        else
            q->head = f;
        q->tail = f;
        p->unsent++;
        pthread_cond_signal(&q->news);
    }
    pthread_mutex_unlock(&sh->lock);
    return st;
}

/* Lock held. Takes the first frame that is due; *next_ns: when the next one will be (UINT64_MAX: none waits).
 */
static struct frame *take_due(struct shared *sh, int32_t end, uint64_t now, uint64_t *next_ns) {
    struct queue *q = &sh->queue[end];
    struct frame *before = NULL;
    *next_ns = UINT64_MAX;
    for (struct frame *f = q->head; f; before = f, f = f->next) {
        if (f->due_ns > now) {
            if (f->due_ns < *next_ns) *next_ns = f->due_ns;
            continue;
        }
        if (before)
            before->next = f->next;
        else
            q->head = f->next;
        if (q->tail == f) q->tail = before;
        pair_of(sh, f->from, end)->unsent--;
        pthread_cond_broadcast(&sh->space);
        return f;
    }
    return NULL;
}

/* Lock held. A worker hears of the coordinator only, the coordinator of every worker. -1: all are there. */
static int32_t lost_peer(struct shared *sh, int32_t end) {
    if (end != 0) return lost(sh, 0, end, 0) ? 0 : -1;
    for (int32_t w = 1; w < sh->n_end; w++)
        if (lost(sh, w, 0, w)) return w;
    return -1;
}

/* Lock held. */
static dr_status wait_frame(struct loop *ch, uint64_t deadline_ns, struct frame **out) {
    struct shared *sh = ch->sh;
    int32_t end = ch->base.end;
    for (;;) {
        uint64_t now = dr_clock_ns(), next = 0;
        *out = take_due(sh, end, now, &next);
        if (*out) {
            ch->base.idle_ns = 0;
            return dr_ok();
        }
        if (ch->base.idle_ns == 0) ch->base.idle_ns = now;
        int32_t peer =
            next == UINT64_MAX ? lost_peer(sh, end) : -1; /* what is under way is delivered first */
        if (peer >= 0) return dr_fail(DR_EPEER, "end %d: end %d is gone", end, peer);
        if (now >= deadline_ns) return dr_ok();
        wait_until(&sh->queue[end].news, &sh->lock, next < deadline_ns ? next : deadline_ns);
    }
}

static dr_status recv_frame(struct dr_channel *base, uint8_t *frame, size_t room, uint64_t deadline_ns,
                            int32_t *from, size_t *bytes) {
    struct loop *ch = (struct loop *)base;
    struct frame *f = NULL;
    *bytes = 0;
    pthread_mutex_lock(&ch->sh->lock);
    dr_status st = wait_frame(ch, deadline_ns, &f);
    pthread_mutex_unlock(&ch->sh->lock);
    if (!f) return st;
    if (f->bytes > room) {
        st = dr_fail(DR_EPROTO, "end %d: a frame of %zu bytes from end %d, room for %zu", base->end, f->bytes,
                     f->from, room);
    } else {
        memcpy(frame, f->data, f->bytes);
        *from = f->from;
        *bytes = f->bytes;
    }
    free(f);
    return st;
}

static void shared_free(struct shared *sh) {
    for (int32_t i = 0; i < sh->n_end; i++) {
        for (struct frame *f = sh->queue[i].head, *next; f; f = next) {
            next = f->next;
            free(f);
        }
        pthread_cond_destroy(&sh->queue[i].news);
    }
    pthread_cond_destroy(&sh->space);
    pthread_mutex_destroy(&sh->lock);
    free(sh->gone);
    free(sh->queue);
    free(sh->pair);
    free(sh);
}

static void wake_all(struct shared *sh) { /* lock held */
    for (int32_t i = 0; i < sh->n_end; i++) pthread_cond_broadcast(&sh->queue[i].news);
    pthread_cond_broadcast(&sh->space);
}

static void destroy(struct dr_channel *base) {
    struct loop *ch = (struct loop *)base;
    struct shared *sh = ch->sh;
    pthread_mutex_lock(&sh->lock);
    sh->gone[base->end] = true;
    bool last = --sh->n_alive == 0;
    wake_all(sh);
    pthread_mutex_unlock(&sh->lock);
    if (last) shared_free(sh);
    free(ch);
}

static const struct dr_channel_ops loop_ops = {.send = send_frame, .recv = recv_frame, .destroy = destroy};

static struct shared *shared_new(int32_t n_end) {
    size_t n = (size_t)n_end;
    struct shared *sh = calloc(1, sizeof *sh);
    if (!sh) return NULL;
    sh->gone = calloc(n, sizeof *sh->gone);
    sh->queue = calloc(n, sizeof *sh->queue);
    sh->pair = calloc(n * n, sizeof *sh->pair);
    if (!sh->gone || !sh->queue || !sh->pair) {
        free(sh->gone);
        free(sh->queue);
        free(sh->pair);
        free(sh);
        return NULL;
    }
    sh->n_end = sh->n_alive = n_end;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the clock of dr_clock_ns */
    pthread_mutex_init(&sh->lock, NULL);
    pthread_cond_init(&sh->space, &attr);
    for (size_t i = 0; i < n; i++) pthread_cond_init(&sh->queue[i].news, &attr);
    pthread_condattr_destroy(&attr);
    return sh;
}

dr_status dr_channel_loop_create(int32_t n_end, struct dr_channel **out) {
    if (n_end < 1 || n_end > DR_RANKS_MAX + 1)
        return dr_fail(DR_EINVAL, "loop channel: %d ends, allowed 1..%d", n_end, DR_RANKS_MAX + 1);
    struct shared *sh = shared_new(n_end);
    if (!sh) return dr_fail(DR_EFULL, "loop channel: no memory for %d ends", n_end);
    for (int32_t i = 0; i < n_end; i++) {
        struct loop *ch = calloc(1, sizeof *ch);
        if (!ch) {
            for (int32_t k = 0; k < i; k++) free(out[k]);
            shared_free(sh);
            return dr_fail(DR_EFULL, "loop channel: no memory for %d ends", n_end);
        }
        *ch = (struct loop){.base = {.ops = &loop_ops, .end = i, .n_end = n_end}, .sh = sh};
        out[i] = &ch->base;
    }
    return dr_ok();
}

void dr_channel_loop_fault(struct dr_channel *any, const struct dr_channel_fault *fault) {
    struct shared *sh = ((struct loop *)any)->sh;
    DR_ASSERT(any->ops == &loop_ops);
    pthread_mutex_lock(&sh->lock);
    for (int32_t from = 0; from < sh->n_end; from++)
        for (int32_t to = 0; to < sh->n_end; to++)
            if ((fault->from == DR_ANY_PEER || fault->from == from) &&
                (fault->to == DR_ANY_PEER || fault->to == to))
                pair_of(sh, from, to)->fault = *fault;
    wake_all(sh);
    pthread_mutex_unlock(&sh->lock);
}
