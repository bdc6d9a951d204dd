/* writer.h - protobuf's wire format, written by hand.
 * In:   field numbers and values.      Out: bytes of a body.
 * Owns: its buffer.
 * Why:  hostile bodies cannot come from our own encoder, which refuses them. A field written again overrides
 * (numbers) or adds to (lists) what stood before, so a good body plus one field is a bad body. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct writer {
    uint8_t *at;
    size_t n, room;
};

void writer_begin(struct writer *w, const uint8_t *body, size_t bytes); /* a copy of body first */
void writer_end(struct writer *w);
void writer_number(struct writer *w, uint32_t tag, uint64_t v); /* varint */
void writer_fixed64(struct writer *w, uint32_t tag, uint64_t v);
void writer_float(struct writer *w, uint32_t tag, float v);
void writer_bytes(struct writer *w, uint32_t tag, const void *at, size_t n);
void writer_repeat(struct writer *w, uint32_t tag, uint64_t v, size_t n);    /* packed varints, all equal */
void writer_repeat_float(struct writer *w, uint32_t tag, float v, size_t n); /* packed */
void writer_fill(struct writer *w, uint32_t tag, char c, size_t n);          /* string of n times c */
