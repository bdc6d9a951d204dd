/* codec_frame.c - the header of every frame, messages of one number, and raw logits.
 * In:   bytes of a header or body.      Out: struct dr_frame, numbers, logits.
 * Owns: nothing.
 * Why:  magic, version, type and length are refused before a body is looked at; logits are tensors and no
 * business of protobuf. */
#include <assert.h>
#include <inttypes.h>
#include <stdalign.h>
#include <string.h>

#include "proto/codec_wire.h"
#include "v1/common.pb-c.h"

/* {u64 epoch, u64 step, u64 request, i32 slot, i32 position, i32 first, i32 n} in front of the values */
enum { LOGITS_HEADER = 40, LOGITS_VALUES_MAX = (DR_MPI_FRAME_MAX - LOGITS_HEADER) / 4 };

static_assert(sizeof(float) == 4, "raw f32");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "raw values on the wire are little-endian");

#define DR_X_(name, number) {number, #name},
static const struct {
    uint16_t number;
    const char *name;
} messages[] = {DR_MESSAGES(DR_X_)};
#undef DR_X_

static const char *find(uint16_t type) {
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        if (messages[i].number == type) return messages[i].name;
    return NULL;
}

const char *dr_msg_name(uint16_t type) {
    const char *name = find(type);
    return name ? name : "?";
}

dr_status dr_frame_read(const uint8_t *header, uint32_t body_max, struct dr_frame *out) {
    uint32_t magic = dr_wire_get32(header), zero = dr_wire_get32(header + 20),
             bytes = dr_wire_get32(header + 16);
    uint16_t version = (uint16_t)(header[4] | header[5] << 8), type = (uint16_t)(header[6] | header[7] << 8);
    if (magic != DR_FRAME_MAGIC)
        return dr_fail(DR_EPROTO, "frame.magic: found 0x%08" PRIx32 ", expected 0x%08x", magic,
                       DR_FRAME_MAGIC);
    if (version != DR_PROTOCOL)
        return dr_fail(DR_EPROTO, "frame.version: found %d, expected %d; install the same release everywhere",
                       version, DR_PROTOCOL);
    if (!find(type))
        return dr_fail(DR_EPROTO, "frame.type: found %d, which is no message of version %d", type,
                       DR_PROTOCOL);
    if (zero != 0) return dr_fail(DR_EPROTO, "frame.zero: found %" PRIu32 ", expected 0", zero);
    if (bytes > body_max)
        return dr_fail(DR_EPROTO, "frame.bytes: found %" PRIu32 " of %s, allowed 0..%" PRIu32, bytes,
                       find(type), body_max);
    *out = (struct dr_frame){.type = type, .epoch = dr_wire_get64(header + 8), .bytes = bytes};
    return dr_ok();
}

void dr_frame_retype(uint8_t *frame, enum dr_msg type) {
    frame[6] = (uint8_t)(type & 255);
    frame[7] = (uint8_t)(type >> 8);
}

static const struct dr_wire_rule word_at[] = {[1] = {.may_miss = true}};
static const struct dr_wire_rules word_rules = DR_WIRE_RULES(word_at);

dr_status dr_encode_word(enum dr_msg type, uint64_t epoch, uint64_t value, uint8_t *out, size_t room,
                         size_t *bytes) {
    Dr__V1__Word m = DR__V1__WORD__INIT;
    m.has_value = 1;
    m.value = value;
    return dr_wire_pack(type, epoch, &m.base, &word_rules, out, room, bytes);
}

dr_status dr_decode_word(const uint8_t *body, size_t bytes, uint64_t *value) {
    alignas(64) uint8_t block[1024]; /* one Word and a few unknown fields of a later release */
    struct dr_arena arena = {.base = block, .bytes = sizeof block};
    ProtobufCMessage *m = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__word__descriptor, &word_rules, body, bytes, &arena, &m));
    *value = ((const Dr__V1__Word *)m)->value;
    return dr_ok();
}

static dr_status logits_number(const char *field, int32_t found, int64_t least, int64_t most) {
    if (found >= least && found <= most) return dr_ok();
    return dr_fail(DR_EPROTO, "Logits.%s: found %" PRId32 ", allowed %" PRId64 "..%" PRId64, field, found,
                   least, most);
}

static dr_status logits_check(const struct dr_logits *l) {
    DR_TRY(logits_number("slot", l->slot, 0, DR_SEQS_MAX - 1));
    DR_TRY(logits_number("position", l->position, 0, DR_POSITIONS_MAX - 1));
    DR_TRY(logits_number("n", l->n, 1, LOGITS_VALUES_MAX));
    return logits_number("first", l->first, 0, DR_VOCAB_MAX - l->n);
}

dr_status dr_encode_logits(const struct dr_logits *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                           size_t room, size_t *bytes) {
    (void)scratch;
    DR_TRY(logits_check(in));
    size_t values = (size_t)in->n * sizeof(float), body = LOGITS_HEADER + values;
    if (room < DR_FRAME_HEADER || body > room - DR_FRAME_HEADER)
        return dr_fail(DR_EFULL, "LOGITS: a frame of %d + %zu bytes does not fit in %zu", DR_FRAME_HEADER,
                       body, room);
    dr_wire_header(out, DR_MSG_LOGITS, epoch, body);
    uint8_t *at = out + DR_FRAME_HEADER;
    dr_wire_put64(at, in->epoch);
    dr_wire_put64(at + 8, in->step);
    dr_wire_put64(at + 16, in->request);
    dr_wire_put32(at + 24, (uint32_t)in->slot);
    dr_wire_put32(at + 28, (uint32_t)in->position);
    dr_wire_put32(at + 32, (uint32_t)in->first);
    dr_wire_put32(at + 36, (uint32_t)in->n);
    memcpy(at + LOGITS_HEADER, in->value, values);
    *bytes = DR_FRAME_HEADER + body;
    return dr_ok();
}

/* The values are copied: a body has no alignment. They may be infinite or NaN: a fault is to be seen, not
 * hidden. */
dr_status dr_decode_logits(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_logits *out) {
    if (bytes < LOGITS_HEADER)
        return dr_fail(DR_EPROTO, "Logits: found %zu bytes, expected at least %d", bytes, LOGITS_HEADER);
    struct dr_logits l = {
        .epoch = dr_wire_get64(body),
        .step = dr_wire_get64(body + 8),
        .request = dr_wire_get64(body + 16),
        .slot = (int32_t)dr_wire_get32(body + 24),
        .position = (int32_t)dr_wire_get32(body + 28),
        .first = (int32_t)dr_wire_get32(body + 32),
        .n = (int32_t)dr_wire_get32(body + 36),
    };
    DR_TRY(logits_check(&l));
    size_t values = (size_t)l.n * sizeof(float);
    if (bytes != LOGITS_HEADER + values)
        return dr_fail(DR_EPROTO, "Logits: found %zu bytes, expected %zu for %" PRId32 " values", bytes,
                       LOGITS_HEADER + values, l.n);
    void *copy = NULL;
    DR_TRY(dr_wire_take(arena, (size_t)l.n, sizeof(float), DR_EPROTO, "Logits.value", &copy));
    memcpy(copy, body + LOGITS_HEADER, values);
    l.value = copy;
    *out = l;
    return dr_ok();
}
