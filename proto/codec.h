/* codec.h - frames: plain structs to bytes and back.
 * In:   structs of message.h, or bytes from a peer.      Out: bytes, or checked structs.
 * Owns: nothing; decoded arrays live in the caller's arena.
 * Why:  the one file that knows protobuf; every length and count is checked here against limits.h.
 *
 * Frame: little-endian {u32 magic "DRK1", u16 version, u16 type, u64 epoch, u32 bytes, u32 zero}, then
 * `bytes` of body. */
#pragma once

#include "common/arena.h"
#include "proto/message.h"

enum { DR_FRAME_HEADER = 24, DR_FRAME_MAGIC = 0x314B5244 };

struct dr_frame {
    uint16_t type; /* enum dr_msg */
    uint64_t epoch;
    uint32_t bytes; /* of the body */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a header (DR_FRAME_HEADER bytes). Fails: EPROTO on magic, version, type, zero field, or more than
 * body_max bytes. */
DR_FALLIBLE dr_frame_read(const uint8_t *header, uint32_t body_max, struct dr_frame *out);

/* Each dr_encode_x writes header and body into out (room bytes) and sets *bytes. epoch is the header's;
 * messages with an own epoch carry that one, too. scratch is rewound before the call returns. Fails: EFULL
 * when the frame or the scratch does not fit, EPROTO when the message breaks a limit that the receiver
 * checks; *bytes is untouched then.
 *
 * Each dr_decode_x takes the body, unpacks into the arena and checks every count, id range that needs no
 * model, float and enum. Fails: EPROTO with message, field, found, limit. The arena may hold leftovers then:
 * rewind it.
 *
 * Neither allocates from the system: 8 MiB of scratch and of arena serve any message (README.md). */
/* clang-format off */
#define DR_CODEC(X)                                                                                          \
    X(hello) X(start) X(ready) X(step_plan) X(step_report) X(step_result) X(logits) X(beat) X(fault_note)    \
    X(link_hello) X(submit) X(refused) X(tokens) X(done) X(cluster_ready) X(progress) X(stats)               \
    X(step_news)
/* clang-format on */

#define DR_X_(m)                                                                                             \
    DR_FALLIBLE dr_encode_##m(const struct dr_##m *in, uint64_t epoch, struct dr_arena *scratch,             \
                              uint8_t *out, size_t room, size_t *bytes);                                     \
    DR_FALLIBLE dr_decode_##m(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_##m *out);
DR_CODEC(DR_X_)
#undef DR_X_

/* Messages that carry at most one number: CANCEL and ACCEPTED (request), WATCH (bits), DRAIN, RESET_PREFIX,
 * ALIVE, STOP (0). */
DR_FALLIBLE dr_encode_word(enum dr_msg type, uint64_t epoch, uint64_t value, uint8_t *out, size_t room,
                           size_t *bytes);
DR_FALLIBLE dr_decode_word(const uint8_t *body, size_t bytes, uint64_t *value);

/* Changes the type of an encoded frame: dr_encode_fault_note writes FAULT, the gateway expects the same body
 * as CLUSTER_FAULT. */
void dr_frame_retype(uint8_t *frame, enum dr_msg type);

const char *dr_msg_name(uint16_t type); /* "STEP_PLAN"; "?" for an unknown number */

#ifdef __cplusplus
}
#endif
