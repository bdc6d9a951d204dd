/* link.h - the socket between gateway and coordinator.
 * In:   frames to send, bytes from the peer.      Out: bytes, whole frames.
 * Owns: the descriptor, one input buffer, one output queue.
 * Why:  the gateway outlives the MPI job; a Unix stream socket is what crosses that border.
 *
 * Not a seam: one implementation. Non-blocking; the caller polls dr_link_fd. One thread, except dr_link_send
 * (any, under its own lock). */
#pragma once

#include "proto/codec.h"

struct dr_link;
struct dr_listener;

#ifdef __cplusplus
extern "C" {
#endif

/* Gateway: listens on a Unix stream socket at `path` (inside a directory of mode 0700). Fails: EIO. destroy
 * unlinks the path. */
DR_FALLIBLE dr_listener_create(const char *path, struct dr_listener **out);
void dr_listener_destroy(struct dr_listener *l);
int dr_listener_fd(const struct dr_listener *l);

/* Takes one connection and checks SO_PEERCRED (same user). *out = NULL and OK when there is none. The peer's
 * first frame must be LINK_HELLO with the right token: checked (and kept) by dr_link_recv, which fails EPROTO
 * otherwise. Fails: EIO, EFULL, EPROTO. */
DR_FALLIBLE dr_listener_accept(struct dr_listener *l, const uint8_t token[32], struct dr_link **out);

/* Coordinator: connects and sends LINK_HELLO. Fails: EPEER. */
DR_FALLIBLE dr_link_connect(const char *path, const uint8_t token[32], struct dr_link **out);
void dr_link_destroy(struct dr_link *l);
int dr_link_fd(const struct dr_link *l);

/* Appends a frame (header and body) to the queue and writes what the socket takes; never blocks. Fails: EPEER
 * when the peer is gone, EFULL when more than DR_LINK_QUEUE_MAX bytes wait (the epoch ends then). */
DR_FALLIBLE dr_link_send(struct dr_link *l, const uint8_t *frame, size_t bytes);

/* True while bytes wait to be written: poll for POLLOUT and call dr_link_flush. */
bool dr_link_pending(struct dr_link *l);
DR_FALLIBLE dr_link_flush(struct dr_link *l);

/* The next whole frame, if one is there: *body points into the link's buffer and is valid until the next
 * recv; *out.type is DR_MSG_NONE when there is none yet. Fails: EPEER on end of file, EPROTO on a bad frame
 * (close the link then). */
DR_FALLIBLE dr_link_recv(struct dr_link *l, struct dr_frame *out, const uint8_t **body);

#ifdef __cplusplus
}
#endif
