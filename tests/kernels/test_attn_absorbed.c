/* test_attn_absorbed.c - attention in latent space.
 * In:   random caches and queries.      Out: checks against softmax in double, and bit for bit across
 * batches, threads, heads, scratch. Owns: nothing. Why:  the decode path; its splits, threads and pages must
 * not show. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

struct scene {
    struct dr_cache_view v;
    uint32_t *table[4]; /* of four sequences */
    float *rows;        /* decoded, [4][n_row][width]: what the cache holds */
    int32_t n_row, width;
};

/* Four sequences of n_row rows with interleaved pages. */
static struct scene make(struct pool *p, struct rig *r, enum dr_row_type type, int32_t lat, int32_t rope,
                         int32_t page_rows, int32_t n_row) {
    struct scene s = {.n_row = n_row, .width = lat + rope};
    int32_t n_page = dr_ceil_div(n_row, page_rows);
    size_t bytes = type == DR_ROW_F32 ? 4 * (size_t)s.width : 2 * (size_t)s.width;
    if (type == DR_ROW_FP8) bytes = (size_t)lat + 4 * (size_t)dr_ceil_div(lat, 128) + 2 * (size_t)rope;
    bytes = (bytes + 3) / 4 * 4;
    s.v = (struct dr_cache_view){.page_stride = (size_t)page_rows * bytes,
                                 .row_bytes = bytes,
                                 .type = type,
                                 .kv_lora = lat,
                                 .rope_dim = rope,
                                 .page_rows = page_rows};
    s.v.base = pool_take(p, 4 * (size_t)n_page * s.v.page_stride);
    s.rows = pool_take(p, 4 * (size_t)n_row * (size_t)s.width * sizeof(float));
    float *x = pool_floats(p, 4 * (size_t)n_row * (size_t)s.width, 77, 1);
    uint32_t *page = pool_take(p, (size_t)n_row * 4);
    int32_t *row = pool_take(p, (size_t)n_row * 4);
    for (int q = 0; q < 4; q++) {
        s.table[q] = pool_take(p, (size_t)n_page * 4);
        for (int32_t i = 0; i < n_page; i++) s.table[q][i] = (uint32_t)((n_page - 1 - i) * 4 + q);
        for (int32_t i = 0; i < n_row; i++) page[i] = s.table[q][i / page_rows], row[i] = i % page_rows;
        float *from = x + (size_t)q * (size_t)n_row * (size_t)s.width, *to = s.rows + (from - x);
        struct dr_cache_put put = {.cache = s.v,
                                   .latent = from,
                                   .k_pe = from + lat,
                                   .page = page,
                                   .row = row,
                                   .n_tok = n_row,
                                   .latent_stride = (size_t)s.width,
                                   .k_pe_stride = (size_t)s.width};
        CHECK_OK(r->ops->cache_put(&put, &r->stream));
        uint8_t *flat = pool_take(p, (size_t)n_row * bytes);
        size_t run = 0;
        CHECK_OK(r->ops->cache_gather(
            &(struct dr_cache_gather){.cache = s.v, .out = flat, .table = s.table[q], .n = n_row},
            &r->stream));
        CHECK_OK(r->ops->cache_unpack(
            &(struct dr_cache_unpack){.cache = s.v, .y = to, .in = flat, .run = &run, .c = 1, .n = n_row},
            &r->stream));
    }
    return s;
}

static void reference(const struct scene *s, int q, int32_t from, int32_t n, const float *u, double scale,
                      double *o, double *lse) {
    double max = -INFINITY, sum = 0, *score = pool_take(&(struct pool){0}, (size_t)n * sizeof(double) + 8);
    const float *rows = s->rows + (size_t)q * (size_t)s->n_row * (size_t)s->width;
    for (int32_t i = from; i < n; i++) {
        score[i] = 0;
        for (int32_t d = 0; d < s->width; d++) score[i] += (double)u[d] * (double)rows[i * s->width + d];
        score[i] *= scale;
        max = fmax(max, score[i]);
    }
    for (int32_t d = 0; d < s->v.kv_lora; d++) o[d] = 0;
    for (int32_t i = from; i < n; i++) {
        double w = exp(score[i] - max);
        sum += w;
        for (int32_t d = 0; d < s->v.kv_lora; d++) o[d] += w * (double)rows[i * s->width + d];
    }
    for (int32_t d = 0; d < s->v.kv_lora && n > from; d++) o[d] /= sum;
    *lse = n > from ? max + log(sum) : -INFINITY;
    struct pool one = {.at = {score}, .n = 1};
    pool_fini(&one);
}

static struct dr_attn_absorbed query(struct pool *p, const struct scene *s, int32_t n_tok, int32_t n_head,
                                     const int32_t *visible, int32_t split_rows) {
    const uint32_t **table = pool_take(p, (size_t)n_tok * sizeof *table);
    for (int32_t t = 0; t < n_tok; t++) table[t] = s->table[t % 4];
    return (struct dr_attn_absorbed){
        .o = pool_take(p, (size_t)n_tok * (size_t)n_head * (size_t)s->v.kv_lora * sizeof(float)),
        .lse = pool_take(p, (size_t)n_tok * (size_t)n_head * sizeof(float)),
        .u = pool_floats(p, (size_t)n_tok * (size_t)n_head * (size_t)s->width, 5, 1),
        .cache = s->v,
        .table = table,
        .n_visible = visible,
        .n_tok = n_tok,
        .n_head = n_head,
        .split_rows = split_rows,
        .scale = 0.3f};
}

static const int32_t lengths[] = {0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 511, 512, 513, 600};
enum { N_LENGTH = sizeof lengths / sizeof *lengths };

static void absorbed_formula(void) {
    struct rig r = rig_init(2);
    static const int32_t shape[][5] = {/* latents, rope, heads, page rows, split rows */
                                       {64, 16, 8, 64, 256},
                                       {150, 6, 19, 32, 128},
                                       {7, 3, 1, 22, 85},
                                       {512, 64, 2, 64, 256}};
    for (enum dr_row_type type = DR_ROW_F32; type <= DR_ROW_FP8; type++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
            struct pool p = {0};
            const int32_t *d = shape[i];
            struct scene s = make(&p, &r, type, d[0], d[1], d[3], 600);
            struct dr_attn_absorbed a = query(&p, &s, N_LENGTH, d[2], lengths, d[4]);
            a.from = i % 2; /* of half of them nobody sees row 0 */
            CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
            for (int32_t row = 0; row < N_LENGTH * d[2]; row++) {
                int32_t t = row / d[2];
                double o[512], lse;
                reference(&s, t % 4, a.from, lengths[t], a.u + row * s.width, (double)a.scale, o, &lse);
                /* scores of up to 576 terms: 1e-5 absolute at most, and weights follow scores */
                CU_ASSERT_TRUE(near_double(a.o + row * d[0], o, (size_t)d[0], 1e-5, 0));
                CU_ASSERT_TRUE(near_double(a.lse + row, &lse, 1, 1e-5, 1e-6));
            }
            pool_fini(&p);
        }
    rig_fini(&r);
}

static void promised_order(struct rig r, bool bf16) {
    static const int32_t split[] = {256, 128, 85};
    for (size_t i = 0; i < 3; i++) {
        struct pool p = {0};
        enum { H = 18, LAT = 50, ROPE = 6 };
        struct scene s = make(&p, &r, DR_ROW_FP8, LAT, ROPE, 22, 600);
        struct dr_attn_absorbed a = query(&p, &s, N_LENGTH, H, lengths, split[i]);
        CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
        for (int32_t row = 0; row < N_LENGTH * H; row += 5) {
            int32_t t = row / H;
            const float *rows = s.rows + (size_t)(t % 4) * 600 * (size_t)s.width;
            struct ordered want = {.max = -INFINITY, .bf16 = bf16};
            attention_ordered(&want, a.u + row * s.width, LAT, ROPE, rows, rows, (size_t)s.width, LAT, 0,
                              lengths[t], split[i], a.scale);
            float lse = attention_ordered_finish(&want, LAT);
            CU_ASSERT_TRUE(same_floats(a.o + row * LAT, want.o, LAT));
            CU_ASSERT_TRUE(same_floats(a.lse + row, &lse, 1));
        }
        pool_fini(&p);
    }
    rig_fini(&r);
}

static void absorbed_promised_order(void) {
    promised_order(rig_init(2), false);
    promised_order(rig_init_fast(2, RIG_FAST_BF16_SIMDE), true);
    if (rig_has_bf16()) promised_order(rig_init_fast(2, RIG_FAST_HERE), true);
}

static void absorbed_invariance(void) {
    struct pool p = {0};
    struct rig one = rig_init(1);
    enum { H = 21, LAT = 100, ROPE = 10 };
    struct scene s = make(&p, &one, DR_ROW_BF16, LAT, ROPE, 64, 600);
    struct dr_attn_absorbed a = query(&p, &s, N_LENGTH, H, lengths, 128);
    float *o = a.o, *lse = a.lse;
    CHECK_OK(one.ops->attn_absorbed(&a, &one.stream));
    a.o = pool_take(&p, N_LENGTH * H * LAT * sizeof *o);
    a.lse = pool_take(&p, N_LENGTH * H * sizeof *lse);
    for (int32_t size = 1; size <= 4; size++) {
        struct rig r = rig_init(size);
        for (int32_t n_split = 0; n_split <= 6;
             n_split++) { /* 0: no scratch; 2..: several rounds; 5: all splits */
            struct pool scratch = {0};
            a.scratch_bytes = n_split ? dr_attn_absorbed_scratch_bytes(1, H, LAT, n_split) : 0;
            a.scratch = n_split ? pool_take(&scratch, a.scratch_bytes) : NULL;
            for (int32_t t = 0; t < N_LENGTH; t++) { /* alone */
                struct dr_attn_absorbed b = a;
                b.u += (size_t)t * H * (LAT + ROPE);
                b.o += (size_t)t * H * LAT;
                b.lse += (size_t)t * H;
                b.table += t;
                b.n_visible += t;
                b.n_tok = 1;
                CHECK_OK(r.ops->attn_absorbed(&b, &r.stream));
            }
            CU_ASSERT_TRUE(same_floats(a.o, o, N_LENGTH * H * LAT));
            CU_ASSERT_TRUE(same_floats(a.lse, lse, N_LENGTH * H));
            memset(a.o, 0xff, N_LENGTH * H * LAT * sizeof *o);
            pool_fini(&scratch);
        }
        rig_fini(&r);
    }
    /* several rows of unequal length through scratch at once */
    struct rig many = rig_init(8);
    a.n_tok = 3;
    a.n_visible = lengths + 11; /* 257, 300, 511 */
    a.scratch_bytes = dr_attn_absorbed_scratch_bytes(3, H, LAT, 2);
    a.scratch = pool_take(&p, a.scratch_bytes);
    a.u += 11 * H * (LAT + ROPE);
    a.table += 11;
    CHECK_OK(many.ops->attn_absorbed(&a, &many.stream));
    CU_ASSERT_TRUE(same_floats(a.o, o + 11 * H * LAT, 3 * H * LAT));
    CU_ASSERT_TRUE(same_floats(a.lse, lse + 11 * H, 3 * H));
    rig_fini(&many);
    rig_fini(&one);
    pool_fini(&p);
}

static void absorbed_heads_are_independent(
    void) { /* a rank with heads [5, 22) computes what the whole computes for them */
    struct pool p = {0};
    struct rig r = rig_init(2);
    enum { H = 40, LAT = 33, ROPE = 4, WIDTH = LAT + ROPE, FIRST = 5, N = 17 };
    static const int32_t visible[] = {300, 70};
    struct scene s = make(&p, &r, DR_ROW_F32, LAT, ROPE, 64, 300);
    struct dr_attn_absorbed a = query(&p, &s, 2, H, visible, 256), b = query(&p, &s, 2, N, visible, 256);
    float *u = pool_take(&p, 2 * N * WIDTH * sizeof *u);
    for (size_t t = 0; t < 2; t++)
        memcpy(u + t * N * WIDTH, a.u + (t * H + FIRST) * WIDTH, N * WIDTH * sizeof *u);
    b.u = u;
    CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
    CHECK_OK(r.ops->attn_absorbed(&b, &r.stream));
    for (size_t t = 0; t < 2; t++) {
        CU_ASSERT_TRUE(same_floats(b.o + t * N * LAT, a.o + (t * H + FIRST) * LAT, N * LAT));
        CU_ASSERT_TRUE(same_floats(b.lse + t * N, a.lse + t * H + FIRST, N));
    }
    rig_fini(&r);
    pool_fini(&p);
}

static void
absorbed_members_merge(void) { /* positions dealt to c members, merged, equal the whole within rounding */
    struct pool p = {0};
    struct rig r = rig_init(2);
    enum { H = 4, LAT = 40, ROPE = 8, N = 500 };
    static const int32_t all[] = {N};
    struct scene s = make(&p, &r, DR_ROW_F32, LAT, ROPE, 64, N);
    struct dr_attn_absorbed whole = query(&p, &s, 1, H, all, 256);
    CHECK_OK(r.ops->attn_absorbed(&whole, &r.stream));
    double want[H * LAT];
    for (int i = 0; i < H * LAT; i++) want[i] = (double)whole.o[i];
    for (int32_t c = 2; c <= 3; c++) {
        const float *part_o[3], *part_lse[3];
        for (int32_t m = 0; m < c; m++) {
            int32_t *n = pool_take(&p, 4);
            struct dr_cache_view v = s.v; /* member m's rows, copied next to each other */
            v.page_rows = 512;
            v.base = pool_take(&p, 512 * v.row_bytes);
            for (int32_t i = m; i < N; i += c)
                memcpy(v.base + (size_t)(*n)++ * v.row_bytes,
                       s.v.base + s.table[0][i / 64] * s.v.page_stride + (size_t)(i % 64) * s.v.row_bytes,
                       v.row_bytes);
            struct dr_attn_absorbed a = query(&p, &s, 1, H, n, 128);
            static const uint32_t zero[1] = {0};
            const uint32_t *table = zero;
            a.cache = v;
            a.table = &table;
            CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
            part_o[m] = a.o;
            part_lse[m] = a.lse;
        }
        float o[H * LAT], lse[H];
        CHECK_OK(r.ops->attn_merge(&(struct dr_attn_merge){.o = o,
                                                           .lse = lse,
                                                           .part_o = part_o,
                                                           .part_lse = part_lse,
                                                           .c = c,
                                                           .n_tok = 1,
                                                           .n_head = H,
                                                           .dim = LAT},
                                   &r.stream));
        CU_ASSERT_TRUE(near_double(o, want, H * LAT, 3e-6, 0));
        for (int h = 0; h < H; h++) CU_ASSERT_TRUE(fabsf(lse[h] - whole.lse[h]) < 3e-6f);
    }
    rig_fini(&r);
    pool_fini(&p);
}

static void absorbed_hidden_rows(void) {
    struct pool p = {0};
    struct rig r = rig_init(1);
    enum { H = 3, LAT = 20, ROPE = 4, WIDTH = LAT + ROPE };
    static const int32_t visible[] = {70, 0, 71, 3};
    struct scene s = make(&p, &r, DR_ROW_F32, LAT, ROPE, 64, 128);
    struct dr_attn_absorbed a = query(&p, &s, 4, H, visible, 256), b = a;
    CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
    for (int q = 0; q < 4; q++) /* row 70 of every sequence becomes NaN: only the row that sees it changes */
        memset(s.v.base + s.table[q][1] * s.v.page_stride + 6 * s.v.row_bytes, 0xff, s.v.row_bytes);
    b.o = pool_take(&p, 4 * H * LAT * sizeof(float));
    b.lse = pool_take(&p, 4 * H * sizeof(float));
    CHECK_OK(r.ops->attn_absorbed(&b, &r.stream));
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < H * LAT; i++)
            CU_ASSERT_TRUE(t == 2 ? isnan(b.o[t * H * LAT + i])
                                  : b.o[t * H * LAT + i] == a.o[t * H * LAT + i]);
    for (int h = 0; h < H; h++) CU_ASSERT_TRUE(isnan(b.lse[2 * H + h]));
    for (int h = 0; h < H; h++) CU_ASSERT_EQUAL(a.lse[H + h], -INFINITY);
    for (int i = 0; i < H * LAT; i++) CU_ASSERT_EQUAL(a.o[H * LAT + i], 0);
    a.n_tok = 0;
    CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
    rig_fini(&r);
    pool_fini(&p);
}

static void absorbed_large_scores(void) { /* one key dominates by hundreds: its latent comes back */
    struct pool p = {0};
    struct rig r = rig_init(1);
    enum { LAT = 16, ROPE = 4 };
    static const int32_t visible[] = {600};
    struct scene s = make(&p, &r, DR_ROW_F32, LAT, ROPE, 64, 600);
    struct dr_attn_absorbed a = query(&p, &s, 1, 1, visible, 256);
    float *u = pool_take(&p, (LAT + ROPE) * sizeof *u);
    for (int d = 0; d < LAT + ROPE; d++) u[d] = s.rows[333 * (LAT + ROPE) + d] * 2000;
    a.u = u;
    CHECK_OK(r.ops->attn_absorbed(&a, &r.stream));
    double o[LAT], lse;
    reference(&s, 0, 0, 600, u, (double)a.scale, o, &lse);
    CU_ASSERT_TRUE(near_double(a.o, o, LAT, 1e-6, 0));
    CU_ASSERT_TRUE(near_double(a.lse, &lse, 1, 0, 1e-6));
    rig_fini(&r);
    pool_fini(&p);
}

static CU_TestInfo cases[] = {
    {"every cache type and length agrees with softmax in double", absorbed_formula},
    {"its additions come in the promised order, bit for bit", absorbed_promised_order},
    {"alone, on 1 to 4 threads, with any scratch, a row has the same bits", absorbed_invariance},
    {"a slice of heads has the bits of the whole", absorbed_heads_are_independent},
    {"parts of 2 and 3 members merge to the whole", absorbed_members_merge},
    {"hidden rows are never read, no visible row gives zeros and -inf", absorbed_hidden_rows},
    {"scores in the hundreds neither overflow nor vanish", absorbed_large_scores},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_attn_absorbed = {.pName = "kernels/attn_absorbed", .pTests = cases};
