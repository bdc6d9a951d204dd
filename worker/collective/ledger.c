/* ledger.c - see ledger.h.
 * In:   calls.      Out: the same calls, checked and counted.
 * Owns: nothing.
 * Why:  see ledger.h. */

#include "worker/collective/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"

static enum dr_bytes_kind bytes_kind(enum dr_call_what what) {
    switch (what) {
    case DR_WHAT_EMBED:
    case DR_WHAT_ATTN_OUT:
    case DR_WHAT_FFN_OUT:
        return DR_BYTES_ALLREDUCE;
    case DR_WHAT_QUERY:
    case DR_WHAT_PARTIAL:
        return DR_BYTES_EXCHANGE;
    case DR_WHAT_PREFILL:
        return DR_BYTES_GATHER;
    case DR_WHAT_BOUNDARY:
    case DR_WHAT_BOUNDARY_GATHER:
        return DR_BYTES_BOUNDARY;
    default:
        return DR_BYTES_SAMPLER;
    }
}

void dr_ledger_begin(struct dr_ledger *g, const struct dr_config *c, const struct dr_layout *l,
                     const struct dr_step_shape *shape, uint64_t step, uint64_t deadline_ns) {
    dr_schedule_begin(&g->schedule, c, l, shape, g->rank / l->tp, g->rank % l->tp / l->c);
    g->step = step;
    memset(g->bytes, 0, sizeof g->bytes);
    memset(g->wait_kind_ns, 0, sizeof g->wait_kind_ns);
    atomic_store_explicit(&g->op, 0, memory_order_relaxed);
    for (int i = 0; i < DR_GROUP_COUNT; i++) {
        if (!g->group[i]) continue;
        g->group[i]->deadline_ns = deadline_ns;
        g->group[i]->wait_ns = 0;
        g->group[i]->sent_bytes = 0;
    }
    struct dr_group *pipe = g->group[DR_GROUP_PIPE];
    for (int i = 0; pipe && pipe->needs_poll && i < DR_GROUP_COUNT; i++)
        if (i != DR_GROUP_PIPE && g->group[i]) g->group[i]->meanwhile = pipe;
}

struct count { /* of a group, when a call begins */
    uint64_t sent, wait;
    enum dr_step_part part; /* whose time it was */
};

static struct count counted(const struct dr_ledger *g, const struct dr_group *group) {
    return (struct count){
        .sent = group->sent_bytes,
        .wait = group->wait_ns,
        .part = g->parts ? dr_parts_enter(g->parts, DR_PART_COLLECTIVE) : DR_PART_REST,
    };
}

static dr_status mismatch(const struct dr_ledger *g, const struct dr_call *listed,
                          const struct dr_call *call) {
    char expected[160] = "no further call";
    if (listed)
        (void)snprintf(expected, sizeof expected, "%s of %s, layer %d, index %d, %" PRIu64 " bytes",
                       dr_call_kind_name(listed->kind), dr_call_what_name(listed->what), listed->layer,
                       listed->index, listed->bytes);
    return dr_fail(
        DR_EPEER,
        "rank %d, step %" PRIu64
        ", call %d: the schedule lists %s; the worker came to %s of %s, layer %d, index %d, %" PRIu64
        " bytes; the epoch must end",
        g->rank, g->step, atomic_load_explicit(&g->op, memory_order_relaxed), expected,
        dr_call_kind_name(call->kind), dr_call_what_name(call->what), call->layer, call->index, call->bytes);
}

/* Compares the call with the next entry before it is entered. */
static dr_status enter(struct dr_ledger *g, enum dr_call_kind kind, enum dr_call_group group,
                       struct dr_call_name name, uint64_t bytes) {
    struct dr_call listed, call = {
                               .kind = (uint8_t)kind,
                               .group = (uint8_t)group,
                               .what = (uint8_t)name.what,
                               .layer = (int16_t)name.layer,
                               .index = name.index,
                               .bytes = bytes,
                           };
    if (!dr_schedule_next(&g->schedule, &listed)) return mismatch(g, NULL, &call);
    if (listed.kind != call.kind || listed.group != call.group || listed.what != call.what ||
        listed.layer != call.layer || listed.index != call.index || listed.bytes != call.bytes)
        return mismatch(g, &listed, &call);
    atomic_fetch_add_explicit(&g->op, 1, memory_order_relaxed);
    return dr_ok();
}

static dr_status leave(struct dr_ledger *g, const struct dr_group *group, struct dr_call_name name,
                       struct count before, dr_status st) {
    g->bytes[bytes_kind(name.what)] += group->sent_bytes - before.sent;
    g->wait_kind_ns[bytes_kind(name.what)] += group->wait_ns - before.wait;
    if (g->parts) dr_parts_leave(g->parts, group->wait_ns - before.wait, before.part);
    if (st.code == DR_OK) return st;
    return dr_fail_within(st, "rank %d, step %" PRIu64 ", call %d (%s, layer %d, index %d)", g->rank, g->step,
                          atomic_load_explicit(&g->op, memory_order_relaxed), dr_call_what_name(name.what),
                          name.layer, name.index);
}

dr_status dr_ledger_end(struct dr_ledger *g) {
    struct dr_call left;
    if (!dr_schedule_next(&g->schedule, &left)) return dr_ok();
    return dr_fail(DR_EPEER,
                   "rank %d, step %" PRIu64
                   ": the step is over after %d calls, but the schedule lists %s of %s, layer %d, next",
                   g->rank, g->step, atomic_load_explicit(&g->op, memory_order_relaxed),
                   dr_call_kind_name(left.kind), dr_call_what_name(left.what), left.layer);
}

dr_status dr_ledger_allreduce(struct dr_ledger *g, struct dr_call_name name, float *x, size_t n) {
    struct dr_group *group = g->group[DR_GROUP_STAGE];
    if (dr_ledger_members(g, DR_GROUP_STAGE) == 1 || n == 0) return dr_ok();
    DR_TRY(enter(g, DR_CALL_ALLREDUCE, DR_GROUP_STAGE, name, (uint64_t)n * 4 * (uint64_t)group->n));
    struct count before = counted(g, group);
    return leave(g, group, name, before, group->ops->allreduce(group, x, n, g->stream));
}

dr_status dr_ledger_allgatherv(struct dr_ledger *g, enum dr_call_group which, struct dr_call_name name,
                               const void *mine, void *out, const size_t *bytes, const size_t *at) {
    struct dr_group *group = g->group[which];
    uint64_t whole = 0;
    if (dr_ledger_members(g, which) == 1) {
        if (bytes[0] > 0 && (const uint8_t *)mine != (uint8_t *)out + at[0])
            memcpy((uint8_t *)out + at[0], mine, bytes[0]);
        return dr_ok();
    }
    for (int32_t m = 0; m < group->n; m++) whole += bytes[m];
    if (whole == 0) return dr_ok();
    DR_TRY(enter(g, DR_CALL_ALLGATHER, which, name, whole));
    struct count before = counted(g, group);
    return leave(g, group, name, before, group->ops->allgatherv(group, mine, out, bytes, at, g->stream));
}

dr_status dr_ledger_alltoallv(struct dr_ledger *g, struct dr_call_name name, const void *in,
                              const size_t *send_bytes, const size_t *send_at, void *out,
                              const size_t *recv_bytes, const size_t *recv_at) {
    struct dr_group *group = g->group[DR_GROUP_CACHE];
    uint64_t mine = 0;
    DR_ASSERT(group != NULL);
    for (int32_t m = 0; m < group->n; m++) mine += send_bytes[m];
    DR_TRY(enter(g, DR_CALL_ALLTOALL, DR_GROUP_CACHE, name, mine * (uint64_t)group->n));
    struct count before = counted(g, group);
    return leave(g, group, name, before,
                 group->ops->alltoallv(group, in, send_bytes, send_at, out, recv_bytes, recv_at, g->stream));
}

static const struct dr_call_name boundary = {.what = DR_WHAT_BOUNDARY, .layer = -1};

dr_status dr_ledger_send(struct dr_ledger *g, int32_t to, const void *x, size_t bytes, uint64_t whole_bytes) {
    struct dr_group *group = g->group[DR_GROUP_PIPE];
    DR_ASSERT(group != NULL);
    DR_TRY(enter(g, DR_CALL_SEND, DR_GROUP_PIPE, boundary, whole_bytes));
    struct count before = counted(g, group);
    return leave(g, group, boundary, before, group->ops->send(group, to, x, bytes, g->stream));
}

dr_status dr_ledger_recv(struct dr_ledger *g, int32_t from, void *x, size_t bytes, uint64_t whole_bytes) {
    struct dr_group *group = g->group[DR_GROUP_PIPE];
    DR_ASSERT(group != NULL);
    DR_TRY(enter(g, DR_CALL_RECV, DR_GROUP_PIPE, boundary, whole_bytes));
    struct count before = counted(g, group);
    return leave(g, group, boundary, before, group->ops->recv(group, from, x, bytes, g->stream));
}

uint64_t dr_ledger_wait_ns(const struct dr_ledger *g) {
    uint64_t sum = 0;
    for (int i = 0; i < DR_GROUP_COUNT; i++)
        if (g->group[i]) sum += g->group[i]->wait_ns;
    return sum;
}
