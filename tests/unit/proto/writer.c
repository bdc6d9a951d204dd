/* writer.c - see writer.h.
 * In:   field numbers and values.      Out: bytes.
 * Owns: its buffer.
 * Why:  see writer.h. */
#include "tests/unit/proto/writer.h"

#include <stdlib.h>
#include <string.h>

#include "common/status.h"

enum { ROOM = 24 << 20 }; /* above every limit that is exceeded; touched as far as it is written */

static void put(struct writer *w, const void *at, size_t n) {
    const uint8_t *from = at;
    DR_ASSERT(n <= w->room - w->n);
    for (size_t i = 0; i < n; i++) w->at[w->n++] = from[i];
}

static size_t varint(uint8_t *to, uint64_t v) {
    size_t n = 0;
    for (; v >= 128; v >>= 7) to[n++] = (uint8_t)(v | 128);
    to[n++] = (uint8_t)v;
    return n;
}

static void put_varint(struct writer *w, uint64_t v) {
    uint8_t b[10];
    put(w, b, varint(b, v));
}

void writer_begin(struct writer *w, const uint8_t *body, size_t bytes) {
    *w = (struct writer){.at = malloc(ROOM), .room = ROOM};
    DR_ASSERT(w->at != NULL);
    put(w, body, bytes);
}

void writer_end(struct writer *w) {
    free(w->at);
    *w = (struct writer){0};
}

void writer_number(struct writer *w, uint32_t tag, uint64_t v) {
    put_varint(w, (uint64_t)tag << 3);
    put_varint(w, v);
}

void writer_fixed64(struct writer *w, uint32_t tag, uint64_t v) {
    put_varint(w, (uint64_t)tag << 3 | 1);
    for (int i = 0; i < 8; i++) put(w, &(uint8_t){(uint8_t)(v >> (8 * i))}, 1);
}

static void put_float(struct writer *w, float v) {
    uint32_t u = 0;
    memcpy(&u, &v, sizeof u);
    for (int i = 0; i < 4; i++) put(w, &(uint8_t){(uint8_t)(u >> (8 * i))}, 1);
}

void writer_float(struct writer *w, uint32_t tag, float v) {
    put_varint(w, (uint64_t)tag << 3 | 5);
    put_float(w, v);
}

void writer_bytes(struct writer *w, uint32_t tag, const void *at, size_t n) {
    put_varint(w, (uint64_t)tag << 3 | 2);
    put_varint(w, n);
    put(w, at, n);
}

void writer_repeat(struct writer *w, uint32_t tag, uint64_t v, size_t n) {
    uint8_t b[10];
    size_t len = varint(b, v);
    put_varint(w, (uint64_t)tag << 3 | 2);
    put_varint(w, n * len);
    for (size_t i = 0; i < n; i++) put(w, b, len);
}

void writer_repeat_float(struct writer *w, uint32_t tag, float v, size_t n) {
    put_varint(w, (uint64_t)tag << 3 | 2);
    put_varint(w, n * 4);
    for (size_t i = 0; i < n; i++) put_float(w, v);
}

void writer_fill(struct writer *w, uint32_t tag, char c, size_t n) {
    put_varint(w, (uint64_t)tag << 3 | 2);
    put_varint(w, n);
    for (size_t i = 0; i < n; i++) put(w, &c, 1);
}
