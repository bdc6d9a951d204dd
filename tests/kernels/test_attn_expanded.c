/* test_attn_expanded.c - causal attention over expanded keys, and the merge of parts.
 * In:   random queries, keys, values.      Out: checks against softmax in double, and bit for bit across
 * chunks and threads. Owns: nothing. Why:  the prefill path; chunks of a prompt must not show. */
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

enum {
    H = 3,
    NOPE = 21,
    ROPE = 6,
    QK = NOPE + ROPE,
    V = 37,
    KEYS = 600,
    PE_STRIDE = ROPE + 2,
    Q_STRIDE = H * QK + 1
};

struct scene {
    float *q, *k, *k_pe, *v; /* one query a position */
    float *o, *lse;
    int32_t pos[KEYS];
};

static struct scene make(struct pool *p) {
    struct scene s = {.q = pool_floats(p, KEYS * Q_STRIDE, 1, 1),
                      .k = pool_floats(p, KEYS * H * NOPE, 2, 1),
                      .k_pe = pool_floats(p, KEYS * PE_STRIDE, 3, 1),
                      .v = pool_floats(p, KEYS * H * V, 4, 1),
                      .o = pool_take(p, KEYS * H * V * sizeof(float)),
                      .lse = pool_take(p, KEYS * H * sizeof(float))};
    for (int32_t i = 0; i < KEYS; i++) s.pos[i] = i;
    return s;
}

/* Queries [t0, t0 + n_tok) over keys [key0, key0 + n_key). */
static void piece(struct rig *r, struct scene *s, int32_t t0, int32_t n_tok, int32_t key0, int32_t n_key,
                  bool start) {
    size_t t = (size_t)t0, j = (size_t)key0;
    CHECK_OK(r->ops->attn_expanded(&(struct dr_attn_expanded){.o = s->o + t * H * V,
                                                              .lse = s->lse + t * H,
                                                              .q = s->q + t * Q_STRIDE,
                                                              .k = s->k + j * H * NOPE,
                                                              .k_pe = s->k_pe + j * PE_STRIDE,
                                                              .v = s->v + j * H * V,
                                                              .pos = s->pos + t,
                                                              .n_tok = n_tok,
                                                              .n_head = H,
                                                              .n_key = n_key,
                                                              .first_key = key0,
                                                              .nope_dim = NOPE,
                                                              .rope_dim = ROPE,
                                                              .v_dim = V,
                                                              .q_stride = Q_STRIDE,
                                                              .k_pe_stride = PE_STRIDE,
                                                              .scale = 0.7f,
                                                              .start = start},
                                   &r->stream));
}

static void reference(const struct scene *s, int32_t t, int h, double *o, double *lse) {
    double score[KEYS], max = -INFINITY, sum = 0;
    int32_t n = s->pos[t] + 1;
    for (int32_t j = 0; j < n; j++) {
        score[j] = 0;
        for (int d = 0; d < NOPE; d++)
            score[j] += (double)s->q[t * Q_STRIDE + h * QK + d] * (double)s->k[(j * H + h) * NOPE + d];
        for (int d = 0; d < ROPE; d++)
            score[j] += (double)s->q[t * Q_STRIDE + h * QK + NOPE + d] * (double)s->k_pe[j * PE_STRIDE + d];
        score[j] *= (double)0.7f;
        max = fmax(max, score[j]);
    }
    for (int d = 0; d < V; d++) o[d] = 0;
    for (int32_t j = 0; j < n; j++) {
        double w = exp(score[j] - max);
        sum += w;
        for (int d = 0; d < V; d++) o[d] += w * (double)s->v[(j * H + h) * V + d];
    }
    for (int d = 0; d < V; d++) o[d] /= sum;
    *lse = max + log(sum);
}

static void check_formula(const struct scene *s) {
    for (int32_t t = 0; t < KEYS; t += t < 70 ? 1 : 13)
        for (int h = 0; h < H; h++) {
            double o[V], lse;
            reference(s, t, h, o, &lse);
            CU_ASSERT_TRUE(near_double(s->o + (t * H + h) * V, o, V, 3e-6, 0));
            CU_ASSERT_TRUE(near_double(s->lse + t * H + h, &lse, 1, 2e-6, 1e-6));
        }
}

static void expanded_formula(void) {
    struct pool p = {0};
    struct rig r = rig_init(2);
    struct scene s = make(&p);
    memset(s.o, 0xff, KEYS * H * V * sizeof *s.o); /* start overwrites whatever is there */
    memset(s.lse, 0xff, KEYS * H * sizeof *s.lse);
    piece(&r, &s, 0, KEYS, 0, KEYS, true);
    check_formula(&s);
    /* in three pieces whose borders are nowhere special */
    piece(&r, &s, 0, KEYS, 0, 100, true);
    piece(&r, &s, 0, KEYS, 100, 333, false);
    piece(&r, &s, 0, KEYS, 433, KEYS - 433, false);
    check_formula(&s);
    rig_fini(&r);
    pool_fini(&p);
}

static void expanded_chunks(void) {
    struct pool p = {0};
    struct rig one = rig_init(1);
    struct scene s = make(&p);
    piece(&one, &s, 0, KEYS, 0, 256, true);
    piece(&one, &s, 0, KEYS, 256, KEYS - 256, false);
    float *o = s.o, *lse = s.lse;
    s.o = pool_take(&p, KEYS * H * V * sizeof *o);
    s.lse = pool_take(&p, KEYS * H * sizeof *lse);
    static const int32_t chunk[] = {1, 7, 64, 100};
    for (int32_t size = 1; size <= 4; size++) {
        struct rig r = rig_init(size);
        for (int32_t t = 0, n; t < KEYS; t += n) { /* keys end with the chunk: later ones do not exist yet */
            n = dr_min_i32(chunk[size - 1], KEYS - t);
            piece(&r, &s, t, n, 0, dr_min_i32(256, t + n), true);
            if (t + n > 256) piece(&r, &s, t, n, 256, t + n - 256, false);
        }
        CU_ASSERT_TRUE(same_floats(s.o, o, KEYS * H * V));
        CU_ASSERT_TRUE(same_floats(s.lse, lse, KEYS * H));
        memset(s.o, 0, KEYS * H * V * sizeof *o);
        rig_fini(&r);
    }
    rig_fini(&one);
    pool_fini(&p);
}

static void promised_order(struct rig r, bool bf16) {
    struct pool p = {0};
    struct scene s = make(&p);
    static const int32_t border[] = {0, 100, 433, KEYS}; /* pieces that start inside a block and a split */
    float *keys = pool_take(&p, KEYS * QK * sizeof *keys);
    for (int i = 0; i < 3; i++) piece(&r, &s, 0, KEYS, border[i], border[i + 1] - border[i], i == 0);
    for (int h = 0; h < H; h++) {
        for (int j = 0; j < KEYS; j++) {
            memcpy(keys + j * QK, s.k + (j * H + h) * NOPE, NOPE * sizeof *keys);
            memcpy(keys + j * QK + NOPE, s.k_pe + j * PE_STRIDE, ROPE * sizeof *keys);
        }
        for (int32_t t = 0; t < KEYS; t += 29) {
            struct ordered want = {.max = -INFINITY, .bf16 = bf16};
            float lse = -INFINITY;
            for (int i = 0; i < 3 && border[i] <= t; i++) { /* between pieces the state is normalised */
                if (want.sum != 0) want.max = lse, want.sum = 1;
                attention_ordered(&want, s.q + t * Q_STRIDE + h * QK, NOPE, ROPE, keys, s.v + h * V, H * V, V,
                                  border[i], dr_min_i32(border[i + 1], t + 1), 256, 0.7f);
                lse = attention_ordered_finish(&want, V);
            }
            CU_ASSERT_TRUE(same_floats(s.o + (t * H + h) * V, want.o, V));
            CU_ASSERT_TRUE(same_floats(s.lse + t * H + h, &lse, 1));
        }
    }
    rig_fini(&r);
    pool_fini(&p);
}

static void expanded_promised_order(void) {
    promised_order(rig_init(2), false);
    promised_order(rig_init_fast(2, RIG_FAST_BF16_SIMDE), true);
    if (rig_has_bf16()) promised_order(rig_init_fast(2, RIG_FAST_HERE), true);
}

static void expanded_no_visible_key(void) {
    struct pool p = {0};
    struct rig r = rig_init(2);
    struct scene s = make(&p);
    piece(&r, &s, 0, 20, 100, 50, true); /* all keys lie behind the queries */
    for (int i = 0; i < 20 * H * V; i++) CU_ASSERT_EQUAL(s.o[i], 0);
    for (int i = 0; i < 20 * H; i++) CU_ASSERT_EQUAL(s.lse[i], -INFINITY);
    piece(&r, &s, 0, 20, 0, 20, false); /* an empty state takes the first keys as a start does */
    float *o = pool_take(&p, 20 * H * V * sizeof *o), *lse = pool_take(&p, 20 * H * sizeof *lse);
    memcpy(o, s.o, 20 * H * V * sizeof *o);
    memcpy(lse, s.lse, 20 * H * sizeof *lse);
    piece(&r, &s, 0, 20, 0, 20, true);
    CU_ASSERT_TRUE(same_floats(s.o, o, 20 * H * V) && same_floats(s.lse, lse, 20 * H));
    s.lse[5] = lse[5] = -INFINITY;       /* even an empty one that holds numbers */
    piece(&r, &s, 0, 20, 20, 50, false); /* and a piece that nobody sees changes no bit */
    CU_ASSERT_TRUE(same_floats(s.o, o, 20 * H * V) && same_floats(s.lse, lse, 20 * H));
    piece(&r, &s, 0, 0, 0, 20, true);
    piece(&r, &s, 0, 20, 0, 0, false);
    CU_ASSERT_TRUE(same_floats(s.o, o, 20 * H * V) && same_floats(s.lse, lse, 20 * H));
    rig_fini(&r);
    pool_fini(&p);
}

/* The result without position 0 is that of the others alone, whatever it holds. */
static void expanded_first_may_be_hidden(void) {
    struct pool p = {0};
    struct rig r = rig_init(2);
    struct scene s = make(&p);
    struct dr_attn_expanded a = {.o = s.o,
                                 .lse = s.lse,
                                 .q = s.q,
                                 .k = s.k,
                                 .k_pe = s.k_pe,
                                 .v = s.v,
                                 .pos = s.pos,
                                 .n_tok = 90,
                                 .n_head = H,
                                 .n_key = 90,
                                 .from = 1,
                                 .nope_dim = NOPE,
                                 .rope_dim = ROPE,
                                 .v_dim = V,
                                 .q_stride = Q_STRIDE,
                                 .k_pe_stride = PE_STRIDE,
                                 .scale = 0.7f,
                                 .start = true};
    for (int i = 0; i < H * V; i++) s.v[i] = NAN;
    CHECK_OK(r.ops->attn_expanded(&a, &r.stream));
    float *o = pool_take(&p, 90 * H * V * sizeof *o), *lse = pool_take(&p, 90 * H * sizeof *lse);
    memcpy(o, s.o, 90 * H * V * sizeof *o);
    memcpy(lse, s.lse, 90 * H * sizeof *lse);
    piece(&r, &s, 0, 90, 1, 89, true);
    CU_ASSERT_TRUE(same_floats(s.o, o, 90 * H * V) && same_floats(s.lse, lse, 90 * H));
    for (int h = 0; h < H; h++) CU_ASSERT_EQUAL(lse[h], -INFINITY); /* the first query sees nothing */
    rig_fini(&r);
    pool_fini(&p);
}

static void expanded_future_is_not_read(void) {
    struct pool p = {0};
    struct rig r = rig_init(2);
    struct scene s = make(&p);
    piece(&r, &s, 0, 90, 0, 90, true);
    float *o = pool_take(&p, 90 * H * V * sizeof *o);
    memcpy(o, s.o, 90 * H * V * sizeof *o);
    for (int i = 0; i < H * V; i++) s.v[37 * H * V + i] = NAN;
    for (int i = 0; i < H * NOPE; i++) s.k[37 * H * NOPE + i] = INFINITY;
    piece(&r, &s, 0, 90, 0, 90, true);
    CU_ASSERT_TRUE(same_floats(s.o, o, 37 * H * V));
    for (int i = 37 * H * V; i < 90 * H * V; i++) CU_ASSERT_TRUE(isnan(s.o[i]));
    rig_fini(&r);
    pool_fini(&p);
}

static void merge_formula(void) {
    struct pool p = {0};
    struct rig r = rig_init(2);
    enum { C = 4, T = 5, HEADS = 6, DIM = 19, ROWS = T * HEADS };
    float *part_o[C], *part_lse[C], *o = pool_take(&p, ROWS * DIM * sizeof *o),
                                    *lse = pool_take(&p, ROWS * sizeof *lse);
    for (int m = 0; m < C; m++) {
        part_o[m] = pool_floats(&p, ROWS * DIM, (uint64_t)m, 1);
        part_lse[m] = pool_floats(&p, ROWS, (uint64_t)m + 50, 40);
        for (int row = m; row < ROWS; row += 5) { /* empty parts hold garbage */
            part_lse[m][row] = -INFINITY;
            part_o[m][row * DIM] = NAN;
        }
        part_lse[m][7] = -INFINITY;
    }
    part_o[2][9 * DIM + 1] = NAN; /* a part that counts */
    part_lse[2][9] = 30;
    struct dr_attn_merge a = {.o = o,
                              .lse = lse,
                              .part_o = (const float *const *)part_o,
                              .part_lse = (const float *const *)part_lse,
                              .c = C,
                              .n_tok = T,
                              .n_head = HEADS,
                              .dim = DIM};
    CHECK_OK(r.ops->attn_merge(&a, &r.stream));
    for (int row = 0; row < ROWS; row++) {
        double max = -INFINITY, sum = 0, want[DIM] = {0};
        for (int m = 0; m < C; m++) max = fmax(max, (double)part_lse[m][row]);
        for (int m = 0; m < C; m++) {
            if (part_lse[m][row] == -INFINITY) continue;
            double w = exp((double)part_lse[m][row] - max);
            sum += w;
            for (int i = 0; i < DIM; i++) want[i] += w * (double)part_o[m][row * DIM + i];
        }
        for (int i = 0; i < DIM && sum > 0; i++) want[i] /= sum;
        double want_lse = row == 7 ? -INFINITY : max + log(sum);
        CU_ASSERT_TRUE(near_double(o + row * DIM, want, DIM, 5e-7, 0));
        CU_ASSERT_TRUE(near_double(lse + row, &want_lse, 1, 1e-6, 2e-7));
    }
    a.c = 1; /* one part is returned bit for bit */
    a.lse = NULL;
    CHECK_OK(r.ops->attn_merge(&a, &r.stream));
    for (int row = 0; row < ROWS; row++)
        if (part_lse[0][row] > -INFINITY)
            CU_ASSERT_TRUE(same_floats(o + row * DIM, part_o[0] + row * DIM, DIM));
    a.n_tok = 0;
    CHECK_OK(r.ops->attn_merge(&a, &r.stream));
    rig_fini(&r);
    pool_fini(&p);
}

static CU_TestInfo cases[] = {
    {"whole and in pieces it agrees with softmax in double", expanded_formula},
    {"its additions come in the promised order, bit for bit", expanded_promised_order},
    {"chunks of 1, 7, 64 and 100 tokens on 1 to 4 threads give the same bits", expanded_chunks},
    {"rows that see no key keep their bits, an empty state is a start", expanded_no_visible_key},
    {"NaN and infinity at a later position reach no earlier row", expanded_future_is_not_read},
    {"position 0 may be hidden from all", expanded_first_may_be_hidden},
    {"parts merge by log-sum-exp, empty ones are not read, one part is itself", merge_formula},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_attn_expanded = {.pName = "kernels/attn_expanded", .pTests = cases};
