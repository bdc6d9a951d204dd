/* group.h - tensors between the ranks of a group.
 * In:   host buffers of each member.      Out: the same call on every member moves or adds them.
 * Owns: staging taken at creation (model/workspace sizes it).
 * Why:  the second seam (NCCL | host: shared memory, MPI, or both | in-process loop). Sums are added in
 * member order 0..n-1, whatever the size, so that an element's bits never depend on what else is in the call.
 *
 * Members enter the same calls in the same order: worker/collective/ledger.h checks each call against the
 * schedule before it is entered. Every wait has the deadline of the step (deadline_ns). On a failed call the
 * epoch is over: only destroy may follow. */
#pragma once

#include "kernels/device.h"

enum { DR_GROUP_MEMBERS_MAX = 64 };

struct dr_group;

struct dr_group_ops {
    const char *name; /* "shm" | "mpi" | "hier" | "loop" */
    /* x[i] = sum over members m = 0..n-1, in this order, of their x[i]; in place */
    dr_status (*allreduce)(struct dr_group *g, float *x, size_t n, struct dr_stream *s)
        __attribute__((warn_unused_result));
    /* member m's `bytes[m]` bytes land at out + at[m] on every member; mine: this member's bytes, may already
     * be in place. bytes and at are the same on every member */
    dr_status (*allgatherv)(struct dr_group *g, const void *mine, void *out, const size_t *bytes,
                            const size_t *at, struct dr_stream *s) __attribute__((warn_unused_result));
    /* send_bytes[m] at in + send_at[m] go to member m, recv_bytes[m] from member m land at out + recv_at[m];
     * all [n] */
    dr_status (*alltoallv)(struct dr_group *g, const void *in, const size_t *send_bytes,
                           const size_t *send_at, void *out, const size_t *recv_bytes, const size_t *recv_at,
                           struct dr_stream *s) __attribute__((warn_unused_result));
    /* Copies x and returns without waiting for the receiver, unless two earlier sends are still open or the
     * message is longer than message_bytes. recv returns with the whole message; its size must be
     * the sender's (EPROTO). */
    dr_status (*send)(struct dr_group *g, int32_t to, const void *x, size_t bytes, struct dr_stream *s)
        __attribute__((warn_unused_result));
    dr_status (*recv)(struct dr_group *g, int32_t from, void *x, size_t bytes, struct dr_stream *s)
        __attribute__((warn_unused_result));
    void (*poll)(struct dr_group *g); /* lets a large send move; cheap, called between tiles */
    void (*destroy)(struct dr_group *g);
};

struct dr_group { /* first member of each implementation's struct */
    const struct dr_group_ops *ops;
    int32_t n, me;                /* members, this rank's number among them */
    uint64_t deadline_ns;         /* dr_clock_ns of the step's end; 0: none. Passed: ETIME */
    uint64_t wait_ns, sent_bytes; /* since the last reset, for the report; copying and adding is no waiting,
                                     but moving inside MPI is */
    bool needs_poll;              /* open sends move only while someone polls (MPI) */
    struct dr_group *meanwhile;   /* borrowed: polled while this group waits; NULL: none */
};

enum dr_group_form {                /* in the order of --collectives */
                     DR_GROUP_AUTO, /* one host: shm; several, some of them with several neighbouring members:
                                       hier; else mpi */
                     DR_GROUP_SHM,  /* refused on several hosts */
                     DR_GROUP_MPI,
};

/* What a group is and what it may take. */
struct dr_group_spec {
    const int32_t *members; /* worker ranks (0-based) in member order; this process must be one */
    int32_t n;              /* 1 is legal and moves nothing */
    int32_t tag;            /* distinct per group of a pair of members */
    size_t
        call_bytes; /* staging of sums, gathers and exchanges, which go in pieces of it; 0: none are made */
    size_t message_bytes; /* each of the two buffers of open sends; 0: nothing is sent. At most 16 MiB are
                             used */
    enum dr_group_form form;
    int32_t host; /* tests: members with another number count as another host; 0 in real life */
};

static inline void dr_group_destroy(struct dr_group *g) {
    if (g) g->ops->destroy(g);
}

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = part[0][i] + part[1][i] + ... + part[n-1][i], added in this order; n >= 1; out may be a part. */
void dr_group_sum(float *out, const float *const *part, int32_t n, size_t count);

/* Between processes. Collective over the members only (MPI_Comm_create_group): rank 0 of the world takes no
 * part. No member waits beyond the deadline for one that does not come. Sizes are those of the member that
 * has least. Takes call_bytes + 2 * message_bytes + DR_GROUP_CONTROL_BYTES (model/workspace.h) of memory at
 * most, as far as calls need them. Fails: EINVAL for a list that is none, EPEER, ETIME, EFULL, EPROTO when
 * members mean different groups, EMODEL when `form` is not possible on these hosts. */
DR_FALLIBLE dr_group_create(const struct dr_group_spec *spec, uint64_t deadline_ns, struct dr_group **out);

/* In-process: all n members at once; each is used by one thread and destroyed by it; the last one frees what
 * they share. */
DR_FALLIBLE dr_group_loop_create(int32_t n, size_t buffer_bytes, struct dr_group **out);

/* Pretends that the group is broken: waiting members return EPEER (fault tests, and teardown after a failed
 * worker thread). */
void dr_group_loop_break(struct dr_group *any);

#ifdef __cplusplus
}
#endif
