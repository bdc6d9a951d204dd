/* test_lexi.c - the sample model on layouts of up to 32 ranks.
 * In:   deploy/models/lexi-15m and lexi-15m-golden.json beside it: prompts, greedy tokens, five largest
 * logits of three positions. Out:  tokens equal, logits within 1e-3. Owns: nothing. Why:  a trained model
 * with FP8 weights and long enough answers; TP 1..8 and PP 1..4 cut heads, experts and layers unevenly. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tests/golden/player.h"
#include "tests/support/runner.h"

enum { GROUP = PLAY_MAX, IDS_MAX = 1024 };

struct form {
    int32_t tp, pp, c;
    enum dr_expert_cut cut;
};

static void judge(bool good, const struct form *f, const json_t *one, const char *what, double found) {
    CU_ASSERT(good);
    if (!good)
        printf("tp %d pp %d c %d %s, %s: %s: %g\n", f->tp, f->pp, f->c, dr_expert_cut_name(f->cut),
               one ? json_string_value(json_object_get(one, "name")) : "all", what, found);
}

static void check_top(const struct form *f, const json_t *one, const char *position, const float *row) {
    const json_t *top = json_object_get(json_object_get(one, "top5"), position), *pair;
    size_t i;
    CU_ASSERT(json_array_size(top) == 5);
    json_array_foreach(top, i, pair) {
        double expected = json_number_value(json_array_get(pair, 1));
        double found = (double)row[json_integer_value(json_array_get(pair, 0))];
        judge(fabs(found - expected) <= 1e-3, f, one, position, found - expected);
    }
}

static void check_one(const struct form *f, const json_t *one, const struct play *p, int32_t vocab) {
    const json_t *greedy = json_object_get(one, "greedy_ids"), *id;
    size_t i;
    json_array_foreach(greedy, i, id)
        judge(p->ids[i] == (uint32_t)json_integer_value(id), f, one, "token", (double)i);
    check_top(f, one, "position_0", p->logits);
    check_top(f, one, "last_prompt_position", p->logits + (size_t)(p->n_prompt - 1) * (size_t)vocab);
    check_top(f, one, "last_position", p->last);
}

/* Up to GROUP cases at once. One token more than the stored ones is made, for the logits behind the last. */
static void check_group(const struct form *f, struct rig *r, const json_t *cases, size_t first) {
    static int32_t ids[GROUP][IDS_MAX];
    struct play play[GROUP] = {{0}};
    int32_t n = 0, vocab = r->config.vocab;
    for (; n < GROUP && first + (size_t)n < json_array_size(cases); n++) {
        const json_t *one = json_array_get(cases, first + (size_t)n),
                     *prompt = json_object_get(one, "prompt_ids"), *id;
        size_t i;
        CU_ASSERT_FATAL(json_array_size(prompt) <= IDS_MAX);
        json_array_foreach(prompt, i, id) ids[n][i] = (int32_t)json_integer_value(id);
        play[n] = (struct play){
            .slot = n,
            .prompt = ids[n],
            .n_prompt = (int32_t)json_array_size(prompt),
            .n_new = (int32_t)json_array_size(json_object_get(one, "greedy_ids")) + 1,
            .chunk = 100,
            .start = n,
            .n_top = -1,
            .logits = calloc(json_array_size(prompt) * (size_t)vocab, sizeof(float)),
            .last = calloc((size_t)vocab, sizeof(float)),
        };
        CU_ASSERT_FATAL(play[n].n_new <= PLAY_NEW_MAX);
    }
    dr_status st = play_all(r, play, n);
    judge(st.code == DR_OK, f, NULL, dr_error_text(), 0);
    for (int32_t i = 0; i < n; i++) {
        if (st.code == DR_OK) check_one(f, json_array_get(cases, first + (size_t)i), &play[i], vocab);
        free(play[i].logits);
        free(play[i].last);
    }
}

static void check_form(struct form f) {
    struct rig *r = calloc(1, sizeof *r);
    struct dr_layout_wish wish = rig_wish(f.tp, f.pp, f.c, f.cut);
    json_error_t why;
    json_t *golden = json_load_file(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json", 0, &why);
    const json_t *cases = json_object_get(golden, "cases");
    CU_ASSERT_FATAL(json_array_size(cases) > 0);
    wish.context = 1024;
    wish.step_tokens = 256;
    dr_status st = rig_init(r, DR_SOURCE_DIR "/deploy/models/lexi-15m", &wish);
    judge(st.code == DR_OK, &f, NULL, dr_error_text(), 0);
    if (st.code == DR_OK) {
        for (size_t i = 0; i < json_array_size(cases); i += GROUP) check_group(&f, r, cases, i);
        rig_fini(r);
    }
    json_decref(golden);
    free(r);
}

#define FORM(function, ...)                                                                                  \
    static void function(void) {                                                                             \
        check_form((struct form){__VA_ARGS__});                                                              \
    }
FORM(one, .tp = 1, .pp = 1, .c = 1)
FORM(tp2, .tp = 2, .pp = 1, .c = 2)
FORM(tp3_c1, .tp = 3, .pp = 1, .c = 1)
FORM(tp4_whole, .tp = 4, .pp = 1, .c = 4, .cut = DR_EXPERTS_WHOLE)
FORM(tp5_pp2, .tp = 5, .pp = 2, .c = 5)
FORM(tp6_c3, .tp = 6, .pp = 1, .c = 3)
FORM(tp7_whole, .tp = 7, .pp = 1, .c = 7, .cut = DR_EXPERTS_WHOLE)
FORM(tp8, .tp = 8, .pp = 1, .c = 8)
FORM(pp3, .tp = 2, .pp = 3, .c = 1)
FORM(pp4, .tp = 1, .pp = 4, .c = 1)
FORM(tp8_pp4, .tp = 8, .pp = 4, .c = 4)

static CU_TestInfo tests[] = {
    {"lexi-15m gives its golden tokens on one rank", one},
    {"lexi-15m gives its golden tokens on TP 2", tp2},
    {"lexi-15m gives its golden tokens on TP 3, cache not cut", tp3_c1},
    {"lexi-15m gives its golden tokens on TP 4, whole experts", tp4_whole},
    {"lexi-15m gives its golden tokens on TP 5, PP 2", tp5_pp2},
    {"lexi-15m gives its golden tokens on TP 6, cache cut in 3", tp6_c3},
    {"lexi-15m gives its golden tokens on TP 7, whole experts", tp7_whole},
    {"lexi-15m gives its golden tokens on TP 8", tp8},
    {"lexi-15m gives its golden tokens on TP 2, PP 3", pp3},
    {"lexi-15m gives its golden tokens on PP 4", pp4},
    {"lexi-15m gives its golden tokens on TP 8, PP 4", tp8_pp4},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_lexi = {.pName = "golden/lexi", .pTests = tests};
