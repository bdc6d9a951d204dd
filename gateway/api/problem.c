/* problem.c - fills and writes error bodies.
 * In:   status, field and sentence.      Out: struct dr_problem, JSON.
 * Owns: nothing.
 * Why:  see problem.h. */
#include "gateway/api/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

static void fill(struct dr_problem *p, struct dr_problem_kind kind, const char *param, const char *fmt,
                 va_list args) {
    p->status = kind.status;
    p->type = kind.type;
    p->code = kind.code;
    p->retry_s = kind.retry_s;
    snprintf(p->param, sizeof p->param, "%s", param ? param : "");
    vsnprintf(p->message, sizeof p->message, fmt, args);
}

dr_status dr_problem_bad(struct dr_problem *p, const char *param, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(p, (struct dr_problem_kind){.status = 400, .type = "invalid_request_error"}, param, fmt, args);
    va_end(args);
    return dr_fail(DR_EREQUEST, "%s", p->message);
}

dr_status dr_problem_fail(struct dr_problem *p, struct dr_problem_kind kind, const char *param,
                          const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(p, kind, param, fmt, args);
    va_end(args);
    return dr_fail(DR_EREQUEST, "%s", p->message);
}

dr_status dr_problem_full(struct dr_problem *p, uint32_t retry_ms, const char *text) {
    const struct dr_problem_kind kind = {.status = 429,
                                         .type = "rate_limit_error",
                                         .code = "queue_full",
                                         .retry_s = dr_problem_retry_s(retry_ms)};
    return dr_problem_fail(p, kind, NULL, "%s", text);
}

dr_status dr_problem_from(struct dr_problem *p, dr_status st, const char *param) {
    char text[sizeof p->message];
    snprintf(text, sizeof text, "%s", dr_error_text());
    switch (st.code) {
    case DR_EREQUEST: /* a problem already: it says more than its text */
        if (p->status) return st;
        break;
    case DR_EINVAL:
    case DR_EUSAGE:
        return dr_problem_bad(p, param, "%s", text);
    case DR_EPEER:
        return dr_problem_fail(p,
                               (struct dr_problem_kind){
                                   .status = 503, .type = "server_error", .code = "not_ready", .retry_s = 2},
                               NULL, "%s", text);
    case DR_EFULL:
        return dr_problem_fail(p,
                               (struct dr_problem_kind){
                                   .status = 503, .type = "server_error", .code = "no_memory", .retry_s = 1},
                               NULL, "no memory for this request; try again");
    default:
        break;
    }
    dr_log(DR_LOG_ERROR, "request_failed", "code=%s %s", dr_code_name(st.code),
           text); /* the client gets an opaque text */
    return dr_problem_fail(
        p, (struct dr_problem_kind){.status = 500, .type = "server_error", .code = "internal_error"}, NULL,
        "the server failed; its log says why");
}

void dr_problem_write(const struct dr_problem *p, struct dr_json_out *out) {
    dr_json_raw(out, "{\"error\":{\"message\":");
    dr_json_quote(out, p->message, strlen(p->message));
    dr_json_raw(out, ",\"type\":");
    dr_json_quote(out, p->type, strlen(p->type));
    dr_json_raw(out, ",\"param\":");
    if (p->param[0])
        dr_json_quote(out, p->param, strlen(p->param));
    else
        dr_json_raw(out, "null");
    dr_json_raw(out, ",\"code\":");
    if (p->code)
        dr_json_quote(out, p->code, strlen(p->code));
    else
        dr_json_raw(out, "null");
    dr_json_raw(out, "}}");
}
