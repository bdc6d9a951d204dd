/* utf8.c - see utf8.h.
 * In:   bytes.      Out: characters and the places of errors.
 * Owns: nothing.
 * Why:  one reader decides what a character is, for whole texts and for streams. */
#include "gateway/text/utf8.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

int32_t dr_utf8_read(const uint8_t *at, size_t n, size_t *used) {
    uint8_t b = at[0];
    *used = 1;
    if (b < 0x80) return b;
    if (b < 0xC2 || b > 0xF4) return DR_UTF8_BAD;
    size_t len = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    /* The second byte's range excludes over-long forms, surrogates and what lies above U+10FFFF (Unicode
     * table 3-7). */
    uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    uint8_t high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    int32_t c = b & (0x7F >> len);
    for (size_t i = 1; i < len; i++) {
        *used = i;
        if (i == n) return DR_UTF8_CUT;
        if (at[i] < low || at[i] > high) return DR_UTF8_BAD;
        c = c << 6 | (at[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *used = len;
    return c;
}

size_t dr_utf8_valid(const void *at, size_t n) {
    const uint8_t *p = at;
    size_t i = 0, used;
    while (i < n) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        if (dr_utf8_read(p + i, n - i, &used) < 0) return i;
        i += used;
    }
    return n;
}

size_t dr_utf8_skip(const char *at, size_t n, size_t chars) {
    size_t i = 0;
    for (; i < n && chars > 0; chars--)
        for (i++; i < n && ((uint8_t)at[i] & 0xC0) == 0x80;) i++;
    return i;
}

/* Appends what at[0..n) settles and returns in *left how many bytes at its end stay open. */
static dr_status settle(const uint8_t *at, size_t n, struct dr_text *out, size_t *left) {
    size_t i = 0, good = 0, used;
    while (i < n) {
        int32_t c = dr_utf8_read(at + i, n - i, &used);
        if (c == DR_UTF8_CUT) break;
        if (c == DR_UTF8_BAD) {
            DR_TRY(dr_text_push(out, at + good, i - good));
            DR_TRY(dr_text_push(out, replacement, 3));
            good = i + used;
        }
        i += used;
    }
    *left = n - i;
    return dr_text_push(out, at + good, i - good);
}

dr_status dr_utf8_stream_push(struct dr_utf8_stream *s, const void *bytes, size_t n, struct dr_text *out) {
    const uint8_t *p = bytes;
    size_t left;
    /* Held bytes are at most 3 and open, so with each further byte they are settled or grow by it. */
    while (s->n_held > 0 && n > 0) {
        uint8_t joined[DR_UTF8_HELD_MAX + 1];
        memcpy(joined, s->held, s->n_held);
        joined[s->n_held] = *p++;
        size_t n_joined = (size_t)s->n_held + 1;
        n--;
        DR_TRY(settle(joined, n_joined, out, &left));
        memcpy(s->held, joined + n_joined - left, left);
        s->n_held = (uint8_t)left;
    }
    if (n == 0) return dr_ok();
    DR_TRY(settle(p, n, out, &left));
    memcpy(s->held, p + n - left, left);
    s->n_held = (uint8_t)left;
    return dr_ok();
}

dr_status dr_utf8_stream_end(struct dr_utf8_stream *s, struct dr_text *out) {
    if (s->n_held == 0) return dr_ok();
    s->n_held = 0;
    return dr_text_push(out, replacement, 3);
}
