/* shm.h - what the members of one host see of each other in shared memory, and how they wait for it.
 * In:   one segment a member, mapped by all.      Out: words that change, and a wait for them.
 * Owns: the layout of a segment: control, two slots of calls, two results, two slots of messages.
 * Why:  between ranks of one host an exchange is one cache line and the data, without a library in between.
 *
 * A member writes into its own segment only; the one exception is the count of messages taken, which belongs
 * to the receiver. Everything but the words marked atomic is ordered by them. */
#pragma once

#include <assert.h>
#include <stdatomic.h>

#include "model/workspace.h"
#include "worker/collective/group.h"

enum { DR_SHM_LINE = 128 /* a pair of cache lines: processors fetch neighbours together */ };

/* Exchange k of a group uses line and slot k % 2: whoever sees k everywhere knows that all are done with k
 * - 2. */
struct dr_shm_call {
    _Alignas(DR_SHM_LINE) _Atomic uint32_t seq; /* number of the exchange that this member has published */
    uint32_t kind, pieces;
    int32_t threads; /* of the member's team */
    uint64_t count;
};

struct dr_shm_pair { /* messages to one member; at most two are open, so two entries are enough */
    _Alignas(DR_SHM_LINE) _Atomic uint32_t sent;
    uint32_t slot[2];
    uint64_t bytes[2], left[2]; /* of the piece; of the message with it */
};

struct dr_shm_slot {
    _Alignas(DR_SHM_LINE) _Atomic uint32_t taken; /* messages that receivers have copied out of this slot */
};

struct dr_shm_control {
    struct dr_shm_call call[2];
    _Alignas(DR_SHM_LINE) _Atomic int32_t sleepers; /* members asleep on any word of this segment */
    _Alignas(DR_SHM_LINE) uint64_t to[2][DR_GROUP_MEMBERS_MAX]; /* alltoallv: bytes for each member */
    struct dr_shm_slot slot[2];
    struct dr_shm_pair pair[DR_GROUP_MEMBERS_MAX];
};

static_assert(sizeof(struct dr_shm_control) <= DR_GROUP_CONTROL_BYTES - DR_SHM_LINE,
              "the control of a segment and the alignment of its place are counted in the footprint");

struct dr_shm { /* one member's view */
    struct dr_group base;
    struct dr_shm_control *control[DR_GROUP_MEMBERS_MAX]; /* of each member's segment */
    int process[DR_GROUP_MEMBERS_MAX];                    /* pidfd of each other member, -1: unknown */
    bool failed;
    uint32_t exchange;  /* of the last call */
    int32_t threads;    /* of the smallest team in the last exchange; the same on all members */
    size_t slot, width; /* bytes of a slot of calls; floats of a member's slice of a large sum, at most */
    size_t message;     /* bytes of a slot of messages */
    uint32_t n_sent;    /* pieces this member has sent to anyone */
    int32_t slot_to[2]; /* who was to take the slot's last piece */
    uint32_t sent[DR_GROUP_MEMBERS_MAX], received[DR_GROUP_MEMBERS_MAX];
};

struct dr_shm_spec {
    int32_t n, me;
    void *const *segment; /* [n], borrowed until the end of the process: dr_shm_bytes each, zero, at multiples
                             of DR_SHM_LINE */
    const int32_t *pid;   /* [n]; 0: unknown, its death is then noticed at the deadline only */
    size_t call_bytes, message_bytes; /* equal on all members */
};

#ifdef __cplusplus
extern "C" {
#endif

size_t dr_shm_bytes(size_t call_bytes, size_t message_bytes);

/* Waits for nobody: others may have begun to use their segments. */
DR_FALLIBLE dr_group_shm_create(const struct dr_shm_spec *spec, struct dr_group **out);

/* Stores value and wakes those who sleep on the word, which lies in the segment of `home`. */
void dr_shm_tell(struct dr_shm_control *home, _Atomic uint32_t *word, uint32_t value);

/* Until word has reached want (counting upwards, with wrap). of: the member that will tell. Fails and marks
 * the group as failed: ETIME at the deadline, EPEER when that member's process has ended. */
DR_FALLIBLE dr_shm_await(struct dr_shm *g, int32_t of, struct dr_shm_control *home, _Atomic uint32_t *word,
                         uint32_t want, const char *what);

/* Calls between the pipeline's stages (shm_message.c). */
DR_FALLIBLE dr_shm_send(struct dr_group *base, int32_t to, const void *x, size_t bytes, struct dr_stream *s);
DR_FALLIBLE dr_shm_recv(struct dr_group *base, int32_t from, void *x, size_t bytes, struct dr_stream *s);

/* Copies with the stream's team when that is worth waking it. s may be NULL. */
void dr_shm_copy(void *to, const void *from, size_t bytes, struct dr_stream *s);

/* EPEER after a failed call. */
DR_FALLIBLE dr_shm_usable(const struct dr_shm *g);

#ifdef __cplusplus
}
#endif

/* Where things are in member m's segment. */
static inline char *dr_shm_slot(const struct dr_shm *g, int32_t m, uint32_t exchange) {
    return (char *)g->control[m] + sizeof(struct dr_shm_control) + exchange % 2 * g->slot;
}
static inline float *dr_shm_result(const struct dr_shm *g, int32_t m, uint32_t exchange) {
    return (float *)(void *)((char *)g->control[m] + sizeof(struct dr_shm_control) + 2 * g->slot) +
           exchange % 2 * g->width;
}
static inline char *dr_shm_message(const struct dr_shm *g, int32_t m, uint32_t slot) {
    return (char *)g->control[m] + sizeof(struct dr_shm_control) + 2 * g->slot +
           2 * g->width * sizeof(float) + slot * g->message;
}
