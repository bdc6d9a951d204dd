/* test_route.c - the choice of experts.
 * In:   random and planted logits.      Out: checks against a choice made by sorting, in double.
 * Owns: nothing.
 * Why:  most published MoE bugs are here. */
#include <stdlib.h>

#include "tests/kernels/material.h"
#include "tests/support/runner.h"

enum { GREEDY = DR_ROUTE_SOFTMAX_GREEDY, GROUP = DR_ROUTE_SOFTMAX_GROUP, SIGMOID = DR_ROUTE_SIGMOID_NOAUX };

struct ranked {
    double value;
    int32_t index;
};

static int by_value(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->index - y->index;
}

static int by_index(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Scores as f32 of double arithmetic: selection then compares numbers that differ from the kernel's by
 * rounding only. */
static void reference(const struct dr_route *a, const float *logits, int32_t *expert, double *weight) {
    struct ranked all[512], groups[64];
    double score[512], sum = 0, max = -INFINITY;
    int32_t size = a->n_group > 1 ? a->n_expert / a->n_group : a->n_expert;
    for (int32_t e = 0; e < a->n_expert; e++) max = fmax(max, (double)logits[e]);
    for (int32_t e = 0; e < a->n_expert; e++) sum += exp((double)logits[e] - max);
    for (int32_t e = 0; e < a->n_expert; e++) {
        score[e] =
            a->kind == SIGMOID ? 1 / (1 + exp(-(double)logits[e])) : exp((double)logits[e] - max) / sum;
        all[e] = (struct ranked){score[e] + (a->bias ? (double)a->bias[e] : 0), e};
    }
    if (a->kind != GREEDY && a->n_group > 1) {
        for (int32_t g = 0; g < a->n_group; g++) {
            struct ranked inside[512];
            memcpy(inside, all + g * size, (size_t)size * sizeof *inside);
            qsort(inside, (size_t)size, sizeof *inside, by_value);
            groups[g] =
                (struct ranked){inside[0].value + (a->kind == SIGMOID && size > 1 ? inside[1].value : 0), g};
        }
        qsort(groups, (size_t)a->n_group, sizeof *groups, by_value);
        for (int32_t k = a->n_group_active; k < a->n_group; k++)
            for (int32_t e = 0; e < size; e++) all[groups[k].index * size + e].value = -INFINITY;
    }
    qsort(all, (size_t)a->n_expert, sizeof *all, by_value);
    for (int32_t k = 0; k < a->n_active; k++) expert[k] = all[k].index;
    qsort(expert, (size_t)a->n_active, sizeof *expert, by_index);
    sum = 1e-20;
    for (int32_t k = 0; k < a->n_active; k++) sum += score[expert[k]];
    for (int32_t k = 0; k < a->n_active; k++)
        weight[k] = score[expert[k]] / (a->norm_topk ? sum : 1) * (double)a->scale;
}

static void route_three_routers(void) {
    static const int32_t shape[][4] = {/* experts, active, groups, active groups */
                                       {16, 4, 4, 2},  {256, 8, 8, 4}, {64, 6, 1, 1},
                                       {160, 6, 8, 3}, {7, 7, 1, 1},   {6, 2, 6, 3}};
    struct rig r = rig_init(3);
    for (int32_t kind = GREEDY; kind <= SIGMOID; kind++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            for (int norm = 0; norm < 2; norm++) {
                struct pool p = {0};
                enum { T = 33 };
                const int32_t *d = shape[i];
                struct dr_route a = {.expert = pool_take(&p, T * (size_t)d[1] * 4),
                                     .weight = pool_take(&p, T * (size_t)d[1] * 4),
                                     .logits = pool_floats(&p, T * (size_t)d[0], i + 77, 4),
                                     .bias = kind == SIGMOID ? pool_floats(&p, (size_t)d[0], i, 0.3f) : NULL,
                                     .n_tok = T,
                                     .n_expert = d[0],
                                     .n_active = d[1],
                                     .n_group = d[2],
                                     .n_group_active = d[3],
                                     .kind = kind,
                                     .norm_topk = norm,
                                     .scale = 2.5f};
                CHECK_OK(r.ops->route(&a, &r.stream));
                for (size_t t = 0; t < T; t++) {
                    int32_t expert[512];
                    double weight[512];
                    reference(&a, a.logits + t * (size_t)d[0], expert, weight);
                    CU_ASSERT_EQUAL(memcmp(expert, a.expert + t * (size_t)d[1], (size_t)d[1] * 4), 0);
                    CU_ASSERT_TRUE(near_double(a.weight + t * (size_t)d[1], weight, (size_t)d[1], 0, 5e-7));
                }
                pool_fini(&p);
            }
    rig_fini(&r);
}

static struct dr_route small(int32_t *expert, float *weight, const float *logits, int32_t kind) {
    return (struct dr_route){.expert = expert,
                             .weight = weight,
                             .logits = logits,
                             .n_tok = 1,
                             .n_expert = 8,
                             .n_active = 2,
                             .n_group = 1,
                             .n_group_active = 1,
                             .kind = kind,
                             .scale = 1};
}

static void route_ties(void) {
    struct rig r = rig_init(1);
    int32_t expert[2];
    float weight[2], logits[8] = {0, 1, 1, 0, 1, 1, 0, 1};
    for (int32_t kind = GREEDY; kind <= SIGMOID; kind++) {
        struct dr_route a = small(expert, weight, logits, kind);
        CHECK_OK(r.ops->route(&a, &r.stream));
        CU_ASSERT_TRUE(expert[0] == 1 && expert[1] == 2);
        if (kind == GREEDY) continue;
        a.n_group = 4; /* groups (0,1) (1,0) (1,1) (0,1): group 2 leads by its sum, else the lowest */
        a.n_group_active = 1;
        CHECK_OK(r.ops->route(&a, &r.stream));
        if (kind == SIGMOID) CU_ASSERT_TRUE(expert[0] == 4 && expert[1] == 5);
        if (kind == GROUP) CU_ASSERT_TRUE(expert[0] == 0 && expert[1] == 1);
    }
    rig_fini(&r);
}

static void route_bias_selects_only(void) {
    struct rig r = rig_init(1);
    int32_t expert[2];
    float weight[2], logits[8] = {3, 2, 1, 0, -1, -2, -18.5f, -19}, bias[8] = {0, 0, 0, 0, 0, 0, 12, 12};
    struct dr_route a = small(expert, weight, logits, SIGMOID);
    a.bias = bias;
    a.norm_topk = true;
    a.scale = 2.5f;
    CHECK_OK(r.ops->route(&a, &r.stream));
    CU_ASSERT_TRUE(expert[0] == 6 && expert[1] == 7);
    /* sigmoid(-18.5) = 9.2e-9 vanishes beside a bias of 12, but not in the weight */
    double w6 = 1 / (1 + exp(18.5)), w7 = 1 / (1 + exp(19.0)),
           want[2] = {2.5 * w6 / (w6 + w7), 2.5 * w7 / (w6 + w7)};
    CU_ASSERT_TRUE(near_double(weight, want, 2, 0, 5e-7));
    rig_fini(&r);
}

static void
route_masked_groups_lose(void) { /* negative biased scores in the kept group still beat the masked one */
    struct rig r = rig_init(1);
    int32_t expert[2];
    float weight[2], logits[8] = {9, 9, 9, 9, 0, 0, 0, 0}, bias[8] = {-3, -3, -3, -3, -9, -9, 1, -9};
    struct dr_route a = small(expert, weight, logits, SIGMOID);
    a.bias = bias;
    a.n_group = 2;
    a.n_group_active = 1;
    CHECK_OK(r.ops->route(&a, &r.stream));
    CU_ASSERT_TRUE(expert[0] == 0 &&
                   expert[1] == 1); /* sums -4 and -7: expert 6 alone would have won everything */
    rig_fini(&r);
}

static void route_nan_is_contained(void) {
    struct rig r = rig_init(2);
    struct pool p = {0};
    float *logits = pool_floats(&p, 3 * 8, 5, 2), weight[6], alone_weight[2];
    int32_t expert[6], alone[2];
    for (int e = 0; e < 8; e++) logits[8 + e] = NAN;
    for (int32_t kind = GREEDY; kind <= SIGMOID; kind++) {
        struct dr_route a = small(expert, weight, logits, kind);
        a.n_tok = 3;
        CHECK_OK(r.ops->route(&a, &r.stream));
        CU_ASSERT_TRUE(expert[2] == 0 && expert[3] == 1);
        CU_ASSERT_TRUE(isnan(weight[2]) && isnan(weight[3]));
        for (int t = 0; t < 3; t += 2) {
            struct dr_route b = small(alone, alone_weight, logits + 8 * t, kind);
            CHECK_OK(r.ops->route(&b, &r.stream));
            CU_ASSERT_EQUAL(memcmp(alone, expert + 2 * t, sizeof alone), 0);
            CU_ASSERT_TRUE(same_floats(alone_weight, weight + 2 * t, 2) && !isnan(weight[2 * t]));
        }
    }
    struct dr_route none = small(expert, weight, logits, GREEDY);
    none.n_tok = 0;
    CHECK_OK(r.ops->route(&none, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}

static CU_TestInfo cases[] = {
    {"the three routers agree with sorting in double, with groups and without", route_three_routers},
    {"ties take the lowest index among experts and among groups", route_ties},
    {"the bias selects, the weight comes from the unbiased score", route_bias_selects_only},
    {"masked groups lose to negative scores", route_masked_groups_lose},
    {"NaN logits give valid experts, NaN weights, and touch no other row", route_nan_is_contained},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_route = {.pName = "kernels/route", .pTests = cases};
