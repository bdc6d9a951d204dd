/* clock.h - the only source of time.
 * In:   the system's clocks.      Out: monotonic nanoseconds; wall seconds for time stamps.
 * Owns: nothing.
 * Why:  deadlines must not jump with the wall clock, and a test replaces this file at link time. */
#pragma once

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t dr_clock_ns(void);          /* CLOCK_MONOTONIC */
int64_t dr_clock_wall_s(void);       /* seconds since 1970, for people and for `created` fields */
void dr_clock_sleep_ns(uint64_t ns); /* sleeps at least ns unless a signal arrives */

/* ns as the system's calls want them. */
static inline struct timespec dr_clock_timespec(uint64_t ns) {
    struct timespec t;
    t.tv_sec = (time_t)(ns / 1000000000u);
    t.tv_nsec = (long)(ns % 1000000000u);
    return t;
}

#ifdef __cplusplus
}
#endif
