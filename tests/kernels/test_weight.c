/* test_weight.c - packing checkpoint rows into strips.
 * In:   random matrices.      Out: checks.
 * Owns: nothing.
 * Why:  a weight in the wrong lane gives fluent nonsense. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

static void weight_every_f8_code(void) {
    struct pool p = {0};
    uint8_t code[256];
    struct dr_weight w = {.type = DR_W_F8, .n_out = 254, .n_in = 1};
    uint8_t *data = pool_take(&p, dr_weight_data_bytes(DR_W_F8, 254, 1, 0));
    int n = 0;
    for (int c = 0; c < 256; c++)
        if ((c & 0x7f) != 0x7f) code[n++] = (uint8_t)c;
    CU_ASSERT_EQUAL(n, 254);
    dr_weight_pack_rows(&w, data, 0, 254, code, 1);
    w.data = data;
    for (int i = 0; i < 254; i++) {
        double want = decode_value(DR_W_F8, code, (size_t)i);
        CU_ASSERT_EQUAL((double)dr_wtype_decode(DR_W_F8, code, (size_t)i), want);
        CU_ASSERT_EQUAL((double)dr_weight_at(&w, i, 0), want);
    }
    /* and the kernels decode them to the same values: y = w * 1 */
    struct rig r = rig_init(1);
    float x = 1, y[254], want[254];
    for (int i = 0; i < 254; i++)
        want[i] = (float)decode_value(DR_W_F8, code, (size_t)i) + 0.0f; /* 0 - 0 is 0 */
    CHECK_OK(r.ops->linear(
        &(struct dr_linear){.y = y, .x = &x, .w = &w, .n_tok = 1, .y_stride = 254, .x_stride = 1},
        &r.stream)); /* the oracle needs no scratch */
    CU_ASSERT_TRUE(same_floats(y, want, 254));
    rig_fini(&r);
    pool_fini(&p);
}

static void weight_every_half(void) {
    struct pool p = {0};
    uint16_t *all = pool_take(&p, 65536 * 2);
    float *got = pool_take(&p, 65536 * 4);
    uint32_t id = 0;
    struct rig r = rig_init(1);
    for (int c = 0; c < 65536; c++) all[c] = (uint16_t)c;
    for (enum dr_wtype t = DR_W_BF16; t <= DR_W_F16; t++) {
        CHECK_OK(r.ops->embed(
            &(struct dr_embed){
                .y = got, .ids = &id, .table = all, .type = t, .n_row = 1, .n_tok = 1, .dim = 65536},
            &r.stream));
        int wrong = 0;
        for (size_t c = 0; c < 65536; c++) {
            double want = decode_value(t, all, c), one = (double)dr_wtype_decode(t, all, c);
            bool nan = isnan(want);
            wrong += nan ? !isnan(got[c]) || !isnan(one) : (double)got[c] != want || one != want;
            wrong += !nan && !signbit(got[c]) != (c >> 15 == 0);
        }
        CU_ASSERT_EQUAL(wrong, 0);
    }
    rig_fini(&r);
    pool_fini(&p);
}

/* Where element (o, k) of a slice of 101 outputs from column 37 on lies: 64 outputs in the first strip, 37 (3
 * cells) in the second. */
static size_t place(enum dr_wtype t, int32_t o, int32_t k) {
    size_t bytes = dr_weight_elem_bytes(t), per = 4 / bytes, lead = 37 % per;
    size_t steps = (lead + 250 + per - 1) / per, at = lead + (size_t)k, lane = (size_t)o % 64;
    size_t cells = o < 64 ? 4 : 3, strip = o < 64 ? 0 : steps * 4 * 64;
    return strip + (at / per * cells + lane / 16) * 64 + lane % 16 * 4 + at % per * bytes;
}

static void weight_places(void) {
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++) {
        struct pool p = {0};
        struct matrix m = matrix_random(&p, 11 + t, t, 150, 301, true);
        struct dr_weight w = matrix_slice(&p, &m, 19, 101, 37, 250);
        size_t bytes = dr_weight_elem_bytes(t), stride = (size_t)m.cols * bytes;
        const uint8_t *src = m.src + 19 * stride + 37 * bytes;
        int wrong = 0;
        for (int32_t o = 0; o < 101; o++)
            for (int32_t k = 0; k < 250; k++) {
                float want =
                    (float)matrix_value(&m, 19 + o, 37 + k) * (float)matrix_scale(&m, 19 + o, 37 + k);
                wrong += dr_weight_at(&w, o, k) != want;
                wrong += memcmp((const uint8_t *)w.data + place(t, o, k),
                                src + (size_t)o * stride + (size_t)k * bytes, bytes) != 0;
            }
        CU_ASSERT_EQUAL(wrong, 0);
        /* rows packed in any pieces give the same bytes */
        size_t total = dr_weight_data_bytes(t, 101, 250, 37);
        uint8_t *again = pool_take(&p, total);
        for (int32_t row = 0, n; row < 101; row += n) {
            n = dr_min_i32(1 + row % 23, 101 - row);
            dr_weight_pack_rows(&w, again, row, n, src + (size_t)row * stride, stride);
        }
        CU_ASSERT_EQUAL(memcmp(again, w.data, total), 0);
        pool_fini(&p);
    }
}

static void weight_transposed(void) {
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++) {
        struct pool p = {0};
        struct matrix m =
            matrix_random(&p, 31 + t, t, 40, 75, false); /* source row = input, column = output */
        size_t bytes = dr_weight_elem_bytes(t), stride = 75 * bytes;
        struct dr_weight w = {.type = t, .n_out = 75, .n_in = 40};
        uint8_t *data = pool_take(&p, dr_weight_data_bytes(t, 75, 40, 0));
        dr_weight_pack_cols(&w, data, 0, 13, m.src, stride);
        dr_weight_pack_cols(&w, data, 13, 27, m.src + 13 * stride, stride);
        w.data = data;
        int wrong = 0;
        for (int32_t o = 0; o < 75; o++)
            for (int32_t k = 0; k < 40; k++)
                wrong += (double)dr_weight_at(&w, o, k) != matrix_value(&m, k, o);
        CU_ASSERT_EQUAL(wrong, 0);
        pool_fini(&p);
    }
}

static void weight_finds_nan(void) {
    uint8_t code[700] = {0};
    CU_ASSERT_EQUAL(dr_weight_find_nan(code, 700), -1);
    CU_ASSERT_EQUAL(dr_weight_find_nan(code, 0), -1);
    for (int32_t at = 699; at >= 0; at -= 37) {
        code[at] = at % 2 ? 0x7f : 0xff;
        CU_ASSERT_EQUAL(dr_weight_find_nan(code, 700), at);
        CU_ASSERT_EQUAL(dr_weight_find_nan(code, at), -1);
    }
}

static void weight_quantised(void) {
    struct pool p = {0};
    enum { N_OUT = 37, N_IN = 301, PHASE = 50 };
    struct dr_weight w = {.type = DR_W_I8, .n_out = N_OUT, .n_in = N_IN, .phase = PHASE};
    float *value = pool_floats(&p, N_OUT * N_IN, 5, 3);
    int8_t *code = pool_take(&p, N_OUT * N_IN);
    float *scale = pool_take(&p, dr_weight_scale_bytes(DR_W_I8, N_OUT, N_IN, PHASE, 0));
    uint8_t *data = pool_take(&p, dr_weight_data_bytes(DR_W_I8, N_OUT, N_IN, PHASE));
    memset(value + 3 * N_IN + 78, 0, 128 * sizeof *value); /* a block of zeros: inputs 78 to 205 */
    for (int o = 0; o < N_OUT; o++)
        CU_ASSERT_EQUAL(dr_weight_quantise(&w, value + o * N_IN, NULL, code + o * N_IN, scale + o), -1);
    dr_weight_pack_rows(&w, data, 0, N_OUT, code, N_IN);
    w.data = data;
    w.scale = scale;
    int wrong = 0, full = 0;
    for (int o = 0; o < N_OUT; o++)
        for (int k = 0; k < N_IN; k++) {
            double most = 0, v = (double)value[o * N_IN + k];
            for (int i = 0; i < N_IN; i++)
                if ((PHASE + i) / 128 == (PHASE + k) / 128)
                    most = fmax(most, fabs((double)value[o * N_IN + i]));
            wrong += fabs((double)dr_weight_at(&w, o, k) - v) > most / 127 * 0.50001;
            full += code[o * N_IN + k] == 127 || code[o * N_IN + k] == -127;
            wrong += code[o * N_IN + k] == -128;
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_TRUE(full >= N_OUT * 3 - 1); /* the largest of each block takes the largest code */
    CU_ASSERT_EQUAL(scale[dr_weight_out_padded(N_OUT) + 3], 0);
    CU_ASSERT_EQUAL(dr_weight_at(&w, 3, 100), 0);
    static const float factor[] = {2, 3, 0.5f}; /* blocks of 78, 128 and 95 inputs */
    float *scaled = pool_take(&p, dr_weight_scale_bytes(DR_W_I8, N_OUT, N_IN, PHASE, 0));
    CU_ASSERT_EQUAL(dr_weight_quantise(&w, value, factor, code, scaled), -1);
    for (int b = 0; b < 3; b++) CU_ASSERT_EQUAL(scaled[b * 48], factor[b] * scale[b * 48]);
    value[79] = INFINITY;
    CU_ASSERT_EQUAL(dr_weight_quantise(&w, value, NULL, code, scale), 1);
    value[79] = 1;
    value[300] = NAN;
    CU_ASSERT_EQUAL(dr_weight_quantise(&w, value, NULL, code, scale), 2);
    pool_fini(&p);
}

/* Codes straight to integers: what decoding and rounding give, for every largest code. */
static void weight_quantised_f8(void) {
    struct pool p = {0};
    enum { N_OUT = 127, N_IN = 413, PHASE = 71 };
    struct dr_weight w = {.type = DR_W_I8, .n_out = N_OUT, .n_in = N_IN, .phase = PHASE};
    size_t bytes = dr_weight_scale_bytes(DR_W_I8, N_OUT, N_IN, PHASE, 0);
    float *value = pool_take(&p, N_IN * sizeof *value), *want_scale = pool_take(&p, bytes),
          *got_scale = pool_take(&p, bytes);
    int8_t *want = pool_take(&p, N_IN), *got = pool_take(&p, N_IN);
    uint8_t *row = pool_take(&p, N_IN);
    static const float factor[] = {0.25f, 3, 0, 1e-4f};
    for (int o = 0; o < N_OUT; o++) { /* sizes up to o: 0x7f never comes */
        for (int k = 0; k < N_IN; k++) {
            uint64_t draw = dr_rng_u64(4, (uint64_t)o, (uint64_t)k);
            row[k] = (uint8_t)((int)(draw % (uint64_t)(o + 1)) | (int)(draw >> 40 & 0x80));
        }
        for (int k = 0; k < N_IN; k++) value[k] = (float)decode_value(DR_W_F8, row, (size_t)k);
        CU_ASSERT_EQUAL(dr_weight_quantise(&w, value, factor, want, want_scale + o), -1);
        CU_ASSERT_EQUAL(dr_weight_quantise_f8(&w, row, factor, got, got_scale + o), -1);
        CU_ASSERT_EQUAL(memcmp(got, want, N_IN), 0);
    }
    CU_ASSERT_EQUAL(memcmp(got_scale, want_scale, bytes), 0);
    static const float huge[] = {1, INFINITY, 1, 1};
    CU_ASSERT_EQUAL(dr_weight_quantise_f8(&w, row, huge, got, got_scale), 1);
    pool_fini(&p);
}

static void weight_sizes(void) {
    CU_ASSERT_EQUAL(dr_weight_out_padded(1), 16);
    CU_ASSERT_EQUAL(dr_weight_out_padded(32), 32);
    CU_ASSERT_EQUAL(dr_weight_blocks(0, 5), 0);
    CU_ASSERT_EQUAL(dr_weight_blocks(1, 127), 1);
    CU_ASSERT_EQUAL(dr_weight_blocks(2, 127), 2);
    CU_ASSERT_EQUAL(dr_weight_blocks(256, 0), 2);
    CU_ASSERT_EQUAL(dr_weight_blocks(256, 1), 3);
    CU_ASSERT_EQUAL(dr_weight_data_bytes(DR_W_F8, 17, 3, 0), 128);
    CU_ASSERT_EQUAL(dr_weight_data_bytes(DR_W_F8, 17, 3, 2), 256); /* 2 zeros in front */
    CU_ASSERT_EQUAL(dr_weight_data_bytes(DR_W_F32, 17, 3, 2), 384);
    CU_ASSERT_EQUAL(dr_weight_scale_bytes(DR_W_F8, 17, 130, 0, 120), 64); /* 2 x 2 blocks */
    CU_ASSERT_EQUAL(dr_weight_scale_bytes(DR_W_I8, 17, 130, 0, 0), 256);
    CU_ASSERT_EQUAL(dr_weight_scale_bytes(DR_W_BF16, 17, 130, 0, 0), 0);
}

static CU_TestInfo cases[] = {
    {"all 254 F8 numbers decode exactly, here and in the kernels", weight_every_f8_code},
    {"all BF16 and F16 patterns decode exactly, with sign, infinity and NaN", weight_every_half},
    {"a slice anywhere puts each element and its block scale in place", weight_places},
    {"transposed packing puts source rows into inputs", weight_transposed},
    {"an F8 NaN is found wherever it is", weight_finds_nan},
    {"8-bit integers are within half a step of the value, with a scale an output and block",
     weight_quantised},
    {"F8 codes become the same integers without being decoded", weight_quantised_f8},
    {"sizes are padded to whole cells", weight_sizes},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_weight = {.pName = "kernels/weight", .pTests = cases};
