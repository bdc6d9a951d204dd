/* shm_wait.c - waiting for a word of another process.
 * In:   words in shared memory.      Out: see shm.h.
 * Owns: nothing.
 * Why:  an answer within a step is near, but ranks may share cores: a long spin is stolen from the very rank
 * that is waited for, so the processor is given up early and then left alone. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/collective/shm.h"

enum { PAUSES = 200, YIELDS = 300 }; /* about 10 us, then as many turns of the processor; then sleep */

/* How long a sleep lasts before the deadline and the other process are looked at; and while sends of another
 * group need polling. */
static const uint64_t LOOK_NS = 100000000, POLL_NS = 1000000;

static bool reached(_Atomic uint32_t *word, uint32_t want) {
    return (int32_t)(atomic_load_explicit(word, memory_order_acquire) - want) >= 0;
}

void dr_shm_tell(struct dr_shm_control *home, _Atomic uint32_t *word, uint32_t value) {
    atomic_store(word, value); /* before the look at sleepers, who look at the word after they said so */
    if (atomic_load(&home->sleepers) > 0)
        syscall(SYS_futex, (void *)word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void nap(struct dr_shm_control *home, _Atomic uint32_t *word, uint32_t want, uint64_t ns) {
    struct timespec t = dr_clock_timespec(ns);
    atomic_fetch_add(&home->sleepers, 1);
    uint32_t seen = atomic_load(word);
    if ((int32_t)(seen - want) < 0)
        syscall(SYS_futex, (void *)word, FUTEX_WAIT, seen, &t, NULL, 0); /* any return means: look again */
    atomic_fetch_sub(&home->sleepers, 1);
}

static bool ended(int process) {
    struct pollfd p = {.fd = process, .events = POLLIN};
    return process >= 0 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

/* After the spins: sleeps until the word is there, or something is wrong. */
static dr_status sleep_for(struct dr_shm *g, int32_t of, struct dr_shm_control *home, _Atomic uint32_t *word,
                           uint32_t want, const char *what) {
    uint64_t looked = dr_clock_ns();
    while (!reached(word, want)) {
        uint64_t now = dr_clock_ns(), until = g->base.deadline_ns;
        if (until != 0 && now >= until)
            return dr_fail(DR_ETIME, "group member %d of %d: %s: deadline passed while waiting for member %d",
                           g->base.me, g->base.n, what, of);
        if (now - looked >= LOOK_NS) {
            looked = now;
            if (ended(g->process[of]) && !reached(word, want))
                return dr_fail(DR_EPEER, "group member %d of %d: %s: the process of member %d has ended",
                               g->base.me, g->base.n, what, of);
        }
        uint64_t ns = g->base.meanwhile ? POLL_NS : LOOK_NS;
        if (until != 0 && until - now < ns) ns = until - now;
        nap(home, word, want, ns);
        if (g->base.meanwhile) g->base.meanwhile->ops->poll(g->base.meanwhile);
    }
    return dr_ok();
}

dr_status dr_shm_await(struct dr_shm *g, int32_t of, struct dr_shm_control *home, _Atomic uint32_t *word,
                       uint32_t want, const char *what) {
    if (reached(word, want)) return dr_ok();
    uint64_t begin = dr_clock_ns();
    dr_status st = dr_ok();
    for (int turn = 0; !reached(word, want); turn++) {
        if (turn < PAUSES) {
            __builtin_ia32_pause();
        } else if (turn < PAUSES + YIELDS) {
            if (g->base.meanwhile) g->base.meanwhile->ops->poll(g->base.meanwhile);
            sched_yield();
        } else {
            st = sleep_for(g, of, home, word, want, what);
            break;
        }
    }
    g->base.wait_ns += dr_clock_ns() - begin;
    if (st.code != DR_OK) g->failed = true;
    return st;
}

dr_status dr_shm_usable(const struct dr_shm *g) {
    if (!g->failed) return dr_ok();
    return dr_fail(DR_EPEER, "group member %d of %d: an earlier call failed", g->base.me, g->base.n);
}
