/* beat.h - a sign of life each second.
 * In:   the worker that steps (its op index and step id).      Out: BEAT frames.
 * Owns: one thread.
 * Why:  a rank that computes long and a rank that hangs look alike to whoever waits for its report; the op
 * index tells them apart. */
#pragma once

#include "proto/channel.h"
#include "worker/step.h"

struct dr_beater;

#ifdef __cplusplus
extern "C" {
#endif

/* Starts the thread; the first beat goes at once. The channel is borrowed. Fails: EFULL. */
DR_FALLIBLE dr_beater_create(struct dr_channel *channel, int32_t rank, uint64_t epoch,
                             struct dr_beater **out);

/* Ends the thread. */
void dr_beater_destroy(struct dr_beater *b);

/* From now on beats tell this worker's step and op; NULL: none (step 0, op -1). */
void dr_beater_watch(struct dr_beater *b, const struct dr_worker *w);

#ifdef __cplusplus
}
#endif
