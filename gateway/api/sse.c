/* sse.c - frames of a text/event-stream.
 * In:   payloads.      Out: lines.
 * Owns: nothing.
 * Why:  see sse.h. */
#include "gateway/api/sse.h"

void dr_sse_event(struct dr_json_out *o, const char *payload, size_t n) {
    size_t at = 0;
    for (;;) {
        size_t end = at;
        while (end < n && payload[end] != '\n' && payload[end] != '\r') end++;
        dr_json_raw(o, "data: ");
        dr_json_bytes(o, payload + at, end - at);
        dr_json_raw(o, "\n");
        if (end == n) break;
        at = end + (payload[end] == '\r' && end + 1 < n && payload[end + 1] == '\n' ? 2 : 1);
    }
    dr_json_raw(o, "\n");
}

void dr_sse_comment(struct dr_json_out *o, const char *word) {
    dr_json_raw(o, ": ");
    dr_json_raw(o, word);
    dr_json_raw(o, "\n\n");
}

void dr_sse_done(struct dr_json_out *o) {
    dr_json_raw(o, "data: [DONE]\n\n");
}
