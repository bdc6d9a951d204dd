/* admission.c - see admission.h.
 * In:   Submit.      Out: record or refusal.
 * Owns: nothing.
 * Why:  see admission.h. */
#include "coordinator/admission.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "coordinator/batcher/batcher.h"

static bool refuse(struct dr_refused *out, enum dr_refusal reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(struct dr_refused *out, enum dr_refusal reason, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out->text, sizeof out->text, fmt, ap);
    va_end(ap);
    out->reason = reason;
    return false;
}

static bool within(double v, double least, double most) { /* false for NaN */
    return v >= least && v <= most;
}

static bool check_sampling(const struct dr_sampling *s, int32_t vocab, struct dr_refused *out) {
    if (!within(s->temperature, 0, 1e6))
        return refuse(out, DR_REFUSE_INVALID, "temperature is %g, expected 0 or more",
                      (double)s->temperature);
    if (!within(s->top_p, 0, 1))
        return refuse(out, DR_REFUSE_INVALID, "top_p is %g, expected 0 to 1", (double)s->top_p);
    if (!within(s->min_p, 0, 1))
        return refuse(out, DR_REFUSE_INVALID, "min_p is %g, expected 0 to 1", (double)s->min_p);
    if (s->top_k < 0) return refuse(out, DR_REFUSE_INVALID, "top_k is %d, expected 0 or more", s->top_k);
    if (!(s->repetition > 0 && s->repetition <= 1e6F))
        return refuse(out, DR_REFUSE_INVALID, "repetition penalty is %g, expected more than 0",
                      (double)s->repetition);
    if (!within(s->frequency, -1e6, 1e6))
        return refuse(out, DR_REFUSE_INVALID, "frequency penalty is %g, expected a finite number",
                      (double)s->frequency);
    if (!within(s->presence, -1e6, 1e6))
        return refuse(out, DR_REFUSE_INVALID, "presence penalty is %g, expected a finite number",
                      (double)s->presence);
    int32_t most = dr_min_i32(DR_TOP_MAX, vocab);
    if (s->n_top < -1 || s->n_top > most)
        return refuse(out, DR_REFUSE_INVALID, "%d alternatives a token asked, expected -1 to %d", s->n_top,
                      most);
    return true;
}

static bool check_bias(const struct dr_submit *s, int32_t vocab, struct dr_refused *out) {
    if (s->n_bias < 0 || s->n_bias > DR_BIAS_MAX)
        return refuse(out, DR_REFUSE_INVALID, "%d logit biases, expected at most %d", s->n_bias, DR_BIAS_MAX);
    for (int32_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id >= (uint32_t)vocab)
            return refuse(out, DR_REFUSE_INVALID, "logit bias names token %u, the vocabulary has %d",
                          s->bias[i].id, vocab);
        if (isnan(s->bias[i].value))
            return refuse(out, DR_REFUSE_INVALID, "logit bias of token %u is not a number", s->bias[i].id);
    }
    return true;
}

static bool check_ids(const struct dr_submit *s, int32_t vocab, struct dr_refused *out) {
    if (s->n_ids < 1)
        return refuse(out, DR_REFUSE_INVALID, "the prompt is empty, expected at least one token");
    for (int32_t i = 0; i < s->n_ids; i++)
        if (s->ids[i] >= (uint32_t)vocab)
            return refuse(out, DR_REFUSE_INVALID, "prompt token %d is %u, the vocabulary has %d", i,
                          s->ids[i], vocab);
    if (s->n_delivered < 0 || s->n_delivered >= s->n_ids)
        return refuse(out, DR_REFUSE_INVALID,
                      "%d of %d tokens were delivered before, expected fewer than all", s->n_delivered,
                      s->n_ids);
    if (s->n_end < 0 || s->n_end > DR_STOP_IDS_MAX)
        return refuse(out, DR_REFUSE_INVALID, "%d end tokens, expected at most %d", s->n_end,
                      DR_STOP_IDS_MAX);
    if (s->max_tokens < 0)
        return refuse(out, DR_REFUSE_INVALID, "max_tokens is %d, expected 0 or more", s->max_tokens);
    if (s->min_tokens < 0)
        return refuse(out, DR_REFUSE_INVALID, "min_tokens is %d, expected 0 or more", s->min_tokens);
    int32_t most = dr_min_i32(DR_TOP_MAX, vocab);
    if (s->prompt_top < -1 || s->prompt_top > most)
        return refuse(out, DR_REFUSE_INVALID, "%d alternatives a prompt token asked, expected -1 to %d",
                      s->prompt_top, most);
    if (s->logits && (s->max_tokens > 0 || s->prompt_top >= 0))
        return refuse(out, DR_REFUSE_INVALID,
                      "raw logits of a prompt go without new tokens and prompt log-probabilities: max_tokens "
                      "is %d, expected 0; "
                      "prompt_top is %d, expected -1",
                      s->max_tokens, s->prompt_top);
    return true;
}

static bool check_room(const struct dr_admission *a, const struct dr_submit *s, struct dr_refused *out) {
    const struct dr_queue *q = &a->book->queue;
    int64_t most = dr_waiting_tokens_most(a->layout->context);
    if (q->n >= DR_WAITING_MAX)
        return refuse(out, DR_REFUSE_FULL, "%d requests are waiting, at most %d may; try again in %u ms",
                      q->n, DR_WAITING_MAX, a->retry_ms);
    if (q->n_tokens + s->n_ids > most)
        return refuse(out, DR_REFUSE_FULL,
                      "%lld prompt tokens are waiting, at most %lld may; try again in %u ms",
                      (long long)q->n_tokens, (long long)most, a->retry_ms);
    return true;
}

static bool check_open(const struct dr_admission *a, const struct dr_submit *s, struct dr_refused *out) {
    struct dr_request probe = {.n_prompt = s->n_ids - s->n_delivered,
                               .n_ids = s->n_ids,
                               .n_bias = s->n_bias,
                               .sampling = s->sampling};
    size_t bytes = dr_batcher_open_bytes(&probe, a->config->vocab);
    if (bytes <= DR_OPEN_BYTES_MAX) return true;
    return refuse(out, DR_REFUSE_TOO_LONG,
                  "penalties over a prompt of %d tokens need %zu bytes in a step plan, at most %d fit; "
                  "shorten the prompt or drop the penalties",
                  s->n_ids, bytes, (int)DR_OPEN_BYTES_MAX);
}

bool dr_admission_check(const struct dr_admission *a, const struct dr_submit *s, struct dr_refused *out) {
    struct dr_refused r = {.request = s->request};
    int32_t vocab = a->config->vocab, context = a->layout->context;
    bool ok = true;
    if (a->draining) ok = refuse(&r, DR_REFUSE_DRAINING, "the cluster is draining and takes no new requests");
    if (ok && dr_pool_find(&a->book->pool, s->request))
        ok = refuse(&r, DR_REFUSE_INVALID, "request %llu is open already", (unsigned long long)s->request);
    ok = ok && check_ids(s, vocab, &r) && check_sampling(&s->sampling, vocab, &r) && check_bias(s, vocab, &r);
    if (ok && s->n_ids >= context && !(s->n_ids == context && s->max_tokens == 0))
        ok = refuse(&r, DR_REFUSE_TOO_LONG,
                    "the prompt has %d tokens, the context is %d; shorten the prompt or raise --context",
                    s->n_ids, context);
    ok = ok && check_open(a, s, &r) && check_room(a, s, &r);
    if (ok) return true;
    if (r.reason == DR_REFUSE_FULL) r.retry_ms = a->retry_ms;
    *out = r;
    return false;
}

static uint64_t hash_text(const char *s) { /* FNV-1a, 64 bits */
    uint64_t h = 0xCBF29CE484222325U;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3U;
    return h;
}

void dr_admission_fill(const struct dr_admission *a, const struct dr_submit *s, uint64_t now_ns,
                       struct dr_request *r) {
    r->id = s->request;
    r->tenant = hash_text(s->tenant);
    r->priority = s->priority;
    r->n_ids = r->n_given = s->n_ids;
    memcpy(r->ids, s->ids, (size_t)s->n_ids * sizeof *r->ids);
    r->n_prompt = s->n_ids - s->n_delivered;
    r->max_new = dr_min_i32(s->max_tokens, a->layout->context - s->n_ids);
    r->min_new = s->min_tokens;
    r->ignore_eos = s->ignore_eos;
    r->logits = s->logits;
    r->prompt_top = s->prompt_top;
    r->sampling = s->sampling;
    r->n_bias = s->n_bias;
    if (s->n_bias > 0) memcpy(r->bias, s->bias, (size_t)s->n_bias * sizeof *r->bias);
    r->n_end = s->n_end;
    if (s->n_end > 0) memcpy(r->end_ids, s->end_ids, (size_t)s->n_end * sizeof *r->end_ids);
    r->submit_ns = now_ns;
    if (s->deadline_ms > 0) r->deadline_ns = now_ns + (uint64_t)s->deadline_ms * 1000000U;
}
