/* test_cache.c - the latent cache: store, collect, widen.
 * In:   random latents.      Out: checks against formulas of the formats.
 * Owns: nothing.
 * Why:  a latent is rounded once, here; attention trusts every stored bit. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

enum { LAT = 300, ROPE = 12, WIDTH = LAT + ROPE, GROUPS = 3 };

static size_t used_bytes(enum dr_row_type type) {
    return type == DR_ROW_F32 ? 4 * WIDTH : type == DR_ROW_BF16 ? 2 * WIDTH : LAT + 4 * GROUPS + 2 * ROPE;
}

/* Member m of c with 8 pages of page_rows rows, two layers side by side in a page. */
static struct dr_cache_view make_view(struct pool *p, enum dr_row_type type, int32_t page_rows) {
    size_t row_bytes = (used_bytes(type) + 7) / 4 * 4;
    struct dr_cache_view v = {.page_stride = 2 * (size_t)page_rows * row_bytes,
                              .row_bytes = row_bytes,
                              .type = type,
                              .kv_lora = LAT,
                              .rope_dim = ROPE,
                              .page_rows = page_rows};
    v.base = pool_take(p, 8 * v.page_stride);
    memset(v.base, 0xee, 8 * v.page_stride);
    return v;
}

/* Nearest number with n_man mantissa bits, ties to even; step at least `least`. */
static double round_to(double x, int n_man, double least) {
    int e;
    frexp(x, &e);
    double step = fmax(ldexp(1, e - 1 - n_man), least);
    return nearbyint(x / step) * step;
}

/* What a stored latent must read back as. */
static double stored(enum dr_row_type type, const float *latent, const float *key, int32_t i) {
    double x = (double)(i < LAT ? latent[i] : key[i - LAT]);
    if (type == DR_ROW_F32) return x;
    if (type == DR_ROW_BF16 || i >= LAT) return round_to(x, 7, 0x1p-133);
    double most = 0;
    for (int32_t j = i / 128 * 128; j < LAT && j < i / 128 * 128 + 128; j++)
        most = fmax(most, fabs((double)latent[j]));
    double scale = most == 0 ? 1 : exp2(ceil(log2(most / 448)));
    return round_to(x / scale, 3, 0x1p-9) * scale;
}

static void cache_round_trip(void) {
    struct rig r = rig_init(3);
    for (enum dr_row_type type = DR_ROW_F32; type <= DR_ROW_FP8; type++)
        for (int32_t c = 1; c <= 3; c++) {
            struct pool p = {0};
            enum { N = 150 };
            int32_t page_rows = (64 + c - 1) / c, row[N];
            uint32_t page[N], table[8] = {6, 1, 7, 0, 5, 2, 3, 4};
            float *latent = pool_floats(&p, N * (LAT + 5), 1, 3),
                  *key = pool_floats(&p, N * (ROPE + 1), 2, 1);
            latent[0] = 1e-4f; /* a group of one small number among large ones, and a group of zeros */
            for (int i = 128; i < 256; i++) latent[2 * (LAT + 5) + i] = 0;
            size_t run[3], used = 0;
            struct dr_cache_view v = make_view(&p, type, page_rows);
            uint8_t *in = pool_take(&p, (size_t)(N + 3) * v.row_bytes);
            int32_t first = 10; /* unpack starts inside */
            for (int32_t m = 0; m < c; m++) {
                struct dr_cache_view mine = make_view(&p, type, page_rows);
                const uint8_t *other = mine.base;
                mine.base += (size_t)page_rows * mine.row_bytes; /* second layer */
                int32_t n_local = 0, skip = 0;
                for (int32_t t = 0; t < N; t++) {
                    bool here = t % c == m;
                    page[t] = here ? table[t / c / page_rows] : UINT32_MAX;
                    row[t] = t / c % page_rows;
                    n_local += here;
                    skip += here && t < first;
                }
                CHECK_OK(r.ops->cache_put(&(struct dr_cache_put){.cache = mine,
                                                                 .latent = latent,
                                                                 .k_pe = key,
                                                                 .page = page,
                                                                 .row = row,
                                                                 .n_tok = N,
                                                                 .latent_stride = LAT + 5,
                                                                 .k_pe_stride = ROPE + 1},
                                          &r.stream));
                run[m] = used;
                CHECK_OK(r.ops->cache_gather(
                    &(struct dr_cache_gather){
                        .cache = mine, .out = in + used, .table = table, .first = skip, .n = n_local - skip},
                    &r.stream));
                used += (size_t)(n_local - skip) * mine.row_bytes;
                /* the other layer of the page is untouched */
                for (size_t b = 0; b < (size_t)page_rows * mine.row_bytes; b++)
                    CU_ASSERT_EQUAL(other[b], 0xee);
            }
            float *y = pool_take(&p, (N - 10) * WIDTH * sizeof *y);
            CHECK_OK(r.ops->cache_unpack(
                &(struct dr_cache_unpack){
                    .cache = v, .y = y, .in = in, .run = run, .c = c, .first_pos = first, .n = N - first},
                &r.stream));
            for (int32_t i = 0; i < N - first; i++) {
                double want[WIDTH];
                const float *l = latent + (first + i) * (LAT + 5), *k = key + (first + i) * (ROPE + 1);
                for (int32_t j = 0; j < WIDTH; j++) want[j] = stored(type, l, k, j);
                CU_ASSERT_TRUE(near_double(y + i * WIDTH, want, WIDTH, 0, 0));
            }
            pool_fini(&p);
        }
    rig_fini(&r);
}

/* Puts one row at (page 0, row 0) and reads it back. */
static void one_row(struct rig *r, const struct dr_cache_view *v, const float *latent, const float *key,
                    float *y) {
    uint32_t page = 0;
    int32_t row = 0;
    size_t run = 0;
    CHECK_OK(r->ops->cache_put(&(struct dr_cache_put){.cache = *v,
                                                      .latent = latent,
                                                      .k_pe = key,
                                                      .page = &page,
                                                      .row = &row,
                                                      .n_tok = 1,
                                                      .latent_stride = LAT,
                                                      .k_pe_stride = ROPE},
                               &r->stream));
    CHECK_OK(r->ops->cache_unpack(
        &(struct dr_cache_unpack){.cache = *v, .y = y, .in = v->base, .run = &run, .c = 1, .n = 1},
        &r->stream));
}

static void cache_not_numbers(void) {
    struct rig r = rig_init(1);
    for (enum dr_row_type type = DR_ROW_F32; type <= DR_ROW_FP8; type++) {
        struct pool p = {0};
        struct dr_cache_view v = make_view(&p, type, 2);
        float *latent = pool_floats(&p, LAT, 1, 1), *key = pool_floats(&p, ROPE, 2, 1), y[WIDTH];
        latent[130] = NAN;
        latent[270] = INFINITY;
        key[3] = -INFINITY;
        one_row(&r, &v, latent, key, y);
        for (int i = 0; i < WIDTH; i++) {
            bool spoilt = type == DR_ROW_FP8 && i >= 128 && i < LAT; /* the groups of both */
            bool key_too = i == LAT + 3, wrong = !isfinite(y[i]);
            if (spoilt || i == 130)
                wrong = !isnan(y[i]);
            else if (i == 270 || key_too)
                wrong = y[i] != (key_too ? -INFINITY : INFINITY);
            CU_ASSERT_FALSE(wrong);
        }
        pool_fini(&p);
    }
    rig_fini(&r);
}

static void cache_fp8_is_stable(void) {
    struct rig r = rig_init(1);
    struct pool p = {0};
    struct dr_cache_view v = make_view(&p, DR_ROW_FP8, 2), b = make_view(&p, DR_ROW_BF16, 2);
    float *key = pool_floats(&p, ROPE, 2, 1), y[WIDTH], again[WIDTH];
    for (int e = -30; e <= 30; e += 3) {
        float *latent = pool_floats(&p, LAT, (uint64_t)(e + 100), ldexpf(1, e));
        one_row(&r, &v, latent, key, y);
        for (int g = 0; g < GROUPS; g++) {
            float scale;
            int exponent;
            memcpy(&scale, v.base + LAT + 4 * g, 4);
            CU_ASSERT_EQUAL(frexpf(scale, &exponent), 0.5f); /* a power of two */
        }
        one_row(&r, &b, y, y + LAT, again); /* an fp8 row is exact in bf16 ... */
        CU_ASSERT_TRUE(same_floats(again, y, WIDTH));
        one_row(&r, &v, y, y + LAT, again); /* ... and storing it again changes nothing */
        CU_ASSERT_TRUE(same_floats(again, y, WIDTH));
        for (size_t i = used_bytes(DR_ROW_FP8); i < v.row_bytes; i++) CU_ASSERT_EQUAL(v.base[i], 0);
    }
    float huge[LAT] = {3e38f, -3e38f, 1e-38f}; /* beyond the range of scales: saturates, vanishes */
    one_row(&r, &v, huge, key, y);
    CU_ASSERT_EQUAL(y[0], 448.0f * 0x1p100f);
    CU_ASSERT_EQUAL(y[1], -448.0f * 0x1p100f);
    CU_ASSERT_EQUAL(y[2], 0.0f);
    pool_fini(&p);
    rig_fini(&r);
}

static void cache_ties_go_to_even(void) {
    struct rig r = rig_init(1);
    struct pool p = {0};
    struct dr_cache_view f8 = make_view(&p, DR_ROW_FP8, 2), bf = make_view(&p, DR_ROW_BF16, 2);
    /* the largest number is 448 x 2^0 to the bit: scale 1, so the codes are E4M3 of the numbers themselves */
    static const float eight[][2] = {{448, 448},          {1.0625f, 1},        {1.1875f, 1.25f},
                                     {-1.0625f, -1},      {0x1p-10f, 0},       {0x3p-10f, 0x1p-8f},
                                     {0x5p-10f, 0x1p-8f}, {0xfp-10f, 0x1p-6f}, {0x1.0001p-10f, 0x1p-9f}};
    static const float half[][2] = {
        {1 + 0x1p-8f, 1}, {1 + 0x3p-8f, 1 + 0x1p-6f}, {-1 - 0x1p-8f, -1}, {1 + 0x1.02p-8f, 1 + 0x1p-7f}};
    float latent[LAT] = {0}, key[ROPE] = {0}, y[WIDTH], scale;
    for (size_t i = 0; i < sizeof eight / sizeof *eight; i++) latent[i] = eight[i][0];
    one_row(&r, &f8, latent, key, y);
    memcpy(&scale, f8.base + LAT, 4);
    CU_ASSERT_EQUAL(scale, 1);
    for (size_t i = 0; i < sizeof eight / sizeof *eight; i++) CU_ASSERT_EQUAL(y[i], eight[i][1]);
    for (size_t i = 0; i < sizeof half / sizeof *half; i++) latent[i] = half[i][0];
    one_row(&r, &bf, latent, key, y);
    for (size_t i = 0; i < sizeof half / sizeof *half; i++) CU_ASSERT_EQUAL(y[i], half[i][1]);
    pool_fini(&p);
    rig_fini(&r);
}

static void cache_empty(void) {
    struct rig r = rig_init(1);
    struct pool p = {0};
    struct dr_cache_view v = make_view(&p, DR_ROW_BF16, 2);
    uint32_t nowhere = UINT32_MAX;
    float x[LAT] = {0};
    int32_t row = 0;
    CHECK_OK(r.ops->cache_put(&(struct dr_cache_put){.cache = v}, &r.stream));
    CHECK_OK(r.ops->cache_put(
        &(struct dr_cache_put){.cache = v, .latent = x, .k_pe = x, .page = &nowhere, .row = &row, .n_tok = 1},
        &r.stream));
    CHECK_OK(r.ops->cache_gather(&(struct dr_cache_gather){.cache = v}, &r.stream));
    CHECK_OK(r.ops->cache_unpack(&(struct dr_cache_unpack){.cache = v, .c = 2}, &r.stream));
    for (size_t i = 0; i < 8 * v.page_stride; i++) CU_ASSERT_EQUAL(v.base[i], 0xee);
    pool_fini(&p);
    rig_fini(&r);
}

static CU_TestInfo cases[] = {
    {"put, gather and unpack return every row rounded once, for 1 to 3 members", cache_round_trip},
    {"NaN and infinity survive and spoil at most their group", cache_not_numbers},
    {"fp8 rows have power-of-two scales, are exact in bf16, and are stable", cache_fp8_is_stable},
    {"ties go to even in bf16, in E4M3 and in its subnormals", cache_ties_go_to_even},
    {"empty calls and rows of other members store nothing", cache_empty},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cache = {.pName = "kernels/cache", .pTests = cases};
