/* test_team.c - the thread team.
 * In:   ranges and grains.      Out: checks.
 * Owns: nothing.
 * Why:  a piece run twice or never would corrupt every op. */
#include <dirent.h>
#include <float.h>
#include <immintrin.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

struct count {
    _Atomic int hit[1000];
    _Atomic int bad;
    int64_t n, grain;
    int32_t size;
};

static void count_piece(void *arg, int64_t begin, int64_t end, int32_t thread) {
    struct count *c = arg;
    if (begin % c->grain != 0 || end - begin > c->grain || (end - begin < c->grain && end != c->n)) c->bad++;
    if (thread < 0 || thread >= c->size) c->bad++;
    for (int64_t i = begin; i < end; i++) c->hit[i]++;
}

static void team_every_index_once(void) {
    static const int64_t n[] = {0, 1, 2, 7, 64, 999, 1000}, grain[] = {1, 2, 7, 64, 2000};
    for (int32_t size = 1; size <= 5; size++) {
        struct rig r = rig_init(size);
        CU_ASSERT_EQUAL(dr_team_size(r.team), size);
        for (size_t a = 0; a < sizeof n / sizeof *n; a++)
            for (size_t b = 0; b < sizeof grain / sizeof *grain; b++) {
                struct count c = {.n = n[a], .grain = grain[b], .size = size};
                dr_team_for(r.team, n[a], grain[b], count_piece, &c);
                int wrong = c.bad;
                for (int64_t i = 0; i < 1000; i++) wrong += c.hit[i] != (i < n[a]);
                CU_ASSERT_EQUAL(wrong, 0);
            }
        rig_fini(&r);
    }
}

static void add_range(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    atomic_fetch_add((_Atomic int64_t *)arg, end - begin);
}

static void team_many_small_jobs(void) {
    struct rig r = rig_init(3);
    _Atomic int64_t sum = 0;
    for (int i = 0; i < 20000; i++) dr_team_for(r.team, 1 + i % 9, 1 + i % 2, add_range, &sum);
    int64_t want = 0;
    for (int i = 0; i < 20000; i++) want += 1 + i % 9;
    CU_ASSERT_EQUAL(sum, want);
    rig_fini(&r);
}

/* True when every thread of this process but the calling one is in state S. */
static bool others_sleep(void) {
    DIR *dir = opendir("/proc/self/task");
    bool asleep = dir != NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300], line[256] = "";
        if (e->d_name[0] == '.' || atoi(e->d_name) == (int)getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
        FILE *f = fopen(path, "r");
        const char *name_end = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
        if (f) fclose(f);
        if (!name_end || name_end[2] != 'S') asleep = false;
    }
    if (dir) closedir(dir);
    return asleep;
}

static void team_sleeps_between_jobs(void) {
    struct rig r = rig_init(4);
    _Atomic int64_t sum = 0;
    dr_team_for(r.team, 100, 1, add_range, &sum);
    bool asleep = false;
    for (int i = 0; i < 500 && !asleep; i++) {
        dr_clock_sleep_ns(10000000);
        asleep = others_sleep();
    }
    CU_ASSERT_TRUE(asleep);
    dr_team_for(r.team, 100, 1, add_range, &sum); /* and wakes again */
    CU_ASSERT_EQUAL(sum, 200);
    rig_fini(&r);
}

struct meeting {
    _Atomic int begun;
    _Atomic int present[4];
};

/* Waits until four pieces have begun; a thread cannot run two of them. */
static void meet(void *arg, int64_t begin, int64_t end, int32_t thread) {
    struct meeting *m = arg;
    (void)begin, (void)end;
    m->present[thread]++;
    m->begun++;
    for (int i = 0; i < 20000 && m->begun < 4; i++) dr_clock_sleep_ns(1000000);
}

static void team_wakes_all_workers(void) {
    struct rig r = rig_init(4);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 500 && !others_sleep(); i++) dr_clock_sleep_ns(10000000);
        struct meeting m = {0};
        dr_team_for(r.team, 4, 1, meet, &m);
        for (int i = 0; i < 4; i++) CU_ASSERT_EQUAL(m.present[i], 1);
    }
    rig_fini(&r);
}

static void team_refuses_too_many(void) {
    struct dr_team *t = NULL;
    dr_status st = dr_team_create(1000000, &t);
    CU_ASSERT_EQUAL(st.code, DR_EFULL);
    CU_ASSERT_PTR_NULL(t);
}

#if !DR_SANITIZED
/* In a child whose address space has no room for the stacks of 64 threads. */
static void team_reports_failed_start(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        long pages = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        if (!f || fscanf(f, "%ld", &pages) != 1) _exit(3);
        rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (64u << 20);
        struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
        if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(4);
        struct dr_team *t = NULL;
        dr_status st = dr_team_create(64, &t);
        _exit(st.code == DR_EFULL && !t && strstr(dr_error_text(), "of 64") ? 0 : 5);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CU_ASSERT_EQUAL(status, 0);
}
#endif

static void halve_smallest(void *arg, int64_t begin, int64_t end, int32_t thread) {
    volatile float v = FLT_MIN;
    (void)thread;
    for (int64_t i = begin; i < end; i++) ((float *)arg)[i] = v * 0.5f;
}

static void team_keeps_denormals(void) {
    _mm_setcsr(_mm_getcsr() |
               0x8040); /* flush to zero, denormals are zero: what some libraries leave behind */
    struct rig r = rig_init(4);
    float out[256];
    dr_team_for(r.team, 256, 1, halve_smallest, out);
    for (int i = 0; i < 256; i++) CU_ASSERT_EQUAL(out[i], FLT_MIN / 2);
    rig_fini(&r);
}

static CU_TestInfo cases[] = {
    {"every index is handled exactly once in pieces of the grain", team_every_index_once},
    {"20,000 small jobs in a row lose no index", team_many_small_jobs},
    {"workers sleep between jobs and wake for the next", team_sleeps_between_jobs},
    {"sleeping workers all wake for a job that needs them", team_wakes_all_workers},
    {"a million threads are refused with EFULL", team_refuses_too_many},
#if !DR_SANITIZED
    {"a thread that cannot be started gives EFULL and leaves no team", team_reports_failed_start},
#endif
    {"a team keeps denormal numbers whatever its creator had set", team_keeps_denormals},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_team = {.pName = "kernels/team", .pTests = cases};
