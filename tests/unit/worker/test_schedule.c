/* test_schedule.c - the list of collectives, and the shape of a plan.
 * In:   layouts and shapes.      Out: lists.
 * Owns: nothing.
 * Why:  two ranks with different lists would wait for each other for ever. */

#include <string.h>

#include "kernels/ops.h"
#include "model/footprint.h"
#include "model/workspace.h"
#include "proto/plan_shape.h"
#include "tests/support/runner.h"
#include "tests/unit/worker/fixture.h"

enum { CALLS_MAX = 4096 };

struct list {
    struct dr_call call[CALLS_MAX];
    int32_t n;
};

static void add(void *arg, const struct dr_call *call) {
    struct list *l = arg;
    CU_ASSERT_FATAL(l->n < CALLS_MAX);
    l->call[l->n++] = *call;
}

static int32_t count(const struct list *l, enum dr_call_what what) {
    int32_t n = 0;
    for (int32_t i = 0; i < l->n; i++) n += l->call[i].what == what;
    return n;
}

static const struct dr_shape_segment mixed[] = {
    {.first = 300, .n_rows = 1, .absorbed = true, .n_out_rows = 1, .sample = true, .n_top = -1},
    {.first = 500, .n_rows = 40, .n_top = -1},
    {.first = 0, .n_rows = 70, .n_out_rows = 70, .n_top = 2},
    {.first = 9, .n_rows = 1, .absorbed = true, .n_out_rows = 1, .sample = true, .top_p = true, .n_top = 5},
};
static const struct dr_step_shape mixed_shape = {.n_segment = 4, .n_rows = 112, .segment = mixed};

static void one_rank(void) {
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 1, 1, 1);
    static struct list list;
    list.n = 0;
    dr_schedule_walk(&c, &l, &mixed_shape, 0, 0, add, &list);
    CU_ASSERT(list.n == 0);
}

static void counted(void) {
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 4, 1, 2);
    static struct list list;
    list.n = 0;
    dr_schedule_walk(&c, &l, &mixed_shape, 0, 1, add, &list);
    int32_t layers = c.n_layer;
    CU_ASSERT(count(&list, DR_WHAT_EMBED) == 1);
    CU_ASSERT(count(&list, DR_WHAT_QUERY) == layers && count(&list, DR_WHAT_PARTIAL) == layers);
    CU_ASSERT(count(&list, DR_WHAT_PREFILL) == layers * (3 + 1)); /* 540 keys and 70, in pieces of 256 */
    CU_ASSERT(count(&list, DR_WHAT_ATTN_OUT) == layers && count(&list, DR_WHAT_FFN_OUT) == layers);
    CU_ASSERT(count(&list, DR_WHAT_BOUNDARY) == 0);
    CU_ASSERT(count(&list, DR_WHAT_SAMPLE_MAX) == 2 &&
              count(&list, DR_WHAT_SAMPLE_PICK) == 2); /* 72 rows: 64 and 8 */
    CU_ASSERT(count(&list, DR_WHAT_SAMPLE_BINS) == 4);
    CU_ASSERT(count(&list, DR_WHAT_SAMPLE_TOP) == 2);
    /* group 1 of the cache holds heads 4..7: 2 rows x 4 heads x 48 x 4 bytes */
    for (int32_t i = 0; i < list.n; i++)
        if (list.call[i].what == DR_WHAT_QUERY) CU_ASSERT(list.call[i].bytes == 2 * 4 * 48 * 4);
}

static void batches(void) {
    static const struct dr_shape_segment wide[] = {
        {.first = 0, .n_rows = 150, .absorbed = true, .n_top = -1}};
    const struct dr_step_shape shape = {.n_segment = 1, .n_rows = 150, .segment = wide};
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 2, 1, 2);
    static struct list list;
    list.n = 0;
    dr_schedule_walk(&c, &l, &shape, 0, 0, add, &list);
    CU_ASSERT(count(&list, DR_WHAT_QUERY) == 2 * c.n_layer); /* 128 rows and 22 */
    CU_ASSERT(list.call[1].what == DR_WHAT_QUERY && list.call[2].what == DR_WHAT_PARTIAL);
    CU_ASSERT(list.call[3].what == DR_WHAT_QUERY && list.call[3].index == 1);
    CU_ASSERT(list.call[1].bytes * 22 == list.call[3].bytes * 128);
    CU_ASSERT(count(&list, DR_WHAT_SAMPLE_MAX) == 0);
}

static void pairs(void) {
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 2, 3, 1);
    static struct list before, after;
    for (int32_t stage = 0; stage < 3; stage++) {
        after.n = 0;
        dr_schedule_walk(&c, &l, &mixed_shape, stage, 0, add, &after);
        CU_ASSERT(count(&after, DR_WHAT_BOUNDARY) == (stage == 1 ? 2 : 1));
        CU_ASSERT(count(&after, DR_WHAT_BOUNDARY_GATHER) == (stage > 0));
        CU_ASSERT(count(&after, DR_WHAT_EMBED) == (stage == 0));
        CU_ASSERT((count(&after, DR_WHAT_SAMPLE_PICK) > 0) == (stage == 2));
        if (stage > 0) {
            const struct dr_call *send = &before.call[before.n - 1], *recv = &after.call[0];
            CU_ASSERT(send->kind == DR_CALL_SEND && recv->kind == DR_CALL_RECV && send->bytes == recv->bytes);
        }
        before = after;
    }
}

static void costs(void) {
    struct dr_config c = fixture_config();
    static const int32_t form[][3] = {{1, 1, 1}, {3, 1, 3}, {4, 2, 2}, {8, 3, 8}, {2, 3, 1}};
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        struct dr_layout l = fixture_layout(&c, form[i][0], form[i][1], form[i][2]);
        for (int32_t stage = 0; stage < l.pp; stage++) {
            static struct list list;
            uint64_t bytes = 0, sum = 0;
            int32_t calls = 0;
            list.n = 0;
            dr_schedule_walk(&c, &l, &mixed_shape, stage, 0, add, &list);
            dr_schedule_cost(&c, &l, &mixed_shape, stage, &bytes, &calls);
            for (int32_t k = 0; k < list.n; k++) sum += list.call[k].bytes;
            CU_ASSERT(calls == list.n && bytes == sum);
        }
    }
}

/* With the MTP layer the last stage goes on: ids, one layer over all rows, each one key later, and for drafts
 * the calls of a plain draw; then one pass a further draft, with the rows that want it. */
static void drafts(void) {
    struct dr_config c = fixture_config();
    c.n_mtp = 1;
    struct dr_layout l = fixture_layout(&c, 4, 2, 2);
    struct dr_shape_segment s[4];
    const struct dr_step_shape shape = {.n_segment = 4, .n_rows = 112, .segment = s};
    static struct list plain, list;
    memcpy(s, mixed, sizeof s);
    plain.n = 0;
    dr_schedule_walk(&c, &l, &shape, 1, 0, add, &plain);
    l.mtp = true;
    s[0].next = s[1].next = s[3].next = true;
    s[0].n_draft = 3;
    s[3].n_draft = 1;
    s[1].first = 728; /* its 768 keys end with a piece; the layer's 769 do not */
    list.n = plain.n = 0;
    dr_schedule_walk(&c, &l, &shape, 1, 0, add, &list);
    l.mtp = false;
    dr_schedule_walk(&c, &l, &shape, 1, 0, add, &plain);
    l.mtp = true;
    CU_ASSERT_FATAL(list.n > plain.n &&
                    memcmp(list.call, plain.call, (size_t)plain.n * sizeof *list.call) == 0);
    const struct dr_call *k = list.call + plain.n;
    const uint64_t row = (uint64_t)c.dim * 4 * 4; /* of a sum over 4 ranks */
    const struct {
        enum dr_call_what what;
        uint64_t bytes;
    } expected[] = {
        {DR_WHAT_EMBED, 112 * row},
        {DR_WHAT_QUERY, 0},
        {DR_WHAT_PARTIAL, 0},
        {DR_WHAT_PREFILL, 0},
        {DR_WHAT_PREFILL, 0},
        {DR_WHAT_PREFILL, 0},
        {DR_WHAT_PREFILL, dr_footprint_row_bytes(&c, l.cache_type)}, /* one key */
        {DR_WHAT_PREFILL, 70 * dr_footprint_row_bytes(&c, l.cache_type)},
        {DR_WHAT_ATTN_OUT, 112 * row},
        {DR_WHAT_FFN_OUT, 112 * row},
        {DR_WHAT_SAMPLE_MAX, 2 * 4 * DR_SAMPLE_MAX_BYTES},
        {DR_WHAT_SAMPLE_PICK, 2 * 4 * DR_SAMPLE_PICK_BYTES},
        {DR_WHAT_EMBED, row},
        {DR_WHAT_QUERY, 0},
        {DR_WHAT_PARTIAL, 0},
        {DR_WHAT_ATTN_OUT, row},
        {DR_WHAT_FFN_OUT, row},
        {DR_WHAT_SAMPLE_MAX, 4 * DR_SAMPLE_MAX_BYTES},
        {DR_WHAT_SAMPLE_PICK, 4 * DR_SAMPLE_PICK_BYTES},
        {DR_WHAT_EMBED, row},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        CU_ASSERT(k[i].what == expected[i].what &&
                  (expected[i].bytes == 0 || k[i].bytes == expected[i].bytes));
        CU_ASSERT(k[i].layer == (k[i].what >= DR_WHAT_SAMPLE_MAX ? -1 : c.n_layer));
    }
    CU_ASSERT(list.n == plain.n + 12 + 7 + 7);
    plain.n = 0;
    dr_schedule_walk(&c, &l, &shape, 0, 0, add, &plain); /* the first stage does not draft */
    for (int32_t i = 0; i < plain.n; i++) CU_ASSERT(plain.call[i].layer < l.layer_begin[1]);
    uint64_t bytes, sum = 0, hash = dr_schedule_hash(&c, &l, &shape);
    int32_t calls;
    dr_schedule_cost(&c, &l, &shape, 1, &bytes, &calls);
    for (int32_t i = 0; i < list.n; i++) sum += list.call[i].bytes;
    CU_ASSERT(bytes == sum && calls == list.n);
    s[3].n_draft = 2;
    CU_ASSERT(dr_schedule_hash(&c, &l, &shape) != hash);
    s[3].n_draft = 1;
    s[1].next = false;
    CU_ASSERT(dr_schedule_hash(&c, &l, &shape) != hash);
}

/* Every change of a shape that changes a list changes the hash. */
static void hashes(void) {
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 4, 2, 2);
    uint64_t base = dr_schedule_hash(&c, &l, &mixed_shape), seen[16];
    struct dr_shape_segment s[4];
    struct dr_step_shape shape = {.n_segment = 4, .n_rows = 112, .segment = s};
    int32_t n = 0;
    CU_ASSERT(dr_schedule_hash(&c, &l, &mixed_shape) == base);
    for (int32_t i = 0; i < 7; i++) {
        memcpy(s, mixed, sizeof s);
        shape.n_rows = 112;
        switch (i) {
        case 0:
            s[0].top_k = true;
            break;
        case 1:
            s[3].top_p = false;
            break;
        case 2:
            s[3].n_top = 4;
            break;
        case 3:
            s[1].first = 720;
            break; /* another piece */
        case 4:
            s[0].absorbed = false;
            break;
        case 5:
            s[2].n_out_rows = 69;
            break;
        default:
            s[1].n_rows = 41, shape.n_rows = 113;
            break;
        }
        seen[n++] = dr_schedule_hash(&c, &l, &shape);
        CU_ASSERT(seen[n - 1] != base);
        for (int32_t k = 0; k < n - 1; k++) CU_ASSERT(seen[k] != seen[n - 1]);
    }
    l = fixture_layout(&c, 4, 2, 4);
    CU_ASSERT(dr_schedule_hash(&c, &l, &mixed_shape) != base);
}

static void idle(void) {
    struct dr_config c = fixture_config();
    struct dr_layout l = fixture_layout(&c, 4, 2, 2);
    struct dr_step_shape none = {.n_segment = 0};
    static struct list list;
    list.n = 0;
    dr_schedule_walk(&c, &l, &none, 1, 0, add, &list);
    CU_ASSERT(list.n == 0);
}

static void shapes(void) {
    static const uint32_t ids[3] = {1, 2, 3};
    static const struct dr_sampling sampling[3] = {
        {.temperature = 0, .top_k = 5, .top_p = 0.5F, .n_top = -1}, /* greedy: limits mean nothing */
        {.temperature = 1, .top_k = 5, .top_p = 1, .n_top = 3},
        {.temperature = 1, .top_k = 0, .top_p = 0.9F, .n_top = 0},
    };
    static const struct dr_segment segment[4] = {
        {.slot = 0,
         .n_rows = 1,
         .ids = ids,
         .form = DR_FORM_ABSORBED,
         .output = DR_OUTPUT_SAMPLE,
         .n_draft = 2},
        {.slot = 1, .first = 7, .n_rows = 3, .ids = ids, .output = DR_OUTPUT_SAMPLE, .n_verify = 1},
        {.slot = 2, .n_rows = 3, .ids = ids, .has_next = true, .output = DR_OUTPUT_SCORE, .score_top = 4},
        {.slot = 2, .n_rows = 3, .ids = ids, .output = DR_OUTPUT_LOGITS},
    };
    const struct dr_step_plan plan = {.n_segment = 4, .segment = segment};
    struct dr_shape_segment out[4];
    struct dr_step_shape shape;
    dr_plan_shape(&plan, sampling, out, &shape);
    CU_ASSERT(shape.n_rows == 10 && shape.n_segment == 4 && shape.segment == out);
    CU_ASSERT(out[0].absorbed && out[0].sample && !out[0].top_k && !out[0].top_p && out[0].n_top == -1);
    CU_ASSERT(out[0].next && out[1].next && out[2].next && !out[3].next);
    CU_ASSERT(out[0].n_draft == 2 && out[0].n_out_rows == 1 && out[1].n_draft == 0);
    CU_ASSERT(!out[1].absorbed && out[1].n_out_rows == 2 && out[1].top_k && !out[1].top_p &&
              out[1].n_top == 3);
    CU_ASSERT(!out[2].sample && out[2].n_out_rows == 3 && out[2].n_top == 4 && dr_shape_sampled(&out[2]));
    CU_ASSERT(out[3].n_out_rows == 3 && out[3].n_top == -1 && !dr_shape_sampled(&out[3]));
}

/* The map leaves room for every buffer, and for what the MoE op asks. */
static void workspace(void) {
    uint64_t state = 0;
    for (int32_t i = 0; i < 200; i++) {
        struct dr_config c = fixture_config();
        c.n_expert = 8 + 8 * (int32_t)fixture_random(&state, 30);
        c.n_active = 1 + (int32_t)fixture_random(&state, 8);
        c.expert_dim = 8 + (int32_t)fixture_random(&state, 300);
        c.n_shared = 1 + (int32_t)fixture_random(&state, 3);
        int32_t tp = 1 + (int32_t)fixture_random(&state, 8);
        struct dr_layout l;
        struct dr_layout_wish wish = {
            .tp = tp,
            .pp = 1 + (int32_t)fixture_random(&state, 3),
            .cache_width = fixture_random(&state, 2) ? tp : 1,
            .experts = fixture_random(&state, 2) ? DR_EXPERTS_WHOLE : DR_EXPERTS_COLUMNS,
            .context = 512,
            .seqs_max = 1 + (int32_t)fixture_random(&state, 9),
            .step_tokens = 16 + (int32_t)fixture_random(&state, 600),
        };
        CU_ASSERT_FATAL(dr_layout_make(&c, &wish, &l).code == DR_OK);
        for (int32_t rank = 0; rank < l.n_rank; rank++) {
            struct dr_shard s = dr_layout_shard(&c, &l, rank);
            struct dr_work_map map;
            dr_workspace_map(&c, &l, rank, &map);
            for (int32_t b = 0; b < DR_BUF_COUNT; b++)
                CU_ASSERT(map.offset[b] % 64 == 0 && map.offset[b] + map.size[b] <= map.bytes);
            int32_t width = dr_max_i32(dr_range_len(s.expert_cols), dr_range_len(s.shared_cols));
            size_t experts =
                dr_moe_scratch_bytes(l.step_tokens, c.dim, width, c.n_active, dr_range_len(s.experts));
            size_t dense = dr_moe_scratch_bytes(l.step_tokens, c.dim, dr_range_len(s.mlp_cols), 0, 0);
            for (int32_t layer = s.layers.begin; layer < s.layers.end; layer++)
                CU_ASSERT(map.size[DR_BUF_MOE] >= (dr_config_is_moe(&c, layer) ? experts : dense));
            CU_ASSERT(map.size[DR_BUF_INPUT] >= dr_linear_scratch_bytes(dr_range_len(s.heads), c.kv_lora));
            CU_ASSERT(map.size[DR_BUF_INPUT] >= dr_linear_scratch_bytes(dr_min_i32(l.step_tokens, 256),
                                                                        dr_range_len(s.heads) * c.v_dim));
        }
    }
}

static CU_TestInfo tests[] = {
    {"one rank makes no call", one_rank},
    {"a mixed step lists each exchange once a layer and batch", counted},
    {"absorbed rows are exchanged 128 at a time", batches},
    {"each send has its receive on the next stage", pairs},
    {"the cost is the sum over the list", costs},
    {"a shape with another list has another hash", hashes},
    {"drafts pass through the MTP layer of the last stage", drafts},
    {"a plan without segments lists nothing", idle},
    {"a plan's shape follows from output and sampling", shapes},
    {"the map of the step's buffers has room for all of them", workspace},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_schedule = {.pName = "worker/schedule", .pTests = tests};
