/* group_shm.c - the group between ranks of one host: shared memory, no library call in a call.
 * In:   buffers of this member.      Out: see group.h.
 * Owns: nothing but its view; the segments belong to who mapped them.
 * Why:  a sum of one row costs two microseconds here and ten through MPI, and every layer has two of them.
 *
 * All calls are made of exchanges: a member puts its part into its slot, publishes the exchange's number, and
 * waits for the others' number; then all parts are there to read. Slots take turns, so nobody needs to say
 * that it has finished reading: its next number says so. Calls that do not fit go in pieces. */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/collective/shm.h"

enum {
    /* Floats that a member reads from the others in the form with one exchange, at most. Above, adding each
     * slice once and reading the sums moves less memory than it costs in a second exchange. */
    SMALL_FLOATS = 64 << 10,
    /* Floats of a piece of a large sum, for each thread: what stays in its second-level cache meanwhile. */
    PIECE_FLOATS = 64 << 10,
    LINE_FLOATS = DR_SHM_LINE / 4,
    GRAIN_FLOATS = 16 << 10, /* of one thread of the team: 64 KiB, more than a thread's wake-up costs */
    TEAM_FLOATS = 64 << 10,  /* less is done by the caller alone */
};

enum kind { CALL_ALLREDUCE = 1, CALL_ALLGATHERV, CALL_ALLTOALLV, CALL_KINDS };

static const char *const kind_names[CALL_KINDS] = {"nothing", "allreduce", "allgatherv", "alltoallv"};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* ---- memory ---- */

struct copying {
    char *to;
    const char *from;
};

static void copy_piece(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct copying *c = arg;
    (void)thread;
    memcpy(c->to + begin, c->from + begin, (size_t)(end - begin));
}

static int32_t threads_of(const struct dr_stream *s) {
    return s && s->team ? dr_team_size(s->team) : 1;
}

static bool worth_team(const struct dr_stream *s, size_t floats) {
    return floats >= TEAM_FLOATS && threads_of(s) > 1;
}

void dr_shm_copy(void *to, const void *from, size_t bytes, struct dr_stream *s) {
    struct copying c = {.to = to, .from = from};
    if (worth_team(s, bytes / 4))
        dr_team_for(s->team, (int64_t)bytes, GRAIN_FLOATS * 4, copy_piece, &c);
    else if (bytes > 0)
        memcpy(to, from, bytes);
}

struct adding {
    float *out;
    const float *const *part;
    int32_t n;
};

static void add_piece(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct adding *a = arg;
    const float *part[DR_GROUP_MEMBERS_MAX];
    (void)thread;
    for (int32_t m = 0; m < a->n; m++) part[m] = a->part[m] + begin;
    dr_group_sum(a->out + begin, part, a->n, (size_t)(end - begin));
}

static void add(float *out, const float *const *part, int32_t n, size_t count, struct dr_stream *s) {
    struct adding a = {.out = out, .part = part, .n = n};
    if (worth_team(s, count))
        dr_team_for(s->team, (int64_t)count, GRAIN_FLOATS, add_piece, &a);
    else
        dr_group_sum(out, part, n, count);
}

/* ---- exchanges ---- */

/* Publishes the exchange begun by writing slot g->exchange % 2 and waits for all others. count and pieces are
 * for them to read. */
static dr_status meet(struct dr_shm *g, enum kind kind, uint64_t count, uint32_t pieces,
                      const struct dr_stream *s) {
    struct dr_shm_control *own = g->control[g->base.me];
    int32_t threads = threads_of(s);
    uint32_t k = g->exchange;
    struct dr_shm_call *call = &own->call[k % 2];
    call->kind = kind;
    call->count = count;
    call->pieces = pieces;
    call->threads = threads;
    dr_shm_tell(own, &call->seq, k);
    for (int32_t i = 1; i < g->base.n; i++) {
        int32_t m = (g->base.me + i) % g->base.n;
        struct dr_shm_control *other = g->control[m];
        call = &other->call[k % 2];
        DR_TRY(dr_shm_await(g, m, other, &call->seq, k, kind_names[kind]));
        threads = call->threads < threads ? call->threads : threads;
        if (call->kind == kind) continue;
        g->failed = true;
        return dr_fail(DR_EPROTO, "group member %d of %d is in %s, member %d in %s", g->base.me, g->base.n,
                       kind_names[kind], m, kind_names[call->kind % CALL_KINDS]);
    }
    g->threads = threads;
    return dr_ok();
}

/* After a meeting: member m said `count`. */
static dr_status same_count(struct dr_shm *g, enum kind kind, int32_t m, uint64_t expected) {
    uint64_t found = g->control[m]->call[g->exchange % 2].count;
    if (found == expected) return dr_ok();
    g->failed = true;
    return dr_fail(DR_EPROTO, "group member %d of %d: %s: member %d came with %llu, expected %llu",
                   g->base.me, g->base.n, kind_names[kind], m, (unsigned long long)found,
                   (unsigned long long)expected);
}

static dr_status same_counts(struct dr_shm *g, enum kind kind, uint64_t expected) {
    for (int32_t m = 0; m < g->base.n; m++) DR_TRY(same_count(g, kind, m, expected));
    return dr_ok();
}

/* ---- sums ---- */

/* One exchange: every member reads all parts and adds them. */
static dr_status reduce_small(struct dr_shm *g, float *x, size_t n, struct dr_stream *s) {
    const float *part[DR_GROUP_MEMBERS_MAX];
    uint32_t k = ++g->exchange;
    for (int32_t m = 0; m < g->base.n; m++) part[m] = (const float *)(const void *)dr_shm_slot(g, m, k);
    dr_shm_copy(dr_shm_slot(g, g->base.me, k), x, n * sizeof *x, s);
    part[g->base.me] = x;
    DR_TRY(meet(g, CALL_ALLREDUCE, n, 1, s));
    DR_TRY(same_counts(g, CALL_ALLREDUCE, n));
    add(x, part, g->base.n, n, s);
    g->base.sent_bytes += (size_t)(g->base.n - 1) * n * sizeof *x;
    return dr_ok();
}

/* A large sum under way: pieces of n slices of `width` floats, of which the last may be shorter. */
struct sum {
    float *x;
    size_t n, width;
    struct dr_stream *s;
};

struct slice { /* of one piece; len 0: there is none */
    size_t at, len;
};

/* Slice of member m in the piece that begins at float `at`. */
static struct slice slice_of(const struct dr_shm *g, const struct sum *v, size_t at, int32_t m) {
    size_t members = (size_t)g->base.n, piece = smaller(v->n - at, v->width * members);
    size_t share = (piece + members - 1) / members;
    share = (share + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    size_t begin = smaller(share * (size_t)m, piece);
    return (struct slice){.at = at + begin, .len = smaller(share, piece - begin)};
}

/* Puts this member's parts of the others' slices into its slot. */
static void give_parts(struct dr_shm *g, const struct sum *v, size_t at) {
    float *slot = (float *)(void *)dr_shm_slot(g, g->base.me, g->exchange);
    for (int32_t m = 0; m < g->base.n; m++) {
        struct slice l = slice_of(g, v, at, m);
        if (m == g->base.me) continue;
        dr_shm_copy(slot + (size_t)m * g->width, v->x + l.at, l.len * sizeof *v->x, v->s);
        g->base.sent_bytes += l.len * sizeof *v->x;
    }
}

/* Adds this member's slice of the piece just met, for itself and for the others. */
static void add_slice(struct dr_shm *g, const struct sum *v, size_t at) {
    const float *part[DR_GROUP_MEMBERS_MAX];
    struct slice l = slice_of(g, v, at, g->base.me);
    float *result = dr_shm_result(g, g->base.me, g->exchange);
    for (int32_t m = 0; m < g->base.n; m++)
        part[m] = (const float *)(const void *)dr_shm_slot(g, m, g->exchange) + (size_t)g->base.me * g->width;
    part[g->base.me] = v->x + l.at;
    add(result, part, g->base.n, l.len, v->s);
    dr_shm_copy(v->x + l.at, result, l.len * sizeof *v->x, v->s);
    g->base.sent_bytes += (size_t)(g->base.n - 1) * l.len * sizeof *v->x;
}

/* The others' sums of the piece before the one just met. */
static void take_sums(struct dr_shm *g, const struct sum *v, size_t at) {
    for (int32_t i = 1; i < g->base.n; i++) {
        int32_t m = (g->base.me + i) % g->base.n;
        struct slice l = slice_of(g, v, at, m);
        dr_shm_copy(v->x + l.at, dr_shm_result(g, m, g->exchange - 1), l.len * sizeof *v->x, v->s);
    }
}

/* Every member adds a slice of each piece; an exchange hands over the parts of one piece and the sums of the
 * piece before. */
static dr_status reduce_sliced(struct dr_shm *g, float *x, size_t n, struct dr_stream *s) {
    size_t members = (size_t)g->base.n, wish = (size_t)PIECE_FLOATS * (size_t)g->threads / members;
    struct sum v = {.x = x, .n = n, .s = s};
    v.width = smaller((wish + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS, g->width);
    size_t piece = v.width * members, pieces = (n + piece - 1) / piece;
    for (size_t i = 0; i <= pieces; i++) {
        ++g->exchange;
        if (i < pieces) give_parts(g, &v, i * piece);
        DR_TRY(meet(g, CALL_ALLREDUCE, n, 1, s));
        DR_TRY(same_counts(g, CALL_ALLREDUCE, n));
        if (i > 0) take_sums(g, &v, (i - 1) * piece);
        if (i < pieces) add_slice(g, &v, i * piece);
    }
    return dr_ok();
}

static dr_status allreduce(struct dr_group *base, float *x, size_t n, struct dr_stream *s) {
    struct dr_shm *g = (struct dr_shm *)base;
    DR_TRY(dr_shm_usable(g));
    DR_ASSERT(g->slot > 0);
    if (n == 0) return dr_ok();
    bool small = n * (size_t)(base->n - 1) <= SMALL_FLOATS && n * sizeof *x <= g->slot;
    return small ? reduce_small(g, x, n, s) : reduce_sliced(g, x, n, s);
}

/* ---- moves ---- */

static dr_status allgatherv(struct dr_group *base, const void *mine, void *out, const size_t *bytes,
                            const size_t *at, struct dr_stream *s) {
    struct dr_shm *g = (struct dr_shm *)base;
    size_t most = 0, own = bytes[base->me];
    DR_TRY(dr_shm_usable(g));
    DR_ASSERT(g->slot > 0);
    char *place = (char *)out + at[base->me];
    if (own > 0 && mine != place) memmove(place, mine, own);
    for (int32_t m = 0; m < base->n; m++) most = bytes[m] > most ? bytes[m] : most;
    for (size_t done = 0; done < most; done += g->slot) {
        uint32_t k = ++g->exchange;
        if (own > done)
            dr_shm_copy(dr_shm_slot(g, base->me, k), place + done, smaller(own - done, g->slot), s);
        DR_TRY(meet(g, CALL_ALLGATHERV, own, 1, s));
        for (int32_t i = 1; i < base->n; i++) {
            int32_t m = (base->me + i) % base->n;
            DR_TRY(same_count(g, CALL_ALLGATHERV, m, bytes[m]));
            if (bytes[m] > done)
                dr_shm_copy((char *)out + at[m] + done, dr_shm_slot(g, m, k),
                            smaller(bytes[m] - done, g->slot), s);
        }
    }
    base->sent_bytes += (size_t)(base->n - 1) * own;
    return dr_ok();
}

struct moves {
    const char *in;
    char *out;
    const size_t *send_bytes, *send_at, *recv_bytes, *recv_at;
    size_t room; /* bytes for one member in a slot */
};

static void give_moves(struct dr_shm *g, const struct moves *v, size_t done, struct dr_stream *s) {
    char *slot = dr_shm_slot(g, g->base.me, g->exchange);
    for (int32_t m = 0; m < g->base.n; m++)
        if (m != g->base.me && v->send_bytes[m] > done)
            dr_shm_copy(slot + (size_t)m * v->room, v->in + v->send_at[m] + done,
                        smaller(v->send_bytes[m] - done, v->room), s);
}

static void take_moves(struct dr_shm *g, const struct moves *v, size_t done, struct dr_stream *s) {
    for (int32_t i = 1; i < g->base.n; i++) {
        int32_t m = (g->base.me + i) % g->base.n;
        if (v->recv_bytes[m] > done)
            dr_shm_copy(v->out + v->recv_at[m] + done,
                        dr_shm_slot(g, m, g->exchange) + (size_t)g->base.me * v->room,
                        smaller(v->recv_bytes[m] - done, v->room), s);
    }
}

/* After the first meeting: what the others send is what is expected. Returns in *pieces how many the longest
 * of all messages needs. */
static dr_status agree(struct dr_shm *g, const struct moves *v, uint32_t *pieces) {
    for (int32_t m = 0; m < g->base.n; m++) {
        const struct dr_shm_control *c = g->control[m];
        uint64_t sent = c->to[g->exchange % 2][g->base.me];
        if (c->call[g->exchange % 2].pieces > *pieces) *pieces = c->call[g->exchange % 2].pieces;
        if (sent == v->recv_bytes[m]) continue;
        g->failed = true;
        return dr_fail(DR_EPROTO,
                       "group member %d of %d: alltoallv: member %d sends %llu bytes, expected %zu",
                       g->base.me, g->base.n, m, (unsigned long long)sent, v->recv_bytes[m]);
    }
    return dr_ok();
}

static dr_status alltoallv(struct dr_group *base, const void *in, const size_t *send_bytes,
                           const size_t *send_at, void *out, const size_t *recv_bytes, const size_t *recv_at,
                           struct dr_stream *s) {
    struct dr_shm *g = (struct dr_shm *)base;
    struct moves v = {.in = in,
                      .out = out,
                      .send_bytes = send_bytes,
                      .send_at = send_at,
                      .recv_bytes = recv_bytes,
                      .recv_at = recv_at,
                      .room = g->slot / (size_t)base->n / 64 * 64};
    size_t most = 0;
    int32_t me = base->me;
    DR_TRY(dr_shm_usable(g));
    DR_ASSERT(v.room > 0);
    if (send_bytes[me] != recv_bytes[me])
        return dr_fail(DR_EPROTO, "group member %d: alltoallv sends %zu bytes to itself, expects %zu", me,
                       send_bytes[me], recv_bytes[me]);
    if (send_bytes[me] > 0) memcpy((char *)out + recv_at[me], (const char *)in + send_at[me], send_bytes[me]);
    for (int32_t m = 0; m < base->n; m++) {
        g->control[me]->to[(g->exchange + 1) % 2][m] = send_bytes[m];
        if (m == me) continue;
        base->sent_bytes += send_bytes[m];
        most = send_bytes[m] > most ? send_bytes[m] : most;
    }
    uint32_t pieces = (uint32_t)((most + v.room - 1) / v.room), i = 0;
    do {
        ++g->exchange;
        give_moves(g, &v, i * v.room, s);
        DR_TRY(meet(g, CALL_ALLTOALLV, 0, pieces, s));
        if (i == 0) DR_TRY(agree(g, &v, &pieces));
        take_moves(g, &v, i * v.room, s);
    } while (++i < pieces);
    return dr_ok();
}

/* ---- life ---- */

static void poll_nothing(struct dr_group *g) {
    (void)g; /* shared memory moves by itself */
}

static void destroy(struct dr_group *base) {
    struct dr_shm *g = (struct dr_shm *)base;
    for (int32_t m = 0; m < base->n; m++)
        if (g->process[m] >= 0) (void)close(g->process[m]);
    free(g);
}

static const struct dr_group_ops shm_ops = {
    .name = "shm",
    .allreduce = allreduce,
    .allgatherv = allgatherv,
    .alltoallv = alltoallv,
    .send = dr_shm_send,
    .recv = dr_shm_recv,
    .poll = poll_nothing,
    .destroy = destroy,
};

size_t dr_shm_bytes(size_t call_bytes, size_t message_bytes) {
    return sizeof(struct dr_shm_control) + call_bytes + 2 * message_bytes;
}

/* Two slots and two results of one slice of a slot, all of whole lines. */
static void cut(struct dr_shm *g, size_t call_bytes) {
    size_t n = (size_t)g->base.n, part = DR_SHM_LINE * n;
    g->slot = call_bytes / 2 * n / (n + 1) / part * part;
    g->width = g->slot / n / sizeof(float);
}

dr_status dr_group_shm_create(const struct dr_shm_spec *spec, struct dr_group **out) {
    if (spec->n < 2 || spec->n > DR_GROUP_MEMBERS_MAX || spec->me < 0 || spec->me >= spec->n)
        return dr_fail(DR_EINVAL, "shared-memory group: member %d of %d, allowed 2..%d", spec->me, spec->n,
                       DR_GROUP_MEMBERS_MAX);
    struct dr_shm *g = calloc(1, sizeof *g);
    if (!g) return dr_fail(DR_EFULL, "shared-memory group: no memory");
    g->base = (struct dr_group){.ops = &shm_ops, .n = spec->n, .me = spec->me};
    g->threads = 1;
    g->message = spec->message_bytes / DR_SHM_LINE * DR_SHM_LINE;
    cut(g, spec->call_bytes);
    for (int32_t m = 0; m < spec->n; m++) {
        g->control[m] = spec->segment[m];
        g->process[m] =
            m != spec->me && spec->pid[m] > 0 ? (int)syscall(SYS_pidfd_open, (pid_t)spec->pid[m], 0) : -1;
    }
    *out = &g->base;
    return dr_ok();
}
