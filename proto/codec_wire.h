/* codec_wire.h - what the codec_*.c files share; nobody else includes it.
 * In:   generated messages and rules for their fields.      Out: checked messages, packed frames.
 * Owns: nothing; memory comes from the caller's arena.
 * Why:  presence, ranges, counts and finiteness are checked by one walk over protobuf-c's own descriptors, so
 * that a field cannot be forgotten: a field without a rule is a bug that aborts. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "proto/codec.h"

/* What a field may hold. Number and enum: least..most. String: at most `most` bytes. Bytes: least..most of
 * them. Repeated: at most `count` elements, each by least..most. least = most = 0: whatever its type holds.
 * Floats must be finite in any case. */
struct dr_wire_rule {
    int64_t least, most;
    uint32_t count;
    bool may_miss;                   /* of a field that is not repeated */
    const struct dr_wire_rules *sub; /* rules of an embedded message */
};

struct dr_wire_rules {
    const struct dr_wire_rule *at; /* by field number; at[0] is unused */
    uint32_t n;
};

#define DR_WIRE_RULES(array)                                                                                 \
    { .at = (array), .n = sizeof(array) / sizeof((array)[0]) }

/* One rule for every use of the same meaning. */
#define DR_RULE_ANY                                                                                          \
    { 0 }
#define DR_RULE_SLOT                                                                                         \
    { .most = DR_SEQS_MAX - 1 }
#define DR_RULE_RANK                                                                                         \
    { .most = DR_RANKS_MAX - 1 }
#define DR_RULE_COUNT                                                                                        \
    { .most = INT32_MAX }
#define DR_RULE_BOOL                                                                                         \
    { .most = 1 }

/* Sets has_x of every scalar field; the encoder clears those that are to be missing. */
void dr_wire_present(ProtobufCMessage *m);

/* Fails: EPROTO naming message, field, found and allowed. */
DR_FALLIBLE dr_wire_check(const ProtobufCMessage *m, const struct dr_wire_rules *rules);

/* Checks, then writes header and body. Fails: EPROTO as above; EFULL when room is too small. */
DR_FALLIBLE dr_wire_pack(enum dr_msg type, uint64_t epoch, const ProtobufCMessage *m,
                         const struct dr_wire_rules *rules, uint8_t *out, size_t room, size_t *bytes);

/* Unpacks into the arena and checks. Fails: EPROTO. */
DR_FALLIBLE dr_wire_unpack(const ProtobufCMessageDescriptor *type, const struct dr_wire_rules *rules,
                           const uint8_t *body, size_t bytes, struct dr_arena *arena, ProtobufCMessage **out);

/* Writes the header of a frame whose body has `bytes` bytes. */
void dr_wire_header(uint8_t *out, enum dr_msg type, uint64_t epoch, size_t bytes);

/* n x size bytes of the arena in *out. Fails: `code` naming `what` when the arena is full. */
DR_FALLIBLE dr_wire_take(struct dr_arena *a, size_t n, size_t size, enum dr_code code, const char *what,
                         void **out);

/* Two arrays that must be equally long. Fails: EPROTO. */
DR_FALLIBLE dr_wire_same(const char *message, const char *field, size_t found, size_t expected);

/* dst has `room` bytes; src was checked to be shorter. */
void dr_wire_text(char *dst, size_t room, const char *src);

/* little-endian, any alignment */
void dr_wire_put32(uint8_t *at, uint32_t v);
void dr_wire_put64(uint8_t *at, uint64_t v);
uint32_t dr_wire_get32(const uint8_t *at);
uint64_t dr_wire_get64(const uint8_t *at);

/* ---- codec_sampling.c ---- */

struct Dr__V1__Sampling;
extern const struct dr_wire_rules dr_wire_sampling_rules;

/* Ranges are the walk's to check; these fail (EPROTO) where a limit is no whole number (repetition > 0). */
DR_FALLIBLE dr_wire_sampling_put(const struct dr_sampling *in, struct Dr__V1__Sampling *out);

DR_FALLIBLE dr_wire_sampling_get(const struct Dr__V1__Sampling *in, struct dr_sampling *out);

/* Pairs travel as two packed arrays. put takes them from the scratch arena (EFULL); get needs equal lengths
 * (EPROTO). */
DR_FALLIBLE dr_wire_bias_put(const struct dr_bias *in, int32_t n, struct dr_arena *scratch, uint32_t **id,
                             float **value);
DR_FALLIBLE dr_wire_bias_get(const char *message, const uint32_t *id, size_t n_id, const float *value,
                             size_t n_value, struct dr_arena *arena, const struct dr_bias **out, int32_t *n);
DR_FALLIBLE dr_wire_top_put(const struct dr_top *in, size_t n, struct dr_arena *scratch, uint32_t **id,
                            float **logprob);
DR_FALLIBLE dr_wire_top_get(const char *message, const uint32_t *id, size_t n_id, const float *logprob,
                            size_t n_logprob, struct dr_arena *arena, const struct dr_top **out);
