/* study.c - see study.h.
 * In:   see study.h.      Out: see study.h.
 * Owns: nothing.
 * Why:  see study.h. */
#include "tests/golden/study.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/runner.h"

enum { LENGTH = 64, LAYERS_MAX = 8, ACTIVE_MAX = 8 };

struct sums { /* over prompts */
    struct square_sums {
        double diff, square;
    } all, unchanged, every;
    int64_t n_argmax, n_token, n_experts, n_choice;
};

/* Experts of one prompt in all MoE layers. */
struct choices {
    int32_t n_layer;
    const struct safetensors_entry *stored[LAYERS_MAX]; /* [prompts, LENGTH, active] */
    struct dr_tap tap[LAYERS_MAX];
    int32_t row[LAYERS_MAX][LENGTH * ACTIVE_MAX], position[LAYERS_MAX][LENGTH];
};

static void find_choices(const struct stage *s, const struct safetensors *f, struct choices *c) {
    c->n_layer = 0;
    for (int32_t layer = 0; layer < s->rig.config.n_layer; layer++) {
        const struct safetensors_entry *e = safetensors_find(f, "l%d.experts", layer);
        if (!e) continue;
        int32_t i = c->n_layer++;
        CU_ASSERT_FATAL(i < LAYERS_MAX && e->shape[2] <= ACTIVE_MAX);
        c->stored[i] = e;
        c->tap[i] = (struct dr_tap){
            .kind = DR_TAP_EXPERTS,
            .layer = layer,
            .width = (int32_t)e->shape[2],
            .room = LENGTH,
            .row = c->row[i],
            .position = c->position[i],
        };
    }
}

/* unchanged[t]: token t and all before it chose the stored experts */
static void compare_choices(const struct choices *c, int32_t prompt, bool *unchanged, struct sums *sum) {
    bool so_far = true;
    for (int32_t t = 0; t < LENGTH; t++) {
        for (int32_t i = 0; i < c->n_layer; i++) {
            size_t width = (size_t)c->tap[i].width;
            const int32_t *stored =
                (const int32_t *)c->stored[i]->data + ((size_t)prompt * LENGTH + (size_t)t) * width;
            bool same = memcmp(stored, c->row[i] + (size_t)t * width, width * sizeof *stored) == 0;
            sum->n_experts += same;
            sum->n_choice++;
            so_far = so_far && same;
        }
        unchanged[t] = so_far;
    }
}

static void add_row(const float *x, const float *ref, int32_t n, struct square_sums *sum) {
    for (int32_t i = 0; i < n; i++) {
        sum->diff += ((double)x[i] - (double)ref[i]) * ((double)x[i] - (double)ref[i]);
        sum->square += (double)ref[i] * (double)ref[i];
    }
}

static void study_prompt(struct stage *s, const struct safetensors *f, struct choices *c, int32_t prompt,
                         const float *exact, float *out, struct sums *sum) {
    size_t vocab = (size_t)s->rig.config.vocab;
    int64_t n, n_position;
    bool unchanged[LENGTH];
    const int32_t *ids = safetensors_i32(f, "input_ids", &n);
    const int32_t *position = safetensors_i32(f, "positions", &n_position);
    const int32_t *argmax = safetensors_i32(f, "argmax", &n) + (size_t)prompt * LENGTH;
    const float *logits = safetensors_f32(f, "logits") + (size_t)prompt * (size_t)n_position * vocab;
    struct play p = {
        .prompt = ids + (size_t)prompt * LENGTH, .n_prompt = LENGTH, .n_new = 1, .chunk = LENGTH};
    p.logits = calloc(LENGTH * vocab, sizeof(float));
    for (int32_t i = 0; i < c->n_layer; i++) c->tap[i].n = 0;
    dr_worker_set_taps(s->rig.rank[0].worker, c->tap, c->n_layer);
    dr_status st = play_all(&s->rig, &p, 1);
    dr_worker_set_taps(s->rig.rank[0].worker, NULL, 0);
    stage_judge(st.code == DR_OK, s, dr_error_text(), prompt, 0);
    for (int32_t i = 0; i < c->n_layer; i++)
        stage_judge(c->tap[i].n == LENGTH, s, "rows of a tap", prompt, c->tap[i].n);
    compare_choices(c, prompt, unchanged, sum);
    for (int32_t t = 0; t < LENGTH; t++)
        sum->n_argmax += play_argmax(p.logits + (size_t)t * vocab, (int32_t)vocab) == (uint32_t)argmax[t];
    sum->n_token += LENGTH;
    for (int64_t i = 0; i < n_position; i++) {
        const float *x = p.logits + (size_t)position[i] * vocab, *ref = logits + (size_t)i * vocab;
        add_row(x, ref, (int32_t)vocab, &sum->all);
        if (unchanged[position[i]]) add_row(x, ref, (int32_t)vocab, &sum->unchanged);
    }
    size_t first = (size_t)prompt * LENGTH * vocab;
    for (size_t t = 0; exact && t < LENGTH; t++)
        if (unchanged[t])
            add_row(p.logits + t * vocab, exact + first + t * vocab, (int32_t)vocab, &sum->every);
    if (out) memcpy(out + first, p.logits, LENGTH * vocab * sizeof *out);
    free(p.logits);
}

static double relative(const struct square_sums *s) {
    return s->square == 0 ? 0 : sqrt(s->diff / s->square);
}

static void count_greedy(struct stage *s, struct study *out) {
    stage_play(s);
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        char name[48];
        int64_t n;
        int32_t hits = 0;
        (void)snprintf(name, sizeof name, "p%d.greedy_ids", i);
        const int32_t *ids = safetensors_i32(&s->golden, name, &n);
        while (hits < STAGE_NEW && s->play[i].ids[hits] == (uint32_t)ids[hits]) hits++;
        out->hits += hits;
        out->total += STAGE_NEW;
    }
}

void study_measure(struct stage *s, const char *name, const float *exact, float *logits, struct study *out) {
    struct safetensors *f = calloc(1, sizeof *f);
    struct choices *c = calloc(1, sizeof *c);
    struct sums sum = {0};
    char path[512];
    int64_t n;
    (void)snprintf(path, sizeof path, "%s/golden/%s/study.safetensors", DR_TESTS_DIR, name);
    safetensors_init(f, path);
    find_choices(s, f, c);
    (void)safetensors_i32(f, "input_ids", &n);
    CU_ASSERT(s->rig.layout.n_rank == 1 && n == STUDY_ROWS);
    for (int32_t prompt = 0; prompt < STUDY_ROWS / LENGTH; prompt++)
        study_prompt(s, f, c, prompt, exact, logits, &sum);
    *out = (struct study){
        .rms_all = relative(&sum.all),
        .rms_unchanged = relative(&sum.unchanged),
        .rms_every = relative(&sum.every),
        .same_argmax = (double)sum.n_argmax / (double)sum.n_token,
        .same_experts = sum.n_choice ? (double)sum.n_experts / (double)sum.n_choice : 1,
    };
    count_greedy(s, out);
    safetensors_fini(f);
    free(c);
    free(f);
}
