/* admission.h - whether a Submit may become a request.
 * In:   a Submit; what waits now.      Out: yes, or the refusal with its sentence.
 * Owns: nothing.
 * Why:  everything about a request that could hurt the others later is refused here, before it is accepted.
 */
#pragma once

#include "coordinator/book.h"

struct dr_admission {
    const struct dr_config *config;
    const struct dr_layout *layout;
    struct dr_book *book; /* read only */
    bool draining;
    uint32_t retry_ms; /* advice with FULL */
};

/* True: *refused is untouched. False: *refused is filled in. */
bool dr_admission_check(const struct dr_admission *a, const struct dr_submit *s, struct dr_refused *refused);

/* Copies a checked Submit into a record fresh from the pool. */
void dr_admission_fill(const struct dr_admission *a, const struct dr_submit *s, uint64_t now_ns,
                       struct dr_request *r);
