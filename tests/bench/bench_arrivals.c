/* bench_arrivals.c - asks a server for completions, on time, and says when its answers came.
 * In:   a port of this machine; a rate and seconds (Poisson arrivals), or clients that ask without a pause.
 * Out:  one JSON object. Owns: its sockets, the results. Why:  a client of one thread and plain sockets takes
 * little of the processors that it shares with the server, and an answer's time is the kernel's, of the
 * moment at which the server wrote it: when this program got to run to read it does not count. Times begin
 * when the request is given to the kernel. `late` says how far behind its own schedule the client was. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/support/splitmix.h"

enum {
    CONNECTIONS_MAX = 4096,
    REQUESTS_MAX = 1 << 20,
    EVENTS = 64,
    ROOM = 16 << 10,
    TAIL = 7,
    HEAD_MAX = 4096
};

enum state { CLOSED, CONNECTING, IDLE, HEAD, BODY, STREAM };

struct connection {
    int fd;
    enum state state;
    int64_t request;  /* index of its result */
    uint64_t seen_ns; /* first token of a stream, 0: not yet */
    char head[HEAD_MAX];
    size_t n_head, left; /* left: bytes of a body */
    char tail[TAIL];     /* of a stream */
    int32_t next;        /* idle or closed ones */
};

struct result {
    int32_t status;                      /* 0: the connection broke */
    uint64_t sent_ns, answer_ns, end_ns; /* of the wall clock; answer: first token, or the whole refusal */
};

struct load {
    int port, epoll;
    uint64_t dice;
    struct connection *connection;      /* [CONNECTIONS_MAX] */
    int32_t n_connection, idle, closed; /* lists, -1: empty */
    struct result *result;              /* [REQUESTS_MAX] */
    int64_t n_result, n_open, n_served, n_refused, n_other;
    int32_t clients; /* 0: by rate */
    bool stopping;   /* no new requests */
    uint64_t late_ns;
};

static void die(const char *what) {
    fprintf(stderr, "bench-arrivals: %s: %s\n", what, strerror(errno));
    exit(74);
}

static uint64_t wall_ns(void) { /* the clock of the kernel's time stamps */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static uint64_t draw(struct load *l) {
    const uint64_t x = splitmix(l->dice);
    l->dice += SPLITMIX_STEP;
    return x;
}

/* A prompt of 20 to 100 ids, an answer of 16 to 64 tokens. */
static size_t write_request(struct load *l, char *out) {
    char body[2048];
    const int n_prompt = 20 + (int)(draw(l) % 81), n_answer = 16 + (int)(draw(l) % 49);
    size_t n = (size_t)snprintf(body, sizeof body, "{\"model\":\"lexi-15m\",\"prompt\":[");
    for (int i = 0; i < n_prompt; i++)
        n += (size_t)snprintf(body + n, sizeof body - n, "%s%d", i ? "," : "", 10 + (int)(draw(l) % 8000));
    n += (size_t)snprintf(body + n, sizeof body - n,
                          "],\"max_tokens\":%d,\"temperature\":0,\"stream\":true,\"ignore_eos\":true}",
                          n_answer);
    return (size_t)snprintf(out, ROOM,
                            "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: "
                            "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                            l->port, n, body);
}

/* ---- connections ---- */

static void put(struct load *l, int32_t *list, struct connection *c, enum state state) {
    c->state = state;
    c->next = *list;
    *list = (int32_t)(c - l->connection);
}

static void finish(struct load *l, struct connection *c, int status, uint64_t at_ns) {
    struct result *r = &l->result[c->request];
    r->status = status;
    r->end_ns = at_ns;
    l->n_open--;
    l->n_served += status == 200;
    l->n_refused += status == 429;
    l->n_other += status != 200 && status != 429;
}

static void close_connection(struct load *l, struct connection *c) {
    close(c->fd);
    if (c->state == IDLE) { /* it may stand anywhere in the list */
        int32_t *at = &l->idle;
        while (*at != (int32_t)(c - l->connection)) at = &l->connection[*at].next;
        *at = c->next;
    } else
        finish(l, c, 0, wall_ns());
    put(l, &l->closed, c, CLOSED);
}

static void send_request(struct load *l, struct connection *c) {
    char text[ROOM];
    const size_t n = write_request(l, text);
    c->state = HEAD;
    c->n_head = c->left = 0;
    c->seen_ns = 0;
    memset(c->tail, 0, sizeof c->tail);
    if (send(c->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) close_connection(l, c);
}

static void begin(struct load *l) {
    if (l->n_result == REQUESTS_MAX) return;
    struct connection *c;
    const bool fresh = l->idle < 0;
    if (!fresh) {
        c = &l->connection[l->idle];
        l->idle = c->next;
    } else if (l->closed >= 0) {
        c = &l->connection[l->closed];
        l->closed = c->next;
    } else {
        if (l->n_connection == CONNECTIONS_MAX) return;
        c = &l->connection[l->n_connection++];
    }
    c->request = l->n_result++;
    l->n_open++;
    l->result[c->request] = (struct result){.sent_ns = wall_ns()};
    if (!fresh) {
        send_request(l, c);
        return;
    }
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)l->port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                            .data.u32 = (uint32_t)(c - l->connection)};
    c->state = CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("a socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (setsockopt(c->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)) die("time stamps of a socket");
    if (connect(c->fd, (const struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connecting");
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll");
}

/* ---- answers ---- */

static void over(struct load *l, struct connection *c, int status, uint64_t at_ns) {
    finish(l, c, status, at_ns);
    put(l, &l->idle, c, IDLE);
    if (l->clients && !l->stopping) begin(l);
}

static void take_stream(struct load *l, struct connection *c, const char *at, size_t n, uint64_t at_ns) {
    char all[TAIL + ROOM];
    memcpy(all, c->tail, TAIL);
    memcpy(all + TAIL, at, n);
    if (!c->seen_ns && memmem(all, TAIL + n, "data: {", TAIL))
        l->result[c->request].answer_ns = c->seen_ns = at_ns;
    memcpy(c->tail, all + n, TAIL);
    if (memcmp(c->tail, "\r\n0\r\n\r\n", TAIL) == 0) over(l, c, 200, at_ns);
}

static void take_body(struct load *l, struct connection *c, size_t n, uint64_t at_ns) {
    c->left -= n < c->left ? n : c->left;
    if (c->left) return;
    l->result[c->request].answer_ns = at_ns;
    over(l, c, atoi(c->head + 9), at_ns);
}

static void take_head(struct load *l, struct connection *c, const char *at, size_t n, uint64_t at_ns) {
    const size_t old = c->n_head, room = sizeof c->head - 1 - old, part = n < room ? n : room;
    memcpy(c->head + old, at, part);
    c->n_head += part;
    c->head[c->n_head] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return;
    const size_t used = (size_t)(end - c->head) + 4 - old;
    if (strncmp(c->head, "HTTP/1.1 200", 12) == 0) {
        c->state = STREAM;
        take_stream(l, c, at + used, n - used, at_ns);
        return;
    }
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->state = BODY;
    c->left = length && length < end ? (size_t)strtoul(length + 17, NULL, 10) : 0;
    take_body(l, c, n - used, at_ns);
}

/* Bytes that are there, and when the kernel got the last of them; 0: none; -1: the end. */
static ssize_t receive(struct connection *c, char *room, uint64_t *at_ns) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    struct iovec part = {.iov_base = room, .iov_len = ROOM};
    struct msghdr m = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    *at_ns = wall_ns();
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        struct timespec t;
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_TIMESTAMPNS) continue;
        memcpy(&t, CMSG_DATA(h), sizeof t);
        *at_ns = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
    }
    return n;
}

static void on_event(struct load *l, struct connection *c, uint32_t events) {
    char room[ROOM];
    uint64_t at_ns = 0;
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING && (events & EPOLLOUT)) send_request(l, c);
    for (ssize_t n; c->state != CLOSED && c->state != CONNECTING && (n = receive(c, room, &at_ns)) != 0;) {
        if (n < 0)
            close_connection(l, c);
        else if (c->state == HEAD)
            take_head(l, c, room, (size_t)n, at_ns);
        else if (c->state == BODY)
            take_body(l, c, (size_t)n, at_ns);
        else if (c->state == STREAM)
            take_stream(l, c, room, (size_t)n, at_ns);
    }
    if (c->state == CONNECTING && (events & (EPOLLERR | EPOLLHUP))) close_connection(l, c);
}

/* Waits for news until `until_ns`. */
static void hear(struct load *l, uint64_t until_ns) {
    struct epoll_event event[EVENTS];
    const uint64_t now = dr_clock_ns();
    const struct timespec wait = dr_clock_timespec(until_ns > now ? until_ns - now : 0);
    const int n = epoll_pwait2(l->epoll, event, EVENTS, &wait, NULL);
    if (n < 0 && errno != EINTR) die("epoll");
    for (int i = 0; i < n; i++) on_event(l, &l->connection[event[i].data.u32], event[i].events);
}

/* ---- the run ---- */

static void run(struct load *l, double rate, double seconds) {
    const uint64_t start = dr_clock_ns(), end = start + (uint64_t)(seconds * 1e9);
    uint64_t due = start;
    for (int32_t i = 0; i < l->clients; i++) begin(l);
    for (uint64_t now; (now = dr_clock_ns()) < end;) {
        while (!l->clients && due <= now && due < end) {
            if (now - due > l->late_ns) l->late_ns = now - due;
            begin(l);
            due += (uint64_t)(-log(((double)(draw(l) >> 11) + 1) / 9007199254740993.0) / rate * 1e9);
        }
        hear(l, !l->clients && due < end ? due : end);
    }
    l->stopping = true;
    while (l->n_open) hear(l, dr_clock_ns() + 1000000000U);
}

static int ascending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Milliseconds from request to answer of those with this status. */
static void say(const struct load *l, const char *name, int32_t status, uint64_t *ns) {
    int64_t n = 0;
    for (int64_t i = 0; i < l->n_result; i++) {
        const struct result *r = &l->result[i];
        if (r->status == status && r->answer_ns > r->sent_ns) ns[n++] = r->answer_ns - r->sent_ns;
    }
    qsort(ns, (size_t)n, sizeof *ns, ascending);
    static const double part[] = {0.5, 0.9, 0.99, 0.999, 1};
    static const char *const part_name[] = {"p50", "p90", "p99", "p999", "max"};
    printf("\"%s\": {\"n\": %" PRId64, name, n);
    for (int k = 0; n && k < 5; k++)
        printf(", \"%s\": %.3f", part_name[k], (double)ns[(int64_t)(part[k] * (double)(n - 1))] / 1e6);
    printf("}, ");
}

int main(int argc, char **argv) {
    const bool closed = argc == 6 && strcmp(argv[2], "clients") == 0,
               open = argc == 6 && strcmp(argv[2], "rate") == 0;
    if (!closed && !open) {
        fputs("usage: bench-arrivals PORT rate|clients VALUE SECONDS SEED\n", stderr);
        return 64;
    }
    struct load l = {.port = atoi(argv[1]), .idle = -1, .closed = -1, .dice = strtoull(argv[5], NULL, 10)};
    const double value = atof(argv[3]), seconds = atof(argv[4]);
    uint64_t *ns = calloc(REQUESTS_MAX, sizeof *ns);
    l.connection = calloc(CONNECTIONS_MAX, sizeof *l.connection);
    l.result = calloc(REQUESTS_MAX, sizeof *l.result);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.clients = closed ? (int32_t)value : 0;
    if (!ns || !l.connection || !l.result || l.epoll < 0) die("memory");
    const uint64_t start = dr_clock_ns();
    run(&l, value, seconds);
    printf("{\"seconds\": %.1f, ", (double)(dr_clock_ns() - start) / 1e9);
    say(&l, "served", 200, ns);
    say(&l, "refused", 429, ns);
    printf("\"others\": %" PRId64 ", \"connections\": %d, \"late_ms\": %.3f}\n", l.n_other, l.n_connection,
           (double)l.late_ns / 1e6);
    free(l.connection);
    free(l.result);
    free(ns);
    return 0;
}
