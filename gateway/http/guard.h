/* guard.h - what must be true of a request's headers before anything is read or routed.
 * In:   a connection whose headers are complete.      Out: the few that matter, or a problem.
 * Owns: nothing; values are borrowed from the connection.
 * Why:  duplicates and contradictions are how a request means one thing to a proxy and another to us. */
#pragma once

#include <microhttpd.h>

#include "gateway/api/problem.h"

enum {
    DR_GUARD_LINE_MAX = 8 << 10, /* request line */
    DR_GUARD_HEADERS_BYTES_MAX = 32 << 10,
    DR_GUARD_HEADERS_MAX = 64,
    DR_GUARD_ID_MAX = 128, /* x-request-id */
};

struct dr_guard {
    const char *authorization, *api_key, *content_type; /* NULL: not there */
    const char *request_id;                             /* NULL: none, or none that can be echoed */
    uint64_t content_length;                            /* 0: none or chunked */
    bool fatal; /* the problem makes the end of this request uncertain: close the connection without reading
                   on */
    /* while collecting */
    int32_t n, n_host, n_length, n_encoding;
    size_t bytes;
    bool odd; /* a NUL inside */
    const char *host, *length, *encoding;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EREQUEST with *why. */
DR_FALLIBLE dr_guard_check(struct MHD_Connection *c, const char *version, const char *url, struct dr_guard *g,
                           struct dr_problem *why);

#ifdef __cplusplus
}
#endif
