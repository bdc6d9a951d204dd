/* test_lexi.c - the sample model on layouts of up to 32 ranks.
 * In:   deploy/models/lexi-15m and lexi-15m-golden.json beside it: prompts, greedy tokens, five largest
 * logits of three positions. Out:  tokens equal, logits within 1e-3. Owns: nothing. Why:  a trained model
 * with FP8 weights and long enough answers; TP 1..8 and PP 1..4 cut heads, experts and layers unevenly. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/lexi.h"
#include "tests/golden/tables.h"
#include "tests/support/runner.h"

struct form {
    int32_t tp, pp, c;
    enum dr_expert_cut cut;
    enum dr_exchange exchange;
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

/* The oracle and the tables of all instruction sets give the same bits. */
static void compare(const struct lexi *l, const struct dr_layout_wish *wish) {
    const struct dr_ops *other[DR_ISA_COUNT + 1];
    int32_t n = tables_other(DR_PRECISION_F32, other);
    for (int32_t i = 0; i < n; i++) {
        struct lexi *o = calloc(1, sizeof *o);
        bool ran = lexi_init(o, wish, other[i]);
        for (int32_t k = 0; ran && k < l->n; k++) {
            size_t bytes = (size_t)l->play[k].n_prompt * (size_t)l->vocab * sizeof(float);
            bool same = memcmp(l->play[k].logits, o->play[k].logits, bytes) == 0 &&
                        memcmp(l->play[k].ids, o->play[k].ids, sizeof o->play[k].ids) == 0;
            CU_ASSERT(same);
            if (!same) printf("lexi-15m, prompt %d: %s differs\n", k, other[i]->name);
        }
        lexi_fini(o);
        free(o);
    }
}

static void check_form(struct form f) {
    struct lexi *l = calloc(1, sizeof *l);
    struct dr_layout_wish wish = rig_wish(f.tp, f.pp, f.c, f.cut);
    wish.exchange = f.exchange;
    if (lexi_init(l, &wish, table_here(DR_PRECISION_F32))) {
        for (int32_t i = 0; i < l->n; i++)
            check_one(&f, json_array_get(l->cases, (size_t)i), &l->play[i], l->vocab);
        if (f.tp * f.pp == 1) compare(l, &wish);
    }
    lexi_fini(l);
    free(l);
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
FORM(tp3_value, .tp = 3, .pp = 1, .c = 3, .exchange = DR_EXCHANGE_VALUE)
FORM(tp4_pp2_value, .tp = 4, .pp = 2, .c = 2, .exchange = DR_EXCHANGE_VALUE)
FORM(tp8_value, .tp = 8, .pp = 1, .c = 8, .exchange = DR_EXCHANGE_VALUE)
FORM(pp3, .tp = 2, .pp = 3, .c = 1)
FORM(pp4, .tp = 1, .pp = 4, .c = 1)
FORM(tp8_pp4, .tp = 8, .pp = 4, .c = 4)

static CU_TestInfo tests[] = {
    {"lexi-15m gives its golden tokens on one rank, and the same bits with all kernels", one},
    {"lexi-15m gives its golden tokens on TP 2", tp2},
    {"lexi-15m gives its golden tokens on TP 3, cache not cut", tp3_c1},
    {"lexi-15m gives its golden tokens on TP 4, whole experts", tp4_whole},
    {"lexi-15m gives its golden tokens on TP 5, PP 2", tp5_pp2},
    {"lexi-15m gives its golden tokens on TP 6, cache cut in 3", tp6_c3},
    {"lexi-15m gives its golden tokens on TP 7, whole experts", tp7_whole},
    {"lexi-15m gives its golden tokens on TP 8", tp8},
    {"lexi-15m gives its golden tokens on TP 3, values exchanged", tp3_value},
    {"lexi-15m gives its golden tokens on TP 4, PP 2, cache cut in 2, values exchanged", tp4_pp2_value},
    {"lexi-15m gives its golden tokens on TP 8, values exchanged", tp8_value},
    {"lexi-15m gives its golden tokens on TP 2, PP 3", pp3},
    {"lexi-15m gives its golden tokens on PP 4", pp4},
    {"lexi-15m gives its golden tokens on TP 8, PP 4", tp8_pp4},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_lexi = {.pName = "golden/lexi", .pTests = tests};
