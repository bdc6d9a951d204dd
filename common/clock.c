/* clock.c - the system's clocks.
 * In:   clock_gettime.      Out: see clock.h.
 * Owns: nothing.
 * Why:  see clock.h. */
#include "common/clock.h"

uint64_t dr_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t dr_clock_wall_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec;
}

void dr_clock_sleep_ns(uint64_t ns) {
    struct timespec t = dr_clock_timespec(ns);
    nanosleep(&t, 0);
}
