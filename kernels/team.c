/* team.c - a thread team that costs nothing while it waits.
 * In:   jobs from one caller.      Out: every piece run once, by the caller or a worker.
 * Owns: the workers, the job and the words they wait on.
 * Why:  an OpenMP runtime spins for 10 ms after every region before it sleeps; a rank that waits for its next
 * plan must use no processor.
 *
 * A job is published by one 64-bit word: generation in the high half, next piece in the low half. A worker
 * takes a piece by compare-and-swap on that word, so it can never take a piece of a job whose numbers it has
 * not read: numbers change only while the word says "closed", and every change of the word lets the swap of a
 * late worker fail. Nobody waits for a worker that sleeps through a job; the caller waits for pieces, not for
 * threads. */
#include "kernels/team.h"

#include <fenv.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Waiting: about 10 us of pauses, then give the processor away, then sleep. Longer spins steal time from
 * ranks on the same cores. */
enum { PAUSES = 200, YIELDS = 300, THREADS_MAX = 4096, LINE = 128 };

static const uint32_t closed = UINT32_MAX; /* as next piece: nothing to take, since a job has fewer */

struct worker {
    struct dr_team *team;
    pthread_t thread;
    int32_t index;
};

struct dr_team {
    _Alignas(LINE) _Atomic uint64_t claim; /* generation << 32 | next piece */
    /* the job; written only while claim says closed */
    _Atomic(dr_team_fn *) fn;
    _Atomic(void *) arg;
    _Atomic int64_t n, grain;
    _Atomic uint32_t pieces;
    _Alignas(LINE) _Atomic uint32_t done; /* pieces finished of this job; futex of the caller */
    _Atomic uint32_t caller_sleeps;
    _Alignas(LINE) _Atomic uint32_t bell; /* futex of the workers */
    _Atomic int32_t sleepers;
    _Atomic bool stop;
    int32_t size, started; /* threads with the caller; workers to be joined */
    struct worker worker[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL,
            0); /* any return means: look again */
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* One step of the ladder; false when it is time to sleep. */
static bool linger(int *turn) {
    if (*turn < PAUSES)
        __builtin_ia32_pause();
    else if (*turn < PAUSES + YIELDS)
        sched_yield();
    else
        return false;
    ++*turn;
    return true;
}

/* Takes and runs pieces until none is left. Returns the generation seen last. */
static uint32_t run_pieces(struct dr_team *t, int32_t thread) {
    uint64_t claim = atomic_load_explicit(&t->claim, memory_order_acquire);
    for (;;) {
        uint32_t piece = (uint32_t)claim;
        uint32_t pieces = atomic_load_explicit(&t->pieces, memory_order_relaxed);
        int64_t n = atomic_load_explicit(&t->n, memory_order_relaxed);
        int64_t grain = atomic_load_explicit(&t->grain, memory_order_relaxed);
        dr_team_fn *fn = atomic_load_explicit(&t->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&t->arg, memory_order_relaxed);
        if (piece >= pieces) return (uint32_t)(claim >> 32);
        if (!atomic_compare_exchange_weak_explicit(&t->claim, &claim, claim + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        int64_t begin = (int64_t)piece * grain, end = n - begin < grain ? n : begin + grain;
        fn(arg, begin, end, thread);
        if (atomic_fetch_add(&t->done, 1) + 1 == pieces && atomic_load(&t->caller_sleeps))
            futex_wake(&t->done);
        claim++;
    }
}

/* Until the generation differs from `seen` or the team stops. */
static void await_job(struct dr_team *t, uint32_t seen) {
    for (int turn = 0;;) {
        if ((uint32_t)(atomic_load_explicit(&t->claim, memory_order_acquire) >> 32) != seen) return;
        if (linger(&turn)) continue;
        uint32_t bell = atomic_load(&t->bell);
        atomic_fetch_add(&t->sleepers,
                         1); /* before the look: the caller looks at sleepers after it has published */
        if ((uint32_t)(atomic_load(&t->claim) >> 32) == seen && !atomic_load(&t->stop))
            futex_wait(&t->bell, bell);
        atomic_fetch_sub(&t->sleepers, 1);
        if (atomic_load(&t->stop)) return;
    }
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    fesetenv(FE_DFL_ENV); /* denormals are kept, rounding is to nearest: decoding FP8 needs both */
    for (uint32_t seen = 0; !atomic_load(&w->team->stop);) {
        await_job(w->team, seen);
        seen = run_pieces(w->team, w->index);
    }
    return NULL;
}

static int32_t processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

dr_status dr_team_create(int32_t n_thread, struct dr_team **out) {
    int32_t size = n_thread > 0 ? n_thread : processors();
    if (size > THREADS_MAX)
        return dr_fail(DR_EFULL, "a team of %d threads: at most %d are started; ask for fewer", size,
                       THREADS_MAX);
    size_t bytes = sizeof(struct dr_team) + (size_t)size * sizeof(struct worker);
    struct dr_team *t = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (!t) return dr_fail(DR_EFULL, "a team of %d threads: no memory for its %zu bytes", size, bytes);
    *t = (struct dr_team){.size = size};
    atomic_store(&t->claim, closed);
    fesetenv(FE_DFL_ENV);
    for (int32_t i = 1; i < size; i++) {
        t->worker[i] = (struct worker){.team = t, .index = i};
        int e = pthread_create(&t->worker[i].thread, NULL, worker_main, &t->worker[i]);
        if (e != 0) {
            dr_team_destroy(t);
            return dr_fail(DR_EFULL, "thread %d of %d cannot be started (error %d); ask for fewer threads",
                           i + 1, size, e);
        }
        t->started++;
    }
    *out = t;
    return dr_ok();
}

void dr_team_destroy(struct dr_team *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->claim, (uint64_t)1 << 32); /* those that still spin look at the generation only */
    atomic_fetch_add(&t->bell, 1);
    futex_wake(&t->bell);
    for (int32_t i = 1; i <= t->started; i++) pthread_join(t->worker[i].thread, NULL);
    free(t);
}

int32_t dr_team_size(const struct dr_team *t) {
    return t->size;
}

dr_status dr_team_pin(struct dr_team *t, const int32_t *cpu) {
    for (int32_t i = 0; i < t->size; i++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        if (cpu[i] >= 0 && cpu[i] < CPU_SETSIZE) CPU_SET((size_t)cpu[i], &set);
        int e = pthread_setaffinity_np(i == 0 ? pthread_self() : t->worker[i].thread, sizeof set, &set);
        if (e != 0)
            return dr_fail(DR_EDEVICE, "thread %d of %d cannot be bound to processor %d (error %d)", i,
                           t->size, cpu[i], e);
    }
    return dr_ok();
}

static void await_done(struct dr_team *t, uint32_t pieces) {
    for (int turn = 0; atomic_load(&t->done) != pieces;) {
        if (linger(&turn)) continue;
        atomic_store(&t->caller_sleeps, 1);
        uint32_t done = atomic_load(&t->done);
        if (done != pieces) futex_wait(&t->done, done);
        atomic_store(&t->caller_sleeps, 0);
    }
}

void dr_team_for(struct dr_team *t, int64_t n, int64_t grain, dr_team_fn *fn, void *arg) {
    DR_ASSERT(n >= 0 && grain > 0);
    int64_t pieces = n / grain + (n % grain != 0);
    DR_ASSERT(pieces < closed);
    if (t->size == 1 || pieces <= 1) {
        for (int64_t i = 0; i < n; i += grain) fn(arg, i, n - i < grain ? n : i + grain, 0);
        return;
    }
    uint64_t generation = atomic_load_explicit(&t->claim, memory_order_relaxed) >> 32;
    atomic_exchange(&t->claim,
                    generation << 32 | closed); /* an exchange: the stores below may not move before it */
    atomic_store_explicit(&t->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&t->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&t->n, n, memory_order_relaxed);
    atomic_store_explicit(&t->grain, grain, memory_order_relaxed);
    atomic_store_explicit(&t->pieces, (uint32_t)pieces, memory_order_relaxed);
    atomic_store(&t->done, 0);
    atomic_store(
        &t->claim,
        (generation + 1) << 32); /* open; 2^32 jobs later the number wraps, which only costs a worker a job */
    if (atomic_load(&t->sleepers) > 0) {
        atomic_fetch_add(&t->bell, 1);
        futex_wake(&t->bell);
    }
    run_pieces(t, 0);
    await_done(t, (uint32_t)pieces);
}
