/* codec_result.c - the messages of one step from the worker: StepReport, StepResult, Beat.
 * In:   structs or bodies.      Out: frames or checked structs.
 * Owns: nothing.
 * Why:  see codec.h. */
#include <assert.h>
#include <string.h>

#include "proto/codec_wire.h"
#include "v1/step.pb-c.h"

static_assert((int)DR_FAULT_NUMERIC == (int)DR__V1__FAULT__FAULT_NUMERIC, "fault");

static const struct dr_wire_rule report_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_ANY,
    [3] = DR_RULE_RANK,
    [4] = {.most = DR_CODE_COUNT - 1},
    [5] = DR_RULE_ANY,
    [6] = DR_RULE_ANY,
    [7] = DR_RULE_ANY,
    [8] = {.count = DR_BYTES_KIND_COUNT},
    [9] = {.most = sizeof((struct dr_step_report *)0)->text - 1},
    [10] = {.most = (INT64_C(1) << DR_PART_BITS) - 1, .count = DR_PART_COUNT},
    [11] = {.most = (INT64_C(1) << DR_PART_BITS) - 1, .count = DR_BYTES_KIND_COUNT},
    [12] = DR_RULE_ANY,
};
static const struct dr_wire_rules report_rules = DR_WIRE_RULES(report_at);

/* Tag and longest varint of each: epoch 9, step 11, rank 3, code 3, three times 33, bytes 2 + 10 each, text 3
 * + 255, parts and waits 2 + 7 each (7 bits a byte), peak 11. */
static_assert(DR_PART_BITS <= 7 * 7, "seven bytes a part");
static_assert(9 + 11 + 3 + 3 + 33 + 2 + 10 * DR_BYTES_KIND_COUNT + 3 + 255 + 2 + 7 * DR_PART_COUNT + 2 +
                      7 * DR_BYTES_KIND_COUNT + 11 <=
                  DR_REPORT_MAX,
              "a report is small");

dr_status dr_encode_step_report(const struct dr_step_report *in, uint64_t epoch, struct dr_arena *scratch,
                                uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__StepReport m = DR__V1__STEP_REPORT__INIT;
    dr_wire_present(&m.base);
    m.epoch = in->epoch;
    m.step = in->step;
    m.rank = in->rank;
    m.code = in->code;
    m.begin_ns = in->begin_ns;
    m.end_ns = in->end_ns;
    m.wait_ns = in->wait_ns;
    m.n_bytes = DR_BYTES_KIND_COUNT;
    m.bytes = (uint64_t *)in->bytes;
    m.text = (char *)in->text;
    m.n_part_ns = DR_PART_COUNT;
    m.part_ns = (uint64_t *)in->part_ns;
    m.n_wait_kind_ns = DR_BYTES_KIND_COUNT;
    m.wait_kind_ns = (uint64_t *)in->wait_kind_ns;
    m.peak_bytes = in->peak_bytes;
    return dr_wire_pack(DR_MSG_STEP_REPORT, epoch, &m.base, &report_rules, out, room, bytes);
}

dr_status dr_decode_step_report(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                                struct dr_step_report *out) {
    ProtobufCMessage *base = NULL;
    if (bytes > DR_REPORT_MAX)
        return dr_fail(DR_EPROTO, "StepReport: found %zu bytes, allowed 0..%d", bytes, DR_REPORT_MAX);
    DR_TRY(dr_wire_unpack(&dr__v1__step_report__descriptor, &report_rules, body, bytes, arena, &base));
    const Dr__V1__StepReport *m = (const Dr__V1__StepReport *)base;
    DR_TRY(dr_wire_same("StepReport", "bytes", m->n_bytes, DR_BYTES_KIND_COUNT));
    DR_TRY(dr_wire_same("StepReport", "part_ns", m->n_part_ns, DR_PART_COUNT));
    DR_TRY(dr_wire_same("StepReport", "wait_kind_ns", m->n_wait_kind_ns, DR_BYTES_KIND_COUNT));
    *out = (struct dr_step_report){
        .epoch = m->epoch,
        .step = m->step,
        .rank = m->rank,
        .code = m->code,
        .begin_ns = m->begin_ns,
        .end_ns = m->end_ns,
        .wait_ns = m->wait_ns,
        .peak_bytes = m->peak_bytes,
    };
    memcpy(out->bytes, m->bytes, sizeof out->bytes);
    memcpy(out->part_ns, m->part_ns, sizeof out->part_ns);
    memcpy(out->wait_kind_ns, m->wait_kind_ns, sizeof out->wait_kind_ns);
    dr_wire_text(out->text, sizeof out->text, m->text);
    return dr_ok();
}

static const struct dr_wire_rule row_at[] = {
    [1] = DR_RULE_SLOT,
    [2] = {.most = DR_POSITIONS_MAX - 1},
    [3] = {.most = DR_FAULT_NUMERIC},
    [4] = {.most = DR_VOCAB_MAX - 1, .count = 1 + DR_DRAFTS_MAX},
    [5] = {.count = 1 + DR_DRAFTS_MAX},
    [6] = {.most = DR_DRAFTS_MAX},
    [7] = {.most = DR_VOCAB_MAX - 1, .count = (1 + DR_DRAFTS_MAX) * DR_TOP_MAX},
    [8] = {.count = (1 + DR_DRAFTS_MAX) * DR_TOP_MAX},
    [9] = {.most = DR_VOCAB_MAX - 1, .count = DR_DRAFTS_MAX},
};
static const struct dr_wire_rules row_rules = DR_WIRE_RULES(row_at);

static const struct dr_wire_rule result_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_ANY,
    [3] = {.count = DR_STEP_TOKENS_MAX, .sub = &row_rules},
    [4] = {.most = DR_SEQS_MAX - 1, .count = DR_SEGMENTS_MAX},
};
static const struct dr_wire_rules result_rules = DR_WIRE_RULES(result_at);

static dr_status row_put(const struct dr_result_row *in, struct dr_arena *scratch, Dr__V1__ResultRow *m) {
    if (in->n_top < 0 || in->n_top > DR_TOP_MAX)
        return dr_fail(DR_EPROTO, "ResultRow.top_id: found %d elements, allowed 0..%d", in->n_top,
                       DR_TOP_MAX);
    dr__v1__result_row__init(m);
    dr_wire_present(&m->base);
    m->slot = in->slot;
    m->position = in->position;
    m->fault = (Dr__V1__Fault)in->fault;
    m->n_id = m->n_logprob = (size_t)in->n_ids;
    m->id = (uint32_t *)in->ids;
    m->logprob = (float *)in->logprob;
    m->n_accepted = in->n_accepted;
    m->n_draft = (size_t)in->n_draft;
    m->draft = (uint32_t *)in->draft;
    m->n_top_id = m->n_top_logprob = (size_t)in->n_ids * (size_t)in->n_top;
    return dr_wire_top_put(in->top, m->n_top_id, scratch, &m->top_id, &m->top_logprob);
}

static dr_status result_pack(const struct dr_step_result *in, uint64_t epoch, struct dr_arena *scratch,
                             uint8_t *out, size_t room, size_t *bytes) {
    void *list = NULL, *rows = NULL;
    Dr__V1__StepResult m = DR__V1__STEP_RESULT__INIT;
    dr_wire_present(&m.base);
    m.epoch = in->epoch;
    m.step = in->step;
    m.n_row = (size_t)in->n_row;
    m.n_bad = (size_t)in->n_bad;
    m.bad = (int32_t *)in->bad;
    DR_TRY(dr_wire_take(scratch, m.n_row, sizeof(void *), DR_EFULL, "StepResult.row", &list));
    DR_TRY(dr_wire_take(scratch, m.n_row, sizeof(Dr__V1__ResultRow), DR_EFULL, "StepResult.row", &rows));
    m.row = list;
    for (size_t i = 0; i < m.n_row; i++) {
        m.row[i] = (Dr__V1__ResultRow *)rows + i;
        DR_TRY(row_put(&in->row[i], scratch, m.row[i]));
    }
    return dr_wire_pack(DR_MSG_STEP_RESULT, epoch, &m.base, &result_rules, out, room, bytes);
}

dr_status dr_encode_step_result(const struct dr_step_result *in, uint64_t epoch, struct dr_arena *scratch,
                                uint8_t *out, size_t room, size_t *bytes) {
    size_t mark = dr_arena_mark(scratch);
    dr_status st = result_pack(in, epoch, scratch, out, room, bytes);
    dr_arena_rewind(scratch, mark);
    return st;
}

static dr_status row_get(const Dr__V1__ResultRow *m, struct dr_arena *arena, struct dr_result_row *out) {
    DR_TRY(dr_wire_same("ResultRow", "logprob", m->n_logprob, m->n_id));
    const size_t behind =
        m->fault == DR__V1__FAULT__FAULT_NONE; /* what is drawn behind the accepted drafts */
    if (m->n_accepted > 0 && (size_t)m->n_accepted + behind > m->n_id)
        return dr_fail(DR_EPROTO, "ResultRow.n_accepted: found %d, allowed less than the %zu ids",
                       m->n_accepted, m->n_id);
    const size_t n_top = m->n_id > 0 ? m->n_top_id / m->n_id : 0;
    if (n_top > DR_TOP_MAX || n_top * m->n_id != m->n_top_id)
        return dr_fail(DR_EPROTO,
                       "ResultRow.top_id: found %zu for %zu ids, allowed equally many for each, up to %d",
                       m->n_top_id, m->n_id, DR_TOP_MAX);
    *out = (struct dr_result_row){
        .slot = m->slot,
        .position = m->position,
        .fault = (enum dr_fault)m->fault,
        .n_ids = (int32_t)m->n_id,
        .n_accepted = m->n_accepted,
        .n_top = (int32_t)n_top,
        .n_draft = (int32_t)m->n_draft,
    };
    if (m->n_draft > 0) memcpy(out->draft, m->draft, m->n_draft * sizeof out->draft[0]);
    if (m->n_id > 0) {
        memcpy(out->ids, m->id, m->n_id * sizeof out->ids[0]);
        memcpy(out->logprob, m->logprob, m->n_id * sizeof out->logprob[0]);
    }
    return dr_wire_top_get("ResultRow", m->top_id, m->n_top_id, m->top_logprob, m->n_top_logprob, arena,
                           &out->top);
}

dr_status dr_decode_step_result(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                                struct dr_step_result *out) {
    ProtobufCMessage *base = NULL;
    void *rows = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__step_result__descriptor, &result_rules, body, bytes, arena, &base));
    const Dr__V1__StepResult *m = (const Dr__V1__StepResult *)base;
    DR_TRY(dr_wire_take(arena, m->n_row, sizeof(struct dr_result_row), DR_EPROTO, "StepResult.row", &rows));
    for (size_t i = 0; i < m->n_row; i++) DR_TRY(row_get(m->row[i], arena, (struct dr_result_row *)rows + i));
    *out = (struct dr_step_result){
        .epoch = m->epoch,
        .step = m->step,
        .n_row = (int32_t)m->n_row,
        .row = rows,
        .n_bad = (int32_t)m->n_bad,
        .bad = m->bad,
    };
    return dr_ok();
}

static const struct dr_wire_rule beat_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_ANY,
    [3] = DR_RULE_RANK,
    [4] = {.least = -1, .most = INT32_MAX},
};
static const struct dr_wire_rules beat_rules = DR_WIRE_RULES(beat_at);

dr_status dr_encode_beat(const struct dr_beat *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                         size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Beat m = DR__V1__BEAT__INIT;
    dr_wire_present(&m.base);
    m.epoch = in->epoch;
    m.step = in->step;
    m.rank = in->rank;
    m.op = in->op;
    return dr_wire_pack(DR_MSG_BEAT, epoch, &m.base, &beat_rules, out, room, bytes);
}

dr_status dr_decode_beat(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_beat *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__beat__descriptor, &beat_rules, body, bytes, arena, &base));
    const Dr__V1__Beat *m = (const Dr__V1__Beat *)base;
    *out = (struct dr_beat){.epoch = m->epoch, .step = m->step, .rank = m->rank, .op = m->op};
    return dr_ok();
}
