/* utf8.h - UTF-8 as it is, and as it arrives.
 * In:   bytes.      Out: code points, the place of the first error, or text with U+FFFD for what is broken.
 * Owns: nothing; a stream holds at most 3 bytes in the caller's struct.
 * Why:  tokens cut characters anywhere, and one broken byte must never reach a JSON writer. */
#pragma once

#include "gateway/text/vectors.h"

enum { DR_UTF8_CUT = -1, DR_UTF8_BAD = -2, DR_UTF8_HELD_MAX = 3 };

/* Bytes that arrived but do not end a character yet. The zero object is an empty stream. */
struct dr_utf8_stream {
    uint8_t held[DR_UTF8_HELD_MAX];
    uint8_t n_held;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads one character of at[0..n), n > 0. Returns its code point and sets *used to its bytes (1..4).
 * DR_UTF8_BAD: no character begins with the *used bytes here (the maximal subpart, Unicode 3.9, 1..3 bytes).
 * DR_UTF8_CUT: all n bytes could begin one. Surrogates, over-long forms and code points above U+10FFFF are
 * bad. */
int32_t dr_utf8_read(const uint8_t *at, size_t n, size_t *used);

/* Bytes in front of the first error; n if at[0..n) is valid. */
size_t dr_utf8_valid(const void *at, size_t n);

/* Bytes of the first `chars` characters of valid text, n if there are fewer. */
size_t dr_utf8_skip(const char *at, size_t n, size_t chars);

/* Appends to out all characters that are complete now, one U+FFFD for each maximal subpart proven invalid.
 * The text appended over all pushes and the end does not depend on how the bytes were cut. Fails: EFULL. */
DR_FALLIBLE dr_utf8_stream_push(struct dr_utf8_stream *s, const void *bytes, size_t n, struct dr_text *out);
/* No more bytes: held ones become one U+FFFD. The stream is empty again. Fails: EFULL. */
DR_FALLIBLE dr_utf8_stream_end(struct dr_utf8_stream *s, struct dr_text *out);

#ifdef __cplusplus
}
#endif
