/* samples.c - see samples.h.
 * In:   nothing.      Out: see samples.h.
 * Owns: constants.
 * Why:  see samples.h. */
#include "tests/unit/proto/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST 0xD1D2D3D4D5D6D7D8u
#define FULL_SAMPLING                                                                                        \
    {                                                                                                        \
        .temperature = 0.75f, .top_p = 0.9375f, .min_p = 0.0625f, .top_k = 40, .repetition = 1.125f,         \
        .frequency = -0.5f, .presence = 0.25f, .seed = 0xFEDCBA9876543210u, .n_top = 20                      \
    }
#define LEAST_SAMPLING                                                                                       \
    { .top_p = 1, .repetition = 1, .n_top = -1 }

static const struct dr_hello hello_full = {
    .protocol = 1,
    .build = "0.1.0",
    .rank = 7,
    .pid = 4242,
    .host = "node-7.example",
    .tensors_hash = 0xA1A2A3A4A5A6A7A8u,
    .layout_hash = 0xB1B2B3B4B5B6B7B8u,
    .memory_bytes = 68719476736u,
    .arithmetic = {.isa = "avx512", .inputs = "int8"},
};
static const struct dr_hello hello_least = {0};
static const int32_t start_place[] = {0, 1, 0}, start_peers[] = {2, 2, 1};
static const struct dr_start start_full = {.n_rank = 3, .place = start_place, .peers = start_peers},
                             start_least = {.n_rank = 1, .place = start_place, .peers = start_peers + 2};
static const struct dr_ready ready_full = {
    .rank = 1023,
    .weights_bytes = 1ull << 40,
    .cache_bytes = 2ull << 30,
    .workspace_bytes = 3u << 20,
    .resident_bytes = UINT64_MAX,
    .load_ns = 123456789012u,
};
static const struct dr_ready ready_least = {0};

static const struct dr_bias open_bias[] = {{.id = 5, .value = -100}, {.id = 1048575, .value = 2.5f}};
static const uint32_t open_seen[] = {1, 2, 300};
static const struct dr_count open_counts[] = {{.id = 9, .count = 1}, {.id = 70000, .count = 12}};
static const struct dr_open plan_open[] = {
    {
        .slot = 1023,
        .cache_group = 3,
        .n_prompt = 5000,
        .n_kept = 4992,
        .sampling = FULL_SAMPLING,
        .n_bias = 2,
        .bias = open_bias,
        .n_seen_prompt = 3,
        .seen_prompt = open_seen,
        .n_seen_output = 2,
        .seen_output = open_counts,
    },
    {.sampling = LEAST_SAMPLING},
};
static const uint32_t page_numbers[] = {0, 1, 127, 128, 2147483647};
static const struct dr_pages plan_pages[] = {{.slot = 1023, .first = 77, .n = 5, .page = page_numbers}};
static const uint32_t segment_ids[] = {11, 222, 33333};
static const struct dr_segment plan_segment[] = {
    {
        .slot = 12,
        .first = 64,
        .n_rows = 3,
        .source = DR_SOURCE_IDS,
        .ids = segment_ids,
        .has_next = true,
        .next_id = 444,
        .role = DR_TOKENS_PROMPT,
        .form = DR_FORM_EXPANDED,
        .output = DR_OUTPUT_SCORE,
        .score_top = 20,
    },
    {
        .slot = 13,
        .first = 16777206,
        .n_rows = 9,
        .source = DR_SOURCE_CARRY,
        .role = DR_TOKENS_GENERATED,
        .form = DR_FORM_ABSORBED,
        .output = DR_OUTPUT_SAMPLE,
        .n_verify = 7,
        .n_draft = 8,
    },
};
static const int32_t plan_drop[] = {1, 1023};
static const struct dr_step_plan step_plan_full = {
    .epoch = SAMPLE_EPOCH,
    .step = 8841,
    .cohort = 63,
    .n_open = 2,
    .n_pages = 1,
    .n_segment = 2,
    .n_drop = 2,
    .open = plan_open,
    .pages = plan_pages,
    .segment = plan_segment,
    .drop = plan_drop,
    .schedule_hash = 0xC1C2C3C4C5C6C7C8u,
};
static const struct dr_step_plan step_plan_least = {.epoch = SAMPLE_EPOCH};
static const struct dr_step_report step_report_full = {
    .epoch = SAMPLE_EPOCH,
    .step = 8841,
    .rank = 1023,
    .code = DR_ETIME,
    .begin_ns = 1000000,
    .end_ns = 2000000,
    .wait_ns = 300000,
    .bytes = {1, 200, 30000, 4000000, UINT64_MAX},
    .part_ns = {0, 1, 127, 128, 16384, 2097152, 268435456, 34359738368u, 4398046511104u, 562949953421311u},
    .wait_kind_ns = {5, 60, 700, 8000, 562949953421311u},
    .peak_bytes = UINT64_MAX,
    .text = "deadline passed in layer 17",
};
static const struct dr_step_report step_report_least = {.epoch = SAMPLE_EPOCH};
static const struct dr_top row_top[] = {{.id = 7, .logprob = -0.5f},  {.id = 1048575, .logprob = -3.75f},
                                        {.id = 8, .logprob = -1.25f}, {.id = 7, .logprob = -1.5f},
                                        {.id = 0, .logprob = -1.75f}, {.id = 9, .logprob = -2}};
static const struct dr_result_row result_rows[] = {
    {
        .slot = 12,
        .position = 66,
        .n_ids = 3,
        .ids = {7, 8, 9},
        .logprob = {-0.5f, -1.25f, -2},
        .n_accepted = 2,
        .n_top = 2,
        .n_draft = 2,
        .draft = {10, 70000},
        .top = row_top,
    },
    {.slot = 13, .fault = DR_FAULT_NUMERIC},
};
static const int32_t result_bad[] = {13, 1023};
static const struct dr_step_result step_result_full = {
    .epoch = SAMPLE_EPOCH, .step = 8841, .n_row = 2, .row = result_rows, .n_bad = 2, .bad = result_bad};
static const struct dr_step_result step_result_least = {.epoch = SAMPLE_EPOCH};
static const float logits_values[] = {1.5f, -2.25f, 1e-30f}, logits_zero[] = {0};
static const struct dr_logits logits_full = {
    .epoch = SAMPLE_EPOCH,
    .step = 8841,
    .request = 99,
    .slot = 1023,
    .position = 16777215,
    .first = 1048573,
    .n = 3,
    .value = logits_values,
};
static const struct dr_logits logits_least = {.n = 1, .value = logits_zero};
static const struct dr_beat beat_full = {.epoch = SAMPLE_EPOCH, .step = 8841, .rank = 1023, .op = INT32_MAX};
static const struct dr_beat beat_least = {.epoch = SAMPLE_EPOCH, .op = -1};
static const struct dr_fault_note fault_note_full = {
    .rank = 1023, .code = DR_EPEER, .text = "worker 3 is gone: "};
static const struct dr_fault_note fault_note_least = {.rank = -1};

static const struct dr_link_hello link_hello_full = {
    .protocol = 1,
    .token = {200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215,
              216, 217, 218, 219, 220, 221, 222, 223, 224, 225, 226, 227, 228, 229, 230, 231},
};
static const struct dr_link_hello link_hello_least = {0};
static const uint32_t submit_ids[] = {0, 127, 128, 16384, 1048575}, submit_end[] = {1, 1048575},
                      submit_one[] = {0};
static const struct dr_bias submit_bias[] = {{.id = 5, .value = 1.5f}, {.id = 6, .value = -1.5f}};
static const struct dr_submit submit_full = {
    .request = REQUEST,
    .n_ids = 5,
    .ids = submit_ids,
    .n_delivered = 4,
    .max_tokens = 512,
    .min_tokens = 16,
    .ignore_eos = true,
    .n_end = 2,
    .end_ids = submit_end,
    .sampling = FULL_SAMPLING,
    .n_bias = 2,
    .bias = submit_bias,
    .prompt_top = 20,
    .logits = true,
    .priority = -3,
    .deadline_ms = UINT32_MAX,
    .tenant = "tenant-a",
    .salt = "salt-b",
};
static const struct dr_submit submit_least = {
    .n_ids = 1, .ids = submit_one, .sampling = LEAST_SAMPLING, .prompt_top = -1};
static const struct dr_rank_state rank_states[] = {
    {.rank = 0, .pid = 100, .host = "node-0"},
    {1, 101, "node-1", 1000, 2000, 3000, 4000, 5000, {"avx2", "f32"}},
    {2, 102, "node-2", 2000, 4000, 6000, 8000, 10000, {"avx2", "f32"}},
    {3, 103, "node-3", 3000, 6000, 9000, 12000, 15000, {"avx2", "f32"}},
    {4, 104, "node-4", 4000, 8000, 12000, 16000, 20000, {"avx2", "f32"}},
    {5, 105, "node-5", 5000, 10000, 15000, 20000, 25000, {"avx2", "f32"}},
};
static const struct dr_cluster_ready cluster_ready_full = {
    .layout =
        {
            .tp = 3,
            .pp = 2,
            .c = 3,
            .n_rank = 6,
            .experts = DR_EXPERTS_WHOLE,
            .exchange = DR_EXCHANGE_VALUE,
            .cache_type = DR_CACHE_FP8,
            .weights = DR_WEIGHTS_INT8,
            .mtp = true,
            .page_tokens = 66,
            .page_rows = 22,
            .context = 163840,
            .seqs_max = 64,
            .step_tokens = 512,
            .n_page = 100000,
            .layer_begin = {0, 31, 61},
        },
    .tensors_hash = 0xE1E2E3E4E5E6E7E8u,
    .n_rank = 6,
    .rank = rank_states,
};
static const struct dr_rank_state rank_nobody[] = {{0}};
static const struct dr_cluster_ready cluster_ready_least = {
    .layout =
        {
            .tp = 1,
            .pp = 1,
            .c = 1,
            .n_rank = 1,
            .page_tokens = 64,
            .page_rows = 64,
            .context = 1,
            .seqs_max = 1,
            .step_tokens = 1,
            .n_page = 1,
            .layer_begin = {0, 1},
        },
    .n_rank = 1,
    .rank = rank_nobody,
};
static const struct dr_refused refused_full = {
    .request = REQUEST, .reason = DR_REFUSE_DRAINING, .retry_ms = 2500, .text = "the cluster is draining"};
static const struct dr_refused refused_least = {0};
static const uint32_t news_ids[] = {5, 70000}, news_one[] = {9};
static const float news_logprob[] = {-1, -0.125f};
static const struct dr_top news_top[] = {{5, -1}, {6, -2}, {70000, -0.125f}, {8, -4}};
static const struct dr_token_news news[] = {
    {
        .request = REQUEST,
        .prompt = true,
        .position = 16777216,
        .n = 2,
        .ids = news_ids,
        .logprob = news_logprob,
        .n_top = 2,
        .top = news_top,
    },
    {.request = 2, .n = 1, .ids = news_one},
};
static const struct dr_tokens tokens_full = {.n = 2, .news = news}, tokens_least = {0};
static const struct dr_done done_full = {
    .request = REQUEST,
    .finish = DR_FINISH_LOST,
    .stop_id = UINT32_MAX,
    .n_prompt = 1,
    .n_cached = 2,
    .n_output = 3,
    .drafted = {4, 3, 2, 1, 0, 0, 0, INT32_MAX},
    .accepted = {3, 2, 1, 0, 0, 0, 0, 300},
    .queue_ns = 6000000000u,
    .prefill_ns = 7000000000u,
    .decode_ns = 8000000000u,
};
static const struct dr_done done_least = {0};
static const struct dr_progress progress_full = {
    .rank = 1023, .done_bytes = 1ull << 35, .total_bytes = UINT64_MAX};
static const struct dr_progress progress_least = {0};
static const struct dr_step_news step_news_full = {.step = 8841,
                                                   .sent_ns = 1000000,
                                                   .done_ns = UINT64_MAX,
                                                   .prompt_rows = 8192,
                                                   .generated_rows = 64,
                                                   .n_decode = 16,
                                                   .n_drawn = 40};
static const struct dr_step_news step_news_least = {0};
static const struct dr_stats stats_full = {
    .steps = 1000000,
    .prompt_tokens = 2000000,
    .generated_tokens = 3000000,
    .cached_tokens = 4000000,
    .cancelled = 5000000,
    .preempted = 6000000,
    .running = 7000000,
    .waiting = 8000000,
    .pages_used = 9000000,
    .pages_idle = 16000000,
    .pages_total = 10000000,
    .waiting_tokens = 11000000,
    .last_step_ns = 12000000,
    .last_step_age_ns = 13000000,
    .step_wait_ns = 14000000,
    .bytes = {11, 22, 33, 44, 55},
};
static const struct dr_stats stats_least = {0};

#define DR_X_(m)                                                                                             \
    static dr_status encode_##m(const void *in, struct dr_arena *scratch, uint8_t *out, size_t room,         \
                                size_t *bytes) {                                                             \
        return dr_encode_##m(in, SAMPLE_EPOCH, scratch, out, room, bytes);                                   \
    }                                                                                                        \
    static dr_status decode_##m(const uint8_t *body, size_t bytes, struct dr_arena *arena, void *out) {      \
        return dr_decode_##m(body, bytes, arena, out);                                                       \
    }
DR_CODEC(DR_X_)
#undef DR_X_

/* The type that a frame of each message has. */
enum {
    TYPE_hello = DR_MSG_HELLO,
    TYPE_start = DR_MSG_START,
    TYPE_ready = DR_MSG_READY,
    TYPE_step_plan = DR_MSG_STEP_PLAN,
    TYPE_step_report = DR_MSG_STEP_REPORT,
    TYPE_step_result = DR_MSG_STEP_RESULT,
    TYPE_logits = DR_MSG_LOGITS,
    TYPE_beat = DR_MSG_BEAT,
    TYPE_fault_note = DR_MSG_FAULT,
    TYPE_link_hello = DR_MSG_LINK_HELLO,
    TYPE_submit = DR_MSG_SUBMIT,
    TYPE_refused = DR_MSG_REFUSED,
    TYPE_tokens = DR_MSG_TOKENS,
    TYPE_done = DR_MSG_DONE,
    TYPE_cluster_ready = DR_MSG_CLUSTER_READY,
    TYPE_progress = DR_MSG_PROGRESS,
    TYPE_stats = DR_MSG_STATS,
    TYPE_step_news = DR_MSG_STEP_NEWS,
};

#define DR_X_(m)                                                                                             \
    {#m, (enum dr_msg)TYPE_##m, sizeof(struct dr_##m), &m##_full, &m##_least, encode_##m, decode_##m},
const struct sample samples[] = {DR_CODEC(DR_X_)};
#undef DR_X_
const int32_t n_samples = sizeof samples / sizeof samples[0];

const struct sample *sample_find(const char *name) {
    for (int32_t i = 0; i < n_samples; i++)
        if (strcmp(samples[i].name, name) == 0) return &samples[i];
    CU_FAIL("no such sample");
    return NULL;
}

size_t sample_golden(const char *name, uint8_t *out, size_t room) {
    char path[512];
    snprintf(path, sizeof path, "%s/golden/wire/%s.bin", DR_TESTS_DIR, name);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(out, 1, room, f) : 0;
    if (f) fclose(f);
    CU_ASSERT(n >= DR_FRAME_HEADER);
    if (n < DR_FRAME_HEADER) printf("%s: no frame\n", path);
    return n >= DR_FRAME_HEADER ? n : 0;
}

dr_status sample_decode(const struct sample *s, const uint8_t *body, size_t bytes, struct dr_arena *arena,
                        void *out) {
    uint8_t *exact = malloc(bytes ? bytes : 1);
    DR_ASSERT(exact != NULL && s->struct_bytes <= SAMPLE_STRUCT_MAX);
    memcpy(exact, body, bytes);
    dr_arena_rewind(arena, 0);
    dr_status st = s->decode(exact, bytes, arena, out);
    free(exact); /* nothing decoded may point into the body */
    return st;
}
