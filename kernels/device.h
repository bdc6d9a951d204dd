/* device.h - where bytes are, and the order in which work on them happens.
 * In:   nothing.      Out: buffers with a place, streams, events.
 * Owns: what it creates.
 * Why:  every op and group call takes a stream from the first day, so that the CUDA path changes no caller.
 *
 * On CPU a stream is a thread team and every call on it has finished when it returns; events are no-ops. */
#pragma once

#include <string.h>

#include "common/status.h"
#include "kernels/team.h"

enum dr_place { DR_PLACE_HOST, DR_PLACE_PINNED, DR_PLACE_DEVICE };

struct dr_buf { /* a view never owns; a holder says so */
    void *at;
    size_t bytes;
    enum dr_place place;
};

struct dr_stream {
    struct dr_team *team; /* borrowed */
};

struct dr_event {
    void *impl; /* NULL on CPU */
};

/* stream-ordered; the CPU forms do nothing because its streams are synchronous */
static inline dr_status dr_event_record(struct dr_event *e, struct dr_stream *s) {
    (void)e;
    (void)s;
    return dr_ok();
}

static inline dr_status dr_event_wait(struct dr_event *e, struct dr_stream *s) {
    (void)e;
    (void)s;
    return dr_ok();
}

/* Copies n_row pieces of `bytes`; a stride counts bytes between pieces. In order on the stream. */
static inline void dr_copy_rows(void *to, size_t to_stride, const void *from, size_t from_stride,
                                size_t bytes, size_t n_row, struct dr_stream *s) {
    (void)s;
    for (size_t i = 0; i < n_row; i++)
        memcpy((uint8_t *)to + i * to_stride, (const uint8_t *)from + i * from_stride, bytes);
}
