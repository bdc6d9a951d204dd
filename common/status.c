/* status.c - codes, texts and the thread's last failure.
 * In:   dr_fail calls.      Out: statuses and texts.
 * Owns: one thread-local buffer.
 * Why:  the text is written once, where the values are known, and read once, where it is logged. */
#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

static _Thread_local char text[TEXT_BYTES];

#define DR_X_(name, exit_code, words) [DR_##name] = {#name, words, exit_code},
static const struct {
    const char *name, *words;
    int exit_code;
} codes[DR_CODE_COUNT] = {DR_CODES(DR_X_)};
#undef DR_X_

dr_status dr_fail(enum dr_code code, const char *fmt, ...) {
    char fresh[TEXT_BYTES]; /* the arguments may point into the old text */
    va_list args;
    va_start(args, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    memcpy(text, fresh, sizeof text);
    return (dr_status){code};
}

dr_status dr_fail_within(dr_status st, const char *fmt, ...) {
    char fresh[TEXT_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof fresh ? (size_t)n : sizeof fresh - 1;
    snprintf(fresh + used, sizeof fresh - used, "%s", text);
    memcpy(text, fresh, sizeof text);
    return st;
}

const char *dr_error_text(void) {
    return text;
}

const char *dr_code_name(enum dr_code code) {
    return code < DR_CODE_COUNT ? codes[code].name : "?";
}

const char *dr_code_text(enum dr_code code) {
    return code < DR_CODE_COUNT ? codes[code].words : "unknown code";
}

int dr_code_exit(enum dr_code code) {
    return code < DR_CODE_COUNT ? codes[code].exit_code : 70;
}

void dr_ignore(dr_status st, const char *why) {
    (void)st;
    (void)why;
}

void dr_assert_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "deeprack: bug: %s does not hold at %s:%d\n", cond, file, line);
    abort();
}
