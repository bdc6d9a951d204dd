/* test_sampling.c - the sampler ops.
 * In:   random logits and wishes.      Out: checks against sorting and double; draws over 1 to 8 shards of
 * the vocabulary. Owns: nothing. Why:  for equal logits the drawn token must be the same however the
 * vocabulary is cut, and its frequencies those of softmax. */
#include <stdlib.h>

#include "kernels/exp.h"
#include "tests/kernels/material.h"
#include "tests/support/runner.h"

/* ---- wishes ---- */

static double adjusted(const struct dr_sample_row *w, const float *logits, int32_t n, int32_t first,
                       int32_t i) {
    (void)n;
    double v = (double)logits[i];
    if (w->mask && !(w->mask[i >> 5] & (uint32_t)1 << (i & 31))) v = -INFINITY;
    if (w->n_masked_from && first + i >= w->n_masked_from) v = -INFINITY;
    for (int32_t b = 0; b < w->n_bias; b++)
        if (w->bias_id[b] == (uint32_t)(first + i)) v += (double)w->bias[b];
    int output = w->count_output ? w->count_output[i] : 0, prompt = w->count_prompt ? w->count_prompt[i] : 0;
    for (int32_t k = 0; k < w->n_seen; k++) output += w->seen[k] == (uint32_t)(first + i);
    if (output + prompt) v = v > 0 ? v / (double)w->repetition : v * (double)w->repetition;
    v -= (double)w->frequency * output;
    if (output) v -= (double)w->presence;
    return w->temperature > 0 ? v / (double)w->temperature : v;
}

static void adjust_formula(void) {
    struct rig r = rig_init(2);
    struct pool p = {0};
    enum { N = 100, FIRST = 300, ROWS = 6 };
    float *logits = pool_floats(&p, ROWS * N, 3, 10), *y = pool_take(&p, ROWS * N * sizeof *y);
    uint16_t prompt[N] = {0}, output[N] = {0};
    uint32_t mask[4] = {0xfffffff7, 0x0fffffff, 0xffffffff, 0xf},
             bias_id[] = {299, 300, 350, 399, 400, 350, 4000000000u},
             seen[DR_SEEN_MAX] = {299, 300, 351, 351,
                                  399, 400, 351, 4000000000u}; /* some are others' columns */
    float bias[] = {100, 1, -2, 3, 100, 0.5f, 100};
    for (int i = 0; i < N; i++)
        prompt[i] = i % 3 == 0 ? (uint16_t)i : 0, output[i] = i % 4 == 0 ? (uint16_t)(i / 4) : 0;
    struct dr_sample_row rows[ROWS] = {
        {.temperature = 0, .repetition = 1},
        {.temperature = 0.7f, .repetition = 1, .mask = mask, .n_masked_from = 390},
        {.temperature = 1, .repetition = 1, .bias_id = bias_id, .bias = bias, .n_bias = 7},
        {.temperature = 1,
         .repetition = 1.3f,
         .count_prompt = prompt,
         .count_output = output,
         .seen = seen,
         .n_seen = DR_SEEN_MAX},
        {.temperature = 1,
         .repetition = 1,
         .frequency = 0.25f,
         .presence = -1.5f,
         .count_prompt = prompt,
         .count_output = output},
        {.temperature = 1.9f,
         .repetition = 0.8f,
         .frequency = 0.5f,
         .presence = 0.5f,
         .count_prompt = prompt,
         .count_output = output,
         .seen = seen,
         .n_seen = DR_SEEN_MAX,
         .bias_id = bias_id,
         .bias = bias,
         .n_bias = 7,
         .mask = mask,
         .n_masked_from = 100},
    };
    CHECK_OK(r.ops->logit_adjust(
        &(struct dr_logit_adjust){
            .adjusted = y, .logits = logits, .rows = rows, .n_row = ROWS, .n = N, .first = FIRST},
        &r.stream));
    for (int row = 0; row < ROWS; row++) {
        double want[N];
        for (int32_t i = 0; i < N; i++) want[i] = adjusted(rows + row, logits + row * N, N, FIRST, i);
        CU_ASSERT_TRUE(near_double(y + row * N, want, N, 4e-6, 5e-7));
    }
    CU_ASSERT_TRUE(same_floats(y, logits, N)); /* no wish: no change */
    CU_ASSERT_EQUAL(y[N + 3], -INFINITY);
    CU_ASSERT_EQUAL(y[N + 90], -INFINITY);
    CHECK_OK(r.ops->logit_adjust(&(struct dr_logit_adjust){.n_row = 0}, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}

/* ---- one shard ---- */

static void rows_find_bad_values(void) {
    struct rig r = rig_init(2);
    enum { N = 77, ROWS = 6 };
    float x[ROWS * N], max[ROWS];
    int32_t bad[ROWS];
    for (int i = 0; i < ROWS * N; i++) x[i] = -(float)(i % N) - 3;
    x[1 * N + 40] = NAN;
    x[2 * N + 76] = INFINITY;
    for (int i = 0; i < N; i++) x[3 * N + i] = -INFINITY;
    x[4 * N + 5] = -INFINITY;
    x[5 * N + 0] = -NAN;
    CHECK_OK(r.ops->row_max(&(struct dr_row_max){.max = max, .bad = bad, .x = x, .n_row = ROWS, .n = N},
                            &r.stream));
    static const int32_t want_bad[ROWS] = {0, 1, 1, 0, 0, 1};
    static const float want_max[ROWS] = {-3, -3, INFINITY, -INFINITY, -3, -4};
    for (int i = 0; i < ROWS; i++) {
        CU_ASSERT_EQUAL(bad[i], want_bad[i]);
        CU_ASSERT_EQUAL(max[i], want_max[i]);
    }
    rig_fini(&r);
}

static void keys_keep_order(void) {
    static const float up[] = {-INFINITY, -3e38f, -1,         -1e-40f, -0.0f,   0.0f,
                               1e-40f,    1,      1.0000001f, 3e38f,   INFINITY};
    for (size_t i = 0; i < sizeof up / sizeof *up; i++) {
        float back = dr_key_float(dr_float_key(up[i]));
        CU_ASSERT_TRUE(memcmp(&back, up + i, 4) == 0);
        if (i > 0) CU_ASSERT_TRUE(dr_float_key(up[i]) > dr_float_key(up[i - 1]));
    }
}

static void masses_are_exact(void) {
    struct rig r = rig_init(1);
    struct pool p = {0};
    enum { N = 500 };
    float *x = pool_floats(&p, N, 9, 20), max = 19.98f;
    x[3] = -INFINITY;
    x[4] = max;
    uint32_t least[2] = {0, dr_float_key(-5)};
    for (int k = 0; k < 2; k++) {
        uint64_t mass = 1, want = 0;
        double approximate = 0;
        for (int i = 0; i < N; i++)
            if (k == 0 || x[i] >= -5) {
                want += (uint64_t)((double)dr_exp(x[i] - max) * 1099511627776.0);
                approximate += exp((double)x[i] - (double)max);
            }
        CHECK_OK(r.ops->row_mass(
            &(struct dr_row_mass){.mass = &mass, .x = x, .max = &max, .least = least + k, .n_row = 1, .n = N},
            &r.stream));
        CU_ASSERT_EQUAL(mass, want);
        CU_ASSERT_TRUE(fabs((double)mass / 0x1p40 / approximate - 1) < 1e-6);
    }
    float none[2] = {-INFINITY, -INFINITY}, no_max = -INFINITY;
    uint64_t mass = 1;
    CHECK_OK(r.ops->row_mass(
        &(struct dr_row_mass){.mass = &mass, .x = none, .max = &no_max, .least = least, .n_row = 1, .n = 2},
        &r.stream));
    CU_ASSERT_EQUAL(mass, 0);
    pool_fini(&p);
    rig_fini(&r);
}

static void top_values_sorted(void) {
    struct rig r = rig_init(2);
    struct pool p = {0};
    enum { N = 60, K = 20, FIRST = 1000 };
    float *x = pool_floats(&p, 2 * N, 9, 3), value[2 * K];
    uint32_t id[2 * K];
    for (int i = 0; i < N; i++) x[i] = floorf(x[i]);                /* many ties */
    for (int i = 7; i < N; i++) x[N + i] = i % 2 ? -INFINITY : NAN; /* seven values only */
    CHECK_OK(r.ops->row_top(
        &(struct dr_row_top){.value = value, .id = id, .x = x, .n_row = 2, .n = N, .first = FIRST, .k = K},
        &r.stream));
    for (int k = 0; k < K; k++) {
        int ahead = 0, at = (int)id[k] - FIRST;
        CU_ASSERT_TRUE_FATAL(at >= 0 && at < N);
        CU_ASSERT_EQUAL(value[k], x[at]);
        for (int i = 0; i < N; i++) ahead += x[i] > x[at] || (x[i] == x[at] && i < at);
        CU_ASSERT_EQUAL(ahead, k);
    }
    for (int k = 7; k < K; k++) CU_ASSERT_TRUE(value[K + k] == -INFINITY && id[K + k] == UINT32_MAX);
    for (int k = 0; k < 7; k++) CU_ASSERT_TRUE(id[K + k] < FIRST + 7);
    CHECK_OK(r.ops->row_top(&(struct dr_row_top){.n_row = 1, .n = N, .x = x, .k = 0}, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}

/* ---- shards ---- */

struct shards {
    struct rig *r;
    const float *x; /* [n] adjusted logits of one row */
    int32_t n, c;
};

static int32_t cut(const struct shards *s, int32_t i) {
    return i * s->n / s->c;
}

static float global_max(const struct shards *s) {
    float most = -INFINITY;
    for (int32_t i = 0; i < s->c; i++) {
        float max;
        int32_t bad;
        CHECK_OK(s->r->ops->row_max(
            &(struct dr_row_max){
                .max = &max, .bad = &bad, .x = s->x + cut(s, i), .n_row = 1, .n = cut(s, i + 1) - cut(s, i)},
            &s->r->stream));
        CU_ASSERT_EQUAL(bad, 0);
        most = fmaxf(most, max);
    }
    return most;
}

/* Radix descent over the shards: largest key such that the values at or above it number at least `count`, or
 * weigh at least `share` of all. */
static uint32_t descend(const struct shards *s, float max, uint32_t count, double share) {
    uint32_t prefix = 0, least = 0;
    uint64_t need = 0, count_above = 0, mass_above = 0;
    for (int32_t shift = 24; shift >= 0; shift -= 8) {
        uint64_t counts[256] = {0}, masses[256] = {0}, total = 0;
        for (int32_t i = 0; i < s->c; i++) {
            uint32_t one_count[256];
            uint64_t one_mass[256];
            CHECK_OK(s->r->ops->row_bins(&(struct dr_row_bins){.count = one_count,
                                                               .mass = one_mass,
                                                               .x = s->x + cut(s, i),
                                                               .max = &max,
                                                               .prefix = &prefix,
                                                               .least = &least,
                                                               .n_row = 1,
                                                               .n = cut(s, i + 1) - cut(s, i),
                                                               .shift = shift},
                                         &s->r->stream));
            for (int b = 0; b < 256; b++)
                counts[b] += one_count[b], masses[b] += one_mass[b], total += one_mass[b];
        }
        if (shift == 24) need = (uint64_t)(share * (double)total);
        int b = 255;
        for (; b > 0; b--) {
            if (count ? count_above + counts[b] >= count : mass_above + masses[b] >= need) break;
            count_above += counts[b];
            mass_above += masses[b];
        }
        prefix = prefix << 8 | (uint32_t)b;
    }
    return prefix;
}

static uint32_t draw(const struct shards *s, uint32_t least, const struct dr_sample_row *w) {
    float best = -INFINITY;
    uint32_t winner = UINT32_MAX;
    for (int32_t i = 0; i < s->c; i++) {
        float score;
        uint32_t id;
        CHECK_OK(s->r->ops->row_pick(&(struct dr_row_pick){.score = &score,
                                                           .id = &id,
                                                           .x = s->x + cut(s, i),
                                                           .least = &least,
                                                           .rows = w,
                                                           .n_row = 1,
                                                           .n = cut(s, i + 1) - cut(s, i),
                                                           .first = cut(s, i)},
                                     &s->r->stream));
        if (score > best) best = score, winner = id; /* shards in order: a tie keeps the lower id */
    }
    return winner;
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void shards_draw_alike(void) {
    struct rig r = rig_init(2);
    for (uint64_t trial = 0; trial < 40; trial++) {
        struct pool p = {0};
        enum { N = 1003 };
        float *x = pool_floats(&p, N, trial, 6), *sorted = pool_take(&p, N * sizeof *x);
        if (trial % 4 == 0)
            for (int i = 0; i < N; i++) x[i] = floorf(x[i] * 2) / 2;    /* ties at every border */
        for (int i = 0; i < 100; i++) x[(i * 37 + 11) % N] = -INFINITY; /* masked */
        memcpy(sorted, x, N * sizeof *x);
        qsort(sorted, N, sizeof *x, descending);
        struct dr_sample_row w = {
            .temperature = trial % 5 == 1 ? 0 : 1, .repetition = 1, .seed = trial * 977, .position = trial};
        struct shards whole = {.r = &r, .x = x, .n = N, .c = 1};
        float max = global_max(&whole);
        CU_ASSERT_EQUAL(max, sorted[0]);
        uint32_t k = 1 + (uint32_t)trial * 7 % 90, top_k = descend(&whole, max, k, 0),
                 top_p = descend(&whole, max, 0, 0.8);
        CU_ASSERT_EQUAL(dr_key_float(top_k), sorted[k - 1]);
        double all = 0, above = 0, at_or_above = 0;
        for (int i = 0; i < N; i++) {
            double e = exp((double)x[i] - (double)max);
            all += e;
            if (x[i] > dr_key_float(top_p)) above += e;
            if (x[i] >= dr_key_float(top_p)) at_or_above += e;
        }
        CU_ASSERT_TRUE(above < 0.8 * all * (1 + 1e-6) && at_or_above > 0.8 * all * (1 - 1e-6));
        uint32_t least = top_k > top_p ? top_k : top_p, id = draw(&whole, least, &w);
        CU_ASSERT_TRUE_FATAL(id < N);
        CU_ASSERT_TRUE(dr_float_key(x[id]) >= least);
        if (w.temperature == 0) CU_ASSERT_EQUAL(x[id], max);
        for (int32_t c = 2; c <= 8; c++) {
            struct shards s = {.r = &r, .x = x, .n = N, .c = c};
            CU_ASSERT_EQUAL(global_max(&s), max);
            CU_ASSERT_EQUAL(descend(&s, max, k, 0), top_k);
            CU_ASSERT_EQUAL(descend(&s, max, 0, 0.8), top_p);
            CU_ASSERT_EQUAL(draw(&s, least, &w), id);
        }
        pool_fini(&p);
    }
    rig_fini(&r);
}

static void greedy_ties_take_the_lowest(void) {
    struct rig r = rig_init(1);
    float x[12] = {0, 5, 1, 5, 5, 2, 5, 0, 0, 5, 5, 1};
    struct dr_sample_row w = {.temperature = 0, .repetition = 1};
    for (int32_t c = 1; c <= 8; c++) {
        struct shards s = {.r = &r, .x = x, .n = 12, .c = c};
        CU_ASSERT_EQUAL(draw(&s, 0, &w), 1);
    }
    rig_fini(&r);
}

static void nothing_allowed_nothing_drawn(void) {
    struct rig r = rig_init(1);
    float x[3] = {-INFINITY, NAN, -INFINITY};
    struct dr_sample_row w = {.temperature = 1, .repetition = 1, .seed = 5};
    struct shards s = {.r = &r, .x = x, .n = 3, .c = 1};
    CU_ASSERT_EQUAL(draw(&s, 0, &w), UINT32_MAX);
    w.temperature = 0;
    CU_ASSERT_EQUAL(draw(&s, 0, &w), UINT32_MAX);
    rig_fini(&r);
}

/* Draws of 40,000 positions with one seed against softmax: chi-square with 9 degrees of freedom; 27.9 is
 * its 99.9 % point. Nothing here is random: the seed is fixed. */
static void draws_follow_softmax(void) {
    struct rig r = rig_init(1);
    enum { N = 10, DRAWS = 40000 };
    float x[N] = {0, 1, 2, -1, 0.5f, 1.5f, -2, 2.5f, -0.5f, 1};
    double sum = 0, chi = 0;
    int seen[N] = {0};
    struct shards s = {.r = &r, .x = x, .n = N, .c = 1};
    for (int i = 0; i < DRAWS; i++) {
        struct dr_sample_row w = {.temperature = 1, .repetition = 1, .seed = 2024, .position = (uint64_t)i};
        seen[draw(&s, 0, &w)]++;
    }
    for (int i = 0; i < N; i++) sum += exp((double)x[i]);
    for (int i = 0; i < N; i++) {
        double want = DRAWS * exp((double)x[i]) / sum;
        chi += (seen[i] - want) * (seen[i] - want) / want;
    }
    CU_ASSERT_TRUE(chi < 27.9);
    rig_fini(&r);
}

static void rows_are_independent(void) {
    struct rig r = rig_init(3);
    struct pool p = {0};
    enum { ROWS = 9, N = 301, FIRST = 77 };
    float *x = pool_floats(&p, ROWS * N, 4, 5), score[ROWS], one_score;
    uint32_t id[ROWS], one_id, least[ROWS];
    struct dr_sample_row rows[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        rows[i] = (struct dr_sample_row){
            .temperature = i % 3 ? 1 : 0, .repetition = 1, .seed = i, .position = i * 3};
        least[i] = dr_float_key((float)i - 6);
    }
    struct dr_row_pick a = {.score = score,
                            .id = id,
                            .x = x,
                            .least = least,
                            .rows = rows,
                            .n_row = ROWS,
                            .n = N,
                            .first = FIRST};
    CHECK_OK(r.ops->row_pick(&a, &r.stream));
    for (int i = 0; i < ROWS; i++) {
        float best = -INFINITY;
        uint32_t want = UINT32_MAX;
        for (uint32_t j = 0; j < N; j++) {
            float v = x[i * N + (int)j],
                  g = i % 3 ? dr_rng_gumbel(rows[i].seed, rows[i].position, FIRST + j) : 0;
            if (v >= (float)i - 6 && v + g > best) best = v + g, want = FIRST + j;
        }
        CU_ASSERT_TRUE(id[i] == want && score[i] == best);
        struct dr_row_pick b = {.score = &one_score,
                                .id = &one_id,
                                .x = x + i * N,
                                .least = least + i,
                                .rows = rows + i,
                                .n_row = 1,
                                .n = N,
                                .first = FIRST};
        CHECK_OK(r.ops->row_pick(&b, &r.stream));
        CU_ASSERT_TRUE(one_id == id[i] && one_score == score[i]);
    }
    CHECK_OK(r.ops->row_pick(&(struct dr_row_pick){.n_row = 0}, &r.stream));
    CHECK_OK(r.ops->row_max(&(struct dr_row_max){.n_row = 0}, &r.stream));
    CHECK_OK(r.ops->row_mass(&(struct dr_row_mass){.n_row = 0}, &r.stream));
    CHECK_OK(r.ops->row_bins(&(struct dr_row_bins){.n_row = 0}, &r.stream));
    pool_fini(&p);
    rig_fini(&r);
}

static CU_TestInfo cases[] = {
    {"mask, bias, penalties and temperature act in their order", adjust_formula},
    {"NaN and +inf are flagged, -inf is not", rows_find_bad_values},
    {"keys keep the order of floats and convert back", keys_keep_order},
    {"masses are the integer sums of the project's exponential", masses_are_exact},
    {"the top values are sorted, ties by lowest id, absent ones marked", top_values_sorted},
    {"1 to 8 shards find the same thresholds and draw the same token", shards_draw_alike},
    {"greedy ties take the lowest id on any cut", greedy_ties_take_the_lowest},
    {"without an allowed value nothing is drawn", nothing_allowed_nothing_drawn},
    {"40,000 draws have the frequencies of softmax", draws_follow_softmax},
    {"each row draws alone", rows_are_independent},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_sampling = {.pName = "kernels/sampling", .pTests = cases};
