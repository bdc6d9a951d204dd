/* test_exp.c - the project's exponential and logarithm.
 * In:   sweeps of floats.      Out: checks against libm in double, and fixed bits.
 * Owns: nothing.
 * Why:  the bits must be the same on every machine. */
#include "kernels/exp.h"

#include "tests/kernels/material.h"
#include "tests/support/runner.h"

/* One rounding of the polynomial's sum, one of the product, 1e-8 of the polynomial, r's own rounding:
 * below 1.5 units of 2^-24. */
static void exp_accuracy(void) {
    double worst = 0;
    for (int i = 0; i <= 400000; i++) {
        float x = -87.0f + 175.0f * (float)i / 400000.0f;
        double want = exp((double)x);
        worst = fmax(worst, fabs((double)dr_exp(x) / want - 1));
    }
    CU_ASSERT_TRUE(worst < 1.5e-7);
}

static void exp_edges(void) {
    CU_ASSERT_EQUAL(dr_exp(0.0f), 1.0f);
    CU_ASSERT_EQUAL(dr_exp(-0.0f), 1.0f);
    CU_ASSERT_TRUE(isnan(dr_exp(NAN)));
    CU_ASSERT_EQUAL(dr_exp(-INFINITY), dr_exp(-87.0f));
    CU_ASSERT_EQUAL(dr_exp(INFINITY), dr_exp(88.0f));
    CU_ASSERT_TRUE(dr_exp(-87.0f) > 1.6e-38f && dr_exp(88.0f) < 1.7e38f);
}

/* Computed with exact rational arithmetic, rounded to f32 after each operation of the formula in exp.h. */
static void exp_bits(void) {
    static const float pair[][2] = {
        {-0x1p0f, 0x1.78b564p-2f},       {0x1p0f, 0x1.5bf0a8p+1f},         {-0x1.8p3f, 0x1.9c54c4p-18f},
        {0x1.23456p-3f, 0x1.27200cp+0f}, {0x1.4p6f, 0x1.55779cp+115f},     {-0x1.5bf0a8p6f, 0x1.6bd64ep-126f},
        {-0x1.62e43p-1f, 0x1.0p-1f},     {0x1.fffffep-2f, 0x1.a61298p+0f}, {-0x1.0p-20f, 0x1.ffffe0p-1f},
    };
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) CU_ASSERT_EQUAL(dr_exp(pair[i][0]), pair[i][1]);
}

static void ln_accuracy(void) {
    for (int i = 0; i < 20000; i++) {
        float x = ldexpf(0.5f + dr_rng_uniform(1, (uint64_t)i, 0), i % 250 - 126);
        double want = log((double)x);
        CU_ASSERT_TRUE(fabs((double)dr_ln(x) - want) <= 0x1p-24 * fabs(want) + 1e-14);
    }
    CU_ASSERT_EQUAL(dr_ln(1.0f), 0.0f);
    CU_ASSERT_EQUAL(dr_ln(0.0f), -INFINITY);
    CU_ASSERT_EQUAL(dr_ln(INFINITY), INFINITY);
    CU_ASSERT_TRUE(isnan(dr_ln(-1.0f)) && isnan(dr_ln(NAN)));
    CU_ASSERT_TRUE(fabs((double)dr_ln(0x1p-149f) - log(0x1p-149)) < 1e-5);
}

static void gates_accuracy(void) {
    for (int i = -2000; i <= 2000; i++) {
        float x = (float)i / 25.0f;
        double s = 1 / (1 + exp(-(double)x));
        CU_ASSERT_TRUE(fabs((double)dr_sigmoid(x) - s) <= 3e-7 * s);
        CU_ASSERT_TRUE(fabs((double)dr_silu(x) - (double)x * s) <= 3e-7 * fabs((double)x * s));
    }
    CU_ASSERT_TRUE(isnan(dr_silu(NAN)) && isnan(dr_sigmoid(NAN)));
    CU_ASSERT_EQUAL(dr_sigmoid(200.0f), 1.0f);
    CU_ASSERT_TRUE(dr_sigmoid(-200.0f) >= 0 && dr_sigmoid(-200.0f) < 1e-37f);
}

static CU_TestInfo cases[] = {
    {"e^x is within 1.5e-7 of libm in double over the whole range", exp_accuracy},
    {"e^0 is exactly 1, infinities are clamped, NaN stays", exp_edges},
    {"e^x has the bits that exact arithmetic predicts", exp_bits},
    {"ln x is rounded correctly to half a unit, and knows its edges", ln_accuracy},
    {"sigmoid and silu follow their formulas", gates_accuracy},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_exp = {.pName = "kernels/exp", .pTests = cases};
