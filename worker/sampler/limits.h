/* limits.h - top-k and top-p as one threshold on the key of a row's adjusted logits.
 * In:   a sampler whose maxima are known and whose `least` holds the min-p threshold.      Out: `least`,
 * raised. Owns: nothing. Why:  a descent over the key's four bytes needs counts and masses of 256 bins, which
 * add exactly across ranks. */
#pragma once

#include "worker/sampler/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

/* top-k first, then top-p on what is left. Rows that ask for neither are not touched. Fails: what ops and
 * ledger say. */
DR_FALLIBLE dr_sampler_limit(struct dr_sampler *s);

/* Shares rows x row_bytes bytes of s->in: member m's lie at s->all + m * rows * row_bytes. */
DR_FALLIBLE dr_sampler_share(struct dr_sampler *s, enum dr_call_what what, int32_t index, int32_t rows,
                             size_t row_bytes);

#ifdef __cplusplus
}
#endif
