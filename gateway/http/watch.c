/* watch.c - the watcher thread.
 * In:   poll and the clock.      Out: cuts and 408s.
 * Owns: struct dr_watch.
 * Why:  see watch.h. It wakes once a second while there are connections, at once when a client hangs up. */
#include "gateway/http/watch.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/http/visit.h"

static const uint64_t SECOND_NS = 1000000000u;
enum { HEADERS_S = 10, BODY_IDLE_S = 15, IDLE_S = 40, SOCKETS_MAX = 4096 };

static uint64_t deadline(enum dr_phase phase) {
    static const int seconds[] = {
        [DR_PHASE_HEADERS] = HEADERS_S, [DR_PHASE_IDLE] = IDLE_S, [DR_PHASE_BODY] = BODY_IDLE_S};
    return phase <= DR_PHASE_BODY ? dr_clock_ns() + (uint64_t)seconds[phase] * SECOND_NS : UINT64_MAX;
}

struct dr_socket *dr_watch_open(struct dr_watch *w, int fd) {
    struct dr_socket *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (struct dr_socket){.fd = fd, .phase = DR_PHASE_HEADERS, .deadline_ns = deadline(DR_PHASE_HEADERS)};
    pthread_mutex_lock(&w->lock);
    s->next = w->first;
    if (s->next) s->next->prev = s;
    w->first = s;
    bool wake = w->n++ == 0;
    pthread_mutex_unlock(&w->lock);
    if (wake) eventfd_write(w->wake_fd, 1);
    return s;
}

void dr_watch_close(struct dr_watch *w, struct dr_socket *s) {
    if (!s) return;
    pthread_mutex_lock(&w->lock);
    if (s->prev)
        s->prev->next = s->next;
    else
        w->first = s->next;
    if (s->next) s->next->prev = s->prev;
    w->n--;
    pthread_mutex_unlock(&w->lock);
    free(s);
}

void dr_watch_set(struct dr_watch *w, struct dr_socket *s, enum dr_phase phase, struct dr_visit *visit) {
    if (!s) return;
    pthread_mutex_lock(&w->lock);
    s->phase = phase;
    s->visit = visit;
    s->deadline_ns = deadline(phase);
    pthread_mutex_unlock(&w->lock);
    if (phase == DR_PHASE_BUSY) eventfd_write(w->wake_fd, 1);
}

void dr_watch_each(struct dr_watch *w, void (*fn)(struct dr_visit *v)) {
    pthread_mutex_lock(&w->lock);
    for (struct dr_socket *s = w->first; s; s = s->next)
        if (s->phase == DR_PHASE_BUSY) fn(s->visit);
    pthread_mutex_unlock(&w->lock);
}

/* With the lock held: the BUSY sockets behind the wake-up descriptor. */
static nfds_t gather(struct dr_watch *w, struct pollfd *p, struct dr_socket **of) {
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
    for (struct dr_socket *s = w->first; s && n < SOCKETS_MAX; s = s->next) {
        if (s->phase != DR_PHASE_BUSY) continue;
        of[n] = s;
        p[n++] = (struct pollfd){.fd = s->fd, .events = POLLRDHUP};
    }
    return n;
}

/* No response has begun on this socket, so these are its first bytes. */
static void expire(struct dr_socket *s) {
    static const char text[] =
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
        "Content-Length: 115\r\n\r\n"
        "{\"error\":{\"message\":\"the request took too long to arrive\",\"type\":\"invalid_request_"
        "error\",\"param\":null,\"code\":null}}";
    if (s->phase != DR_PHASE_IDLE) {
        ssize_t sent = send(s->fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* a courtesy: the connection ends either way */
    }
    s->phase = DR_PHASE_CUT;
    shutdown(s->fd, SHUT_RDWR); /* the event loop sees the end and closes */
}

/* With the lock held, so that no descriptor can be closed or change its owner meanwhile. */
static void look(struct dr_watch *w, struct pollfd *p, struct dr_socket **of) {
    nfds_t n = gather(w, p, of);
    uint64_t now = dr_clock_ns();
    if (poll(p, n, 0) < 0) return;
    for (nfds_t i = 1; i < n; i++) {
        if (p[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) {
            of[i]->phase = DR_PHASE_CUT;
            dr_visit_cut(of[i]->visit);
        } else
            dr_visit_tick(of[i]->visit, now);
    }
    for (struct dr_socket *s = w->first; s; s = s->next)
        if (s->phase <= DR_PHASE_BODY && now >= s->deadline_ns) expire(s);
}

static void *run(void *arg) {
    struct dr_watch *w = arg;
    struct pollfd *p = calloc(SOCKETS_MAX, sizeof *p);
    struct dr_socket **of = calloc(SOCKETS_MAX, sizeof *of);
    DR_ASSERT(p && of); /* 64 KiB at start */
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        nfds_t n = gather(w, p, of);
        int timeout_ms = w->n ? 1000 : -1;
        pthread_mutex_unlock(&w->lock);
        poll(p, n, timeout_ms);
        eventfd_t count;
        eventfd_read(w->wake_fd, &count); /* non-blocking: nothing there is fine */
        pthread_mutex_lock(&w->lock);
        look(w, p, of);
    }
    pthread_mutex_unlock(&w->lock);
    free(p);
    free(of);
    return NULL;
}

dr_status dr_watch_init(struct dr_watch *w) {
    memset(w, 0, sizeof *w);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_fd < 0) return dr_fail(DR_EFULL, "no descriptor for the watcher of client sockets");
    pthread_mutex_init(&w->lock, NULL);
    if (pthread_create(&w->thread, NULL, run, w) == 0) return dr_ok();
    pthread_mutex_destroy(&w->lock);
    close(w->wake_fd);
    return dr_fail(DR_EFULL, "cannot start the watcher of client sockets");
}

void dr_watch_fini(struct dr_watch *w) {
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    eventfd_write(w->wake_fd, 1);
    pthread_join(w->thread, NULL);
    while (w->first) {
        struct dr_socket *s = w->first;
        w->first = s->next;
        free(s);
    }
    pthread_mutex_destroy(&w->lock);
    close(w->wake_fd);
}
