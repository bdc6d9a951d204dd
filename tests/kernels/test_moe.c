/* test_moe.c - the experts of a layer.
 * In:   random experts, rows, choices.      Out: checks against scalar code in the promised order, bit for
 * bit, and against double. Owns: nothing. Why:  grouping, ownership and scratch must not show in a token's
 * result. */
#include "kernels/exp.h"
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

enum { EXPERTS = 9, ACTIVE = 3, DIM = 45, HIDDEN = 150, SHARED = 200, T = 80 };

struct layer {
    struct matrix gate[EXPERTS + 1], up[EXPERTS + 1], down[EXPERTS + 1]; /* the last is the shared expert */
    struct dr_expert packed[EXPERTS + 1];
    int32_t expert[T * ACTIVE];
    float weight[T * ACTIVE];
    float *x, *want; /* [T, DIM] */
};

static float *silu_up(struct pool *p, const struct layer *l, int e, int32_t hidden, const float *x) {
    float *h = pool_take(p, (size_t)hidden * sizeof *h);
    for (int32_t i = 0; i < hidden; i++)
        h[i] = dr_silu(matrix_dot_ordered(&l->gate[e], i, 0, DIM, x)) *
               matrix_dot_ordered(&l->up[e], i, 0, DIM, x);
    return h;
}

/* One token by scalar code: owned experts in ascending order by fma from 0, shared last; exact[] in double.
 */
static void token(const struct layer *l, size_t t, int32_t first, int32_t n_owned, bool shared, float *want,
                  double *exact) {
    for (int32_t d = 0; d < DIM; d++) want[d] = 0, exact[d] = 0;
    for (int k = 0; k <= ACTIVE; k++) {
        struct pool p = {0};
        int e = k < ACTIVE ? l->expert[t * ACTIVE + (size_t)k] : EXPERTS;
        bool taken = k < ACTIVE ? e >= first && e < first + n_owned : shared;
        int32_t hidden = k < ACTIVE ? HIDDEN : SHARED;
        if (!taken) continue;
        float *h = silu_up(&p, l, e, hidden, l->x + t * DIM),
              w = k < ACTIVE ? l->weight[t * ACTIVE + (size_t)k] : 1;
        for (int32_t d = 0; d < DIM; d++) {
            float v = matrix_dot_ordered(&l->down[e], d, 0, hidden, h);
            want[d] = k < ACTIVE ? fmaf(w, v, want[d]) : want[d] + v;
            exact[d] += (double)w * matrix_dot(&l->down[e], d, 0, hidden, h);
        }
        pool_fini(&p);
    }
}

static struct layer make(struct pool *p, enum dr_wtype type) {
    struct layer l = {.x = pool_floats(p, T * DIM, 21, 0.3f), .want = pool_take(p, T * DIM * sizeof(float))};
    for (int e = 0; e <= EXPERTS; e++) {
        int32_t hidden = e < EXPERTS ? HIDDEN : SHARED;
        l.gate[e] = matrix_random(p, 100 + (uint64_t)e, type, hidden, DIM, true);
        l.up[e] = matrix_random(p, 200 + (uint64_t)e, type, hidden, DIM, true);
        l.down[e] = matrix_random(p, 300 + (uint64_t)e, type, DIM, hidden, true);
        l.packed[e] = (struct dr_expert){.gate = matrix_slice(p, &l.gate[e], 0, hidden, 0, DIM),
                                         .up = matrix_slice(p, &l.up[e], 0, hidden, 0, DIM),
                                         .down = matrix_slice(p, &l.down[e], 0, DIM, 0, hidden)};
    }
    for (size_t t = 0; t < T; t++) { /* ascending triples; expert 4 is never chosen, expert 0 by most */
        int32_t a = t % 5 == 0 ? 1 : 0, b = 2 + (int32_t)(t % 2), c = 5 + (int32_t)(t * 7 % 4);
        l.expert[t * ACTIVE] = a;
        l.expert[t * ACTIVE + 1] = b;
        l.expert[t * ACTIVE + 2] = c;
        for (size_t k = 0; k < ACTIVE; k++) l.weight[t * ACTIVE + k] = dr_rng_uniform(5, t, k);
    }
    return l;
}

static void run(struct rig *r, const struct layer *l, const float *x, size_t t0, int32_t n_tok, int32_t first,
                int32_t n_owned, bool shared, float *y) {
    struct pool p = {0};
    struct dr_moe a = {.y = y,
                       .x = x,
                       .expert = l->expert + t0 * ACTIVE,
                       .weight = l->weight + t0 * ACTIVE,
                       .owned = l->packed + first,
                       .shared = shared ? &l->packed[EXPERTS] : NULL,
                       .n_tok = n_tok,
                       .dim = DIM,
                       .n_active = ACTIVE,
                       .first = first,
                       .n_owned = n_owned};
    rig_scratch(&p, dr_moe_scratch_bytes(n_tok, DIM, shared ? SHARED : HIDDEN, ACTIVE, n_owned), &a.scratch,
                &a.scratch_bytes);
    CHECK_OK(r->ops->moe(&a, &r->stream));
    pool_fini(&p);
}

static void moe_promised_order_on(enum rig_table table) {
    struct rig r = rig_init_table(2, table);
    static const enum dr_wtype types[] = {DR_W_F8, DR_W_BF16};
    for (size_t i = 0; i < 2; i++) {
        struct pool p = {0};
        struct layer l = make(&p, types[i]);
        float *y = pool_take(&p, T * DIM * sizeof *y), want[DIM];
        double exact[DIM];
        memset(y, 0xff, T * DIM * sizeof *y);
        run(&r, &l, l.x, 0, T, 0, EXPERTS, true, y);
        for (size_t t = 0; t < T; t += 3) {
            token(&l, t, 0, EXPERTS, true, want, exact);
            CU_ASSERT_TRUE(same_floats(y + t * DIM, want, DIM));
            double size = 0;
            for (int d = 0; d < DIM; d++) size = fmax(size, fabs(exact[d]));
            CU_ASSERT_TRUE(near_double(y + t * DIM, exact, DIM, 1e-5 * size,
                                       0)); /* 4 experts x 2 blocks x 128 additions */
        }
        pool_fini(&p);
    }
    rig_fini(&r);
}
RIG_ON_TABLES(moe_promised_order)

static void moe_grouping_is_invisible_on(enum rig_table table) {
    struct pool p = {0};
    struct layer l = make(&p, DR_W_F8);
    float *alone = pool_take(&p, T * DIM * sizeof *alone), *y = pool_take(&p, T * DIM * sizeof *y);
    struct rig one = rig_init_table(1, table);
    for (size_t t = 0; t < T; t++) run(&one, &l, l.x + t * DIM, t, 1, 0, EXPERTS, true, alone + t * DIM);
    for (int32_t size = 1; size <= 4; size++) {
        struct rig r = rig_init_table(size, table);
        for (int32_t n = 1; n <= T; n += n < 8 ? 1 : 9) {
            size_t t0 = (size_t)(T - n);
            run(&r, &l, l.x + t0 * DIM, t0, n, 0, EXPERTS, true, y);
            CU_ASSERT_TRUE(same_floats(y, alone + t0 * DIM, (size_t)n * DIM));
        }
        rig_fini(&r);
    }
    rig_fini(&one);
    pool_fini(&p);
}
RIG_ON_TABLES(moe_grouping_is_invisible)

static void moe_owned_ranges_on(enum rig_table table) {
    struct pool p = {0};
    struct layer l = make(&p, DR_W_F8);
    struct rig r = rig_init_table(2, table);
    static const int32_t cut[] = {0, 1, 4, 5, 9}; /* the rank [4, 5) owns an expert that nobody chose */
    float *y = pool_take(&p, T * DIM * sizeof *y), want[DIM];
    double exact[DIM];
    for (int c = 0; c < 4; c++)
        for (int shared = 0; shared < 2; shared++) {
            memset(y, 0xff, T * DIM * sizeof *y);
            run(&r, &l, l.x, 0, T, cut[c], cut[c + 1] - cut[c], shared, y);
            for (size_t t = 0; t < T; t += 7) {
                token(&l, t, cut[c], cut[c + 1] - cut[c], shared, want, exact);
                CU_ASSERT_TRUE(same_floats(y + t * DIM, want, DIM));
            }
        }
    run(&r, &l, l.x, 0, T, 3, 0, false, y); /* owns nothing */
    for (size_t i = 0; i < T * DIM; i++) CU_ASSERT_EQUAL(y[i], 0);
    y[0] = 7;
    run(&r, &l, l.x, 0, 0, 0, EXPERTS, true, y);
    CU_ASSERT_EQUAL(y[0], 7);
    rig_fini(&r);
    pool_fini(&p);
}
RIG_ON_TABLES(moe_owned_ranges)

static void moe_nan_stays_in_its_row_on(enum rig_table table) {
    struct pool p = {0};
    struct layer l = make(&p, DR_W_BF16);
    struct rig r = rig_init_table(2, table);
    float *clean = pool_take(&p, T * DIM * sizeof *clean), *y = pool_take(&p, T * DIM * sizeof *y);
    run(&r, &l, l.x, 0, T, 0, EXPERTS, true, clean);
    l.x[17 * DIM + 3] = NAN;
    run(&r, &l, l.x, 0, T, 0, EXPERTS, true, y);
    for (size_t t = 0; t < T; t++)
        if (t != 17) CU_ASSERT_TRUE(same_floats(y + t * DIM, clean + t * DIM, DIM));
    for (size_t d = 0; d < DIM; d++) CU_ASSERT_TRUE(isnan(y[17 * DIM + d]));
    rig_fini(&r);
    pool_fini(&p);
}
RIG_ON_TABLES(moe_nan_stays_in_its_row)

static void moe_small_scratch(void) {
    for (int t = 0; t < RIG_TABLE_COUNT; t++) {
        struct pool p = {0};
        struct layer l = make(&p, DR_W_BF16);
        struct rig r = rig_init_table(1, (enum rig_table)t);
        float *y = pool_take(&p, DIM * sizeof *y);
        struct dr_moe a = {.y = y,
                           .x = l.x,
                           .expert = l.expert,
                           .weight = l.weight,
                           .owned = l.packed,
                           .n_tok = 1,
                           .dim = DIM,
                           .n_active = ACTIVE,
                           .n_owned = EXPERTS};
        size_t bytes = dr_moe_scratch_bytes(1, DIM, HIDDEN, ACTIVE, EXPERTS) - 1;
        rig_scratch(&p, bytes, &a.scratch, &a.scratch_bytes);
        CU_ASSERT_EQUAL(r.ops->moe(&a, &r.stream).code, DR_EINTERNAL);
        rig_fini(&r);
        pool_fini(&p);
    }
}

static CU_TestInfo cases[] = {
    {"owned experts add in ascending order, the shared one last, bit for bit", moe_promised_order},
    {"alone, in any batch, on 1 to 4 threads a token has the same bits", moe_grouping_is_invisible},
    {"ranks add exactly the experts they own", moe_owned_ranges},
    {"too little scratch is refused", moe_small_scratch},
    {"NaN stays in its row", moe_nan_stays_in_its_row},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_moe = {.pName = "kernels/moe", .pTests = cases};
