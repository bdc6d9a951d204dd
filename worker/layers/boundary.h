/* boundary.h - what precedes the rows at a stage boundary.
 * In:   the step.      Out: 32 bytes.
 * Owns: nothing.
 * Why:  newest ids and accepted lengths are worker state that will travel here, in stream order, never by
 * control messages. Plans with ids only carry none; the header exists so that the message does not change
 * when they do. */
#pragma once

#include <assert.h>

#include "model/schedule.h"

struct dr_boundary_header {
    uint64_t step;
    uint32_t n_row;
    uint32_t n_carry;      /* slots whose newest ids follow; 0 in this version */
    uint32_t part, n_part; /* which of the T ranks sends */
    uint64_t zero;
};
static_assert(sizeof(struct dr_boundary_header) == DR_BOUNDARY_HEADER, "model/schedule counts these bytes");
