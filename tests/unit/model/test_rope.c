/* test_rope.c - frequencies and scales against published values.
 * In:   configs of released models.      Out: checks.
 * Owns: nothing.
 * Why:  a wrong ramp is invisible in short prompts. Values: computed with the reference library's YaRN code.
 */
#include <math.h>

#include <CUnit/CUnit.h>

#include "tests/unit/model/fixture.h"

static bool near(double found, double expected) { /* the values are printed with six digits */
    return fabs(found - expected) <= 5.1e-6 * fabs(expected);
}

static void v3(void) {
    struct dr_config c = fixture_config("configs/v3");
    double w[32];
    dr_config_rope_freq(&c, w);
    CU_ASSERT_EQUAL(w[0], 1);
    CU_ASSERT_TRUE(near(w[10], 5.62341e-2));
    CU_ASSERT_TRUE(near(w[11], 3.90069e-2));
    CU_ASSERT_TRUE(near(w[16], 5.5e-3));
    CU_ASSERT_TRUE(near(w[22], 1.77828e-4));
    CU_ASSERT_TRUE(near(w[31], 3.33380e-6));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.13523378));
    CU_ASSERT_EQUAL(dr_config_rope_gain(&c), 1);
}

static void v2_lite(void) {
    struct dr_config c = fixture_config("configs/v2-lite");
    double w[32];
    dr_config_rope_freq(&c, w);
    CU_ASSERT_TRUE(near(w[11], 3.90069e-2));
    CU_ASSERT_TRUE(near(w[31], 3.33380e-6));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.11472139));
    CU_ASSERT_EQUAL(dr_config_rope_gain(&c), 1);
}

static void kimi_k2(void) {
    struct dr_config c = fixture_config("configs/kimi-k2");
    double w[32];
    dr_config_rope_freq(&c, w);
    CU_ASSERT_TRUE(near(w[16], 4.47214e-3));
    CU_ASSERT_TRUE(near(w[31], 8.76441e-7));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.13086080));
}

static void kimi_k25(void) {
    struct dr_config c = fixture_config("configs/kimi-k2");
    double w[32];
    c.yarn_factor = 64;
    c.yarn_beta_fast = 32;
    dr_config_rope_freq(&c, w);
    CU_ASSERT_TRUE(near(w[9], 4.37767e-2));
    CU_ASSERT_TRUE(near(w[16], 1.53730e-3));
    CU_ASSERT_TRUE(near(w[31], 4.38221e-7));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.14467963));
}

static void plain(void) {
    struct dr_config c = fixture_config("configs/v3");
    double w[32];
    c.yarn = false;
    dr_config_rope_freq(&c, w);
    CU_ASSERT_TRUE(near(w[16], 1e-2));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.07216878));
    CU_ASSERT_EQUAL(dr_config_rope_gain(&c), 1);
}

static void gain(void) {
    struct dr_config c = fixture_config("configs/v3");
    c.yarn_mscale_all = 0; /* the older form of YaRN: the growth is in cos and sin, not in the scale */
    CU_ASSERT_TRUE(near(dr_config_rope_gain(&c), 1.368888));
    CU_ASSERT_TRUE(near(dr_config_softmax_scale(&c), 0.07216878));
    c.yarn_factor = 1;
    CU_ASSERT_EQUAL(dr_config_rope_gain(&c), 1);
}

static CU_TestInfo cases[] = {
    {"V3", v3},
    {"V2-Lite: mscale 0.707", v2_lite},
    {"Kimi-K2: the ramp is one pair wide", kimi_k2},
    {"Kimi-K2.5: factor 64", kimi_k25},
    {"without YaRN nothing is interpolated or scaled", plain},
    {"without mscale_all_dim the gain is on cos and sin", gain},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_rope = {.pName = "model/rope", .pTests = cases};
