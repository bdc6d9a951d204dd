/* support.h - what the programs of this folder share.
 * In:   MPI's arguments.      Out: the channel, small frames for keeping in step.
 * Owns: nothing.
 * Why:  each program is a coordinator and workers; all waits have a deadline, so a failed check ends the run
 * instead of hanging it. */
#pragma once

#include "common/clock.h"
#include "proto/channel.h"
#include "tests/support/runner.h"
#include "worker/collective/group.h"

enum { PATIENCE_S = 60 }; /* of any wait: passed only when something is broken */

uint64_t multirank_deadline(void);

/* One number to an end, and the next number from any end (*from). Abort the program when it does not work. */
void multirank_tell(struct dr_channel *ch, int32_t to, uint64_t value);
uint64_t multirank_hear(struct dr_channel *ch, int32_t *from);

/* All ends: returns when all have come (through the coordinator). */
void multirank_meet(struct dr_channel *ch);

/* Runs the suites with the channel kept for multirank_channel(), meets, ends MPI. Returns the exit status of
 * main. */
int multirank_main(int argc, char **argv, CU_SuiteInfo *suites);
struct dr_channel *multirank_channel(void);

/* Element i of member m: magnitudes differ so much that another order of additions gives other bits. */
float multirank_value(int32_t m, size_t i);
