/* channel_mpi.c - the channel between processes: non-blocking MPI, tests and sleeps.
 * In:   frames to send, messages of the peers.      Out: messages, whole frames.
 * Owns: MPI itself (init to finalize), a duplicate of the world, one posted receive a peer, the buffers of
 * unsent frames, bells of the processes on the coordinator's host, the thread that hears the coordinator's,
 * and the lock that every MPI call of the process holds.
 * Why:  a rank that waits inside MPI can neither be timed out nor sleep; here every wait is a loop of tests
 * that has a deadline and costs less the longer nothing comes.
 *
 * Bells: a test after a sleep costs 30 to 70 us, so a process that looks often costs more than one that works
 * seldom. On the coordinator's host every process sleeps long on a word of its own in shared memory; who
 * sends it a frame changes the word. The coordinator also waits for the gateway's socket: a thread hears its
 * bell and writes to an eventfd. A bell only says "look now, and look often for a while": a frame that MPI
 * has not delivered yet, or a bell that nobody hears, costs a delay and nothing else. */
#include <linux/futex.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/channel.h"

enum {
    TAG_FRAME = 1,
    FRAME_MAX = DR_FRAME_HEADER + DR_MPI_FRAME_MAX,
    SLOT_ROOM_LEAST = 4096, /* buffers of unsent frames grow by doubling and are used again */
    BELL_LINE = 128,        /* a pair of cache lines */
};

/* How long to wait before the next test, by how long nothing came. Yields first: an answer within a step is
 * near. Then 1/20 of the silence, so that waiting adds a twentieth of a step at most. When idle: a test after
 * a sleep costs 30 to 70 us, so 18 ms are 0.2 to 0.4 % of a core, and the first frame after any idle time is
 * seen within 25 ms. */
static const uint64_t YIELD_NS = 200000, SLEEP_LEAST_NS = 20000, SLEEP_STEP_MOST_NS = 1000000,
                      IDLE_NS = 100000000, SLEEP_IDLE_MOST_NS = 18000000;
static const uint64_t BELL_SLEEP_NS = 250000000;  /* with a bell */
static const uint64_t SEND_WAIT_NS = 5000000000u; /* a silent peer may stay undetected as long */
static const uint64_t LEAVE_NS = 2000000000u;     /* what destroy gives the last frames */

static pthread_mutex_t mpi_lock =
    PTHREAD_MUTEX_INITIALIZER; /* guards MPI and the channel's send state; taken alone */

void dr_mpi_lock(void) {
    pthread_mutex_lock(&mpi_lock);
}

void dr_mpi_unlock(void) {
    pthread_mutex_unlock(&mpi_lock);
}

struct slot { /* a frame on its way */
    uint8_t *data;
    size_t room;
    int32_t to;
};

struct bell {
    _Alignas(BELL_LINE) _Atomic uint32_t rung; /* by the sender, after each frame; futex of the receiver */
    _Atomic uint32_t asleep;
};

struct ear { /* of a coordinator whose workers are all on its host */
    pthread_t thread;
    int fd; /* eventfd; -1: no ear */
    _Atomic bool stop;
    uint32_t heard;   /* bell's word before the last test */
    uint32_t taken;   /* frames: fewer than the bell has rung are on their way */
    uint64_t late_ns; /* since when they are */
};

struct mpi {
    struct dr_channel base;
    MPI_Comm comm;
    struct bell **bell; /* [n_peer] NULL: on another host than the coordinator */
    struct bell *own;   /* the same */
    struct ear ear;
    int32_t n_peer, first_peer; /* peer i is end first_peer + i */
    uint8_t **in;               /* [n_peer] FRAME_MAX each */
    MPI_Request *posted;        /* [n_peer] */
    int *ready; /* peers whose receive has completed and is not yet taken: ready[next_ready .. n_ready) */
    MPI_Status *status;
    int n_ready, next_ready;
    int32_t *unsent; /* [n_peer] */
    int32_t n_flight, n_spare, n_slot_max;
    MPI_Request *flight; /* [n_slot_max]; request i belongs to slot i */
    struct slot *slot;   /* [n_slot_max]: n_flight in use, then n_spare free ones that keep their buffers */
    int *done;           /* [n_slot_max] for MPI_Testsome */
    uint64_t busy_ns;    /* last frame in or out; beats do not count */
};

static dr_status mpi_ok(int rc, const char *what, int32_t peer) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (rc == MPI_SUCCESS) return dr_ok();
    MPI_Error_string(rc, text, &n);
    return dr_fail(DR_EPEER, "MPI %s end %d: %s", what, peer, text);
}

static int32_t peer_index(const struct mpi *ch, int32_t end) {
    return end - ch->first_peer;
}

/* Lock held. A beat each second is no sign that work is near: without this it would keep an idle process from
 * long sleeps. */
static void note_busy(struct mpi *ch, const uint8_t *frame, size_t bytes) {
    bool beat = bytes >= DR_FRAME_HEADER && (frame[6] | frame[7] << 8) == DR_MSG_BEAT;
    if (!beat) ch->busy_ns = dr_clock_ns();
}

/* ---- sending; lock held ---- */

static int by_number_down(const void *a, const void *b) {
    return *(const int *)b - *(const int *)a;
}

/* Gives back the slots of frames that have left. */
static dr_status reap(struct mpi *ch) {
    int n = 0;
    if (ch->n_flight == 0) return dr_ok();
    int rc = MPI_Testsome(ch->n_flight, ch->flight, &n, ch->done, MPI_STATUSES_IGNORE);
    DR_TRY(mpi_ok(rc, "send from", ch->base.end));
    if (n == MPI_UNDEFINED || n == 0) return dr_ok();
    qsort(ch->done, (size_t)n, sizeof *ch->done,
          by_number_down); /* from the end, so that indices stay good */
    for (int i = 0; i < n; i++) {
        int at = ch->done[i], last = --ch->n_flight;
        struct slot spare = ch->slot[at];
        ch->unsent[peer_index(ch, spare.to)]--;
        ch->slot[at] = ch->slot[last];
        ch->flight[at] = ch->flight[last];
        ch->slot[last] = spare;
        ch->n_spare++;
    }
    return dr_ok();
}

static dr_status slot_take(struct mpi *ch, size_t bytes, struct slot **out) {
    DR_ASSERT(ch->n_flight < ch->n_slot_max);
    struct slot *s = &ch->slot[ch->n_flight];
    if (ch->n_spare == 0) *s = (struct slot){0};
    if (s->room < bytes) {
        size_t room = s->room ? s->room : SLOT_ROOM_LEAST;
        while (room < bytes) room *= 2;
        uint8_t *data = realloc(s->data, room);
        if (!data)
            return dr_fail(DR_EFULL, "end %d: no memory for a frame of %zu bytes", ch->base.end, bytes);
        s->data = data;
        s->room = room;
        if (ch->n_spare == 0) ch->n_spare = 1;
    }
    *out = s;
    return dr_ok();
}

static dr_status send_locked(struct mpi *ch, int32_t to, const uint8_t *frame, size_t bytes, bool *full) {
    struct slot *s = NULL;
    DR_TRY(reap(ch));
    *full = ch->unsent[peer_index(ch, to)] >= DR_CHANNEL_UNSENT_MAX;
    if (*full) return dr_ok();
    DR_TRY(slot_take(ch, bytes, &s));
    memcpy(s->data, frame, bytes);
    s->to = to;
    int rc = MPI_Isend(s->data, (int)bytes, MPI_BYTE, to, TAG_FRAME, ch->comm, &ch->flight[ch->n_flight]);
    DR_TRY(mpi_ok(rc, "send to", to));
    ch->n_flight++;
    ch->n_spare--;
    ch->unsent[peer_index(ch, to)]++;
    note_busy(ch, frame, bytes);
    return reap(ch); /* a small frame has left already */
}

/* Wakes a process that sleeps long. */
static void ring(struct bell *b) {
    if (!b) return;
    atomic_fetch_add(&b->rung, 1); /* before the look: the sleeper looks at the word after it has said so */
    if (atomic_load(&b->asleep)) syscall(SYS_futex, (void *)&b->rung, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static dr_status send_frame(struct dr_channel *base, int32_t to, const uint8_t *frame, size_t bytes) {
    struct mpi *ch = (struct mpi *)base;
    DR_ASSERT(to >= ch->first_peer && to < ch->first_peer + ch->n_peer);
    if (bytes > FRAME_MAX)
        return dr_fail(DR_EFULL, "end %d: a frame of %zu bytes, allowed 0..%d", base->end, bytes, FRAME_MAX);
    uint64_t until = dr_clock_ns() + SEND_WAIT_NS;
    for (;;) {
        bool full = false;
        dr_mpi_lock();
        dr_status st = send_locked(ch, to, frame, bytes, &full);
        dr_mpi_unlock();
        if (st.code == DR_OK && !full) ring(ch->bell[peer_index(ch, to)]);
        if (st.code != DR_OK || !full) return st;
        if (base->end == 0 || dr_clock_ns() >= until)
            return dr_fail(DR_EPEER, "end %d: %d frames to end %d are unsent; it does not take them",
                           base->end, DR_CHANNEL_UNSENT_MAX, to);
        dr_clock_sleep_ns(SLEEP_LEAST_NS);
    }
}

/* ---- receiving ---- */

static dr_status post(struct mpi *ch, int32_t i) { /* lock held */
    int32_t end = ch->first_peer + i;
    return mpi_ok(MPI_Irecv(ch->in[i], FRAME_MAX, MPI_BYTE, end, TAG_FRAME, ch->comm, &ch->posted[i]),
                  "receive from", end);
}

static dr_status test(struct mpi *ch) { /* lock held */
    int n = 0;
    DR_TRY(reap(ch));
    if (ch->next_ready < ch->n_ready || ch->n_peer == 0) return dr_ok();
    int rc = MPI_Testsome(ch->n_peer, ch->posted, &n, ch->ready, ch->status);
    if (rc == MPI_SUCCESS && n == 0) /* the first one took in what has arrived, after it had looked */
        rc = MPI_Testsome(ch->n_peer, ch->posted, &n, ch->ready, ch->status);
    ch->next_ready = 0;
    ch->n_ready = n == MPI_UNDEFINED ? 0 : n;
    return mpi_ok(rc, "receive at", ch->base.end);
}

/* Lock held. Takes one completed receive, peers in turn, and posts it again. */
static dr_status take(struct mpi *ch, uint8_t *frame, size_t room, int32_t *from, size_t *bytes) {
    int at = ch->next_ready++, i = ch->ready[at], n = 0;
    DR_TRY(mpi_ok(MPI_Get_count(&ch->status[at], MPI_BYTE, &n), "receive from", ch->first_peer + i));
    bool fits = n > 0 && (size_t)n <= room;
    if (fits) {
        memcpy(frame, ch->in[i], (size_t)n);
        *from = ch->first_peer + i;
        *bytes = (size_t)n;
    }
    note_busy(ch, ch->in[i], (size_t)n);
    ch->ear.taken++;
    DR_TRY(post(ch, i));
    if (fits) return dr_ok();
    return dr_fail(DR_EPROTO, "end %d: a frame of %d bytes from end %d, room for %zu", ch->base.end, n,
                   ch->first_peer + i, room);
}

/* Until the bell has rung since `seen` was read, or ns have passed. */
static void await_bell(struct mpi *ch, uint32_t seen, uint64_t ns) {
    struct timespec t = dr_clock_timespec(ns);
    struct bell *b = ch->own;
    atomic_store(&b->asleep, 1);
    if (atomic_load(&b->rung) == seen) syscall(SYS_futex, (void *)&b->rung, FUTEX_WAIT, seen, &t, NULL, 0);
    atomic_store(&b->asleep, 0);
    if (atomic_load(&b->rung) == seen) return;
    dr_mpi_lock();
    ch->busy_ns = dr_clock_ns();
    dr_mpi_unlock();
}

static void pause_for(uint64_t busy_ns, uint64_t now, uint64_t deadline_ns) {
    uint64_t quiet = now > busy_ns ? now - busy_ns : 0, sleep = 0;
    if (quiet < YIELD_NS) {
        sched_yield();
        return;
    }
    if (quiet < IDLE_NS) {
        sleep = quiet / 20 < SLEEP_LEAST_NS ? SLEEP_LEAST_NS : quiet / 20;
        if (sleep > SLEEP_STEP_MOST_NS) sleep = SLEEP_STEP_MOST_NS;
    } else {
        sleep = quiet / 50 > SLEEP_IDLE_MOST_NS ? SLEEP_IDLE_MOST_NS : quiet / 50;
    }
    if (sleep > deadline_ns - now) sleep = deadline_ns - now;
    dr_clock_sleep_ns(sleep);
}

static dr_status recv_frame(struct dr_channel *base, uint8_t *frame, size_t room, uint64_t deadline_ns,
                            int32_t *from, size_t *bytes) {
    struct mpi *ch = (struct mpi *)base;
    *bytes = 0;
    for (;;) {
        uint32_t rung = ch->own ? atomic_load(&ch->own->rung) : 0; /* before the test: none is missed */
        ch->ear.heard = rung;
        dr_mpi_lock();
        dr_status st = test(ch);
        bool any = st.code == DR_OK && ch->next_ready < ch->n_ready;
        if (any) st = take(ch, frame, room, from, bytes);
        uint64_t busy = ch->busy_ns;
        dr_mpi_unlock();
        if (any) base->idle_ns = 0;
        if (any || st.code != DR_OK) return st;
        uint64_t now = dr_clock_ns();
        if (base->idle_ns == 0) base->idle_ns = now;
        if (now >= deadline_ns) return dr_ok();
        if (ch->own && now > busy + IDLE_NS)
            await_bell(ch, rung, deadline_ns - now < BELL_SLEEP_NS ? deadline_ns - now : BELL_SLEEP_NS);
        else
            pause_for(busy, now, deadline_ns);
    }
}

/* ---- the coordinator's rest ---- */

/* Thread. Hands the bell on while the coordinator sleeps. */
static void *listen_for_bell(void *arg) {
    struct mpi *ch = arg;
    for (uint32_t seen = atomic_load(&ch->own->rung); !atomic_load(&ch->ear.stop);) {
        syscall(SYS_futex, (void *)&ch->own->rung, FUTEX_WAIT, seen, NULL, NULL, 0);
        uint32_t now = atomic_load(&ch->own->rung);
        if (now != seen) eventfd_write(ch->ear.fd, 1); /* fails when full: it is readable already */
        seen = now;
    }
    return NULL;
}

/* Frames have been announced that MPI has not delivered: it is tested again after as long as that lasts. */
static uint64_t rest_ns(struct mpi *ch, uint64_t ns) {
    if ((int32_t)(ch->ear.heard - ch->ear.taken) <= 0) {
        ch->ear.late_ns = 0;
        return ns;
    }
    uint64_t now = dr_clock_ns();
    if (ch->ear.late_ns == 0) ch->ear.late_ns = now;
    uint64_t most = now - ch->ear.late_ns < SLEEP_LEAST_NS ? SLEEP_LEAST_NS : now - ch->ear.late_ns;
    return ns < most ? ns : most;
}

static bool wait_for_bell(struct dr_channel *base, struct pollfd *fd, uint64_t ns) {
    struct mpi *ch = (struct mpi *)base;
    eventfd_t rings;
    struct timespec t = dr_clock_timespec(rest_ns(ch, ns));
    struct pollfd both[2] = {*fd, {.fd = ch->ear.fd, .events = POLLIN}};
    atomic_store(&ch->own->asleep, 1);
    if (atomic_load(&ch->own->rung) != ch->ear.heard) t = (struct timespec){0};
    if (ppoll(both, 2, &t, NULL) <= 0) both[0].revents = both[1].revents = 0;
    atomic_store(&ch->own->asleep, 0);
    if (both[1].revents) eventfd_read(ch->ear.fd, &rings); /* how many does not matter */
    fd->revents = both[0].revents;
    return true;
}

/* False: there is none, and frames are seen by looking again. */
static bool ear_init(struct mpi *ch) {
    int32_t local = 0;
    ch->ear.fd = -1;
    if (ch->base.end != 0) return false;
    for (int32_t i = 0; i < ch->n_peer; i++) local += ch->bell[i] != NULL;
    if (local == 0 || local < ch->n_peer) return false;
    ch->ear.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ch->ear.fd < 0) return false;
    if (pthread_create(&ch->ear.thread, NULL, listen_for_bell, ch) == 0) return true;
    close(ch->ear.fd);
    ch->ear.fd = -1;
    return false;
}

static void ear_fini(struct mpi *ch) {
    if (ch->ear.fd < 0) return;
    atomic_store(&ch->ear.stop, true);
    atomic_store(&ch->own->asleep, 1);
    ring(ch->own);
    pthread_join(ch->ear.thread, NULL);
    close(ch->ear.fd);
}

/* ---- life ---- */

/* Waits until the last frames have left; then takes the receives back. A buffer that MPI may still write to
 * is not freed. */
static void destroy(struct dr_channel *base) {
    struct mpi *ch = (struct mpi *)base;
    uint64_t until = dr_clock_ns() + LEAVE_NS;
    ear_fini(ch);
    for (;;) {
        dr_mpi_lock();
        dr_status st = reap(ch);
        int32_t left = ch->n_flight;
        dr_mpi_unlock();
        if (st.code != DR_OK || left == 0 || dr_clock_ns() >= until) break;
        dr_clock_sleep_ns(SLEEP_LEAST_NS);
    }
    dr_mpi_lock();
    for (int32_t i = 0; i < ch->n_peer; i++) {
        int done = ch->posted[i] == MPI_REQUEST_NULL;
        if (!done && MPI_Cancel(&ch->posted[i]) == MPI_SUCCESS)
            MPI_Test(&ch->posted[i], &done, MPI_STATUS_IGNORE);
        if (done) free(ch->in[i]);
    }
    dr_mpi_unlock();
    for (int32_t i = ch->n_flight; i < ch->n_flight + ch->n_spare; i++) free(ch->slot[i].data);
    free(ch->bell);
    free(ch->in);
    free(ch->posted);
    free(ch->ready);
    free(ch->status);
    free(ch->unsent);
    if (ch->n_flight == 0) {
        free(ch->flight);
        free(ch->slot);
        free(ch->done);
    }
    free(ch); /* the communicator goes with MPI: freeing it is collective */
}

static const struct dr_channel_ops mpi_ops = {.send = send_frame, .recv = recv_frame, .destroy = destroy},
                                   ringing_ops = {.send = send_frame,
                                                  .recv = recv_frame,
                                                  .wait = wait_for_bell,
                                                  .destroy = destroy};

static bool allocate(struct mpi *ch) {
    size_t n = (size_t)ch->n_peer + 1, slots = n * DR_CHANNEL_UNSENT_MAX;
    ch->n_slot_max = (int32_t)slots;
    ch->bell = calloc(n, sizeof *ch->bell);
    ch->in = calloc(n, sizeof *ch->in);
    ch->posted = malloc(n * sizeof *ch->posted);
    ch->ready = calloc(n, sizeof *ch->ready);
    ch->status = calloc(n, sizeof *ch->status);
    ch->unsent = calloc(n, sizeof *ch->unsent);
    ch->flight = calloc(slots, sizeof *ch->flight);
    ch->slot = calloc(slots, sizeof *ch->slot);
    ch->done = calloc(slots, sizeof *ch->done);
    if (!ch->bell || !ch->in || !ch->posted || !ch->ready || !ch->status || !ch->unsent || !ch->flight ||
        !ch->slot || !ch->done)
        return false;
    for (size_t i = 0; i < n; i++) ch->posted[i] = MPI_REQUEST_NULL;
    for (int32_t i = 0; i < ch->n_peer; i++) {
        ch->in[i] = malloc(FRAME_MAX); /* pages are touched as far as frames are long */
        if (!ch->in[i]) return false;
    }
    return true;
}

/* Lock held. Bells of the processes that share this one's host; a job without the coordinator there has none.
 */
static dr_status hang_bells(struct mpi *ch) {
    MPI_Comm local;
    MPI_Group all, here;
    MPI_Win window; /* stays until MPI ends: freeing it is collective */
    void *at = NULL;
    int n = 0, coordinator = 0, number = 0;
    DR_TRY(mpi_ok(MPI_Comm_split_type(ch->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local), "bells of",
                  ch->base.end));
    DR_TRY(mpi_ok(MPI_Comm_set_errhandler(local, MPI_ERRORS_RETURN), "bells of", ch->base.end));
    DR_TRY(mpi_ok(MPI_Win_allocate_shared(2 * BELL_LINE, 1, MPI_INFO_NULL, local, &at, &window), "bells of",
                  ch->base.end));
    DR_TRY(mpi_ok(MPI_Comm_group(ch->comm, &all), "bells of", ch->base.end));
    DR_TRY(mpi_ok(MPI_Comm_group(local, &here), "bells of", ch->base.end));
    DR_TRY(mpi_ok(MPI_Comm_size(local, &n), "bells of", ch->base.end));
    DR_TRY(mpi_ok(MPI_Group_translate_ranks(all, 1, &coordinator, here, &number), "bells of", ch->base.end));
    for (int i = 0; i < n && number != MPI_UNDEFINED; i++) {
        MPI_Aint size;
        int unit, end = 0;
        DR_TRY(mpi_ok(MPI_Win_shared_query(window, i, &size, &unit, &at), "bells of", ch->base.end));
        DR_TRY(mpi_ok(MPI_Group_translate_ranks(here, 1, &i, all, &end), "bells of", ch->base.end));
        struct bell *b = (struct bell *)(((uintptr_t)at + BELL_LINE - 1) / BELL_LINE * BELL_LINE);
        if (end == ch->base.end)
            ch->own = b;
        else if (end == 0 || ch->base.end == 0)
            ch->bell[peer_index(ch, end)] = b;
    }
    MPI_Group_free(&here);
    MPI_Group_free(&all);
    return dr_ok();
}

static dr_status join(struct mpi *ch) { /* lock held */
    int rank = 0, size = 0;
    DR_TRY(mpi_ok(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "world of", 0));
    DR_TRY(mpi_ok(MPI_Comm_dup(MPI_COMM_WORLD, &ch->comm), "world of", 0));
    DR_TRY(mpi_ok(MPI_Comm_set_errhandler(ch->comm, MPI_ERRORS_RETURN), "world of", 0));
    DR_TRY(mpi_ok(MPI_Comm_rank(ch->comm, &rank), "world of", 0));
    DR_TRY(mpi_ok(MPI_Comm_size(ch->comm, &size), "world of", rank));
    if (size > DR_RANKS_MAX + 1)
        return dr_fail(DR_EINVAL, "MPI world of %d processes, allowed 1..%d", size, DR_RANKS_MAX + 1);
    ch->base = (struct dr_channel){.ops = &mpi_ops, .end = rank, .n_end = size};
    ch->first_peer = rank == 0 ? 1 : 0;
    ch->n_peer = rank == 0 ? size - 1 : 1;
    if (!allocate(ch))
        return dr_fail(DR_EFULL, "end %d: no memory for the buffers of %d peers", rank, ch->n_peer);
    DR_TRY(hang_bells(ch));
    for (int32_t i = 0; i < ch->n_peer; i++) DR_TRY(post(ch, i));
    ch->busy_ns = dr_clock_ns();
    if (ear_init(ch)) ch->base.ops = &ringing_ops;
    return dr_ok();
}

dr_status dr_channel_mpi_create(int *argc, char ***argv, struct dr_channel **out) {
    int granted = 0;
    dr_mpi_lock();
    int rc = MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &granted);
    dr_mpi_unlock();
    if (rc != MPI_SUCCESS)
        return dr_fail(DR_EPEER, "MPI_Init_thread failed with %d; start this program through mpirun", rc);
    if (granted < MPI_THREAD_SERIALIZED)
        return dr_fail(DR_EINTERNAL, "this MPI grants thread level %d, needed is %d (MPI_THREAD_SERIALIZED)",
                       granted, MPI_THREAD_SERIALIZED);
    struct mpi *ch = calloc(1, sizeof *ch);
    if (!ch) return dr_fail(DR_EFULL, "no memory for the MPI channel");
    dr_mpi_lock();
    dr_status st = join(ch);
    dr_mpi_unlock();
    if (st.code != DR_OK)
        return st; /* receives may be posted: what they point to is left to the end of the process */
    *out = &ch->base;
    return dr_ok();
}

void dr_mpi_finalize(void) {
    dr_mpi_lock();
    MPI_Finalize();
    dr_mpi_unlock();
}
