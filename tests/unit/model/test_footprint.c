/* test_footprint.c - bytes of a rank.
 * In:   published models, golden cases.      Out: checks.
 * Owns: nothing.
 * Why:  the worker allocates exactly these bytes. */
#include <stdio.h>
#include <stdlib.h>

#include <CUnit/CUnit.h>

#include "kernels/weight.h"
#include "model/footprint.h"
#include "model/workspace.h"
#include "tests/unit/model/fixture.h"

static struct dr_layout layout(const struct dr_config *c, struct dr_layout_wish w) {
    struct dr_layout l = {0};
    dr_status st = dr_layout_make(c, &w, &l);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    CU_ASSERT_EQUAL_FATAL(st.code, DR_OK);
    return l;
}

static void v3_cache(void) {
    struct dr_config c = fixture_config("configs/v3");
    struct dr_layout_wish w = fixture_wish(1, 1);
    w.cache_type = DR_CACHE_BF16;
    struct dr_layout l = layout(&c, w);
    CU_ASSERT_EQUAL(dr_footprint_token_bytes(&c, &l), 70272);
    w.mtp = true;
    l = layout(&c, w);
    CU_ASSERT_EQUAL(dr_footprint_token_bytes(&c, &l), 71424);
    w.mtp = false;
    w.cache_type = DR_CACHE_FP8;
    l = layout(&c, w);
    CU_ASSERT_EQUAL(dr_footprint_row_bytes(&c, DR_CACHE_FP8), 656); /* 512 + 4 scales + 64 bf16 */
    CU_ASSERT_EQUAL(dr_footprint_token_bytes(&c, &l), 40016);
    CU_ASSERT_EQUAL(dr_footprint_row_bytes(&c, DR_CACHE_F32), 2304);
}

static void ragged_rows(void) {
    struct dr_config c = fixture_config("v3-bf16");
    c.kv_lora = 131;
    c.rope_dim = 6;
    CU_ASSERT_EQUAL(dr_footprint_row_bytes(&c, DR_CACHE_F32), 548);
    CU_ASSERT_EQUAL(dr_footprint_row_bytes(&c, DR_CACHE_BF16), 276); /* 274 rounded up */
    CU_ASSERT_EQUAL(dr_footprint_row_bytes(&c, DR_CACHE_FP8), 152);  /* 131 + 2 x 4 + 12 = 151 */
}

static void packed_format(void) {
    for (int32_t out = 1; out < 70; out += 3) {
        for (int32_t in = 1; in < 400; in += 37) {
            for (int32_t first = 0; first < 300; first += 41) {
                for (int t = 0; t < DR_DTYPE_COUNT; t++) {
                    int32_t first_out = 3 * first + out;
                    size_t data = dr_weight_data_bytes((enum dr_wtype)t, out, in, first % 128);
                    size_t scale =
                        dr_weight_scale_bytes((enum dr_wtype)t, out, in, first % 128, first_out % 128);
                    CU_ASSERT_EQUAL(dr_footprint_packed_bytes((enum dr_dtype)t, out, in, first, first_out),
                                    data + scale);
                }
            }
        }
    }
}

static struct dr_tensors *tensors(const char *name, const struct dr_config *c) {
    char dir[FIXTURE_PATH];
    struct dr_tensors *t = NULL;
    CU_ASSERT_EQUAL_FATAL(dr_tensors_open(fixture_case(name, dir), c, &t).code, DR_OK);
    return t;
}

static void check_list(const char *name, struct dr_layout_wish w) {
    struct dr_config c = fixture_config(name);
    struct dr_tensors *t = tensors(name, &c);
    struct dr_layout l = layout(&c, w);
    for (int32_t rank = 0; rank < l.n_rank; rank++) {
        int32_t n = dr_footprint_list(&c, t, &l, rank, NULL, 0);
        struct dr_holding *list = calloc((size_t)n, sizeof *list);
        CU_ASSERT_FATAL(n > 0 && list);
        CU_ASSERT_EQUAL(dr_footprint_list(&c, t, &l, rank, list, n), n);
        size_t at = 0;
        bool ok = true;
        for (int32_t i = 0; i < n; i++) {
            const struct dr_holding *h = &list[i];
            const struct dr_tensor *x = dr_tensors_get(t, h->role, h->layer, h->expert);
            ok = ok && h->offset == at && h->data_bytes % 64 == 0 && h->scale_bytes % 64 == 0 &&
                 h->data_bytes > 0;
            ok = ok && h->row0 >= 0 && h->rows > 0 && h->row0 + h->rows <= x->rows;
            ok = ok && h->col0 >= 0 && h->cols > 0 && h->col0 + h->cols <= x->cols;
            ok = ok && h->dtype == (h->kind == DR_HOLD_VECTOR ? DR_DTYPE_F32 : x->dtype);
            if (h->kind == DR_HOLD_PACKED || h->kind == DR_HOLD_TRANSPOSED) {
                enum dr_wtype type = (enum dr_wtype)h->dtype;
                int32_t out = dr_holding_out(h), in = dr_holding_in(h), phase = dr_holding_phase(h);
                ok = ok && h->data_bytes == dr_weight_data_bytes(type, out, in, phase);
                ok = ok &&
                     h->scale_bytes == dr_weight_scale_bytes(type, out, in, phase, dr_holding_out_phase(h));
            }
            at += h->data_bytes + h->scale_bytes;
        }
        CU_ASSERT_TRUE(ok);
        CU_ASSERT_EQUAL(dr_footprint_rank(&c, t, &l, rank).weights, at);
        free(list);
    }
    dr_tensors_destroy(t);
}

static void lists(void) {
    static const char *const names[] = {"v3-bf16",   "v3-fp8", "dense-fp8", "v2-lite",
                                        "moonlight", "v3-mtp", "lexi-15m"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct dr_layout_wish w = fixture_wish(1, 1);
        check_list(names[i], w);
        w = fixture_wish(3, 2);
        w.experts = DR_EXPERTS_WHOLE;
        check_list(names[i], w);
        w = fixture_wish(4, 1);
        w.cache_width = 2;
        w.exchange = DR_EXCHANGE_VALUE;
        w.mtp = i >= 5;
        check_list(names[i], w);
    }
}

static int32_t find(const struct dr_holding *list, int32_t n, enum dr_role role) {
    for (int32_t i = 0; i < n; i++)
        if (list[i].role == role) return i;
    return -1;
}

/* v3-mtp, 5 heads, 2 ranks, 2 stages: what the second rank of the last stage holds, entry by entry. */
static void order(void) {
    struct dr_config c = fixture_config("v3-mtp");
    struct dr_layout_wish w = fixture_wish(2, 2);
    w.mtp = true;
    struct dr_layout l = layout(&c, w);
    struct dr_holding list[512];
    int32_t n = dr_footprint_list(&c, NULL, &l, 3, list, 512);
    CU_ASSERT_FATAL(n > 0 && n <= 512);
    int32_t first = l.layer_begin[1], layers = c.n_layer - first + 1; /* with the MTP layer */
    CU_ASSERT_TRUE(first >= 1);
    /* a MoE layer: norms, q_a, norm, q_b, kv_a, norm, 2 heads x 3, o, norm, router, bias, 9 experts x 3,
     * shared x 3 */
    CU_ASSERT_EQUAL(n, 1 + layers * (6 + 6 + 2 + 2 + 27 + 3) + 2 + 4);
    CU_ASSERT_EQUAL(list[0].role, DR_ROLE_EMBED);
    CU_ASSERT_EQUAL(list[0].kind, DR_HOLD_ROWS);
    CU_ASSERT_EQUAL(list[0].row0, 256);
    const struct dr_holding *kv = &list[7]; /* head 3 is the first of the second rank: rows 3 x 38 of kv_b */
    CU_ASSERT_EQUAL(kv[0].role, DR_ROLE_KV_B);
    CU_ASSERT_EQUAL(kv[0].head, 3);
    CU_ASSERT_EQUAL(kv[0].kind, DR_HOLD_TRANSPOSED);
    CU_ASSERT_EQUAL(kv[0].row0, 114);
    CU_ASSERT_EQUAL(kv[0].rows, 20);
    CU_ASSERT_EQUAL(dr_holding_out(&kv[0]), 36);
    CU_ASSERT_EQUAL(dr_holding_in(&kv[0]), 20);
    CU_ASSERT_EQUAL(dr_holding_phase(&kv[0]), 114);
    CU_ASSERT_EQUAL(kv[1].kind, DR_HOLD_PACKED);
    CU_ASSERT_EQUAL(kv[1].row0, 114);
    CU_ASSERT_EQUAL(kv[2].row0, 134);
    CU_ASSERT_EQUAL(kv[2].rows, 18);
    CU_ASSERT_EQUAL(kv[3].head, 4);
    CU_ASSERT_EQUAL(dr_holding_phase(&kv[3]), 152 - 128);
    int32_t head = find(list, n, DR_ROLE_HEAD), mtp = find(list, n, DR_ROLE_MTP_ENORM);
    CU_ASSERT_EQUAL(list[head - 1].role, DR_ROLE_NORM);
    CU_ASSERT_EQUAL(mtp, head + 1);
    CU_ASSERT_EQUAL(list[mtp + 2].role, DR_ROLE_MTP_EH);
    CU_ASSERT_EQUAL(list[mtp + 2].cols, 172);
    CU_ASSERT_EQUAL(list[mtp + 3].role, DR_ROLE_INPUT_NORM);
    CU_ASSERT_EQUAL(list[mtp + 3].layer, 3);
    CU_ASSERT_EQUAL(list[n - 1].role, DR_ROLE_MTP_NORM);
    /* a short list is filled, the count stays */
    struct dr_holding three[4] = {{0}};
    three[3].rows = -7;
    CU_ASSERT_EQUAL(dr_footprint_list(&c, NULL, &l, 3, three, 3), n);
    CU_ASSERT_EQUAL(three[2].role, list[2].role);
    CU_ASSERT_EQUAL(three[3].rows, -7);
}

static void value_exchange(void) {
    struct dr_config c = fixture_config("v3-bf16"); /* 6 heads */
    struct dr_layout_wish w = fixture_wish(4, 1);
    struct dr_holding list[512];
    w.cache_width = 2;
    w.exchange = DR_EXCHANGE_VALUE;
    struct dr_layout l = layout(&c, w);
    int32_t n = dr_footprint_list(&c, NULL, &l, 2, list, 512), pieces = 0;
    for (int32_t i = 0; i < n; i++) pieces += list[i].role == DR_ROLE_KV_B && list[i].layer == 0;
    /* heads are 2, 2, 1, 1: the second cache group has 4 and 5; keys are expanded for the own one only */
    CU_ASSERT_EQUAL(pieces, 3 + 2);
    l.exchange = DR_EXCHANGE_LATENT;
    n = dr_footprint_list(&c, NULL, &l, 2, list, 512);
    pieces = 0;
    for (int32_t i = 0; i < n; i++) pieces += list[i].role == DR_ROLE_KV_B && list[i].layer == 0;
    CU_ASSERT_EQUAL(pieces, 3);
}

static void tied_model(void) {
    struct dr_config c = fixture_config("moonlight");
    struct dr_layout l = layout(&c, fixture_wish(1, 2));
    struct dr_holding list[512];
    int32_t n = dr_footprint_list(&c, NULL, &l, 0, list, 512);
    CU_ASSERT_TRUE(find(list, n, DR_ROLE_EMBED) == 0 && find(list, n, DR_ROLE_HEAD) < 0);
    n = dr_footprint_list(&c, NULL, &l, 1, list, 512);
    CU_ASSERT_TRUE(find(list, n, DR_ROLE_EMBED) < 0 && find(list, n, DR_ROLE_HEAD) == n - 1);
    CU_ASSERT_EQUAL(list[n - 1].kind, DR_HOLD_PACKED);
    CU_ASSERT_EQUAL(list[n - 1].rows, 512);
}

/* V3 is 671 billion parameters without the MTP layer, FP8 but for embedding, head and router: 673 GB; q_a,
 * kv_a and the routers are held by all 8 ranks of a stage, and W_UK twice: some 10 GB more. */
static void v3_weights(void) {
    struct dr_config c = fixture_config("configs/v3");
    struct dr_layout l = layout(&c, fixture_wish(8, 2));
    double sum = 0;
    for (int32_t rank = 0; rank < l.n_rank; rank++)
        sum += (double)dr_footprint_rank(&c, NULL, &l, rank).weights;
    CU_ASSERT_TRUE(sum > 673e9 && sum < 690e9);
}

static void lines(void) {
    struct dr_config c = fixture_config("v3-bf16");
    struct dr_layout l = layout(&c, fixture_wish(2, 2));
    for (int32_t rank = 0; rank < 4; rank++) {
        struct dr_footprint f = dr_footprint_rank(&c, NULL, &l, rank);
        CU_ASSERT_EQUAL(f.total, f.weights + f.cache + f.workspace + f.collective);
        CU_ASSERT_EQUAL(f.cache, (size_t)l.n_page * dr_footprint_page_bytes(&c, &l, rank / 2));
        CU_ASSERT_EQUAL(f.workspace, dr_workspace_bytes(&c, &l, rank));
        CU_ASSERT_EQUAL(f.collective, dr_workspace_collective_bytes(&c, &l, rank));
    }
}

static void guess_equals_file(void) { /* where the file has the usual dtypes, the guess is exact */
    struct dr_config c = fixture_config("v3-bf16");
    struct dr_tensors *t = tensors("v3-bf16", &c);
    struct dr_layout l = layout(&c, fixture_wish(3, 1));
    for (int32_t rank = 0; rank < 3; rank++)
        CU_ASSERT_EQUAL(dr_footprint_rank(&c, t, &l, rank).weights,
                        dr_footprint_rank(&c, NULL, &l, rank).weights);
    dr_tensors_destroy(t);
}

static void pages_within(void) {
    struct dr_config c = fixture_config("v3-bf16");
    struct dr_layout l = layout(&c, fixture_wish(2, 1));
    struct dr_footprint f = dr_footprint_rank(&c, NULL, &l, 1);
    struct dr_layout trial = l;
    static const size_t more[] = {0, 1, 18431, 18432, 1000000};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        trial.n_page = dr_footprint_pages_within(&c, NULL, &l, 1, f.total + more[i]);
        CU_ASSERT_TRUE(trial.n_page >= l.n_page);
        CU_ASSERT_TRUE(dr_footprint_rank(&c, NULL, &trial, 1).total <= f.total + more[i]);
        trial.n_page++;
        CU_ASSERT_TRUE(dr_footprint_rank(&c, NULL, &trial, 1).total > f.total + more[i]);
    }
    CU_ASSERT_EQUAL(dr_footprint_pages_within(&c, NULL, &l, 1, f.weights), 0);
    CU_ASSERT_EQUAL(dr_footprint_pages_within(&c, NULL, &l, 1, 0), 0);
}

static CU_TestInfo cases[] = {
    {"V3's cache is 70,272 B a token in bf16, 40,016 in fp8", v3_cache},
    {"cache rows are rounded up to 4 bytes, fp8 groups are ragged", ragged_rows},
    {"packed bytes are those of the kernels' format", packed_format},
    {"lists have no holes, stay within tensors, sum to the weights", lists},
    {"the last stage with drafts holds what the header says, in order", order},
    {"the value exchange holds kv_b of the whole cache group", value_exchange},
    {"a tied model's last stage packs the embedding as head", tied_model},
    {"V3's packed FP8 weights are 692 GB and what is held more than once", v3_weights},
    {"the lines add up", lines},
    {"without the file the guess is the usual dtypes", guess_equals_file},
    {"the largest number of pages fits and one more does not", pages_within},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_footprint = {.pName = "model/footprint", .pTests = cases};
