/* test_precision.c - what rounded inputs, caches and weights cost, on all golden cases and the sample model.
 * In:   study.safetensors and golden.json of the cases; deploy/models/lexi-15m.
 * Out:  errors within the bounds of golden.json and near those of an independent implementation; bits equal
 * in batches and between kernels. Prints a line of Markdown a mode: the table of tests/bench/README.md.
 * Owns: nothing.
 * Why:  exact arithmetic is judged by bits and 2e-5 (test_cases.c); rounding needs other numbers. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tests/golden/lexi.h"
#include "tests/golden/study.h"
#include "tests/golden/tables.h"
#include "tests/support/runner.h"

enum { CASES = 9 };

struct mode {
    const char *words, *inputs;
    enum dr_weights weights;
    enum dr_cache_type cache;
    const struct dr_ops *ops;
    const char *bounds; /* key in golden.json's tolerances; NULL: float32 */
    int32_t figure;     /* index in struct known.rms */
    int32_t figure_too; /* of a second thing that is rounded; NONE: nothing */
    double factor;      /* times the figures' sum as squares: what the error may be */
    double slack;       /* what the shares of golden.json may be missed by */
    /* Bounds for lexi-15m, about twice what was measured (tests/bench/README.md): relative RMS at most, same
     * arg-max at least, perplexity changed by at most this factor, greedy tokens at least (share). */
    double lexi_rms, lexi_argmax, lexi_perplexity, lexi_hits;
};

/* Relative RMS with unchanged routing as golden/README.md has it: "bf16 linear inputs, float32 otherwise",
 * "int8 weights (groups of 128), float32 activations", "int8 weights and inputs, groups of 128", "bf16 latent
 * cache, float32 activations", "FP8 latent cache (groups of 128)". 0: not printed there. */
enum { NONE, BF16_INPUTS, INT8_WEIGHTS, INT8_BOTH, BF16_CACHE, FP8_CACHE, FIGURE_COUNT };
struct known {
    const char *name;
    double rms[FIGURE_COUNT];
};
static const struct known known[CASES] = {
    {"v3-bf16", {0}},
    {"v3-fp8", {0, 1.2e-2, 4.8e-2, 6.0e-2, 5.0e-3, 6.9e-2}},
    {"dense-fp8", {0, 9.8e-3, 4.6e-2, 6.4e-2, 4.2e-3, 6.2e-2}},
    {"v2-lite", {0, 8.0e-3, 3.3e-2, 4.4e-2, 3.7e-3, 4.7e-2}},
    {"v2-group", {0, 1.1e-2, 4.7e-2, 6.2e-2, 4.6e-3, 5.5e-2}},
    {"kimi-k2", {0, 1.0e-2, 4.1e-2, 5.3e-2, 4.9e-3, 5.8e-2}},
    {"moonlight", {0, 9.5e-3, 3.3e-2, 4.5e-2, 4.6e-3, 4.8e-2}},
    {"v3-rope2", {0}},
    {"v3-mtp", {0}},
};

/* The figures are printed with two digits, and bf16 inputs must be no worse: that makes `fast` the default.
 * Without experts to choose, the figure repeats to both digits. With them, one near tie decides whether
 * dozens of rows count as unchanged: on moonlight the same rounding in three orders of additions (torch,
 * numpy, these kernels) gives 9.5e-3, 9.69e-3 and 9.62e-3, while prompts whose rows count alike differ by 0.3
 * %. So 3 % are allowed there. 8-bit weights: the same steps of 127 in the same blocks of 128; the embedding
 * is rounded there and not here, so errors should be smaller; 1.3 is for the rows that count. */
static double most(const struct known *k, const struct mode *m) {
    double figure = hypot(k->rms[m->figure], k->rms[m->figure_too]);
    double digit = pow(10, floor(log10(figure)) - 1);
    bool choice = strcmp(k->name, "dense-fp8") != 0;
    return fmax(m->factor, choice ? 1.03 : 1) * (figure + digit / 2);
}

static struct mode exact_mode(void) {
    return (struct mode){.words = "native", .ops = table_here(DR_PRECISION_F32), .inputs = "f32"};
}

/* Only rows of the cache are rounded. The figure is of rounded latents; here the rotated keys are rounded
 * too: 13 % more where no expert can change (measured). */
static struct mode exact_bf16_cache_mode(void) {
    struct mode m = exact_mode();
    m.cache = DR_CACHE_BF16;
    m.bounds = "bf16 latent cache";
    m.figure = BF16_CACHE;
    m.factor = 1.15;
    m.lexi_rms = 1.4e-2;
    m.lexi_argmax = 0.995;
    m.lexi_perplexity = 1.005;
    m.lexi_hits = 0.9;
    return m;
}

/* The figure has scales of any value, rows have powers of two: 3 % more where no expert can change, and up to
 * 19 % and two experts in a hundred where they do (measured). */
static struct mode exact_fp8_cache_mode(void) {
    struct mode m = exact_mode();
    m.cache = DR_CACHE_FP8;
    m.bounds = "FP8 latent cache";
    m.figure = FP8_CACHE;
    m.factor = 1.2;
    m.slack = 0.02;
    m.lexi_rms = 2.5e-2;
    m.lexi_argmax = 0.98;
    m.lexi_perplexity = 1.01;
    m.lexi_hits = 0.6;
    return m;
}

static struct mode bf16_mode(void) {
    return (struct mode){
        .words = "native",
        .inputs = "bf16",
        .ops = table_of(DR_ISA_BF16, DR_PRECISION_FAST),
        .bounds = "bf16 dot inputs",
        .figure = BF16_INPUTS,
        .factor = 1,
        .lexi_rms = 8e-3,
        .lexi_argmax = 0.99,
        .lexi_perplexity = 1.005,
        .lexi_hits = 0.9,
    };
}

/* With rows of bfloat16 in the cache attention rounds its other factors too, for the sake of speed at depth:
 * as much again as the cache itself, at most 14 % over the two errors that have figures (measured). */
static struct mode bf16_cache_mode(void) {
    struct mode m = bf16_mode();
    m.cache = DR_CACHE_BF16;
    m.figure_too = BF16_CACHE;
    m.factor = 1.15;
    return m;
}

static struct mode fp8_cache_mode(void) {
    struct mode m = exact_fp8_cache_mode();
    m.inputs = "bf16";
    m.ops = table_of(DR_ISA_BF16, DR_PRECISION_FAST);
    m.factor = 1.25;
    m.figure_too = BF16_INPUTS;
    return m;
}

static struct mode int8_mode(void) {
    return (struct mode){
        .words = "int8",
        .inputs = "f32",
        .weights = DR_WEIGHTS_INT8,
        .ops = table_here(DR_PRECISION_F32),
        .bounds = "int8 weights (128)",
        .figure = INT8_WEIGHTS,
        .factor = 1.3,
        .lexi_rms = 2e-2,
        .lexi_argmax = 0.975,
        .lexi_perplexity = 1.01,
        .lexi_hits = 0.8,
    };
}

static struct mode int8_int8_mode(void) {
    return (struct mode){
        .words = "int8",
        .inputs = "int8",
        .weights = DR_WEIGHTS_INT8,
        .ops = table_of(DR_ISA_AVX2, DR_PRECISION_FAST),
        .bounds = "int8 weights and inputs (128)",
        .figure = INT8_BOTH,
        .factor = 1.3,
        .lexi_rms = 3.2e-2,
        .lexi_argmax = 0.955,
        .lexi_perplexity = 1.01,
        .lexi_hits = 0.6,
    };
}

static void check(bool good, const char *name, const struct mode *m, const char *what, double found,
                  double bound) {
    CU_ASSERT(good);
    if (!good)
        printf("%s, weights %s, inputs %s: %s is %.3g, bound %.3g\n", name, m->words, m->inputs, what, found,
               bound);
}

static double bound_of(const json_t *bounds, const char *what) {
    const json_t *v = json_object_get(bounds, what);
    CU_ASSERT_FATAL(json_is_number(v));
    return json_number_value(v);
}

static void check_bounds(const struct known *k, const struct mode *m, const struct study *s) {
    char path[512];
    json_error_t why;
    (void)snprintf(path, sizeof path, "%s/golden/%s/golden.json", DR_TESTS_DIR, k->name);
    json_t *golden = json_load_file(path, 0, &why);
    const json_t *bounds = json_object_get(json_object_get(golden, "tolerances"), m->bounds);
    double rms = bound_of(bounds, "logits, routing unchanged"), argmax = bound_of(bounds, "same arg-max"),
           experts = bound_of(bounds, "same experts");
    check(s->rms_unchanged <= rms, k->name, m, "relative RMS", s->rms_unchanged, rms);
    check(s->same_argmax >= argmax - m->slack, k->name, m, "same arg-max", s->same_argmax, argmax);
    check(s->same_experts >= experts - m->slack, k->name, m, "same experts", s->same_experts, experts);
    check(s->rms_unchanged > 1e-4, k->name, m, "least error: nothing was rounded?", s->rms_unchanged, 1e-4);
    if (k->rms[m->figure] > 0)
        check(s->rms_every <= most(k, m), k->name, m, "relative RMS of all positions", s->rms_every,
              most(k, m));
    json_decref(golden);
}

static float *exact_logits(const struct known *k, const struct dr_layout_wish *wish) {
    struct stage *s = calloc(1, sizeof *s);
    struct study unused;
    float *logits = NULL;
    if (stage_init(s, k->name, wish, table_here(DR_PRECISION_F32))) {
        logits = calloc(STUDY_ROWS * (size_t)s->rig.config.vocab, sizeof *logits);
        study_measure(s, k->name, NULL, logits, &unused);
        stage_fini(s);
    }
    free(s);
    return logits;
}

static void measure_case(const struct known *k, const struct mode *m, struct study *worst) {
    struct stage *s = calloc(1, sizeof *s);
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    struct study found;
    float *exact = m->bounds ? exact_logits(k, &wish) : NULL;
    wish.weights = m->weights;
    wish.cache_type = m->cache;
    if (stage_init(s, k->name, &wish, m->ops)) {
        study_measure(s, k->name, exact, NULL, &found);
        if (m->bounds)
            check_bounds(k, m, &found);
        else
            check(found.rms_unchanged <= 2e-5, k->name, m, "relative RMS", found.rms_unchanged, 2e-5);
        worst->rms_all = fmax(worst->rms_all, found.rms_all);
        worst->rms_unchanged = fmax(worst->rms_unchanged, found.rms_unchanged);
        worst->same_argmax = fmin(worst->same_argmax, found.same_argmax);
        worst->same_experts = fmin(worst->same_experts, found.same_experts);
        worst->hits += found.hits;
        worst->total += found.total;
        stage_fini(s);
    }
    free(exact);
    free(s);
}

static void measure_lexi(const struct mode *m, struct lexi_figures *out) {
    struct lexi *exact = calloc(1, sizeof *exact), *l = calloc(1, sizeof *l);
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    struct lexi_figures before = {0};
    *out = (struct lexi_figures){0};
    bool ran = lexi_init(exact, &wish, table_here(DR_PRECISION_F32));
    wish.weights = m->weights;
    wish.cache_type = m->cache;
    if (lexi_init(l, &wish, m->ops) && ran) {
        lexi_measure(exact, exact, &before);
        lexi_measure(l, exact, out);
        if (m->bounds) {
            double change = out->perplexity / before.perplexity;
            check(out->rms <= m->lexi_rms, "lexi-15m", m, "relative RMS", out->rms, m->lexi_rms);
            check(out->same_argmax >= m->lexi_argmax, "lexi-15m", m, "same arg-max", out->same_argmax,
                  m->lexi_argmax);
            check(change <= m->lexi_perplexity && change >= 1 / m->lexi_perplexity, "lexi-15m", m,
                  "change of perplexity", change, m->lexi_perplexity);
            double hits = (double)out->hits / out->total;
            check(hits >= m->lexi_hits, "lexi-15m", m, "share of greedy tokens", hits, m->lexi_hits);
        } else {
            CU_ASSERT(out->rms == 0 && out->hits == out->total);
        }
    }
    lexi_fini(l);
    lexi_fini(exact);
    free(l);
    free(exact);
}

static void measure(struct mode m) {
    struct study worst = {.same_argmax = 1, .same_experts = 1};
    struct lexi_figures lexi;
    for (int32_t i = 0; i < CASES; i++) measure_case(&known[i], &m, &worst);
    measure_lexi(&m, &lexi);
    printf("| %s | %s | %s | %.1e | %.1e | %.1f %% | %.1f %% | %d/%d | %.1e | %.1f %% | %.2f | %d/%d |\n",
           m.words, m.inputs, dr_cache_type_name(m.cache), worst.rms_unchanged, worst.rms_all,
           100 * worst.same_argmax, 100 * worst.same_experts, (int)worst.hits, (int)worst.total, lexi.rms,
           100 * lexi.same_argmax, lexi.perplexity, (int)lexi.hits, (int)lexi.total);
}

static int print_head(void) {
    printf("| weights | inputs | cache | rel. RMS, routing unchanged | rel. RMS, all | same arg-max | same "
           "experts | "
           "greedy "
           "tokens | lexi-15m: rel. RMS | same arg-max | perplexity | greedy tokens |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    return 0;
}

static void exact(void) {
    measure(exact_mode());
}
static void bf16_inputs(void) {
    measure(bf16_mode());
}
static void bf16_cache(void) {
    measure(bf16_cache_mode());
}
static void exact_bf16_cache(void) {
    measure(exact_bf16_cache_mode());
}
static void exact_fp8_cache(void) {
    measure(exact_fp8_cache_mode());
}
static void fp8_cache(void) {
    measure(fp8_cache_mode());
}
static void int8_weights(void) {
    measure(int8_mode());
}
static void int8_both(void) {
    measure(int8_int8_mode());
}

/* Two layouts of one case: alone and in batches. */
static void check_batches(struct mode m) {
    static const int32_t forms[][3] = {{1, 1, 1}, {2, 2, 2}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct stage *s = calloc(1, sizeof *s);
        struct dr_layout_wish wish =
            rig_wish(forms[i][0], forms[i][1], forms[i][2], i ? DR_EXPERTS_WHOLE : DR_EXPERTS_COLUMNS);
        wish.weights = m.weights;
        wish.cache_type = m.cache;
        if (stage_init(s, "v3-fp8", &wish, m.ops)) {
            stage_play(s);
            stage_check_mixed(s, 1);
            stage_check_mixed(s, 7);
            stage_check_mixed(s, 64);
            stage_fini(s);
        }
        free(s);
    }
}

static void bf16_batches(void) {
    check_batches(bf16_mode());
}
static void bf16_cache_batches(void) {
    check_batches(bf16_cache_mode());
}
static void int8_batches(void) {
    check_batches(int8_mode());
}
static void int8_both_batches(void) {
    check_batches(int8_int8_mode());
}

/* The three prompts of a case with two tables on one layout. */
static void check_equal(const char *name, const struct dr_layout_wish *wish, const struct dr_ops *one,
                        const struct dr_ops *other) {
    struct stage *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    CU_ASSERT_FATAL(stage_init(a, name, wish, one) && stage_init(b, name, wish, other));
    stage_play(a);
    stage_play(b);
    stage_check_same(a, b);
    stage_fini(a);
    stage_fini(b);
    free(a);
    free(b);
}

/* Exact sums of integers: neither the instructions nor their order show. */
static void int8_kernels(void) {
    for (int32_t i = 0; i < CASES; i++) {
        struct dr_layout_wish wish =
            i % 2 ? rig_wish(3, 1, 3, DR_EXPERTS_WHOLE) : rig_wish(1, 2, 1, DR_EXPERTS_COLUMNS);
        wish.weights = DR_WEIGHTS_INT8;
        const struct dr_ops *avx2 = table_of(DR_ISA_AVX2, DR_PRECISION_FAST);
        check_equal(known[i].name, &wish, avx2, table_of(DR_ISA_VNNI, DR_PRECISION_FAST));
        if (i == 0) {
            check_equal(known[i].name, &wish, avx2, table_of(DR_ISA_AVX512, DR_PRECISION_FAST));
            check_equal(known[i].name, &wish, avx2, table_of(DR_ISA_BF16, DR_PRECISION_FAST));
        }
    }
}

/* 8-bit weights with exact inputs are one arithmetic, whatever the instructions. */
static void int8_exact_kernels(void) {
    const struct dr_ops *other[DR_ISA_COUNT + 1];
    int32_t n = tables_other(DR_PRECISION_F32, other);
    struct dr_layout_wish wish = rig_wish(2, 1, 2, DR_EXPERTS_WHOLE);
    wish.weights = DR_WEIGHTS_INT8;
    for (int32_t i = 0; i < n; i++) check_equal("v3-fp8", &wish, table_here(DR_PRECISION_F32), other[i]);
}

/* What a table says about its inputs is what it does: "f32" gives exact bits under precision fast too. */
static void unrounded(void) {
    struct dr_layout_wish wish = rig_wish(2, 1, 1, DR_EXPERTS_COLUMNS);
    for (int isa = 0; isa < DR_ISA_COUNT; isa++) {
        const struct dr_ops *fast = table_of((enum dr_isa)isa, DR_PRECISION_FAST);
        if (strcmp(fast->native_inputs, "f32") == 0)
            check_equal("v2-lite", &wish, table_here(DR_PRECISION_F32), fast);
        else
            CU_ASSERT(isa == DR_ISA_BF16 && strcmp(fast->native_inputs, "bf16") == 0);
        CU_ASSERT(strcmp(fast->int8_inputs, "int8") == 0);
    }
}

/* dense-fp8 has no expert that could change: every layout stays within the bound of one rank. */
static void check_layouts(struct mode m) {
    static const int32_t forms[][3] = {{1, 1, 1}, {2, 1, 1}, {2, 1, 2}, {3, 1, 3},
                                       {1, 2, 1}, {2, 2, 2}, {4, 1, 2}};
    double bound =
        1.3 * known[2].rms[m.figure]; /* one prompt: its error differs by 10 % from that of twelve */
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct stage *s = calloc(1, sizeof *s);
        struct dr_layout_wish wish = rig_wish(forms[i][0], forms[i][1], forms[i][2], DR_EXPERTS_COLUMNS);
        wish.weights = m.weights;
        if (stage_init(s, known[2].name, &wish, m.ops)) {
            size_t n;
            stage_play(s);
            float *kept = stage_kept(s, 2, &n);
            double rms = relative_rms(kept, safetensors_f32(&s->golden, "p2.logits"), n);
            check(rms <= bound && rms > 1e-4, s->label, &m, "relative RMS", rms, bound);
            free(kept);
            stage_fini(s);
        }
        free(s);
    }
}

static void layouts(void) {
    check_layouts(bf16_mode());
    check_layouts(int8_mode());
    check_layouts(int8_int8_mode());
}

static CU_TestInfo tests[] = {
    {"exact arithmetic keeps the study's prompts within 2e-5", exact},
    {"a bf16 cache stays within its bounds on all cases and lexi-15m", exact_bf16_cache},
    {"an fp8 cache stays within its bounds on all cases and lexi-15m", exact_fp8_cache},
    {"bf16 inputs stay within their bounds on all cases and lexi-15m", bf16_inputs},
    {"bf16 inputs and cache stay within their bounds on all cases and lexi-15m", bf16_cache},
    {"bf16 inputs with an fp8 cache stay within their bounds on all cases and lexi-15m", fp8_cache},
    {"int8 weights with f32 inputs stay within their bounds on all cases and lexi-15m", int8_weights},
    {"int8 weights and inputs stay within their bounds on all cases and lexi-15m", int8_both},
    {"bf16 inputs give the same bits alone and in batches", bf16_batches},
    {"bf16 inputs and cache give the same bits alone and in batches", bf16_cache_batches},
    {"int8 weights with f32 inputs give the same bits alone and in batches", int8_batches},
    {"int8 weights and inputs give the same bits alone and in batches", int8_both_batches},
    {"int8 inputs give the same bits with AVX2 and with VNNI", int8_kernels},
    {"int8 weights with f32 inputs give the same bits with all kernels", int8_exact_kernels},
    {"a table that says f32 gives exact bits under precision fast", unrounded},
    {"rounded arithmetic stays within its bounds on every layout", layouts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_precision = {.pName = "golden/precision", .pTests = tests, .pInitFunc = print_head};
