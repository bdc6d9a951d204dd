/* loop.h - the life of one epoch: join, load, serve, end.
 * In:   frames of workers and gateway, the clock.      Out: the core's plans and events as frames.
 * Owns: core, roster, post.
 * Why:  the only place of the coordinator that waits, and the only one that reads the clock. */
#pragma once

#include "coordinator/core.h"
#include "proto/channel.h"
#include "proto/link.h"

struct dr_loop_setup { /* all borrowed */
    const struct dr_config *config;
    const struct dr_layout *layout;
    struct dr_channel *channel; /* end 0; n_end = n_rank + 1 */
    struct dr_link *link;
    uint64_t epoch;
    double deadline_scale; /* this and what follows: as in struct dr_core_setup */
    enum dr_reuse reuse;
    uint64_t step_ns;
    int32_t drafts;
    uint64_t join_ns; /* until all hellos are there, at most; 0: 60 s */
};

/* Blocks until the gateway closes the link (OK; the workers were told to stop) or the epoch fails: then the
 * gateway got DONE(LOST) for each open request and CLUSTER_FAULT with rank and reason, and the process should
 * end with the status's exit code, without finalizing MPI. Fails: EPEER (a rank or the gateway is gone or
 * silent), ETIME (a step took too long), EPROTO, EMODEL (ranks differ), EFULL (memory, or the gateway does
 * not read), or the code of a worker's own fault. */
DR_FALLIBLE dr_loop_run(const struct dr_loop_setup *setup);
