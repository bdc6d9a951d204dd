/* test_pointwise.c - embedding, RMSNorm, rotation, gate, sum.
 * In:   random rows.      Out: checks against the formulas in double, and bit for bit across batches and
 * threads. Owns: nothing. Why:  the small ops between the products. */
#include <float.h>

#include "tests/kernels/material.h"
#include "tests/support/runner.h"

static void embed_rows(void) {
    struct rig r = rig_init(3);
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++) {
        struct pool p = {0};
        enum { ROWS = 30, DIM = 37, FIRST = 1000, N = 40 };
        struct matrix m = matrix_random(&p, 2, t, ROWS, DIM, false);
        uint32_t ids[N];
        float *y = pool_take(&p, N * DIM * sizeof *y);
        double *want = pool_take(&p, N * DIM * sizeof *want);
        for (uint32_t i = 0; i < N; i++) ids[i] = FIRST - 5 + i;
        ids[0] = 0;
        ids[1] = UINT32_MAX;
        for (int i = 0; i < N; i++)
            for (int d = 0; d < DIM; d++) {
                int64_t row = (int64_t)ids[i] - FIRST;
                want[i * DIM + d] = row >= 0 && row < ROWS ? matrix_value(&m, (int32_t)row, d) : 0;
            }
        memset(y, 0xff, N * DIM * sizeof *y);
        CHECK_OK(r.ops->embed(&(struct dr_embed){.y = y,
                                                 .ids = ids,
                                                 .table = m.src,
                                                 .type = t,
                                                 .first = FIRST,
                                                 .n_row = ROWS,
                                                 .n_tok = N,
                                                 .dim = DIM},
                              &r.stream));
        CU_ASSERT_TRUE(near_double(y, want, N * DIM, 0, 0));
        pool_fini(&p);
    }
    rig_fini(&r);
}

static void rmsnorm_formula(void) {
    static const int32_t dims[] = {1, 7, 8, 9, 16, 100, 7168};
    struct rig r = rig_init(4), one = rig_init(1);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        struct pool p = {0};
        enum { T = 35 };
        size_t dim = (size_t)dims[i], gap = dim + 3;
        float *x = pool_floats(&p, T * gap, i, 3), *gain = pool_floats(&p, dim, 9, 2),
              *y = pool_take(&p, T * dim * sizeof *y);
        double *want = pool_take(&p, T * dim * sizeof *want);
        for (size_t d = 0; d < dim; d++) x[2 * gap + d] = 0;
        x[3 * gap] = 1e18f; /* its square leaves f32 only with many of them */
        x[4 * gap] = NAN;
        for (size_t t = 0; t < T; t++) {
            double sum = 0;
            for (size_t d = 0; d < dim; d++) sum += (double)x[t * gap + d] * (double)x[t * gap + d];
            for (size_t d = 0; d < dim; d++)
                want[t * dim + d] = (double)gain[d] * (double)x[t * gap + d] / sqrt(sum / (double)dim + 1e-6);
        }
        struct dr_rmsnorm a = {.y = y,
                               .x = x,
                               .gain = gain,
                               .n_tok = T,
                               .dim = dims[i],
                               .y_stride = dim,
                               .x_stride = gap,
                               .eps = 1e-6f};
        CHECK_OK(r.ops->rmsnorm(&a, &r.stream));
        CU_ASSERT_TRUE(near_double(y, want, T * dim, 1e-30, 3e-7)); /* three roundings */
        for (size_t t = 0; t < T; t++) {                            /* alone, in place */
            struct dr_rmsnorm alone = a;
            alone.y = x + t * gap;
            alone.x = x + t * gap;
            alone.n_tok = 1;
            CHECK_OK(one.ops->rmsnorm(&alone, &one.stream));
            CU_ASSERT_TRUE(same_floats(x + t * gap, y + t * dim, dim));
        }
        a.n_tok = 0;
        CHECK_OK(r.ops->rmsnorm(&a, &r.stream));
        pool_fini(&p);
    }
    rig_fini(&r);
    rig_fini(&one);
}

static void rope_rotates_pairs(void) {
    struct rig r = rig_init(2);
    struct pool p = {0};
    enum { T = 20, H = 3, PAIRS = 8, WIDTH = 24, STRIDE = H * WIDTH + 5 };
    int32_t pos[T];
    double freq[PAIRS];
    float *cs = pool_take(&p, T * PAIRS * sizeof *cs), *sn = pool_take(&p, T * PAIRS * sizeof *sn);
    float *x = pool_floats(&p, T * STRIDE, 3, 2), *before = pool_take(&p, T * STRIDE * sizeof *x);
    memcpy(before, x, T * STRIDE * sizeof *x);
    for (int t = 0; t < T; t++) pos[t] = t * t * 4001; /* to 1.4 million: f32 angles would be off by 0.1 */
    for (int i = 0; i < PAIRS; i++) freq[i] = pow(10000, -2.0 * i / (2 * PAIRS));
    CHECK_OK(r.ops->rope_angles(
        &(struct dr_rope_angles){
            .cos = cs, .sin = sn, .pos = pos, .freq = freq, .n_tok = T, .n_pair = PAIRS, .gain = 1.25},
        &r.stream));
    CHECK_OK(r.ops->rope(&(struct dr_rope){.x = x + 4,
                                           .cos = cs,
                                           .sin = sn,
                                           .n_tok = T,
                                           .n_head = H,
                                           .n_pair = PAIRS,
                                           .x_stride = STRIDE,
                                           .x_head_stride = WIDTH},
                         &r.stream));
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++)
            for (int i = 0; i < PAIRS; i++) {
                double angle = pos[t] * freq[i], c = cos(angle) * 1.25, s = sin(angle) * 1.25;
                size_t at = (size_t)(t * STRIDE + 4 + h * WIDTH + 2 * i);
                double a = (double)before[at], b = (double)before[at + 1];
                CU_ASSERT_TRUE(fabs((double)x[at] - (a * c - b * s)) < 1e-6);
                CU_ASSERT_TRUE(fabs((double)x[at + 1] - (b * c + a * s)) < 1e-6);
            }
    for (int t = 0; t < T; t++)
        for (int i = 0; i < STRIDE; i++) {
            int in_head = (i - 4) % WIDTH;
            if (i < 4 || i - 4 >= H * WIDTH || in_head >= 2 * PAIRS)
                CU_ASSERT_EQUAL(x[t * STRIDE + i], before[t * STRIDE + i]);
        }
    pool_fini(&p);
    rig_fini(&r);
}

static void add_arrays(void) {
    struct rig r = rig_init(4);
    struct pool p = {0};
    enum { N = 50001 };
    float *y = pool_floats(&p, N, 1, 1), *x = pool_floats(&p, N, 2, 1),
          *want = pool_take(&p, N * sizeof *want);
    for (int i = 0; i < N; i++) want[i] = y[i] + x[i];
    CHECK_OK(r.ops->add(&(struct dr_add){.y = y, .x = x, .n = N}, &r.stream));
    CU_ASSERT_TRUE(same_floats(y, want, N));
    CHECK_OK(r.ops->add(&(struct dr_add){.n = 0}, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}

/* One bad value anywhere in a row, of each kind, between rows of the largest numbers and padding that is bad.
 */
static void finite_rows(void) {
    struct rig r = rig_init(4);
    struct pool p = {0};
    enum { T = 37, DIM = 101, STRIDE = 104 };
    static const float values[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, FLT_MIN / 4};
    float *x = pool_floats(&p, T * STRIDE, 1, 1);
    uint8_t *bad = pool_take(&p, T);
    for (int t = 0; t < T; t++) {
        for (int i = DIM; i < STRIDE; i++) x[t * STRIDE + i] = NAN;
        if (t % 7 < 6) x[t * STRIDE + t * 13 % DIM] = values[t % 7];
    }
    CHECK_OK(r.ops->finite(&(struct dr_finite){.bad = bad, .x = x, .n_tok = T, .dim = DIM, .stride = STRIDE},
                           &r.stream));
    for (int t = 0; t < T; t++) CU_ASSERT_EQUAL(bad[t], t % 7 < 3);
    pool_fini(&p);
    rig_fini(&r);
}

static CU_TestInfo cases[] = {
    {"owned ids give their row in every type and others give zeros", embed_rows},
    {"RMSNorm follows its formula, alone and in place with the same bits", rmsnorm_formula},
    {"rotation turns interleaved pairs by f64 angles and touches nothing else", rope_rotates_pairs},
    {"the sum of arrays is the sum", add_arrays},
    {"rows with an infinity or a NaN are named, others not", finite_rows},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_pointwise = {.pName = "kernels/pointwise", .pTests = cases};
