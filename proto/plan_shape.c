/* plan_shape.c - see plan_shape.h.
 * In:   plan and sampling.      Out: shape.
 * Owns: nothing.
 * Why:  one function for both sides of the channel. */

#include "proto/plan_shape.h"

static int32_t out_rows(const struct dr_segment *g) {
    switch (g->output) {
    case DR_OUTPUT_NONE:
        return 0;
    case DR_OUTPUT_SAMPLE:
        return 1 + g->n_verify;
    case DR_OUTPUT_SCORE:
    case DR_OUTPUT_LOGITS:
        return g->n_rows;
    }
    return 0;
}

static struct dr_shape_segment shape_of(const struct dr_segment *g, const struct dr_sampling *s) {
    struct dr_shape_segment out = {
        .first = g->first,
        .n_rows = g->n_rows,
        .absorbed = g->form == DR_FORM_ABSORBED,
        .next = dr_segment_next(g),
        .n_draft = g->n_draft,
        .n_out_rows = out_rows(g),
        .sample = g->output == DR_OUTPUT_SAMPLE,
        .n_top = -1,
    };
    if (out.sample) {
        out.top_k = s->temperature > 0 && s->top_k > 0;
        out.top_p = s->temperature > 0 && s->top_p < 1;
        out.n_top = s->n_top;
    }
    if (g->output == DR_OUTPUT_SCORE) out.n_top = g->score_top;
    return out;
}

void dr_plan_shape(const struct dr_step_plan *plan, const struct dr_sampling *sampling,
                   struct dr_shape_segment *segment, struct dr_step_shape *out) {
    int32_t rows = 0;
    for (int32_t i = 0; i < plan->n_segment; i++) {
        const struct dr_segment *g = &plan->segment[i];
        segment[i] = shape_of(g, &sampling[g->slot]);
        rows += g->n_rows;
    }
    *out = (struct dr_step_shape){.n_segment = plan->n_segment, .n_rows = rows, .segment = segment};
}
