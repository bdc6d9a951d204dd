/* server.c - libmicrohttpd, listeners and the first look at a request.
 * In:   connections.      Out: visits and responses.
 * Owns: struct dr_server with everything in it.
 * Why:  see server.h. One event loop (epoll) serves all connections: its callbacks only copy, check and hand
 * over. */
#include "gateway/http/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rng.h"
#include "gateway/http/listen.h"
#include "gateway/http/visit.h"

enum {
    CONNECTIONS_MAX = 1024,
    CONNECTION_BYTES = 96 << 10, /* headers in and out, one read of a body */
    SEND_STALL_S = 30,
    STREAM_BLOCK_BYTES = 16 << 10,
    SPARE_DESCRIPTORS = 128, /* links, pipes, files */
    FLUSH_MS = 1000,         /* given to last words when the server is destroyed */
};

struct door { /* one listener */
    struct dr_server *server;
    struct MHD_Daemon *daemon;
    bool metrics; /* /metrics and /health only, without a key */
    struct dr_listener listener;
};

struct dr_server {
    struct dr_http http;
    struct door door[2]; /* main, metrics */
    bool metrics_apart;
};

/* ---- responses ---- */

static enum MHD_Result send_response(struct dr_visit *v, int status, struct MHD_Response *r) {
    MHD_add_response_header(r, "x-request-id", v->request_id);
    if (v->fatal) MHD_add_response_header(r, "Connection", "close");
    v->status = status;
    dr_metrics_response(v->http->api.metrics, status);
    enum MHD_Result queued = MHD_queue_response(v->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return queued;
}

/* The body's memory goes to libmicrohttpd. */
static enum MHD_Result send_reply(struct dr_visit *v, struct dr_reply *reply) {
    if (reply->body.failed) { /* half a body must not look whole */
        struct dr_problem p = {0};
        dr_text_reset(&reply->body.text);
        reply->body.failed = false;
        dr_ignore(dr_problem_from(&p, dr_fail(DR_EFULL, "no memory for a reply"), NULL),
                  "sent to the client");
        dr_reply_problem(reply, &p);
    }
    struct MHD_Response *r =
        MHD_create_response_from_buffer(reply->body.text.n, reply->body.text.at, MHD_RESPMEM_MUST_FREE);
    if (!r) return MHD_NO;
    reply->body.text = (struct dr_text){0};
    if (reply->type) MHD_add_response_header(r, "Content-Type", reply->type);
    if (reply->retry_s) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", reply->retry_s);
        MHD_add_response_header(r, "Retry-After", seconds);
    }
    if (reply->status == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (reply->status == 405) MHD_add_response_header(r, "Allow", dr_route_methods(v->route));
    return send_response(v, reply->status, r);
}

static enum MHD_Result send_problem(struct dr_visit *v, const struct dr_problem *p) {
    struct dr_reply reply = {0};
    dr_reply_problem(&reply, p);
    enum MHD_Result sent = send_reply(v, &reply);
    dr_reply_fini(&reply);
    return sent;
}

static enum MHD_Result send_stream(struct dr_visit *v) {
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, dr_visit_read, v, NULL);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    return send_response(v, 200, r);
}

/* Routes that answer at once. */
static enum MHD_Result send_quick(struct dr_visit *v, const char *url) {
    struct dr_reply r = {0};
    struct dr_api *api = &v->http->api;
    bool draining = atomic_load(&v->http->draining);
    char id[512];
    switch (v->route) {
    case DR_ROUTE_MODELS:
        dr_api_models(api, draining, &r);
        break;
    case DR_ROUTE_MODEL:
        if (!dr_route_decode(url + strlen(dr_route_path(DR_ROUTE_MODEL)), id, sizeof id)) id[0] = 0;
        dr_api_model(api, draining, id, &r);
        break;
    case DR_ROUTE_HEALTH:
        dr_api_health(api, draining, &r);
        break;
    case DR_ROUTE_LIVE:
        r.status = 200;
        break;
    case DR_ROUTE_READY:
        dr_api_ready(api, draining, &r);
        break;
    case DR_ROUTE_PROGRESS:
        dr_api_progress(api, draining, &r);
        break;
    case DR_ROUTE_METRICS:
        dr_api_metrics(api, &r);
        break;
    case DR_ROUTE_RESET_PREFIX:
        dr_api_reset_prefix(api, &r);
        break;
    case DR_ROUTE_VERSION:
        dr_api_version(api, &r);
        break;
    default:
        DR_ASSERT(!"a slow route");
    }
    enum MHD_Result sent = send_reply(v, &r);
    dr_reply_fini(&r);
    return sent;
}

/* ---- the first look ---- */

static bool is_json(const char *content_type) {
    static const char json[] = "application/json";
    if (!content_type) return true;
    if (strncasecmp(content_type, json, sizeof json - 1) != 0) return false;
    char next = content_type[sizeof json - 1];
    return next == 0 || next == ';' || next == ' ';
}

static dr_status check_route(struct dr_visit *v, const struct door *door, const struct dr_guard *g,
                             bool method_fits) {
    struct dr_problem *why = &v->problem;
    struct dr_problem_kind kind = {.status = 404, .type = "invalid_request_error", .code = "unknown_url"};
    bool hidden = door->metrics ? v->route != DR_ROUTE_METRICS && !dr_route_is_open(v->route)
                                : v->route == DR_ROUTE_METRICS && door->server->metrics_apart;
    bool open = door->metrics || dr_route_is_open(v->route);
    if (v->http->keys.n && !open) { /* before 404: an outsider learns nothing about what is here */
        v->key = dr_keys_find(&v->http->keys, g->authorization, g->api_key);
        kind = (struct dr_problem_kind){
            .status = 401, .type = "authentication_error", .code = "invalid_api_key"};
        if (v->key < 0)
            return dr_problem_fail(why, kind, NULL, "expected an API key as \"Authorization: Bearer KEY\"");
        kind =
            (struct dr_problem_kind){.status = 404, .type = "invalid_request_error", .code = "unknown_url"};
    }
    if (v->route == DR_ROUTE_NONE || hidden)
        return dr_problem_fail(why, kind, NULL, "no such endpoint; README names them all");
    kind = (struct dr_problem_kind){
        .status = 405, .type = "invalid_request_error", .code = "method_not_allowed"};
    if (!method_fits)
        return dr_problem_fail(why, kind, NULL, "%s: expected method %s", dr_route_path(v->route),
                               dr_route_methods(v->route));
    if (!dr_route_is_slow(v->route)) return dr_ok();
    kind = (struct dr_problem_kind){.status = 415, .type = "invalid_request_error"};
    if (!is_json(g->content_type))
        return dr_problem_fail(why, kind, NULL, "Content-Type: expected application/json");
    kind = (struct dr_problem_kind){.status = 503, .type = "server_error", .code = "draining", .retry_s = 5};
    if (atomic_load(&v->http->draining))
        return dr_problem_fail(why, kind, NULL, "the server shuts down; try another one");
    return dr_ok();
}

static void name_request(struct dr_visit *v, const struct dr_guard *g) {
    if (g->request_id)
        snprintf(v->request_id, sizeof v->request_id, "%s", g->request_id);
    else
        snprintf(v->request_id, sizeof v->request_id, "req-%016llx", (unsigned long long)dr_rng_system());
}

static struct dr_socket *socket_of(struct MHD_Connection *c) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static enum MHD_Result first_look(struct door *door, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, void **context) {
    bool method_fits = false;
    struct dr_guard guard;
    struct dr_visit *v = dr_visit_create(&door->server->http, c, dr_route_find(method, url, &method_fits));
    if (!v) return MHD_NO;
    *context = v;
    v->socket = socket_of(c);
    dr_status st = dr_guard_check(c, version, url, &guard, &v->problem);
    name_request(v, &guard);
    v->fatal = guard.fatal;
    if (st.code == DR_OK) st = check_route(v, door, &guard, method_fits);
    if (guard.content_length > DR_BODY_BYTES_MAX) {
        const struct dr_problem_kind kind = {.status = 413, .type = "invalid_request_error"};
        if (st.code == DR_OK)
            st = dr_problem_fail(&v->problem, kind, NULL, "body of more than %d bytes", DR_BODY_BYTES_MAX);
        v->fatal = true; /* it is not worth reading */
    }
    dr_ignore(st, "kept in v->problem");
    if (v->fatal) {
        dr_watch_set(&v->http->watch, v->socket, DR_PHASE_CUT, NULL);
        return send_problem(v, &v->problem);
    }
    dr_watch_set(&v->http->watch, v->socket, DR_PHASE_BODY, NULL);
    return MHD_YES;
}

/* A part of the body. What will be refused anyway is read and forgotten, or the client would never see why.
 */
static enum MHD_Result add_body(struct dr_visit *v, const char *data, size_t n) {
    dr_watch_set(&v->http->watch, v->socket, DR_PHASE_BODY, NULL);
    if (v->problem.status) {
        v->ignored_bytes += n;
        return v->ignored_bytes > DR_BODY_BYTES_MAX ? MHD_NO : MHD_YES;
    }
    if (v->body.n + n > DR_BODY_BYTES_MAX) {
        const struct dr_problem_kind kind = {.status = 413, .type = "invalid_request_error"};
        dr_ignore(dr_problem_fail(&v->problem, kind, NULL, "body of more than %d bytes", DR_BODY_BYTES_MAX),
                  "sent when it ends");
        dr_text_fini(&v->body);
        return MHD_YES;
    }
    return dr_text_push(&v->body, data, n).code == DR_OK ? MHD_YES : MHD_NO;
}

static enum MHD_Result respond(struct dr_visit *v, const char *url) {
    pthread_mutex_lock(&v->lock);
    bool ready = v->ready, streaming = v->streaming, gone = v->gone;
    pthread_mutex_unlock(&v->lock);
    if (gone) return MHD_NO;
    if (ready) return streaming ? send_stream(v) : send_reply(v, &v->reply);
    dr_watch_set(&v->http->watch, v->socket, DR_PHASE_CUT,
                 NULL); /* from here on libmicrohttpd's own time-out counts */
    if (!v->problem.status && dr_route_generates(v->route)) dr_api_full(&v->http->api, &v->problem);
    if (v->problem.status) return send_problem(v, &v->problem);
    if (!dr_route_is_slow(v->route)) return send_quick(v, url);
    if (atomic_load(&v->http->stopping)) return MHD_NO;
    dr_visit_begin(v);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_size, void **context) {
    struct dr_visit *v = *context;
    if (!v) return first_look(cls, c, url, method, version, context);
    if (*data_size == 0) return respond(v, url);
    enum MHD_Result result = add_body(v, data, *data_size);
    *data_size = 0;
    return result;
}

static void on_completed(void *cls, struct MHD_Connection *c, void **context,
                         enum MHD_RequestTerminationCode code) {
    struct dr_visit *v = *context;
    (void)cls;
    (void)c;
    if (!v) return;
    *context = NULL;
    dr_watch_set(&v->http->watch, v->socket, DR_PHASE_IDLE, NULL);
    bool cut = code != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    dr_log(dr_route_is_slow(v->route) || v->status >= 400 ? DR_LOG_INFO : DR_LOG_DEBUG, "http",
           "req=%s path=%s status=%d ms=%llu%s", v->request_id, dr_route_path(v->route),
           cut && !v->status ? 499 : v->status,
           (unsigned long long)((dr_clock_ns() - v->start_ns) / 1000000u), cut ? " cut" : "");
    dr_visit_end(v);
}

static void on_connection(void *cls, struct MHD_Connection *c, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
    struct door *door = cls;
    struct dr_watch *w = &door->server->http.watch;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        dr_watch_close(w, *socket_context);
        *socket_context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    *socket_context = info ? dr_watch_open(w, info->connect_fd) : NULL;
}

/* Paths stay as they came: decoding before routing is how two readers come to disagree. */
static size_t keep_escapes(void *cls, struct MHD_Connection *c, char *text) {
    (void)cls;
    (void)c;
    return strlen(text);
}

/* ---- start and stop ---- */

static dr_status open_door(struct dr_server *s, struct door *door, unsigned connections) {
    door->server = s;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    door->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, door, MHD_OPTION_LISTEN_SOCKET, door->listener.fd,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, door, MHD_OPTION_NOTIFY_CONNECTION, on_connection, door,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_CONNECTION_LIMIT, connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SEND_STALL_S, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (door->daemon) return dr_ok();
    close(door->listener.fd);
    return dr_fail(DR_EINTERNAL, "the HTTP server cannot start on port %d", door->listener.port);
}

static dr_status open_main(struct dr_server *s, const struct dr_options *o) {
    struct door *door = &s->door[0];
    const char *key_file = dr_option_text(o, DR_OPTION_API_KEY_FILE),
               *host = dr_option_text(o, DR_OPTION_HOST);
    if (*key_file) DR_TRY(dr_keys_read(key_file, &s->http.keys));
    DR_TRY(dr_listen(host, (int32_t)dr_option_int(o, DR_OPTION_PORT), &door->listener));
    bool insecure = dr_option_int(o, DR_OPTION_INSECURE) != 0;
    if (!door->listener.loopback && !s->http.keys.n && !insecure) {
        close(door->listener.fd);
        return dr_fail(DR_EUSAGE,
                       "--host %s can be reached from other machines: give --api-key-file FILE, or "
                       "--insecure to let everyone in",
                       host);
    }
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    rlim_t room =
        files.rlim_cur > 2 * SPARE_DESCRIPTORS ? files.rlim_cur - SPARE_DESCRIPTORS : SPARE_DESCRIPTORS;
    DR_TRY(open_door(s, door, room < CONNECTIONS_MAX ? (unsigned)room : CONNECTIONS_MAX));
    if (!door->listener.loopback && !s->http.keys.n)
        dr_log(DR_LOG_WARN, "exposed", "everyone who reaches %s:%d may use this server (--insecure)",
               door->listener.address, door->listener.port);
    return dr_ok();
}

static dr_status open_metrics(struct dr_server *s, const struct dr_options *o) {
    const char *text = dr_option_text(o, DR_OPTION_METRICS_LISTEN);
    char host[256];
    int32_t port = 0;
    struct door *door = &s->door[1];
    if (!*text) return dr_ok();
    DR_TRY(dr_listen_split(text, "metrics-listen", host, sizeof host, &port));
    DR_TRY(dr_listen(host, port, &door->listener));
    door->metrics = true;
    return open_door(s, door, 32);
}

static dr_status start(struct dr_server *s, const struct dr_options *o) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    s->metrics_apart = *dr_option_text(o, DR_OPTION_METRICS_LISTEN) != 0;
    DR_TRY(dr_workers_init(&s->http.workers, cores < 2 ? 2 : cores > 4 ? 4 : (int32_t)cores, dr_visit_turn));
    dr_status st = dr_watch_init(&s->http.watch);
    if (st.code != DR_OK) {
        dr_workers_fini(&s->http.workers);
        return st;
    }
    st = open_main(s, o);
    if (st.code == DR_OK) st = open_metrics(s, o);
    if (st.code == DR_OK) return st;
    if (s->door[0].daemon) MHD_stop_daemon(s->door[0].daemon);
    dr_watch_fini(&s->http.watch);
    dr_workers_fini(&s->http.workers);
    return st;
}

static void give_back(struct dr_server *s) {
    dr_api_fini(&s->http.api);
    pthread_cond_destroy(&s->http.closed);
    pthread_mutex_destroy(&s->http.lock);
    free(s);
}

dr_status dr_server_create(const struct dr_options *options, const struct dr_kit *kit,
                           struct dr_engine *engine, struct dr_server **out) {
    struct dr_server *s = calloc(1, sizeof *s);
    if (!s) return dr_fail(DR_EFULL, "no memory for the HTTP server");
    dr_status st = dr_api_init(&s->http.api, kit, engine);
    if (st.code != DR_OK) {
        free(s);
        return st;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->http.lock, NULL);
    pthread_cond_init(&s->http.closed, &attr);
    pthread_condattr_destroy(&attr);
    sigset_t all, before; /* signals belong to the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    st = start(s, options);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (st.code != DR_OK) {
        give_back(s);
        return st;
    }
    dr_log(DR_LOG_INFO, "listening", "address=%s port=%d keys=%d model=\"%s\"", s->door[0].listener.address,
           s->door[0].listener.port, s->http.keys.n, kit->name);
    if (s->door[1].daemon)
        dr_log(DR_LOG_INFO, "listening", "address=%s port=%d for=metrics", s->door[1].listener.address,
               s->door[1].listener.port);
    *out = s;
    return st;
}

int32_t dr_server_port(const struct dr_server *s) {
    return s->door[0].listener.port;
}

int32_t dr_server_metrics_port(const struct dr_server *s) {
    return s->door[1].listener.port;
}

bool dr_server_drain(struct dr_server *s, uint64_t timeout_ns) {
    struct timespec until;
    atomic_store(&s->http.draining, true);
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns % 1000000000u;
    until.tv_sec += (time_t)(timeout_ns / 1000000000u + ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&s->http.lock);
    int rc = 0;
    while (s->http.n_open > 0 && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&s->http.closed, &s->http.lock, &until);
    bool empty = s->http.n_open == 0;
    pthread_mutex_unlock(&s->http.lock);
    return empty;
}

void dr_server_destroy(struct dr_server *s) {
    if (!s) return;
    atomic_store(&s->http.draining, true);
    dr_watch_each(&s->http.watch, dr_visit_shut);
    if (!dr_server_drain(s, (uint64_t)FLUSH_MS * 1000000u))
        dr_log(DR_LOG_WARN, "cut", "clients that did not read were cut");
    atomic_store(&s->http.stopping, true);
    dr_watch_each(&s->http.watch, dr_visit_cut); /* libmicrohttpd stops only when nothing is suspended */
    for (int i = 0; i < 2; i++)
        if (s->door[i].daemon) MHD_stop_daemon(s->door[i].daemon);
    dr_watch_fini(&s->http.watch);
    dr_workers_fini(&s->http.workers);
    give_back(s);
}
