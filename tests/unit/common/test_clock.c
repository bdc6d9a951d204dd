/* test_clock.c - the only source of time.
 * In:   the clocks.      Out: checks.
 * Owns: nothing.
 * Why:  deadlines rest on it. */
#include "common/clock.h"

#include <stdbool.h>
#include <time.h>

#include "tests/support/runner.h"

static void clock_never_runs_back(void) {
    bool forward = true;
    for (uint64_t i = 0, last = dr_clock_ns(); i < 10000; i++) {
        uint64_t now = dr_clock_ns();
        forward = forward && now >= last;
        last = now;
    }
    CU_ASSERT_TRUE(forward);
}

static void clock_sleeps_long_enough(void) {
    uint64_t begin = dr_clock_ns();
    dr_clock_sleep_ns(3000000);
    CU_ASSERT_TRUE(dr_clock_ns() - begin >= 3000000); /* the unit is the nanosecond; a late wake is legal */
    dr_clock_sleep_ns(0);
}

static void clock_wall_is_the_system_s(void) {
    int64_t before = (int64_t)time(NULL), wall = dr_clock_wall_s();
    int64_t after = (int64_t)time(NULL);
    CU_ASSERT_TRUE(wall >= before && wall <= after + 1);
}

static CU_TestInfo cases[] = {
    {"monotonic time never runs back", clock_never_runs_back},
    {"a sleep of 3 ms lasts at least 3 ms", clock_sleeps_long_enough},
    {"wall time is the system's", clock_wall_is_the_system_s},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_clock = {.pName = "common/clock", .pTests = cases};
