/* channel.h - control messages between the coordinator and the workers.
 * In:   whole frames.      Out: whole frames, in order per pair of ends.
 * Owns: posted receives and send buffers.
 * Why:  the first seam (MPI | in-process loop). It carries decisions, never tensors.
 *
 * End 0 is the coordinator, end 1 + w is worker rank w. No call blocks longer than it is told to. */
#pragma once

#include <poll.h>
#include <stdbool.h>

#include "common/clock.h"
#include "proto/codec.h"

struct dr_channel;

enum {
    DR_ANY_PEER = -1,
    DR_CHANNEL_UNSENT_MAX = 64, /* frames to one peer that it has not taken */
};

/* What a loop channel may do to frames, for fault tests. Zero: nothing. */
struct dr_channel_fault {
    int32_t from, to; /* ends; DR_ANY_PEER */
    uint64_t delay_ns;
    bool drop, cut; /* lose every frame; pretend the peer is gone */
};

struct dr_channel_ops {
    dr_status (*send)(struct dr_channel *ch, int32_t to, const uint8_t *frame, size_t bytes)
        __attribute__((warn_unused_result));
    dr_status (*recv)(struct dr_channel *ch, uint8_t *frame, size_t room, uint64_t deadline_ns, int32_t *from,
                      size_t *bytes) __attribute__((warn_unused_result));
    bool (*wait)(struct dr_channel *ch, struct pollfd *fd, uint64_t ns); /* NULL: nothing rings */
    void (*destroy)(struct dr_channel *ch);
};

struct dr_channel { /* first member of each implementation's struct */
    const struct dr_channel_ops *ops;
    int32_t end, n_end; /* this process's end; coordinator and workers */
    uint64_t idle_ns; /* since when recv has had nothing; implementations sleep longer the longer it lasts */
};

/* Copies the frame and sends it. frame: header and body, at most DR_MPI_FRAME_MAX + header. The coordinator
 * never waits for a receiver; a worker whose 64 frames are unsent (a burst of LOGITS) waits up to 5 s for the
 * coordinator to take one. Fails: EPEER when the peer is known to be gone or 64 frames to it stay unsent;
 * EFULL for a frame too long. Any thread. */
static inline dr_status dr_channel_send(struct dr_channel *ch, int32_t to, const uint8_t *frame,
                                        size_t bytes) {
    return ch->ops->send(ch, to, frame, bytes);
}

/* Takes the next frame from any end. *bytes = 0 and OK when none came before deadline_ns (dr_clock_ns; 0: do
 * not wait). While waiting it yields and sleeps as contracts say (an idle process costs about 0.3 % of a
 * core). Fails: EPEER when a peer is gone, EPROTO when a frame is longer than room. One thread. */
static inline dr_status dr_channel_recv(struct dr_channel *ch, uint8_t *frame, size_t room,
                                        uint64_t deadline_ns, int32_t *from, size_t *bytes) {
    return ch->ops->recv(ch, frame, room, deadline_ns, from, bytes);
}

/* The coordinator's rest: until fd has one of its events (revents says which), ns have passed, or a worker of
 * this host has sent a frame. True: every worker's frame ends it, so that ns may be long; false: frames are
 * seen by looking again soon. */
static inline bool dr_channel_wait(struct dr_channel *ch, struct pollfd *fd, uint64_t ns) {
    if (ch->ops->wait) return ch->ops->wait(ch, fd, ns);
    struct timespec t = dr_clock_timespec(ns);
    if (ppoll(fd, 1, &t, NULL) <= 0) fd->revents = 0;
    return false;
}

static inline void dr_channel_destroy(struct dr_channel *ch) {
    if (ch) ch->ops->destroy(ch);
}

#ifdef __cplusplus
extern "C" {
#endif

/* In-process: n_end ends that share memory; each is used by one thread. out: array of n_end, each destroyed
 * by its user; the last one frees what they share. Faults may be set at any time through any end; a later one
 * replaces an earlier one of the same pair, one that is all zero ends it. Frames already under way arrive
 * before a cut or a destroyed end is reported. */
DR_FALLIBLE dr_channel_loop_create(int32_t n_end, struct dr_channel **out);
void dr_channel_loop_fault(struct dr_channel *any, const struct dr_channel_fault *fault);

/* MPI (proto/channel_mpi.c): initialises MPI with MPI_THREAD_SERIALIZED (refuses less), duplicates the world
 * with MPI_ERRORS_RETURN, posts receives. This process's end is its world rank. One per process. */
DR_FALLIBLE dr_channel_mpi_create(int *argc, char ***argv, struct dr_channel **out);

/* Every MPI call of the process holds this lock: channel_mpi and group_mpi share it. */
void dr_mpi_lock(void);
void dr_mpi_unlock(void);

/* Ends MPI: finalize on a clean end, which all ranks must reach together. After a failure the process must
 * _exit instead. */
void dr_mpi_finalize(void);

#ifdef __cplusplus
}
#endif
