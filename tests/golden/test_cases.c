/* test_cases.c - every golden case on every layout, in exact arithmetic.
 * In:   tests/golden/CASE: a checkpoint, prompts and the values that transformers gives.
 * Out:  logits, hidden states, cache and routing within the case's own tolerance; greedy tokens equal; the
 * oracle and the kernels for other processors give the same bits. Owns: nothing. Why:  the authority is
 * outside of this code base; everything that the tensor world does meets here. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/stage.h"
#include "tests/golden/tables.h"
#include "tests/support/runner.h"

enum { TAPS_MAX = 64, ROWS_MAX = 192 };
static const double tolerance = 2e-5; /* relative RMS, "float32 activations" of every golden.json */

struct form {
    int32_t tp, pp, c;
    bool compared; /* with the oracle and all other tables, on one cut of experts */
    enum dr_exchange exchange;
};
static const struct form forms[] = {
    {1, 1, 1, true, DR_EXCHANGE_LATENT},  {2, 1, 1, false, DR_EXCHANGE_LATENT},
    {2, 1, 2, false, DR_EXCHANGE_LATENT}, {3, 1, 3, false, DR_EXCHANGE_LATENT},
    {1, 2, 1, false, DR_EXCHANGE_LATENT}, {2, 2, 2, true, DR_EXCHANGE_LATENT},
    {4, 1, 2, false, DR_EXCHANGE_LATENT}, {4, 1, 4, false, DR_EXCHANGE_LATENT},
    {2, 1, 2, false, DR_EXCHANGE_VALUE},  {3, 1, 3, true, DR_EXCHANGE_VALUE},
    {2, 2, 2, false, DR_EXCHANGE_VALUE},  {4, 1, 2, false, DR_EXCHANGE_VALUE},
    {4, 1, 4, false, DR_EXCHANGE_VALUE}};

struct taps { /* of one prompt */
    struct dr_tap tap[TAPS_MAX];
    const struct safetensors_entry *expected[TAPS_MAX];
    int32_t n;
};

/* Taps for every stored tensor of the prompt that has a place in a layer. */
static void set_taps(const struct stage *s, struct taps *t, int32_t prompt) {
    static const char *const names[DR_TAP_KIND_COUNT] = {"embed", "hidden",  "ckv",
                                                         "kpe",   "experts", "expert_weights"};
    t->n = 0;
    for (int32_t layer = 0; layer < s->rig.config.n_layer; layer++)
        for (int32_t kind = 0; kind < DR_TAP_KIND_COUNT; kind++) {
            const struct safetensors_entry *e =
                kind == DR_TAP_EMBED ? safetensors_find(&s->golden, "p%d.embed", prompt)
                                     : safetensors_find(&s->golden, "p%d.l%d.%s", prompt, layer, names[kind]);
            if (!e || (kind == DR_TAP_EMBED && layer > 0)) continue;
            t->expected[t->n] = e;
            t->tap[t->n++] = (struct dr_tap){
                .kind = (enum dr_tap_kind)kind,
                .layer = layer,
                .slot = prompt,
                .width = (int32_t)e->shape[1],
                .room = ROWS_MAX,
            };
        }
}

static int32_t stage_of(const struct stage *s, int32_t layer) {
    int32_t stage = 0;
    while (layer >= s->rig.layout.layer_begin[stage + 1]) stage++;
    return stage;
}

/* Each tap is read on the last rank of the stage that has its layer; the others hold the same rows. */
static void arm_taps(struct stage *s, struct taps *t) {
    for (int32_t i = 0; i < t->n; i++) {
        t->tap[i].row = calloc((size_t)t->tap[i].room * (size_t)t->tap[i].width, 4);
        t->tap[i].position = calloc((size_t)t->tap[i].room, sizeof(int32_t));
    }
    for (int32_t stage = 0, from = 0, to; stage < s->rig.layout.pp; stage++, from = to) {
        for (to = from; to < t->n && stage_of(s, t->tap[to].layer) == stage;) to++;
        dr_worker_set_taps(s->rig.rank[(stage + 1) * s->rig.layout.tp - 1].worker, t->tap + from, to - from);
    }
}

static void check_taps(const struct stage *s, const struct taps *taps, int32_t prompt) {
    for (int32_t i = 0; i < taps->n; i++) {
        const struct safetensors_entry *e = taps->expected[i];
        const struct dr_tap *t = &taps->tap[i];
        int32_t rows = (int32_t)e->shape[0];
        size_t values = (size_t)rows * (size_t)t->width;
        stage_judge(t->n >= rows, s, e->name, prompt, t->n);
        for (int32_t r = 0; r < rows; r++)
            stage_judge(t->position[r] == r, s, "position of a tap", prompt, r);
        if (t->kind == DR_TAP_EXPERTS)
            stage_judge(memcmp(t->row, e->data, values * 4) == 0, s, e->name, prompt, 0);
        else
            stage_judge(relative_rms(t->row, e->data, values) <= tolerance, s, e->name, prompt,
                        relative_rms(t->row, e->data, values));
    }
}

static void disarm_taps(struct stage *s, struct taps *t) {
    for (int32_t i = 0; i < s->rig.layout.n_rank; i++) dr_worker_set_taps(s->rig.rank[i].worker, NULL, 0);
    for (int32_t i = 0; i < t->n; i++) {
        free(t->tap[i].row);
        free(t->tap[i].position);
    }
}

static void check_values(const struct stage *s, int32_t prompt) {
    const struct play *p = &s->play[prompt];
    char name[48];
    size_t n;
    int64_t n_ids;
    float *kept = stage_kept(s, prompt, &n);
    (void)snprintf(name, sizeof name, "p%d.logits", prompt);
    double rms = relative_rms(kept, safetensors_f32(&s->golden, name), n);
    stage_judge(rms <= tolerance, s, "logits", prompt, rms);
    free(kept);
    (void)snprintf(name, sizeof name, "p%d.greedy_ids", prompt);
    const int32_t *ids = safetensors_i32(&s->golden, name, &n_ids);
    (void)snprintf(name, sizeof name, "p%d.greedy_logprobs", prompt);
    const float *logprob = safetensors_f32(&s->golden, name);
    for (int32_t i = 0; i < STAGE_NEW; i++)
        stage_judge(p->ids[i] == (uint32_t)ids[i], s, "greedy token", prompt, i);
    for (int32_t i = 1; i < STAGE_NEW - 1; i++)
        stage_judge(fabsf(p->logprob[i] - logprob[i]) <= 1e-4f, s, "log-probability", prompt,
                    (double)(p->logprob[i] - logprob[i]));
    (void)snprintf(name, sizeof name, "p%d.greedy_last_logits", prompt);
    double last = relative_rms(p->last, safetensors_f32(&s->golden, name), (size_t)s->rig.config.vocab);
    stage_judge(last <= tolerance, s, "last logits", prompt, last);
}

/* The oracle and the tables of all instruction sets, emulated where the processor lacks them. */
static void compare(const struct stage *s, const char *name, const struct dr_layout_wish *wish) {
    const struct dr_ops *other[DR_ISA_COUNT + 1];
    int32_t n = tables_other(DR_PRECISION_F32, other);
    CU_ASSERT(n >= 2); /* the oracle, and AVX2 or AVX-512 */
    for (int32_t i = 0; i < n; i++) {
        struct stage *o = calloc(1, sizeof *o);
        if (stage_init(o, name, wish, other[i])) {
            stage_play(o);
            stage_check_same(s, o);
            stage_fini(o);
        }
        free(o);
    }
}

static void check_layout(const char *name, const struct form *f, enum dr_expert_cut cut, bool compared) {
    struct stage *s = calloc(1, sizeof *s);
    struct taps *t = calloc(1, sizeof *t);
    struct dr_layout_wish wish = rig_wish(f->tp, f->pp, f->c, cut);
    wish.exchange = f->exchange;
    if (stage_init(s, name, &wish, table_here(DR_PRECISION_F32))) {
        for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
            set_taps(s, t, i);
            arm_taps(s, t);
            dr_status st = play_all(&s->rig, &s->play[i], 1);
            stage_judge(st.code == DR_OK, s, dr_error_text(), i, 0);
            check_taps(s, t, i);
            disarm_taps(s, t);
            check_values(s, i);
        }
        stage_check_mixed(s, 1);
        stage_check_mixed(s, 7);
        stage_check_mixed(s, 64);
        if (compared) compare(s, name, &wish);
        stage_fini(s);
    }
    free(t);
    free(s);
}

static void check_case(const char *name, bool experts) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        bool whole = experts && forms[i].tp > 1 && forms[i].exchange == DR_EXCHANGE_LATENT;
        check_layout(name, &forms[i], DR_EXPERTS_COLUMNS, forms[i].compared && !whole);
        if (whole) check_layout(name, &forms[i], DR_EXPERTS_WHOLE, forms[i].compared);
    }
}
#define CASE(function, name, experts)                                                                        \
    static void function(void) {                                                                             \
        check_case(name, experts);                                                                           \
    }
CASE(v3_bf16, "v3-bf16", true)
CASE(v3_fp8, "v3-fp8", true)
CASE(dense_fp8, "dense-fp8", false)
CASE(v2_lite, "v2-lite", true)
CASE(v2_group, "v2-group", true)
CASE(kimi_k2, "kimi-k2", true)
CASE(moonlight, "moonlight", true)
CASE(v3_rope2, "v3-rope2", true)
CASE(v3_mtp, "v3-mtp", true)

static CU_TestInfo cases[] = {
    {"v3-bf16 gives the golden values on every layout", v3_bf16},
    {"v3-fp8 gives the golden values on every layout", v3_fp8},
    {"dense-fp8 gives the golden values on every layout", dense_fp8},
    {"v2-lite gives the golden values on every layout", v2_lite},
    {"v2-group gives the golden values on every layout", v2_group},
    {"kimi-k2 gives the golden values on every layout", kimi_k2},
    {"moonlight gives the golden values on every layout", moonlight},
    {"v3-rope2 gives the golden values on every layout", v3_rope2},
    {"v3-mtp gives the golden values on every layout", v3_mtp},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cases = {.pName = "golden/cases", .pTests = cases};
