/* stage.h - one golden case on one layout with one table of kernels.
 * In:   a case's name, a layout wish, kernels.      Out: its three prompts with logits and greedy tokens.
 * Owns: the rig, the case's golden file, the buffers of the plays, until stage_fini.
 * Why:  exact and rounded arithmetic are judged by different numbers but play the same prompts. */
#pragma once

#include "tests/golden/player.h"
#include "tests/support/safetensors.h"

enum { STAGE_PROMPTS = 3, STAGE_NEW = 24 };

struct stage {
    char label[128];
    struct rig rig;
    struct safetensors golden;
    struct play play[STAGE_PROMPTS];
};

/* Checks that it worked; false: nothing is left. The wish's weights are taken. */
bool stage_init(struct stage *s, const char *name, const struct dr_layout_wish *wish,
                const struct dr_ops *ops);
void stage_fini(struct stage *s);

/* Plays the prompts alone, one after the other, in chunks of 64 rows. */
void stage_play(struct stage *s);

/* After the plays: the three together, in chunks, starting while others decode: bit for bit the same. */
void stage_check_mixed(struct stage *s, int32_t chunk);

/* Bits of logits, tokens and log-probabilities of both are equal. */
void stage_check_same(const struct stage *a, const struct stage *b);

/* A CUnit check that says where it failed. prompt -1: all. */
void stage_judge(bool good, const struct stage *s, const char *what, int32_t prompt, double found);

/* Logits of the stored positions of a prompt, as golden.safetensors keeps them. To be freed. */
float *stage_kept(const struct stage *s, int32_t prompt, size_t *n);

/* sqrt(sum (x - ref)^2 / sum ref^2) */
double relative_rms(const float *x, const float *ref, size_t n);
