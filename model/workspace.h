/* workspace.h - bytes of one step's buffers on a rank.
 * In:   config, layout, rank.      Out: bytes of the step arena and of the group's buffers.
 * Owns: nothing.
 * Why:  the worker carves its step from exactly these bytes, footprint counts them; they do not depend on context length. */
#pragma once

#include "model/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The step arena: activations of step_tokens rows, one attention piece, router and expert lists, output rows' logits. */
size_t dr_workspace_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

/* Buffers that the group (MPI or loop) takes at init for the largest call of any step. */
size_t dr_workspace_collective_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

#ifdef __cplusplus
}
#endif
