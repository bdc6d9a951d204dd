/* codec_step.c - the messages of one step to the worker: StepPlan and its parts.
 * In:   structs or bodies.      Out: frames or checked structs.
 * Owns: nothing; decoded arrays of numbers are those that protobuf unpacked, in the caller's arena.
 * Why:  see codec.h. What needs the layout or the slots' state (is the slot open, is the page one of ours) is
 * the worker's to check. */
#include <assert.h>

#include "proto/codec_wire.h"
#include "v1/common.pb-c.h"
#include "v1/step.pb-c.h"

/* message.h and step.proto number alike, so a cast is a translation */
static_assert((int)DR_SOURCE_CARRY == (int)DR__V1__SOURCE__SOURCE_CARRY, "source");
static_assert((int)DR_TOKENS_GENERATED == (int)DR__V1__TOKENS_ROLE__TOKENS_GENERATED, "role");
static_assert((int)DR_FORM_ABSORBED == (int)DR__V1__FORM__FORM_ABSORBED, "form");
static_assert((int)DR_OUTPUT_SAMPLE == (int)DR__V1__OUTPUT__OUTPUT_SAMPLE, "output");
static_assert((int)DR_OUTPUT_SCORE == (int)DR__V1__OUTPUT__OUTPUT_SCORE, "output");
static_assert((int)DR_OUTPUT_LOGITS == (int)DR__V1__OUTPUT__OUTPUT_LOGITS, "output");

enum {
    PAGES_OF_SLOT_MAX = DR_POSITIONS_MAX / DR_PAGE_TOKENS, /* entries of one page table */
    PAGES_LISTS_MAX = 2 * DR_SEQS_MAX,
};

static const struct dr_wire_rule open_at[] = {
    [1] = DR_RULE_SLOT,
    [2] = {.most = DR_TP_MAX - 1},
    [3] = {.most = DR_PROMPT_IDS_MAX},
    [4] = {.sub = &dr_wire_sampling_rules},
    [5] = {.most = DR_VOCAB_MAX - 1, .count = DR_BIAS_MAX},
    [6] = {.count = DR_BIAS_MAX},
    [7] = {.most = DR_VOCAB_MAX - 1, .count = DR_VOCAB_MAX},
    [8] = {.most = DR_VOCAB_MAX - 1, .count = DR_VOCAB_MAX},
    [9] = {.least = 1, .most = DR_POSITIONS_MAX, .count = DR_VOCAB_MAX},
    [10] = {.most = DR_POSITIONS_MAX},
};
static const struct dr_wire_rules open_rules = DR_WIRE_RULES(open_at);

static const struct dr_wire_rule pages_at[] = {
    [1] = DR_RULE_SLOT,
    [2] = {.most = PAGES_OF_SLOT_MAX - 1},
    [3] = {.most = INT32_MAX, .count = PAGES_OF_SLOT_MAX},
};
static const struct dr_wire_rules pages_rules = DR_WIRE_RULES(pages_at);

static const struct dr_wire_rule segment_at[] = {
    [1] = DR_RULE_SLOT,
    [2] = {.most = DR_POSITIONS_MAX - 1},
    [3] = {.least = 1, .most = DR_STEP_TOKENS_MAX},
    [4] = {.most = DR_SOURCE_CARRY},
    [5] = {.most = DR_VOCAB_MAX - 1, .count = DR_STEP_TOKENS_MAX},
    [6] = {.most = DR_VOCAB_MAX - 1, .may_miss = true},
    [7] = {.most = DR_TOKENS_GENERATED},
    [8] = {.most = DR_FORM_ABSORBED},
    [9] = {.most = DR_OUTPUT_LOGITS},
    [10] = {.most = DR_TOP_MAX},
    [11] = {.most = DR_DRAFTS_MAX},
    [12] = {.most = DR_DRAFTS_MAX},
};
static const struct dr_wire_rules segment_rules = DR_WIRE_RULES(segment_at);

static const struct dr_wire_rule plan_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_ANY,
    [3] = {.most = DR_PP_MAX - 1},
    [4] = {.count = DR_SEQS_MAX, .sub = &open_rules},
    [5] = {.count = PAGES_LISTS_MAX, .sub = &pages_rules},
    [6] = {.count = DR_SEGMENTS_MAX, .sub = &segment_rules},
    [7] = {.most = DR_SEQS_MAX - 1, .count = DR_SEQS_MAX},
    [8] = DR_RULE_ANY,
};
static const struct dr_wire_rules plan_rules = DR_WIRE_RULES(plan_at);

/* ---- to the wire ---- */

static dr_status open_put(const struct dr_open *in, struct dr_arena *scratch, Dr__V1__Open *m) {
    void *sampling = NULL, *id = NULL, *count = NULL;
    DR_TRY(dr_wire_take(scratch, 1, sizeof(Dr__V1__Sampling), DR_EFULL, "Open.sampling", &sampling));
    DR_TRY(dr_wire_take(scratch, (size_t)in->n_seen_output, sizeof(uint32_t), DR_EFULL, "Open.seen_output_id",
                        &id));
    DR_TRY(dr_wire_take(scratch, (size_t)in->n_seen_output, sizeof(uint32_t), DR_EFULL,
                        "Open.seen_output_count", &count));
    dr__v1__open__init(m);
    dr_wire_present(&m->base);
    m->slot = in->slot;
    m->cache_group = in->cache_group;
    m->n_prompt = in->n_prompt;
    m->n_kept = in->n_kept;
    m->sampling = sampling;
    DR_TRY(dr_wire_sampling_put(&in->sampling, m->sampling));
    m->n_bias_id = m->n_bias_value = (size_t)in->n_bias;
    DR_TRY(dr_wire_bias_put(in->bias, in->n_bias, scratch, &m->bias_id, &m->bias_value));
    m->n_seen_prompt = (size_t)in->n_seen_prompt;
    m->seen_prompt = (uint32_t *)in->seen_prompt;
    m->n_seen_output_id = m->n_seen_output_count = (size_t)in->n_seen_output;
    m->seen_output_id = id;
    m->seen_output_count = count;
    for (int32_t i = 0; i < in->n_seen_output; i++) {
        m->seen_output_id[i] = in->seen_output[i].id;
        m->seen_output_count[i] = in->seen_output[i].count;
    }
    return dr_ok();
}

static void pages_put(const struct dr_pages *in, Dr__V1__Pages *m) {
    dr__v1__pages__init(m);
    dr_wire_present(&m->base);
    m->slot = in->slot;
    m->first = in->first;
    m->n_page = (size_t)in->n;
    m->page = (uint32_t *)in->page;
}

static void segment_put(const struct dr_segment *in, Dr__V1__Segment *m) {
    dr__v1__segment__init(m);
    dr_wire_present(&m->base);
    m->slot = in->slot;
    m->first = in->first;
    m->n_rows = in->n_rows;
    m->source = (Dr__V1__Source)in->source;
    if (in->source == DR_SOURCE_IDS && in->n_rows > 0) {
        m->n_id = (size_t)in->n_rows;
        m->id = (uint32_t *)in->ids;
    }
    m->has_next_id = in->has_next;
    m->next_id = in->next_id;
    m->role = (Dr__V1__TokensRole)in->role;
    m->form = (Dr__V1__Form)in->form;
    m->output = (Dr__V1__Output)in->output;
    m->score_top = in->score_top;
    m->n_draft = in->n_draft;
    m->n_verify = in->n_verify;
}

static dr_status plan_arrays(const struct dr_step_plan *in, struct dr_arena *scratch, Dr__V1__StepPlan *m) {
    void *list = NULL, *body = NULL;
    size_t n = (size_t)in->n_open;
    DR_TRY(dr_wire_take(scratch, n, sizeof(void *), DR_EFULL, "StepPlan.open", &list));
    DR_TRY(dr_wire_take(scratch, n, sizeof(Dr__V1__Open), DR_EFULL, "StepPlan.open", &body));
    m->n_open = n;
    m->open = list;
    for (size_t i = 0; i < n; i++) {
        m->open[i] = (Dr__V1__Open *)body + i;
        DR_TRY(open_put(&in->open[i], scratch, m->open[i]));
    }
    n = (size_t)in->n_pages;
    DR_TRY(dr_wire_take(scratch, n, sizeof(void *), DR_EFULL, "StepPlan.pages", &list));
    DR_TRY(dr_wire_take(scratch, n, sizeof(Dr__V1__Pages), DR_EFULL, "StepPlan.pages", &body));
    m->n_pages = n;
    m->pages = list;
    for (size_t i = 0; i < n; i++) pages_put(&in->pages[i], m->pages[i] = (Dr__V1__Pages *)body + i);
    n = (size_t)in->n_segment;
    DR_TRY(dr_wire_take(scratch, n, sizeof(void *), DR_EFULL, "StepPlan.segment", &list));
    DR_TRY(dr_wire_take(scratch, n, sizeof(Dr__V1__Segment), DR_EFULL, "StepPlan.segment", &body));
    m->n_segment = n;
    m->segment = list;
    for (size_t i = 0; i < n; i++) segment_put(&in->segment[i], m->segment[i] = (Dr__V1__Segment *)body + i);
    return dr_ok();
}

/* What the walk over single fields cannot see. */
static dr_status plan_sums(const Dr__V1__StepPlan *m) {
    int64_t rows = 0;
    for (size_t i = 0; i < m->n_segment; i++) {
        const Dr__V1__Segment *s = m->segment[i];
        size_t ids = s->source == DR__V1__SOURCE__SOURCE_IDS ? (size_t)s->n_rows : 0;
        DR_TRY(dr_wire_same("Segment", "id", s->n_id, ids));
        rows += s->n_rows;
        if (s->n_verify >= s->n_rows)
            return dr_fail(DR_EPROTO, "Segment.n_verify: found %d with %d rows, allowed 0..%d", s->n_verify,
                           s->n_rows, s->n_rows - 1);
        if (s->first > DR_POSITIONS_MAX - s->n_rows)
            return dr_fail(DR_EPROTO, "Segment.first: found %d with %d rows, allowed 0..%d", s->first,
                           s->n_rows, DR_POSITIONS_MAX - s->n_rows);
    }
    if (rows > DR_STEP_TOKENS_MAX)
        return dr_fail(DR_EPROTO, "StepPlan.segment: found %lld rows in all, allowed 0..%d", (long long)rows,
                       DR_STEP_TOKENS_MAX);
    for (size_t i = 0; i < m->n_pages; i++) {
        const Dr__V1__Pages *p = m->pages[i];
        if (p->n_page > (size_t)(PAGES_OF_SLOT_MAX - p->first))
            return dr_fail(DR_EPROTO, "Pages.page: found %zu entries from %d on, allowed 0..%d", p->n_page,
                           p->first, PAGES_OF_SLOT_MAX - p->first);
    }
    return dr_ok();
}

static dr_status plan_pack(const struct dr_step_plan *in, uint64_t epoch, struct dr_arena *scratch,
                           uint8_t *out, size_t room, size_t *bytes) {
    Dr__V1__StepPlan m = DR__V1__STEP_PLAN__INIT;
    dr_wire_present(&m.base);
    m.epoch = in->epoch;
    m.step = in->step;
    m.cohort = in->cohort;
    m.schedule_hash = in->schedule_hash;
    m.n_drop = (size_t)in->n_drop;
    m.drop = (int32_t *)in->drop;
    DR_TRY(plan_arrays(in, scratch, &m));
    DR_TRY(dr_wire_check(&m.base, &plan_rules));
    DR_TRY(plan_sums(&m));
    return dr_wire_pack(DR_MSG_STEP_PLAN, epoch, &m.base, &plan_rules, out, room, bytes);
}

dr_status dr_encode_step_plan(const struct dr_step_plan *in, uint64_t epoch, struct dr_arena *scratch,
                              uint8_t *out, size_t room, size_t *bytes) {
    size_t mark = dr_arena_mark(scratch);
    dr_status st = plan_pack(in, epoch, scratch, out, room, bytes);
    dr_arena_rewind(scratch, mark);
    return st;
}

/* ---- from the wire ---- */

static dr_status open_get(const Dr__V1__Open *m, struct dr_arena *arena, struct dr_open *out) {
    void *seen = NULL;
    struct dr_open o = {
        .slot = m->slot,
        .cache_group = m->cache_group,
        .n_prompt = m->n_prompt,
        .n_kept = m->n_kept,
        .n_seen_prompt = (int32_t)m->n_seen_prompt,
        .seen_prompt = m->seen_prompt,
        .n_seen_output = (int32_t)m->n_seen_output_id,
    };
    DR_TRY(dr_wire_sampling_get(m->sampling, &o.sampling));
    DR_TRY(dr_wire_bias_get("Open", m->bias_id, m->n_bias_id, m->bias_value, m->n_bias_value, arena, &o.bias,
                            &o.n_bias));
    DR_TRY(dr_wire_same("Open", "seen_output_count", m->n_seen_output_count, m->n_seen_output_id));
    DR_TRY(dr_wire_take(arena, m->n_seen_output_id, sizeof(struct dr_count), DR_EPROTO, "Open.seen_output",
                        &seen));
    struct dr_count *to = seen;
    for (size_t i = 0; i < m->n_seen_output_id; i++)
        to[i] = (struct dr_count){.id = m->seen_output_id[i], .count = m->seen_output_count[i]};
    o.seen_output = to;
    *out = o;
    return dr_ok();
}

static struct dr_segment segment_get(const Dr__V1__Segment *m) {
    return (struct dr_segment){
        .slot = m->slot,
        .first = m->first,
        .n_rows = m->n_rows,
        .source = (enum dr_source)m->source,
        .ids = m->id,
        .has_next = m->has_next_id != 0,
        .next_id = m->has_next_id ? m->next_id : 0,
        .role = (enum dr_tokens_role)m->role,
        .form = (enum dr_form)m->form,
        .output = (enum dr_output)m->output,
        .score_top = m->score_top,
        .n_draft = m->n_draft,
        .n_verify = m->n_verify,
    };
}

dr_status dr_decode_step_plan(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                              struct dr_step_plan *out) {
    ProtobufCMessage *base = NULL;
    void *open = NULL, *pages = NULL, *segment = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__step_plan__descriptor, &plan_rules, body, bytes, arena, &base));
    const Dr__V1__StepPlan *m = (const Dr__V1__StepPlan *)base;
    DR_TRY(plan_sums(m));
    DR_TRY(dr_wire_take(arena, m->n_open, sizeof(struct dr_open), DR_EPROTO, "StepPlan.open", &open));
    DR_TRY(dr_wire_take(arena, m->n_pages, sizeof(struct dr_pages), DR_EPROTO, "StepPlan.pages", &pages));
    DR_TRY(dr_wire_take(arena, m->n_segment, sizeof(struct dr_segment), DR_EPROTO, "StepPlan.segment",
                        &segment));
    for (size_t i = 0; i < m->n_open; i++) DR_TRY(open_get(m->open[i], arena, (struct dr_open *)open + i));
    for (size_t i = 0; i < m->n_pages; i++) {
        const Dr__V1__Pages *p = m->pages[i];
        ((struct dr_pages *)pages)[i] =
            (struct dr_pages){.slot = p->slot, .first = p->first, .n = (int32_t)p->n_page, .page = p->page};
    }
    for (size_t i = 0; i < m->n_segment; i++) ((struct dr_segment *)segment)[i] = segment_get(m->segment[i]);
    *out = (struct dr_step_plan){
        .epoch = m->epoch,
        .step = m->step,
        .cohort = m->cohort,
        .n_open = (int32_t)m->n_open,
        .n_pages = (int32_t)m->n_pages,
        .n_segment = (int32_t)m->n_segment,
        .n_drop = (int32_t)m->n_drop,
        .open = open,
        .pages = pages,
        .segment = segment,
        .drop = m->drop,
        .schedule_hash = m->schedule_hash,
    };
    return dr_ok();
}
