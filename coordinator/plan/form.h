/* form.h - absorbed or expanded: the form of a request's prompt rows.
 * In:   how much of the prompt the cache has, how much is new.      Out: the form, fixed until it stops
 * running. Owns: nothing. Why:  expanding a long cached prefix for a few new rows costs more than reading it
 * as it lies there. */
#pragma once

#include "model/cost.h"
#include "proto/message.h"

/* Expanded: the hit's latents are expanded to keys and values once a chunk. Absorbed: each new row costs more
 * for each position that it sees. So expanded iff hit x E < n x (hit + n / 2) x (A - X) with E, A, X the
 * operations of dr_cost_expansion_flop, _absorbed_flop and _expanded_flop. n: new prompt rows of the first
 * chunk. Without a hit: expanded. */
static inline enum dr_form dr_form_of(const struct dr_config *c, int32_t hit, int32_t n) {
    const double surplus = n * (hit + n / 2.0) * (dr_cost_absorbed_flop(c) - dr_cost_expanded_flop(c));
    return hit == 0 || hit * dr_cost_expansion_flop(c) < surplus ? DR_FORM_EXPANDED : DR_FORM_ABSORBED;
}
