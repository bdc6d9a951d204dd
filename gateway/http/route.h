/* route.h - which endpoint a path and a method mean.
 * In:   method and path, as they came.      Out: a route, or the status that says why there is none.
 * Owns: nothing.
 * Why:  authorization is decided on the same answer as dispatch, never on a path read twice. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* id, methods, path, open without a key, slow (goes to a worker) */
#define DR_ROUTES(X)                                                                                         \
    X(CHAT, "POST", "/v1/chat/completions", false, true)                                                     \
    X(COMPLETIONS, "POST", "/v1/completions", false, true)                                                   \
    X(TOKENIZE, "POST", "/tokenize", false, true)                                                            \
    X(DETOKENIZE, "POST", "/detokenize", false, true)                                                        \
    X(RESET_PREFIX, "POST", "/reset_prefix_cache", false, false)                                             \
    X(MODELS, "GET, HEAD", "/v1/models", false, false)                                                       \
    X(MODEL, "GET, HEAD", "/v1/models/", false, false)                                                       \
    X(HEALTH, "GET, HEAD", "/health", true, false)                                                           \
    X(LIVE, "GET, HEAD", "/health/live", true, false)                                                        \
    X(READY, "GET, HEAD", "/health/ready", true, false)                                                      \
    X(PROGRESS, "GET, HEAD", "/health/progress", true, false)                                                \
    X(METRICS, "GET, HEAD", "/metrics", false, false)                                                        \
    X(VERSION, "GET, HEAD", "/version", false, false)

#define DR_X_(id, methods, path, open, slow) DR_ROUTE_##id,
enum dr_route { DR_ROUTES(DR_X_) DR_ROUTE_NONE };
#undef DR_X_

#ifdef __cplusplus
extern "C" {
#endif

/* Exact match of the path; /v1/models/{id} takes the rest. method_fits: the route has this method. */
enum dr_route dr_route_find(const char *method, const char *path, bool *method_fits);
const char *dr_route_methods(enum dr_route route); /* for Allow */
const char *dr_route_path(enum dr_route route);    /* "none" for NONE */
bool dr_route_is_open(enum dr_route route);        /* needs no key */
bool dr_route_is_slow(enum dr_route route);
bool dr_route_generates(enum dr_route route); /* needs a place in the cluster's queue */

/* %XX of text into out. false: malformed, too long, or a NUL. */
bool dr_route_decode(const char *text, char *out, size_t bytes);

#ifdef __cplusplus
}
#endif
