/* sse.h - server-sent events.
 * In:   payloads.      Out: the frames of a text/event-stream, appended to a writer.
 * Owns: nothing.
 * Why:  a line break inside a payload would end the event early; that is looked after here and nowhere else.
 */
#pragma once

#include "gateway/api/json_out.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "data: " payload, blank line. A payload with line breaks becomes several data lines of one event (CR, LF
 * and CRLF all count, as the reader counts them). */
void dr_sse_event(struct dr_json_out *o, const char *payload, size_t n);

/* ": word", blank line: readers ignore it, idle connections stay open. */
void dr_sse_comment(struct dr_json_out *o, const char *word);

/* The end mark of OpenAI's streams. */
void dr_sse_done(struct dr_json_out *o);

#ifdef __cplusplus
}
#endif
