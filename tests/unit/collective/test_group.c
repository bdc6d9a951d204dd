/* test_group.c - the forms of the group that need no MPI, with 1 to 8 members.
 * In:   threads as members.      Out: CUnit results.
 * Owns: nothing.
 * Why:  every layout test of one process adds and moves through the loop; ranks of one host through shared
 * memory; bits must be those of adding in member order in all of them. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "model/workspace.h"
#include "tests/support/runner.h"
#include "worker/collective/hier.h"
#include "worker/collective/shm.h"

enum { MEMBERS = 8, BUFFER = 1 << 20 };

/* LOOP, SHM: as the names say. HOSTS: members 0 and 1, 2, and the others share hosts; shared memory within
 * them, loop groups across. PAIRS: two members a host, so that two talk across. */
enum form { LOOP, SHM, HOSTS, PAIRS, FORMS };

static const char *const form_names[FORMS] = {"loop", "shm", "hier", "hier"};

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

static int32_t host_of(enum form form, int32_t m) {
    return form == PAIRS ? m / 2 : m < 2 ? 0 : m < 3 ? 1 : 2;
}

/* Members first .. first + n - 1 over memory that the caller gives back; groups of one are NULL. */
static void *make_shm(int32_t n, size_t calls, size_t messages, struct dr_group **out) {
    void *segment[MEMBERS];
    const int32_t nobody[MEMBERS] = {0};
    size_t each = (dr_shm_bytes(calls, messages) + DR_SHM_LINE - 1) / DR_SHM_LINE * DR_SHM_LINE;
    char *block = aligned_alloc(DR_SHM_LINE, each * (size_t)n);
    CU_ASSERT_FATAL(block != NULL);
    memset(block, 0, each * (size_t)n);
    for (int32_t m = 0; m < n; m++) segment[m] = block + (size_t)m * each;
    for (int32_t m = 0; m < n; m++) {
        struct dr_shm_spec spec = {.n = n,
                                   .me = m,
                                   .segment = segment,
                                   .pid = nobody,
                                   .call_bytes = calls,
                                   .message_bytes = messages};
        CU_ASSERT_EQUAL_FATAL(dr_group_shm_create(&spec, &out[m]).code, DR_OK);
    }
    return block;
}

/* The groups across hosts: of the members that are number k in theirs, where every host has one. */
static void make_across(enum form form, int32_t n, struct dr_group **across) {
    int32_t n_host = host_of(form, n - 1) + 1, ways = n;
    for (int32_t h = 0; h < n_host; h++) {
        int32_t count = 0;
        for (int32_t m = 0; m < n; m++) count += host_of(form, m) == h;
        ways = count < ways ? count : ways;
    }
    for (int32_t k = 0; k < ways && n_host > 1; k++) {
        struct dr_group *g[MEMBERS];
        CU_ASSERT_EQUAL_FATAL(dr_group_loop_create(n_host, BUFFER, g).code, DR_OK);
        for (int32_t m = 0, number = 0; m < n; m++) {
            number = m > 0 && host_of(form, m) == host_of(form, m - 1) ? number + 1 : 0;
            if (number == k) across[m] = g[host_of(form, m)];
        }
    }
}

static void make_hosts(enum form form, int32_t n, size_t stage, void **block, struct dr_group **out) {
    struct dr_group *all[MEMBERS], *local[MEMBERS] = {NULL}, *across[MEMBERS] = {NULL};
    int32_t host[MEMBERS];
    CU_ASSERT_EQUAL_FATAL(dr_group_loop_create(n, BUFFER, all).code, DR_OK);
    for (int32_t m = 0, end; m < n; m = end) {
        for (end = m; end < n && host_of(form, end) == host_of(form, m); end++) host[end] = host_of(form, m);
        if (end - m > 1) block[host_of(form, m)] = make_shm(end - m, BUFFER, 0, local + m);
    }
    make_across(form, n, across);
    for (int32_t m = 0; m < n; m++) {
        struct dr_hier_spec spec = {.n = n,
                                    .me = m,
                                    .host = host,
                                    .stage_bytes = stage,
                                    .local = local[m],
                                    .across = across[m],
                                    .all = all[m]};
        CU_ASSERT_EQUAL_FATAL(dr_group_hier_create(&spec, &out[m]).code, DR_OK);
    }
}

static void make(enum form form, int32_t n, size_t buffer, void **block, struct dr_group **out) {
    size_t least = DR_GROUP_CALL_LEAST;
    if (form == LOOP) {
        CU_ASSERT_EQUAL_FATAL(dr_group_loop_create(n, buffer, out).code, DR_OK);
    } else if (form == SHM) {
        block[0] = make_shm(n, buffer > least ? buffer : least, BUFFER, out);
    } else {
        make_hosts(form, n, buffer > least ? buffer : least, block, out);
    }
}

/* Runs fn on n members; the sum of what they return. */
static size_t run(enum form form, int32_t n, size_t buffer, member_fn *fn, const void *arg) {
    struct dr_group *g[MEMBERS] = {NULL};
    struct member m[MEMBERS];
    pthread_t thread[MEMBERS];
    void *block[MEMBERS] = {NULL};
    size_t bad = 0;
    make(form, n, buffer, block, g);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT(g[i]->n == n && g[i]->me == i && strcmp(g[i]->ops->name, form_names[form]) == 0);
        g[i]->deadline_ns = dr_clock_ns() + 60000000000u;
        m[i] = (struct member){.g = g[i], .fn = fn, .arg = arg};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, run_member, &m[i]), 0);
    }
    for (int32_t i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        bad += m[i].bad;
    }
    for (int32_t i = 0; i < MEMBERS; i++) free(block[i]);
    return bad;
}

/* The product makes no shared memory for one, and nothing across one host. */
static bool possible(enum form form, int32_t n) {
    return form == LOOP || (form == SHM ? n > 1 : host_of(form, n - 1) > 0);
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

static size_t sum_on(struct dr_group *g, size_t n, bool whole, struct dr_stream *s) {
    float *x = memory(n * sizeof *x);
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) x[i] = whole ? (float)((int)(i % 100) - 50 * g->me) : value(g->me, i);
    bad += failed(g->ops->allreduce(g, x, n, s), "allreduce");
    for (size_t i = 0; i < n; i++) {
        float want = whole ? (float)(g->n * (int)(i % 100) - 25 * g->n * (g->n - 1)) : value(0, i);
        for (int32_t m = 1; m < g->n && !whole; m++) want += value(m, i);
        bad += memcmp(&want, &x[i], sizeof want) != 0;
    }
    free(x);
    return bad;
}

static size_t sum_one(struct dr_group *g, size_t n, bool whole) {
    return sum_on(g, n, whole, NULL);
}

/* Members with teams of different sizes: the pieces of a sum follow the smallest from the second call on. */
static size_t team_sums(struct dr_group *g, const void *arg) {
    struct dr_stream s = {.team = NULL};
    size_t bad = failed(dr_team_create(g->me + 2, &s.team), "team");
    (void)arg;
    for (int k = 0; k < 3 && bad == 0; k++) bad += sum_on(g, 300001 + (size_t)k, false, &s);
    bad += sum_on(g, 200000, false, g->me == 0 ? NULL : &s); /* one of them without a team */
    bad += sum_on(g, 200000, false, &s);
    dr_team_destroy(s.team);
    return bad;
}

static void teams(void) {
    for (int32_t n = 2; n <= 4; n++) CU_ASSERT_EQUAL(run(SHM, n, 3 << 20, team_sums, NULL), 0);
}

static size_t sums(struct dr_group *g, const void *arg) {
    static const size_t sizes[] = {0, 1, 3, 15, 16, 17, 1023, 4096, 65537, 300001};
    size_t bad = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        bad += sum_one(g, sizes[k], *(const bool *)arg);
    g->ops->poll(g);
    if (g->n > 1) bad += g->sent_bytes == 0;
    if (g->n == 1) bad += g->sent_bytes != 0;
    return bad;
}

static void whole_sums(void) {
    for (enum form f = LOOP; f < FORMS; f++)
        for (int32_t n = 1; n <= MEMBERS; n++)
            if (possible(f, n)) CU_ASSERT_EQUAL(run(f, n, BUFFER, sums, &(bool){true}), 0);
}

static void ordered_sums(void) {
    for (enum form f = LOOP; f < FORMS; f++)
        for (int32_t n = 1; n <= MEMBERS; n++)
            if (possible(f, n)) CU_ASSERT_EQUAL(run(f, n, BUFFER, sums, &(bool){false}), 0);
    for (enum form f = LOOP; f < FORMS; f++) /* the least buffer: many pieces */
        for (int32_t n = 3; n <= 7; n += 2) CU_ASSERT_EQUAL(run(f, n, 0, sums, &(bool){false}), 0);
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
    for (enum form f = LOOP; f < FORMS; f++)
        for (int32_t n = 1; n <= MEMBERS; n++)
            if (possible(f, n)) CU_ASSERT_EQUAL(run(f, n, BUFFER, moves, NULL), 0);
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
    for (enum form f = LOOP; f < FORMS; f++)
        for (int32_t n = 2; n <= MEMBERS; n++)
            if (possible(f, n)) CU_ASSERT_EQUAL(run(f, n, BUFFER, ring, NULL), 0);
}

enum call { REDUCE, GATHER, SEND, RECV };

/* The code with which a call ends that cannot be completed. */
static enum dr_code call_code(struct dr_group *g, enum call call) {
    float x[4] = {0};
    const size_t bytes[MEMBERS] = {4, 4, 4, 4}, at[MEMBERS] = {0, 4, 8, 12};
    switch (call) {
    case REDUCE:
        return g->ops->allreduce(g, x, 4, NULL).code;
    case GATHER:
        return g->ops->allgatherv(g, &x[g->me], x, bytes, at, NULL).code;
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
    for (int i = 0; i < (RECV + 1) * FORMS; i++)
        for (int32_t n = 2; n <= 4; n++) {
            enum call call = (enum call)(i / FORMS);
            enum form form = (enum form)(i % FORMS);
            if (!possible(form, n)) continue;
            enum dr_code first[MEMBERS] = {DR_OK};
            int timed = 0, other = 0;
            struct verdict v = {.call = call, .first = first};
            CU_ASSERT_EQUAL(run(form, n, BUFFER, late, &v), 0);
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
    for (enum call call = REDUCE; call <= RECV; call++)
        CU_ASSERT_EQUAL(run(LOOP, 4, BUFFER, breaks, &call), 0);
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
    for (enum call call = REDUCE; call <= RECV; call++)
        CU_ASSERT_EQUAL(run(LOOP, 4, BUFFER, leaves, &call), 0);
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
    for (enum form f = LOOP; f < FORMS; f++) CU_ASSERT_EQUAL(run(f, 3, BUFFER, last_words, NULL), 0);
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
    for (int i = 0; i < 2 * (MESSAGE_BYTES + 1); i++) {
        enum mismatch kind = (enum mismatch)(i / 2);
        size_t told = run(i % 2 ? SHM : LOOP, 3, BUFFER, disagree, &kind);
        CU_ASSERT(told % 100 >= 1); /* some EPROTO */
        CU_ASSERT(i % 2 ||
                  told <
                      10000); /* no success, nothing else; through shared memory each looks at its own part */
    }
}

/* Member 1 of 2 as a process that takes part in one sum and is killed in its sleep. */
static _Noreturn void victim(struct dr_shm_spec spec) {
    struct dr_group *g = NULL;
    float x[4] = {1, 2, 3, 4};
    spec.me = 1;
    if (dr_group_shm_create(&spec, &g).code != DR_OK) _exit(1);
    if (g->ops->allreduce(g, x, 4, NULL).code != DR_OK || x[3] != 12) _exit(2);
    for (;;) (void)pause();
}

static void killed(void) {
    size_t each = (dr_shm_bytes(BUFFER, BUFFER) + DR_SHM_LINE - 1) / DR_SHM_LINE * DR_SHM_LINE;
    char *block = mmap(NULL, 2 * each, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *segment[2] = {block, block + each};
    int32_t pid[2] = {(int32_t)getpid(), 0};
    float x[4] = {8, 8, 8, 8};
    struct dr_group *g = NULL;
    CU_ASSERT_FATAL(block != MAP_FAILED);
    struct dr_shm_spec spec = {
        .n = 2, .segment = segment, .pid = pid, .call_bytes = BUFFER, .message_bytes = BUFFER};
    pid_t child = fork();
    if (child == 0) victim(spec);
    pid[1] = (int32_t)child;
    CU_ASSERT_EQUAL_FATAL(dr_group_shm_create(&spec, &g).code, DR_OK);
    g->deadline_ns = dr_clock_ns() + 60000000000u;
    CU_ASSERT_EQUAL(g->ops->allreduce(g, x, 4, NULL).code, DR_OK);
    CU_ASSERT_EQUAL(x[3], 12);
    CU_ASSERT_EQUAL(kill(child, SIGKILL),
                    0); /* a zombie until waited for: it has ended, whatever its number says */
    CU_ASSERT_EQUAL(g->ops->allreduce(g, x, 4, NULL).code, DR_EPEER); /* not a minute later */
    CU_ASSERT(strstr(dr_error_text(), "the process of member 1 has ended") != NULL);
    CU_ASSERT(dr_clock_ns() < g->deadline_ns);
    CU_ASSERT_EQUAL(g->ops->recv(g, 1, x, 4, NULL).code, DR_EPEER);
    dr_group_destroy(g);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    CU_ASSERT_EQUAL(munmap(block, 2 * each), 0);
}

static void sizes(void) {
    struct dr_group *g[1] = {NULL};
    CU_ASSERT_EQUAL(dr_group_loop_create(0, 1, g).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_group_loop_create(DR_GROUP_MEMBERS_MAX + 1, 1, g).code, DR_EINVAL);
    for (int32_t me = -1; me <= 2; me += 3) {
        struct dr_shm_spec spec = {.n = 2, .me = me};
        CU_ASSERT_EQUAL(dr_group_shm_create(&spec, g).code, DR_EINVAL);
    }
    /* a segment and the alignment of its place are what the footprint counts */
    CU_ASSERT(dr_shm_bytes(3000, 700) + DR_SHM_LINE <= 3000 + 2 * 700 + DR_GROUP_CONTROL_BYTES);
    struct dr_shm_spec alone = {.n = 1};
    CU_ASSERT_EQUAL(dr_group_shm_create(&alone, g).code, DR_EINVAL);
    CU_ASSERT_PTR_NULL(g[0]);
    dr_group_destroy(NULL);
}

static CU_TestInfo cases[] = {
    {"whole numbers add up exactly, with 1 to 8 members and any size", whole_sums},
    {"floats have the bits of adding in member order", ordered_sums},
    {"sums on teams of different sizes have the same bits", teams},
    {"the sum of parts keeps their order", sum_of_parts},
    {"gathers and all-to-all move every byte to its place and no other", moved},
    {"rings in which all send first do not lock up", rings},
    {"a member that does not come is ETIME", deadlines},
    {"a broken group is EPEER for all who wait", broken},
    {"a member that left is EPEER for all who wait", left},
    {"a message outlives its sender", outlives},
    {"calls that do not agree are EPROTO", disagreed},
    {"a member whose process is killed is EPEER at once", killed},
    {"member counts out of bounds are refused", sizes},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_group = {.pName = "collective/group", .pTests = cases};
