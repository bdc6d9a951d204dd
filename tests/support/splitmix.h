/* splitmix.h - the mixing step of splitmix64: random numbers and hashes of the tests.
 * In:   64 bits.      Out: 64 others.
 * Owns: nothing.
 * Why:  schedules are repeated from a seed, so every test draws its numbers by the same published step. */
#pragma once

#include <stdint.h>

#define SPLITMIX_STEP 0x9E3779B97F4A7C15U /* what a stream's state grows by with each number */

static inline uint64_t splitmix(uint64_t x) {
    x += SPLITMIX_STEP;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}
