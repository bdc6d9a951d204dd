/* lexi.c - see lexi.h.
 * In:   see lexi.h.      Out: see lexi.h.
 * Owns: see lexi.h.
 * Why:  see lexi.h. */
#include "tests/golden/lexi.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/runner.h"

static bool load(struct lexi *l) {
    json_error_t why;
    l->golden = json_load_file(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json", 0, &why);
    l->cases = json_object_get(l->golden, "cases");
    l->n = (int32_t)json_array_size(l->cases);
    CU_ASSERT(l->n > 0 && l->n <= LEXI_MAX);
    return l->n > 0 && l->n <= LEXI_MAX;
}

static void init_play(struct lexi *l, int32_t i) {
    const json_t *one = json_array_get(l->cases, (size_t)i), *prompt = json_object_get(one, "prompt_ids"),
                 *id;
    size_t at, n = json_array_size(prompt), n_new = json_array_size(json_object_get(one, "greedy_ids")) + 1;
    CU_ASSERT_FATAL(n > 0 && n_new <= PLAY_NEW_MAX);
    l->prompt[i] = calloc(n, sizeof *l->prompt[i]);
    json_array_foreach(prompt, at, id) l->prompt[i][at] = (int32_t)json_integer_value(id);
    l->play[i] = (struct play){
        .slot = i % PLAY_MAX,
        .prompt = l->prompt[i],
        .n_prompt = (int32_t)n,
        .n_new = (int32_t)n_new,
        .chunk = 100,
        .start = i % PLAY_MAX,
        .n_top = -1,
        .logits = calloc(n * (size_t)l->vocab, sizeof(float)),
        .last = calloc((size_t)l->vocab, sizeof(float)),
    };
}

bool lexi_init(struct lexi *l, const struct dr_layout_wish *wish, const struct dr_ops *ops) {
    struct dr_layout_wish wished = *wish;
    *l = (struct lexi){0};
    if (!load(l)) return false;
    struct rig *r = calloc(1, sizeof *r);
    wished.context = 1024;
    wished.step_tokens = 256;
    rig_kernels = (struct rig_kernels){.ops = ops, .weights = wish->weights};
    dr_status st = rig_init(r, DR_SOURCE_DIR "/deploy/models/lexi-15m", &wished);
    rig_kernels = (struct rig_kernels){0};
    if (st.code == DR_OK) {
        l->vocab = r->config.vocab;
        for (int32_t i = 0; i < l->n; i++) init_play(l, i);
        for (int32_t i = 0; i < l->n && st.code == DR_OK; i += PLAY_MAX)
            st = play_all(r, l->play + i, dr_min_i32(PLAY_MAX, l->n - i));
        rig_fini(r);
    }
    CU_ASSERT(st.code == DR_OK);
    if (st.code != DR_OK) printf("lexi-15m: %s\n", dr_error_text());
    free(r);
    return st.code == DR_OK;
}

void lexi_fini(struct lexi *l) {
    for (int32_t i = 0; i < l->n && i < LEXI_MAX; i++) {
        free(l->prompt[i]);
        free(l->play[i].logits);
        free(l->play[i].last);
    }
    json_decref(l->golden);
}

/* -ln of the probability of id */
static double surprise(const float *row, int32_t n, int32_t id) {
    double max = (double)row[play_argmax(row, n)], sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)row[i] - max);
    return log(sum) + max - (double)row[id];
}

static double perplexity(const struct play *p, int32_t vocab) {
    double sum = 0;
    for (int32_t i = 0; i + 1 < p->n_prompt; i++)
        sum += surprise(p->logits + (size_t)i * (size_t)vocab, vocab, p->prompt[i + 1]);
    return exp(sum / (p->n_prompt - 1));
}

void lexi_measure(const struct lexi *l, const struct lexi *reference, struct lexi_figures *out) {
    double diff = 0, square = 0;
    int64_t rows = 0, same = 0;
    size_t vocab = (size_t)l->vocab;
    const struct play *longest = l->play;
    *out = (struct lexi_figures){0};
    for (int32_t i = 0; i < l->n; i++) {
        const struct play *p = &l->play[i];
        const json_t *greedy = json_object_get(json_array_get(l->cases, (size_t)i), "greedy_ids");
        int32_t hits = 0, total = p->n_new - 1;
        longest = p->n_prompt > longest->n_prompt ? p : longest;
        for (int32_t t = 0; t < p->n_prompt; t++) {
            const float *x = p->logits + (size_t)t * vocab,
                        *ref = reference->play[i].logits + (size_t)t * vocab;
            for (size_t v = 0; v < vocab; v++) {
                diff += ((double)x[v] - (double)ref[v]) * ((double)x[v] - (double)ref[v]);
                square += (double)ref[v] * (double)ref[v];
            }
            same += play_argmax(x, l->vocab) == play_argmax(ref, l->vocab);
            rows++;
        }
        while (hits < total &&
               p->ids[hits] == (uint32_t)json_integer_value(json_array_get(greedy, (size_t)hits)))
            hits++;
        out->hits += hits;
        out->total += total;
    }
    out->rms = sqrt(diff / square);
    out->same_argmax = (double)same / (double)rows;
    out->perplexity = perplexity(longest, l->vocab);
}
