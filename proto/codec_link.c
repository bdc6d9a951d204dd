/* codec_link.c - the messages between gateway and coordinator that belong to a request.
 * In:   structs or bodies.      Out: frames or checked structs.
 * Owns: nothing.
 * Why:  see codec.h. */
#include <assert.h>
#include <string.h>

#include "proto/codec_wire.h"
#include "v1/common.pb-c.h"
#include "v1/link.pb-c.h"

static_assert((int)DR_REFUSE_INVALID == (int)DR__V1__REFUSAL__REFUSE_INVALID, "refusal");
static_assert((int)DR_REFUSE_TOO_LONG == (int)DR__V1__REFUSAL__REFUSE_TOO_LONG, "refusal");
static_assert((int)DR_REFUSE_DRAINING == (int)DR__V1__REFUSAL__REFUSE_DRAINING, "refusal");
static_assert((int)DR_FINISH_LENGTH == (int)DR__V1__FINISH__FINISH_LENGTH, "finish");
static_assert((int)DR_FINISH_CANCELLED == (int)DR__V1__FINISH__FINISH_CANCELLED, "finish");
static_assert((int)DR_FINISH_NUMERIC == (int)DR__V1__FINISH__FINISH_NUMERIC, "finish");
static_assert((int)DR_FINISH_DEADLINE == (int)DR__V1__FINISH__FINISH_DEADLINE, "finish");
static_assert((int)DR_FINISH_LOST == (int)DR__V1__FINISH__FINISH_LOST, "finish");

enum {
    TOKEN_BYTES = sizeof((struct dr_link_hello *)0)->token,
    NEWS_MAX = 2 * DR_SEQS_MAX, /* a running sequence has at most prompt news and output news in a step */
};

static const struct dr_wire_rule hello_at[] = {
    [1] = DR_RULE_ANY, [2] = {.least = TOKEN_BYTES, .most = TOKEN_BYTES}};
static const struct dr_wire_rules hello_rules = DR_WIRE_RULES(hello_at);

dr_status dr_encode_link_hello(const struct dr_link_hello *in, uint64_t epoch, struct dr_arena *scratch,
                               uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__LinkHello m = DR__V1__LINK_HELLO__INIT;
    dr_wire_present(&m.base);
    m.protocol = in->protocol;
    m.token.len = TOKEN_BYTES;
    m.token.data = (uint8_t *)in->token;
    return dr_wire_pack(DR_MSG_LINK_HELLO, epoch, &m.base, &hello_rules, out, room, bytes);
}

dr_status dr_decode_link_hello(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                               struct dr_link_hello *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__link_hello__descriptor, &hello_rules, body, bytes, arena, &base));
    const Dr__V1__LinkHello *m = (const Dr__V1__LinkHello *)base;
    *out = (struct dr_link_hello){.protocol = m->protocol};
    memcpy(out->token, m->token.data, TOKEN_BYTES);
    return dr_ok();
}

static const struct dr_wire_rule submit_at[] = {
    [1] = DR_RULE_ANY,
    [2] = {.most = DR_VOCAB_MAX - 1, .count = DR_PROMPT_IDS_MAX},
    [3] = {.most = DR_PROMPT_IDS_MAX},
    [4] = {.most = DR_POSITIONS_MAX},
    [5] = {.most = DR_POSITIONS_MAX},
    [6] = DR_RULE_BOOL,
    [7] = {.most = DR_VOCAB_MAX - 1, .count = DR_STOP_IDS_MAX},
    [8] = {.sub = &dr_wire_sampling_rules},
    [9] = {.most = DR_VOCAB_MAX - 1, .count = DR_BIAS_MAX},
    [10] = {.count = DR_BIAS_MAX},
    [11] = {.least = -1, .most = DR_TOP_MAX},
    [12] = DR_RULE_BOOL,
    [13] = DR_RULE_ANY,
    [14] = DR_RULE_ANY,
    [15] = {.most = DR_SALT_MAX},
    [16] = {.most = DR_SALT_MAX},
};
static const struct dr_wire_rules submit_rules = DR_WIRE_RULES(submit_at);

/* What the walk over single fields cannot see. */
static dr_status submit_sums(const Dr__V1__Submit *m) {
    if (m->n_id < 1)
        return dr_fail(DR_EPROTO, "Submit.id: found 0 elements, allowed 1..%d", DR_PROMPT_IDS_MAX);
    if ((size_t)m->n_delivered >= m->n_id)
        return dr_fail(DR_EPROTO, "Submit.n_delivered: found %d, allowed less than the %zu ids",
                       m->n_delivered, m->n_id);
    if (m->min_tokens > m->max_tokens)
        return dr_fail(DR_EPROTO, "Submit.min_tokens: found %d, allowed 0..max_tokens = %d", m->min_tokens,
                       m->max_tokens);
    return dr_ok();
}

static dr_status submit_pack(const struct dr_submit *in, uint64_t epoch, struct dr_arena *scratch,
                             uint8_t *out, size_t room, size_t *bytes) {
    Dr__V1__Submit m = DR__V1__SUBMIT__INIT;
    Dr__V1__Sampling sampling;
    DR_TRY(dr_wire_sampling_put(&in->sampling, &sampling));
    dr_wire_present(&m.base);
    m.request = in->request;
    m.n_id = (size_t)in->n_ids;
    m.id = (uint32_t *)in->ids;
    m.n_delivered = in->n_delivered;
    m.max_tokens = in->max_tokens;
    m.min_tokens = in->min_tokens;
    m.ignore_eos = in->ignore_eos;
    m.n_end_id = (size_t)in->n_end;
    m.end_id = (uint32_t *)in->end_ids;
    m.sampling = &sampling;
    m.n_bias_id = m.n_bias_value = (size_t)in->n_bias;
    DR_TRY(dr_wire_bias_put(in->bias, in->n_bias, scratch, &m.bias_id, &m.bias_value));
    m.prompt_top = in->prompt_top;
    m.logits = in->logits;
    m.priority = in->priority;
    m.deadline_ms = in->deadline_ms;
    m.tenant = (char *)in->tenant;
    m.salt = (char *)in->salt;
    DR_TRY(dr_wire_check(&m.base, &submit_rules));
    DR_TRY(submit_sums(&m));
    return dr_wire_pack(DR_MSG_SUBMIT, epoch, &m.base, &submit_rules, out, room, bytes);
}

dr_status dr_encode_submit(const struct dr_submit *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                           size_t room, size_t *bytes) {
    size_t mark = dr_arena_mark(scratch);
    dr_status st = submit_pack(in, epoch, scratch, out, room, bytes);
    dr_arena_rewind(scratch, mark);
    return st;
}

dr_status dr_decode_submit(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_submit *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__submit__descriptor, &submit_rules, body, bytes, arena, &base));
    const Dr__V1__Submit *m = (const Dr__V1__Submit *)base;
    DR_TRY(submit_sums(m));
    struct dr_submit s = {
        .request = m->request,
        .n_ids = (int32_t)m->n_id,
        .ids = m->id,
        .n_delivered = m->n_delivered,
        .max_tokens = m->max_tokens,
        .min_tokens = m->min_tokens,
        .ignore_eos = m->ignore_eos != 0,
        .n_end = (int32_t)m->n_end_id,
        .end_ids = m->end_id,
        .prompt_top = m->prompt_top,
        .logits = m->logits != 0,
        .priority = m->priority,
        .deadline_ms = m->deadline_ms,
    };
    DR_TRY(dr_wire_sampling_get(m->sampling, &s.sampling));
    DR_TRY(dr_wire_bias_get("Submit", m->bias_id, m->n_bias_id, m->bias_value, m->n_bias_value, arena,
                            &s.bias, &s.n_bias));
    dr_wire_text(s.tenant, sizeof s.tenant, m->tenant);
    dr_wire_text(s.salt, sizeof s.salt, m->salt);
    *out = s;
    return dr_ok();
}

static const struct dr_wire_rule refused_at[] = {
    [1] = DR_RULE_ANY,
    [2] = {.most = DR_REFUSE_DRAINING},
    [3] = DR_RULE_ANY,
    [4] = {.most = DR_TEXT_MAX},
};
static const struct dr_wire_rules refused_rules = DR_WIRE_RULES(refused_at);

dr_status dr_encode_refused(const struct dr_refused *in, uint64_t epoch, struct dr_arena *scratch,
                            uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Refused m = DR__V1__REFUSED__INIT;
    dr_wire_present(&m.base);
    m.request = in->request;
    m.reason = (Dr__V1__Refusal)in->reason;
    m.retry_ms = in->retry_ms;
    m.text = (char *)in->text;
    return dr_wire_pack(DR_MSG_REFUSED, epoch, &m.base, &refused_rules, out, room, bytes);
}

dr_status dr_decode_refused(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                            struct dr_refused *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__refused__descriptor, &refused_rules, body, bytes, arena, &base));
    const Dr__V1__Refused *m = (const Dr__V1__Refused *)base;
    *out = (struct dr_refused){
        .request = m->request, .reason = (enum dr_refusal)m->reason, .retry_ms = m->retry_ms};
    dr_wire_text(out->text, sizeof out->text, m->text);
    return dr_ok();
}

static const struct dr_wire_rule news_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_BOOL,
    [3] = {.most = DR_POSITIONS_MAX},
    [4] = {.most = DR_VOCAB_MAX - 1, .count = DR_STEP_TOKENS_MAX},
    [5] = {.count = DR_STEP_TOKENS_MAX},
    [6] = {.most = DR_TOP_MAX},
    [7] = {.most = DR_VOCAB_MAX - 1, .count = DR_STEP_TOKENS_MAX * DR_TOP_MAX},
    [8] = {.count = DR_STEP_TOKENS_MAX * DR_TOP_MAX},
};
static const struct dr_wire_rules news_rules = DR_WIRE_RULES(news_at);

static const struct dr_wire_rule tokens_at[] = {[1] = {.count = NEWS_MAX, .sub = &news_rules}};
static const struct dr_wire_rules tokens_rules = DR_WIRE_RULES(tokens_at);

static dr_status news_put(const struct dr_token_news *in, struct dr_arena *scratch, Dr__V1__TokenNews *m) {
    if (in->n < 0 || in->n > DR_STEP_TOKENS_MAX || in->n_top < 0 || in->n_top > DR_TOP_MAX)
        return dr_fail(DR_EPROTO, "TokenNews.id: found %d ids with %d alternatives, allowed 0..%d and 0..%d",
                       in->n, in->n_top, DR_STEP_TOKENS_MAX, DR_TOP_MAX);
    dr__v1__token_news__init(m);
    dr_wire_present(&m->base);
    m->request = in->request;
    m->prompt = in->prompt;
    m->position = in->position;
    m->n_id = (size_t)in->n;
    m->id = (uint32_t *)in->ids;
    m->n_logprob = in->logprob ? (size_t)in->n : 0;
    m->logprob = (float *)in->logprob;
    m->n_top = in->top ? in->n_top : 0;
    m->n_top_id = m->n_top_logprob = (size_t)in->n * (size_t)m->n_top;
    return dr_wire_top_put(in->top, m->n_top_id, scratch, &m->top_id, &m->top_logprob);
}

static dr_status tokens_pack(const struct dr_tokens *in, uint64_t epoch, struct dr_arena *scratch,
                             uint8_t *out, size_t room, size_t *bytes) {
    void *list = NULL, *news = NULL;
    Dr__V1__Tokens m = DR__V1__TOKENS__INIT;
    m.n_news = (size_t)in->n;
    DR_TRY(dr_wire_take(scratch, m.n_news, sizeof(void *), DR_EFULL, "Tokens.news", &list));
    DR_TRY(dr_wire_take(scratch, m.n_news, sizeof(Dr__V1__TokenNews), DR_EFULL, "Tokens.news", &news));
    m.news = list;
    for (size_t i = 0; i < m.n_news; i++) {
        m.news[i] = (Dr__V1__TokenNews *)news + i;
        DR_TRY(news_put(&in->news[i], scratch, m.news[i]));
    }
    return dr_wire_pack(DR_MSG_TOKENS, epoch, &m.base, &tokens_rules, out, room, bytes);
}

dr_status dr_encode_tokens(const struct dr_tokens *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                           size_t room, size_t *bytes) {
    size_t mark = dr_arena_mark(scratch);
    dr_status st = tokens_pack(in, epoch, scratch, out, room, bytes);
    dr_arena_rewind(scratch, mark);
    return st;
}

static dr_status news_get(const Dr__V1__TokenNews *m, struct dr_arena *arena, struct dr_token_news *out) {
    if (m->n_logprob > 0) DR_TRY(dr_wire_same("TokenNews", "logprob", m->n_logprob, m->n_id));
    DR_TRY(dr_wire_same("TokenNews", "top_id", m->n_top_id, m->n_id * (size_t)m->n_top));
    *out = (struct dr_token_news){
        .request = m->request,
        .prompt = m->prompt != 0,
        .position = m->position,
        .n = (int32_t)m->n_id,
        .ids = m->id,
        .logprob = m->n_logprob > 0 ? m->logprob : NULL,
        .n_top = m->n_top,
    };
    DR_TRY(dr_wire_top_get("TokenNews", m->top_id, m->n_top_id, m->top_logprob, m->n_top_logprob, arena,
                           &out->top));
    if (m->n_top == 0) out->top = NULL;
    return dr_ok();
}

dr_status dr_decode_tokens(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_tokens *out) {
    ProtobufCMessage *base = NULL;
    void *news = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__tokens__descriptor, &tokens_rules, body, bytes, arena, &base));
    const Dr__V1__Tokens *m = (const Dr__V1__Tokens *)base;
    DR_TRY(dr_wire_take(arena, m->n_news, sizeof(struct dr_token_news), DR_EPROTO, "Tokens.news", &news));
    for (size_t i = 0; i < m->n_news; i++)
        DR_TRY(news_get(m->news[i], arena, (struct dr_token_news *)news + i));
    *out = (struct dr_tokens){.n = (int32_t)m->n_news, .news = news};
    return dr_ok();
}

static const struct dr_wire_rule done_at[] = {
    [1] = DR_RULE_ANY,
    [2] = {.most = DR_FINISH_COUNT - 1},
    [3] = DR_RULE_ANY,
    [4] = DR_RULE_COUNT,
    [5] = DR_RULE_COUNT,
    [6] = DR_RULE_COUNT,
    [7] = {.most = INT32_MAX, .count = DR_DRAFTS_MAX},
    [8] = {.most = INT32_MAX, .count = DR_DRAFTS_MAX},
    [9] = DR_RULE_ANY,
    [10] = DR_RULE_ANY,
    [11] = DR_RULE_ANY,
};
static const struct dr_wire_rules done_rules = DR_WIRE_RULES(done_at);

dr_status dr_encode_done(const struct dr_done *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                         size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Done m = DR__V1__DONE__INIT;
    dr_wire_present(&m.base);
    m.request = in->request;
    m.finish = (Dr__V1__Finish)in->finish;
    m.stop_id = in->stop_id;
    m.n_prompt = in->n_prompt;
    m.n_cached = in->n_cached;
    m.n_output = in->n_output;
    m.n_drafted = m.n_accepted = DR_DRAFTS_MAX;
    m.drafted = (int32_t *)in->drafted;
    m.accepted = (int32_t *)in->accepted;
    m.queue_ns = in->queue_ns;
    m.prefill_ns = in->prefill_ns;
    m.decode_ns = in->decode_ns;
    return dr_wire_pack(DR_MSG_DONE, epoch, &m.base, &done_rules, out, room, bytes);
}

dr_status dr_decode_done(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_done *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__done__descriptor, &done_rules, body, bytes, arena, &base));
    const Dr__V1__Done *m = (const Dr__V1__Done *)base;
    DR_TRY(dr_wire_same("Done", "drafted", m->n_drafted, DR_DRAFTS_MAX));
    DR_TRY(dr_wire_same("Done", "accepted", m->n_accepted, DR_DRAFTS_MAX));
    *out = (struct dr_done){
        .request = m->request,
        .finish = (enum dr_finish)m->finish,
        .stop_id = m->stop_id,
        .n_prompt = m->n_prompt,
        .n_cached = m->n_cached,
        .n_output = m->n_output,
        .queue_ns = m->queue_ns,
        .prefill_ns = m->prefill_ns,
        .decode_ns = m->decode_ns,
    };
    memcpy(out->drafted, m->drafted, sizeof out->drafted);
    memcpy(out->accepted, m->accepted, sizeof out->accepted);
    return dr_ok();
}
