/* player.h - plays prompts through a layout of workers, with plans made by hand.
 * In:   prompts, chunk sizes, when each starts.      Out: logits of every prompt row, greedy tokens,
 * log-probabilities. Owns: nothing; buffers are the caller's. Why:  the golden tests judge the tensor world
 * alone, so no coordinator takes part: this is the smallest one. */
#pragma once

#include "tests/support/worker_rig.h"

enum { PLAY_MAX = 4, PLAY_NEW_MAX = 64 };

struct play {
    int32_t slot;
    const int32_t *prompt;
    int32_t n_prompt, n_new;    /* greedy tokens wanted */
    int32_t chunk;              /* prompt rows a step */
    int32_t start;              /* step in which it opens */
    int32_t n_top;              /* alternatives with each token drawn by a worker; -1: no log-probabilities */
    float *logits;              /* [n_prompt, vocab] out */
    float *last;                /* [vocab] out: logits that chose the last token */
    uint32_t ids[PLAY_NEW_MAX]; /* out; the first and the last are the arg-max of logits, the others drawn by
                                   the workers */
    float logprob[PLAY_NEW_MAX]; /* out: of ids[1 .. n_new - 2] */
    int32_t n_done, n_got;       /* state: rows run, tokens got */
};

/* Runs all to their end. Fails as the workers do. n <= PLAY_MAX; slots differ. */
dr_status play_all(struct rig *r, struct play *p, int32_t n);

uint32_t play_argmax(const float *row, int32_t n);
