/* progress.h - how far the weights are loaded, on stderr.
 * In:   PROGRESS frames of all ranks.      Out: one bar on a terminal, else a line a second at most.
 * Owns: nothing.
 * Why:  loading a large model takes minutes and must not look like a hang. */
#pragma once

#include "model/layout.h"
#include "proto/message.h"

struct dr_progress_bar {
    bool terminal, plain; /* plain: lines for people; else log events */
    bool drawn;
    uint64_t begin_ns, last_ns;
    uint64_t done[DR_RANKS_MAX], total[DR_RANKS_MAX];
};

#ifdef __cplusplus
extern "C" {
#endif

void dr_progress_begin(struct dr_progress_bar *p, bool plain);
void dr_progress_take(struct dr_progress_bar *p, const struct dr_progress *news);
void dr_progress_end(struct dr_progress_bar *p); /* wipes the bar */

#ifdef __cplusplus
}
#endif
