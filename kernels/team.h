/* team.h - the threads of one rank, and the only way to split work among them.
 * In:   a range, a grain, a function.      Out: every index handled exactly once, by some thread.
 * Owns: its threads.
 * Why:  results must not depend on the number of threads, so the split is over outputs, rows, heads or
 * experts, never over a sum. */
#pragma once

#include "common/status.h"

struct dr_team;

/* Handles [begin, end); thread is 0 .. size-1 and names the scratch that may be used. Never fails, never
 * blocks on others. */
typedef void dr_team_fn(void *arg, int64_t begin, int64_t end, int32_t thread);

#ifdef __cplusplus
extern "C" {
#endif

/* n_thread >= 1; 0: as many as the process may use. Fails: EFULL when a thread cannot be started. */
DR_FALLIBLE dr_team_create(int32_t n_thread, struct dr_team **out);
void dr_team_destroy(struct dr_team *t);
int32_t dr_team_size(const struct dr_team *t);

/* Binds thread i to processor cpu[i], [size] of them; the caller is thread 0. Fails: EDEVICE naming the
 * processor; threads before it are bound then. */
DR_FALLIBLE dr_team_pin(struct dr_team *t, const int32_t *cpu);

/* Splits [0, n) into pieces of `grain` (the last may be shorter), runs fn on all, returns when all are done.
 * One caller at a time. n == 0 is legal. Between calls the threads sleep. Creating a team sets the
 * floating-point environment of the caller and of its threads to the default. */
void dr_team_for(struct dr_team *t, int64_t n, int64_t grain, dr_team_fn *fn, void *arg);

#ifdef __cplusplus
}
#endif
