/* group_mpi.c - the group between processes of any hosts: host memory over non-blocking MPI.
 * In:   a communicator of the members; buffers of this member.      Out: see group.h.
 * Owns: staging for sums, two buffers of open sends.
 * Why:  MPI's own reductions choose the order of additions by size and its blocking calls cannot be timed
 * out; here parts are moved by sends and receives, added in member order, and every wait is a loop of tests
 * under the step's deadline.
 *
 * All members pair their messages by order, so each member must enter the same calls; a message of another
 * size than expected is refused (EPROTO). After a failed call messages may still be on their way: their
 * buffers are then left to the end of the process. */
#include "worker/collective/group_mpi.h"

#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/channel.h"

enum {
    TAG_CALL = 1,
    TAG_MESSAGE = 2,
    PIECE =
        16 << 20, /* bytes of one MPI message; counts are ints, and a test between pieces is a sign of life */
    SMALL_FLOATS = 64 << 10, /* sent by one member in the everyone-to-everyone form, at most: 256 KiB */
    REQUESTS_MAX = 2 * DR_GROUP_MEMBERS_MAX,
    SENDS_OPEN = 2,
};

/* Waiting: an answer within a step is near, but members may share cores, so the processor is given up early
 * and then left alone. */
static const uint64_t SPIN_NS = 20000, YIELD_NS = 1000000, SLEEP_LEAST_NS = 20000, SLEEP_MOST_NS = 200000;
static const uint64_t LEAVE_NS = 2000000000u; /* what destroy gives the last sends */

struct open_send {
    char *data; /* message bytes */
    MPI_Request request;
};

struct mpi {
    struct dr_group base;
    MPI_Comm comm; /* MPI_COMM_NULL with one member */
    float *stage;  /* NULL: no sums */
    size_t call_bytes, message;
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

static dr_status start_recv(struct mpi *g, int tag, int32_t member, void *at, size_t bytes) {
    DR_ASSERT(g->n < REQUESTS_MAX && bytes <= PIECE);
    DR_TRY(mpi_ok(g, MPI_Irecv(at, (int)bytes, MPI_BYTE, member, tag, g->comm, &g->request[g->n]),
                  "receive from", member));
    g->peer[g->n] = member;
    g->expect[g->n++] = (int)bytes;
    return dr_ok();
}

static dr_status start_send(struct mpi *g, int tag, int32_t member, const void *at, size_t bytes) {
    DR_ASSERT(g->n < REQUESTS_MAX && bytes <= PIECE);
    DR_TRY(mpi_ok(g, MPI_Isend(at, (int)bytes, MPI_BYTE, member, tag, g->comm, &g->request[g->n]), "send to",
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
        if (bytes > 0) DR_TRY(start_recv(g, TAG_CALL, m, v->out + v->recv_at[m] + at, bytes));
    }
    for (int32_t k = 1; k < n; k++) {
        int32_t m = (g->base.me + k) % n;
        size_t bytes = piece_at(v->send_bytes[m], at);
        if (bytes > 0) DR_TRY(start_send(g, TAG_CALL, m, v->in + v->send_at[m] + at, bytes));
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
           room = g->call_bytes / sizeof *x / members; /* floats a member in the stage */
    DR_ASSERT(room > 0);
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
    DR_ASSERT(to >= 0 && to < base->n && to != base->me && g->message > 0);
    size_t at = 0;
    do { /* a message of no bytes is one, too */
        size_t len = bytes - at < g->message ? bytes - at : g->message;
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
    DR_ASSERT(from >= 0 && from < base->n && from != base->me && g->message > 0);
    size_t at = 0;
    do {
        size_t len = bytes - at < g->message ? bytes - at : g->message;
        dr_mpi_lock();
        dr_status st = start_recv(g, TAG_MESSAGE, from, (char *)x + at, len);
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

dr_status dr_group_mpi_over(int comm, int32_t n, int32_t me, size_t call_bytes, size_t message_bytes,
                            struct dr_group **out) {
    struct mpi *g = calloc(1, sizeof *g);
    if (!g) return dr_fail(DR_EFULL, "MPI group: no memory");
    *g = (struct mpi){.base = {.ops = &mpi_ops, .n = n, .me = me, .needs_poll = message_bytes > 0},
                      .comm = n > 1 ? MPI_Comm_f2c(comm) : MPI_COMM_NULL,
                      .call_bytes = n > 1 ? call_bytes / 64 * 64 : 0,
                      .message = n > 1 ? (message_bytes < PIECE ? message_bytes : PIECE) : 0,
                      .open = {{.request = MPI_REQUEST_NULL}, {.request = MPI_REQUEST_NULL}}};
    bool good = true; /* pages are touched as far as calls need them */
    if (g->call_bytes > 0) good = (g->stage = aligned_alloc(64, g->call_bytes)) != NULL;
    for (int i = 0; i < SENDS_OPEN && good && g->message > 0; i++)
        good = (g->open[i].data = malloc(g->message)) != NULL;
    if (good) {
        *out = &g->base;
        return dr_ok();
    }
    free(g->stage);
    free(g->open[0].data);
    free(g);
    return dr_fail(DR_EFULL, "MPI group: no memory for %zu bytes of calls and two messages of %zu bytes",
                   call_bytes, message_bytes);
}
