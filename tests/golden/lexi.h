/* lexi.h - the golden prompts of the sample model.
 * In:   deploy/models/lexi-15m and lexi-15m-golden.json beside it; a layout, kernels.
 * Out:  logits, greedy tokens; figures of rounded arithmetic.
 * Owns: buffers of a run, until lexi_fini.
 * Why:  a trained model shows what rounding costs; random weights are harsher. */
#pragma once

#include <jansson.h>

#include "tests/golden/player.h"

enum { LEXI_MAX = 16 };

struct lexi {
    json_t *golden;
    const json_t *cases; /* of golden */
    int32_t n, vocab;
    int32_t *prompt[LEXI_MAX];
    struct play play[LEXI_MAX]; /* one token more than the stored ones, for the logits behind the last */
};

/* Plays all prompts, PLAY_MAX at a time. Checks that it worked; false: there is nothing to judge. lexi_fini
 * in either case. The wish's weights are taken; context and step_tokens are set. */
bool lexi_init(struct lexi *l, const struct dr_layout_wish *wish, const struct dr_ops *ops);
void lexi_fini(struct lexi *l);

struct lexi_figures {
    double rms, same_argmax; /* against the reference, all rows of all prompts */
    double perplexity;       /* of the longest prompt, King James text: 582 predictions */
    int32_t hits, total;     /* greedy tokens before the first difference from the stored ones; all of them */
};

/* reference: exact arithmetic */
void lexi_measure(const struct lexi *l, const struct lexi *reference, struct lexi_figures *out);
