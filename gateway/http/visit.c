/* visit.c - moves one request between event loop, worker and watcher.
 * In:   a body.      Out: a reply or a stream.
 * Owns: struct dr_visit.
 * Why:  see visit.h. */
#include "gateway/http/visit.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/api/sse.h"

/* ---- life ---- */

struct dr_visit *dr_visit_create(struct dr_http *http, struct MHD_Connection *connection,
                                 enum dr_route route) {
    struct dr_visit *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    v->http = http;
    v->connection = connection;
    v->route = route;
    v->key = -1;
    v->start_ns = dr_clock_ns();
    atomic_init(&v->references, 1);
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_lock(&http->lock);
    http->n_open++;
    pthread_mutex_unlock(&http->lock);
    return v;
}

static void release(struct dr_visit *v) {
    if (atomic_fetch_sub(&v->references, 1) > 1) return;
    dr_answer_destroy(v->answer);
    dr_text_fini(&v->body);
    dr_reply_fini(&v->reply);
    dr_json_out_fini(&v->out);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* Any thread that holds a reference of its own, or one that is certain to outlast the call. */
static void push(struct dr_visit *v) {
    atomic_fetch_add(&v->references, 1);
    if (!dr_workers_push(&v->http->workers, &v->job)) release(v);
}

/* With v->lock held. */
static void resume(struct dr_visit *v) {
    if (!v->suspended) return;
    v->suspended = false;
    MHD_resume_connection(v->connection);
}

/* Engine thread. The answer holds the visit's worker off its end while this runs, so a reference exists.
 */
static void notify(void *arg) {
    push(arg);
}

/* ---- event loop ---- */

void dr_visit_begin(struct dr_visit *v) {
    v->begun = true;
    pthread_mutex_lock(&v->lock);
    v->suspended = true;
    MHD_suspend_connection(v->connection);
    pthread_mutex_unlock(&v->lock);
    /* Only now: a cut that came before the suspension would find nothing to resume, and nobody would ever do
     * it. */
    dr_watch_set(&v->http->watch, v->socket, DR_PHASE_BUSY, v);
    push(v);
}

ssize_t dr_visit_read(void *cls, uint64_t pos, char *buf, size_t max) {
    struct dr_visit *v = cls;
    ssize_t got = 0;
    (void)pos;
    pthread_mutex_lock(&v->lock);
    size_t left = v->out.text.n - v->sent;
    if (v->broken || v->gone)
        got = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (left > 0) {
        size_t n = left < max ? left : max;
        memcpy(buf, v->out.text.at + v->sent, n);
        v->sent += n;
        if (v->sent == v->out.text.n) {
            dr_text_reset(&v->out.text);
            v->sent = 0;
        }
        got = (ssize_t)n;
    } else if (v->ended)
        got = MHD_CONTENT_READER_END_OF_STREAM;
    else if (atomic_load(&v->http->stopping))
        got = MHD_CONTENT_READER_END_WITH_ERROR;
    else {
        v->suspended = true;
        MHD_suspend_connection(v->connection);
    }
    pthread_mutex_unlock(&v->lock);
    return got;
}

void dr_visit_end(struct dr_visit *v) {
    struct dr_http *http = v->http;
    pthread_mutex_lock(&v->lock);
    v->gone = true;
    v->suspended = false;
    pthread_mutex_unlock(&v->lock);
    if (v->begun) push(v); /* a worker drops the answer and so cancels what still runs */
    release(v);
    pthread_mutex_lock(&http->lock);
    if (--http->n_open == 0) pthread_cond_broadcast(&http->closed);
    pthread_mutex_unlock(&http->lock);
}

/* ---- watcher ---- */

void dr_visit_cut(struct dr_visit *v) {
    pthread_mutex_lock(&v->lock);
    v->gone = true;
    resume(v); /* the event loop finds it gone and closes */
    pthread_mutex_unlock(&v->lock);
    push(v);
}

void dr_visit_shut(struct dr_visit *v) {
    pthread_mutex_lock(&v->lock);
    v->shut = true;
    pthread_mutex_unlock(&v->lock);
    push(v);
}

void dr_visit_tick(struct dr_visit *v, uint64_t now_ns) {
    pthread_mutex_lock(&v->lock);
    bool quiet =
        now_ns > v->last_out_ns && now_ns - v->last_out_ns > (uint64_t)DR_VISIT_KEEPALIVE_S * 1000000000u;
    if (v->streaming && !v->ended && !v->gone && quiet) {
        dr_sse_comment(&v->out, "keepalive");
        v->last_out_ns = now_ns;
        resume(v);
    }
    pthread_mutex_unlock(&v->lock);
}

/* ---- worker ---- */

static void settle_problem(struct dr_visit *v, const struct dr_problem *p) {
    pthread_mutex_lock(&v->lock);
    dr_reply_problem(&v->reply, p);
    v->ready = true;
    resume(v);
    pthread_mutex_unlock(&v->lock);
}

/* Body to answer. false: the reply is settled. */
static bool ask(struct dr_visit *v) {
    struct dr_http *h = v->http;
    struct dr_ask a = {0};
    struct dr_problem why = {0};
    dr_status st =
        dr_ask_read(&a, v->route == DR_ROUTE_CHAT, h->api.kit, v->body.at, v->body.n, &h->api.names, &why);
    if (st.code == DR_OK) st = dr_ask_encode(&a, h->api.kit, &why);
    dr_text_fini(&v->body); /* the tree has what is needed of it */
    if (st.code == DR_OK) {
        char both[33];
        if (v->key >= 0) {
            dr_keys_tenant(&h->keys, v->key, "", a.params.tenant);
            dr_keys_tenant(&h->keys, v->key, a.params.salt, both);
            snprintf(a.params.salt, sizeof a.params.salt, "%s", both);
        }
        st = dr_answer_create(&h->api, &a, notify, v, &v->answer, &why);
    } else
        dr_ask_fini(&a);
    if (st.code == DR_OK) return true;
    settle_problem(v, &why);
    return false;
}

static void answer_tokens(struct dr_visit *v) {
    struct dr_reply r = {0};
    if (v->route == DR_ROUTE_TOKENIZE)
        dr_api_tokenize(&v->http->api, v->body.at, v->body.n, &r);
    else
        dr_api_detokenize(&v->http->api, v->body.at, v->body.n, &r);
    dr_text_fini(&v->body);
    pthread_mutex_lock(&v->lock);
    v->reply = r;
    v->ready = true;
    resume(v);
    pthread_mutex_unlock(&v->lock);
}

/* The server stops. Streams end with an event that says so. */
static void stop_answer(struct dr_visit *v) {
    struct dr_problem p = {0};
    struct dr_json_out event = {0};
    const struct dr_problem_kind kind = {
        .status = 503, .type = "server_error", .code = "shutting_down", .retry_s = 5};
    dr_ignore(dr_problem_fail(&p, kind, NULL, "the server shuts down and ended this request; try again"),
              "sent to the client");
    dr_answer_destroy(v->answer);
    v->answer = NULL;
    pthread_mutex_lock(&v->lock);
    if (v->streaming && !v->ended) {
        dr_problem_write(&p, &event);
        dr_sse_event(&v->out, event.text.at, event.text.n);
        v->ended = true;
    } else if (!v->ready) {
        dr_reply_problem(&v->reply, &p);
        v->ready = true;
    }
    resume(v);
    pthread_mutex_unlock(&v->lock);
    dr_json_out_fini(&event);
}

/* With v->lock held: what a turn of the answer brought. */
static void take_turn(struct dr_visit *v, enum dr_answer_state state, struct dr_json_out *got) {
    bool stream = dr_answer_streams(v->answer);
    if (state == DR_ANSWER_FAILED) {
        if (v->streaming)
            v->broken = true; /* events were lost for want of memory: an end without [DONE] */
        else
            dr_reply_problem(&v->reply, dr_answer_problem(v->answer));
        v->ready = true;
    } else if (stream && state != DR_ANSWER_WAITING) {
        v->ready = v->streaming = true;
        v->ended = state == DR_ANSWER_ENDED;
        if (got->text.n) v->last_out_ns = dr_clock_ns();
        dr_json_bytes(&v->out, got->text.at, got->text.n);
        if (v->out.failed || v->out.text.n - v->sent > DR_VISIT_PENDING_MAX) v->broken = true;
    } else if (state == DR_ANSWER_ENDED) {
        v->reply = (struct dr_reply){.status = 200, .type = "application/json", .body = *got};
        *got = (struct dr_json_out){0};
        v->ready = true;
    }
    if (v->ready) resume(v);
}

static void move(struct dr_visit *v) {
    struct dr_json_out got = {0};
    enum dr_answer_state state = dr_answer_turn(v->answer, &got);
    pthread_mutex_lock(&v->lock);
    take_turn(v, state, &got);
    bool over = v->broken || state == DR_ANSWER_ENDED || state == DR_ANSWER_FAILED;
    bool slow = v->broken && state == DR_ANSWER_STREAMING;
    pthread_mutex_unlock(&v->lock);
    dr_json_out_fini(&got);
    if (slow)
        dr_log(DR_LOG_WARN, "slow_reader", "req=%s cut: %d bytes wait to be read", v->request_id,
               DR_VISIT_PENDING_MAX);
    if (!over) return;
    dr_answer_destroy(v->answer);
    v->answer = NULL;
}

static void turn(struct dr_visit *v) {
    pthread_mutex_lock(&v->lock);
    bool gone = v->gone, shut = v->shut;
    pthread_mutex_unlock(&v->lock);
    if (gone || shut) {
        if (shut && !gone) stop_answer(v);
        dr_answer_destroy(v->answer);
        v->answer = NULL;
        v->asked = true;
        return;
    }
    if (!v->asked) {
        v->asked = true;
        if (v->route == DR_ROUTE_TOKENIZE || v->route == DR_ROUTE_DETOKENIZE) {
            answer_tokens(v);
            return;
        }
        if (!ask(v)) return;
    }
    if (v->answer) move(v);
}

void dr_visit_turn(struct dr_job *job) {
    struct dr_visit *v = (struct dr_visit *)(void *)((char *)job - offsetof(struct dr_visit, job));
    struct dr_workers *w = &v->http->workers;
    do turn(v);
    while (!dr_workers_rest(w, job));
    release(v);
}
