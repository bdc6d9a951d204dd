/* test_group.c - the in-process group with 1 to 8 members.
 * In:   threads as members.      Out: CUnit results.
 * Owns: nothing.
 * Why:  every layout test of one process adds and moves through here; bits must be those of adding in member
 * order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/support/runner.h"
#include "worker/collective/group.h"

enum { MEMBERS = 8, BUFFER = 1 << 20 };

/* What a member's thread does; returns the number of wrong values. CUnit's counters are not for threads. */
typedef size_t member_fn(struct dr_group *g, const void *arg);

struct member {
    struct dr_group *g;
    member_fn *fn;
    const void *arg;
    size_t bad;
};

static void *run_member(void *arg) {
    struct member *m = arg;
    m->bad = m->fn(m->g, m->arg);
    dr_group_destroy(m->g);
    return NULL;
}

/* Runs fn on n members; the sum of what they return. */
static size_t run(int32_t n, size_t buffer, member_fn *fn, const void *arg) {
    struct dr_group *g[MEMBERS] = {NULL};
    struct member m[MEMBERS];
    pthread_t thread[MEMBERS];
    size_t bad = 0;
    CU_ASSERT_EQUAL_FATAL(dr_group_loop_create(n, buffer, g).code, DR_OK);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT(g[i]->n == n && g[i]->me == i && strcmp(g[i]->ops->name, "loop") == 0);
        g[i]->deadline_ns = dr_clock_ns() + 60000000000u;
        m[i] = (struct member){.g = g[i], .fn = fn, .arg = arg};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, run_member, &m[i]), 0);
    }
    for (int32_t i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        bad += m[i].bad;
    }
    return bad;
}

static void *memory(size_t bytes) {
    void *p = malloc(bytes + 1);
    DR_ASSERT(p != NULL);
    memset(p, 0x7f, bytes + 1);
    return p;
}

static size_t failed(dr_status st, const char *what) {
    if (st.code != DR_OK) printf("%s: %s: %s\n", what, dr_code_name(st.code), dr_error_text());
    return st.code != DR_OK;
}

/* Magnitudes differ so much that another order of additions gives other bits. */
static float value(int32_t m, size_t i) {
    uint32_t h = (uint32_t)(i * 2654435761u) ^ (uint32_t)(m + 1) * 40503u;
    h ^= h >> 13;
    h *= 0x5bd1e995u;
    h ^= h >> 15;
    float v = (float)((int32_t)(h & 0xffff) - 32768);
    for (uint32_t k = 0; k < (h >> 16) % 20; k++) v *= 0.25f;
    return v;
}

static size_t sum_one(struct dr_group *g, size_t n, bool whole) {
    float *x = memory(n * sizeof *x);
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) x[i] = whole ? (float)((int)(i % 100) - 50 * g->me) : value(g->me, i);
    bad += failed(g->ops->allreduce(g, x, n, NULL), "allreduce");
    for (size_t i = 0; i < n; i++) {
        float want = whole ? (float)(g->n * (int)(i % 100) - 25 * g->n * (g->n - 1)) : value(0, i);
        for (int32_t m = 1; m < g->n && !whole; m++) want += value(m, i);
        bad += memcmp(&want, &x[i], sizeof want) != 0;
    }
    free(x);
    return bad;
}

static size_t sums(struct dr_group *g, const void *arg) {
    static const size_t sizes[] = {0, 1, 3, 15, 16, 17, 1023, 4096, 65537, 300001};
    size_t bad = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        bad += sum_one(g, sizes[k], *(const bool *)arg);
    g->ops->poll(g);
    if (g->n > 1) bad += g->sent_bytes == 0 || g->wait_ns == 0;
    if (g->n == 1) bad += g->sent_bytes != 0;
    return bad;
}

static void whole_sums(void) {
    for (int32_t n = 1; n <= MEMBERS; n++) CU_ASSERT_EQUAL(run(n, BUFFER, sums, &(bool){true}), 0);
}

static void ordered_sums(void) {
    for (int32_t n = 1; n <= MEMBERS; n++) CU_ASSERT_EQUAL(run(n, BUFFER, sums, &(bool){false}), 0);
    CU_ASSERT_EQUAL(run(3, 0, sums, &(bool){false}), 0); /* the least buffer: many pieces */
}

static void sum_of_parts(void) { /* 1 + 2^24 - 2^24 shows the order; -0 stays -0 */
    float a[] = {1, 16777216, -0.0f}, b[] = {16777216, 1, -0.0f}, c[] = {-16777216, -16777216, -0.0f}, out[3];
    const float *abc[] = {a, b, c}, *cba[] = {c, b, a};
    dr_group_sum(out, abc, 3, 3);
    CU_ASSERT(out[0] == 0 && out[1] == 0 && memcmp(&out[2], &a[2], 4) == 0);
    dr_group_sum(out, cba, 3, 3);
    CU_ASSERT(out[0] == 1 && out[1] == 1);
    dr_group_sum(b, abc, 3, 3); /* into one of the parts */
    CU_ASSERT(b[0] == 0 && b[1] == 0);
    dr_group_sum(out, abc, 1, 2);
    CU_ASSERT(out[0] == 1 && out[1] == 16777216);
    dr_group_sum(out, abc, 2, 0);
    CU_ASSERT(out[0] == 1);
}

static size_t gather_one(struct dr_group *g, size_t step, bool in_place) {
    size_t bytes[MEMBERS], at[MEMBERS], total = 0, bad = 0;
    for (int32_t m = 0; m < g->n; m++) {
        bytes[m] = (size_t)m * step; /* member 0 has none */
        at[m] = total;
        total += bytes[m];
    }
    char *out = memory(total), *mine = in_place ? out + at[g->me] : memory(bytes[g->me]);
    memset(mine, g->me, bytes[g->me]);
    bad += failed(g->ops->allgatherv(g, mine, out, bytes, at, NULL), "allgatherv");
    if (!in_place) memset(mine, 0x55, bytes[g->me]); /* nobody reads it any more */
    for (int32_t m = 0; m < g->n; m++)
        for (size_t i = 0; i < bytes[m]; i++) bad += out[at[m] + i] != m;
    bad += out[total] != 0x7f;
    if (!in_place) free(mine);
    free(out);
    return bad;
}

static size_t part(int32_t a, int32_t b, size_t step) {
    return (a + b) % 3 == 0 ? 0 : (size_t)(a + 1) * (size_t)(b + 2) * step;
}

static size_t alltoall_one(struct dr_group *g, size_t step) {
    size_t send[MEMBERS], send_at[MEMBERS], recv[MEMBERS], recv_at[MEMBERS], out_bytes = 0, in_bytes = 0,
                                                                             bad = 0;
    for (int32_t m = 0; m < g->n; m++) {
        send_at[m] = in_bytes;
        recv_at[m] = out_bytes;
        in_bytes += send[m] = part(g->me, m, step);
        out_bytes += recv[m] = part(m, g->me, step);
    }
    char *in = memory(in_bytes), *out = memory(out_bytes);
    for (int32_t m = 0; m < g->n; m++) memset(in + send_at[m], 10 * g->me + m, send[m]);
    bad += failed(g->ops->alltoallv(g, in, send, send_at, out, recv, recv_at, NULL), "alltoallv");
    for (int32_t m = 0; m < g->n; m++)
        for (size_t i = 0; i < recv[m]; i++) bad += out[recv_at[m] + i] != 10 * m + g->me;
    bad += out[out_bytes] != 0x7f;
    free(in);
    free(out);
    return bad;
}

static size_t moves(struct dr_group *g, const void *arg) {
    size_t bad = 0;
    (void)arg;
    for (size_t step = 0; step <= 100000; step = step * 7 + 1) {
        bad += gather_one(g, step, false) + gather_one(g, step, true);
        bad += alltoall_one(g, step);
    }
    return bad;
}

static void moved(void) {
    for (int32_t n = 1; n <= MEMBERS; n++) CU_ASSERT_EQUAL(run(n, BUFFER, moves, NULL), 0);
}

static size_t ring(struct dr_group *g, const void *arg) { /* all send before they receive; two may be open */
    int32_t next = (g->me + 1) % g->n, before = (g->me + g->n - 1) % g->n;
    size_t bad = 0;
    (void)arg;
    for (size_t bytes = 0; bytes <= 1 << 20; bytes = bytes * 31 + 1) {
        char *out = memory(bytes), *in = memory(bytes);
        for (int k = 0; k < 2; k++) {
            memset(out, g->me + k, bytes);
            bad += failed(g->ops->send(g, next, out, bytes, NULL), "send");
        }
        for (int k = 0; k < 2; k++) {
            bad += failed(g->ops->recv(g, before, in, bytes, NULL), "recv");
            for (size_t i = 0; i < bytes; i++) bad += in[i] != before + k;
        }
        free(out);
        free(in);
    }
    return bad;
}

static void rings(void) {
    for (int32_t n = 2; n <= MEMBERS; n++) CU_ASSERT_EQUAL(run(n, BUFFER, ring, NULL), 0);
}

enum call { REDUCE, GATHER, SEND, RECV };

/* The code with which a call ends that cannot be completed. */
static enum dr_code call_code(struct dr_group *g, enum call call) {
    float x[4] = {0};
    size_t bytes[MEMBERS] = {0}, at[MEMBERS] = {0};
    switch (call) {
    case REDUCE:
        return g->ops->allreduce(g, x, 4, NULL).code;
    case GATHER:
        return g->ops->allgatherv(g, x, x, bytes, at, NULL).code;
    case RECV:
        return g->ops->recv(g, 0, x, 4, NULL).code;
    default:
        break;
    }
    for (int k = 0; k < 2; k++) /* two are taken without waiting */
        if (g->ops->send(g, 0, x, 4, NULL).code != DR_OK) return DR_EINTERNAL;
    return g->ops->send(g, 0, x, 4, NULL).code;
}

/* Member 0 stays away. The others' deadlines pass, all about at the same time: each ends with ETIME, or with
 * EPEER when another has given up before; at least one has ETIME. Afterwards every call is EPEER. */
struct verdict {
    enum call call;
    enum dr_code *first; /* [MEMBERS] */
};

static size_t late(struct dr_group *g, const void *arg) {
    const struct verdict *v = arg;
    uint64_t begin = dr_clock_ns();
    if (g->me == 0) {
        dr_clock_sleep_ns(200000000);
        return 0;
    }
    g->deadline_ns = begin + 50000000;
    v->first[g->me] = call_code(g, v->call);
    size_t bad = v->first[g->me] == DR_ETIME && dr_clock_ns() - begin < 50000000; /* EPEER may come earlier */
    return bad + (call_code(g, REDUCE) != DR_EPEER);
}

static void deadlines(void) {
    for (enum call call = REDUCE; call <= RECV; call++)
        for (int32_t n = 2; n <= 4; n++) {
            enum dr_code first[MEMBERS] = {DR_OK};
            int timed = 0, other = 0;
            struct verdict v = {.call = call, .first = first};
            CU_ASSERT_EQUAL(run(n, BUFFER, late, &v), 0);
            for (int32_t m = 1; m < n; m++) {
                timed += first[m] == DR_ETIME;
                other += first[m] != DR_ETIME && first[m] != DR_EPEER;
            }
            CU_ASSERT(timed >= 1);
            CU_ASSERT_EQUAL(other, 0);
        }
}

static size_t breaks(struct dr_group *g, const void *arg) {
    enum call call = *(const enum call *)arg;
    if (g->me == 0) {
        dr_clock_sleep_ns(30000000);
        dr_group_loop_break(g);
        return call_code(g, REDUCE) != DR_EPEER;
    }
    return call_code(g, call) !=
           DR_EPEER; /* far before its deadline of a minute, or the test program hangs */
}

static void broken(void) {
    for (enum call call = REDUCE; call <= RECV; call++) CU_ASSERT_EQUAL(run(4, BUFFER, breaks, &call), 0);
}

static size_t leaves(struct dr_group *g, const void *arg) {
    enum call call = *(const enum call *)arg;
    if (g->me == 0) {
        dr_clock_sleep_ns(30000000);
        return 0; /* run_member destroys it */
    }
    return call_code(g, call) != DR_EPEER;
}

static void left(void) {
    for (enum call call = REDUCE; call <= RECV; call++) CU_ASSERT_EQUAL(run(4, BUFFER, leaves, &call), 0);
}

static size_t last_words(struct dr_group *g, const void *arg) { /* a message outlives its sender */
    int32_t x = 5;
    (void)arg;
    if (g->me == 1) return failed(g->ops->send(g, 0, &x, sizeof x, NULL), "send");
    if (g->me != 0) return 0;
    dr_clock_sleep_ns(30000000);
    x = 0;
    return failed(g->ops->recv(g, 1, &x, sizeof x, NULL), "recv") + (x != 5);
}

static void outlives(void) {
    CU_ASSERT_EQUAL(run(3, BUFFER, last_words, NULL), 0);
}

enum mismatch { KIND, COUNT, GATHER_BYTES, ALLTOALL_BYTES, MESSAGE_BYTES };

/* Member 1 means another call: it or its partner must say EPROTO; nobody may succeed in the end. */
static size_t disagree(struct dr_group *g, const void *arg) {
    enum mismatch kind = *(const enum mismatch *)arg;
    bool odd = g->me == 1;
    float x[64] = {0}, y[64] = {0};
    size_t bytes[MEMBERS] = {8, 8, 8}, at[MEMBERS] = {0, 8, 16};
    dr_status st = dr_ok();
    if (kind == KIND)
        st = odd ? g->ops->allgatherv(g, x, y, bytes, at, NULL) : g->ops->allreduce(g, x, 4, NULL);
    else if (kind == COUNT)
        st = g->ops->allreduce(g, x, odd ? 5 : 4, NULL);
    else if (kind == GATHER_BYTES) {
        if (odd) bytes[1] = 4;
        st = g->ops->allgatherv(g, x, y, bytes, at, NULL);
    } else if (kind == ALLTOALL_BYTES) {
        size_t send[MEMBERS] = {8, 8, 8};
        if (odd) send[0] = 12;
        st = g->ops->alltoallv(g, x, send, at, y, bytes, at, NULL);
    } else if (g->me == 0)
        st = g->ops->recv(g, 1, x, 8, NULL);
    else if (odd)
        return failed(g->ops->send(g, 0, x, 12, NULL), "send");
    else
        return 0;
    return st.code == DR_EPROTO ? 1 : st.code == DR_EPEER ? 100 : 10000;
}

static void disagreed(void) {
    for (enum mismatch kind = KIND; kind <= MESSAGE_BYTES; kind++) {
        size_t told = run(3, BUFFER, disagree, &kind);
        CU_ASSERT(told % 100 >= 1); /* some EPROTO */
        CU_ASSERT(told < 10000);    /* no success, nothing else */
    }
}

static void sizes(void) {
    struct dr_group *g[1] = {NULL};
    CU_ASSERT_EQUAL(dr_group_loop_create(0, 1, g).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_group_loop_create(DR_GROUP_MEMBERS_MAX + 1, 1, g).code, DR_EINVAL);
    CU_ASSERT_PTR_NULL(g[0]);
    dr_group_destroy(NULL);
}

static CU_TestInfo cases[] = {
    {"whole numbers add up exactly, with 1 to 8 members and any size", whole_sums},
    {"floats have the bits of adding in member order", ordered_sums},
    {"the sum of parts keeps their order", sum_of_parts},
    {"gathers and all-to-all move every byte to its place and no other", moved},
    {"rings in which all send first do not lock up", rings},
    {"a member that does not come is ETIME", deadlines},
    {"a broken group is EPEER for all who wait", broken},
    {"a member that left is EPEER for all who wait", left},
    {"a message outlives its sender", outlives},
    {"calls that do not agree are EPROTO", disagreed},
    {"member counts out of bounds are refused", sizes},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_group = {.pName = "collective/group_loop", .pTests = cases};
