/* json_out.h - writes JSON text, piece by piece.
 * In:   raw syntax, strings, numbers.      Out: one growing text.
 * Owns: the text until _fini.
 * Why:  a stream of small events is written much cheaper than built as a tree; escaping must exist once.
 *
 * A writer that ran out of memory stays `failed` and ignores what follows: checked once, at the end. */
#pragma once

#include "gateway/text/vectors.h"

struct dr_json_out {
    struct dr_text text;
    bool failed;
};

#ifdef __cplusplus
extern "C" {
#endif

void dr_json_raw(struct dr_json_out *o, const char *syntax);
void dr_json_bytes(struct dr_json_out *o, const void *at, size_t n); /* syntax that is not NUL-terminated */
void dr_json_format(struct dr_json_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A string with its quotes. Bytes that are not UTF-8 become U+FFFD, so the output always is. */
void dr_json_quote(struct dr_json_out *o, const void *at, size_t n);

/* A finite number in 9 digits; infinities and NaN, which JSON lacks, become -9999 (OpenAI's least
 * log-probability). */
void dr_json_logprob(struct dr_json_out *o, float value);

/* Bytes as an array of numbers. */
void dr_json_octets(struct dr_json_out *o, const uint8_t *at, size_t n);

void dr_json_out_fini(struct dr_json_out *o);

#ifdef __cplusplus
}
#endif
