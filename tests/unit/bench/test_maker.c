/* test_maker.c - made checkpoints: their tensors, their bytes, their spread.
 * In:   shipped and golden configs.      Out: CUnit results.
 * Owns: temporary folders.
 * Why:  a bench is only as true as the model it runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/size.h"
#include "model/roles.h"
#include "tests/bench/checkpoint/recipe.h"
#include "tests/support/runner.h"
#include "tests/unit/bench/scratch.h"

static const enum dr_dtype both[] = {DR_DTYPE_F8_E4M3, DR_DTYPE_BF16};

/* A made checkpoint, opened. */
struct made {
    struct scratch scratch;
    struct dr_maker_report report;
    struct dr_config config;
    struct dr_tensors *tensors;
};

static bool opened(struct made *m, const struct dr_maker_wish *wish) {
    dr_status st = dr_maker_run(wish, &m->report);
    if (st.code == DR_OK) st = dr_config_load(wish->dir, &m->config);
    if (st.code == DR_OK) st = dr_tensors_open(wish->dir, &m->config, &m->tensors);
    if (st.code != DR_OK) printf("  %s\n", dr_error_text());
    CU_ASSERT_EQUAL(st.code, DR_OK);
    return st.code == DR_OK;
}

static bool make(struct made *m, const char *config, enum dr_dtype dtype) {
    *m = (struct made){.tensors = NULL};
    scratch_init(&m->scratch);
    const struct dr_maker_wish wish = scratch_wish(&m->scratch, config, dtype);
    return opened(m, &wish);
}

static void drop(struct made *m) {
    dr_tensors_destroy(m->tensors);
    scratch_fini(&m->scratch);
}

static uint64_t elements(const struct dr_config *c, enum dr_role role) {
    int32_t rows, cols;
    dr_role_shape(c, role, &rows, &cols);
    return (uint64_t)rows * (uint64_t)cols;
}

/* Sum over the table of roles, without the recipe. */
static uint64_t n_param(const struct dr_config *c) {
    uint64_t sum = 0;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        if (scope == DR_SCOPE_MODEL && dr_role_wanted(c, role, 0)) sum += elements(c, role);
        for (int32_t layer = 0; layer < c->n_layer + c->n_mtp && scope != DR_SCOPE_MODEL; layer++) {
            uint64_t times = scope == DR_SCOPE_EXPERT ? (uint64_t)c->n_expert : 1;
            if (dr_role_wanted(c, role, layer)) sum += times * elements(c, role);
        }
    }
    return sum;
}

/* The expected counts are sums by hand over the dimensions in the config files: attention, MLPs, norms. */
static void counts(void) {
    static const struct {
        const char *config;
        uint64_t n_param;
    } shipped[] = {{"bench/configs/v3slice.json", 5740403808u},
                   {"bench/configs/lite16.json", 15423239296u},
                   {"bench/configs/tiny.json", 6071832u}};
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        for (size_t k = 0; k < 2; k++) {
            char text[65536] = "";
            struct dr_config c;
            struct dr_recipe r;
            FILE *f = fopen(scratch_path(shipped[i].config), "rb");
            CU_ASSERT_FATAL(f != NULL);
            size_t n = fread(text, 1, sizeof text, f);
            (void)fclose(f);
            CU_ASSERT_EQUAL_FATAL(dr_config_parse(text, n, NULL, 0, &c).code, DR_OK);
            CU_ASSERT_EQUAL(n_param(&c), shipped[i].n_param);
            CU_ASSERT_EQUAL_FATAL(dr_recipe_init(&c, both[k], (uint64_t)4 << 30, &r).code, DR_OK);
            CU_ASSERT_EQUAL(r.n_param, shipped[i].n_param);
            dr_recipe_fini(&r);
        }
    }
}

typedef void each_tensor(const struct made *m, const struct dr_tensor *t, enum dr_role role);

static void walk(const struct made *m, each_tensor *visit) {
    const struct dr_config *c = &m->config;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        int32_t layers = scope == DR_SCOPE_MODEL ? 1 : c->n_layer + c->n_mtp;
        for (int32_t layer = 0; layer < layers; layer++) {
            if (!dr_role_wanted(c, role, layer)) continue;
            for (int32_t e = 0; e < (scope == DR_SCOPE_EXPERT ? c->n_expert : 1); e++)
                visit(m, dr_tensors_get(m->tensors, role, layer, e), role);
        }
    }
}

static void check_type(const struct made *m, const struct dr_tensor *t, enum dr_role role) {
    int32_t rows, cols;
    dr_role_shape(&m->config, role, &rows, &cols);
    CU_ASSERT(t->rows == rows && t->cols == cols);
    bool plain = dr_role_form(role) != DR_FORM_LINEAR || role == DR_ROLE_MTP_EH; /* never FP8 in releases */
    if (!m->config.fp8) {
        CU_ASSERT_EQUAL(t->dtype, DR_DTYPE_BF16);
    } else if (role == DR_ROLE_ROUTER_BIAS) {
        CU_ASSERT_EQUAL(t->dtype, DR_DTYPE_F32);
    } else {
        CU_ASSERT_EQUAL(t->dtype, plain ? DR_DTYPE_BF16 : DR_DTYPE_F8_E4M3);
    }
    if (t->dtype == DR_DTYPE_F8_E4M3)
        CU_ASSERT(t->scale_rows == dr_ceil_div(rows, 128) && t->scale_cols == dr_ceil_div(cols, 128));
    CU_ASSERT_EQUAL(t->offset % dr_dtype_bytes(t->dtype), 0);
    CU_ASSERT(t->scale_fd < 0 || t->scale_offset % 4 == 0);
}

static void types(void) {
    for (size_t k = 0; k < 2; k++) {
        struct made m;
        if (make(&m, "tiny", both[k])) {
            CU_ASSERT_EQUAL(m.config.fp8, both[k] == DR_DTYPE_F8_E4M3);
            CU_ASSERT_EQUAL(m.report.n_param, n_param(&m.config));
            CU_ASSERT_EQUAL(m.report.n_tensor, dr_tensors_count(m.tensors));
            CU_ASSERT_EQUAL(scratch_count(m.scratch.out), 2); /* config.json, model.safetensors */
            walk(&m, check_type);
        }
        drop(&m);
    }
}

/* Ragged blocks, no q_lora, tied head, softmax routers, an MTP layer, no experts: whatever the engine reads.
 */
static void all_configs(void) {
    static const char *const names[] = {"dense-fp8", "kimi-k2", "moonlight", "v2-group", "v2-lite",
                                        "v3-bf16",   "v3-fp8",  "v3-mtp",    "v3-rope2"};
    for (size_t i = 0; i < 2 * sizeof names / sizeof *names; i++) {
        struct made m = {.tensors = NULL};
        char path[256];
        scratch_init(&m.scratch);
        (void)snprintf(path, sizeof path, "golden/%s/config.json", names[i / 2]);
        struct dr_maker_wish wish = scratch_wish(&m.scratch, "tiny", both[i % 2]);
        wish.config = scratch_path(path);
        wish.shard_bytes = 300000;
        if (opened(&m, &wish)) walk(&m, check_type);
        drop(&m);
    }
}

static bool same_file(const char *a, const char *b, const char *name) {
    char path[2][512];
    (void)snprintf(path[0], sizeof path[0], "%s/%s", a, name);
    (void)snprintf(path[1], sizeof path[1], "%s/%s", b, name);
    FILE *f = fopen(path[0], "rb"), *g = fopen(path[1], "rb");
    bool same = f && g;
    for (int x = 0; same && x != EOF;) same = (x = getc(f)) == getc(g);
    if (f) (void)fclose(f);
    if (g) (void)fclose(g);
    return same;
}

static void same_bytes(void) {
    for (size_t k = 0; k < 2; k++) {
        struct scratch s;
        char other[160], third[160];
        struct dr_maker_report report;
        scratch_init(&s);
        (void)snprintf(other, sizeof other, "%s/other", s.dir);
        (void)snprintf(third, sizeof third, "%s/third", s.dir);
        struct dr_maker_wish wish = scratch_wish(&s, "tiny", both[k]);
        wish.n_thread = 1;
        CU_ASSERT_EQUAL(dr_maker_run(&wish, &report).code, DR_OK);
        wish.n_thread = 3;
        wish.dir = other;
        CU_ASSERT_EQUAL(dr_maker_run(&wish, &report).code, DR_OK);
        CU_ASSERT(same_file(s.out, other, "model.safetensors") && same_file(s.out, other, "config.json"));
        wish.seed = 2;
        wish.dir = third;
        CU_ASSERT_EQUAL(dr_maker_run(&wish, &report).code, DR_OK);
        CU_ASSERT(!same_file(s.out, third, "model.safetensors"));
        scratch_fini(&s);
    }
}

static void shards(void) {
    struct made one, many = {.tensors = NULL};
    const int32_t layer = 2;
    enum { HEADER_ROOM = 16384 };
    scratch_init(&many.scratch);
    struct dr_maker_wish wish = scratch_wish(&many.scratch, "tiny", DR_DTYPE_F8_E4M3);
    wish.shard_bytes = 1000000;
    bool good = make(&one, "tiny", DR_DTYPE_F8_E4M3);
    wish.config = scratch_path("bench/configs/tiny.json");
    if (opened(&many, &wish) && good) {
        CU_ASSERT(many.report.n_file >= 7 && many.report.n_file <= 10); /* 6.6 MB in files of up to 1 MB */
        for (int32_t f = 1; f <= many.report.n_file; f++) {
            char path[256];
            struct stat st = {.st_size = 0};
            (void)snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", many.scratch.out, f,
                           many.report.n_file);
            CU_ASSERT(stat(path, &st) == 0 && st.st_size <= 1000000 + HEADER_ROOM);
        }
        CU_ASSERT_EQUAL(scratch_count(many.scratch.out), many.report.n_file + 2);
        const struct dr_tensor *a = dr_tensors_get(one.tensors, DR_ROLE_EXPERT_DOWN, layer, 5),
                               *b = dr_tensors_get(many.tensors, DR_ROLE_EXPERT_DOWN, layer, 5);
        size_t n = (size_t)a->rows * (size_t)a->cols;
        uint8_t *x = scratch_bytes(a->fd, a->offset, n), *y = scratch_bytes(b->fd, b->offset, n);
        CU_ASSERT(memcmp(x, y, n) == 0);
        free(x);
        free(y);
    }
    drop(&one);
    drop(&many);
}

/* Of n normal numbers the mean strays by 1 / sqrt(n) and the deviation by 1 / sqrt(2 n), five of which are
 * allowed; the quantiles' cut tails, the types' rounding and few different scales get the rest. */
static void check_spread(const struct made *m, const struct dr_tensor *t, enum dr_role role) {
    size_t n = (size_t)t->rows * (size_t)t->cols;
    double mean = 0, square = 0, expected = 1 / sqrt(t->cols), centre = 0;
    float *v = scratch_floats(t);
    (void)m;
    if (role == DR_ROLE_EMBED) expected = 1;
    if (dr_role_form(role) == DR_FORM_BIAS) expected = 0.01;
    if (dr_role_form(role) == DR_FORM_VECTOR) {
        expected = 0.1;
        centre = 1;
    }
    for (size_t i = 0; i < n; i++) mean += v[i] / (double)n;
    for (size_t i = 0; i < n; i++) square += (v[i] - mean) * (v[i] - mean) / (double)n;
    double allowed = 5 / sqrt(2.0 * (double)n) + 0.02;
    if (t->scale_fd >= 0) allowed += 5 * 0.145 / sqrt((double)t->scale_rows * t->scale_cols);
    CU_ASSERT(fabs(mean - centre) <= 5 * expected / sqrt((double)n) + 1e-3);
    CU_ASSERT(fabs(sqrt(square) / expected - 1) <= allowed);
    free(v);
}

static void spread(void) {
    for (size_t k = 0; k < 2; k++) {
        struct made m;
        if (make(&m, "tiny", both[k])) walk(&m, check_spread);
        drop(&m);
    }
}

enum { EXPERTS = 8, GROUPS = 4, GROUPS_ACTIVE = 2, ACTIVE = 2, MEMBERS = EXPERTS / GROUPS };

/* The published rule (sigmoid, bias, groups by their two best) for one token: counts the chosen experts. */
static void choose(const double *score, int *count) {
    bool open[EXPERTS] = {false}, used[GROUPS] = {false};
    for (int round = 0; round < GROUPS_ACTIVE; round++) {
        int best = -1;
        for (int g = 0; g < GROUPS; g++) {
            double sum = score[g * MEMBERS] + score[g * MEMBERS + 1];
            if (!used[g] && (best < 0 || sum > score[best * MEMBERS] + score[best * MEMBERS + 1])) best = g;
        }
        used[best] = true;
        for (int e = 0; e < MEMBERS; e++) open[best * MEMBERS + e] = true;
    }
    for (int round = 0; round < ACTIVE; round++) {
        int best = -1;
        for (int e = 0; e < EXPERTS; e++)
            if (open[e] && (best < 0 || score[e] > score[best])) best = e;
        open[best] = false;
        count[best]++;
    }
}

/* The rows of the embedding are normal and independent: as good as any hidden states. */
static void experts(void) {
    struct made m;
    if (make(&m, "tiny", DR_DTYPE_F8_E4M3)) {
        const struct dr_config *c = &m.config;
        CU_ASSERT_FATAL(c->n_expert == EXPERTS && c->n_group == GROUPS && c->n_active == ACTIVE);
        float *x = scratch_floats(dr_tensors_get(m.tensors, DR_ROLE_EMBED, 0, 0));
        for (int32_t layer = c->n_dense_layer; layer < c->n_layer; layer++) {
            float *w = scratch_floats(dr_tensors_get(m.tensors, DR_ROLE_ROUTER, layer, 0)),
                  *bias = scratch_floats(dr_tensors_get(m.tensors, DR_ROLE_ROUTER_BIAS, layer, 0));
            int count[EXPERTS] = {0};
            for (int32_t token = 0; token < c->vocab; token++) {
                double score[EXPERTS];
                for (int e = 0; e < EXPERTS; e++) {
                    double logit = 0;
                    for (int32_t k = 0; k < c->dim; k++)
                        logit += (double)w[e * c->dim + k] * x[token * c->dim + k];
                    score[e] = 1 / (1 + exp(-logit)) + bias[e];
                }
                choose(score, count);
            }
            double share = (double)c->vocab * ACTIVE / EXPERTS; /* 256, a deviation of 14 by chance alone */
            for (int e = 0; e < EXPERTS; e++) CU_ASSERT(fabs(count[e] / share - 1) < 0.3);
            free(w);
            free(bias);
        }
        free(x);
    }
    drop(&m);
}

static CU_TestInfo cases[] = {
    {"shipped configs have the parameters they are named for", counts},
    {"tiny has the tensors, types and shapes of a release", types},
    {"every config that the engine reads can be made and opened", all_configs},
    {"1 and 3 threads give equal bytes, another seed others", same_bytes},
    {"files are cut between weights, and their data stay the same", shards},
    {"weights, norms, biases and embedding have their spread", spread},
    {"every expert is chosen about equally often", experts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_maker = {.pName = "bench/maker", .pTests = cases};
