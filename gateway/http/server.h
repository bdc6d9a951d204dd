/* server.h - the HTTP surface of a running cluster.
 * In:   resolved options of `serve`, what is known of the model, the engine.      Out: answers to clients.
 * Owns: listeners, the event loop, a few workers and the watcher of client sockets; every open request.
 * Why:  `serve` starts, drains and stops it without knowing about sockets or JSON.
 *
 * Order of life: kit, engine, server (it answers 503 while the cluster loads), ..., dr_server_drain until it
 * says true or patience ends, dr_engine_drain, dr_server_drain once more for the last bytes,
 * dr_server_destroy, dr_engine_destroy, kit. */
#pragma once

#include "common/option.h"
#include "gateway/api/kit.h"
#include "gateway/cluster/engine.h"

struct dr_server;

#ifdef __cplusplus
extern "C" {
#endif

/* Binds --host:--port (and --metrics-listen) and starts to answer. All three are borrowed until destroy.
 * Fails: EUSAGE (an address beyond loopback without keys and without --insecure; a bad address or key file),
 * ENOENT (key file), EIO (port taken); nothing is left behind then. The exposure and the port are logged. */
DR_FALLIBLE dr_server_create(const struct dr_options *options, const struct dr_kit *kit,
                             struct dr_engine *engine, struct dr_server **out);

/* The ports that were bound (--port 0 takes any); metrics: 0 without --metrics-listen. */
int32_t dr_server_port(const struct dr_server *s);
int32_t dr_server_metrics_port(const struct dr_server *s);

/* From the first call on: no new work (503 + Retry-After, also from /health). Waits until nothing is open or
 * the timeout has passed; true: nothing is open. May be called again, with 0 to look only. */
bool dr_server_drain(struct dr_server *s, uint64_t timeout_ns);

/* Cuts what is still open (streams end with an error event where the socket takes it), closes the listeners,
 * joins all threads. */
void dr_server_destroy(struct dr_server *s);

#ifdef __cplusplus
}
#endif
