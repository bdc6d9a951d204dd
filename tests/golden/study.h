/* study.h - how far rounded arithmetic is from exact arithmetic.
 * In:   a stage with its kernels and weights; the case's study.safetensors; the sample model.
 * Out:  figures as golden/README.md "Tolerances" defines them; perplexity.
 * Owns: nothing.
 * Why:  the same figures are measured there with formulas independent of this code base. */
#pragma once

#include "tests/golden/stage.h"

enum { STUDY_ROWS = 768 }; /* 12 prompts of 64 tokens */

struct study {
    double rms_all, rms_unchanged;    /* logits; the second only where experts so far are the stored ones */
    double same_argmax, same_experts; /* shares */
    double rms_every;                 /* as rms_unchanged, over all positions against `exact` */
    int32_t hits, total; /* greedy tokens of the golden prompts before the first difference; all of them */
};

/* The study's 12 prompts and the golden prompts on the stage, which has one rank. The file keeps the logits
 * of the odd positions only, golden/README.md's tables count all of them: exact [768, vocab] are those of
 * exact arithmetic, NULL: there are none. logits, if not NULL, receives what this stage gives. */
void study_measure(struct stage *s, const char *name, const float *exact, float *logits, struct study *out);
