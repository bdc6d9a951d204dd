/* fuzz_control_msg.c - frames of the control messages from an untrusted peer.
 * In:   a frame: header and body.      Out: nothing; a crash is a finding.
 * Owns: two arenas and a buffer of the process.
 * Why:  these decoders stand between other machines and every array index of coordinator and workers. What
 * decodes must encode again, and that must decode: a decoder that lets through what the encoder refuses has a
 * hole in its checks. */
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ARENA = 4 << 20, FRAME = DR_FRAME_HEADER + DR_MPI_FRAME_MAX };

static alignas(4096) uint8_t block[2][ARENA];
static uint8_t out[FRAME];

static void must(dr_status st) {
    DR_ASSERT(st.code == DR_OK);
}

#define DR_X_(m)                                                                                             \
    static void fuzz_##m(const uint8_t *body, size_t n) {                                                    \
        struct dr_arena a = {.base = block[0], .bytes = ARENA}, b = {.base = block[1], .bytes = ARENA};      \
        struct dr_##m first, second;                                                                         \
        size_t bytes = 0;                                                                                    \
        if (dr_decode_##m(body, n, &a, &first).code != DR_OK) return;                                        \
        must(dr_encode_##m(&first, 1, &b, out, sizeof out, &bytes));                                         \
        must(dr_decode_##m(out + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, &b, &second));                    \
    }
DR_CODEC(DR_X_)
#undef DR_X_

static void fuzz_word(const uint8_t *body, size_t n) {
    uint64_t value = 0, again = 0;
    size_t bytes = 0;
    if (dr_decode_word(body, n, &value).code != DR_OK) return;
    must(dr_encode_word(DR_MSG_CANCEL, 1, value, out, sizeof out, &bytes));
    must(dr_decode_word(out + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, &again));
    DR_ASSERT(again == value);
}

static void body_of(uint16_t type, const uint8_t *body, size_t n) {
    switch (type) {
    case DR_MSG_HELLO:
        fuzz_hello(body, n);
        break;
    case DR_MSG_START:
        fuzz_start(body, n);
        break;
    case DR_MSG_READY:
        fuzz_ready(body, n);
        break;
    case DR_MSG_STEP_PLAN:
        fuzz_step_plan(body, n);
        break;
    case DR_MSG_STEP_REPORT:
        fuzz_step_report(body, n);
        break;
    case DR_MSG_STEP_RESULT:
        fuzz_step_result(body, n);
        break;
    case DR_MSG_LOGITS:
        fuzz_logits(body, n);
        break;
    case DR_MSG_BEAT:
        fuzz_beat(body, n);
        break;
    case DR_MSG_FAULT:
    case DR_MSG_CLUSTER_FAULT:
        fuzz_fault_note(body, n);
        break;
    case DR_MSG_LINK_HELLO:
        fuzz_link_hello(body, n);
        break;
    case DR_MSG_SUBMIT:
        fuzz_submit(body, n);
        break;
    case DR_MSG_REFUSED:
        fuzz_refused(body, n);
        break;
    case DR_MSG_TOKENS:
        fuzz_tokens(body, n);
        break;
    case DR_MSG_DONE:
        fuzz_done(body, n);
        break;
    case DR_MSG_CLUSTER_READY:
        fuzz_cluster_ready(body, n);
        break;
    case DR_MSG_PROGRESS:
        fuzz_progress(body, n);
        break;
    case DR_MSG_STEP_NEWS:
        fuzz_step_news(body, n);
        break;
    case DR_MSG_STATS:
        fuzz_stats(body, n);
        break;
    default:
        fuzz_word(body, n);
        break;
    }
}

/* The stated length is checked as the pipes do; then the body that is there is decoded whatever the header
 * said of it, so that a fuzzer need not guess lengths. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct dr_frame f = {0};
    if (size < DR_FRAME_HEADER || size > FRAME) return 0;
    if (dr_frame_read(data, DR_MPI_FRAME_MAX, &f).code != DR_OK) return 0;
    size_t n = size - DR_FRAME_HEADER;
    uint8_t *body = malloc(n ? n : 1); /* exactly as long as it says */
    DR_ASSERT(body != NULL);
    memcpy(body, data + DR_FRAME_HEADER, n);
    body_of(f.type, body, n);
    free(body);
    return 0;
}
