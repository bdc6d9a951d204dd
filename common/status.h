/* status.h - the one way in which deeprack reports failure.
 * In:   a code, and a text written where the values are known.
 * Out:  a must-use struct; the text stays in thread-local storage until the next dr_fail of the thread.
 * Owns: one text buffer a thread.
 * Why:  a struct cannot be mistaken for an int, and the compiler names every ignored failure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, exit code of a program that ends because of it (sysexits numbers), text */
#define DR_CODES(X)                                                                                          \
    X(OK, 0, "ok")                                                                                           \
    X(EINVAL, 64, "bad argument")                                                                            \
    X(EUSAGE, 64, "wrong usage")                                                                             \
    X(ENOENT, 66, "file missing")                                                                            \
    X(EIO, 74, "input or output failed")                                                                     \
    X(EMODEL, 78, "model or layout refused")                                                                 \
    X(EFULL, 1, "no room")                                                                                   \
    X(EREQUEST, 1, "request failed")                                                                         \
    X(ECANCEL, 1, "cancelled")                                                                               \
    X(EPEER, 69, "a rank failed or the cluster is lost")                                                     \
    X(EPROTO, 70, "malformed message")                                                                       \
    X(ETIME, 70, "deadline passed")                                                                          \
    X(EDEVICE, 70, "device failed")                                                                          \
    X(EINTERNAL, 70, "internal error")

#define DR_X_(name, exit_code, text) DR_##name,
enum dr_code { DR_CODES(DR_X_) DR_CODE_COUNT };
#undef DR_X_

typedef struct {
    enum dr_code code;
} dr_status;

#define DR_FALLIBLE __attribute__((warn_unused_result)) dr_status

#define DR_TRY(call)                                                                                         \
    do {                                                                                                     \
        dr_status try_ = (call);                                                                             \
        if (try_.code != DR_OK) return try_;                                                                 \
    } while (0)

/* A bug, not an event: prints file, line and condition and aborts, in release builds too. */
#define DR_ASSERT(cond)                                                                                      \
    do {                                                                                                     \
        if (!(cond)) dr_assert_failed(#cond, __FILE__, __LINE__);                                            \
    } while (0)

#ifdef __cplusplus
extern "C" {
#endif

/* The success value. */
static inline dr_status dr_ok(void) {
    dr_status st = {DR_OK};
    return st;
}

/* Records a text (at most 1,023 bytes, longer ones are cut) for this thread and returns the code as a status.
 * The text says what was expected, what was found, where, and what to do. */
DR_FALLIBLE dr_fail(enum dr_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts words in front of the last text of this thread ("shard x.safetensors: ..."); returns st unchanged. */
DR_FALLIBLE dr_fail_within(dr_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text of this thread's last dr_fail; "" if there was none. Valid until the next dr_fail of this thread. */
const char *dr_error_text(void);

/* "EMODEL", "model or layout refused", and the exit code of a main() that ends with this code. */
const char *dr_code_name(enum dr_code code);
const char *dr_code_text(enum dr_code code);
int dr_code_exit(enum dr_code code);

/* Drops a failure on purpose; why is for the reader. */
void dr_ignore(dr_status st, const char *why);

__attribute__((noreturn)) void dr_assert_failed(const char *cond, const char *file, int line);

#ifdef __cplusplus
}
#endif
