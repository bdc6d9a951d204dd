/* test_group.c - the group among the workers of the world, in each of its forms.
 * In:   shm | mpi | auto | hosts (auto, with workers that pretend to be on several hosts).      Out: CUnit
 * results of every process. Owns: its buffers. Why:  sums must have the bits of adding in member order,
 * whatever the size, the form of the exchange or the number of members. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/multirank/support.h"

enum { CALLS = 3 << 20, MESSAGES = 6 << 20 };

/* How this run makes its groups; CUnit's tests take no argument. */
static struct {
    enum dr_group_form form;
    bool hosts;
} how;

/* Pretended hosts, by worker: the first has two workers, the next one, the last the others. */
static int32_t host_of(int32_t worker) {
    return !how.hosts ? 0 : worker < 2 ? 7 : worker < 3 ? 3 : 5;
}

static const size_t sizes[] = {0, 1, 7, 1023, 4096, 65536, 65537, 300001, 2u << 20};

/* The form that a group should get. */
static const char *expected_form(const int32_t *members, int32_t n) {
    bool shared = false, together = true; /* some host has two; every host's members are neighbours */
    int32_t hosts = 1;
    for (int32_t m = 1; m < n; m++) {
        bool before = false;
        for (int32_t k = 0; k < m; k++) before = before || host_of(members[k]) == host_of(members[m]);
        bool neighbour = host_of(members[m]) == host_of(members[m - 1]);
        hosts += !before;
        shared = shared || before;
        together = together && (neighbour || !before);
    }
    if (n == 1 || how.form == DR_GROUP_MPI) return "mpi";
    return hosts == 1 ? "shm" : shared && together ? "hier" : "mpi";
}

/* These workers in this order. NULL on the coordinator and on workers outside. */
static struct dr_group *make_of(const int32_t *members, int32_t n, int32_t tag, size_t call_bytes) {
    int32_t worker = multirank_channel()->end - 1, me = -1;
    struct dr_group *g = NULL;
    for (int32_t m = 0; m < n; m++)
        if (members[m] == worker) me = m;
    if (me < 0) return NULL;
    struct dr_group_spec spec = {.members = members,
                                 .n = n,
                                 .tag = tag,
                                 .call_bytes = call_bytes,
                                 .message_bytes = MESSAGES,
                                 .form = how.form,
                                 .host = host_of(worker)};
    dr_status st = dr_group_create(&spec, multirank_deadline(), &g);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) {
        fprintf(stderr, "group: %s\n", dr_error_text());
        return NULL;
    }
    g->deadline_ns = multirank_deadline();
    CU_ASSERT_STRING_EQUAL(g->ops->name, expected_form(members, n));
    CU_ASSERT(g->n == n && g->me == me);
    return g;
}

/* Workers [first, first + n), or the same in descending order. */
static struct dr_group *make(int32_t first, int32_t n, bool down, int32_t tag, size_t call_bytes) {
    int32_t members[DR_GROUP_MEMBERS_MAX];
    for (int32_t m = 0; m < n; m++) members[m] = down ? first + n - 1 - m : first + m;
    return make_of(members, n, tag, call_bytes);
}

static int32_t workers(void) {
    return multirank_channel()->n_end - 1;
}

static void expect_ok(dr_status st, const char *what) {
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) fprintf(stderr, "%s: %s: %s\n", what, dr_code_name(st.code), dr_error_text());
}

static void *memory(size_t bytes) {
    void *p = malloc(bytes + 1);
    DR_ASSERT(p != NULL);
    memset(p, 0x7f, bytes + 1);
    return p;
}

/* Number of elements whose bits differ from adding 0..n-1 in order. */
static size_t sum_and_compare(struct dr_group *g, size_t n, size_t offset) {
    float *x = memory(n * sizeof *x);
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) x[i] = multirank_value(g->me, offset + i);
    expect_ok(g->ops->allreduce(g, x, n, NULL), "allreduce");
    for (size_t i = 0; i < n; i++) {
        float want = multirank_value(0, offset + i);
        for (int32_t m = 1; m < g->n; m++) want += multirank_value(m, offset + i);
        bad += memcmp(&want, &x[i], sizeof want) != 0;
    }
    free(x);
    return bad;
}

static void reduce_order(void) {
    struct dr_group *g = make(0, workers(), false, 1, CALLS);
    if (!g) return;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        CU_ASSERT_EQUAL(sum_and_compare(g, sizes[k], 0), 0);
    CU_ASSERT_EQUAL(sum_and_compare(g, 5, 300000), 0);
    CU_ASSERT(g->n == 1 || g->sent_bytes > 0);
    dr_group_destroy(g);
}

static void
reduce_pieces(void) { /* the buffer holds a hundredth of the call; members ask for different ones */
    int32_t me = multirank_channel()->end;
    struct dr_group *g = make(0, workers(), false, 2, (64u << 10) + (size_t)me * 4096);
    if (!g) return;
    CU_ASSERT_EQUAL(sum_and_compare(g, 1000003, 0), 0);
    CU_ASSERT_EQUAL(sum_and_compare(g, 20000, 11), 0);
    dr_group_destroy(g);
}

static void reduce_down(void) {
    struct dr_group *g = make(0, workers(), true, 3, CALLS);
    if (!g) return;
    CU_ASSERT_EQUAL(sum_and_compare(g, 5000, 0), 0);
    CU_ASSERT_EQUAL(sum_and_compare(g, 500000, 0), 0);
    dr_group_destroy(g);
}

static void reduce_mixed(void) { /* two members of a host, another host's between them */
    const int32_t members[] = {0, 2, 1};
    struct dr_group *g = workers() < 3 ? NULL : make_of(members, 3, 11, CALLS);
    if (!g) return;
    CU_ASSERT_EQUAL(sum_and_compare(g, 5000, 0), 0);
    CU_ASSERT_EQUAL(sum_and_compare(g, 500000, 0), 0);
    dr_group_destroy(g);
}

/* Only some mean shared memory, or expect messages: nobody gets a group. */
static void disagreement(void) {
    int32_t me = multirank_channel()->end - 1, members[DR_GROUP_MEMBERS_MAX], n = workers();
    if (me < 0 || n < 2) return;
    for (int32_t m = 0; m < n; m++) members[m] = m;
    for (int kind = 0; kind < 3; kind++) {
        struct dr_group *g = NULL;
        struct dr_group_spec spec = {.members = members, .n = n, .tag = 30 + kind, .call_bytes = CALLS};
        spec.form = kind == 0 && me == 0 ? DR_GROUP_SHM : DR_GROUP_MPI;
        if (kind == 1 && me == 0) spec.message_bytes = 100;
        if (kind == 2 && me == 0) spec.call_bytes = 0;
        CU_ASSERT_EQUAL(dr_group_create(&spec, multirank_deadline(), &g).code, DR_EPROTO);
        CU_ASSERT_PTR_NULL(g);
    }
    struct dr_group *g = NULL; /* shared memory is asked for and not possible */
    struct dr_group_spec spec = {
        .members = members, .n = n, .tag = 34, .call_bytes = CALLS, .form = DR_GROUP_SHM, .host = me};
    CU_ASSERT_EQUAL(dr_group_create(&spec, multirank_deadline(), &g).code, DR_EMODEL);
    CU_ASSERT(strstr(dr_error_text(), "use auto or mpi") != NULL);
    CU_ASSERT_PTR_NULL(g);
}

/* Member m gives m x step bytes of value m; member 0 gives none. */
static void gather(struct dr_group *g, size_t step, bool in_place) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX], total = 0, bad = 0;
    for (int32_t m = 0; m < g->n; m++) {
        bytes[m] = (size_t)m * step;
        at[m] = total;
        total += bytes[m];
    }
    char *out = memory(total), *mine = in_place ? out + at[g->me] : memory(bytes[g->me]);
    memset(mine, g->me, bytes[g->me]);
    expect_ok(g->ops->allgatherv(g, mine, out, bytes, at, NULL), "allgatherv");
    for (int32_t m = 0; m < g->n; m++)
        for (size_t i = 0; i < bytes[m]; i++) bad += out[at[m] + i] != m;
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT_EQUAL(out[total], 0x7f); /* nothing behind the end was written */
    if (!in_place) free(mine);
    free(out);
}

static void gathers(void) {
    struct dr_group *g = make(0, workers(), false, 4, CALLS);
    if (!g) return;
    gather(g, 1, false);
    gather(g, 1000, true);
    gather(g, 5u << 20, true);
    gather(g, 20u << 20, false); /* more than one MPI message */
    gather(g, 0, false);
    dr_group_destroy(g);
}

/* Member a sends (a + 1) x (b + 2) x step bytes to member b, but nothing where a + b is a multiple of 3. */
static size_t part(int32_t a, int32_t b, size_t step) {
    return (a + b) % 3 == 0 ? 0 : (size_t)(a + 1) * (size_t)(b + 2) * step;
}

static void everyone(struct dr_group *g, size_t step) {
    size_t send[DR_GROUP_MEMBERS_MAX], send_at[DR_GROUP_MEMBERS_MAX], recv[DR_GROUP_MEMBERS_MAX],
        recv_at[DR_GROUP_MEMBERS_MAX];
    size_t out_bytes = 0, in_bytes = 0, bad = 0;
    for (int32_t m = 0; m < g->n; m++) {
        send_at[m] = in_bytes;
        recv_at[m] = out_bytes;
        in_bytes += send[m] = part(g->me, m, step);
        out_bytes += recv[m] = part(m, g->me, step);
    }
    char *in = memory(in_bytes), *out = memory(out_bytes);
    for (int32_t m = 0; m < g->n; m++) memset(in + send_at[m], 10 * g->me + m, send[m]);
    expect_ok(g->ops->alltoallv(g, in, send, send_at, out, recv, recv_at, NULL), "alltoallv");
    for (int32_t m = 0; m < g->n; m++)
        for (size_t i = 0; i < recv[m]; i++) bad += out[recv_at[m] + i] != 10 * m + g->me;
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT_EQUAL(out[out_bytes], 0x7f);
    free(in);
    free(out);
}

static void alltoall(void) {
    struct dr_group *g = make(0, workers(), false, 5, CALLS);
    if (!g) return;
    everyone(g, 1);
    everyone(g, 4096);
    everyone(g, 1u << 20);
    dr_group_destroy(g);
}

/* All send to the next before they receive. */
static void ring(struct dr_group *g, size_t bytes, int rounds) {
    char *out = memory(bytes), *in = memory(bytes);
    int32_t next = (g->me + 1) % g->n, before = (g->me + g->n - 1) % g->n;
    for (int r = 0; r < rounds; r++) {
        size_t bad = 0;
        memset(out, g->me + r, bytes);
        expect_ok(g->ops->send(g, next, out, bytes, NULL), "send");
        memset(out, 0, bytes); /* the group has its copy */
        g->ops->poll(g);
        expect_ok(g->ops->recv(g, before, in, bytes, NULL), "recv");
        for (size_t i = 0; i < bytes; i++) bad += in[i] != before + r;
        CU_ASSERT_EQUAL(bad, 0);
    }
    free(out);
    free(in);
}

static void rings(void) {
    struct dr_group *g = make(0, workers(), false, 6, CALLS);
    if (!g) return;
    if (g->n > 1) {
        ring(g, 0, 3);
        ring(g, 1, 5);
        ring(g, 100000, 20);
        ring(g, 5u << 20, 3);
    }
    dr_group_destroy(g);
}

static void one_way(void) { /* longer than the buffer and than one MPI message */
    struct dr_group *g = make(0, workers(), false, 7, 1u << 20);
    if (!g) return;
    size_t bytes = 40u << 20, bad = 0;
    if (g->n > 1 && g->me == 0) {
        char *x = memory(bytes);
        for (size_t i = 0; i < bytes; i++) x[i] = (char)(i * 31 >> 8);
        expect_ok(g->ops->send(g, g->n - 1, x, bytes, NULL), "send");
        free(x);
    } else if (g->n > 1 && g->me == g->n - 1) {
        char *x = memory(bytes);
        expect_ok(g->ops->recv(g, 0, x, bytes, NULL), "recv");
        for (size_t i = 0; i < bytes; i++) bad += x[i] != (char)(i * 31 >> 8);
        CU_ASSERT_EQUAL(bad, 0);
        free(x);
    }
    dr_group_destroy(g);
}

static void sub_groups(void) { /* two groups that share no member, and one across them */
    int32_t n = workers(), half = (n + 1) / 2;
    struct dr_group *low = make(0, half, false, 8, CALLS), *high = make(half, n - half, false, 8, CALLS);
    struct dr_group *all = make(0, n, false, 9, CALLS);
    if (low) CU_ASSERT_EQUAL(sum_and_compare(low, 3001, 1), 0);
    if (all) CU_ASSERT_EQUAL(sum_and_compare(all, 3001, 2), 0);
    if (high) CU_ASSERT_EQUAL(sum_and_compare(high, 3001, 3), 0);
    dr_group_destroy(low);
    dr_group_destroy(high);
    dr_group_destroy(all);
}

static enum dr_code refused(const int32_t *members, int32_t n, size_t call_bytes) {
    struct dr_group *g = NULL;
    struct dr_group_spec spec = {
        .members = members, .n = n, .tag = 20, .call_bytes = call_bytes, .form = how.form};
    enum dr_code code = dr_group_create(&spec, 0, &g).code;
    CU_ASSERT_PTR_NULL(g);
    return code;
}

static void bad_members(void) {
    int32_t far[] = {multirank_channel()->end - 1, 5000}, not_me[] = {multirank_channel()->end};
    CU_ASSERT_EQUAL(refused(far, 2, CALLS), DR_EINVAL);
    CU_ASSERT_EQUAL(refused(not_me, 1, CALLS), DR_EINVAL);
    CU_ASSERT_EQUAL(refused(far, 0, CALLS), DR_EINVAL);
    CU_ASSERT_EQUAL(refused(far, DR_GROUP_MEMBERS_MAX + 1, CALLS), DR_EINVAL);
    CU_ASSERT_EQUAL(refused(not_me, 1, 100), DR_EINVAL); /* too little to cut into pieces */
}

static void speed(void) { /* printed, not judged */
    struct dr_group *g = make(0, workers(), false, 10, CALLS);
    if (!g) return;
    for (size_t n = 320; n <= 1u << 20; n = n == 320                        ? 4096
                                            : n == 4096                     ? 65536
                                            : 2 * n > 65536 && n < 1u << 20 ? 1u << 20
                                                                            : n + (1u << 20)) {
        float *x = memory(n * sizeof *x);
        int rounds = n > 100000 ? 10 : 200;
        memset(x, 0, n * sizeof *x);
        uint64_t begin = dr_clock_ns();
        for (int r = 0; r < rounds; r++) expect_ok(g->ops->allreduce(g, x, n, NULL), "allreduce");
        uint64_t ns = (dr_clock_ns() - begin) / (uint64_t)rounds;
        if (g->me == 0 && g->n > 1)
            printf("allreduce of %zu floats among %d: %.1f us\n", n, g->n, (double)ns / 1e3);
        free(x);
    }
    dr_group_destroy(g);
}

static CU_TestInfo cases[] = {
    {"sums have the bits of adding in member order, for every size", reduce_order},
    {"sums larger than the smallest member's buffer go in pieces with the same bits", reduce_pieces},
    {"member order is the order given, not the rank", reduce_down},
    {"members of a host that are no neighbours are added in order, too", reduce_mixed},
    {"gathers take members without bytes, in place or not", gathers},
    {"all-to-all moves different sizes, some of them zero", alltoall},
    {"a ring in which all send first does not lock up", rings},
    {"a message longer than the buffer arrives whole", one_way},
    {"groups of some of the workers work side by side", sub_groups},
    {"members that mean different groups are EPROTO, shared memory over hosts is EMODEL", disagreement},
    {"wrong member lists are refused by name", bad_members},
    {"time of a sum is printed", speed},
    CU_TEST_INFO_NULL,
};

int main(int argc, char **argv) {
    const char *form = argc > 1 ? argv[1] : "auto";
    how.form = strcmp(form, "shm") == 0   ? DR_GROUP_SHM
               : strcmp(form, "mpi") == 0 ? DR_GROUP_MPI
                                          : DR_GROUP_AUTO;
    how.hosts = strcmp(form, "hosts") == 0;
    CU_SuiteInfo suites[] = {{.pName = "multirank/group", .pTests = cases}, CU_SUITE_INFO_NULL};
    return multirank_main(1, argv, suites);
}
