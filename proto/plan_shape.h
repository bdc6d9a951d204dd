/* plan_shape.h - what the schedule needs to know of a step plan.
 * In:   a plan, and each slot's sampling as it is after the plan's own opens.      Out: the shape of the
 * step. Owns: nothing; the shape points into the caller's array. Why:  coordinator and workers must derive
 * the same list of collectives from the same facts (model/schedule.h). */
#pragma once

#include "model/schedule.h"
#include "proto/message.h"

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
