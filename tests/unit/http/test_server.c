/* test_server.c - the server as hostile and hasty clients see it.
 * In:   raw bytes.      Out: statuses, headers, and what the engine was told.
 * Owns: a rig a test.
 * Why:  what is not refused here reaches the parsers; what is not noticed here keeps the cluster busy for
 * nobody. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void raw_requests(void) {
    static const struct {
        const char *bytes;
        int status;
        const char *part; /* of the body */
    } rows[] = {
        {"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, ""},
        {"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400, ""},
        {"GET /version HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "2 Host headers; expected one"},
        {"GET /version HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host: expected a name and a port"},
        {"GET /version HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "Host: expected a name and a port"},
        {"GET /version HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, "Host: expected a name and a port"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
         400, "Content-Length and Transfer-Encoding together"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400,
         "came twice"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n{}", 400,
         "only chunked is supported"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n",
         400, "came twice"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n", 413,
         "body of more than 8388608 bytes"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, ""},
        {"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "no such endpoint"},
        {"GET /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "no such endpoint"},
        {"GET /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405,
         "expected method POST"},
        {"DELETE /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405,
         "expected method GET, HEAD"},
        {"OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405,
         "expected method GET, HEAD"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: "
         "close\r\n\r\n{}",
         415, "expected application/json"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 400,
         "empty body"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; "
         "charset=utf-8\r\nContent-Length: 14\r\nConnection: "
         "close\r\n\r\n{\"prompt\":\"A\"}",
         200, "\"tokens\":[0,35]"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: "
         "close\r\n\r\n1\r\n{\r\n5\r\n\"prom\r\n8\r\npt\":\"A\"}\r\n0\r\n\r\n",
         200, "\"tokens\":[0,35]"},
        {"POST /tokenize HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: "
         "close\r\n\r\n{ x",
         100, ""},
        {"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "\"version\""},
        {"GET /version?a=b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "\"version\""},
        {"GET /%76ersion HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "no such endpoint"},
        {"HEAD /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, ""},
        {"GET /v1/models/lexi-15m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200,
         "\"max_model_len\":2048"},
        {"GET /v1/models/lexi%2d15m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200,
         "\"id\":\"lexi-15m\""},
        {"GET /v1/models/other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "model_not_found"},
    };
    struct rig r;
    rig_begin(&r, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct reply p = rig_raw(r.port, rows[i].bytes, strlen(rows[i].bytes));
        bool good = p.status == rows[i].status && strstr(p.body ? p.body : "", rows[i].part);
        if (!good)
            printf("%.60s\n  expected %d %s\n  found %s\n%s\n", rows[i].bytes, rows[i].status, rows[i].part,
                   p.head, p.body ? p.body : "");
        CU_ASSERT_TRUE(good);
        reply_fini(&p);
    }
    rig_end(&r);
}

static void big_heads(void) {
    struct rig r;
    rig_begin(&r, NULL);
    size_t room = 200000;
    char *text = malloc(room);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    static const struct {
        int line, headers, each, status;
    } rows[] = {{9000, 0, 0, 414},  {150000, 0, 0, 414}, {10, 70, 10, 431},
                {10, 5, 8000, 431}, {10, 40, 4000, 431}, {7000, 50, 100, 200}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = (size_t)snprintf(text, room, "GET /health?");
        memset(text + n, 'a', (size_t)rows[i].line);
        n += (size_t)rows[i].line;
        n += (size_t)snprintf(text + n, room - n, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        for (int h = 0; h < rows[i].headers; h++) {
            n += (size_t)snprintf(text + n, room - n, "x-%d: ", h);
            memset(text + n, 'b', (size_t)rows[i].each);
            n += (size_t)rows[i].each;
            n += (size_t)snprintf(text + n, room - n, "\r\n");
        }
        n += (size_t)snprintf(text + n, room - n, "\r\n");
        struct reply p = rig_raw(r.port, text, n);
        if (p.status != rows[i].status)
            printf("row %zu: expected %d, found %d\n", i, rows[i].status, p.status);
        CU_ASSERT_EQUAL(p.status, rows[i].status);
        reply_fini(&p);
    }
    free(text);
    rig_end(&r);
}

static void request_ids(void) {
    struct rig r;
    char room[160];
    rig_begin(&r, NULL);
    struct reply p = rig_ask(r.port, "GET", "/version", "x-request-id: abc-1\r\n", NULL);
    CU_ASSERT_STRING_EQUAL(reply_header(&p, "x-request-id", room, sizeof room), "abc-1");
    reply_fini(&p);
    p = rig_ask(r.port, "GET", "/none", "x-request-id: with blank\r\n", NULL);
    CU_ASSERT_EQUAL(strncmp(reply_header(&p, "x-request-id", room, sizeof room), "req-", 4), 0);
    reply_fini(&p);
    rig_end(&r);
}

static void health(void) {
    static const struct {
        enum dr_engine_state state;
        int health, models;
        const char *word, *progress;
    } rows[] = {{DR_ENGINE_READY, 200, 200, "ok", "idle"},
                {DR_ENGINE_STARTING, 503, 503, "starting", "starting"},
                {DR_ENGINE_RELAUNCHING, 503, 200, "relaunching", "relaunching"},
                {DR_ENGINE_LATCHED, 503, 503, "latched", "latched"}};
    struct rig r;
    rig_begin(&r, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char want[64];
        fake_state(r.engine, rows[i].state);
        struct reply p = rig_ask(r.port, "GET", "/health", "", NULL);
        CU_ASSERT_TRUE(p.status == rows[i].health && p.n == 0);
        reply_fini(&p);
        p = rig_ask(r.port, "GET", "/health/live", "", NULL);
        CU_ASSERT_EQUAL(p.status, 200);
        reply_fini(&p);
        p = rig_ask(r.port, "GET", "/v1/models", "", NULL);
        CU_ASSERT_EQUAL(p.status, rows[i].models);
        reply_fini(&p);
        p = rig_ask(r.port, "GET", "/health/ready", "", NULL);
        snprintf(want, sizeof want, "\"state\":\"%s\"", rows[i].word);
        CU_ASSERT_EQUAL(p.status, rows[i].health);
        CU_ASSERT_PTR_NOT_NULL(strstr(p.body, want));
        CU_ASSERT_PTR_NOT_NULL(strstr(p.body, "{\"rank\":1,\"host\":\"n0\",\"pid\":101"));
        CU_ASSERT_EQUAL(strstr(p.body, "rank 1 on \\\"n1\\\" died") != NULL, rows[i].health == 503);
        json_t *j = reply_json(&p);
        CU_ASSERT_PTR_NOT_NULL(j);
        json_decref(j);
        reply_fini(&p);
        p = rig_ask(r.port, "GET", "/health/progress", "", NULL);
        snprintf(want, sizeof want, "{\"state\":\"%s\"", rows[i].progress);
        CU_ASSERT_EQUAL(strncmp(p.body, want, strlen(want)), 0);
        reply_fini(&p);
    }
    rig_end(&r);
}

static void keys(void) {
    char path[32] = "/tmp/dr-test-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, "sesame\n", 7) == 7);
    close(fd);
    const char *const flags[] = {"--api-key-file", path, "--metrics-listen", "127.0.0.1:0", NULL};
    struct rig r;
    rig_begin(&r, flags);
    unlink(path);
    static const struct {
        const char *method, *path, *header;
        int status;
    } rows[] = {
        {"GET", "/health", "", 200},
        {"GET", "/health/ready", "", 200},
        {"GET", "/v1/models", "", 401},
        {"GET", "/v1/models", "Authorization: Bearer sesame\r\n", 200},
        {"GET", "/v1/models", "x-api-key: sesame\r\n", 200},
        {"GET", "/v1/models", "Authorization: Bearer sesam\r\n", 401},
        {"GET", "/version", "", 401},
        {"GET", "/nothing", "", 401}, /* an outsider does not learn what exists */
        {"GET", "/nothing", "x-api-key: sesame\r\n", 404},
        {"POST", "/v1/chat/completions", "", 401},
        {"GET", "/metrics", "", 401},
        {"GET", "/metrics", "x-api-key: sesame\r\n", 404}, /* has its own listener */
    };
    char room[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct reply p = rig_ask(r.port, rows[i].method, rows[i].path, rows[i].header,
                                 rows[i].method[0] == 'P' ? "{" M "}" : NULL);
        CU_ASSERT_EQUAL(p.status, rows[i].status);
        if (p.status == 401)
            CU_ASSERT_STRING_EQUAL(reply_header(&p, "WWW-Authenticate", room, sizeof room), "Bearer");
        reply_fini(&p);
    }
    struct reply p = rig_ask(dr_server_metrics_port(r.server), "GET", "/metrics", "", NULL);
    CU_ASSERT_EQUAL(p.status, 200);
    CU_ASSERT_PTR_NOT_NULL(strstr(p.body, "vllm:num_requests_running{"));
    reply_fini(&p);
    p = rig_ask(dr_server_metrics_port(r.server), "GET", "/v1/models", "x-api-key: sesame\r\n", NULL);
    CU_ASSERT_EQUAL(p.status, 404);
    reply_fini(&p);
    rig_say(&r, "Hello", true);
    p = rig_ask(r.port, "POST", "/v1/chat/completions", "x-api-key: sesame\r\n", "{" M "}");
    CU_ASSERT_EQUAL(p.status, 200);
    CU_ASSERT_EQUAL(strlen(r.engine->last.tenant),
                    32); /* the key's own turn, and its own share of the cache */
    CU_ASSERT_STRING_EQUAL(r.engine->last.salt, r.engine->last.tenant);
    reply_fini(&p);
    rig_say(&r, "Hello", true);
    p = rig_ask(r.port, "POST", "/v1/chat/completions", "x-api-key: sesame\r\n",
                "{" M ",\"cache_salt\":\"s\"}");
    CU_ASSERT_EQUAL(p.status, 200);
    CU_ASSERT_EQUAL(strlen(r.engine->last.salt), 32);
    CU_ASSERT_STRING_NOT_EQUAL(r.engine->last.salt,
                               r.engine->last.tenant); /* a part of its share, the same turn */
    reply_fini(&p);
    rig_end(&r);
}

static int64_t open_count(struct dr_engine *e) {
    return fake_open(e);
}

/* A client that sends a request and hangs up. */
static void vanish(struct rig *r, const char *body) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    int fd = rig_connect(r->port);
    CU_ASSERT_EQUAL(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    CU_ASSERT_TRUE(rig_until(r->engine, open_count, 1));
    close(fd);
}

static void vanished_clients(void) {
    struct rig r;
    rig_begin(&r, NULL);
    fake_set(r.engine, FAKE_HANG, NULL, 0);
    vanish(&r, "{" M "}"); /* waits for the whole */
    CU_ASSERT_TRUE(rig_until(r.engine, fake_cancelled, 1));
    vanish(&r, "{" M ",\"stream\":true}"); /* suspended in mid-stream */
    CU_ASSERT_TRUE(rig_until(r.engine, fake_cancelled, 2));
    rig_say(&r, "and on and on", false);
    vanish(&r, "{" M ",\"stream\":true,\"max_tokens\":2000}"); /* tokens flow */
    CU_ASSERT_TRUE(rig_until(r.engine, fake_cancelled, 3));
    struct reply p = rig_ask(r.port, "GET", "/metrics", "", NULL);
    CU_ASSERT_PTR_NOT_NULL(
        strstr(p.body, "deeprack_requests_cancelled_total{model_name=\"lexi-15m\",engine=\"0\"} 3\n"));
    reply_fini(&p);
    rig_end(&r);
}

struct half {
    int32_t port;
    int hung;
};

static void *half_close(void *arg) {
    struct half *h = arg;
    static const char text[] = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n"
                               "{\"prompt\":\"x\",\"max_tokens\":2000} ";
    char got[512];
    for (int i = 0; i < 150 && !h->hung; i++) {
        int fd = rig_connect(h->port);
        bool sent = send(fd, text, sizeof text - 1, MSG_NOSIGNAL) == (ssize_t)sizeof text - 1;
        if (i % 4) dr_clock_sleep_ns((uint64_t)(i % 4) * 100000);
        shutdown(fd, SHUT_WR);
        if (!sent || recv(fd, got, sizeof got, 0) != 0) h->hung++;
        close(fd);
    }
    return NULL;
}

/* Clients that close their sending side with, or just after, the last byte of the request: every moment in
 * which that can be noticed. The server must close all of these connections and forget the work. */
static void half_closed_clients(void) {
    enum { N = 4 };
    struct rig r;
    pthread_t thread[N];
    struct half half[N];
    rig_begin(&r, NULL);
    fake_set(r.engine, FAKE_HANG, NULL, 0);
    for (int i = 0; i < N; i++) {
        half[i] = (struct half){.port = r.port};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, half_close, &half[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(thread[i], NULL);
        CU_ASSERT_EQUAL(half[i].hung, 0);
    }
    CU_ASSERT_TRUE(rig_until(r.engine, open_count, 0));
    CU_ASSERT_TRUE(dr_server_drain(r.server, 5000000000u));
    rig_end(&r);
}

/* It asks for a long stream and never reads; others are served meanwhile, and in the end it is cut. */
static void slow_reader(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "and on and on", false);
    fake_set_pace(r.engine, 2000000); /* 2,000 tokens last 4 s, a MiB of events far less */
    int small = 1024, fd = rig_connect(r.port);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    static const char body[] = "{" M ",\"stream\":true,\"n\":8,\"max_tokens\":2000,\"logprobs\":true,\"top_"
                               "logprobs\":20,\"ignore_eos\":true}";
    char text[512];
    int n = snprintf(text, sizeof text,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    CU_ASSERT_EQUAL(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    CU_ASSERT_TRUE(rig_until(r.engine, open_count, 8));
    for (int i = 0; i < 5; i++) {
        struct reply p =
            rig_ask(r.port, "POST", "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":2}");
        CU_ASSERT_EQUAL(p.status, 200);
        reply_fini(&p);
    }
    CU_ASSERT_TRUE(rig_until(r.engine, fake_cancelled, 8)); /* a MiB of unread events, then the end */
    close(fd);
    rig_end(&r);
}

static void kept_connections(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Hello", true);
    static const char twice[] =
        "GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"A\"}"
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: "
        "28\r\n\r\n{\"prompt\":\"A\",\"stream\":true}"
        "GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    struct reply p = rig_raw(r.port, twice, sizeof twice - 1);
    int ok = 0, versions = 0;
    for (const char *at = p.head; (at = strstr(at, "HTTP/1.1 200")); at++) ok++;
    for (const char *at = p.body; (at = strstr(at, "HTTP/1.1 200")); at++) ok++;
    for (const char *at = p.body; (at = strstr(at, "{\"version\"")); at++) versions++;
    CU_ASSERT_EQUAL(ok, 4);
    CU_ASSERT_EQUAL(versions, 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(p.body, "data: [DONE]"));
    reply_fini(&p);
    rig_end(&r);
}

struct client {
    struct rig *rig;
    int status;
    bool whole;
};

static void *one_client(void *arg) {
    struct client *c = arg;
    struct reply p = rig_ask(c->rig->port, "POST", "/v1/chat/completions", "", "{" M ",\"stream\":true}");
    c->status = p.status;
    c->whole = p.body && strstr(p.body, "[DONE]");
    reply_fini(&p);
    return NULL;
}

static void many_clients(void) {
    enum { N = 32 };
    struct rig r;
    pthread_t thread[N];
    struct client client[N];
    rig_begin(&r, NULL);
    rig_say(&r, "Hello there, all of you.", true);
    for (int i = 0; i < N; i++) {
        client[i] = (struct client){.rig = &r};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, one_client, &client[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(thread[i], NULL);
        CU_ASSERT_TRUE(client[i].status == 200 && client[i].whole);
    }
    rig_end(&r);
}

/* What does not even parse shows that nobody looked: neither a worker nor the engine has anything to do with
 * a request that is sure to be refused. Other endpoints need no place in the queue. */
static void a_full_queue(void) {
    static const char *const paths[] = {"/v1/chat/completions", "/v1/completions"};
    struct rig r;
    char room[32];
    rig_begin(&r, NULL);
    rig_say(&r, "one two", true);
    for (int full = 1; full >= 0; full--) {
        fake_full(r.engine, full);
        for (int i = 0; i < 2; i++) {
            struct reply p = rig_ask(r.port, "POST", paths[i], "", "{ not JSON");
            CU_ASSERT_EQUAL(p.status, full ? 429 : 400);
            CU_ASSERT_STRING_EQUAL(reply_header(&p, "Retry-After", room, sizeof room), full ? "3" : "");
            CU_ASSERT_EQUAL(strstr(p.body, "\"code\":\"queue_full\"") != NULL, full);
            CU_ASSERT_EQUAL(strstr(p.body, "256 wait") != NULL, full);
            reply_fini(&p);
        }
        struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "", "{" M "}");
        CU_ASSERT_EQUAL(p.status, full ? 429 : 200);
        reply_fini(&p);
        p = rig_ask(r.port, "POST", "/tokenize", "", "{\"prompt\":\"A\"}");
        CU_ASSERT_EQUAL(p.status, 200);
        reply_fini(&p);
        CU_ASSERT_EQUAL(fake_submitted(r.engine), !full);
    }
    struct reply p = rig_ask(r.port, "GET", "/metrics", "", NULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(p.body, "reason=\"queue_full\"} 3"));
    reply_fini(&p);
    rig_end(&r);
}

static void draining(void) {
    struct rig r;
    pthread_t thread;
    struct client client = {.rig = &r};
    rig_begin(&r, NULL);
    rig_say(&r, "Hello there, all of you.", true);
    fake_set(r.engine, FAKE_SILENT, NULL, 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, one_client, &client), 0);
    CU_ASSERT_TRUE(rig_until(r.engine, open_count, 1));
    CU_ASSERT_FALSE(dr_server_drain(r.server, 0));
    struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "", "{" M "}");
    CU_ASSERT_EQUAL(p.status, 503);
    CU_ASSERT_PTR_NOT_NULL(strstr(p.body, "\"code\":\"draining\""));
    reply_fini(&p);
    p = rig_ask(r.port, "GET", "/health", "", NULL);
    CU_ASSERT_EQUAL(p.status, 503);
    reply_fini(&p);
    fake_set(r.engine, FAKE_NORMAL, NULL, 0);
    CU_ASSERT_TRUE(dr_server_drain(r.server, 10000000000u));
    pthread_join(thread, NULL);
    CU_ASSERT_TRUE(client.status == 200 && client.whole); /* what was open has finished */
    rig_end(&r);
}

/* Destroyed with open requests: they get an answer, and nothing hangs. */
static void destroyed_in_use(void) {
    struct rig r;
    rig_begin(&r, NULL);
    fake_set(r.engine, FAKE_HANG, NULL, 0);
    int fd[3];
    const char *bodies[] = {"{" M "}", "{" M ",\"stream\":true}"};
    for (int i = 0; i < 2; i++) {
        char text[512];
        int n = snprintf(text, sizeof text,
                         "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
                         strlen(bodies[i]), bodies[i]);
        fd[i] = rig_connect(r.port);
        CU_ASSERT_EQUAL(send(fd[i], text, (size_t)n, MSG_NOSIGNAL), n);
    }
    fd[2] = rig_connect(r.port); /* says nothing */
    CU_ASSERT_TRUE(rig_until(r.engine, open_count, 2));
    dr_clock_sleep_ns(20000000); /* the stream's head is out */
    dr_server_destroy(r.server);
    char text[4096];
    static const char *const parts[] = {"HTTP/1.1 503", "shutting_down"};
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        for (ssize_t got; n < sizeof text - 1 && (got = recv(fd[i], text + n, sizeof text - 1 - n, 0)) > 0;)
            n += (size_t)got;
        text[n] = 0;
        CU_ASSERT_PTR_NOT_NULL(strstr(text, parts[i]));
    }
    for (int i = 0; i < 3; i++) close(fd[i]);
    CU_ASSERT_TRUE(rig_until(r.engine, fake_cancelled, 2));
    dr_engine_destroy(r.engine);
}

static CU_TestInfo cases[] = {
    {"raw requests have their status and reason", raw_requests},
    {"long request lines and many headers are refused", big_heads},
    {"a request id is echoed or made", request_ids},
    {"health follows the state of the cluster", health},
    {"without the key only health answers", keys},
    {"work of clients that went away is cancelled", vanished_clients},
    {"clients that close their sending side are closed, whenever it is noticed", half_closed_clients},
    {"a reader that does not read holds up nobody and is cut", slow_reader},
    {"a connection serves several requests", kept_connections},
    {"32 streams at once are all whole", many_clients},
    {"a full queue refuses before anything is read", a_full_queue},
    {"draining refuses new work and finishes the old", draining},
    {"a server destroyed in use answers and lets go", destroyed_in_use},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_server = {.pName = "http/server", .pTests = cases};
