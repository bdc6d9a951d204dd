/* test_rng.c - random numbers as a pure function.
 * In:   keys and counters.      Out: checks against published vectors and distributions.
 * Owns: nothing.
 * Why:  every cut of the vocabulary must draw the same token, with the right frequencies.
 *
 * The vectors are the philox4x32 lines (10 rounds) of kat_vectors in the Random123 distribution (Salmon et
 * al., SC 2011). The statistics are over fixed counters, so they never vary. */
#include "common/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "tests/support/runner.h"

static void rng_known_answers(void) {
    static const struct {
        uint64_t key, a, b, want; /* words in the order of the counter: low half first */
    } kat[] = {
        {0, 0, 0, 0xe169c58d6627e8d5},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x41c83b0e408f276d},
        {0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e, 0x94fdccebd16cfe09},
    };
    for (size_t i = 0; i < 3; i++) CU_ASSERT_EQUAL(dr_rng_u64(kat[i].key, kat[i].a, kat[i].b), kat[i].want);
}

static void rng_uniform(void) {
    enum { N = 200000, BINS = 64 };
    int bin[BINS] = {0};
    double sum = 0, chi = 0;
    bool inside = true;
    for (uint64_t i = 0; i < N; i++) {
        float u = dr_rng_uniform(5, i, 9);
        inside = inside && u > 0 && u < 1;
        bin[(int)(u * BINS)]++;
        sum += (double)u;
    }
    CU_ASSERT_TRUE(inside);
    CU_ASSERT_TRUE(fabs(sum / N - 0.5) < 4 * sqrt(1.0 / 12 / N)); /* four standard errors */
    for (int i = 0; i < BINS; i++) chi += (bin[i] - N / BINS) * (double)(bin[i] - N / BINS) / (N / BINS);
    CU_ASSERT_TRUE(chi < 103.4); /* 99.9 % point of chi-square, 63 degrees */
}

static void rng_gumbel(void) {
    enum { N = 200000, BINS = 32 };
    int bin[BINS] = {0};
    double sum = 0, square = 0, chi = 0;
    for (uint64_t i = 0; i < N; i++) {
        double g = (double)dr_rng_gumbel(77, 3, i);
        double p = exp(-exp(-g)); /* its distribution function: uniform */
        bin[(int)(p * BINS) < BINS ? (int)(p * BINS) : BINS - 1]++;
        sum += g;
        square += g * g;
    }
    double mean = sum / N, variance = square / N - mean * mean;
    CU_ASSERT_TRUE(fabs(mean - 0.57721566490153286) < 4 * sqrt(1.6449 / N)); /* Euler's constant */
    CU_ASSERT_TRUE(fabs(variance - 1.6449340668482264) <
                   4 * sqrt(11.9 / N)); /* pi^2 / 6; fourth moment 14.6 */
    for (int i = 0; i < BINS; i++) chi += (bin[i] - N / BINS) * (double)(bin[i] - N / BINS) / (N / BINS);
    CU_ASSERT_TRUE(chi < 61.1); /* 99.9 % point, 31 degrees */
}

/* -ln(-ln u) of the same 52 bits by libm agrees to the last bit or the one beside it. */
static void rng_gumbel_formula(void) {
    bool near = true;
    for (uint64_t i = 0; i < 20000; i++) {
        double u = ((double)(dr_rng_u64(1, i, 2) >> 12) + 0.5) * 0x1p-52;
        double want = -log(-log(u)), got = (double)dr_rng_gumbel(1, i, 2);
        near = near && fabs(got - want) <= 0x1p-24 * fabs(want) + 1e-14;
    }
    CU_ASSERT_TRUE(near);
}

static void rng_gumbel_above(void) {
    bool right = true;
    int spared = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double d = (double)dr_rng_uniform(9, i, 9) * 14 - 3;
        float g = dr_rng_gumbel(4, i, 2), got = dr_rng_gumbel_above(4, i, 2, (float)exp(-d));
        right = right && (got == g || (got == -INFINITY && (double)g <= d));
        spared += got == -INFINITY;
    }
    CU_ASSERT_TRUE(right);
    CU_ASSERT_TRUE(spared > 70000);      /* that is its purpose */
    for (uint64_t i = 0; i < 20000; i++) /* exactly at the border, where rounding could decide */
        right = right && dr_rng_gumbel_above(4, i, 2, (float)exp(-(double)dr_rng_gumbel(4, i, 2))) >=
                             dr_rng_gumbel(4, i, 2);
    CU_ASSERT_TRUE(right);
}

static void rng_depends_on_everything(void) {
    uint64_t v = dr_rng_u64(1, 2, 3);
    CU_ASSERT_EQUAL(dr_rng_u64(1, 2, 3), v);
    for (int bit = 0; bit < 64; bit++) {
        uint64_t flip = (uint64_t)1 << bit;
        CU_ASSERT_NOT_EQUAL(dr_rng_u64(1 ^ flip, 2, 3), v);
        CU_ASSERT_NOT_EQUAL(dr_rng_u64(1, 2 ^ flip, 3), v);
        CU_ASSERT_NOT_EQUAL(dr_rng_u64(1, 2, 3 ^ flip), v);
    }
}

static void rng_derived_seeds(void) {
    CU_ASSERT_EQUAL(dr_rng_derive(42, 0), 42); /* n = 1 and choice 0 of n draw alike */
    for (uint64_t i = 0; i < 8; i++)
        for (uint64_t j = 0; j < i; j++) CU_ASSERT_NOT_EQUAL(dr_rng_derive(42, i), dr_rng_derive(42, j));
    CU_ASSERT_NOT_EQUAL(dr_rng_derive(42, 1), dr_rng_derive(43, 1));
}

static void rng_system_differs(void) {
    uint64_t a = dr_rng_system(), b = dr_rng_system();
    CU_ASSERT_NOT_EQUAL(a, b); /* equal once in 2^64 */
}

static CU_TestInfo cases[] = {
    {"Philox gives the published known answers", rng_known_answers},
    {"uniforms stay inside (0, 1) and are uniform", rng_uniform},
    {"Gumbels have the mean, variance and distribution of Gumbel", rng_gumbel},
    {"Gumbels are -ln(-ln u) to half a unit", rng_gumbel_formula},
    {"a Gumbel that can win is never withheld", rng_gumbel_above},
    {"every bit of key and counter counts", rng_depends_on_everything},
    {"choices of one request have different seeds, choice 0 its own", rng_derived_seeds},
    {"the system's numbers differ", rng_system_differs},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_rng = {.pName = "common/rng", .pTests = cases};
