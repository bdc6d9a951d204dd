/* stage.c - see stage.h.
 * In:   see stage.h.      Out: see stage.h.
 * Owns: see stage.h.
 * Why:  see stage.h. */
#include "tests/golden/stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/runner.h"

double relative_rms(const float *x, const float *ref, size_t n) {
    double diff = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)x[i] - (double)ref[i]) * ((double)x[i] - (double)ref[i]);
        square += (double)ref[i] * (double)ref[i];
    }
    return diff == 0 ? 0 : sqrt(diff / square);
}

void stage_judge(bool good, const struct stage *s, const char *what, int32_t prompt, double found) {
    CU_ASSERT(good);
    if (!good) printf("%s: prompt %d, %s: %g\n", s->label, prompt, what, found);
}

static void init_play(struct stage *s, int32_t prompt) {
    char name[32];
    int64_t n;
    (void)snprintf(name, sizeof name, "p%d.input_ids", prompt);
    struct play *p = &s->play[prompt];
    *p = (struct play){.slot = prompt, .n_new = STAGE_NEW, .chunk = 64};
    p->prompt = safetensors_i32(&s->golden, name, &n);
    p->n_prompt = (int32_t)n;
    p->logits = calloc((size_t)n * (size_t)s->rig.config.vocab, sizeof(float));
    p->last = calloc((size_t)s->rig.config.vocab, sizeof(float));
}

bool stage_init(struct stage *s, const char *name, const struct dr_layout_wish *wish,
                const struct dr_ops *ops) {
    char path[512];
    memset(s, 0, sizeof *s);
    (void)snprintf(s->label, sizeof s->label, "%s tp %d pp %d c %d %s, weights %s, kernels %s", name,
                   wish->tp, wish->pp, wish->cache_width, dr_expert_cut_name(wish->experts),
                   dr_weights_name(wish->weights), ops->name);
    (void)snprintf(path, sizeof path, "%s/golden/%s", DR_TESTS_DIR, name);
    rig_kernels = (struct rig_kernels){.ops = ops, .weights = wish->weights};
    dr_status st = rig_init(&s->rig, path, wish);
    rig_kernels = (struct rig_kernels){0};
    stage_judge(st.code == DR_OK, s, dr_error_text(), -1, 0);
    if (st.code != DR_OK) return false;
    (void)snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", DR_TESTS_DIR, name);
    safetensors_init(&s->golden, path);
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) init_play(s, i);
    return true;
}

void stage_fini(struct stage *s) {
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        free(s->play[i].logits);
        free(s->play[i].last);
    }
    rig_fini(&s->rig);
    safetensors_fini(&s->golden);
}

void stage_play(struct stage *s) {
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        dr_status st = play_all(&s->rig, &s->play[i], 1);
        stage_judge(st.code == DR_OK, s, dr_error_text(), i, 0);
    }
}

/* what: words for a message */
static void check_plays(const struct stage *s, const struct play *a, const struct play *b, const char *what,
                        int32_t chunk) {
    size_t vocab = (size_t)s->rig.config.vocab;
    int32_t prompt = a->slot;
    bool logits = memcmp(a->logits, b->logits, (size_t)a->n_prompt * vocab * sizeof(float)) == 0 &&
                  memcmp(a->last, b->last, vocab * sizeof(float)) == 0;
    bool tokens =
        memcmp(a->ids, b->ids, sizeof a->ids) == 0 && memcmp(a->logprob, b->logprob, sizeof a->logprob) == 0;
    stage_judge(logits, s, what, prompt, chunk);
    stage_judge(tokens, s, "tokens differ too", prompt, chunk);
}

void stage_check_mixed(struct stage *s, int32_t chunk) {
    size_t vocab = (size_t)s->rig.config.vocab;
    struct play mixed[STAGE_PROMPTS];
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        mixed[i] = s->play[i];
        mixed[i].chunk = chunk;
        mixed[i].start = i == 2 ? 0 : 3 * i + 2;
        mixed[i].logits = calloc((size_t)mixed[i].n_prompt * vocab, sizeof(float));
        mixed[i].last = calloc(vocab, sizeof(float));
    }
    dr_status st = play_all(&s->rig, mixed, STAGE_PROMPTS);
    stage_judge(st.code == DR_OK, s, dr_error_text(), -1, chunk);
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        check_plays(s, &s->play[i], &mixed[i], "logits differ in a mixed batch, chunks of", chunk);
        free(mixed[i].logits);
        free(mixed[i].last);
    }
}

void stage_check_same(const struct stage *a, const struct stage *b) {
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        char what[192];
        (void)snprintf(what, sizeof what, "logits differ from those of %s", a->label);
        check_plays(b, &a->play[i], &b->play[i], what, 0);
    }
}

float *stage_kept(const struct stage *s, int32_t prompt, size_t *n) {
    size_t vocab = (size_t)s->rig.config.vocab;
    char name[48];
    int64_t rows;
    (void)snprintf(name, sizeof name, "p%d.positions", prompt);
    const int32_t *position = safetensors_i32(&s->golden, name, &rows);
    *n = (size_t)rows * vocab;
    float *kept = calloc(*n, sizeof *kept);
    for (int64_t i = 0; i < rows; i++)
        memcpy(kept + (size_t)i * vocab, s->play[prompt].logits + (size_t)position[i] * vocab,
               vocab * sizeof *kept);
    return kept;
}
