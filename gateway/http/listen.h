/* listen.h - an address to a bound socket.
 * In:   host and port as the options say.      Out: a listening socket, or why not.
 * Owns: nothing; the caller owns the descriptor.
 * Why:  whether an address can be reached from elsewhere decides if a key is needed, and is judged on what
 * was bound. */
#pragma once

#include "common/status.h"

struct dr_listener {
    int fd;           /* owned by the caller */
    int32_t port;     /* bound */
    bool loopback;    /* cannot be reached from another machine */
    char address[64]; /* numeric, for the log */
};

#ifdef __cplusplus
extern "C" {
#endif

/* May block on the resolver. Fails: EUSAGE (an address that is none of this machine's or none at all), EIO
 * (port taken). */
DR_FALLIBLE dr_listen(const char *host, int32_t port, struct dr_listener *out);

/* "ADDRESS:PORT", "[::1]:PORT" or "PORT" (loopback) into its parts. Fails: EUSAGE naming `option`. */
DR_FALLIBLE dr_listen_split(const char *text, const char *option, char *host, size_t bytes, int32_t *port);

#ifdef __cplusplus
}
#endif
