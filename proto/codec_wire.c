/* codec_wire.c - one walk over a message's descriptor checks all of it.
 * In:   generated messages, rules.      Out: see codec_wire.h.
 * Owns: nothing.
 * Why:  the peer is not trusted: a length, count, enum, float or missing field is refused by name before
 * anything uses it. Unpacking draws on the caller's arena only, so a small frame cannot ask the system for a
 * lot of memory. */
#include "proto/codec_wire.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void dr_wire_put32(uint8_t *at, uint32_t v) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(v >> (8 * i));
}

void dr_wire_put64(uint8_t *at, uint64_t v) {
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(v >> (8 * i));
}

uint32_t dr_wire_get32(const uint8_t *at) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) v |= (uint32_t)at[i] << (8 * i);
    return v;
}

uint64_t dr_wire_get64(const uint8_t *at) {
    return (uint64_t)dr_wire_get32(at) | (uint64_t)dr_wire_get32(at + 4) << 32;
}

void dr_wire_text(char *dst, size_t room, const char *src) {
    size_t n = strlen(src);
    DR_ASSERT(n < room);
    memcpy(dst, src, n + 1);
}

dr_status dr_wire_same(const char *message, const char *field, size_t found, size_t expected) {
    if (found == expected) return dr_ok();
    return dr_fail(DR_EPROTO, "%s.%s: found %zu elements, expected %zu", message, field, found, expected);
}

dr_status dr_wire_take(struct dr_arena *a, size_t n, size_t size, enum dr_code code, const char *what,
                       void **out) {
    size_t bytes = 0;
    if (!__builtin_mul_overflow(n, size, &bytes)) {
        *out = dr_arena_try(a, bytes, 16);
        if (*out) return dr_ok();
    }
    return dr_fail(code, "%s: %zu elements of %zu bytes do not fit in the arena (%zu of %zu bytes used)",
                   what, n, size, a->used, a->bytes);
}

void dr_wire_present(ProtobufCMessage *m) {
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        bool pointer = f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;
        if (f->label != PROTOBUF_C_LABEL_OPTIONAL || pointer) continue;
        *(protobuf_c_boolean *)(void *)((char *)m + f->quantifier_offset) = 1;
    }
}

/* Is the number in the rule's range? The range fits an int64: a rule never bounds a 64-bit field above 2^63.
 */
static dr_status range(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                       const struct dr_wire_rule *r, bool negative, uint64_t v) {
    if (r->least == 0 && r->most == 0) return dr_ok();
    int64_t s = (int64_t)v;
    bool high = negative ? s > r->most : r->most < 0 || v > (uint64_t)r->most;
    bool low = negative ? s < r->least : r->least > 0 && v < (uint64_t)r->least;
    if (!high && !low) return dr_ok();
    if (negative)
        return dr_fail(DR_EPROTO, "%s.%s: found %" PRId64 ", allowed %" PRId64 "..%" PRId64,
                       m->descriptor->short_name, f->name, s, r->least, r->most);
    return dr_fail(DR_EPROTO, "%s.%s: found %" PRIu64 ", allowed %" PRId64 "..%" PRId64,
                   m->descriptor->short_name, f->name, v, r->least, r->most);
}

static dr_status real(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                      const struct dr_wire_rule *r, float v) {
    if (!isfinite(v))
        return dr_fail(DR_EPROTO, "%s.%s: found %g, expected a finite number", m->descriptor->short_name,
                       f->name, (double)v);
    bool any = r->least == 0 && r->most == 0;
    if (any || (v >= (float)r->least && v <= (float)r->most)) return dr_ok();
    return dr_fail(DR_EPROTO, "%s.%s: found %g, allowed %" PRId64 "..%" PRId64, m->descriptor->short_name,
                   f->name, (double)v, r->least, r->most);
}

static dr_status text(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                      const struct dr_wire_rule *r, size_t n) {
    DR_ASSERT(r->most > 0);
    if (n >= (size_t)r->least && n <= (size_t)r->most) return dr_ok();
    return dr_fail(DR_EPROTO, "%s.%s: found %zu bytes, allowed %" PRId64 "..%" PRId64,
                   m->descriptor->short_name, f->name, n, r->least, r->most);
}

static size_t width(const ProtobufCFieldDescriptor *f) { /* of one element of a repeated field */
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return 8;
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(ProtobufCMessage *);
    default:
        return 4;
    }
}

/* One value. Recursion goes as deep as the schema, which has no message inside itself. */
static dr_status value(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                       const struct dr_wire_rule *r, const void *at) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM:
        return range(m, f, r, true, (uint64_t)(int64_t) * (const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
        return range(m, f, r, false, *(const uint32_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return range(m, f, r, false, *(const uint64_t *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return dr_ok();
    case PROTOBUF_C_TYPE_FLOAT:
        return real(m, f, r, *(const float *)at);
    case PROTOBUF_C_TYPE_STRING:
        return text(m, f, r, strlen(*(char *const *)at));
    case PROTOBUF_C_TYPE_BYTES:
        return text(m, f, r, ((const ProtobufCBinaryData *)at)->len);
    case PROTOBUF_C_TYPE_MESSAGE:
        DR_ASSERT(r->sub != NULL);
        return dr_wire_check(*(ProtobufCMessage *const *)at, r->sub);
    default:
        break;
    }
    DR_ASSERT(!"a type that the rules do not know");
    return dr_ok();
}

static dr_status repeated(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                          const struct dr_wire_rule *r) {
    size_t n = *(const size_t *)(const void *)((const char *)m + f->quantifier_offset);
    DR_ASSERT(r->count > 0);
    if (n > r->count)
        return dr_fail(DR_EPROTO, "%s.%s: found %zu elements, allowed 0..%" PRIu32, m->descriptor->short_name,
                       f->name, n, r->count);
    const char *array = *(char *const *)(const void *)((const char *)m + f->offset);
    size_t size = width(f);
    for (size_t i = 0; i < n; i++) DR_TRY(value(m, f, r, array + i * size));
    return dr_ok();
}

dr_status dr_wire_check(const ProtobufCMessage *m, const struct dr_wire_rules *rules) {
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        DR_ASSERT(f->id < rules->n);
        const struct dr_wire_rule *r = &rules->at[f->id];
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            DR_TRY(repeated(m, f, r));
            continue;
        }
        const void *at = (const char *)m + f->offset;
        bool pointer = f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;
        bool there =
            pointer
                ? *(void *const *)at != NULL
                : *(const protobuf_c_boolean *)(const void *)((const char *)m + f->quantifier_offset) != 0;
        if (there)
            DR_TRY(value(m, f, r, at));
        else if (!r->may_miss)
            return dr_fail(DR_EPROTO, "%s.%s: missing, expected a value", m->descriptor->short_name, f->name);
    }
    return dr_ok();
}

void dr_wire_header(uint8_t *out, enum dr_msg type, uint64_t epoch, size_t bytes) {
    dr_wire_put32(out, DR_FRAME_MAGIC);
    out[4] = DR_PROTOCOL & 255;
    out[5] = DR_PROTOCOL >> 8;
    out[6] = (uint8_t)(type & 255);
    out[7] = (uint8_t)(type >> 8);
    dr_wire_put64(out + 8, epoch);
    dr_wire_put32(out + 16, (uint32_t)bytes);
    dr_wire_put32(out + 20, 0);
}

dr_status dr_wire_pack(enum dr_msg type, uint64_t epoch, const ProtobufCMessage *m,
                       const struct dr_wire_rules *rules, uint8_t *out, size_t room, size_t *bytes) {
    DR_TRY(dr_wire_check(m, rules));
    size_t body = protobuf_c_message_get_packed_size(m);
    if (body > DR_LINK_FRAME_MAX || room < DR_FRAME_HEADER || body > room - DR_FRAME_HEADER)
        return dr_fail(DR_EFULL, "%s: a frame of %d + %zu bytes does not fit in %zu (at most %d)",
                       dr_msg_name((uint16_t)type), DR_FRAME_HEADER, body, room,
                       DR_FRAME_HEADER + DR_LINK_FRAME_MAX);
    dr_wire_header(out, type, epoch, body);
    size_t packed = protobuf_c_message_pack(m, out + DR_FRAME_HEADER);
    DR_ASSERT(packed == body);
    *bytes = DR_FRAME_HEADER + body;
    return dr_ok();
}

struct budget {
    struct dr_arena *arena;
    bool spent; /* a piece was refused: then the text says so instead of "malformed" */
};

static void *budget_take(void *data, size_t size) {
    struct budget *b = data;
    void *p = dr_arena_try(b->arena, size, 16);
    if (!p) b->spent = true;
    return p;
}

static void budget_drop(void *data, void *p) {
    (void)data; /* the arena takes all of it back at once */
    (void)p;
}

dr_status dr_wire_unpack(const ProtobufCMessageDescriptor *type, const struct dr_wire_rules *rules,
                         const uint8_t *body, size_t bytes, struct dr_arena *arena, ProtobufCMessage **out) {
    struct budget budget = {.arena = arena};
    ProtobufCAllocator from = {.alloc = budget_take, .free = budget_drop, .allocator_data = &budget};
    if (bytes > DR_LINK_FRAME_MAX)
        return dr_fail(DR_EPROTO, "%s: found %zu bytes, allowed 0..%d", type->short_name, bytes,
                       DR_LINK_FRAME_MAX);
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &from, bytes, body);
    if (!m && budget.spent)
        return dr_fail(DR_EPROTO, "%s: %zu bytes unpack into more than the %zu bytes left for it",
                       type->short_name, bytes, arena->bytes - arena->used);
    if (!m) return dr_fail(DR_EPROTO, "%s: %zu bytes are not such a message", type->short_name, bytes);
    DR_TRY(dr_wire_check(m, rules));
    *out = m;
    return dr_ok();
}
