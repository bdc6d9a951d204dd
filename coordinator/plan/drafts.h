/* drafts.h - how many drafts to ask of the MTP layer.
 * In:   what steps took and what they brought.      Out: a number for the next step.
 * Owns: nothing.
 * Why:  a draft costs a row to verify and a pass to make; whether that is less than the step it saves depends
 * on the machine, on how many sequences share the step and on the text. So it is measured.
 *
 * Steps are sorted by how many sequences decode in them (powers of two), and in each class by the number of
 * drafts, 0 to DR_DRAFTS_AUTO_MOST. A class tries each number once for DR_DRAFTS_TRIAL steps, going up as
 * long as the time for a token falls; from then on it stays with the best and tries a neighbour now and then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    DR_DRAFTS_AUTO = -1, /* as wish: measured; 0 and up: that many */
    DR_DRAFTS_AUTO_MOST = 3,
    DR_DRAFTS_CLASSES = 11, /* 1, 2 to 3, 4 to 7, ... sequences */
    DR_DRAFTS_TRIAL = 16,
    DR_DRAFTS_STAY = 240, /* steps between trials */
};

struct dr_drafts_class {
    double ns[DR_DRAFTS_AUTO_MOST + 1], tokens[DR_DRAFTS_AUTO_MOST + 1]; /* both fade; tokens 0: not tried */
    int32_t now, left; /* drafts asked for; steps until that is thought over */
    bool upwards;      /* which neighbour was tried last */
};

struct dr_drafts {
    int32_t wish;
    struct dr_drafts_class of[DR_DRAFTS_CLASSES];
};

void dr_drafts_init(struct dr_drafts *d, int32_t wish);

/* Drafts after each token of a step in which n sequences decode. */
int32_t dr_drafts_wanted(const struct dr_drafts *d, int32_t n);

/* A step in which n sequences decoded, each with the number of drafts that is wanted now verified and as many
 * made, took ns for that and brought so many tokens. */
void dr_drafts_measured(struct dr_drafts *d, int32_t n, double ns, int32_t tokens);
