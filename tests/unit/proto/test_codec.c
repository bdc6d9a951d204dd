/* test_codec.c - every message there and back, and against the golden bytes.
 * In:   samples.h, tests/golden/wire.      Out: CUnit results.
 * Owns: nothing.
 * Why:  the bytes are a promise to other releases; what is decoded must be what was said. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/writer.h"

static struct dr_arena arena, scratch;
static uint8_t frame[SAMPLE_FRAME_MAX], golden[SAMPLE_FRAME_MAX];
static uint64_t plain[SAMPLE_STRUCT_MAX / 8];

static int set_up(void) {
    dr_status st = dr_arena_init(&arena, 16 << 20);
    if (st.code == DR_OK) st = dr_arena_init(&scratch, 16 << 20);
    return st.code != DR_OK;
}

static int tear_down(void) {
    dr_arena_fini(&arena);
    dr_arena_fini(&scratch);
    return 0;
}

static void encode_and_compare(const struct sample *s, const void *value, const char *which) {
    char name[64];
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s-%s", s->name, which);
    size_t want = sample_golden(name, golden, sizeof golden);
    dr_status st = s->encode(value, &scratch, frame, sizeof frame, &bytes);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_EQUAL(scratch.used, 0);
    bool same = st.code == DR_OK && bytes == want && memcmp(frame, golden, want) == 0;
    CU_ASSERT(same);
    if (!same) printf("%s: %zu bytes, golden %zu; %s\n", name, bytes, want, dr_error_text());
}

static void encode_golden(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        encode_and_compare(&samples[i], samples[i].full, "full");
        encode_and_compare(&samples[i], samples[i].least, "least");
    }
}

/* What is decoded says the same again. The bodies' own values are compared by the encoder's test. */
static void decode_and_say(const struct sample *s, const char *which) {
    char name[64];
    size_t bytes = 0;
    struct dr_frame f = {0};
    snprintf(name, sizeof name, "%s-%s", s->name, which);
    size_t want = sample_golden(name, golden, sizeof golden);
    if (want == 0) return;
    CU_ASSERT_EQUAL(dr_frame_read(golden, DR_LINK_FRAME_MAX, &f).code, DR_OK);
    CU_ASSERT_EQUAL(f.type, s->type);
    CU_ASSERT_EQUAL(f.epoch, SAMPLE_EPOCH);
    CU_ASSERT_EQUAL(f.bytes, want - DR_FRAME_HEADER);
    memset(plain, 0xA5, sizeof plain);
    dr_status st = sample_decode(s, golden + DR_FRAME_HEADER, want - DR_FRAME_HEADER, &arena, plain);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) printf("%s: %s\n", name, dr_error_text());
    if (st.code != DR_OK) return;
    CU_ASSERT_EQUAL(s->encode(plain, &scratch, frame, sizeof frame, &bytes).code, DR_OK);
    bool same = bytes == want && memcmp(frame, golden, want) == 0;
    CU_ASSERT(same);
    if (!same) printf("%s: said again it has %zu bytes, golden %zu\n", name, bytes, want);
}

static void decode_golden(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        decode_and_say(&samples[i], "full");
        decode_and_say(&samples[i], "least");
    }
}

static void words(void) {
    static const struct {
        const char *name;
        enum dr_msg type;
        uint64_t value;
    } all[] = {
        {"stop", DR_MSG_STOP, 0},
        {"cancel", DR_MSG_CANCEL, 0xD1D2D3D4D5D6D7D8u},
        {"drain", DR_MSG_DRAIN, 0},
        {"reset_prefix", DR_MSG_RESET_PREFIX, 0},
        {"watch", DR_MSG_WATCH, DR_WATCH_STEPS | DR_WATCH_PREFILL_FIRST},
        {"accepted", DR_MSG_ACCEPTED, 0xD1D2D3D4D5D6D7D8u},
        {"alive", DR_MSG_ALIVE, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t bytes = 0, want = sample_golden(all[i].name, golden, sizeof golden);
        uint64_t value = 1;
        CU_ASSERT_EQUAL(
            dr_encode_word(all[i].type, SAMPLE_EPOCH, all[i].value, frame, sizeof frame, &bytes).code, DR_OK);
        CU_ASSERT(bytes == want && memcmp(frame, golden, want) == 0);
        CU_ASSERT_EQUAL(dr_decode_word(golden + DR_FRAME_HEADER, want - DR_FRAME_HEADER, &value).code, DR_OK);
        CU_ASSERT_EQUAL(value, all[i].value);
        for (size_t room = 0; room < want; room++)
            CU_ASSERT_EQUAL(dr_encode_word(all[i].type, SAMPLE_EPOCH, all[i].value, frame, room, &bytes).code,
                            DR_EFULL);
    }
    uint64_t value = 1;
    CU_ASSERT_EQUAL(dr_decode_word(NULL, 0, &value).code, DR_OK);
    CU_ASSERT_EQUAL(value, 0);
    CU_ASSERT_EQUAL(dr_decode_word((const uint8_t *)"\x08", 1, &value).code, DR_EPROTO);
    CU_ASSERT_EQUAL(dr_decode_word((const uint8_t *)"\x0a\x01x", 3, &value).code, DR_EPROTO);
    memset(golden, 0, 4000);
    for (size_t i = 0; i + 2 <= 4000; i += 2)
        golden[i] = 0x78; /* two thousand unknown fields: more than a word may bring */
    CU_ASSERT_EQUAL(dr_decode_word(golden, 4000, &value).code, DR_EPROTO);
}

static void retype(void) {
    size_t want = sample_golden("cluster_fault", golden, sizeof golden), bytes = 0;
    struct dr_fault_note note = {.rank = -1, .code = DR_EPEER, .text = "epoch lost"};
    CU_ASSERT_EQUAL(dr_encode_fault_note(&note, SAMPLE_EPOCH, &scratch, frame, sizeof frame, &bytes).code,
                    DR_OK);
    dr_frame_retype(frame, DR_MSG_CLUSTER_FAULT);
    CU_ASSERT(bytes == want && memcmp(frame, golden, want) == 0);
}

static void header_refusals(void) {
    static const struct {
        size_t at;
        uint8_t value;
        const char *says;
    } bad[] = {
        {0, 'X', "frame.magic"}, {3, '2', "frame.magic"}, {4, 2, "frame.version"},
        {5, 1, "frame.version"}, {6, 31, "frame.type"},   {7, 1, "frame.type"},
        {20, 1, "frame.zero"},   {23, 128, "frame.zero"}, {19, 1, "frame.bytes"},
    };
    struct dr_frame f = {0};
    size_t n = sample_golden("beat-full", golden, sizeof golden);
    CU_ASSERT_EQUAL(dr_frame_read(golden, (uint32_t)(n - DR_FRAME_HEADER), &f).code, DR_OK);
    CU_ASSERT_EQUAL(dr_frame_read(golden, (uint32_t)(n - DR_FRAME_HEADER - 1), &f).code, DR_EPROTO);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t header[DR_FRAME_HEADER];
        memcpy(header, golden, sizeof header);
        header[bad[i].at] = bad[i].value;
        CU_ASSERT_EQUAL(dr_frame_read(header, DR_LINK_FRAME_MAX, &f).code, DR_EPROTO);
        CU_ASSERT(strstr(dr_error_text(), bad[i].says) != NULL);
    }
    CU_ASSERT_STRING_EQUAL(dr_msg_name(DR_MSG_STEP_PLAN), "STEP_PLAN");
    CU_ASSERT_STRING_EQUAL(dr_msg_name(DR_MSG_PROGRESS), "PROGRESS");
    CU_ASSERT_STRING_EQUAL(dr_msg_name(0), "?");
    CU_ASSERT_STRING_EQUAL(dr_msg_name(58), "?");
}

/* No room: EFULL, and nothing behind the room is touched. Scratch too small: EFULL. */
static void no_room(void) {
    struct dr_arena tiny = {0};
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        size_t bytes = 0, got = 77;
        CU_ASSERT_EQUAL(s->encode(s->full, &scratch, frame, sizeof frame, &bytes).code, DR_OK);
        for (size_t room = 0; room < bytes; room++) {
            uint8_t *exact = malloc(room ? room : 1);
            CU_ASSERT_EQUAL(s->encode(s->full, &scratch, exact, room, &got).code, DR_EFULL);
            free(exact);
        }
        CU_ASSERT_EQUAL(got, 77);
        dr_status st = s->encode(s->full, &tiny, frame, sizeof frame, &bytes);
        CU_ASSERT(st.code == DR_OK || st.code == DR_EFULL);
    }
    size_t bytes = 0;
    CU_ASSERT_EQUAL(sample_find("step_plan")
                        ->encode(sample_find("step_plan")->full, &tiny, frame, sizeof frame, &bytes)
                        .code,
                    DR_EFULL);
    CU_ASSERT_EQUAL(scratch.used, 0);
}

/* Decoding takes from the arena only, and says so when it is too small. */
static void small_arena(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden), need = 0;
        CU_ASSERT_EQUAL(sample_decode(s, golden + DR_FRAME_HEADER, n - DR_FRAME_HEADER, &arena, plain).code,
                        DR_OK);
        need = arena.used;
        for (size_t have = 0; have < need; have += 16) {
            struct dr_arena part = {.base = arena.base, .bytes = have};
            CU_ASSERT_EQUAL(s->decode(golden + DR_FRAME_HEADER, n - DR_FRAME_HEADER, &part, plain).code,
                            DR_EPROTO);
        }
    }
}

static void unknown_fields(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        size_t bytes = 0;
        if (s->type == DR_MSG_LOGITS) continue; /* no protobuf */
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden);
        struct writer w;
        writer_begin(&w, golden + DR_FRAME_HEADER, n - DR_FRAME_HEADER);
        writer_number(&w, 100, UINT64_MAX);
        writer_fixed64(&w, 101, 1);
        writer_float(&w, 102, 1);
        writer_fill(&w, 103, 'x', 40);
        CU_ASSERT_EQUAL(sample_decode(s, w.at, w.n, &arena, plain).code, DR_OK);
        CU_ASSERT_EQUAL(s->encode(plain, &scratch, frame, sizeof frame, &bytes).code, DR_OK);
        CU_ASSERT(bytes == n && memcmp(frame, golden, n) == 0);
        writer_end(&w);
    }
}

static void truncated(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden) - DR_FRAME_HEADER, accepted = 0;
        for (size_t len = 0; len < n; len++) {
            dr_status st = sample_decode(s, golden + DR_FRAME_HEADER, len, &arena, plain);
            CU_ASSERT(st.code == DR_OK || st.code == DR_EPROTO);
            accepted += st.code == DR_OK;
        }
        /* Lists may end early at a border between their elements; the parts that every message needs may not.
         */
        size_t borders = s->type == DR_MSG_TOKENS ? 2 : s->type == DR_MSG_STEP_RESULT ? 3 : 0;
        CU_ASSERT_EQUAL(accepted, borders);
        if (accepted != borders) printf("%s: %zu cut bodies were accepted\n", s->name, accepted);
    }
}

static void flipped(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden) - DR_FRAME_HEADER, refused = 0;
        for (size_t bit = 0; bit < 8 * n; bit++) {
            uint8_t *byte = &golden[DR_FRAME_HEADER + bit / 8];
            *byte ^= (uint8_t)(1 << bit % 8);
            dr_status st = sample_decode(s, golden + DR_FRAME_HEADER, n, &arena, plain);
            *byte ^= (uint8_t)(1 << bit % 8);
            CU_ASSERT(st.code == DR_OK || st.code == DR_EPROTO);
            refused += st.code == DR_EPROTO;
        }
        CU_ASSERT(refused > 0);
    }
}

/* The largest plan and prompt that limits allow go through the sizes that contracts state. */
static void largest(void) {
    static uint32_t ids[DR_PROMPT_IDS_MAX];
    static uint8_t big[DR_FRAME_HEADER + DR_LINK_FRAME_MAX];
    static struct dr_segment segment[DR_SEQS_MAX];
    size_t bytes = 0;
    struct dr_arena own = {0};
    struct dr_submit back = {0};
    struct dr_step_plan got = {0};
    for (uint32_t i = 0; i < DR_PROMPT_IDS_MAX; i++) ids[i] = DR_VOCAB_MAX - 1 - i % 1000;
    CU_ASSERT_EQUAL(dr_arena_init(&own, 32 << 20).code, DR_OK);
    struct dr_submit s = {
        .n_ids = DR_PROMPT_IDS_MAX, .ids = ids, .max_tokens = 1, .sampling = {.top_p = 1, .repetition = 1}};
    CU_ASSERT_EQUAL(dr_encode_submit(&s, 1, &scratch, big, sizeof big, &bytes).code, DR_OK);
    CU_ASSERT(bytes < 4 << 20);
    CU_ASSERT_EQUAL(dr_decode_submit(big + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, &own, &back).code,
                    DR_OK);
    CU_ASSERT(back.n_ids == DR_PROMPT_IDS_MAX && memcmp(back.ids, ids, sizeof ids) == 0);
    dr_arena_rewind(&own, 0);
    for (int32_t i = 0; i < DR_SEQS_MAX; i++)
        segment[i] =
            (struct dr_segment){.slot = i, .n_rows = 8, .ids = ids + 8 * i, .output = DR_OUTPUT_SAMPLE};
    struct dr_step_plan p = {.n_segment = DR_SEQS_MAX, .segment = segment};
    CU_ASSERT_EQUAL(
        dr_encode_step_plan(&p, 1, &scratch, big, DR_FRAME_HEADER + DR_MPI_FRAME_MAX, &bytes).code, DR_OK);
    CU_ASSERT_EQUAL(dr_decode_step_plan(big + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, &own, &got).code,
                    DR_OK);
    CU_ASSERT_EQUAL(got.n_segment, DR_SEQS_MAX);
    CU_ASSERT(own.used < 2 << 20);
    dr_arena_fini(&own);
}

static CU_TestInfo cases[] = {
    {"every message is encoded as the golden bytes", encode_golden},
    {"every golden body is decoded, and said again it is the same", decode_golden},
    {"messages of one number", words},
    {"a fault note can be sent on to the gateway", retype},
    {"a bad header is refused by the name of its field", header_refusals},
    {"no room is EFULL and writes nothing past it", no_room},
    {"decoding takes memory from the arena only and fails when it is spent", small_arena},
    {"unknown fields are ignored", unknown_fields},
    {"a body cut at any byte is refused", truncated},
    {"a flipped bit never does worse than EPROTO", flipped},
    {"the largest prompt and plan fit in a frame", largest},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_codec = {
    .pName = "proto/codec", .pInitFunc = set_up, .pCleanupFunc = tear_down, .pTests = cases};
