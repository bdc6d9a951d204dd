/* test_cases.c - every golden case on every layout.
 * In:   tests/golden/CASE: a checkpoint, prompts and the values that transformers gives.
 * Out:  logits, hidden states, cache and routing within the case's own tolerance; greedy tokens equal.
 * Owns: nothing.
 * Why:  the authority is outside of this code base; everything that the tensor world does meets here. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/player.h"
#include "tests/support/runner.h"
#include "tests/support/safetensors.h"

enum { PROMPTS = 3, NEW = 24, TAPS_MAX = 64, ROWS_MAX = 192 };
static const double tolerance = 2e-5; /* relative RMS, "float32 activations" of every golden.json */

struct form {
    int32_t tp, pp, c;
};
static const struct form forms[] = {{1, 1, 1}, {2, 1, 1}, {2, 1, 2}, {3, 1, 3},
                                    {1, 2, 1}, {2, 2, 2}, {4, 1, 2}};

struct stage { /* one case on one layout */
    char label[96];
    struct rig rig;
    struct safetensors golden;
    struct play play[PROMPTS];
    struct dr_tap tap[TAPS_MAX];
    const struct safetensors_entry *expected[TAPS_MAX];
    int32_t n_tap;
};

static double relative_rms(const float *x, const float *ref, size_t n) {
    double diff = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)x[i] - (double)ref[i]) * ((double)x[i] - (double)ref[i]);
        square += (double)ref[i] * (double)ref[i];
    }
    return diff == 0 ? 0 : sqrt(diff / square);
}

static void judge(bool good, const struct stage *s, const char *what, int32_t prompt, double found) {
    CU_ASSERT(good);
    if (!good) printf("%s: prompt %d, %s: %g\n", s->label, prompt, what, found);
}

/* Taps for every stored tensor of the prompt that has a place in a layer. */
static void set_taps(struct stage *s, int32_t prompt) {
    static const char *const names[DR_TAP_KIND_COUNT] = {"embed", "hidden",  "ckv",
                                                         "kpe",   "experts", "expert_weights"};
    s->n_tap = 0;
    for (int32_t layer = 0; layer < s->rig.config.n_layer; layer++)
        for (int32_t kind = 0; kind < DR_TAP_KIND_COUNT; kind++) {
            const struct safetensors_entry *e =
                kind == DR_TAP_EMBED ? safetensors_find(&s->golden, "p%d.embed", prompt)
                                     : safetensors_find(&s->golden, "p%d.l%d.%s", prompt, layer, names[kind]);
            if (!e || (kind == DR_TAP_EMBED && layer > 0)) continue;
            s->expected[s->n_tap] = e;
            s->tap[s->n_tap++] = (struct dr_tap){
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
static void arm_taps(struct stage *s) {
    for (int32_t i = 0; i < s->n_tap; i++) {
        s->tap[i].row = calloc((size_t)s->tap[i].room * (size_t)s->tap[i].width, 4);
        s->tap[i].position = calloc((size_t)s->tap[i].room, sizeof(int32_t));
    }
    for (int32_t stage = 0, from = 0, to; stage < s->rig.layout.pp; stage++, from = to) {
        for (to = from; to < s->n_tap && stage_of(s, s->tap[to].layer) == stage;) to++;
        dr_worker_set_taps(s->rig.rank[(stage + 1) * s->rig.layout.tp - 1].worker, s->tap + from, to - from);
    }
}

static void check_taps(struct stage *s, int32_t prompt) {
    for (int32_t i = 0; i < s->n_tap; i++) {
        const struct safetensors_entry *e = s->expected[i];
        const struct dr_tap *t = &s->tap[i];
        int32_t rows = (int32_t)e->shape[0];
        size_t values = (size_t)rows * (size_t)t->width;
        judge(t->n >= rows, s, e->name, prompt, t->n);
        for (int32_t r = 0; r < rows; r++) judge(t->position[r] == r, s, "position of a tap", prompt, r);
        if (t->kind == DR_TAP_EXPERTS)
            judge(memcmp(t->row, e->data, values * 4) == 0, s, e->name, prompt, 0);
        else
            judge(relative_rms(t->row, e->data, values) <= tolerance, s, e->name, prompt,
                  relative_rms(t->row, e->data, values));
    }
}

static void disarm_taps(struct stage *s) {
    for (int32_t i = 0; i < s->rig.layout.n_rank; i++) dr_worker_set_taps(s->rig.rank[i].worker, NULL, 0);
    for (int32_t i = 0; i < s->n_tap; i++) {
        free(s->tap[i].row);
        free(s->tap[i].position);
    }
}

static void init_play(struct stage *s, int32_t prompt) {
    char name[32];
    int64_t n;
    (void)snprintf(name, sizeof name, "p%d.input_ids", prompt);
    struct play *p = &s->play[prompt];
    *p = (struct play){.slot = prompt, .n_new = NEW, .chunk = 64};
    p->prompt = safetensors_i32(&s->golden, name, &n);
    p->n_prompt = (int32_t)n;
    p->logits = calloc((size_t)n * (size_t)s->rig.config.vocab, sizeof(float));
    p->last = calloc((size_t)s->rig.config.vocab, sizeof(float));
}

static void check_values(struct stage *s, int32_t prompt) {
    const struct play *p = &s->play[prompt];
    size_t vocab = (size_t)s->rig.config.vocab;
    char name[48];
    int64_t n;
    (void)snprintf(name, sizeof name, "p%d.positions", prompt);
    const int32_t *position = safetensors_i32(&s->golden, name, &n);
    (void)snprintf(name, sizeof name, "p%d.logits", prompt);
    const float *logits = safetensors_f32(&s->golden, name);
    float *kept = calloc((size_t)n * vocab, sizeof *kept);
    for (int64_t i = 0; i < n; i++)
        memcpy(kept + (size_t)i * vocab, p->logits + (size_t)position[i] * vocab, vocab * sizeof *kept);
    judge(relative_rms(kept, logits, (size_t)n * vocab) <= tolerance, s, "logits", prompt,
          relative_rms(kept, logits, (size_t)n * vocab));
    free(kept);
    (void)snprintf(name, sizeof name, "p%d.greedy_ids", prompt);
    const int32_t *ids = safetensors_i32(&s->golden, name, &n);
    (void)snprintf(name, sizeof name, "p%d.greedy_logprobs", prompt);
    const float *logprob = safetensors_f32(&s->golden, name);
    for (int32_t i = 0; i < NEW; i++) judge(p->ids[i] == (uint32_t)ids[i], s, "greedy token", prompt, i);
    for (int32_t i = 1; i < NEW - 1; i++)
        judge(fabsf(p->logprob[i] - logprob[i]) <= 1e-4f, s, "log-probability", prompt,
              (double)(p->logprob[i] - logprob[i]));
    (void)snprintf(name, sizeof name, "p%d.greedy_last_logits", prompt);
    double last = relative_rms(p->last, safetensors_f32(&s->golden, name), vocab);
    judge(last <= tolerance, s, "last logits", prompt, last);
}

/* The three prompts together, in chunks, starting while others decode: bit for bit what they gave alone. */
static void check_mixed(struct stage *s, int32_t chunk) {
    size_t vocab = (size_t)s->rig.config.vocab;
    struct play mixed[PROMPTS];
    for (int32_t i = 0; i < PROMPTS; i++) {
        mixed[i] = s->play[i];
        mixed[i].chunk = chunk;
        mixed[i].start = i == 2 ? 0 : 3 * i + 2;
        mixed[i].logits = calloc((size_t)mixed[i].n_prompt * vocab, sizeof(float));
        mixed[i].last = calloc(vocab, sizeof(float));
    }
    dr_status st = play_all(&s->rig, mixed, PROMPTS);
    judge(st.code == DR_OK, s, dr_error_text(), -1, chunk);
    for (int32_t i = 0; i < PROMPTS; i++) {
        const struct play *a = &s->play[i], *b = &mixed[i];
        judge(memcmp(a->logits, b->logits, (size_t)a->n_prompt * vocab * sizeof(float)) == 0, s,
              "logits in a mixed batch", i, chunk);
        judge(memcmp(a->last, b->last, vocab * sizeof(float)) == 0, s, "last logits in a mixed batch", i,
              chunk);
        judge(memcmp(a->ids, b->ids, sizeof a->ids) == 0, s, "tokens in a mixed batch", i, chunk);
        judge(memcmp(a->logprob, b->logprob, sizeof a->logprob) == 0, s, "log-probabilities in a mixed batch",
              i, chunk);
        free(mixed[i].logits);
        free(mixed[i].last);
    }
}

static void check_layout(const char *name, const struct form *f, enum dr_expert_cut cut) {
    struct stage *s = calloc(1, sizeof *s);
    char path[512];
    struct dr_layout_wish wish = rig_wish(f->tp, f->pp, f->c, cut);
    (void)snprintf(s->label, sizeof s->label, "%s tp %d pp %d c %d %s", name, f->tp, f->pp, f->c,
                   dr_expert_cut_name(cut));
    (void)snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", DR_TESTS_DIR, name);
    safetensors_init(&s->golden, path);
    (void)snprintf(path, sizeof path, "%s/golden/%s", DR_TESTS_DIR, name);
    dr_status st = rig_init(&s->rig, path, &wish);
    judge(st.code == DR_OK, s, dr_error_text(), -1, 0);
    if (st.code == DR_OK) {
        for (int32_t i = 0; i < PROMPTS; i++) {
            init_play(s, i);
            set_taps(s, i);
            arm_taps(s);
            st = play_all(&s->rig, &s->play[i], 1);
            judge(st.code == DR_OK, s, dr_error_text(), i, 0);
            check_taps(s, i);
            disarm_taps(s);
            check_values(s, i);
        }
        check_mixed(s, 1);
        check_mixed(s, 7);
        check_mixed(s, 64);
        for (int32_t i = 0; i < PROMPTS; i++) {
            free(s->play[i].logits);
            free(s->play[i].last);
        }
        rig_fini(&s->rig);
    }
    safetensors_fini(&s->golden);
    free(s);
}

static void check_case(const char *name, bool experts) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        check_layout(name, &forms[i], DR_EXPERTS_COLUMNS);
        if (experts && forms[i].tp > 1) check_layout(name, &forms[i], DR_EXPERTS_WHOLE);
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
