/* guard.c - checks headers.
 * In:   headers.      Out: struct dr_guard.
 * Owns: nothing.
 * Why:  see guard.h. libmicrohttpd itself refuses what does not parse (400), what does not fit its buffer
 * (414, 431), and a length that is no number (400). */
#include "gateway/http/guard.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static enum MHD_Result take(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
                            const char *value, size_t value_size) {
    struct dr_guard *g = cls;
    (void)kind;
    g->n++;
    g->bytes += key_size + value_size + 4; /* ": " and line end */
    const char *text = value ? value : "";
    if (strlen(text) != value_size || strlen(key) != key_size) g->odd = true;
    if (strcasecmp(key, "Host") == 0) {
        g->n_host++;
        g->host = text;
    } else if (strcasecmp(key, "Content-Length") == 0) {
        g->n_length++;
        g->length = text;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        g->n_encoding++;
        g->encoding = text;
    } else if (strcasecmp(key, "Authorization") == 0)
        g->authorization = text;
    else if (strcasecmp(key, "x-api-key") == 0)
        g->api_key = text;
    else if (strcasecmp(key, "Content-Type") == 0)
        g->content_type = text;
    else if (strcasecmp(key, "x-request-id") == 0)
        g->request_id = text;
    return MHD_YES;
}

static enum MHD_Result add_argument(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
                                    const char *value, size_t value_size) {
    size_t *bytes = cls;
    (void)kind;
    (void)key;
    (void)value;
    *bytes += key_size + value_size + 2;
    return MHD_YES;
}

/* A host name, an address, a port: nothing that could begin a path, a query, a user or another header. */
static bool host_is_plain(const char *host) {
    for (const char *c = host; *c; c++)
        if (*c <= ' ' || *c >= 0x7f || strchr("/?#@\\\"<>,", *c)) return false;
    return true;
}

static bool id_is_plain(const char *id) {
    size_t n = strlen(id);
    for (const char *c = id; *c; c++)
        if (*c <= ' ' || *c >= 0x7f || *c == '"' || *c == '\\') return false;
    return n > 0 && n <= DR_GUARD_ID_MAX;
}

dr_status dr_guard_check(struct MHD_Connection *c, const char *version, const char *url, struct dr_guard *g,
                         struct dr_problem *why) {
    size_t line = strlen(url);
    *g = (struct dr_guard){0};
    MHD_get_connection_values_n(c, MHD_HEADER_KIND, take, g);
    MHD_get_connection_values_n(c, MHD_GET_ARGUMENT_KIND, add_argument, &line);
    if (g->request_id && !id_is_plain(g->request_id)) g->request_id = NULL;
    g->fatal = true;
    if (line > DR_GUARD_LINE_MAX)
        return dr_problem_fail(why, (struct dr_problem_kind){.status = 414, .type = "invalid_request_error"},
                               NULL, "request line of more than %d bytes", DR_GUARD_LINE_MAX);
    if (g->n > DR_GUARD_HEADERS_MAX || g->bytes > DR_GUARD_HEADERS_BYTES_MAX)
        return dr_problem_fail(why, (struct dr_problem_kind){.status = 431, .type = "invalid_request_error"},
                               NULL, "more than %d headers or %d bytes of them", DR_GUARD_HEADERS_MAX,
                               DR_GUARD_HEADERS_BYTES_MAX);
    if (g->odd) return dr_problem_bad(why, NULL, "a header holds a zero byte");
    if (g->n_host > 1) return dr_problem_bad(why, NULL, "%d Host headers; expected one", g->n_host);
    if (g->n_host == 0 && strcmp(version, "HTTP/1.0") != 0)
        return dr_problem_bad(why, NULL, "no Host header; expected one");
    if (g->host && !host_is_plain(g->host))
        return dr_problem_bad(why, NULL, "Host: expected a name and a port");
    if (g->n_length && g->n_encoding)
        return dr_problem_bad(why, NULL,
                              "Content-Length and Transfer-Encoding together; expected one of them");
    if (g->n_length > 1 || g->n_encoding > 1)
        return dr_problem_bad(why, NULL, "a header that says where the body ends came twice");
    if (g->encoding && strcasecmp(g->encoding, "chunked") != 0)
        return dr_problem_bad(why, NULL, "Transfer-Encoding: only chunked is supported");
    if (g->encoding && strcmp(version, "HTTP/1.1") != 0)
        return dr_problem_bad(why, NULL, "Transfer-Encoding: needs HTTP/1.1");
    g->fatal = false;
    g->content_length = g->length ? strtoull(g->length, NULL, 10) : 0;
    return dr_ok();
}
