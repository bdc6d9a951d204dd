/* group.c - the one place where the parts of a sum are added.
 * In:   the members' parts of the same elements.      Out: their sum.
 * Owns: nothing.
 * Why:  the order of additions is a promise (batch invariance); every implementation of the group adds
 * through here. Built for AVX2, the least that the ops ask for: lanes change no bit. */
#include "worker/collective/group.h"

#include <immintrin.h>

enum { LANES = 8, TILE = 4 * LANES }; /* four sums under way hide the latency of an addition */

static void add_tile(float *out, const float *const *part, int32_t n, size_t at) {
    __m256 a = _mm256_loadu_ps(part[0] + at), b = _mm256_loadu_ps(part[0] + at + LANES);
    __m256 c = _mm256_loadu_ps(part[0] + at + 2 * LANES), d = _mm256_loadu_ps(part[0] + at + 3 * LANES);
    for (int32_t m = 1; m < n; m++) {
        const float *p = part[m] + at;
        a = _mm256_add_ps(a, _mm256_loadu_ps(p));
        b = _mm256_add_ps(b, _mm256_loadu_ps(p + LANES));
        c = _mm256_add_ps(c, _mm256_loadu_ps(p + 2 * LANES));
        d = _mm256_add_ps(d, _mm256_loadu_ps(p + 3 * LANES));
    }
    _mm256_storeu_ps(out + at, a);
    _mm256_storeu_ps(out + at + LANES, b);
    _mm256_storeu_ps(out + at + 2 * LANES, c);
    _mm256_storeu_ps(out + at + 3 * LANES, d);
}

void dr_group_sum(float *out, const float *const *part, int32_t n, size_t count) {
    size_t at = 0;
    for (; at + TILE <= count; at += TILE) add_tile(out, part, n, at);
    for (; at < count; at++) {
        float sum = part[0][at];
        for (int32_t m = 1; m < n; m++) sum += part[m][at];
        out[at] = sum;
    }
}
