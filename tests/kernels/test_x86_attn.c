/* test_x86_attn.c - the fast forms of attention, bit for bit.
 * In:   random caches, keys and queries of ragged shapes, some of them NaN and infinite.
 * Out:  checks that every table of precision f32 gives the oracle's bits, and that bfloat16 gives its own
 * (whose sums are checked by test_attn_absorbed.c and test_attn_expanded.c).
 * Owns: nothing.
 * Why:  tiles, groups of queries, threads and vector widths must not show in a result. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

/* Beyond rig_table: AVX2 also where the processor has more; bfloat16. */
enum { TABLE_AVX2 = RIG_TABLE_COUNT, TABLE_BF16_SIMDE, TABLE_BF16_HERE };

/* Tables with the bits of a reference, which runs with one thread. */
static const struct group {
    int reference, first, last;
} groups[] = {{RIG_ORACLE, RIG_HERE, TABLE_AVX2}, {TABLE_BF16_SIMDE, TABLE_BF16_SIMDE, TABLE_BF16_HERE}};
enum { N_GROUP = 2 };

static struct rig rig_of(int table, int32_t n_thread) {
    if (table < RIG_TABLE_COUNT) return rig_init_table(n_thread, (enum rig_table)table);
    if (table == TABLE_AVX2) return rig_init_fast(n_thread, RIG_FAST_AVX2);
    bool here = table == TABLE_BF16_HERE && rig_has_bf16();
    return rig_init_fast(n_thread, here ? RIG_FAST_HERE : RIG_FAST_BF16_SIMDE);
}

/* Equal bits, or NaN both: which NaN is nobody's promise. */
static bool same_numbers(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!(isnan(a[i]) && isnan(b[i])) && !same_floats(a + i, b + i, 1)) {
            printf("at %zu of %zu\n", i, n);
            return false;
        }
    return true;
}

/* --- absorbed --- */

static const int32_t lengths[] = {0, 1, 2, 47, 48, 49, 63, 64, 65, 127, 129, 255, 256, 257, 300, 513, 600};
enum { N_LENGTH = sizeof lengths / sizeof *lengths, N_ROW = 600 };

struct shape {
    int32_t lat, rope, heads, page_rows, split_rows;
};
static const struct shape shapes[] = {
    {64, 16, 8, 64, 256}, {150, 6, 19, 32, 128},  {7, 3, 1, 22, 85},     {512, 64, 16, 64, 256},
    {33, 64, 64, 64, 64}, {140, 8, 70, 66, 256},  {256, 130, 33, 64, 1}, {16, 2, 130, 64, 256},
    {40, 8, 24, 64, 200}, {128, 129, 5, 64, 255},
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

/* Two sequences in interleaved pages; with poison, row 50 of the first holds a NaN and row 70 infinities, and
 * row 0, which nobody sees then, a NaN. */
static struct dr_attn_absorbed make_absorbed(struct pool *p, struct rig *r, const struct shape *d,
                                             enum dr_row_type type, bool poison) {
    int32_t width = d->lat + d->rope, n_page = dr_ceil_div(N_ROW, d->page_rows);
    size_t bytes = type == DR_ROW_F32 ? 4 * (size_t)width : 2 * (size_t)width;
    if (type == DR_ROW_FP8) bytes = (size_t)(d->lat + 4 * dr_ceil_div(d->lat, 128) + 2 * d->rope);
    bytes = (bytes + 3) / 4 * 4;
    struct dr_cache_view v = {.page_stride = (size_t)d->page_rows * bytes,
                              .row_bytes = bytes,
                              .type = type,
                              .kv_lora = d->lat,
                              .rope_dim = d->rope,
                              .page_rows = d->page_rows};
    v.base = pool_take(p, 2 * (size_t)n_page * v.page_stride);
    const uint32_t **table = pool_take(p, N_LENGTH * sizeof *table);
    uint32_t *page = pool_take(p, N_ROW * sizeof *page), *pages[2];
    int32_t *row = pool_take(p, N_ROW * sizeof *row);
    for (uint32_t q = 0; q < 2; q++) {
        float *x = pool_floats(p, (size_t)N_ROW * (size_t)width, 77 + q, 1);
        if (poison && q == 0) {
            x[0] = x[50 * width + d->lat - 1] = NAN;
            x[70 * width] = INFINITY;
            x[70 * width + width - 1] = -INFINITY;
        }
        pages[q] = pool_take(p, (size_t)n_page * sizeof *pages[q]);
        for (int32_t i = 0; i < n_page; i++) pages[q][i] = 2 * (uint32_t)(n_page - 1 - i) + q;
        for (int32_t i = 0; i < N_ROW; i++) page[i] = pages[q][i / d->page_rows], row[i] = i % d->page_rows;
        CHECK_OK(r->ops->cache_put(&(struct dr_cache_put){.cache = v,
                                                          .latent = x,
                                                          .k_pe = x + d->lat,
                                                          .page = page,
                                                          .row = row,
                                                          .n_tok = N_ROW,
                                                          .latent_stride = (size_t)width,
                                                          .k_pe_stride = (size_t)width},
                                   &r->stream));
    }
    for (int32_t t = 0; t < N_LENGTH; t++) table[t] = pages[t % 2];
    size_t rows = (size_t)N_LENGTH * (size_t)d->heads;
    return (struct dr_attn_absorbed){.o = pool_take(p, rows * (size_t)d->lat * sizeof(float)),
                                     .lse = pool_take(p, rows * sizeof(float)),
                                     .u = pool_floats(p, rows * (size_t)width, 5, 1),
                                     .cache = v,
                                     .table = table,
                                     .n_visible = lengths,
                                     .n_tok = N_LENGTH,
                                     .n_head = d->heads,
                                     .split_rows = d->split_rows,
                                     .from = poison,
                                     .scale = 0.3f};
}

/* The op in fresh outputs, which must be those of `want`. */
static void expect_absorbed(struct rig *r, const struct dr_attn_absorbed *want, int32_t first, int32_t n_tok,
                            int32_t n_split) {
    struct pool p = {0};
    struct dr_attn_absorbed a = *want;
    size_t skip = (size_t)first * (size_t)a.n_head, rows = (size_t)n_tok * (size_t)a.n_head,
           lat = (size_t)a.cache.kv_lora, width = lat + (size_t)a.cache.rope_dim;
    a.n_tok = n_tok;
    a.o = pool_take(&p, rows * lat * sizeof(float));
    a.lse = pool_take(&p, rows * sizeof(float));
    memset(a.o, 0xff, rows * lat * sizeof(float)); /* whatever is there is overwritten */
    memset(a.lse, 0xff, rows * sizeof(float));
    a.u += skip * width;
    a.table += first;
    a.n_visible += first;
    if (n_split > 0)
        rig_scratch(&p, dr_attn_absorbed_scratch_bytes(n_tok, a.n_head, a.cache.kv_lora, n_split), &a.scratch,
                    &a.scratch_bytes);
    CHECK_OK(r->ops->attn_absorbed(&a, &r->stream));
    CU_ASSERT_TRUE(same_numbers(a.o, want->o + skip * lat, rows * lat));
    CU_ASSERT_TRUE(same_numbers(a.lse, want->lse + skip, rows));
    pool_fini(&p);
}

static void absorbed_bits_of(struct group g) {
    struct rig reference = rig_of(g.reference, 1);
    for (enum dr_row_type type = DR_ROW_F32; type <= DR_ROW_FP8; type++)
        for (int i = 0; i < N_SHAPE; i++)
            for (int poison = 0; poison < 2; poison++) {
                struct pool p = {0};
                struct dr_attn_absorbed a = make_absorbed(&p, &reference, &shapes[i], type, poison == 1);
                CHECK_OK(reference.ops->attn_absorbed(&a, &reference.stream));
                for (int t = g.first; t <= g.last; t++) {
                    struct rig r = rig_of(t, 1 + i % 2);
                    expect_absorbed(&r, &a, 0, N_LENGTH, 0);
                    rig_fini(&r);
                }
                pool_fini(&p);
            }
    rig_fini(&reference);
}

static void absorbed_bits(void) {
    for (int g = 0; g < N_GROUP; g++) absorbed_bits_of(groups[g]);
}

static void absorbed_division_of(struct group g) {
    struct rig reference = rig_of(g.reference, 1);
    static const struct shape some[] = {{50, 6, 18, 22, 85}, {70, 8, 100, 64, 128}};
    for (int i = 0; i < 2; i++) {
        struct pool p = {0};
        struct dr_attn_absorbed a = make_absorbed(&p, &reference, &some[i], DR_ROW_BF16, false);
        CHECK_OK(reference.ops->attn_absorbed(&a, &reference.stream));
        for (int t = g.first; t <= g.last; t++)
            for (int32_t size = 1; size <= 4; size++) {
                struct rig r = rig_of(t, size);
                for (int32_t n_split = 0; n_split <= 8; n_split += n_split < 3 ? 1 : 5) {
                    for (int32_t token = 0; token < N_LENGTH; token += 2)
                        expect_absorbed(&r, &a, token, 1, n_split);
                    expect_absorbed(&r, &a, 11, 3, n_split); /* of unequal lengths */
                }
                expect_absorbed(&r, &a, 0, N_LENGTH, 0);
                rig_fini(&r);
            }
        pool_fini(&p);
    }
    rig_fini(&reference);
}

static void absorbed_division(void) {
    for (int g = 0; g < N_GROUP; g++) absorbed_division_of(groups[g]);
}

static void absorbed_empty(void) {
    struct rig reference = rig_init(1);
    struct pool p = {0};
    struct dr_attn_absorbed a = make_absorbed(&p, &reference, &shapes[0], DR_ROW_F32, false);
    CHECK_OK(reference.ops->attn_absorbed(&a, &reference.stream));
    for (int t = RIG_HERE; t <= TABLE_BF16_HERE; t++) {
        struct rig r = rig_of(t, 2);
        struct dr_attn_absorbed none = a;
        none.n_tok = 0;
        CHECK_OK(r.ops->attn_absorbed(&none, &r.stream));
        expect_absorbed(&r, &a, 0, 1, 2); /* no visible row: zeros and, below, -inf */
        float o[64 * 8], lse[8];
        none.n_tok = 1;
        none.o = o;
        none.lse = lse;
        CHECK_OK(r.ops->attn_absorbed(&none, &r.stream));
        for (int h = 0; h < 8; h++) CU_ASSERT_TRUE(lse[h] == -INFINITY && o[h * 64 + 5] == 0);
        rig_fini(&r);
    }
    rig_fini(&reference);
    pool_fini(&p);
}

/* --- expanded --- */

enum { N_TOK = 150, N_KEY = 600 };

struct dims {
    int32_t heads, nope, rope, v;
};
static const struct dims dims[] = {{1, 128, 64, 128}, {3, 21, 6, 37}, {2, 130, 8, 150}, {5, 16, 129, 16}};
enum { N_DIMS = sizeof dims / sizeof *dims };

enum positions { CONSECUTIVE, EARLY, SCATTERED, N_POSITIONS };

static struct dr_attn_expanded make_expanded(struct pool *p, const struct dims *d, enum positions kind) {
    size_t h = (size_t)d->heads, qk = (size_t)(d->nope + d->rope), v = (size_t)d->v;
    int32_t *pos = pool_take(p, N_TOK * sizeof *pos);
    for (int32_t t = 0; t < N_TOK; t++)
        pos[t] = kind == CONSECUTIVE ? N_KEY - N_TOK + t : kind == EARLY ? t : (t * 7919 + 13) % (N_KEY + 50);
    struct dr_attn_expanded a = {.q = pool_floats(p, N_TOK * (h * qk + 1), 1, 1),
                                 .k = pool_floats(p, N_KEY * h * (size_t)d->nope, 2, 1),
                                 .k_pe = pool_floats(p, N_KEY * ((size_t)d->rope + 2), 3, 1),
                                 .v = pool_floats(p, N_KEY * h * v, 4, 1),
                                 .pos = pos,
                                 .n_tok = N_TOK,
                                 .n_head = d->heads,
                                 .nope_dim = d->nope,
                                 .rope_dim = d->rope,
                                 .v_dim = d->v,
                                 .q_stride = h * qk + 1,
                                 .k_pe_stride = (size_t)d->rope + 2,
                                 .scale = 0.7f};
    return a;
}

/* Pieces whose borders are nowhere special, one after the other into o and lse; tokens [first, first + n). */
static void run_pieces(struct rig *r, struct dr_attn_expanded a, int32_t first, int32_t n, float *o,
                       float *lse) {
    static const int32_t border[] = {0, 100, 101, 433, N_KEY};
    size_t t = (size_t)first, h = (size_t)a.n_head;
    const float *k = a.k, *k_pe = a.k_pe, *v = a.v;
    a.n_tok = n;
    a.q += t * a.q_stride;
    a.pos += t;
    a.o = o + t * h * (size_t)a.v_dim;
    a.lse = lse + t * h;
    for (int i = 0; i < 4; i++) {
        size_t key = (size_t)border[i];
        a.start = i == 0;
        a.first_key = border[i];
        a.n_key = border[i + 1] - border[i];
        a.k = k + key * h * (size_t)a.nope_dim;
        a.k_pe = k_pe + key * a.k_pe_stride;
        a.v = v + key * h * (size_t)a.v_dim;
        CHECK_OK(r->ops->attn_expanded(&a, &r->stream));
    }
}

static void expanded_bits_of(struct group g) {
    struct rig reference = rig_of(g.reference, 1);
    for (int i = 0; i < N_DIMS * N_POSITIONS * 2; i++) {
        struct pool p = {0};
        const struct dims *d = &dims[i % N_DIMS];
        struct dr_attn_expanded a = make_expanded(&p, d, (enum positions)(i / N_DIMS % N_POSITIONS));
        size_t h = (size_t)d->heads, rows = N_TOK * h, n = rows * (size_t)d->v;
        float *want = pool_take(&p, n * sizeof *want), *got = pool_take(&p, n * sizeof *got);
        float *want_lse = pool_take(&p, rows * sizeof *want_lse),
              *got_lse = pool_take(&p, rows * sizeof *got_lse);
        if (i >= N_DIMS * N_POSITIONS) { /* later keys that are not numbers reach no earlier token */
            ((float *)(void *)(uintptr_t)a.k)[90 * h * (size_t)d->nope] = INFINITY;
            ((float *)(void *)(uintptr_t)a.v)[120 * h * (size_t)d->v] = NAN;
            ((float *)(void *)(uintptr_t)a.v)[0] = NAN; /* of position 0, which nobody sees */
            a.from = 1;
        }
        run_pieces(&reference, a, 0, N_TOK, want, want_lse);
        for (int t = g.first; t <= g.last; t++) {
            struct rig r = rig_of(t, 1 + i % 4);
            static const int32_t chunks[] = {N_TOK, 1, 13, 64, 100};
            for (int c = 0; c < 5; c++) {
                memset(got, 0xff, n * sizeof *got);
                memset(got_lse, 0xff, rows * sizeof *got_lse);
                for (int32_t first = 0; first < N_TOK; first += chunks[c])
                    run_pieces(&r, a, first, dr_min_i32(chunks[c], N_TOK - first), got, got_lse);
                CU_ASSERT_TRUE(same_numbers(got, want, n) && same_numbers(got_lse, want_lse, rows));
                if (t == RIG_AVX512_SIMDE || t == TABLE_BF16_SIMDE) break; /* emulated and slow */
            }
            run_pieces(&r, a, 0, 0, got, got_lse);
            rig_fini(&r);
        }
        pool_fini(&p);
    }
    rig_fini(&reference);
}

static void expanded_bits(void) {
    for (int g = 0; g < N_GROUP; g++) expanded_bits_of(groups[g]);
}

static CU_TestInfo cases[] = {
    {"absorbed: any shape and cache type gives the reference's bits, NaN and infinity included",
     absorbed_bits},
    {"absorbed: tokens alone, 1 to 4 threads, any scratch give the reference's bits", absorbed_division},
    {"absorbed: no token, no visible row", absorbed_empty},
    {"expanded: pieces, chunks, positions and threads give the reference's bits", expanded_bits},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_x86_attn = {.pName = "kernels/x86_attn", .pTests = cases};
