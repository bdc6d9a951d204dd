/* link.c - frames over a Unix stream socket that never blocks.
 * In:   frames to send, bytes from the peer.      Out: bytes, whole frames.
 * Owns: the descriptor, one input buffer, one output queue.
 * Why:  bytes arrive and leave in any pieces; this file alone knows where a frame begins. A peer that is not
 * the other half of this cluster (user, token, first frame) is refused before any of its frames is looked at.
 */
#include "proto/link.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    TOKEN_BYTES = 32,
    ROOM_LEAST = 64 << 10, /* buffers grow by doubling */
    HELLO_MAX = 256,       /* what a stranger can make us hold */
    BACKLOG = 4,
    FRAME_MAX = DR_FRAME_HEADER + DR_LINK_FRAME_MAX,
};

struct dr_listener {
    int fd;
    struct sockaddr_un at;
};

struct bytes { /* [begin, end) of data is what is there */
    uint8_t *data;
    size_t room, begin, end;
};

struct dr_link {
    int fd;
    bool greeted;               /* the peer has shown the token (always so on the side that connects) */
    uint8_t token[TOKEN_BYTES]; /* what it must show */
    struct bytes in;            /* begin: the frame that recv gave last */
    size_t given;               /* its length, dropped at the next recv */
    pthread_mutex_t lock;       /* out */
    struct bytes out;
};

/* ---- buffers ---- */

/* Makes room for `more` bytes behind the end. What is there moves to the front only when that frees half of
 * the buffer, so that a slow peer does not make every append move megabytes. */
static dr_status bytes_reserve(struct bytes *b, size_t more, const char *what) {
    if (b->room - b->end >= more) return dr_ok();
    if (b->begin > 0 && b->begin >= b->room / 2) {
        memmove(b->data, b->data + b->begin, b->end - b->begin);
        b->end -= b->begin;
        b->begin = 0;
    }
    if (b->room - b->end >= more) return dr_ok();
    size_t room = b->room ? b->room : ROOM_LEAST;
    while (room - b->end < more) room *= 2;
    uint8_t *data = realloc(b->data, room);
    if (!data) return dr_fail(DR_EFULL, "link: no memory for %zu bytes of %s", room, what);
    b->data = data;
    b->room = room;
    return dr_ok();
}

static size_t bytes_len(const struct bytes *b) {
    return b->end - b->begin;
}

/* ---- listener ---- */

static dr_status address(const char *path, struct sockaddr_un *out) {
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof out->sun_path)
        return dr_fail(DR_EIO, "socket path \"%s\": %zu bytes, allowed 1..%zu; choose a shorter folder", path,
                       n, sizeof out->sun_path - 1);
    memcpy(out->sun_path, path, n + 1);
    return dr_ok();
}

static dr_status listener_bind(struct dr_listener *l, const char *path) {
    if (bind(l->fd, (const struct sockaddr *)&l->at, sizeof l->at) != 0)
        return dr_fail(DR_EIO, "socket %s: bind: %s", path, strerror(errno));
    if (chmod(path, 0600) != 0 || listen(l->fd, BACKLOG) != 0) {
        dr_status st = dr_fail(DR_EIO, "socket %s: listen: %s", path, strerror(errno));
        unlink(path);
        return st;
    }
    return dr_ok();
}

dr_status dr_listener_create(const char *path, struct dr_listener **out) {
    struct sockaddr_un at;
    DR_TRY(address(path, &at));
    struct dr_listener *l = malloc(sizeof *l);
    if (!l) return dr_fail(DR_EIO, "socket %s: no memory", path);
    *l = (struct dr_listener){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .at = at};
    dr_status st =
        l->fd >= 0 ? listener_bind(l, path) : dr_fail(DR_EIO, "socket %s: %s", path, strerror(errno));
    if (st.code != DR_OK) {
        if (l->fd >= 0) close(l->fd);
        free(l);
        return st;
    }
    *out = l;
    return dr_ok();
}

void dr_listener_destroy(struct dr_listener *l) {
    if (!l) return;
    close(l->fd);
    unlink(l->at.sun_path);
    free(l);
}

int dr_listener_fd(const struct dr_listener *l) {
    return l->fd;
}

/* ---- life of a link ---- */

/* Takes the descriptor over, also when it fails. */
static dr_status link_new(int fd, const uint8_t token[TOKEN_BYTES], bool greeted, struct dr_link **out) {
    struct dr_link *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return dr_fail(DR_EFULL, "link: no memory");
    }
    l->fd = fd;
    l->greeted = greeted;
    memcpy(l->token, token, TOKEN_BYTES);
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return dr_ok();
}

void dr_link_destroy(struct dr_link *l) {
    if (!l) return;
    close(l->fd);
    pthread_mutex_destroy(&l->lock);
    OPENSSL_cleanse(l->token, sizeof l->token);
    free(l->in.data);
    free(l->out.data);
    free(l);
}

int dr_link_fd(const struct dr_link *l) {
    return l->fd;
}

dr_status dr_listener_accept(struct dr_listener *l, const uint8_t token[TOKEN_BYTES], struct dr_link **out) {
    struct ucred peer = {0};
    socklen_t n = sizeof peer;
    *out = NULL;
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        bool none = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED;
        return none ? dr_ok() : dr_fail(DR_EIO, "socket %s: accept: %s", l->at.sun_path, strerror(errno));
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || peer.uid != geteuid()) {
        close(fd);
        return dr_fail(DR_EPROTO, "socket %s: a process of user %ld connected, expected user %ld",
                       l->at.sun_path, (long)peer.uid, (long)geteuid());
    }
    return link_new(fd, token, false, out);
}

/* A listener has a backlog and answers at once; a signal may interrupt the call. */
static dr_status connect_to(int fd, const struct sockaddr_un *at) {
    int rc = 0;
    do rc = connect(fd, (const struct sockaddr *)at, sizeof *at);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) return dr_ok();
    return dr_fail(DR_EPEER, "socket %s: connect: %s", at->sun_path, strerror(errno));
}

static dr_status greet(struct dr_link *l, const uint8_t token[TOKEN_BYTES]) {
    uint8_t frame[HELLO_MAX];
    size_t bytes = 0;
    struct dr_arena none = {0};
    struct dr_link_hello hello = {.protocol = DR_PROTOCOL};
    memcpy(hello.token, token, TOKEN_BYTES);
    DR_TRY(dr_encode_link_hello(&hello, 0, &none, frame, sizeof frame, &bytes));
    return dr_link_send(l, frame, bytes);
}

dr_status dr_link_connect(const char *path, const uint8_t token[TOKEN_BYTES], struct dr_link **out) {
    struct sockaddr_un at;
    struct dr_link *l = NULL;
    DR_TRY(address(path, &at));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return dr_fail(DR_EPEER, "socket %s: %s", path, strerror(errno));
    dr_status st = connect_to(fd, &at);
    if (st.code == DR_OK && fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        st = dr_fail(DR_EPEER, "socket %s: %s", path, strerror(errno));
    if (st.code != DR_OK) {
        close(fd);
        return st;
    }
    DR_TRY(link_new(fd, token, true, &l));
    st = greet(l, token);
    if (st.code != DR_OK) {
        dr_link_destroy(l);
        return st;
    }
    *out = l;
    return dr_ok();
}

/* ---- sending ---- */

/* Lock held. Writes until the socket is full or the queue is empty. */
static dr_status flush_locked(struct dr_link *l) {
    struct bytes *b = &l->out;
    while (bytes_len(b) > 0) {
        ssize_t n = send(l->fd, b->data + b->begin, bytes_len(b), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return dr_ok();
        if (n < 0) return dr_fail(DR_EPEER, "link: write: %s", strerror(errno));
        b->begin += (size_t)n;
    }
    b->begin = b->end = 0;
    return dr_ok();
}

/* Lock held. */
static dr_status queue_locked(struct dr_link *l, const uint8_t *frame, size_t bytes) {
    size_t waiting = bytes_len(&l->out);
    if (waiting + bytes > DR_LINK_QUEUE_MAX)
        return dr_fail(DR_EFULL,
                       "link: %zu bytes wait for the peer and %zu more do not fit in %d; it does not read",
                       waiting, bytes, DR_LINK_QUEUE_MAX);
    DR_TRY(bytes_reserve(&l->out, bytes, "output"));
    memcpy(l->out.data + l->out.end, frame, bytes);
    l->out.end += bytes;
    return flush_locked(l);
}

dr_status dr_link_send(struct dr_link *l, const uint8_t *frame, size_t bytes) {
    DR_ASSERT(bytes >= DR_FRAME_HEADER && bytes <= FRAME_MAX);
    pthread_mutex_lock(&l->lock);
    dr_status st = queue_locked(l, frame, bytes);
    pthread_mutex_unlock(&l->lock);
    return st;
}

dr_status dr_link_flush(struct dr_link *l) {
    pthread_mutex_lock(&l->lock);
    dr_status st = flush_locked(l);
    pthread_mutex_unlock(&l->lock);
    return st;
}

bool dr_link_pending(struct dr_link *l) {
    pthread_mutex_lock(&l->lock);
    bool any = bytes_len(&l->out) > 0;
    pthread_mutex_unlock(&l->lock);
    return any;
}

/* ---- receiving ---- */

/* Reads until `need` bytes are there. *there: whether they are. */
static dr_status fill(struct dr_link *l, size_t need, bool *there) {
    struct bytes *b = &l->in;
    while (bytes_len(b) < need) {
        DR_TRY(bytes_reserve(b, need - bytes_len(b), "input"));
        /* What lies behind this frame is taken along, but from a stranger no byte more than needed. */
        size_t most = l->greeted ? b->room - b->end : need - bytes_len(b);
        ssize_t n = recv(l->fd, b->data + b->end, most, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            *there = false;
            return dr_ok();
        }
        if (n < 0) return dr_fail(DR_EPEER, "link: read: %s", strerror(errno));
        if (n == 0)
            return dr_fail(DR_EPEER, "link: the peer closed it%s",
                           bytes_len(b) > 0 ? " in the middle of a frame" : "");
        b->end += (size_t)n;
    }
    *there = true;
    return dr_ok();
}

/* Drops what recv gave last, then the next whole frame: *frame points to its header; NULL when it is not
 * there yet. */
static dr_status next_frame(struct dr_link *l, struct dr_frame *out, const uint8_t **frame) {
    bool there = false;
    *frame = NULL;
    l->in.begin += l->given;
    l->given = 0;
    if (bytes_len(&l->in) == 0) l->in.begin = l->in.end = 0;
    DR_TRY(fill(l, DR_FRAME_HEADER, &there));
    if (!there) return dr_ok();
    uint32_t most = l->greeted ? DR_LINK_FRAME_MAX : HELLO_MAX - DR_FRAME_HEADER;
    DR_TRY(dr_frame_read(l->in.data + l->in.begin, most, out));
    DR_TRY(fill(l, DR_FRAME_HEADER + (size_t)out->bytes, &there));
    if (!there) return dr_ok();
    l->given = DR_FRAME_HEADER + (size_t)out->bytes;
    *frame = l->in.data + l->in.begin;
    return dr_ok();
}

static dr_status check_hello(struct dr_link *l, const struct dr_frame *f, const uint8_t *body) {
    uint8_t block[1024] __attribute__((aligned(64)));
    struct dr_arena arena = {.base = block, .bytes = sizeof block};
    struct dr_link_hello hello;
    if (f->type != DR_MSG_LINK_HELLO)
        return dr_fail(DR_EPROTO, "link: the first frame is %s, expected LINK_HELLO", dr_msg_name(f->type));
    DR_TRY(dr_decode_link_hello(body, f->bytes, &arena, &hello));
    if (hello.protocol != DR_PROTOCOL)
        return dr_fail(DR_EPROTO,
                       "link: the peer speaks protocol %u, expected %d; install the same release everywhere",
                       hello.protocol, DR_PROTOCOL);
    if (CRYPTO_memcmp(hello.token, l->token, TOKEN_BYTES) != 0)
        return dr_fail(DR_EPROTO, "link: the peer's token is wrong; it belongs to another launch");
    l->greeted = true;
    return dr_ok();
}

dr_status dr_link_recv(struct dr_link *l, struct dr_frame *out, const uint8_t **body) {
    const uint8_t *frame = NULL;
    *body = NULL;
    for (;;) {
        *out = (struct dr_frame){.type = DR_MSG_NONE};
        DR_TRY(next_frame(l, out, &frame));
        if (!frame) {
            *out = (struct dr_frame){.type = DR_MSG_NONE};
            return dr_ok();
        }
        if (l->greeted) break;
        DR_TRY(check_hello(l, out, frame + DR_FRAME_HEADER));
    }
    *body = frame + DR_FRAME_HEADER;
    return dr_ok();
}
