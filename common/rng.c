/* rng.c - Philox-4x32-10 and the numbers made from it.
 * In:   key and counter.      Out: bits, uniforms, Gumbels.
 * Owns: nothing.
 * Why:  see rng.h. */
#include "common/rng.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>

#include "common/status.h"

static void philox(uint32_t ctr[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * ctr[0], p1 = (uint64_t)0xCD9E8D57u * ctr[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ ctr[1] ^ k0, (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ ctr[3] ^ k1, (uint32_t)p0};
        memcpy(ctr, next, sizeof next);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

uint64_t dr_rng_u64(uint64_t key, uint64_t a, uint64_t b) {
    uint32_t ctr[4] = {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)};
    philox(ctr, (uint32_t)key, (uint32_t)(key >> 32));
    return (uint64_t)ctr[1] << 32 | ctr[0];
}

float dr_rng_uniform(uint64_t key, uint64_t a, uint64_t b) {
    uint32_t bits = (uint32_t)(dr_rng_u64(key, a, b) >> 41); /* 23 bits, so that the half step stays exact */
    return ((float)bits + 0.5f) * 0x1p-23f;
}

/* ln x for normal x > 0 in double: x = m 2^e with m in [sqrt(1/2), sqrt 2), ln m = 2 atanh((m-1)/(m+1)) by
 * its series to s^19 (s <= 0.172, so the rest is below 1e-17). Only +, -, *, / : the same bits everywhere. */
static double log_exact(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1022;
    bits = (bits & 0xFFFFFFFFFFFFFu) | (uint64_t)1022 << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 19; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994530942;
}

/* 52 bits to the middle of their step: never 0, never 1 */
static double uniform_52(uint64_t bits) {
    return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

float dr_rng_gumbel(uint64_t key, uint64_t a, uint64_t b) {
    return (float)-log_exact(-log_exact(uniform_52(dr_rng_u64(key, a, b))));
}

float dr_rng_gumbel_above(uint64_t key, uint64_t a, uint64_t b, float tail) {
    /* -ln u >= 1 - u, so the Gumbel is at most -ln(1 - u), which is below d where 1 - u > e^-d. The margin
     * covers the rounding of tail, of the caller's d and of the Gumbel to f32: each below 1e-5. */
    double u = uniform_52(dr_rng_u64(key, a, b));
    if (1 - u > (double)tail * 1.0001) return -INFINITY;
    return (float)-log_exact(-log_exact(u));
}

uint64_t dr_rng_derive(uint64_t key, uint64_t i) {
    return i == 0 ? key : dr_rng_u64(key, i, 0x6465726976650000u);
}

uint64_t dr_rng_system(void) {
    uint64_t v = 0;
    DR_ASSERT(getrandom(&v, sizeof v, 0) == (ssize_t)sizeof v);
    return v;
}
