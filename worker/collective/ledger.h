/* ledger.h - the only way from a step to a group.
 * In:   each call that a layer or the sampler wants to make.      Out: the same call on the group, if the
 * schedule lists it. Owns: the step's place in the schedule, byte counters, the op index that the beat
 * reports. Why:  a rank that would enter another collective than its peers stops by name instead of hanging
 * them.
 *
 * Groups with one member are not called at all (they may be NULL). Every failure ends the epoch. */
#pragma once

#include <stdatomic.h>

#include "model/schedule.h"
#include "proto/message.h"
#include "worker/collective/group.h"
#include "worker/parts.h"

struct dr_ledger {
    struct dr_group *group[DR_GROUP_COUNT]; /* borrowed; NULL: one member */
    struct dr_schedule schedule;
    struct dr_stream *stream; /* borrowed */
    struct dr_parts *parts;   /* borrowed: calls are charged to COLLECTIVE and WAIT; NULL: nobody asks */
    int32_t rank;
    uint64_t step;
    uint64_t bytes[DR_BYTES_KIND_COUNT];        /* sent by this rank since begin */
    uint64_t wait_kind_ns[DR_BYTES_KIND_COUNT]; /* waited by this rank since begin; copying and adding is not
                                                   waiting */
    atomic_int op;                              /* calls entered since begin; read by the beat thread */
};

/* Names a call: why it is made. */
struct dr_call_name {
    enum dr_call_what what;
    int32_t layer, index; /* layer -1: none */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Stands before the first call of a step. shape is borrowed until the end. */
void dr_ledger_begin(struct dr_ledger *g, const struct dr_config *c, const struct dr_layout *l,
                     const struct dr_step_shape *shape, uint64_t step, uint64_t deadline_ns);

/* Fails: EPEER when the schedule lists calls that were not made. */
DR_FALLIBLE dr_ledger_end(struct dr_ledger *g);

/* Members of a group, and this rank's number among them. */
static inline int32_t dr_ledger_members(const struct dr_ledger *g, enum dr_call_group group) {
    return g->group[group] ? g->group[group]->n : 1;
}

/* Each checks the next entry of the schedule, then calls the group. Fails: EPEER naming rank, step, call,
 * expected and found; what the group says. */
DR_FALLIBLE dr_ledger_allreduce(struct dr_ledger *g, struct dr_call_name name, float *x, size_t n);
/* One member: copies mine to out + at[0] unless it is there. */
DR_FALLIBLE dr_ledger_allgatherv(struct dr_ledger *g, enum dr_call_group group, struct dr_call_name name,
                                 const void *mine, void *out, const size_t *bytes, const size_t *at);
/* Every member sends the same number of bytes in all. Not for groups of one member. */
DR_FALLIBLE dr_ledger_alltoallv(struct dr_ledger *g, struct dr_call_name name, const void *in,
                                const size_t *send_bytes, const size_t *send_at, void *out,
                                const size_t *recv_bytes, const size_t *recv_at);
/* whole_bytes: of all T pairs of the boundary. to, from: stages. */
DR_FALLIBLE dr_ledger_send(struct dr_ledger *g, int32_t to, const void *x, size_t bytes,
                           uint64_t whole_bytes);
DR_FALLIBLE dr_ledger_recv(struct dr_ledger *g, int32_t from, void *x, size_t bytes, uint64_t whole_bytes);

/* Sum of the time that this step has waited for other ranks. */
uint64_t dr_ledger_wait_ns(const struct dr_ledger *g);

#ifdef __cplusplus
}
#endif
