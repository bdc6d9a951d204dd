/* samples.h - two examples of every message, and calls of every codec by name.
 * In:   nothing.      Out: structs whose bytes are in tests/golden/wire (made by make_wire.py from the same
 * values). Owns: constants. Why:  each test of the codec runs over all messages; none can be forgotten, for
 * the list is DR_CODEC. */
#pragma once

#include "proto/codec.h"
#include "tests/support/runner.h"

#define SAMPLE_EPOCH 0x1122334455667788u

struct sample {       /* one message that has a struct */
    const char *name; /* "hello" */
    enum dr_msg type;
    size_t struct_bytes;
    const void *full, *least;
    dr_status (*encode)(const void *in, struct dr_arena *scratch, uint8_t *out, size_t room, size_t *bytes);
    dr_status (*decode)(const uint8_t *body, size_t bytes, struct dr_arena *arena, void *out);
};

extern const struct sample samples[];
extern const int32_t n_samples;

enum { SAMPLE_FRAME_MAX = 2 << 20, SAMPLE_STRUCT_MAX = 4096 };

/* The frame of a golden file ("hello-full"); fails the test and returns 0 when it cannot be read. */
size_t sample_golden(const char *name, uint8_t *out, size_t room);

/* Decodes from a block of exactly `bytes` bytes, so that a sanitizer sees a read past the end. */
dr_status sample_decode(const struct sample *s, const uint8_t *body, size_t bytes, struct dr_arena *arena,
                        void *out);

const struct sample *sample_find(const char *name);
