/* plan_shape.h - what the schedule needs to know of a step plan.
 * In:   a plan, and each slot's sampling as it is after the plan's own opens.      Out: the shape of the
 * step. Owns: nothing; the shape points into the caller's array. Why:  coordinator and workers must derive
 * the same list of collectives from the same facts (model/schedule.h). */
#pragma once

#include "common/size.h"
#include "model/schedule.h"
#include "proto/message.h"

/* Whether the token after the segment's last row is known, or drawn in the step. */
static inline bool dr_segment_next(const struct dr_segment *g) {
    return g->has_next || g->output == DR_OUTPUT_SAMPLE;
}

/* Positions [0, that) need pages: of all rows; with the MTP layer of its row for the next token, and of those
 * for drafts after that one. */
static inline int32_t dr_segment_end(const struct dr_segment *g, bool mtp) {
    return g->first + g->n_rows + (mtp && dr_segment_next(g) ? dr_max_i32(1, g->n_draft) : 0);
}

#ifdef __cplusplus
extern "C" {
#endif

/* sampling: [seqs_max] by slot; every segment's slot must be in range. segment: room for plan->n_segment
 * entries, borrowed by *out. Pure; never fails: the counts of a decoded plan are within proto/limits.h. */
void dr_plan_shape(const struct dr_step_plan *plan, const struct dr_sampling *sampling,
                   struct dr_shape_segment *segment, struct dr_step_shape *out);

#ifdef __cplusplus
}
#endif
