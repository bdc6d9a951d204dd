/* test_values.c - the random numbers themselves.
 * In:   keys, tables.      Out: CUnit results.
 * Owns: nothing.
 * Why:  a figure measured on one machine is compared with one of another: the bytes must be equal. */
#include <math.h>
#include <string.h>

#include "tests/bench/checkpoint/values.h"
#include "tests/support/runner.h"

static const char up_name[] = "model.layers.1.mlp.experts.2.up_proj.weight";

static struct dr_values_tables tables;

static int set_up(void) {
    dr_values_init(&tables);
    return 0;
}

static void fill(const struct dr_values *v, uint64_t offset, size_t bytes, void *out) {
    struct dr_values_lane lane = {.filled = false};
    dr_values_fill(&tables, &lane, v, offset, bytes, out);
}

/* The expected values of these three come from a separate program: Philox, splitmix64 and the definition of
 * values.h in exact integers, quantiles from Python's statistics.NormalDist. */
static void fp8_as_defined(void) {
    static const uint8_t first[8] = {0xF0, 0x5C, 0x77, 0xF3, 0xF4, 0xD0, 0x6F, 0x6F},
                         later[8] = {0xF1, 0xEB, 0x7B, 0xF1, 0xEF, 0x6B, 0xF9, 0x69};
    const struct dr_values v = {.key = dr_values_key(1, up_name), .dtype = DR_DTYPE_F8_E4M3};
    uint8_t out[8];
    fill(&v, 0, 8, out);
    CU_ASSERT(memcmp(out, first, 8) == 0);
    fill(&v, 40000, 8, out);
    CU_ASSERT(memcmp(out, later, 8) == 0);
}

static void bf16_as_defined(void) {
    static const uint16_t embed[4] = {0xBF4E, 0x3EF7, 0xBF22, 0xBE20},
                          norm[4] = {0x3F8A, 0x3F93, 0x3F7D, 0x3F82},
                          up[4] = {0xBCE2, 0x3D81, 0xBD1D, 0x3DD0};
    struct dr_values v = {
        .key = dr_values_key(1, "model.embed_tokens.weight"), .dtype = DR_DTYPE_BF16, .sigma = 1};
    uint16_t out[4];
    fill(&v, 0, sizeof out, out);
    CU_ASSERT(memcmp(out, embed, sizeof out) == 0);
    v = (struct dr_values){
        .key = dr_values_key(1, "model.norm.weight"), .dtype = DR_DTYPE_BF16, .mean = 1, .sigma = 0.1};
    fill(&v, 200, sizeof out, out);
    CU_ASSERT(memcmp(out, norm, sizeof out) == 0);
    v = (struct dr_values){.key = dr_values_key(1, up_name), .dtype = DR_DTYPE_BF16, .sigma = 1.0 / 16};
    fill(&v, 64, sizeof out, out);
    CU_ASSERT(memcmp(out, up, sizeof out) == 0);
}

static void f32_as_defined(void) {
    static const float scales[4] = {3.260984044e-04f, 4.402294410e-04f, 4.189325756e-04f, 3.444771159e-04f},
                       bias[4] = {5.679508248e-03f, -8.562749693e-03f, 6.890107934e-04f, -5.296013362e-04f};
    struct dr_values v = {.key = dr_values_key(1, "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"),
                          .dtype = DR_DTYPE_F32,
                          .form = DR_VALUES_SCALES,
                          .sigma = 1.0 / 16};
    float out[4];
    fill(&v, 0, sizeof out, out);
    for (int i = 0; i < 4; i++) CU_ASSERT_DOUBLE_EQUAL(out[i], scales[i], 1e-7 * scales[i]);
    v = (struct dr_values){.key = dr_values_key(1, "model.layers.1.mlp.gate.e_score_correction_bias"),
                           .dtype = DR_DTYPE_F32,
                           .sigma = 0.01};
    fill(&v, 0, sizeof out, out);
    for (int i = 0; i < 4; i++) CU_ASSERT_DOUBLE_EQUAL(out[i], bias[i], 1e-9);
}

static void quantiles(void) {
    /* Phi^-1 of (i + 1/2) / 4096 against the error function of the C library */
    for (int i = 0; i < DR_VALUES_QUANTILES; i++) {
        double p = 0.5 * erfc(-tables.quantile[i] * 0.70710678118654752);
        CU_ASSERT_DOUBLE_EQUAL(p, (i + 0.5) / DR_VALUES_QUANTILES, 1e-14);
    }
}

static void codes(void) {
    int largest = 0;
    for (int i = 0; i < DR_VALUES_CODES; i++) {
        uint8_t c = tables.code[i];
        CU_ASSERT((c & 127) != 127);
        if (i > 0) CU_ASSERT(dr_values_of_code(c) >= dr_values_of_code(tables.code[i - 1]));
        largest += (c & 127) == 126;
    }
    CU_ASSERT_EQUAL(largest, 2); /* -448 and 448, as the largest weight of a block has in releases */
    CU_ASSERT_EQUAL(dr_values_of_code(0x38), 1.0);
    CU_ASSERT_EQUAL(dr_values_of_code(0x81), -0x1p-9);
}

static void pieces(void) {
    static const enum dr_dtype types[] = {DR_DTYPE_F8_E4M3, DR_DTYPE_BF16, DR_DTYPE_F32};
    uint8_t whole[1000], cut[1000];
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        const struct dr_values v = {.key = 7, .dtype = types[k], .sigma = 1};
        fill(&v, 0, 1000, whole);
        fill(&v, 0, 333 * 2, cut); /* an end within a word */
        CU_ASSERT(memcmp(cut, whole, 666) == 0);
        fill(&v, 664, 336, cut);
        CU_ASSERT(memcmp(cut, whole + 664, 336) == 0);
    }
}

static void keys(void) {
    CU_ASSERT_NOT_EQUAL(dr_values_key(1, "a"), dr_values_key(2, "a"));
    CU_ASSERT_NOT_EQUAL(dr_values_key(1, "a"), dr_values_key(1, "b"));
}

static CU_TestInfo cases[] = {
    {"FP8 bytes are those of the written definition", fp8_as_defined},
    {"BF16 bytes are those of the written definition", bf16_as_defined},
    {"F32 values are those of the written definition", f32_as_defined},
    {"the quantiles are those of the normal distribution", quantiles},
    {"the codes ascend from -448 to 448 without NaN", codes},
    {"a piece has the bytes of the whole", pieces},
    {"keys depend on seed and name", keys},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_values = {.pName = "bench/values", .pInitFunc = set_up, .pTests = cases};
