/* problem.h - why a request gets no answer, as a client reads it.
 * In:   HTTP status, kind, field and sentence, written where they are known.      Out: OpenAI's error body.
 * Owns: nothing; the struct holds its text.
 * Why:  client libraries choose their exception and their retry from status, type and code. */
#pragma once

#include "gateway/api/json_out.h"

struct dr_problem {
    int status; /* HTTP */
    const char
        *type; /* static: invalid_request_error, authentication_error, rate_limit_error, server_error ... */
    const char *code; /* static, for programs; NULL: null */
    char param[96];   /* field at fault; "": null */
    char message[600];
    uint32_t retry_s; /* Retry-After; 0: none */
};

struct dr_problem_kind { /* what the message is about, all static */
    int status;
    const char *type, *code;
    uint32_t retry_s;
};

#ifdef __cplusplus
extern "C" {
#endif

/* The advice of a refusal as Retry-After has it: whole seconds, one at least. */
static inline uint32_t dr_problem_retry_s(uint32_t retry_ms) {
    return retry_ms < 1000 ? 1 : retry_ms / 1000 + (retry_ms % 1000 != 0);
}

/* Status 400, invalid_request_error. Returns EREQUEST, so that a parser can `return` it. */
DR_FALLIBLE dr_problem_bad(struct dr_problem *p, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with any status. Returns EREQUEST. */
DR_FALLIBLE dr_problem_fail(struct dr_problem *p, struct dr_problem_kind kind, const char *param,
                            const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Status 429: the queue takes nobody now. Returns EREQUEST. */
DR_FALLIBLE dr_problem_full(struct dr_problem *p, uint32_t retry_ms, const char *text);

/* What a failed call of another module means to a client: EINVAL 400 with its text; EPEER 503; EFULL 503;
 * others 500 with a text that tells nothing of the inside. Returns EREQUEST. */
DR_FALLIBLE dr_problem_from(struct dr_problem *p, dr_status st, const char *param);

/* {"error":{"message","type","param","code"}} */
void dr_problem_write(const struct dr_problem *p, struct dr_json_out *out);

#ifdef __cplusplus
}
#endif
