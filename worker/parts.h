/* parts.h - where the time of a step goes.
 * In:   the borders between the parts of a step.      Out: nanoseconds of each part.
 * Owns: nothing.
 * Why:  exactly one part is charged at any moment and each border costs one reading of the clock, so that the
 * parts add up to the step whatever the layers do. */
#pragma once

#include "common/clock.h"
#include "proto/message.h"

struct dr_parts {
    uint64_t last_ns; /* the last border */
    enum dr_step_part now;
    uint64_t ns[DR_PART_COUNT]; /* up to the last border */
};

/* The step begins with the part `first`. */
static inline void dr_parts_begin(struct dr_parts *p, uint64_t now_ns, enum dr_step_part first) {
    p->last_ns = now_ns;
    p->now = first;
    for (int i = 0; i < DR_PART_COUNT; i++) p->ns[i] = 0;
}

/* From here on `part` is charged; returns the part before it, for a way back. */
static inline enum dr_step_part dr_parts_enter(struct dr_parts *p, enum dr_step_part part) {
    const enum dr_step_part before = p->now;
    if (part == before) return before;
    const uint64_t t = dr_clock_ns();
    p->ns[before] += t - p->last_ns;
    p->last_ns = t;
    p->now = part;
    return before;
}

/* The end of a call to other ranks: of the time since the last border, wait_ns were spent waiting. */
static inline void dr_parts_leave(struct dr_parts *p, uint64_t wait_ns, enum dr_step_part back) {
    const uint64_t t = dr_clock_ns(), all = t - p->last_ns;
    if (wait_ns > all) wait_ns = all;
    p->ns[DR_PART_WAIT] += wait_ns;
    p->ns[p->now] += all - wait_ns;
    p->last_ns = t;
    p->now = back;
}

/* The step is over: charges what is left. */
static inline void dr_parts_end(struct dr_parts *p, uint64_t now_ns) {
    p->ns[p->now] += now_ns - p->last_ns;
    p->last_ns = now_ns;
}
