/* listen.c - binds a socket.
 * In:   host, port.      Out: a descriptor.
 * Owns: nothing.
 * Why:  see listen.h. */
#include "gateway/http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 256 };

static bool is_loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static dr_status bind_one(const struct addrinfo *info, const char *host, int32_t port,
                          struct dr_listener *out) {
    int one = 1, fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return dr_fail(DR_EIO, "cannot make a socket: %s", strerror(errno));
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof bound;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one,
               sizeof one); /* or a restart waits for old connections to time out */
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0) {
        int why = errno;
        close(fd);
        if (why == EADDRNOTAVAIL) return dr_fail(DR_EUSAGE, "--host %s: no address of this machine", host);
        return dr_fail(DR_EIO, "cannot listen on %s port %d: %s%s", host, port, strerror(why),
                       why == EADDRINUSE ? "; another server has it; choose another --port" : "");
    }
    char service[16] = "0";
    struct dr_listener made = {.fd = fd, .loopback = is_loopback((struct sockaddr *)&bound)};
    getnameinfo((struct sockaddr *)&bound, bytes, made.address, sizeof made.address, service, sizeof service,
                NI_NUMERICHOST | NI_NUMERICSERV);
    made.port = atoi(service);
    *out = made;
    return dr_ok();
}

dr_status dr_listen(const char *host, int32_t port, struct dr_listener *out) {
    char service[16];
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(*host ? host : "127.0.0.1", service, &hints, &list);
    if (rc != 0)
        return dr_fail(DR_EUSAGE, "--host %s: expected an address of this machine: %s", host,
                       gai_strerror(rc));
    dr_status st = bind_one(list, host, port, out);
    freeaddrinfo(list);
    return st;
}

dr_status dr_listen_split(const char *text, const char *option, char *host, size_t bytes, int32_t *port) {
    const char *colon = strrchr(text, ':'), *digits = colon ? colon + 1 : text;
    size_t n = colon ? (size_t)(colon - text) : 0;
    char *end = NULL;
    long number = *digits >= '0' && *digits <= '9' ? strtol(digits, &end, 10) : -1;
    if (number < 0 || number > 65535 || *end || n >= bytes || (colon && n == 0))
        return dr_fail(DR_EUSAGE, "--%s %s: expected ADDRESS:PORT", option, text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    snprintf(host, bytes, "%.*s", (int)n, text);
    if (!colon) snprintf(host, bytes, "127.0.0.1");
    *port = (int32_t)number;
    return dr_ok();
}
