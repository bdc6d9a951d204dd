/* test_linear.c - products with packed matrices.
 * In:   random matrices and rows.      Out: checks against scalar fmaf in the promised order, bit for bit,
 * and against double. Owns: nothing. Why:  batch invariance of the whole model rests on this op. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

static void run(struct rig *r, const struct dr_weight *w, const float *x, size_t x_stride, int32_t n_tok,
                float *y, size_t y_stride, bool add) {
    struct pool p = {0};
    struct dr_linear a = {
        .y = y, .x = x, .w = w, .n_tok = n_tok, .y_stride = y_stride, .x_stride = x_stride, .add = add};
    /* room for a few rows only: many rows take several passes */
    rig_scratch(&p, dr_linear_scratch_bytes(n_tok < 37 ? n_tok + 1 : 37, w->n_in), &a.scratch,
                &a.scratch_bytes);
    CHECK_OK(r->ops->linear(&a, &r->stream));
    pool_fini(&p);
}

static void linear_promised_order_on(enum rig_table table) {
    static const int32_t shape[][4] = {/* row0, n_out, col0, n_in */
                                       {0, 1, 0, 1},       {0, 16, 0, 128},   {3, 17, 1, 129},
                                       {100, 33, 64, 300}, {127, 5, 127, 2},  {10, 40, 255, 7},
                                       {0, 130, 0, 512},   {77, 31, 200, 128}};
    struct rig r = rig_init_table(2, table);
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            for (int scaled = 0; scaled < 2; scaled++) {
                struct pool p = {0};
                const int32_t *d = shape[i];
                struct matrix m = matrix_random(&p, 5 + i, t, d[0] + d[1], 512, scaled);
                struct dr_weight w = matrix_slice(&p, &m, d[0], d[1], d[2], d[3]);
                float *x = pool_floats(&p, 3 * (size_t)d[3], 99, 2),
                      *y = pool_take(&p, 3 * (size_t)d[1] * sizeof *y);
                float *want = pool_take(&p, 3 * (size_t)d[1] * sizeof *want);
                double *exact = pool_take(&p, 3 * (size_t)d[1] * sizeof *exact);
                for (int32_t j = 0; j < 3 * d[1]; j++) {
                    const float *row = x + (size_t)(j / d[1]) * (size_t)d[3];
                    want[j] = matrix_dot_ordered(&m, d[0] + j % d[1], d[2], d[3], row);
                    exact[j] = matrix_dot(&m, d[0] + j % d[1], d[2], d[3], row);
                }
                run(&r, &w, x, (size_t)d[3], 3, y, (size_t)d[1], false);
                CU_ASSERT_TRUE(same_floats(y, want, 3 * (size_t)d[1]));
                /* 128 additions of terms up to 2 * 448 (F8), and 4 block sums: 2^-24 * 132 of their size */
                double size = t == DR_W_F8 || t == DR_W_I8 ? 2 * 448 * 16 : 2;
                CU_ASSERT_TRUE(near_double(y, exact, 3 * (size_t)d[1], 8e-6 * size, 0));
                pool_fini(&p);
            }
    rig_fini(&r);
}
RIG_ON_TABLES(linear_promised_order)

static void linear_batch_invariance_on(enum rig_table table) {
    struct rig one = rig_init_table(1, table);
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++) {
        struct pool p = {0};
        enum { N_OUT = 70, N_IN = 290, ROWS = 133 };
        struct matrix m = matrix_random(&p, 3, t, 100, 400, true);
        struct dr_weight w = matrix_slice(&p, &m, 25, N_OUT, 90, N_IN);
        float *x = pool_floats(&p, ROWS * N_IN, 4, 1), *alone = pool_take(&p, ROWS * N_OUT * sizeof *alone);
        float *y = pool_take(&p, ROWS * N_OUT * sizeof *y);
        for (size_t i = 0; i < ROWS; i++)
            run(&one, &w, x + i * N_IN, N_IN, 1, alone + i * N_OUT, N_OUT, false);
        for (int32_t size = 1; size <= 4; size++) {
            struct rig r = rig_init_table(size, table);
            for (int32_t n = 1; n <= ROWS; n += n < 64 ? 1 : 23) {
                memset(y, 0xff, ROWS * N_OUT * sizeof *y);
                run(&r, &w, x, N_IN, n, y, N_OUT, false);
                CU_ASSERT_TRUE(same_floats(y, alone, (size_t)n * N_OUT));
            }
            rig_fini(&r);
        }
        pool_fini(&p);
    }
    rig_fini(&one);
}
RIG_ON_TABLES(linear_batch_invariance)

static void
linear_cut_rows_on(enum rig_table table) { /* ranks that own output rows give the bits of the whole */
    struct rig r = rig_init_table(2, table);
    struct pool p = {0};
    struct matrix m = matrix_random(&p, 8, DR_W_F8, 301, 260, true);
    struct dr_weight whole = matrix_slice(&p, &m, 0, 301, 0, 260);
    float *x = pool_floats(&p, 5 * 260, 1, 1), *y = pool_take(&p, 5 * 301 * sizeof *y), part[5 * 301];
    run(&r, &whole, x, 260, 5, y, 301, false);
    for (int32_t row0 = 0, n; row0 < 301; row0 += n) {
        n = dr_min_i32(1 + row0 % 60, 301 - row0);
        struct dr_weight w = matrix_slice(&p, &m, row0, n, 0, 260);
        run(&r, &w, x, 260, 5, part, (size_t)n, false);
        for (size_t t = 0; t < 5; t++)
            CU_ASSERT_TRUE(same_floats(part + t * (size_t)n, y + t * 301 + row0, (size_t)n));
    }
    /* ranks that own input columns: every block keeps its scale, so the parts add up to the whole */
    double sum[301] = {0}, want[301];
    for (int32_t col0 = 0, n; col0 < 260; col0 += n) {
        n = dr_min_i32(50 + col0 % 41, 260 - col0);
        struct dr_weight w = matrix_slice(&p, &m, 0, 301, col0, n);
        run(&r, &w, x + col0, 260, 1, part, 301, false);
        for (int i = 0; i < 301; i++) sum[i] += (double)part[i];
    }
    for (int i = 0; i < 301; i++) want[i] = sum[i];
    CU_ASSERT_TRUE(near_double(y, want, 301, 1e-3, 1e-5));
    pool_fini(&p);
    rig_fini(&r);
}
RIG_ON_TABLES(linear_cut_rows)

static void linear_strides_and_add_on(enum rig_table table) {
    struct rig r = rig_init_table(2, table);
    struct pool p = {0};
    struct matrix m = matrix_random(&p, 9, DR_W_BF16, 19, 40, false);
    struct dr_weight w = matrix_slice(&p, &m, 0, 19, 0, 40);
    float *x = pool_floats(&p, 7 * 50, 1, 1), *y = pool_floats(&p, 7 * 30, 2, 1),
          *before = pool_take(&p, 7 * 30 * sizeof *y);
    memcpy(before, y, 7 * 30 * sizeof *y);
    run(&r, &w, x, 50, 7, y, 30, true);
    for (int t = 0; t < 7; t++)
        for (int o = 0; o < 30; o++) {
            float want = before[t * 30 + o];
            if (o < 19) want += matrix_dot_ordered(&m, o, 0, 40, x + t * 50);
            CU_ASSERT_EQUAL(y[t * 30 + o], want);
        }
    pool_fini(&p);
    rig_fini(&r);
}
RIG_ON_TABLES(linear_strides_and_add)

static void linear_outliers_on(enum rig_table table) {
    struct rig r = rig_init_table(2, table);
    struct pool p = {0};
    enum { N = 200 };
    struct matrix m = matrix_random(&p, 10, DR_W_BF16, 20, N, false);
    uint16_t inf = 0x7f80;
    memcpy(m.src + 2 * (3 * N + 100), &inf, 2); /* output 3, input 100 */
    struct dr_weight w = matrix_slice(&p, &m, 0, 20, 0, N);
    float *x = pool_floats(&p, 6 * N, 1, 1), *y = pool_take(&p, 6 * 20 * sizeof *y);
    x[1 * N + 7] = 1e30f;
    x[2 * N + 50] = NAN;
    x[3 * N + 100] = 0; /* 0 * inf */
    x[4 * N + 0] = INFINITY;
    run(&r, &w, x, N, 6, y, 20, false);
    for (int t = 0; t < 6; t++)
        for (int o = 0; o < 20; o++) {
            float want = matrix_dot_ordered(&m, o, 0, N, x + t * N), got = y[t * 20 + o];
            CU_ASSERT_TRUE(isnan(want) ? isnan(got) : got == want);
            if (t == 2 || (t == 3 && o == 3)) CU_ASSERT_TRUE(isnan(got));
            if (t == 1 || t == 0 || t == 5) CU_ASSERT_TRUE(!isnan(got) && !isinf(got) == (o != 3));
        }
    pool_fini(&p);
    rig_fini(&r);
}
RIG_ON_TABLES(linear_outliers)

static void linear_empty_on(enum rig_table table) {
    struct rig r = rig_init_table(2, table);
    struct pool p = {0};
    struct dr_weight w = {.type = DR_W_F8, .n_out = 5, .n_in = 0, .data = pool_take(&p, 64)};
    float y[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, x[1] = {0};
    run(&r, &w, x, 0, 0, y, 5, false);
    CU_ASSERT_EQUAL(y[0], 1); /* no token: nothing happens */
    run(&r, &w, x, 0, 1, y, 5, false);
    CU_ASSERT_EQUAL(y[0], 0); /* no input: the empty sum */
    CU_ASSERT_EQUAL(y[5], 1);
    pool_fini(&p);
    rig_fini(&r);
}
RIG_ON_TABLES(linear_empty)

static void linear_heads_on(enum rig_table table) {
    struct rig r = rig_init_table(3, table);
    struct pool p = {0};
    enum { H = 5, N_OUT = 23, N_IN = 37, T = 70 };
    struct matrix m = matrix_random(&p, 12, DR_W_F8, H * 40, N_IN, true);
    struct dr_weight w[H];
    for (int h = 0; h < H; h++) w[h] = matrix_slice(&p, &m, h * 40 + 11, N_OUT, 0, N_IN);
    float *x = pool_floats(&p, T * H * N_IN, 6, 1), *y = pool_take(&p, T * H * N_OUT * sizeof *y),
          want[N_OUT];
    for (int shared = 0; shared < 2; shared++) {
        struct dr_linear_heads a = {.y = y,
                                    .x = x,
                                    .w = w,
                                    .n_tok = T,
                                    .n_head = H,
                                    .y_stride = H * N_OUT,
                                    .y_head_stride = N_OUT,
                                    .x_stride = H * N_IN,
                                    .x_head_stride = shared ? 0 : N_IN};
        rig_scratch(&p, dr_linear_scratch_bytes(shared ? 9 : 9 * H, N_IN), &a.scratch, &a.scratch_bytes);
        CHECK_OK(r.ops->linear_heads(&a, &r.stream));
        for (size_t t = 0; t < T; t++)
            for (size_t h = 0; h < H; h++) {
                const float *row = x + t * a.x_stride + h * a.x_head_stride;
                for (int32_t o = 0; o < N_OUT; o++)
                    want[o] = matrix_dot_ordered(&m, (int32_t)h * 40 + 11 + o, 0, N_IN, row);
                CU_ASSERT_TRUE(same_floats(y + (t * H + h) * N_OUT, want, N_OUT));
            }
    }
    CHECK_OK(r.ops->linear_heads(&(struct dr_linear_heads){.n_tok = 0, .n_head = H, .w = w}, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}
RIG_ON_TABLES(linear_heads)

static CU_TestInfo cases[] = {
    {"every type, ragged shape and phase gives the bits of scalar fmaf in the promised order",
     linear_promised_order},
    {"a row alone and in batches of 1 to 133 on 1 to 4 threads gives the same bits", linear_batch_invariance},
    {"cuts by output rows keep the bits, cuts by input columns add up", linear_cut_rows},
    {"strides leave gaps untouched and add adds", linear_strides_and_add},
    {"outliers, infinities and NaN stay in their row", linear_outliers},
    {"no token does nothing and no input gives zeros", linear_empty},
    {"heads with own or shared inputs equal single products", linear_heads},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_linear = {.pName = "kernels/linear", .pTests = cases};
