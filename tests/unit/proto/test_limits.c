/* test_limits.c - every limit of every message, exceeded by one.
 * In:   golden bodies with one field written again.      Out: CUnit results.
 * Owns: nothing.
 * Why:  a limit that no test exceeds is a comment; the text must name message and field, for people read it
 * in a log. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/writer.h"

enum how { NUMBER, FLOAT, PACKED, FLOATS, TEXT, PART };

struct row {
    const char *message; /* its full golden body is the ground */
    uint32_t in; /* 0: the field is the message's own; else it is written into a new element of this field */
    uint32_t tag;
    enum how how;
    uint64_t value; /* NUMBER: the value; PACKED, FLOATS, TEXT, PART: how many are added */
    double real;    /* FLOAT, FLOATS: the value */
    const char *says;
};

#define NEG(v) ((uint64_t)(int64_t)(v))

static const struct row rows[] = {
    {"hello", 0, 2, TEXT, 32, 0, "Hello.build"},
    {"hello", 0, 3, NUMBER, DR_RANKS_MAX, 0, "Hello.rank"},
    {"hello", 0, 3, NUMBER, NEG(-1), 0, "Hello.rank"},
    {"hello", 0, 4, NUMBER, NEG(-1), 0, "Hello.pid"},
    {"hello", 0, 5, TEXT, DR_HOST_MAX + 1, 0, "Hello.host"},
    {"hello", 0, 9, TEXT, DR_ISA_TEXT + 1, 0, "Hello.isa"},
    {"hello", 0, 10, TEXT, DR_INPUTS_TEXT + 1, 0, "Hello.inputs"},
    {"start", 0, 1, NUMBER, 0, 0, "Start.n_rank"},
    {"start", 0, 1, NUMBER, DR_RANKS_MAX + 1, 0, "Start.n_rank"},
    {"start", 0, 1, NUMBER, 2, 0, "Start.place"},
    {"start", 0, 2, PACKED, 1, 0, "Start.place"},
    {"start", 0, 3, PACKED, 1, 0, "Start.peers"},
    {"ready", 0, 1, NUMBER, DR_RANKS_MAX, 0, "Ready.rank"},
    {"fault_note", 0, 1, NUMBER, NEG(-2), 0, "FaultNote.rank"},
    {"fault_note", 0, 1, NUMBER, DR_RANKS_MAX, 0, "FaultNote.rank"},
    {"fault_note", 0, 2, NUMBER, DR_CODE_COUNT, 0, "FaultNote.code"},
    {"fault_note", 0, 3, TEXT, DR_TEXT_MAX + 1, 0, "FaultNote.text"},
    {"beat", 0, 3, NUMBER, DR_RANKS_MAX, 0, "Beat.rank"},
    {"beat", 0, 4, NUMBER, NEG(-2), 0, "Beat.op"},

    {"step_plan", 0, 3, NUMBER, DR_PP_MAX, 0, "StepPlan.cohort"},
    {"step_plan", 0, 4, PART, DR_SEQS_MAX - 1, 0, "StepPlan.open"},
    {"step_plan", 0, 5, PART, 2 * DR_SEQS_MAX, 0, "StepPlan.pages"},
    {"step_plan", 0, 6, PART, DR_SEGMENTS_MAX - 1, 0, "StepPlan.segment"},
    {"step_plan", 0, 7, PACKED, DR_SEQS_MAX - 1, 0, "StepPlan.drop"},
    {"step_plan", 7, 0, NUMBER, DR_SEQS_MAX, 0, "StepPlan.drop"},
    {"step_plan", 4, 1, NUMBER, DR_SEQS_MAX, 0, "Open.slot"},
    {"step_plan", 4, 2, NUMBER, DR_TP_MAX, 0, "Open.cache_group"},
    {"step_plan", 4, 3, NUMBER, DR_PROMPT_IDS_MAX + 1, 0, "Open.n_prompt"},
    {"step_plan", 4, 5, NUMBER, DR_VOCAB_MAX, 0, "Open.bias_id"},
    {"step_plan", 4, 5, PACKED, DR_BIAS_MAX + 1, 0, "Open.bias_id"},
    {"step_plan", 4, 5, PACKED, 1, 0, "Open.bias_value"},
    {"step_plan", 4, 6, FLOATS, 1, 1, "Open.bias_value"},
    {"step_plan", 4, 6, FLOATS, 1, INFINITY, "Open.bias_value"},
    {"step_plan", 4, 7, NUMBER, DR_VOCAB_MAX, 0, "Open.seen_prompt"},
    {"step_plan", 4, 8, PACKED, 1, 0, "Open.seen_output_count"},
    {"step_plan", 4, 9, NUMBER, 0, 0, "Open.seen_output_count"},
    {"step_plan", 5, 1, NUMBER, NEG(-1), 0, "Pages.slot"},
    {"step_plan", 5, 2, NUMBER, DR_POSITIONS_MAX / DR_PAGE_TOKENS, 0, "Pages.first"},
    {"step_plan", 5, 3, NUMBER, 1u << 31, 0, "Pages.page"},
    {"step_plan", 5, 3, PACKED, DR_POSITIONS_MAX / DR_PAGE_TOKENS, 0, "Pages.page"},
    {"step_plan", 6, 1, NUMBER, DR_SEQS_MAX, 0, "Segment.slot"},
    {"step_plan", 6, 2, NUMBER, DR_POSITIONS_MAX, 0, "Segment.first"},
    {"step_plan", 6, 2, NUMBER, DR_POSITIONS_MAX - 1, 0, "Segment.first"}, /* two rows do not fit there */
    {"step_plan", 6, 3, NUMBER, 0, 0, "Segment.n_rows"},
    {"step_plan", 6, 3, NUMBER, DR_STEP_TOKENS_MAX + 1, 0, "Segment.n_rows"},
    {"step_plan", 6, 3, NUMBER, 3, 0, "Segment.id"},
    {"step_plan", 6, 4, NUMBER, 2, 0, "Segment.source"},
    {"step_plan", 6, 4, NUMBER, 1, 0, "Segment.id"}, /* CARRY brings no ids */
    {"step_plan", 6, 5, NUMBER, DR_VOCAB_MAX, 0, "Segment.id"},
    {"step_plan", 6, 6, NUMBER, DR_VOCAB_MAX, 0, "Segment.next_id"},
    {"step_plan", 6, 7, NUMBER, 2, 0, "Segment.role"},
    {"step_plan", 6, 8, NUMBER, 2, 0, "Segment.form"},
    {"step_plan", 6, 9, NUMBER, 4, 0, "Segment.output"},
    {"step_plan", 6, 9, NUMBER, NEG(-1), 0, "Segment.output"},
    {"step_plan", 6, 10, NUMBER, DR_TOP_MAX + 1, 0, "Segment.score_top"},
    {"step_plan", 6, 11, NUMBER, DR_DRAFTS_MAX + 1, 0, "Segment.n_draft"},
    {"step_plan", 6, 12, NUMBER, DR_DRAFTS_MAX + 1, 0, "Segment.n_verify"},
    {"step_plan", 6, 12, NUMBER, 2, 0, "Segment.n_verify"}, /* of two rows at most one is a draft */
    {"step_plan", 4, 10, NUMBER, DR_POSITIONS_MAX + 1, 0, "Open.n_kept"},

    {"step_report", 0, 3, NUMBER, DR_RANKS_MAX, 0, "StepReport.rank"},
    {"step_report", 0, 4, NUMBER, DR_CODE_COUNT, 0, "StepReport.code"},
    {"step_report", 0, 8, PACKED, 1, 0, "StepReport.bytes"},
    {"step_report", 0, 9, TEXT, 256, 0, "StepReport.text"},
    {"step_report", 0, 10, PACKED, 1, 0, "StepReport.part_ns"},
    {"step_report", 10, 0, NUMBER, UINT64_C(1) << DR_PART_BITS, 0, "StepReport.part_ns"},
    {"step_report", 0, 11, PACKED, 1, 0, "StepReport.wait_kind_ns"},
    {"step_report", 11, 0, NUMBER, UINT64_C(1) << DR_PART_BITS, 0, "StepReport.wait_kind_ns"},
    {"step_report", 0, 100, TEXT, DR_REPORT_MAX, 0, "StepReport: found"},
    {"step_result", 0, 3, PART, DR_STEP_TOKENS_MAX - 1, 0, "StepResult.row"},
    {"step_result", 0, 4, PACKED, DR_SEGMENTS_MAX + 1, 0, "StepResult.bad"},
    {"step_result", 4, 0, NUMBER, DR_SEQS_MAX, 0, "StepResult.bad"},
    {"step_result", 3, 1, NUMBER, DR_SEQS_MAX, 0, "ResultRow.slot"},
    {"step_result", 3, 2, NUMBER, DR_POSITIONS_MAX, 0, "ResultRow.position"},
    {"step_result", 3, 3, NUMBER, 2, 0, "ResultRow.fault"},
    {"step_result", 3, 4, NUMBER, DR_VOCAB_MAX, 0, "ResultRow.id"},
    {"step_result", 3, 4, PACKED, 1 + DR_DRAFTS_MAX, 0, "ResultRow.id"},
    {"step_result", 3, 4, PACKED, 1, 0, "ResultRow.logprob"},
    {"step_result", 3, 5, FLOATS, 1, NAN, "ResultRow.logprob"},
    {"step_result", 3, 6, NUMBER, 1, 0, "ResultRow.n_accepted"}, /* one id has no accepted draft */
    {"step_result", 3, 6, NUMBER, DR_DRAFTS_MAX + 1, 0, "ResultRow.n_accepted"},
    {"step_result", 3, 7, NUMBER, DR_VOCAB_MAX, 0, "ResultRow.top_id"},
    {"step_result", 3, 7, PACKED, DR_TOP_MAX + 1, 0, "ResultRow.top_id"}, /* of one id */
    {"step_result", 3, 7, PACKED, (1 + DR_DRAFTS_MAX) * DR_TOP_MAX + 1, 0, "ResultRow.top_id"},
    {"step_result", 3, 7, PACKED, 1, 0, "ResultRow.top_logprob"},
    {"step_result", 3, 9, NUMBER, DR_VOCAB_MAX, 0, "ResultRow.draft"},
    {"step_result", 3, 9, PACKED, DR_DRAFTS_MAX + 1, 0, "ResultRow.draft"},
    {"step_result", 3, 8, FLOATS, 1, -INFINITY, "ResultRow.top_logprob"},

    {"link_hello", 0, 2, TEXT, 31, 0, "LinkHello.token"},
    {"link_hello", 0, 2, TEXT, 33, 0, "LinkHello.token"},
    {"submit", 0, 2, PACKED, DR_PROMPT_IDS_MAX - 4, 0, "Submit.id"},
    {"submit", 2, 0, NUMBER, DR_VOCAB_MAX, 0, "Submit.id"},
    {"submit", 0, 3, NUMBER, 5, 0, "Submit.n_delivered"},
    {"submit", 0, 4, NUMBER, DR_POSITIONS_MAX + 1, 0, "Submit.max_tokens"},
    {"submit", 0, 4, NUMBER, NEG(-1), 0, "Submit.max_tokens"},
    {"submit", 0, 5, NUMBER, 513, 0, "Submit.min_tokens"},
    {"submit", 0, 7, PACKED, DR_STOP_IDS_MAX - 1, 0, "Submit.end_id"},
    {"submit", 7, 0, NUMBER, DR_VOCAB_MAX, 0, "Submit.end_id"},
    {"submit", 8, 1, FLOAT, 0, -0.5, "Sampling.temperature"},
    {"submit", 8, 1, FLOAT, 0, NAN, "Sampling.temperature"},
    {"submit", 8, 1, FLOAT, 0, 100.5, "Sampling.temperature"},
    {"submit", 8, 2, FLOAT, 0, 1.0625, "Sampling.top_p"},
    {"submit", 8, 3, FLOAT, 0, -0.0625, "Sampling.min_p"},
    {"submit", 8, 4, NUMBER, DR_VOCAB_MAX + 1, 0, "Sampling.top_k"},
    {"submit", 8, 5, FLOAT, 0, 0, "Sampling.repetition"},
    {"submit", 8, 5, FLOAT, 0, INFINITY, "Sampling.repetition"},
    {"submit", 8, 6, FLOAT, 0, -101, "Sampling.frequency"},
    {"submit", 8, 7, FLOAT, 0, 101, "Sampling.presence"},
    {"submit", 8, 9, NUMBER, DR_TOP_MAX + 1, 0, "Sampling.n_top"},
    {"submit", 8, 9, NUMBER, NEG(-2), 0, "Sampling.n_top"},
    {"submit", 9, 0, NUMBER, DR_VOCAB_MAX, 0, "Submit.bias_id"},
    {"submit", 0, 9, PACKED, DR_BIAS_MAX - 1, 0, "Submit.bias_id"},
    {"submit", 0, 9, PACKED, 1, 0, "Submit.bias_value"},
    {"submit", 0, 10, FLOATS, 1, NAN, "Submit.bias_value"},
    {"submit", 0, 11, NUMBER, DR_TOP_MAX + 1, 0, "Submit.prompt_top"},
    {"submit", 0, 15, TEXT, DR_SALT_MAX + 1, 0, "Submit.tenant"},
    {"submit", 0, 16, TEXT, DR_SALT_MAX + 1, 0, "Submit.salt"},
    {"refused", 0, 2, NUMBER, 4, 0, "Refused.reason"},
    {"refused", 0, 4, TEXT, DR_TEXT_MAX + 1, 0, "Refused.text"},
    {"tokens", 0, 1, PART, 2 * DR_SEQS_MAX - 1, 0, "Tokens.news"},
    {"tokens", 1, 3, NUMBER, DR_POSITIONS_MAX + 1, 0, "TokenNews.position"},
    {"tokens", 1, 4, NUMBER, DR_VOCAB_MAX, 0, "TokenNews.id"},
    {"tokens", 1, 4, PACKED, DR_STEP_TOKENS_MAX, 0, "TokenNews.id"},
    {"tokens", 1, 5, FLOATS, 1, 0, "TokenNews.logprob"}, /* two ids, one log-probability */
    {"tokens", 1, 5, FLOATS, 2, NAN, "TokenNews.logprob"},
    {"tokens", 1, 6, NUMBER, DR_TOP_MAX + 1, 0, "TokenNews.n_top"},
    {"tokens", 1, 6, NUMBER, 1, 0, "TokenNews.top_id"},
    {"tokens", 1, 7, PACKED, 1, 0, "TokenNews.top_id"},
    {"tokens", 1, 8, FLOATS, 1, 0, "TokenNews.top_logprob"},
    {"done", 0, 2, NUMBER, DR_FINISH_COUNT, 0, "Done.finish"},
    {"done", 0, 4, NUMBER, NEG(-1), 0, "Done.n_prompt"},
    {"done", 0, 5, NUMBER, NEG(-1), 0, "Done.n_cached"},
    {"done", 0, 6, NUMBER, NEG(-1), 0, "Done.n_output"},
    {"done", 7, 0, NUMBER, NEG(-1), 0, "Done.drafted"},
    {"done", 0, 7, PACKED, 1, 0, "Done.drafted"}, /* a ninth place */
    {"done", 0, 8, PACKED, 1, 0, "Done.accepted"},

    {"cluster_ready", 1, 1, NUMBER, DR_TP_MAX + 1, 0, "Layout.tp"},
    {"cluster_ready", 1, 1, NUMBER, 0, 0, "Layout.tp"},
    {"cluster_ready", 1, 1, NUMBER, 6, 0, "Layout.n_rank"},
    {"cluster_ready", 1, 2, NUMBER, DR_PP_MAX + 1, 0, "Layout.pp"},
    {"cluster_ready", 1, 3, NUMBER, 0, 0, "Layout.c"},
    {"cluster_ready", 1, 3, NUMBER, 2, 0, "Layout.c"},
    {"cluster_ready", 1, 3, NUMBER, 1, 0, "Layout.page_tokens"},
    {"cluster_ready", 1, 4, NUMBER, DR_RANKS_MAX + 1, 0, "Layout.n_rank"},
    {"cluster_ready", 1, 5, NUMBER, 2, 0, "Layout.experts"},
    {"cluster_ready", 1, 6, NUMBER, 2, 0, "Layout.exchange"},
    {"cluster_ready", 1, 7, NUMBER, 3, 0, "Layout.cache_type"},
    {"cluster_ready", 1, 16, NUMBER, 2, 0, "Layout.weights"},
    {"cluster_ready", 1, 9, NUMBER, 129, 0, "Layout.page_tokens"},
    {"cluster_ready", 1, 10, NUMBER, 0, 0, "Layout.page_rows"},
    {"cluster_ready", 1, 11, NUMBER, DR_POSITIONS_MAX + 1, 0, "Layout.context"},
    {"cluster_ready", 1, 12, NUMBER, DR_SEQS_MAX + 1, 0, "Layout.seqs_max"},
    {"cluster_ready", 1, 13, NUMBER, DR_STEP_TOKENS_MAX + 1, 0, "Layout.step_tokens"},
    {"cluster_ready", 1, 14, NUMBER, 0, 0, "Layout.n_page"},
    {"cluster_ready", 1, 15, PACKED, 1, 0, "Layout.layer_begin"},
    {"cluster_ready", 1, 15, PACKED, DR_PP_MAX + 1, 0, "Layout.layer_begin"},
    {"cluster_ready", 1, 15, NUMBER, DR_LAYERS_MAX + 1, 0, "Layout.layer_begin"},
    {"cluster_ready", 3, 1, NUMBER, DR_RANKS_MAX, 0, "RankState.rank"},
    {"cluster_ready", 3, 2, NUMBER, NEG(-1), 0, "RankState.pid"},
    {"cluster_ready", 3, 3, TEXT, DR_HOST_MAX + 1, 0, "RankState.host"},
    {"cluster_ready", 3, 9, TEXT, DR_ISA_TEXT + 1, 0, "RankState.isa"},
    {"cluster_ready", 3, 10, TEXT, DR_INPUTS_TEXT + 1, 0, "RankState.inputs"},
    {"cluster_ready", 3, 1, NUMBER, 0, 0, "ClusterReady.rank"}, /* a seventh of six */
    {"cluster_ready", 0, 3, PART, DR_RANKS_MAX, 0, "ClusterReady.rank"},
    {"progress", 0, 1, NUMBER, DR_RANKS_MAX, 0, "Progress.rank"},
    {"step_news", 0, 4, NUMBER, DR_STEP_TOKENS_MAX + 1, 0, "StepNews.prompt_rows"},
    {"step_news", 0, 5, NUMBER, NEG(-1), 0, "StepNews.generated_rows"},
    {"step_news", 0, 6, NUMBER, DR_SEQS_MAX + 1, 0, "StepNews.n_decode"},
    {"step_news", 0, 7, NUMBER, NEG(-1), 0, "StepNews.n_drawn"},
    {"stats", 0, 7, NUMBER, NEG(-1), 0, "Stats.running"},
    {"stats", 0, 8, NUMBER, NEG(-1), 0, "Stats.waiting"},
    {"stats", 0, 9, NUMBER, NEG(-1), 0, "Stats.pages_used"},
    {"stats", 0, 16, NUMBER, NEG(-1), 0, "Stats.pages_idle"},
    {"stats", 0, 10, NUMBER, NEG(-1), 0, "Stats.pages_total"},
    {"stats", 0, 11, NUMBER, NEG(-1), 0, "Stats.waiting_tokens"},
    {"stats", 0, 15, PACKED, 1, 0, "Stats.bytes"},
};

static struct dr_arena arena;
static uint8_t golden[SAMPLE_FRAME_MAX];
static uint64_t plain[SAMPLE_STRUCT_MAX / 8];

static int set_up(void) {
    return dr_arena_init(&arena, 64 << 20).code != DR_OK;
}

static int tear_down(void) {
    dr_arena_fini(&arena);
    return 0;
}

/* A good element of a repeated message, or what leaves a good embedded one as it is. */
static void element(struct writer *w, const char *message, uint32_t tag) {
    static const uint8_t sampling[] = {
        0x0d, 0, 0, 0, 0, 0x15, 0, 0, 0x80, 0x3f, 0x1d, 0, 0, 0, 0, 0x20, 0, 0x2d, 0, 0,    0x80, 0x3f,
        0x35, 0, 0, 0, 0, 0x3d, 0, 0, 0,    0,    0x41, 0, 0, 0, 0, 0,    0, 0,    0, 0x48, 0};
    bool plan = strcmp(message, "step_plan") == 0, result = strcmp(message, "step_result") == 0;
    if (plan && tag == 4) { /* Open */
        for (uint32_t t = 1; t <= 3; t++) writer_number(w, t, 0);
        writer_bytes(w, 4, sampling, sizeof sampling);
        writer_number(w, 10, 0);
    } else if (plan && tag == 5) { /* Pages */
        writer_number(w, 1, 0);
        writer_number(w, 2, 1);
    } else if (plan) { /* Segment of two rows */
        static const uint8_t ids[] = {5, 6};
        for (uint32_t t = 1; t <= 2; t++) writer_number(w, t, 0);
        writer_number(w, 3, 2);
        writer_number(w, 4, 0);
        writer_bytes(w, 5, ids, sizeof ids);
        for (uint32_t t = 7; t <= 12; t++) writer_number(w, t, 0);
    } else if (result) { /* ResultRow of one id */
        for (uint32_t t = 1; t <= 3; t++) writer_number(w, t, 0);
        writer_number(w, 4, 7);
        writer_repeat_float(w, 5, -1, 1);
        writer_number(w, 6, 0);
    } else if (strcmp(message, "tokens") == 0) { /* TokenNews of two ids and no log-probabilities */
        writer_fixed64(w, 1, 1);
        for (uint32_t t = 2; t <= 3; t++) writer_number(w, t, 0);
        writer_repeat(w, 4, 9, 2);
        writer_number(w, 6, 0);
    } else if (strcmp(message, "cluster_ready") == 0 && tag == 3) { /* RankState */
        for (uint32_t t = 1; t <= 2; t++) writer_number(w, t, 0);
        writer_fill(w, 3, 'h', 1);
        for (uint32_t t = 4; t <= 8; t++) writer_number(w, t, 0);
        for (uint32_t t = 9; t <= 10; t++) writer_fill(w, t, 'x', 1);
    } /* Layout, Sampling: embedded once, so that a second one is merged into the first */
}

static void field(struct writer *w, const struct row *r) {
    switch (r->how) {
    case NUMBER:
        writer_number(w, r->tag, r->value);
        break;
    case FLOAT:
        writer_float(w, r->tag, (float)r->real);
        break;
    case PACKED:
        writer_repeat(w, r->tag, 1, r->value);
        break;
    case FLOATS:
        writer_repeat_float(w, r->tag, (float)r->real, r->value);
        break;
    case TEXT:
        writer_fill(w, r->tag, 'x', r->value);
        break;
    case PART:
        for (uint64_t i = 0; i < r->value; i++) {
            struct writer one;
            writer_begin(&one, NULL, 0);
            element(&one, r->message, r->tag);
            writer_bytes(w, r->tag, one.at, one.n);
            writer_end(&one);
        }
    }
}

/* The golden body with the row's field; tag 0 inside a list of numbers is one more number. */
static void body(struct writer *w, const struct row *r) {
    char name[64];
    snprintf(name, sizeof name, "%s-full", r->message);
    size_t n = sample_golden(name, golden, sizeof golden);
    writer_begin(w, golden + DR_FRAME_HEADER, n - DR_FRAME_HEADER);
    if (r->in == 0) {
        field(w, r);
    } else if (r->tag == 0) {
        writer_repeat(w, r->in, r->value, 1);
    } else {
        struct writer one;
        writer_begin(&one, NULL, 0);
        element(&one, r->message, r->in);
        field(&one, r);
        writer_bytes(w, r->in, one.at, one.n);
        writer_end(&one);
    }
}

static void exceeded(void) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct writer w;
        body(&w, r);
        dr_status st = sample_decode(sample_find(r->message), w.at, w.n, &arena, plain);
        bool named = st.code == DR_EPROTO && strncmp(dr_error_text(), r->says, strlen(r->says)) == 0;
        CU_ASSERT(named);
        if (!named)
            printf("row %zu, %s: %s: %s\n", i, r->says, dr_code_name(st.code),
                   st.code ? dr_error_text() : "accepted");
        writer_end(&w);
    }
}

/* The same elements without the bad field are accepted, so what `exceeded` sees is the bad field. */
static void elements_good(void) {
    static const struct {
        const char *message;
        uint32_t tag;
    } all[] = {{"step_plan", 4}, {"step_plan", 5}, {"step_plan", 6},    {"step_result", 3},
               {"tokens", 1},    {"submit", 8},    {"cluster_ready", 1}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct row r = {.message = all[i].message, .tag = all[i].tag, .how = PART, .value = 1};
        struct writer w;
        body(&w, &r);
        dr_status st = sample_decode(sample_find(r.message), w.at, w.n, &arena, plain);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        if (st.code != DR_OK) printf("%s.%u: %s\n", r.message, r.tag, dr_error_text());
        writer_end(&w);
    }
}

/* Bytes of the field at `at`, header included. */
static size_t field_bytes(const uint8_t *at, uint32_t *tag) {
    size_t n = 0;
    uint64_t key = 0, len = 0;
    for (int shift = 0;; shift += 7) {
        key |= (uint64_t)(at[n] & 127) << shift;
        if (at[n++] < 128) break;
    }
    *tag = (uint32_t)(key >> 3);
    if ((key & 7) == 1) return n + 8;
    if ((key & 7) == 5) return n + 4;
    for (int shift = 0;; shift += 7) {
        len |= (uint64_t)(at[n] & 127) << shift;
        if (at[n++] < 128) break;
    }
    return (key & 7) == 2 ? n + len : n;
}

static bool may_miss(const struct sample *s, uint32_t tag) { /* lists whose length no other field states */
    if (s->type == DR_MSG_STEP_PLAN) return tag >= 4 && tag <= 7;
    if (s->type == DR_MSG_STEP_RESULT) return tag == 3 || tag == 4;
    if (s->type == DR_MSG_SUBMIT) return tag == 7;
    return s->type == DR_MSG_TOKENS;
}

static void missing(void) {
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        if (s->type == DR_MSG_LOGITS) continue;
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden) - DR_FRAME_HEADER, len = 0;
        const uint8_t *at = golden + DR_FRAME_HEADER;
        for (size_t pos = 0; pos < n; pos += len) {
            uint32_t tag = 0;
            len = field_bytes(at + pos, &tag);
            uint8_t *without = malloc(n);
            memcpy(without, at, pos);
            memcpy(without + pos, at + pos + len, n - pos - len);
            dr_status st = sample_decode(s, without, n - len, &arena, plain);
            CU_ASSERT_EQUAL(st.code, may_miss(s, tag) ? DR_OK : DR_EPROTO);
            if ((st.code == DR_OK) != may_miss(s, tag))
                printf("%s without field %u: %s\n", s->name, tag, dr_code_name(st.code));
            free(without);
        }
    }
}

static void wrong_type(void) { /* a number where a list, text or part belongs, and the other way round */
    for (int32_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        char name[64];
        if (s->type == DR_MSG_LOGITS) continue;
        snprintf(name, sizeof name, "%s-full", s->name);
        size_t n = sample_golden(name, golden, sizeof golden) - DR_FRAME_HEADER;
        struct writer w;
        writer_begin(&w, golden + DR_FRAME_HEADER, n);
        writer_float(&w, 1, 1); /* no message has a float as its first field */
        CU_ASSERT_EQUAL(sample_decode(s, w.at, w.n, &arena, plain).code, DR_EPROTO);
        writer_end(&w);
    }
}

static void rows_sum(void) { /* each segment is legal, all together are one row too many */
    struct writer w, one;
    size_t n = sample_golden("step_plan-least", golden, sizeof golden) - DR_FRAME_HEADER;
    writer_begin(&w, golden + DR_FRAME_HEADER, n);
    writer_begin(&one, NULL, 0);
    for (uint32_t t = 1; t <= 2; t++) writer_number(&one, t, 0);
    writer_number(&one, 3, DR_STEP_TOKENS_MAX / 2);
    writer_number(&one, 4, 1);
    for (uint32_t t = 7; t <= 12; t++) writer_number(&one, t, 0);
    writer_bytes(&w, 6, one.at, one.n);
    writer_bytes(&w, 6, one.at, one.n);
    CU_ASSERT_EQUAL(sample_decode(sample_find("step_plan"), w.at, w.n, &arena, plain).code, DR_OK);
    writer_number(&one, 3, 1);
    writer_bytes(&w, 6, one.at, one.n);
    CU_ASSERT_EQUAL(sample_decode(sample_find("step_plan"), w.at, w.n, &arena, plain).code, DR_EPROTO);
    CU_ASSERT(strstr(dr_error_text(), "rows in all") != NULL);
    writer_end(&one);
    writer_end(&w);
}

static void logits(void) {
    const struct sample *s = sample_find("logits");
    static const struct {
        size_t at;
        uint32_t value;
        const char *says;
    } bad[] = {
        {24, DR_SEQS_MAX, "Logits.slot"},
        {24, UINT32_MAX, "Logits.slot"},
        {28, DR_POSITIONS_MAX, "Logits.position"},
        {32, DR_VOCAB_MAX - 2, "Logits.first"},
        {32, UINT32_MAX, "Logits.first"},
        {36, 0, "Logits.n"},
        {36, UINT32_MAX, "Logits.n"},
        {36, 4, "Logits.first"},
        {36, DR_MPI_FRAME_MAX / 4, "Logits.n"},
        {36, 2, "Logits: found"},
    };
    size_t n = sample_golden("logits-full", golden, sizeof golden) - DR_FRAME_HEADER;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t copy[64];
        memcpy(copy, golden + DR_FRAME_HEADER, n);
        for (int b = 0; b < 4; b++) copy[bad[i].at + (size_t)b] = (uint8_t)(bad[i].value >> (8 * b));
        CU_ASSERT_EQUAL(sample_decode(s, copy, n, &arena, plain).code, DR_EPROTO);
        bool named = strncmp(dr_error_text(), bad[i].says, strlen(bad[i].says)) == 0;
        CU_ASSERT(named);
        if (!named) printf("%s: %s\n", bad[i].says, dr_error_text());
    }
    CU_ASSERT_EQUAL(sample_decode(s, golden + DR_FRAME_HEADER, n - 4, &arena, plain).code, DR_EPROTO);
    CU_ASSERT_EQUAL(sample_decode(s, golden + DR_FRAME_HEADER, 39, &arena, plain).code, DR_EPROTO);
}

/* The encoder refuses what the receiver would. */
static void sender(void) {
    uint8_t *out = malloc(SAMPLE_FRAME_MAX);
    size_t bytes = 77;
    struct dr_segment segment = {.n_rows = 1, .source = DR_SOURCE_CARRY};
    struct dr_step_plan plan = {.n_segment = 1, .segment = &segment};
    CU_ASSERT_EQUAL(dr_encode_step_plan(&plan, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_OK);
    bytes = 77;
    segment.n_rows = 0;
    CU_ASSERT_EQUAL(dr_encode_step_plan(&plan, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    segment.n_rows = INT32_MIN;
    CU_ASSERT_EQUAL(dr_encode_step_plan(&plan, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    struct dr_result_row row = {.n_ids = 1, .logprob = {NAN}};
    struct dr_step_result result = {.n_row = 1, .row = &row};
    CU_ASSERT_EQUAL(dr_encode_step_result(&result, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    row = (struct dr_result_row){.n_ids = 10};
    CU_ASSERT_EQUAL(dr_encode_step_result(&result, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    row = (struct dr_result_row){.n_top = DR_TOP_MAX + 1};
    CU_ASSERT_EQUAL(dr_encode_step_result(&result, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    struct dr_submit submit = {.n_ids = 0, .sampling = {.repetition = 1}};
    CU_ASSERT_EQUAL(dr_encode_submit(&submit, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    submit = (struct dr_submit){.n_ids = 1, .ids = &(uint32_t){5}}; /* repetition 0 is not "off" */
    CU_ASSERT_EQUAL(dr_encode_submit(&submit, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    struct dr_cluster_ready ready = {.layout = {.pp = DR_PP_MAX + 1}};
    CU_ASSERT_EQUAL(dr_encode_cluster_ready(&ready, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code,
                    DR_EPROTO);
    struct dr_token_news news = {.n = DR_STEP_TOKENS_MAX + 1};
    struct dr_tokens tokens = {.n = 1, .news = &news};
    CU_ASSERT_EQUAL(dr_encode_tokens(&tokens, 1, &arena, out, SAMPLE_FRAME_MAX, &bytes).code, DR_EPROTO);
    CU_ASSERT_EQUAL(bytes, 77);
    free(out);
}

static CU_TestInfo cases[] = {
    {"one more than each limit is refused by message and field", exceeded},
    {"the elements that these tests add are good ones", elements_good},
    {"a message without one of its fields is refused", missing},
    {"a field of another wire type is refused", wrong_type},
    {"the rows of all segments together have a limit", rows_sum},
    {"logits state their own size truly", logits},
    {"the encoder refuses what the receiver would refuse", sender},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_limits = {
    .pName = "proto/limits", .pInitFunc = set_up, .pCleanupFunc = tear_down, .pTests = cases};
