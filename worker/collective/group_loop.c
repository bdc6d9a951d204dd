/* group_loop.c - the group inside one process: members share memory and meet at a barrier.
 * In:   buffers of each member's thread.      Out: see group.h.
 * Owns: the state that the members share; the last member to be destroyed frees it.
 * Why:  a test process can run any tensor and pipeline layout as threads, with the order of additions of the
 * real cluster.
 *
 * Each member publishes its call, all meet, each reads what the others published, all meet again before
 * anyone goes on and may change its buffers. Calls that do not agree are refused by name instead of moving
 * wrong bytes. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "worker/collective/group.h"

enum {
    RESULT_FLOATS_LEAST = 4096,
    LINE_FLOATS = 16, /* 64-byte lines: two members do not write into one */
    MAIL_MAX = 2,     /* open sends of a pair */
    SPINS = 64,       /* looks at the barrier before yielding: about a microsecond */
    YIELDS = 32,      /* then before sleeping: tens of microseconds */
};

enum kind { CALL_NONE, CALL_ALLREDUCE, CALL_ALLGATHERV, CALL_ALLTOALLV };

static const char *const kind_names[] = {"nothing", "allreduce", "allgatherv", "alltoallv"};

struct call { /* what a member publishes */
    enum kind kind;
    size_t n; /* allreduce: floats */
    const void *in;
    const size_t *bytes, *at; /* allgatherv: of all members; alltoallv: what this member sends */
};

struct mail {
    struct mail *next;
    size_t bytes;
    char data[];
};

struct pair {
    struct mail *head, *tail;
    int32_t open;
};

struct shared {
    pthread_mutex_t lock;   /* gone, pair, and every change of generation and broken */
    pthread_cond_t turn;    /* generation, broken, gone or pair changed */
    atomic_uint generation; /* of the barrier */
    atomic_int arrived;
    atomic_bool broken;
    int32_t n, n_alive, n_gone;
    bool gone[DR_GROUP_MEMBERS_MAX];
    struct call call[DR_GROUP_MEMBERS_MAX];
    struct pair *pair; /* [from * n + to] */
    float *result[2];  /* sums of one piece; pieces take turns, so one barrier a piece is enough */
    size_t result_floats;
};

struct loop {
    struct dr_group base;
    struct shared *sh;
    unsigned turn; /* which result the next piece uses; equal on all members */
};

/* Lock held. Wakes up at the deadline at the latest. */
static void sleep_turn(struct loop *g) {
    struct shared *sh = g->sh;
    if (g->base.deadline_ns == 0) {
        pthread_cond_wait(&sh->turn, &sh->lock);
        return;
    }
    uint64_t until = g->base.deadline_ns;
    struct timespec t = dr_clock_timespec(until);
    pthread_cond_timedwait(&sh->turn, &sh->lock, &t);
}

static bool late(const struct loop *g) {
    return g->base.deadline_ns != 0 && dr_clock_ns() >= g->base.deadline_ns;
}

/* Lock held. Whoever leaves a call early breaks the group: the others can never complete it. */
static void break_locked(struct shared *sh) {
    atomic_store(&sh->broken, true);
    pthread_cond_broadcast(&sh->turn);
}

static dr_status broken(const struct loop *g) {
    return dr_fail(DR_EPEER, "group member %d of %d: the group is broken", g->base.me, g->base.n);
}

/* Lock held; the barrier did not open. */
static dr_status barrier_sleep(struct loop *g, unsigned generation) {
    struct shared *sh = g->sh;
    while (atomic_load(&sh->generation) == generation) {
        if (atomic_load(&sh->broken)) return broken(g);
        if (sh->n_gone > 0) {
            break_locked(sh);
            return dr_fail(DR_EPEER, "group member %d of %d: %d of the others are gone", g->base.me,
                           g->base.n, sh->n_gone);
        }
        if (late(g)) {
            break_locked(sh);
            return dr_fail(DR_ETIME, "group member %d of %d: deadline passed; %d members came", g->base.me,
                           g->base.n, atomic_load(&sh->arrived));
        }
        sleep_turn(g);
    }
    return dr_ok();
}

static dr_status barrier_wait(struct loop *g) {
    struct shared *sh = g->sh;
    unsigned generation = atomic_load(&sh->generation);
    if (atomic_load(&sh->broken)) return broken(g);
    if (atomic_fetch_add(&sh->arrived, 1) + 1 == sh->n) {
        pthread_mutex_lock(&sh->lock);
        bool open = !atomic_load(&sh->broken);
        if (open) {
            atomic_store(&sh->arrived, 0);
            atomic_fetch_add(&sh->generation, 1);
            pthread_cond_broadcast(&sh->turn);
        }
        pthread_mutex_unlock(&sh->lock);
        return open ? dr_ok() : broken(g);
    }
    for (int i = 0; i < SPINS + YIELDS; i++) {
        if (atomic_load(&sh->generation) != generation) return dr_ok();
        if (i >= SPINS) sched_yield();
    }
    pthread_mutex_lock(&sh->lock);
    dr_status st = barrier_sleep(g, generation);
    pthread_mutex_unlock(&sh->lock);
    return st;
}

static dr_status barrier(struct loop *g) {
    uint64_t begin = dr_clock_ns();
    dr_status st = barrier_wait(g);
    g->base.wait_ns += dr_clock_ns() - begin;
    return st;
}

/* Publishes and meets the others. */
static dr_status enter(struct loop *g, struct call call) {
    struct shared *sh = g->sh;
    sh->call[g->base.me] = call;
    DR_TRY(barrier(g));
    for (int32_t m = 0; m < sh->n; m++) {
        if (sh->call[m].kind == call.kind && sh->call[m].n == call.n) continue;
        dr_group_loop_break(&g->base);
        return dr_fail(DR_EPROTO, "group member %d is in %s of %zu, member %d in %s of %zu", g->base.me,
                       kind_names[call.kind], call.n, m, kind_names[sh->call[m].kind], sh->call[m].n);
    }
    return dr_ok();
}

static dr_status same_bytes(struct loop *g, int32_t from, size_t sent, size_t expected) {
    if (sent == expected) return dr_ok();
    dr_group_loop_break(&g->base);
    return dr_fail(DR_EPROTO, "group member %d: member %d sends %zu bytes, expected %zu", g->base.me, from,
                   sent, expected);
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static dr_status allreduce(struct dr_group *base, float *x, size_t n, struct dr_stream *s) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    (void)s;
    if (base->n == 1 || n == 0) return dr_ok();
    DR_TRY(enter(g, (struct call){.kind = CALL_ALLREDUCE, .n = n, .in = x}));
    const float *part[DR_GROUP_MEMBERS_MAX];
    for (size_t at = 0; at < n; at += sh->result_floats) {
        size_t len = smaller(sh->result_floats, n - at);
        size_t share = (len / (size_t)base->n / LINE_FLOATS + 1) * LINE_FLOATS;
        size_t begin = smaller(share * (size_t)base->me, len), end = smaller(begin + share, len);
        if (base->me == base->n - 1) end = len;
        float *result = sh->result[g->turn++ % 2];
        for (int32_t m = 0; m < base->n; m++) part[m] = (const float *)sh->call[m].in + at + begin;
        dr_group_sum(result + begin, part, base->n, end - begin);
        DR_TRY(barrier(g));
        memcpy(x + at, result, len * sizeof *x);
        base->sent_bytes +=
            2 * (size_t)(base->n - 1) * (end - begin) * sizeof *x; /* as the slice-wise form over MPI */
    }
    return dr_ok();
}

static dr_status allgatherv(struct dr_group *base, const void *mine, void *out, const size_t *bytes,
                            const size_t *at, struct dr_stream *s) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    (void)s;
    char *own = (char *)out + at[base->me];
    if (base->n > 1)
        DR_TRY(enter(g, (struct call){.kind = CALL_ALLGATHERV, .in = mine, .bytes = bytes, .at = at}));
    for (int32_t m = 0; m < base->n; m++) {
        if (m == base->me || bytes[m] == 0) continue;
        DR_TRY(same_bytes(g, m, sh->call[m].bytes[m], bytes[m]));
        memcpy((char *)out + at[m], sh->call[m].in, bytes[m]);
    }
    if (bytes[base->me] > 0 && mine != own) memmove(own, mine, bytes[base->me]);
    base->sent_bytes += (size_t)(base->n - 1) * bytes[base->me];
    return base->n > 1 ? barrier(g) : dr_ok();
}

static dr_status alltoallv(struct dr_group *base, const void *in, const size_t *send_bytes,
                           const size_t *send_at, void *out, const size_t *recv_bytes, const size_t *recv_at,
                           struct dr_stream *s) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    (void)s;
    if (base->n > 1)
        DR_TRY(enter(g, (struct call){.kind = CALL_ALLTOALLV, .in = in, .bytes = send_bytes, .at = send_at}));
    for (int32_t m = 0; m < base->n; m++) {
        const struct call *c = &sh->call[m];
        const char *from =
            m == base->me ? (const char *)in + send_at[m] : (const char *)c->in + c->at[base->me];
        DR_TRY(same_bytes(g, m, m == base->me ? send_bytes[m] : c->bytes[base->me], recv_bytes[m]));
        if (recv_bytes[m] > 0) memcpy((char *)out + recv_at[m], from, recv_bytes[m]);
        if (m != base->me) base->sent_bytes += send_bytes[m];
    }
    return base->n > 1 ? barrier(g) : dr_ok();
}

/* Lock held. Why a wait for `peer` must end, if it must. */
static dr_status mail_lost(struct loop *g, int32_t peer) {
    if (atomic_load(&g->sh->broken)) return broken(g);
    if (g->sh->gone[peer]) return dr_fail(DR_EPEER, "group member %d: member %d is gone", g->base.me, peer);
    if (!late(g)) return dr_ok();
    break_locked(g->sh);
    return dr_fail(DR_ETIME, "group member %d: deadline passed while waiting for member %d", g->base.me,
                   peer);
}

static dr_status send_mail(struct dr_group *base, int32_t to, const void *x, size_t bytes,
                           struct dr_stream *s) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    (void)s;
    DR_ASSERT(to >= 0 && to < base->n && to != base->me);
    struct mail *mail = malloc(sizeof *mail + bytes);
    if (!mail)
        return dr_fail(DR_EFULL, "group member %d: no memory for %zu bytes to member %d", base->me, bytes,
                       to);
    *mail = (struct mail){.bytes = bytes};
    if (bytes > 0) memcpy(mail->data, x, bytes);
    struct pair *p = &sh->pair[base->me * base->n + to];
    uint64_t begin = dr_clock_ns();
    dr_status st = dr_ok();
    pthread_mutex_lock(&sh->lock);
    while (st.code == DR_OK && p->open >= MAIL_MAX) {
        st = mail_lost(g, to);
        if (st.code == DR_OK) sleep_turn(g);
    }
    if (st.code == DR_OK && atomic_load(&sh->broken)) st = broken(g);
    if (st.code == DR_OK) {
        if (p->tail)
            p->tail->next = mail;
        else
            p->head = mail;
        p->tail = mail;
        p->open++;
        pthread_cond_broadcast(&sh->turn);
    }
    pthread_mutex_unlock(&sh->lock);
    base->wait_ns += dr_clock_ns() - begin;
    base->sent_bytes += bytes;
    if (st.code != DR_OK) free(mail);
    return st;
}

static dr_status recv_mail(struct dr_group *base, int32_t from, void *x, size_t bytes, struct dr_stream *s) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    (void)s;
    DR_ASSERT(from >= 0 && from < base->n && from != base->me);
    struct pair *p = &sh->pair[from * base->n + base->me];
    uint64_t begin = dr_clock_ns();
    dr_status st = dr_ok();
    pthread_mutex_lock(&sh->lock);
    while (st.code == DR_OK && !p->head) { /* what was sent before the sender left is delivered */
        st = mail_lost(g, from);
        if (st.code == DR_OK) sleep_turn(g);
    }
    struct mail *mail = st.code == DR_OK ? p->head : NULL;
    if (mail) {
        p->head = mail->next;
        if (!p->head) p->tail = NULL;
        p->open--;
        pthread_cond_broadcast(&sh->turn);
    }
    pthread_mutex_unlock(&sh->lock);
    base->wait_ns += dr_clock_ns() - begin;
    if (!mail) return st;
    st = same_bytes(g, from, mail->bytes, bytes);
    if (st.code == DR_OK && bytes > 0) memcpy(x, mail->data, bytes);
    free(mail);
    return st;
}

static void poll_nothing(struct dr_group *g) {
    (void)g; /* shared memory moves by itself */
}

static void shared_free(struct shared *sh) {
    for (int32_t i = 0; sh->pair && i < sh->n * sh->n; i++)
        for (struct mail *m = sh->pair[i].head, *next; m; m = next) {
            next = m->next;
            free(m);
        }
    pthread_mutex_destroy(&sh->lock);
    pthread_cond_destroy(&sh->turn);
    free(sh->pair);
    free(sh->result[0]);
    free(sh->result[1]);
    free(sh);
}

static void destroy(struct dr_group *base) {
    struct loop *g = (struct loop *)base;
    struct shared *sh = g->sh;
    pthread_mutex_lock(&sh->lock);
    sh->gone[base->me] = true;
    sh->n_gone++;
    bool last = --sh->n_alive == 0;
    pthread_cond_broadcast(&sh->turn);
    pthread_mutex_unlock(&sh->lock);
    if (last) shared_free(sh);
    free(g);
}

void dr_group_loop_break(struct dr_group *any) {
    struct shared *sh = ((struct loop *)any)->sh;
    pthread_mutex_lock(&sh->lock);
    break_locked(sh);
    pthread_mutex_unlock(&sh->lock);
}

static const struct dr_group_ops loop_ops = {
    .name = "loop",
    .allreduce = allreduce,
    .allgatherv = allgatherv,
    .alltoallv = alltoallv,
    .send = send_mail,
    .recv = recv_mail,
    .poll = poll_nothing,
    .destroy = destroy,
};

static struct shared *shared_new(int32_t n, size_t buffer_bytes) {
    struct shared *sh = calloc(1, sizeof *sh);
    if (!sh) return NULL;
    sh->n = sh->n_alive = n;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the clock of dr_clock_ns */
    pthread_mutex_init(&sh->lock, NULL);
    pthread_cond_init(&sh->turn, &attr);
    pthread_condattr_destroy(&attr);
    size_t floats = buffer_bytes / 2 / sizeof(float);
    sh->result_floats = floats < RESULT_FLOATS_LEAST ? RESULT_FLOATS_LEAST : floats;
    sh->pair = calloc((size_t)n * (size_t)n, sizeof *sh->pair);
    sh->result[0] = malloc(sh->result_floats * sizeof(float));
    sh->result[1] = malloc(sh->result_floats * sizeof(float));
    if (sh->pair && sh->result[0] && sh->result[1]) return sh;
    shared_free(sh);
    return NULL;
}

dr_status dr_group_loop_create(int32_t n, size_t buffer_bytes, struct dr_group **out) {
    if (n < 1 || n > DR_GROUP_MEMBERS_MAX)
        return dr_fail(DR_EINVAL, "loop group: %d members, allowed 1..%d", n, DR_GROUP_MEMBERS_MAX);
    struct shared *sh = shared_new(n, buffer_bytes);
    if (!sh)
        return dr_fail(DR_EFULL, "loop group: no memory for %d members and %zu bytes of buffer", n,
                       buffer_bytes);
    for (int32_t i = 0; i < n; i++) {
        struct loop *g = calloc(1, sizeof *g);
        if (!g) {
            for (int32_t k = 0; k < i; k++) free(out[k]);
            shared_free(sh);
            return dr_fail(DR_EFULL, "loop group: no memory for %d members", n);
        }
        *g = (struct loop){.base = {.ops = &loop_ops, .n = n, .me = i}, .sh = sh};
        out[i] = &g->base;
    }
    return dr_ok();
}
