/* test_fast.c - products whose inputs are rounded: to 8-bit integers, to bfloat16.
 * In:   random matrices and rows.      Out: checks against scalar models of the rounded arithmetic, bit for
 * bit. Owns: nothing. Why:  --precision=fast must be one arithmetic on every instruction set, and invariant
 * in the batch. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

enum { COLS = 600, ROWS = 70 };

static bool is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

/* One output of an I8 slice: integer sums of a block, then one fma. */
static float int8_dot(const struct dr_weight *w, int32_t o, const float *x) {
    float total = 0;
    for (int32_t b = 0; b < dr_weight_blocks(w->n_in, w->phase); b++) {
        int32_t k0 = dr_weight_block_input(w, b), end = dr_weight_block_input(w, b + 1), sum = 0;
        float top = 0, scale = dr_weight_scale(w, b, o);
        for (int32_t k = k0; k < end; k++) top = fmaxf(top, fabsf(x[k]));
        float inverse = top > 0 ? 127.0f / top : 0;
        for (int32_t k = k0; k < end; k++) {
            float code = scale > 0 ? dr_weight_at(w, o, k) / scale : 0;
            sum += (int32_t)rintf(code) * (int32_t)rintf(x[k] * inverse);
        }
        total = fmaf((float)sum, top / 127.0f * scale, total);
    }
    return total;
}

/* Pairs at even absolute columns, the second input of a pair first. */
static float bf16_dot(const struct dr_weight *w, int32_t o, const float *x) {
    float total = 0;
    for (int32_t b = 0; b < dr_weight_blocks(w->n_in, w->phase); b++) {
        int32_t k0 = dr_weight_block_input(w, b), end = dr_weight_block_input(w, b + 1);
        struct dr_weight plain = *w;
        plain.scale = NULL;
        float s = 0;
        for (int32_t k = k0 - (w->phase + k0) % 2; k < end; k += 2)
            for (int32_t i = k + 1; i >= k; i--)
                if (i >= k0 && i < end) s = fmaf(dr_weight_at(&plain, o, i), round_bf16(x[i]), s);
        total = fmaf(s, dr_weight_scale(w, b, o), total);
    }
    return total;
}

static void linear(struct rig *r, const struct dr_weight *w, const float *x, int32_t n_tok, bool exact,
                   float *y) {
    struct pool p = {0};
    struct dr_linear a = {.y = y,
                          .x = x,
                          .w = w,
                          .n_tok = n_tok,
                          .y_stride = (size_t)w->n_out,
                          .x_stride = (size_t)w->n_in,
                          .exact = exact};
    rig_scratch(&p, dr_linear_scratch_bytes(n_tok < 50 ? n_tok : 50, w->n_in), &a.scratch, &a.scratch_bytes);
    CHECK_OK(r->ops->linear(&a, &r->stream));
    pool_fini(&p);
}

/* An I8 matrix with scales an output and block. */
static struct dr_weight int8_matrix(struct pool *p, int32_t n_out, int32_t n_in, int32_t phase) {
    struct dr_weight w = {.type = DR_W_I8, .n_out = n_out, .n_in = n_in, .phase = phase};
    size_t n = (size_t)n_out * (size_t)n_in;
    float *value = pool_floats(p, n, 77, 2);
    int8_t *code = pool_take(p, n);
    uint8_t *data = pool_take(p, dr_weight_data_bytes(DR_W_I8, n_out, n_in, phase));
    float *scale = pool_take(p, dr_weight_scale_bytes(DR_W_I8, n_out, n_in, phase, 0));
    for (int32_t o = 0; o < n_out; o++)
        CU_ASSERT_EQUAL(dr_weight_quantise(&w, value + (size_t)o * (size_t)n_in, NULL,
                                           code + (size_t)o * (size_t)n_in, scale + o),
                        -1);
    dr_weight_pack_rows(&w, data, 0, n_out, code, (size_t)n_in);
    w.data = data;
    w.scale = scale;
    return w;
}

static void int8_bits(void) {
    static const int32_t shape[][3] = {{1, 1, 0},      {16, 128, 0},  {70, 129, 1},
                                       {33, 301, 126}, {130, 512, 0}, {48, 7, 3}};
    for (int t = 0; t < RIG_FAST_COUNT; t++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
            struct pool p = {0};
            struct rig r = rig_init_fast(2, (enum rig_fast)t);
            struct dr_weight w = int8_matrix(&p, shape[i][0], shape[i][1], shape[i][2]);
            size_t n = (size_t)w.n_in, m = (size_t)w.n_out;
            float *x = pool_floats(&p, ROWS * n, 9, 3), *y = pool_take(&p, ROWS * m * sizeof *y);
            float *want = pool_take(&p, ROWS * m * sizeof *want);
            memset(x + 3 * n, 0, n * sizeof *x); /* a row of zeros */
            for (size_t row = 0; row < ROWS; row++)
                for (int32_t o = 0; o < w.n_out; o++)
                    want[row * m + (size_t)o] = int8_dot(&w, o, x + row * n);
            CU_ASSERT_TRUE(is(r.ops->int8_inputs, "int8"));
            for (int32_t rows = 1; rows <= ROWS; rows += rows < 16 ? 1 : 27) {
                memset(y, 0xff, ROWS * m * sizeof *y);
                linear(&r, &w, x, rows, false, y);
                CU_ASSERT_TRUE(same_floats(y, want, (size_t)rows * m));
            }
            rig_fini(&r);
            pool_fini(&p);
        }
}

static void int8_poison(void) {
    for (int t = 0; t < RIG_FAST_COUNT; t++) {
        struct pool p = {0};
        struct rig r = rig_init_fast(1, (enum rig_fast)t);
        struct dr_weight w = int8_matrix(&p, 20, 300, 0);
        float *x = pool_floats(&p, 6 * 300, 9, 3), y[6 * 20], clean[6 * 20];
        linear(&r, &w, x, 6, false, clean);
        x[1 * 300 + 5] = NAN;
        x[2 * 300 + 299] = INFINITY;
        x[4 * 300 + 130] = -INFINITY;
        for (int i = 0; i < 300; i++) x[5 * 300 + i] = 1e-42f; /* counts as zero */
        linear(&r, &w, x, 6, false, y);
        for (int o = 0; o < 20; o++) {
            CU_ASSERT_TRUE(isnan(y[20 + o]) && isnan(y[40 + o]) && isnan(y[80 + o]));
            CU_ASSERT_TRUE(y[100 + o] == 0);
        }
        CU_ASSERT_TRUE(same_floats(y, clean, 20) && same_floats(y + 60, clean + 60, 20));
        rig_fini(&r);
        pool_fini(&p);
    }
}

/* Native weights: bfloat16 where a table says so, else the bits of precision f32. */
static void native_bits(void) {
    static const int32_t shape[][4] = {/* row0, n_out, col0, n_in */
                                       {0, 1, 0, 1},
                                       {0, 64, 0, 128},
                                       {3, 77, 1, 129},
                                       {100, 33, 63, 300},
                                       {0, 130, 0, 512}};
    static const enum dr_wtype types[] = {DR_W_F8, DR_W_BF16};
    for (int t = 0; t < RIG_FAST_COUNT; t++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            for (int k = 0; k < 2; k++) {
                struct pool p = {0};
                struct rig r = rig_init_fast(2, (enum rig_fast)t);
                const int32_t *d = shape[i];
                struct matrix mat = matrix_random(&p, 5 + i, types[k], d[0] + d[1], COLS, true);
                struct dr_weight w = matrix_slice(&p, &mat, d[0], d[1], d[2], d[3]);
                size_t n = (size_t)w.n_in, m = (size_t)w.n_out;
                float *x = pool_floats(&p, ROWS * n, 9, 3), *y = pool_take(&p, ROWS * m * sizeof *y);
                float *want = pool_take(&p, ROWS * m * sizeof *want),
                      *exact = pool_take(&p, ROWS * m * sizeof *exact);
                bool rounded = is(r.ops->native_inputs, "bf16");
                for (size_t row = 0; row < ROWS; row++)
                    for (int32_t o = 0; o < w.n_out; o++) {
                        exact[row * m + (size_t)o] =
                            matrix_dot_ordered(&mat, d[0] + o, d[2], d[3], x + row * n);
                        want[row * m + (size_t)o] =
                            rounded ? bf16_dot(&w, o, x + row * n) : exact[row * m + (size_t)o];
                    }
                for (int32_t rows = 1; rows <= ROWS; rows += rows < 16 ? 1 : 27) {
                    linear(&r, &w, x, rows, false, y);
                    CU_ASSERT_TRUE(same_floats(y, want, (size_t)rows * m));
                }
                linear(&r, &w, x, ROWS, true, y); /* the router's inputs are never rounded */
                CU_ASSERT_TRUE(same_floats(y, exact, ROWS * m));
                rig_fini(&r);
                pool_fini(&p);
            }
}

static void isa_choice(void) {
    const struct dr_ops *ops = NULL;
    enum dr_isa here = dr_isa_here();
    CU_ASSERT_FATAL(here < DR_ISA_COUNT);
    printf("native instruction set: %s; sets above it run emulated in these tests\n", dr_isa_name(here));
    for (int isa = 0; isa < DR_ISA_COUNT; isa++) {
        dr_status st = dr_ops_x86((enum dr_isa)isa, DR_PRECISION_FAST, &ops);
        if (isa <= (int)here) {
            CU_ASSERT_EQUAL(st.code, DR_OK);
            CU_ASSERT_TRUE(is(ops->name, dr_isa_name((enum dr_isa)isa)));
            CU_ASSERT_EQUAL(is(ops->native_inputs, "bf16"), isa == DR_ISA_BF16);
        } else {
            CU_ASSERT_EQUAL(st.code, DR_EDEVICE);
            CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), dr_isa_name((enum dr_isa)isa)));
        }
    }
    CHECK_OK(dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_F32, &ops));
    CU_ASSERT_TRUE(is(ops->native_inputs, "f32") && is(ops->int8_inputs, "f32"));
}

static CU_TestInfo cases[] = {
    {"8-bit integers: any shape and number of rows gives the bits of the scalar model, on every set",
     int8_bits},
    {"8-bit integers: infinity and NaN make their row NaN, and no other", int8_poison},
    {"native weights: bfloat16 pairs in the promised order, or f32; the router always f32", native_bits},
    {"an instruction set that the processor lacks is refused by name", isa_choice},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_fast = {.pName = "kernels/fast", .pTests = cases};
