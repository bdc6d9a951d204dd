/* rig.c - see rig.h.
 * In:   requests.      Out: replies.
 * Owns: the kit.
 * Why:  see rig.h. */
#include "tests/unit/http/rig.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/support/runner.h"

enum { FLAGS_MAX = 16, READ_TIMEOUT_S = 20 };

static struct dr_kit *kit; /* one for the whole test program */

dr_status rig_options(enum dr_command command, const char *const *flags, struct dr_options *out) {
    char *argv[FLAGS_MAX];
    int n = 0;
    while (flags && flags[n] && n < FLAGS_MAX) {
        argv[n] = (char *)(uintptr_t)flags[n];
        n++;
    }
    return dr_options_parse(command, n, argv, out);
}

const struct dr_kit *rig_kit(void) {
    if (kit) return kit;
    const char *const flags[] = {"--model", DR_SOURCE_DIR "/deploy/models/lexi-15m", NULL};
    struct dr_options o = {0};
    dr_status st = rig_options(DR_CMD_SERVE, flags, &o);
    if (st.code == DR_OK) st = dr_kit_create(&o, &kit);
    if (st.code != DR_OK) fprintf(stderr, "rig: %s\n", dr_error_text());
    DR_ASSERT(kit);
    dr_options_fini(&o);
    return kit;
}

void rig_kit_end(void) {
    dr_kit_destroy(kit);
    kit = NULL;
}

void rig_begin(struct rig *r, const char *const *flags) {
    const char *all[FLAGS_MAX] = {"--model", DR_SOURCE_DIR "/deploy/models/lexi-15m", "--port", "0"};
    for (int i = 0; flags && flags[i]; i++) all[4 + i] = flags[i];
    struct dr_options o = {0};
    memset(r, 0, sizeof *r);
    r->engine = fake_create();
    dr_status st = rig_options(DR_CMD_SERVE, all, &o);
    if (st.code == DR_OK) st = dr_server_create(&o, rig_kit(), r->engine, &r->server);
    if (st.code != DR_OK) fprintf(stderr, "rig: %s\n", dr_error_text());
    DR_ASSERT(r->server);
    r->port = dr_server_port(r->server);
    dr_options_fini(&o);
}

void rig_end(struct rig *r) {
    dr_server_destroy(r->server);
    dr_engine_destroy(r->engine);
}

int32_t rig_ids(const char *text, uint32_t *out, int32_t room) {
    struct dr_ids ids = {0};
    dr_status st = dr_tokenizer_encode(rig_kit()->tokenizer, text, strlen(text), DR_ADDED_MATCH, &ids);
    DR_ASSERT(st.code == DR_OK && (int32_t)ids.n <= room);
    memcpy(out, ids.at, ids.n * sizeof *out);
    int32_t n = (int32_t)ids.n;
    dr_ids_fini(&ids);
    return n;
}

void rig_say(struct rig *r, const char *text, bool end) {
    uint32_t ids[FAKE_SCRIPT_MAX];
    int32_t n = rig_ids(text, ids, FAKE_SCRIPT_MAX - 1);
    if (end) ids[n++] = rig_kit()->end_id[0];
    fake_set(r->engine, FAKE_NORMAL, ids, n);
}

/* ---- client ---- */

int rig_connect(int32_t port) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct timeval limit = {.tv_sec = READ_TIMEOUT_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    DR_ASSERT(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/* Chunked transfer coding off, in place. */
static size_t join_chunks(char *body, size_t n) {
    size_t at = 0, out = 0;
    while (at < n) {
        char *end;
        size_t size = strtoul(body + at, &end, 16);
        char *line = memchr(body + at, '\n', n - at);
        if (!line || size == 0) break;
        size_t from = (size_t)(line + 1 - body);
        if (from + size > n) size = n - from;
        memmove(body + out, body + from, size);
        out += size;
        at = from + size + 2;
    }
    body[out] = 0;
    return out;
}

static struct reply read_reply(int fd) {
    size_t room = 1 << 16, n = 0;
    char *all = malloc(room + 1);
    DR_ASSERT(all);
    for (;;) {
        if (n == room) all = realloc(all, (room *= 2) + 1);
        DR_ASSERT(all);
        ssize_t got = recv(fd, all + n, room - n, 0);
        if (got <= 0) break;
        n += (size_t)got;
    }
    all[n] = 0;
    struct reply r = {.head = all};
    char *split = strstr(all, "\r\n\r\n");
    if (split) {
        split[2] = 0;
        r.n = n - (size_t)(split + 4 - all);
        r.body = malloc(r.n + 1);
        DR_ASSERT(r.body);
        memcpy(r.body, split + 4, r.n + 1);
        char value[64];
        if (strcasecmp(reply_header(&r, "Transfer-Encoding", value, sizeof value), "chunked") == 0)
            r.n = join_chunks(r.body, r.n);
    }
    sscanf(all, "HTTP/1.1 %d", &r.status);
    return r;
}

struct reply rig_raw(int32_t port, const char *bytes, size_t n) {
    int fd = rig_connect(port);
    for (size_t at = 0; at < n;) {
        ssize_t sent = send(fd, bytes + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0) break; /* the server has heard enough */
        at += (size_t)sent;
    }
    struct reply r = read_reply(fd);
    close(fd);
    return r;
}

struct reply rig_ask(int32_t port, const char *method, const char *path, const char *headers,
                     const char *body) {
    size_t room = strlen(path) + strlen(headers) + (body ? strlen(body) : 0) + 256;
    char *text = malloc(room);
    DR_ASSERT(text);
    int n = snprintf(text, room, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, path,
                     headers);
    if (body)
        n += snprintf(text + n, room - (size_t)n,
                      "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        n += snprintf(text + n, room - (size_t)n, "\r\n");
    struct reply r = rig_raw(port, text, (size_t)n);
    free(text);
    return r;
}

void reply_fini(struct reply *r) {
    free(r->head);
    free(r->body);
    memset(r, 0, sizeof *r);
}

const char *reply_header(const struct reply *r, const char *name, char *room, size_t bytes) {
    size_t n = strlen(name);
    room[0] = 0;
    for (const char *line = strstr(r->head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, n) != 0 || line[n] != ':') continue;
        const char *value = line + n + 1 + strspn(line + n + 1, " ");
        snprintf(room, bytes, "%.*s", (int)strcspn(value, "\r\n"), value);
        break;
    }
    return room;
}

json_t *reply_json(const struct reply *r) {
    return r->body ? json_loadb(r->body, r->n, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

bool rig_until(struct dr_engine *e, int64_t (*fn)(struct dr_engine *e), int64_t want) {
    for (int i = 0; i < 5000; i++) {
        if (fn(e) == want) return true;
        dr_clock_sleep_ns(1000000);
    }
    return false;
}

int stream_count(const char *body) {
    int n = 0;
    for (const char *at = strstr(body, "data: "); at; at = strstr(at + 6, "\ndata: ")) n++;
    return n;
}

json_t *stream_event(const char *body, int i) {
    const char *at = strstr(body, "data: ");
    for (; at && i > 0; i--) {
        at = strstr(at + 1, "\ndata: ");
        if (at) at++;
    }
    return at ? json_loadb(at + 6, strcspn(at + 6, "\n"), JSON_REJECT_DUPLICATES, NULL) : NULL;
}
