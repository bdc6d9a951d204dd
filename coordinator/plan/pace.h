/* pace.h - how long a step should take.
 * In:   the shape of a step, measured times.      Out: expected and longest plausible nanoseconds.
 * Owns: nothing.
 * Why:  every wait has a deadline that comes from the plan's size; a fixed one is too short for a long prompt
 * or too long for a hang.
 *
 * Work of a step = multiply-adds of its rows + a fixed part (weights are read however few rows there are). A
 * row's cost grows with the positions that it sees; an expanded segment also pays for all positions up to its
 * end once. Until a step has been measured, a rank is taken to do 2 G multiply-adds a second and the wires 1
 * GB/s with 100 us a call: slower than any machine worth using. */
#pragma once

#include "model/schedule.h"

struct dr_pace {
    const struct dr_config *config; /* borrowed, as layout */
    const struct dr_layout *layout;
    /* multiply-adds: of a row without attention; of a row for each position that it sees, by form; of
     * expanding a position */
    double row_work, absorbed, expanded, key;
    /* ns a unit of work: falls slowly, rises at once; average. 0: nothing measured */
    double slow, mean;
};

void dr_pace_init(struct dr_pace *p, const struct dr_config *config, const struct dr_layout *layout);

double dr_pace_work(const struct dr_pace *p, const struct dr_step_shape *shape);

/* Work of one segment's rows [first, first + n); of a step without any. */
double dr_pace_segment(const struct dr_pace *p, bool absorbed, int32_t first, int32_t n);
double dr_pace_fixed(const struct dr_pace *p);

/* Most rows of a segment that starts at `first` whose work is at most `work`; 0: not even one. */
int32_t dr_pace_rows(const struct dr_pace *p, bool absorbed, int32_t first, double work);

/* Rows of an expanded segment whose own work is that of expanding the positions before them: with fewer, more
 * than half of the work is not theirs. */
double dr_pace_even_rows(const struct dr_pace *p, int32_t first);

/* The work that takes ns; infinite while nothing was measured. */
double dr_pace_within(const struct dr_pace *p, uint64_t ns);

/* A step of `work` took ns. */
void dr_pace_measured(struct dr_pace *p, double work, uint64_t ns);

/* What a step of this shape takes: likely (for naps), and at most in all reason (for deadlines: x 8 on top).
 */
uint64_t dr_pace_expected_ns(const struct dr_pace *p, const struct dr_step_shape *shape);
uint64_t dr_pace_longest_ns(const struct dr_pace *p, const struct dr_step_shape *shape);
