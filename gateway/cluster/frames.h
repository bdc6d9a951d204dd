/* frames.h - what a frame of the coordinator does to the engine.
 * In:   a checked header and a body.      Out: calls of the sinks, facts.
 * Owns: nothing.
 * Why:  the switch over message types, apart from the switch over phases. */
#pragma once

#include "gateway/cluster/state.h"

enum dr_frame_news { DR_NEWS_NONE, DR_NEWS_READY, DR_NEWS_FAULT };

#ifdef __cplusplus
extern "C" {
#endif

/* Engine thread. Fails: EPROTO on anything that does not belong here (the link is closed then). */
DR_FALLIBLE dr_frames_take(struct dr_engine *e, const struct dr_frame *frame, const uint8_t *body,
                           enum dr_frame_news *news);

#ifdef __cplusplus
}
#endif
