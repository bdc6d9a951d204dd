/* post.h - everything the coordinator sends, to the workers and to the gateway.
 * In:   structs.      Out: frames on channel and link.
 * Owns: one frame buffer, one scratch arena.
 * Why:  a frame is encoded once, however many workers receive it, and nothing is allocated to do so. */
#pragma once

#include "coordinator/core.h"
#include "coordinator/roster/roster.h"
#include "proto/channel.h"
#include "proto/link.h"

struct dr_post {
    struct dr_channel *channel; /* borrowed, as link */
    struct dr_link *link;
    uint64_t epoch;
    bool closed;                /* the gateway has closed the link */
    uint8_t *frame;             /* [DR_POST_FRAME_MAX] owned */
    struct dr_arena scratch;    /* owned; the loop decodes into it as well */
    struct dr_rank_state *rank; /* [n_rank] owned */
};

enum {
    DR_POST_FRAME_MAX =
        4 << 20, /* TOKENS of a full step with 20 alternatives a row is about 1 MiB, LOGITS at most that */
    DR_POST_SCRATCH =
        12
        << 20, /* a Submit of a million ids takes 4 MiB, with biases and the generated struct less than 12 */
};

/* Fails: EFULL. */
DR_FALLIBLE dr_post_init(struct dr_post *p, struct dr_channel *channel, struct dr_link *link, uint64_t epoch,
                         int32_t n_rank);
void dr_post_fini(struct dr_post *p);

/* To all workers. Fails: EPEER, EFULL (a plan beyond the frame's limit: a bug). */
DR_FALLIBLE dr_post_plan(struct dr_post *p, const struct dr_step_plan *plan);
DR_FALLIBLE dr_post_start(struct dr_post *p, const struct dr_roster *roster);
DR_FALLIBLE dr_post_stop(struct dr_post *p);

/* To the gateway. When it is gone, `closed` is set and nothing is sent. Fails: EFULL when it does not read.
 */
DR_FALLIBLE dr_post_event(struct dr_post *p, const struct dr_core_event *e);
DR_FALLIBLE dr_post_logits(struct dr_post *p, const struct dr_logits *l);
DR_FALLIBLE dr_post_step_news(struct dr_post *p, const struct dr_step_news *news);
/* A worker's frame as it came. */
DR_FALLIBLE dr_post_forward(struct dr_post *p, const uint8_t *frame, size_t bytes);
DR_FALLIBLE dr_post_progress(struct dr_post *p, const struct dr_progress *progress);
DR_FALLIBLE dr_post_cluster_ready(struct dr_post *p, const struct dr_layout *layout,
                                  const struct dr_roster *roster);
DR_FALLIBLE dr_post_alive(struct dr_post *p, uint64_t beat_age_ns);
DR_FALLIBLE dr_post_stats(struct dr_post *p, const struct dr_stats *stats);

/* Says why the epoch ends and waits up to a second for the bytes to leave. Needs no dr_post. Fails: EPEER,
 * EFULL. */
DR_FALLIBLE dr_post_fault(struct dr_link *link, uint64_t epoch, const struct dr_fault_note *note);
