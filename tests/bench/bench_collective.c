/* bench_collective.c - what a collective costs, in each form of the group.
 * In:   [rounds' seconds, default 0.4]; run as 1 + N processes of mpirun (tests/multirank/run.sh).
 * Out:  a line a form, call and size: median and range of nine rounds, and the processor time of one member.
 * Owns: its buffers.
 * Why:  every layer pays two sums; a change of the waiting or of the pieces must be seen here before it is
 * believed. Run by hand, never by tests. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/workspace.h"
#include "tests/multirank/support.h"

enum { WIDTH = 7168, ROUNDS = 9, CALLS = DR_GROUP_CALL_MOST, MESSAGES = 1 << 20 };

static const size_t rows[] = {1, 8, 64, 512};

struct cost {
    double us[ROUNDS], cpu_us, wait_us;
};

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void must(dr_status st) {
    if (st.code == DR_OK) return;
    fprintf(stderr, "bench: %s\n", dr_error_text());
    _exit(1);
}

/* As the product does: a member keeps to a core of its own while there are enough. */
static void bind_to_core(int32_t member) {
    cpu_set_t all, one;
    int k = 0;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 1) return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && k++ == member % CPU_COUNT(&all)) CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) perror("bench: not bound");
}

enum what { SUM, GATHER, WHATS };

static const char *const what_names[WHATS] = {"allreduce", "allgather"};

static void call(struct dr_group *g, enum what what, float *x, size_t n) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX];
    if (what == SUM) {
        must(g->ops->allreduce(g, x, n, NULL));
        return;
    }
    for (int32_t m = 0; m < g->n; m++) {
        at[m] = n * (size_t)m / (size_t)g->n * sizeof *x;
        bytes[m] = n * ((size_t)m + 1) / (size_t)g->n * sizeof *x - at[m];
    }
    must(g->ops->allgatherv(g, (char *)x + at[g->me], x, bytes, at, NULL));
}

/* Member 0 says how many calls a round has, so that all do the same. */
static int calls_of(struct dr_group *g, enum what what, float *x, size_t n, double seconds) {
    float count[DR_GROUP_MEMBERS_MAX] = {0};
    for (int i = 0; i < 3; i++) call(g, what, x, n);
    uint64_t begin = dr_clock_ns();
    for (int i = 0; i < 5; i++) call(g, what, x, n);
    double each = (double)(dr_clock_ns() - begin) / 5;
    double wanted = seconds * 1e9 / ROUNDS / each;
    if (g->me == 0) count[0] = wanted < 3 ? 3 : wanted > 100000 ? 100000 : (float)(int)wanted;
    must(g->ops->allreduce(g, count, 1, NULL));
    return (int)count[0];
}

static int by_size(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static struct cost measure(struct dr_group *g, enum what what, float *x, size_t n, double seconds) {
    struct cost c = {.cpu_us = 0};
    int calls = calls_of(g, what, x, n, seconds);
    double cpu = cpu_us();
    g->wait_ns = 0;
    for (int r = 0; r < ROUNDS; r++) {
        memset(x, 0, n * sizeof *x); /* sums would grow to infinity, which some processors add slower */
        float gate = 0;
        must(g->ops->allreduce(g, &gate, 1, NULL)); /* begin together */
        uint64_t begin = dr_clock_ns();
        for (int i = 0; i < calls; i++) call(g, what, x, n);
        c.us[r] = (double)(dr_clock_ns() - begin) / 1e3 / calls;
    }
    c.cpu_us = (cpu_us() - cpu) / calls / ROUNDS;
    c.wait_us = (double)g->wait_ns / 1e3 / calls / ROUNDS;
    qsort(c.us, ROUNDS, sizeof *c.us, by_size);
    return c;
}

static void bench(int32_t members, enum dr_group_form form, double seconds) {
    int32_t member[DR_GROUP_MEMBERS_MAX];
    struct dr_group *g = NULL;
    float *x = aligned_alloc(64, rows[sizeof rows / sizeof *rows - 1] * WIDTH * sizeof *x);
    for (int32_t m = 0; m < members; m++) member[m] = m;
    struct dr_group_spec spec = {.members = member,
                                 .n = members,
                                 .tag = 1 + (int32_t)form,
                                 .call_bytes = CALLS,
                                 .message_bytes = MESSAGES,
                                 .form = form};
    if (!x) _exit(1);
    must(dr_group_create(&spec, multirank_deadline(), &g));
    for (enum what what = SUM; what < WHATS; what++)
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            struct cost c = measure(g, what, x, rows[k] * WIDTH, seconds);
            if (g->me == 0)
                printf("| %d ranks | %s | %s | %4zu rows | %.1f us (%.1f to %.1f) | %.1f | %.1f |\n", members,
                       g->ops->name, what_names[what], rows[k], c.us[ROUNDS / 2], c.us[0], c.us[ROUNDS - 1],
                       c.cpu_us, c.wait_us);
        }
    fflush(stdout);
    dr_group_destroy(g);
    free(x);
}

int main(int argc, char **argv) {
    struct dr_channel *ch = NULL;
    double seconds = argc > 1 ? atof(argv[1]) : 0.4;
    if (dr_channel_mpi_create(&argc, &argv, &ch).code != DR_OK) return 1;
    if (ch->end == 0)
        printf("| ranks | form | call | of %d f32 | time of one: median (range) | processor time us | "
               "waiting us |\n",
               WIDTH);
    if (ch->end > 0) bind_to_core(ch->end - 1);
    for (enum dr_group_form form = DR_GROUP_SHM; form <= DR_GROUP_MPI; form++)
        if (ch->end > 0) bench(ch->n_end - 1, form, seconds);
    multirank_meet(ch);
    dr_channel_destroy(ch);
    dr_mpi_finalize();
    return 0;
}
