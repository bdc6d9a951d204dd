/* group_hier.c - see hier.h.
 * In:   buffers of this member.      Out: see group.h.
 * Owns: see hier.h.
 * Why:  see hier.h.
 *
 * Sums keep member order although they cross hosts: hosts own consecutive members, so host h adds its own
 * members, one after the other, to the sum that host h - 1 sends, and hands it on; the last host's sum is the
 * result and goes back the same way. Every host cuts a piece into slices, one for each of its first `ways`
 * members, so that as many members talk across. Small sums travel raw: every host gets all parts at once and
 * adds them itself, in one message time instead of two a host. */
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "worker/collective/hier.h"

enum {
    RAW_BYTES = 32 << 10, /* of one host's parts; more costs more to send than the chain's second message */
    LINE_FLOATS = 16,
};

struct hier {
    struct dr_group base;
    struct dr_group *local, *across, *all;
    bool failed;
    int32_t n_host, my_host, my_number;      /* number among the members of the host */
    int32_t ways;                            /* members of the smallest host */
    int32_t largest;                         /* members of the largest host */
    int32_t first[DR_GROUP_MEMBERS_MAX + 1]; /* first member of each host, and the end */
    float *stage;
    size_t stage_floats, width; /* floats of the longest slice of a piece */
};

static int32_t members_of(const struct hier *g, int32_t host) {
    return g->first[host + 1] - g->first[host];
}

/* ---- inner groups ---- */

/* Before a call: the inner groups have this one's deadline. While members of a host wait for each other, what
 * goes to other hosts moves. */
static dr_status lend(struct hier *g) {
    struct dr_group *inner[] = {g->local, g->across, g->all};
    if (g->failed)
        return dr_fail(DR_EPEER, "group member %d of %d: an earlier call failed", g->base.me, g->base.n);
    for (int i = 0; i < 3; i++) {
        if (!inner[i]) continue;
        inner[i]->deadline_ns = g->base.deadline_ns;
        inner[i]->wait_ns = inner[i]->sent_bytes = 0;
    }
    if (g->local) g->local->meanwhile = &g->base;
    return dr_ok();
}

/* After it. */
static dr_status collect(struct hier *g, dr_status st) {
    struct dr_group *inner[] = {g->local, g->across, g->all};
    for (int i = 0; i < 3; i++) {
        if (!inner[i]) continue;
        g->base.wait_ns += inner[i]->wait_ns;
        g->base.sent_bytes += inner[i]->sent_bytes;
    }
    if (st.code != DR_OK) g->failed = true;
    return st;
}

/* ---- small sums ---- */

/* Parts of all members lie in the stage in member order, `len` floats each. */
static dr_status reduce_raw(struct hier *g, float *x, size_t len, struct dr_stream *s) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], row = len * sizeof *x;
    const int32_t first = g->first[g->my_host], n = members_of(g, g->my_host);
    const float *part[DR_GROUP_MEMBERS_MAX];
    float *mine = g->stage + (size_t)first * len;
    for (int32_t i = 0; i < n; i++) {
        bytes[i] = row;
        at[i] = (size_t)i * row;
    }
    if (g->local)
        DR_TRY(g->local->ops->allgatherv(g->local, x, mine, bytes, at, s));
    else
        memcpy(mine, x, row);
    if (g->my_number == 0) {
        for (int32_t h = 0; h < g->n_host; h++) {
            bytes[h] = (size_t)members_of(g, h) * row;
            at[h] = (size_t)g->first[h] * row;
        }
        DR_TRY(g->across->ops->allgatherv(g->across, mine, g->stage, bytes, at, s));
        for (int32_t m = 0; m < g->base.n; m++) part[m] = g->stage + (size_t)m * len;
        dr_group_sum(x, part, g->base.n, len);
    }
    if (!g->local) return dr_ok();
    for (int32_t i = 0; i < n; i++) {
        bytes[i] = i == 0 ? row : 0;
        at[i] = 0;
    }
    return g->local->ops->allgatherv(g->local, x, x, bytes, at, s);
}

/* ---- large sums ---- */

struct piece { /* of a large sum: slice i of `ways` is bytes[i] at at[i] */
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX];
};

static size_t piece_floats(const struct hier *g) {
    return g->width * (size_t)g->ways;
}

/* Piece number i of a sum of n floats, cut for the members of this host; the surplus ones get nothing. */
static struct piece piece_of(const struct hier *g, size_t n, size_t i) {
    struct piece p = {.bytes = {0}};
    size_t begin = i * piece_floats(g), len = n - begin < piece_floats(g) ? n - begin : piece_floats(g);
    size_t share = (len + (size_t)g->ways - 1) / (size_t)g->ways;
    share = (share + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    for (int32_t k = 0; k < members_of(g, g->my_host); k++) {
        size_t from = share * (size_t)k < len ? share * (size_t)k : len;
        size_t to = k >= g->ways ? from : from + share < len ? from + share : len;
        p.at[k] = (begin + from) * sizeof(float);
        p.bytes[k] = (to - from) * sizeof(float);
    }
    return p;
}

/* Brings the parts of this member's slice from the members of its host into the stage. */
static dr_status scatter(struct hier *g, const float *x, const struct piece *p, struct dr_stream *s) {
    size_t mine[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX];
    for (int32_t k = 0; k < members_of(g, g->my_host); k++) {
        mine[k] = p->bytes[g->my_number];
        at[k] = (size_t)k * g->width * sizeof *x;
    }
    if (g->local) return g->local->ops->alltoallv(g->local, x, p->bytes, p->at, g->stage, mine, at, s);
    memcpy(g->stage, (const char *)x + p->at[0], p->bytes[0]);
    return dr_ok();
}

/* Adds this host's parts of the slice to what the host before has sent, and hands the sum on. The last host
 * has the result then and sends it back. */
static dr_status chain(struct hier *g, float *x, const struct piece *p, struct dr_stream *s) {
    const float *part[DR_GROUP_MEMBERS_MAX + 1];
    size_t bytes = p->bytes[g->my_number];
    int32_t n = 0, last = g->n_host - 1, k = members_of(g, g->my_host);
    float *before = g->stage + (size_t)k * g->width, *sum = before + g->width;
    if (!g->across || bytes == 0) return dr_ok();
    if (g->my_host > 0) {
        DR_TRY(g->across->ops->recv(g->across, g->my_host - 1, before, bytes, s));
        part[n++] = before;
    }
    for (int32_t i = 0; i < k; i++) part[n++] = g->stage + (size_t)i * g->width;
    dr_group_sum(sum, part, n, bytes / sizeof *sum);
    if (g->my_host < last) return g->across->ops->send(g->across, g->my_host + 1, sum, bytes, s);
    memcpy((char *)x + p->at[g->my_number], sum, bytes);
    return g->across->ops->send(g->across, g->my_host - 1, sum, bytes, s);
}

/* Takes the result of this member's slice from the host behind, hands it to the one before, and shares it
 * with the members of its own. */
static dr_status finish(struct hier *g, float *x, const struct piece *p, struct dr_stream *s) {
    size_t bytes = p->bytes[g->my_number];
    char *slice = (char *)x + p->at[g->my_number];
    if (g->across && bytes > 0 && g->my_host < g->n_host - 1) {
        DR_TRY(g->across->ops->recv(g->across, g->my_host + 1, slice, bytes, s));
        if (g->my_host > 0) DR_TRY(g->across->ops->send(g->across, g->my_host - 1, slice, bytes, s));
    }
    return g->local ? g->local->ops->allgatherv(g->local, slice, x, p->bytes, p->at, s) : dr_ok();
}

/* One piece is on its way forth while the one before comes back. Two are never open in one direction more
 * than a host's two open sends hold, so no ring of hosts waits for itself. */
static dr_status reduce_chain(struct hier *g, float *x, size_t n, struct dr_stream *s) {
    size_t pieces = (n + piece_floats(g) - 1) / piece_floats(g);
    struct piece now = {.bytes = {0}}, before = now;
    for (size_t i = 0; i <= pieces; i++) {
        if (i < pieces) {
            now = piece_of(g, n, i);
            DR_TRY(scatter(g, x, &now, s));
            DR_TRY(chain(g, x, &now, s));
        }
        if (i > 0) DR_TRY(finish(g, x, &before, s));
        before = now;
    }
    return dr_ok();
}

static dr_status allreduce(struct dr_group *base, float *x, size_t n, struct dr_stream *s) {
    struct hier *g = (struct hier *)base;
    if (n == 0) return dr_ok();
    bool raw = (size_t)g->largest * n * sizeof *x <= RAW_BYTES && (size_t)base->n * n <= g->stage_floats;
    DR_TRY(lend(g));
    return collect(g, raw ? reduce_raw(g, x, n, s) : reduce_chain(g, x, n, s));
}

/* ---- gathers ---- */

/* The members' bytes lie one behind the other. */
static bool in_line(const struct hier *g, const size_t *bytes, const size_t *at) {
    for (int32_t m = 1; m < g->base.n; m++)
        if (at[m] != at[m - 1] + bytes[m - 1]) return false;
    return true;
}

/* Slice `way` of what host h gathers. */
static void host_slice(const struct hier *g, const size_t *bytes, const size_t *at, int32_t h, int32_t way,
                       size_t *slice_bytes, size_t *slice_at) {
    size_t sum = 0, ways = (size_t)g->ways;
    for (int32_t m = g->first[h]; m < g->first[h + 1]; m++) sum += bytes[m];
    size_t share = dr_size_align((sum + ways - 1) / ways, 64);
    size_t begin = share * (size_t)way < sum ? share * (size_t)way : sum;
    *slice_at = at[g->first[h]] + begin;
    *slice_bytes = way >= g->ways ? 0 : sum - begin < share ? sum - begin : share;
}

/* Gathers within the host, then a slice of every host across, then the other hosts' slices within the host.
 */
static dr_status gather(struct hier *g, const void *mine, void *out, const size_t *bytes, const size_t *at,
                        struct dr_stream *s) {
    size_t slice[DR_GROUP_MEMBERS_MAX], slice_at[DR_GROUP_MEMBERS_MAX];
    const int32_t first = g->first[g->my_host];
    if (g->local) DR_TRY(g->local->ops->allgatherv(g->local, mine, out, bytes + first, at + first, s));
    if (!g->local && bytes[g->base.me] > 0 && (const char *)mine != (char *)out + at[g->base.me])
        memmove((char *)out + at[g->base.me], mine, bytes[g->base.me]);
    for (int32_t h = 0; h < g->n_host; h++)
        host_slice(g, bytes, at, h, g->my_number, &slice[h], &slice_at[h]);
    if (g->across)
        DR_TRY(g->across->ops->allgatherv(g->across, (char *)out + slice_at[g->my_host], out, slice, slice_at,
                                          s));
    for (int32_t h = 0; g->local && h < g->n_host; h++) {
        if (h == g->my_host) continue;
        for (int32_t i = 0; i < members_of(g, g->my_host); i++)
            host_slice(g, bytes, at, h, i, &slice[i], &slice_at[i]);
        DR_TRY(g->local->ops->allgatherv(g->local, (char *)out + slice_at[g->my_number], out, slice, slice_at,
                                         s));
    }
    return dr_ok();
}

static dr_status allgatherv(struct dr_group *base, const void *mine, void *out, const size_t *bytes,
                            const size_t *at, struct dr_stream *s) {
    struct hier *g = (struct hier *)base;
    DR_TRY(lend(g));
    return collect(g, in_line(g, bytes, at) ? gather(g, mine, out, bytes, at, s)
                                            : g->all->ops->allgatherv(g->all, mine, out, bytes, at, s));
}

/* ---- what gains nothing by hosts: every byte has one receiver ---- */

static dr_status alltoallv(struct dr_group *base, const void *in, const size_t *send_bytes,
                           const size_t *send_at, void *out, const size_t *recv_bytes, const size_t *recv_at,
                           struct dr_stream *s) {
    struct hier *g = (struct hier *)base;
    DR_TRY(lend(g));
    return collect(g, g->all->ops->alltoallv(g->all, in, send_bytes, send_at, out, recv_bytes, recv_at, s));
}

static dr_status send_message(struct dr_group *base, int32_t to, const void *x, size_t bytes,
                              struct dr_stream *s) {
    struct hier *g = (struct hier *)base;
    DR_TRY(lend(g));
    return collect(g, g->all->ops->send(g->all, to, x, bytes, s));
}

static dr_status recv_message(struct dr_group *base, int32_t from, void *x, size_t bytes,
                              struct dr_stream *s) {
    struct hier *g = (struct hier *)base;
    DR_TRY(lend(g));
    return collect(g, g->all->ops->recv(g->all, from, x, bytes, s));
}

static void poll_inner(struct dr_group *base) {
    struct hier *g = (struct hier *)base;
    if (g->across) g->across->ops->poll(g->across);
    g->all->ops->poll(g->all);
    if (base->meanwhile) base->meanwhile->ops->poll(base->meanwhile);
}

/* ---- life ---- */

static void destroy(struct dr_group *base) {
    struct hier *g = (struct hier *)base;
    dr_group_destroy(g->local);
    dr_group_destroy(g->across);
    dr_group_destroy(g->all);
    free(g->stage);
    free(g);
}

static const struct dr_group_ops hier_ops = {
    .name = "hier",
    .allreduce = allreduce,
    .allgatherv = allgatherv,
    .alltoallv = alltoallv,
    .send = send_message,
    .recv = recv_message,
    .poll = poll_inner,
    .destroy = destroy,
};

size_t dr_hier_message_bytes(size_t stage_bytes) {
    return stage_bytes / 3; /* a slice: the stage holds at least one part, the sum before and the sum */
}

static void place(struct hier *g, const int32_t *host) {
    g->n_host = host[g->base.n - 1] + 1;
    g->my_host = host[g->base.me];
    g->first[g->n_host] = g->base.n;
    for (int32_t m = g->base.n - 1; m >= 0; m--) g->first[host[m]] = m;
    g->my_number = g->base.me - g->first[g->my_host];
    g->ways = g->base.n;
    for (int32_t h = 0; h < g->n_host; h++) {
        g->ways = members_of(g, h) < g->ways ? members_of(g, h) : g->ways;
        g->largest = members_of(g, h) > g->largest ? members_of(g, h) : g->largest;
    }
    g->width = g->stage_floats / (size_t)(g->largest + 2) / LINE_FLOATS * LINE_FLOATS;
}

dr_status dr_group_hier_create(const struct dr_hier_spec *spec, struct dr_group **out) {
    struct hier *g = calloc(1, sizeof *g);
    if (g) {
        *g = (struct hier){.base = {.ops = &hier_ops, .n = spec->n, .me = spec->me, .needs_poll = true},
                           .local = spec->local,
                           .across = spec->across,
                           .all = spec->all,
                           .stage = aligned_alloc(64, spec->stage_bytes / 64 * 64),
                           .stage_floats = spec->stage_bytes / 64 * 16};
        place(g, spec->host);
    }
    if (g && g->stage && g->width > 0) {
        *out = &g->base;
        return dr_ok();
    }
    dr_group_destroy(spec->local);
    dr_group_destroy(spec->across);
    dr_group_destroy(spec->all);
    if (g) free(g->stage);
    free(g);
    return dr_fail(DR_EFULL, "group over hosts: no memory for %zu bytes among %d members", spec->stage_bytes,
                   spec->n);
}
