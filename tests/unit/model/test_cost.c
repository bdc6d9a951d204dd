/* test_cost.c - bytes and operations of a step against sums made by hand.
 * In:   published dimensions.      Out: checks.
 * Owns: nothing.
 * Why:  a bound that is wrong makes every report wrong. The numbers come from the shapes of the DeepSeek-V3
 * paper, written out beside them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <CUnit/CUnit.h>

#include "model/cost.h"
#include "tests/unit/model/fixture.h"

static bool near(double found, double expected, double relative) {
    const bool good = fabs(found - expected) <= relative * fabs(expected);
    if (!good) printf("found %.9g, expected %.9g\n", found, expected);
    return good;
}

static struct dr_layout layout(const struct dr_config *c, int32_t tp, int32_t pp, int32_t width) {
    struct dr_layout_wish w = fixture_wish(tp, pp);
    struct dr_layout l = {0};
    w.cache_width = width;
    w.cache_type = DR_CACHE_BF16;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(c, &w, &l).code, DR_OK);
    return l;
}

static void v3_products(void) {
    const struct dr_config c = fixture_config("configs/v3");
    const double mla = 7168.0 * 1536 + 1536.0 * 24576 + 7168.0 * 576 + 512.0 * 32768 + 16384.0 * 7168;
    const double expert = 3.0 * 7168 * 2048, dense = 3.0 * 7168 * 18432;
    CU_ASSERT(mla == 187105280.0 && expert == 44040192.0); /* 187.1 M a layer, 44.04 M an expert */
    CU_ASSERT_EQUAL(dr_cost_layers_madd(&c, 0, 1), mla + dense);
    CU_ASSERT_EQUAL(dr_cost_layers_madd(&c, 3, 4), mla + 9 * expert + 7168.0 * 256);
    const double layers = dr_cost_layers_madd(&c, 0, 61), head = dr_cost_head_madd(&c);
    CU_ASSERT_EQUAL(layers, 61 * mla + 3 * dense + 58 * (9 * expert + 7168.0 * 256));
    CU_ASSERT(near(2 * layers, 71.4e9, 1e-3) && near(2 * (layers + head), 73.25e9, 1e-4));
}

static void v3_attention(void) {
    const struct dr_config c = fixture_config("configs/v3");
    CU_ASSERT_EQUAL(61 * dr_cost_absorbed_flop(&c), 2.0 * 128 * (2 * 512 + 64) * 61); /* 16.99 M */
    CU_ASSERT_EQUAL(61 * dr_cost_expanded_flop(&c), 2.0 * 128 * (192 + 128) * 61);    /* 5.00 M */
    CU_ASSERT_EQUAL(dr_cost_expansion_flop(&c), 33554432.0);
    /* new rows above which expanding a cached position pays: about 171 */
    CU_ASSERT(near(dr_cost_expansion_flop(&c) / (dr_cost_absorbed_flop(&c) - dr_cost_expanded_flop(&c)),
                   33554432.0 / (278528 - 81920), 1e-12));
}

static void touched_experts(void) {
    const struct dr_config c = fixture_config("configs/v3");
    CU_ASSERT_EQUAL(dr_cost_touched(&c, 0), 0);
    CU_ASSERT(near(dr_cost_touched(&c, 1), 8, 1e-12));
    CU_ASSERT(near(dr_cost_touched(&c, 2), 8 + 8 * 248.0 / 256, 1e-12));
    CU_ASSERT(near(dr_cost_touched(&c, 1e6), 256, 1e-12));
    struct dr_config dense = c;
    dense.n_expert = 0;
    CU_ASSERT_EQUAL(dr_cost_touched(&dense, 5), 0);
}

static double weight_bytes(const struct dr_config *c, const struct dr_layout *l,
                           const struct dr_cost_shape *s) {
    double sum = 0;
    for (int32_t r = 0; r < l->n_rank; r++) {
        int32_t n = dr_footprint_list(c, NULL, l, r, NULL, 0);
        struct dr_holding *list = calloc((size_t)n, sizeof *list);
        CU_ASSERT_FATAL(list != NULL);
        (void)dr_footprint_list(c, NULL, l, r, list, n);
        sum += dr_cost_weight_bytes(c, list, n, s);
        free(list);
    }
    return sum;
}

/* One FP8 token of V3 reads the active parameters once: 36.6 G, of which head and router take two bytes each.
 */
static void v3_weight_bytes(void) {
    const struct dr_config c = fixture_config("configs/v3");
    const struct dr_layout l = layout(&c, 1, 1, 1);
    const struct dr_cost_shape one = {.absorbed = 1, .out = 1, .visible = 1};
    const double madd = dr_cost_layers_madd(&c, 0, 61) + dr_cost_head_madd(&c);
    const double twice = dr_cost_head_madd(&c) + 58 * 7168.0 * 256;
    CU_ASSERT(near(weight_bytes(&c, &l, &one), madd + twice, 2e-3)); /* scales: 0.02 %, norms, padding */
    /* 8 rows: 57.5 of 256 experts a layer instead of 8 */
    const struct dr_cost_shape eight = {.absorbed = 8, .out = 8, .visible = 1};
    const double more = 58 * (dr_cost_touched(&c, 8) - 8) * 44040192.0;
    CU_ASSERT(near(weight_bytes(&c, &l, &eight), madd + twice + more, 2e-3));
    /* without an output the head is not read; the other form of kv_b has the same size */
    const struct dr_cost_shape prompt = {.expanded = 1, .past = 1, .keys = 1};
    CU_ASSERT(near(weight_bytes(&c, &l, &prompt), madd + twice - 2 * dr_cost_head_madd(&c), 2e-3));
    /* two stages read what one reads; two ranks a stage read q_a, kv_a and router twice */
    const struct dr_layout pp = layout(&c, 1, 2, 1), tp = layout(&c, 2, 1, 2);
    CU_ASSERT(near(weight_bytes(&c, &pp, &one), weight_bytes(&c, &l, &one), 1e-6));
    const double replicated = 61 * 7168.0 * (1536 + 576) + 58 * 2 * 7168.0 * 256;
    CU_ASSERT(near(weight_bytes(&c, &tp, &one) - weight_bytes(&c, &l, &one), replicated, 2e-2));
}

static void stages_add_up(void) {
    const struct dr_config c = fixture_config("configs/v3");
    const struct dr_cost_shape s = {.absorbed = 4, .out = 4, .visible = 4096};
    const struct dr_layout one = layout(&c, 1, 1, 1), three = layout(&c, 2, 3, 2),
                           copied = layout(&c, 2, 1, 1);
    const struct dr_cost whole = dr_cost_stage(&c, &one, 0, &s);
    struct dr_cost sum = {0};
    for (int32_t i = 0; i < 3; i++) {
        const struct dr_cost part = dr_cost_stage(&c, &three, i, &s);
        sum.cache_bytes += part.cache_bytes;
        sum.linear_flop += part.linear_flop;
        sum.attention_flop += part.attention_flop;
    }
    CU_ASSERT(near(whole.cache_bytes, 4 * 4096 * 70272.0, 1e-12));
    CU_ASSERT(near(whole.linear_flop, 4 * 73.25e9, 1e-4));
    CU_ASSERT(near(whole.attention_flop, 4 * 4096 * 16.99e6, 1e-3));
    CU_ASSERT(near(sum.cache_bytes, whole.cache_bytes, 1e-12));
    CU_ASSERT(near(sum.linear_flop, whole.linear_flop, 1e-12));
    CU_ASSERT(near(sum.attention_flop, whole.attention_flop, 1e-12));
    /* two cache groups of one rank read the cache twice */
    CU_ASSERT(near(dr_cost_stage(&c, &copied, 0, &s).cache_bytes, 2 * whole.cache_bytes, 1e-12));
}

/* A prompt of 1,024 in one step: 71.4 + 0.0050 x 512 = 74.0 GFLOP a token. Its second half as a step of its
 * own expands the first half again. */
static void prompts(void) {
    const struct dr_config c = fixture_config("configs/v3");
    const struct dr_layout l = layout(&c, 1, 1, 1);
    const struct dr_cost_shape whole = {.expanded = 1024, .past = 1024, .keys = 1024 * 1025.0 / 2},
                               half = {.expanded = 512, .past = 1024, .keys = 512 * 512 + 512 * 513.0 / 2};
    const struct dr_cost a = dr_cost_stage(&c, &l, 0, &whole), b = dr_cost_stage(&c, &l, 0, &half);
    CU_ASSERT(near((a.linear_flop + a.attention_flop) / 1024, 74.0e9, 1e-3));
    CU_ASSERT(near(b.linear_flop, a.linear_flop / 2 + 512 * 61 * 33554432.0, 1e-12));
    CU_ASSERT_EQUAL(a.cache_bytes, b.cache_bytes);
}

static CU_TestInfo cases[] = {
    {"products of one token of V3: 73.25 GFLOP", v3_products},
    {"attention of V3: 16.99 and 5.00 MFLOP a position, and what expanding costs", v3_attention},
    {"distinct experts of several rows", touched_experts},
    {"bytes of weights that one token, eight tokens and a prompt read", v3_weight_bytes},
    {"stages of a layout add up to the whole", stages_add_up},
    {"a prompt in one step and in two", prompts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cost = {.pName = "model/cost", .pTests = cases};
