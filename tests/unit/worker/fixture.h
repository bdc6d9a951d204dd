/* fixture.h - configs and layouts of the worker tests.
 * In:   nothing.      Out: a V3-shaped config whose numbers a test may choose, layouts of it.
 * Owns: nothing.
 * Why:  pure functions need no checkpoint. */
#pragma once

#include "model/schedule.h"

/* v3-bf16's config with 8 heads and a vocabulary of 1,003: eight ranks fit, nothing divides evenly. */
struct dr_config fixture_config(void);

/* Fails the test when the layout is refused. step_tokens 160, 4 slots, context 1,024, f32 cache. */
struct dr_layout fixture_layout(const struct dr_config *c, int32_t tp, int32_t pp, int32_t width);

/* A generator for tests: next number below n. */
uint32_t fixture_random(uint64_t *state, uint32_t n);
