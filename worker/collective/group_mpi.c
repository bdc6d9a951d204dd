/* group_mpi.c - the group between processes: host memory over non-blocking MPI.
 * In:   buffers of this member.      Out: see group.h.
 * Owns: a communicator of the members, staging for sums, two buffers of open sends.
 * Why:  MPI's own reductions choose the order of additions by size and its blocking calls cannot be timed
 * out; here parts are moved by sends and receives, added in member order, and every wait is a loop of tests
 * under the step's deadline.
 *
 * All members pair their messages by order, so each member must enter the same calls; a message of another
 * size than expected is refused (EPROTO). After a failed call messages may still be on their way: their
 * buffers are then left to the end of the process. */
#include <inttypes.h>
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/channel.h"
#include "worker/collective/group.h"

enum {
    TAG_CALL = 1,
    TAG_MESSAGE = 2,
    TAG_MEET = 1000, /* + the group's tag, on the world */
    PIECE =
        16 << 20, /* bytes of one MPI message; counts are ints, and a test between pieces is a sign of life */
    BUFFER_LEAST = 64 << 10,
    SMALL_FLOATS = 64 << 10, /* sent by one member in the everyone-to-everyone form, at most: 256 KiB */
    REQUESTS_MAX = 2 * DR_GROUP_MEMBERS_MAX,
    SENDS_OPEN = 2,
};

/* Waiting: an answer within a step is near, but members may share cores, so the processor is given up early
 * and then left alone. */
static const uint64_t SPIN_NS = 20000, YIELD_NS = 1000000, SLEEP_LEAST_NS = 20000, SLEEP_MOST_NS = 200000;
static const uint64_t LEAVE_NS = 2000000000u; /* what destroy gives the last sends */

struct open_send {
    char *data; /* buffer_bytes */
    MPI_Request request;
};

struct mpi {
    struct dr_group base;
    MPI_Comm comm; /* MPI_COMM_NULL with one member */
    float *stage;
    size_t buffer_bytes;
    struct open_send open[SENDS_OPEN];
    int32_t next_open; /* the older one */
    bool failed;
    int n; /* requests of the call under way */
    MPI_Request request[REQUESTS_MAX];
    MPI_Status status[REQUESTS_MAX];
    int32_t peer[REQUESTS_MAX];
    int expect[REQUESTS_MAX]; /* bytes of a receive, -1 of a send */
};

static dr_status mpi_ok(const struct mpi *g, int rc, const char *what, int32_t peer) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0, class = MPI_SUCCESS;
    if (rc == MPI_SUCCESS) return dr_ok();
    MPI_Error_class(rc, &class);
    MPI_Error_string(rc, text, &n);
    return dr_fail(class == MPI_ERR_TRUNCATE ? DR_EPROTO : DR_EPEER,
                   "group member %d of %d: %s member %d: %s", g->base.me, g->base.n, what, peer, text);
}

static dr_status usable(const struct mpi *g) {
    if (!g->failed) return dr_ok();
    return dr_fail(DR_EPEER, "group member %d of %d: an earlier call failed", g->base.me, g->base.n);
}

/* ---- waiting ---- */

static void pause_for(uint64_t waited_ns) {
    if (waited_ns < SPIN_NS) return;
    if (waited_ns < YIELD_NS) {
        sched_yield();
        return;
    }
    uint64_t sleep = waited_ns / 50;
    dr_clock_sleep_ns(sleep < SLEEP_LEAST_NS  ? SLEEP_LEAST_NS
                      : sleep > SLEEP_MOST_NS ? SLEEP_MOST_NS
                                              : sleep);
}

static bool late(const struct mpi *g, uint64_t now) {
    return g->base.deadline_ns != 0 && now >= g->base.deadline_ns;
}

/* Lock held. The first member that has not answered. */
static int32_t missing(struct mpi *g) {
    for (int i = 0; i < g->n; i++) {
        int done = 0;
        if (g->request[i] == MPI_REQUEST_NULL) continue;
        if (MPI_Request_get_status(g->request[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
            return g->peer[i];
    }
    return -1;
}

/* Lock held. Every receive brought as many bytes as it should. */
static dr_status sizes(struct mpi *g, const char *what) {
    for (int i = 0; i < g->n; i++) {
        int n = 0;
        if (g->expect[i] < 0) continue;
        DR_TRY(mpi_ok(g, MPI_Get_count(&g->status[i], MPI_BYTE, &n), what, g->peer[i]));
        if (n != g->expect[i])
            return dr_fail(DR_EPROTO, "group member %d of %d: %s: member %d sent %d bytes, expected %d",
                           g->base.me, g->base.n, what, g->peer[i], n, g->expect[i]);
    }
    return dr_ok();
}

/* Lock held. */
static dr_status errors(struct mpi *g, int rc, const char *what) {
    if (rc != MPI_ERR_IN_STATUS) return mpi_ok(g, rc, what, g->base.me);
    for (int i = 0; i < g->n; i++)
        if (g->status[i].MPI_ERROR != MPI_SUCCESS && g->status[i].MPI_ERROR != MPI_ERR_PENDING)
            return mpi_ok(g, g->status[i].MPI_ERROR, what, g->peer[i]);
    return mpi_ok(g, rc, what, g->base.me);
}

/* Completes the requests of the call under way. */
static dr_status finish(struct mpi *g, const char *what) {
    uint64_t begin = dr_clock_ns(), now = begin;
    dr_status st = dr_ok();
    for (;;) {
        int done = 0;
        dr_mpi_lock();
        int rc = MPI_Testall(g->n, g->request, &done, g->status);
        if (rc != MPI_SUCCESS)
            st = errors(g, rc, what);
        else if (done)
            st = sizes(g, what);
        dr_mpi_unlock();
        now = dr_clock_ns();
        if (st.code != DR_OK || done) break;
        if (late(g, now)) {
            dr_mpi_lock();
            int32_t m = missing(g);
            dr_mpi_unlock();
            st = dr_fail(DR_ETIME, "group member %d of %d: %s: deadline passed while waiting for member %d",
                         g->base.me, g->base.n, what, m);
            break;
        }
        pause_for(now - begin);
    }
    g->base.wait_ns += now - begin;
    g->n = 0;
    if (st.code != DR_OK) g->failed = true;
    return st;
}

/* ---- moving; lock held ---- */

static dr_status start_recv(struct mpi *g, MPI_Comm comm, int tag, int32_t member, int rank, void *at,
                            size_t bytes) {
    DR_ASSERT(g->n < REQUESTS_MAX && bytes <= PIECE);
    DR_TRY(mpi_ok(g, MPI_Irecv(at, (int)bytes, MPI_BYTE, rank, tag, comm, &g->request[g->n]), "receive from",
                  member));
    g->peer[g->n] = member;
    g->expect[g->n++] = (int)bytes;
    return dr_ok();
}

static dr_status start_send(struct mpi *g, MPI_Comm comm, int tag, int32_t member, int rank, const void *at,
                            size_t bytes) {
    DR_ASSERT(g->n < REQUESTS_MAX && bytes <= PIECE);
    DR_TRY(mpi_ok(g, MPI_Isend(at, (int)bytes, MPI_BYTE, rank, tag, comm, &g->request[g->n]), "send to",
                  member));
    g->peer[g->n] = member;
    g->expect[g->n++] = -1;
    g->base.sent_bytes += bytes;
    return dr_ok();
}

struct moves { /* what goes to and comes from each member; this member's own entries are not looked at */
    const char *in;
    char *out;
    const size_t *send_bytes, *send_at, *recv_bytes, *recv_at;
};

static size_t piece_at(size_t bytes, size_t at) {
    return bytes > at ? (bytes - at < PIECE ? bytes - at : PIECE) : 0;
}

/* Starts what is in [at, at + PIECE) of every message. Receives first, so that nothing arrives unexpected;
 * sends begin with the next member, so that not all talk to member 0. */
static dr_status start_moves(struct mpi *g, const struct moves *v, size_t at) {
    int32_t n = g->base.n;
    for (int32_t k = 1; k < n; k++) {
        int32_t m = (g->base.me + n - k) % n;
        size_t bytes = piece_at(v->recv_bytes[m], at);
        if (bytes > 0) DR_TRY(start_recv(g, g->comm, TAG_CALL, m, m, v->out + v->recv_at[m] + at, bytes));
    }
    for (int32_t k = 1; k < n; k++) {
        int32_t m = (g->base.me + k) % n;
        size_t bytes = piece_at(v->send_bytes[m], at);
        if (bytes > 0) DR_TRY(start_send(g, g->comm, TAG_CALL, m, m, v->in + v->send_at[m] + at, bytes));
    }
    return dr_ok();
}

/* Lock not held. Both ends of a pair cut their message at the same places, so the pieces pair up by order. */
static dr_status move(struct mpi *g, const struct moves *v, const char *what) {
    size_t most = 0;
    for (int32_t m = 0; m < g->base.n; m++) {
        if (m == g->base.me) continue;
        if (v->send_bytes[m] > most) most = v->send_bytes[m];
        if (v->recv_bytes[m] > most) most = v->recv_bytes[m];
    }
    for (size_t at = 0; at < most; at += PIECE) {
        dr_mpi_lock();
        dr_status st = start_moves(g, v, at);
        dr_mpi_unlock();
        if (st.code != DR_OK) g->failed = true;
        DR_TRY(st);
        DR_TRY(finish(g, what));
    }
    return dr_ok();
}

/* ---- calls ---- */

/* Everyone sends all of it to everyone and adds: one message time. */
static dr_status reduce_small(struct mpi *g, float *x, size_t len) {
    size_t send_bytes[DR_GROUP_MEMBERS_MAX], send_at[DR_GROUP_MEMBERS_MAX], recv_at[DR_GROUP_MEMBERS_MAX];
    const float *part[DR_GROUP_MEMBERS_MAX];
    for (int32_t m = 0; m < g->base.n; m++) {
        send_bytes[m] = len * sizeof *x;
        send_at[m] = 0;
        recv_at[m] = (size_t)m * len * sizeof *x;
        part[m] = m == g->base.me ? x : g->stage + (size_t)m * len;
    }
    struct moves v = {.in = (const char *)x,
                      .out = (char *)g->stage,
                      .send_bytes = send_bytes,
                      .send_at = send_at,
                      .recv_bytes = send_bytes,
                      .recv_at = recv_at};
    DR_TRY(move(g, &v, "allreduce"));
    dr_group_sum(x, part, g->base.n, len);
    return dr_ok();
}

/* Each member adds one slice of it and gives the sum to the others: 2 (n-1)/n of the bytes instead of n-1. */
static dr_status reduce_sliced(struct mpi *g, float *x, size_t len) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], mine[DR_GROUP_MEMBERS_MAX],
        stage_at[DR_GROUP_MEMBERS_MAX];
    size_t my_at[DR_GROUP_MEMBERS_MAX], n = (size_t)g->base.n, slice = (len + n - 1) / n,
                                        me = (size_t)g->base.me;
    const float *part[DR_GROUP_MEMBERS_MAX];
    for (size_t m = 0; m < n; m++) {
        size_t begin = m * slice < len ? m * slice : len, end = begin + slice < len ? begin + slice : len;
        at[m] = begin * sizeof *x;
        bytes[m] = (end - begin) * sizeof *x;
    }
    for (size_t m = 0; m < n; m++) {
        mine[m] = bytes[me];
        my_at[m] = at[me];
        stage_at[m] = m * slice * sizeof *x;
        part[m] = m == me ? x + at[me] / sizeof *x : g->stage + m * slice;
    }
    struct moves scatter = {.in = (const char *)x,
                            .out = (char *)g->stage,
                            .send_bytes = bytes,
                            .send_at = at,
                            .recv_bytes = mine,
                            .recv_at = stage_at};
    DR_TRY(move(g, &scatter, "allreduce"));
    dr_group_sum(x + at[me] / sizeof *x, part, g->base.n, bytes[me] / sizeof *x);
    struct moves gather = {.in = (const char *)x,
                           .out = (char *)x,
                           .send_bytes = mine,
                           .send_at = my_at,
                           .recv_bytes = bytes,
                           .recv_at = at};
    return move(g, &gather, "allreduce");
}

static dr_status allreduce(struct dr_group *base, float *x, size_t n, struct dr_stream *s) {
    struct mpi *g = (struct mpi *)base;
    (void)s;
    DR_TRY(usable(g));
    if (base->n == 1) return dr_ok();
    size_t members = (size_t)base->n,
           room = g->buffer_bytes / sizeof *x / members; /* floats a member in the stage */
    bool small = n * (members - 1) <= SMALL_FLOATS && n <= room;
    if (small) return n > 0 ? reduce_small(g, x, n) : dr_ok();
    for (size_t at = 0; at < n; at += room * members)
        DR_TRY(reduce_sliced(g, x + at, n - at < room * members ? n - at : room * members));
    return dr_ok();
}

static dr_status allgatherv(struct dr_group *base, const void *mine, void *out, const size_t *bytes,
                            const size_t *at, struct dr_stream *s) {
    struct mpi *g = (struct mpi *)base;
    (void)s;
    DR_TRY(usable(g));
    size_t own = bytes[base->me], send_bytes[DR_GROUP_MEMBERS_MAX], send_at[DR_GROUP_MEMBERS_MAX];
    char *place = (char *)out + at[base->me];
    if (own > 0 && mine != place) memmove(place, mine, own);
    if (base->n == 1) return dr_ok();
    for (int32_t m = 0; m < base->n; m++) {
        send_bytes[m] = own;
        send_at[m] = 0;
    }
    struct moves v = {.in = place,
                      .out = out,
                      .send_bytes = send_bytes,
                      .send_at = send_at,
                      .recv_bytes = bytes,
                      .recv_at = at};
    return move(g, &v, "allgatherv");
}

static dr_status alltoallv(struct dr_group *base, const void *in, const size_t *send_bytes,
                           const size_t *send_at, void *out, const size_t *recv_bytes, const size_t *recv_at,
                           struct dr_stream *s) {
    struct mpi *g = (struct mpi *)base;
    (void)s;
    DR_TRY(usable(g));
    int32_t me = base->me;
    if (send_bytes[me] != recv_bytes[me])
        return dr_fail(DR_EPROTO, "group member %d: alltoallv sends %zu bytes to itself, expects %zu", me,
                       send_bytes[me], recv_bytes[me]);
    if (send_bytes[me] > 0) memcpy((char *)out + recv_at[me], (const char *)in + send_at[me], send_bytes[me]);
    if (base->n == 1) return dr_ok();
    struct moves v = {.in = in,
                      .out = out,
                      .send_bytes = send_bytes,
                      .send_at = send_at,
                      .recv_bytes = recv_bytes,
                      .recv_at = recv_at};
    return move(g, &v, "alltoallv");
}

/* ---- messages ---- */

static dr_status open_test(struct mpi *g, struct open_send *o, int *done) { /* lock held */
    *done = 1;
    if (o->request == MPI_REQUEST_NULL) return dr_ok();
    return mpi_ok(g, MPI_Test(&o->request, done, MPI_STATUS_IGNORE), "send of", g->base.me);
}

/* Waits until the older open send has left. */
static dr_status open_wait(struct mpi *g, struct open_send *o) {
    uint64_t begin = dr_clock_ns(), now = begin;
    dr_status st = dr_ok();
    for (;;) {
        int done = 0;
        dr_mpi_lock();
        st = open_test(g, o, &done);
        dr_mpi_unlock();
        now = dr_clock_ns();
        if (st.code != DR_OK || done) break;
        if (late(g, now)) {
            st = dr_fail(DR_ETIME,
                         "group member %d of %d: send: deadline passed, an earlier message is not taken",
                         g->base.me, g->base.n);
            break;
        }
        pause_for(now - begin);
    }
    g->base.wait_ns += now - begin;
    if (st.code != DR_OK) g->failed = true;
    return st;
}

static size_t message_piece(const struct mpi *g) {
    return g->buffer_bytes < PIECE ? g->buffer_bytes : PIECE;
}

static dr_status send_piece(struct mpi *g, int32_t to, const char *x, size_t bytes) {
    struct open_send *o = &g->open[g->next_open];
    DR_TRY(open_wait(g, o));
    if (bytes > 0) memcpy(o->data, x, bytes);
    dr_mpi_lock();
    dr_status st = mpi_ok(g, MPI_Isend(o->data, (int)bytes, MPI_BYTE, to, TAG_MESSAGE, g->comm, &o->request),
                          "send to", to);
    dr_mpi_unlock();
    if (st.code != DR_OK) g->failed = true;
    g->next_open = (g->next_open + 1) % SENDS_OPEN;
    g->base.sent_bytes += bytes;
    return st;
}

static dr_status send_message(struct dr_group *base, int32_t to, const void *x, size_t bytes,
                              struct dr_stream *s) {
    struct mpi *g = (struct mpi *)base;
    (void)s;
    DR_TRY(usable(g));
    DR_ASSERT(to >= 0 && to < base->n && to != base->me);
    size_t most = message_piece(g), at = 0;
    do { /* a message of no bytes is one, too */
        size_t len = bytes - at < most ? bytes - at : most;
        DR_TRY(send_piece(g, to, (const char *)x + at, len));
        at += len;
    } while (at < bytes);
    return dr_ok();
}

static dr_status recv_message(struct dr_group *base, int32_t from, void *x, size_t bytes,
                              struct dr_stream *s) {
    struct mpi *g = (struct mpi *)base;
    (void)s;
    DR_TRY(usable(g));
    DR_ASSERT(from >= 0 && from < base->n && from != base->me);
    size_t most = message_piece(g), at = 0;
    do {
        size_t len = bytes - at < most ? bytes - at : most;
        dr_mpi_lock();
        dr_status st = start_recv(g, g->comm, TAG_MESSAGE, from, from, (char *)x + at, len);
        dr_mpi_unlock();
        if (st.code != DR_OK) g->failed = true;
        DR_TRY(st);
        DR_TRY(finish(g, "recv"));
        at += len;
    } while (at < bytes);
    return dr_ok();
}

static void poll_open(struct dr_group *base) {
    struct mpi *g = (struct mpi *)base;
    if (g->open[0].request == MPI_REQUEST_NULL && g->open[1].request == MPI_REQUEST_NULL) return;
    dr_mpi_lock();
    for (int i = 0; i < SENDS_OPEN; i++) {
        int done = 0;
        dr_status st = open_test(g, &g->open[i], &done);
        if (st.code != DR_OK) g->failed = true; /* the next call reports it */
    }
    dr_mpi_unlock();
}

/* ---- life ---- */

static void destroy(struct dr_group *base) {
    struct mpi *g = (struct mpi *)base;
    uint64_t until = dr_clock_ns() + LEAVE_NS;
    bool open = true;
    while (open && !g->failed) {
        poll_open(base);
        open = g->open[0].request != MPI_REQUEST_NULL || g->open[1].request != MPI_REQUEST_NULL;
        if (open && dr_clock_ns() >= until) break;
        if (open) dr_clock_sleep_ns(SLEEP_LEAST_NS);
    }
    if (open || g->failed)
        return; /* MPI may still use the buffers: they are left to the end of the process */
    free(g->stage);
    free(g->open[0].data);
    free(g->open[1].data);
    free(g); /* the communicator goes with MPI: freeing it is collective */
}

static const struct dr_group_ops mpi_ops = {
    .name = "mpi",
    .allreduce = allreduce,
    .allgatherv = allgatherv,
    .alltoallv = alltoallv,
    .send = send_message,
    .recv = recv_message,
    .poll = poll_open,
    .destroy = destroy,
};

struct greeting { /* what members tell each other before the communicator is made, which cannot be timed out
                   */
    uint64_t buffer_bytes, n;
};

static dr_status meet_start(struct mpi *g, const int32_t *members, int32_t tag, const struct greeting *mine,
                            struct greeting *theirs) {
    for (int32_t m = 0; m < g->base.n; m++)
        if (m != g->base.me)
            DR_TRY(start_recv(g, MPI_COMM_WORLD, TAG_MEET + tag, m, members[m] + 1, &theirs[m],
                              sizeof theirs[m]));
    for (int32_t m = 0; m < g->base.n; m++)
        if (m != g->base.me)
            DR_TRY(start_send(g, MPI_COMM_WORLD, TAG_MEET + tag, m, members[m] + 1, mine, sizeof *mine));
    return dr_ok();
}

/* All members are there and mean the same group; the smallest buffer holds. theirs and mine outlive a failure
 * with g. */
static dr_status meet(struct mpi *g, const int32_t *members, int32_t tag, struct greeting *greet) {
    struct greeting *mine = &greet[g->base.me];
    *mine = (struct greeting){.buffer_bytes = g->buffer_bytes, .n = (uint64_t)g->base.n};
    dr_mpi_lock();
    dr_status st = meet_start(g, members, tag, mine, greet);
    dr_mpi_unlock();
    DR_TRY(st);
    DR_TRY(finish(g, "meeting"));
    g->base.wait_ns = g->base.sent_bytes = 0;
    for (int32_t m = 0; m < g->base.n; m++) {
        if (greet[m].n != (uint64_t)g->base.n)
            return dr_fail(DR_EPROTO, "group member %d: member %d means a group of %" PRIu64 ", expected %d",
                           g->base.me, m, greet[m].n, g->base.n);
        if (greet[m].buffer_bytes < g->buffer_bytes) g->buffer_bytes = (size_t)greet[m].buffer_bytes;
    }
    return dr_ok();
}

static dr_status connect(struct mpi *g, const int32_t *members, int32_t tag) { /* lock held */
    int rank[DR_GROUP_MEMBERS_MAX];
    MPI_Group world, part;
    for (int32_t m = 0; m < g->base.n; m++) rank[m] = members[m] + 1;
    DR_TRY(mpi_ok(g, MPI_Comm_group(MPI_COMM_WORLD, &world), "make a group with", 0));
    DR_TRY(mpi_ok(g, MPI_Group_incl(world, g->base.n, rank, &part), "make a group with", 0));
    DR_TRY(mpi_ok(g, MPI_Comm_create_group(MPI_COMM_WORLD, part, tag, &g->comm), "make a group with", 0));
    MPI_Group_free(&part);
    MPI_Group_free(&world);
    return mpi_ok(g, MPI_Comm_set_errhandler(g->comm, MPI_ERRORS_RETURN), "make a group with", 0);
}

/* This process's number among the members, -1: none. */
static int32_t find_me(const int32_t *members, int32_t n, int rank, int size) {
    int32_t me = -1;
    for (int32_t m = 0; m < n; m++) {
        if (members[m] < 0 || members[m] + 1 >= size) return -1;
        if (members[m] + 1 == rank) me = m;
    }
    return me;
}

static dr_status create(const int32_t *members, int32_t n, int32_t tag, size_t buffer_bytes,
                        uint64_t deadline_ns, struct mpi *g, struct greeting *greet) {
    int there = 0, rank = 0, size = 0;
    dr_mpi_lock();
    MPI_Initialized(&there);
    if (there) {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    dr_mpi_unlock();
    if (!there) return dr_fail(DR_EINVAL, "MPI group: MPI is not initialised; create the channel first");
    int32_t me = find_me(members, n, rank, size);
    if (me < 0)
        return dr_fail(DR_EINVAL,
                       "MPI group of %d: process %d is no member, or a member is not in the world of %d", n,
                       rank, size);
    *g = (struct mpi){.base = {.ops = &mpi_ops, .n = n, .me = me, .deadline_ns = deadline_ns},
                      .comm = MPI_COMM_NULL,
                      .buffer_bytes = (buffer_bytes < BUFFER_LEAST ? BUFFER_LEAST : buffer_bytes) / 64 * 64,
                      .open = {{.request = MPI_REQUEST_NULL}, {.request = MPI_REQUEST_NULL}}};
    if (n == 1) return dr_ok();
    DR_TRY(meet(g, members, tag, greet));
    g->stage = aligned_alloc(64, g->buffer_bytes);
    for (int i = 0; i < SENDS_OPEN; i++)
        g->open[i].data = malloc(message_piece(g)); /* pages are touched as far as messages are long */
    if (!g->stage || !g->open[0].data || !g->open[1].data)
        return dr_fail(DR_EFULL, "MPI group: no memory for three buffers of %zu bytes", g->buffer_bytes);
    dr_mpi_lock();
    dr_status st = connect(g, members, tag);
    dr_mpi_unlock();
    return st;
}

dr_status dr_group_mpi_create(const int32_t *members, int32_t n, int32_t tag, size_t buffer_bytes,
                              uint64_t deadline_ns, struct dr_group **out) {
    if (n < 1 || n > DR_GROUP_MEMBERS_MAX || tag < 0 || tag > SHRT_MAX)
        return dr_fail(DR_EINVAL, "MPI group: %d members with tag %d, allowed 1..%d and 0..%d", n, tag,
                       DR_GROUP_MEMBERS_MAX, SHRT_MAX);
    struct mpi *g = calloc(1, sizeof *g);
    struct greeting *greet = calloc((size_t)n, sizeof *greet);
    dr_status st = g && greet ? create(members, n, tag, buffer_bytes, deadline_ns, g, greet)
                              : dr_fail(DR_EFULL, "MPI group: no memory");
    if (st.code != DR_OK) return st; /* messages may be on their way into g and greet: the epoch is over */
    free(greet);
    g->base.deadline_ns = 0; /* that was the meeting's; each step sets its own */
    *out = &g->base;
    return dr_ok();
}
