/* test_arena.c - memory that dies all at once.
 * In:   sizes and alignments.      Out: checks.
 * Owns: nothing.
 * Why:  the step path lives in an arena. */
#include "common/arena.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/runner.h"

static void arena_pieces(void) {
    struct dr_arena a = {0};
    CU_ASSERT_EQUAL_FATAL(dr_arena_init(&a, 10000).code, DR_OK);
    CU_ASSERT_TRUE(a.bytes >= 10000);
    uint8_t *last = NULL;
    size_t last_bytes = 0;
    for (size_t align = 1, i = 0; align <= 4096; align *= 2, i++) {
        uint8_t *p = dr_arena_take(&a, 10 + i, align);
        CU_ASSERT_EQUAL((uintptr_t)p % align, 0);
        CU_ASSERT_TRUE(!last || p >= last + last_bytes);
        for (size_t b = 0; b < 10 + i; b++) CU_ASSERT_EQUAL(p[b], 0);
        memset(p, 0xff, 10 + i);
        last = p;
        last_bytes = 10 + i;
    }
    dr_arena_fini(&a);
    CU_ASSERT_PTR_NULL(a.base);
    dr_arena_fini(&a); /* the zero object is empty */
}

static void arena_mark_and_rewind(void) {
    struct dr_arena a = {0};
    CU_ASSERT_EQUAL_FATAL(dr_arena_init(&a, 4096).code, DR_OK);
    uint8_t *first = dr_arena_take(&a, 100, 64);
    size_t mark = dr_arena_mark(&a);
    uint8_t *second = dr_arena_take(&a, 1000, 64);
    CU_ASSERT_TRUE(second > first);
    size_t most = a.used_max;
    dr_arena_rewind(&a, mark);
    CU_ASSERT_PTR_EQUAL(dr_arena_take(&a, 50, 64), second);
    CU_ASSERT_EQUAL(a.used_max, most); /* the high-water mark stays */
    dr_arena_rewind(&a, 0);
    CU_ASSERT_PTR_EQUAL(dr_arena_take(&a, 1, 1), first);
    dr_arena_fini(&a);
}

static void arena_full(void) {
    struct dr_arena a = {0}, none = {0};
    CU_ASSERT_EQUAL_FATAL(dr_arena_init(&a, 4096).code, DR_OK);
    CU_ASSERT_PTR_NOT_NULL(dr_arena_try(&a, a.bytes, 1)); /* to the last byte */
    CU_ASSERT_PTR_NULL(dr_arena_try(&a, 1, 1));
    CU_ASSERT_PTR_NULL(dr_arena_try(&a, SIZE_MAX, 1));
    CU_ASSERT_PTR_NOT_NULL(dr_arena_try(&a, 0, 1));
    dr_arena_fini(&a);
    CU_ASSERT_EQUAL(dr_arena_init(&none, SIZE_MAX).code, DR_EFULL);
    CU_ASSERT_EQUAL(dr_arena_init(&none, SIZE_MAX / 4).code, DR_EFULL);
    CU_ASSERT_PTR_NULL(none.base); /* untouched */
}

static void arena_resident_as_used(void) {
    enum { PAGE = 4096, PAGES = 2048, USED = 10 };
    struct dr_arena a = {0};
    unsigned char resident[PAGES];
    int32_t n = 0;
    CU_ASSERT_EQUAL_FATAL(dr_arena_init(&a, (size_t)PAGES * PAGE).code, DR_OK);
    memset(dr_arena_take(&a, (size_t)USED * PAGE, PAGE), 1, (size_t)USED * PAGE);
    CU_ASSERT_EQUAL_FATAL(mincore(a.base, a.bytes, resident), 0);
    for (int32_t i = 0; i < PAGES; i++) n += resident[i] & 1;
    CU_ASSERT_TRUE(n >= USED);
    if (!DR_SANITIZED) CU_ASSERT_TRUE(n <= USED + 1); /* and the page of the block's own head */
    dr_arena_fini(&a);
}

static void arena_take_beyond_aborts(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct dr_arena a = {0};
        if (!freopen("/dev/null", "w", stderr) || dr_arena_init(&a, 64).code != DR_OK) _exit(1);
        dr_arena_take(&a, a.bytes + 1, 1);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static CU_TestInfo cases[] = {
    {"pieces are aligned, zeroed and do not overlap", arena_pieces},
    {"a rewind gives the same memory again", arena_mark_and_rewind},
    {"a full arena gives NULL on try and EFULL for impossible sizes", arena_full},
    {"pages that nobody has used are not resident", arena_resident_as_used},
    {"taking more than there is aborts", arena_take_beyond_aborts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_arena = {.pName = "common/arena", .pTests = cases};
