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
    uint8_t *data = pool_take(&p, dr_weight_data_bytes(DR_W_F8, 254, 1));
    int n = 0;
    for (int c = 0; c < 256; c++)
        if ((c & 0x7f) != 0x7f) code[n++] = (uint8_t)c;
    CU_ASSERT_EQUAL(n, 254);
    CHECK_OK(dr_weight_pack_rows(&w, data, 0, 254, code, 1));
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
        &r.stream));
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
                size_t place = ((size_t)(o / 16) * 250 + (size_t)k) * 16 + (size_t)(o % 16);
                wrong += dr_weight_at(&w, o, k) != want;
                wrong += memcmp((const uint8_t *)w.data + place * bytes,
                                src + (size_t)o * stride + (size_t)k * bytes, bytes) != 0;
            }
        CU_ASSERT_EQUAL(wrong, 0);
        /* rows packed in any pieces give the same bytes */
        size_t total = dr_weight_data_bytes(t, 101, 250);
        uint8_t *again = pool_take(&p, total);
        for (int32_t row = 0, n; row < 101; row += n) {
            n = dr_min_i32(1 + row % 23, 101 - row);
            CHECK_OK(dr_weight_pack_rows(&w, again, row, n, src + (size_t)row * stride, stride));
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
        uint8_t *data = pool_take(&p, dr_weight_data_bytes(t, 75, 40));
        CHECK_OK(dr_weight_pack_cols(&w, data, 0, 13, m.src, stride));
        CHECK_OK(dr_weight_pack_cols(&w, data, 13, 27, m.src + 13 * stride, stride));
        w.data = data;
        int wrong = 0;
        for (int32_t o = 0; o < 75; o++)
            for (int32_t k = 0; k < 40; k++)
                wrong += (double)dr_weight_at(&w, o, k) != matrix_value(&m, k, o);
        CU_ASSERT_EQUAL(wrong, 0);
        pool_fini(&p);
    }
}

static void weight_refuses_nan(void) {
    uint8_t src[6 * 9] = {0}, data[1024] = {0};
    struct dr_weight w = {.type = DR_W_F8, .n_out = 6, .n_in = 9};
    src[4 * 9 + 7] = 0x7f;
    CU_ASSERT_EQUAL(dr_weight_pack_rows(&w, data, 0, 6, src, 9).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "row 4, column 7"));
    CU_ASSERT_EQUAL(dr_weight_pack_rows(&w, data, 4, 1, src + 4 * 9, 9).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "row 4, column 7"));
    src[4 * 9 + 7] = 0xff;
    struct dr_weight across = {.type = DR_W_F8, .n_out = 9, .n_in = 8};
    CU_ASSERT_EQUAL(dr_weight_pack_cols(&across, data, 2, 6, src, 9).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "row 6, column 7"));
}

static void weight_sizes(void) {
    CU_ASSERT_EQUAL(dr_weight_out_padded(1), 16);
    CU_ASSERT_EQUAL(dr_weight_out_padded(32), 32);
    CU_ASSERT_EQUAL(dr_weight_blocks(0, 5), 0);
    CU_ASSERT_EQUAL(dr_weight_blocks(1, 127), 1);
    CU_ASSERT_EQUAL(dr_weight_blocks(2, 127), 2);
    CU_ASSERT_EQUAL(dr_weight_blocks(256, 0), 2);
    CU_ASSERT_EQUAL(dr_weight_blocks(256, 1), 3);
    CU_ASSERT_EQUAL(dr_weight_data_bytes(DR_W_F8, 17, 3), 128);
    CU_ASSERT_EQUAL(dr_weight_data_bytes(DR_W_F32, 17, 3), 384);
    CU_ASSERT_EQUAL(dr_weight_scale_bytes(17, 130, 0), 256);
}

static CU_TestInfo cases[] = {
    {"all 254 F8 numbers decode exactly, here and in the kernels", weight_every_f8_code},
    {"all BF16 and F16 patterns decode exactly, with sign, infinity and NaN", weight_every_half},
    {"a slice anywhere puts each element and its block scale in place", weight_places},
    {"transposed packing puts source rows into inputs", weight_transposed},
    {"an F8 NaN is refused with its row and column", weight_refuses_nan},
    {"sizes are padded to 16 outputs and 64 bytes", weight_sizes},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_weight = {.pName = "kernels/weight", .pTests = cases};
