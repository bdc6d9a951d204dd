/* answer_write.c - answers as OpenAI's clients read them.
 * In:   choices.      Out: chunks and bodies.
 * Owns: nothing.
 * Why:  the names and the order of fields of both endpoints, streamed and whole, on one page. */
#include <string.h>

#include "gateway/api/answer_parts.h"
#include "gateway/api/sse.h"

static void quote(struct dr_json_out *o, const char *text) {
    dr_json_quote(o, text, strlen(text));
}

static void write_head(const struct dr_answer *a, const char *object, struct dr_json_out *o) {
    dr_json_raw(o, "{\"id\":");
    quote(o, a->id);
    dr_json_format(o, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)a->created_s);
    quote(o, a->api->kit->name);
    dr_json_raw(o, ",\"system_fingerprint\":null,\"choices\":[");
}

/* "name":[counts up to the last place that has drafts] */
static void write_places(struct dr_json_out *o, const char *name, const int64_t *count, int32_t n) {
    dr_json_format(o, ",\"%s\":[", name);
    for (int32_t i = 0; i < n; i++) dr_json_format(o, i ? ",%lld" : "%lld", (long long)count[i]);
    dr_json_raw(o, "]");
}

/* Drafts that came true, the others, and both by place where there were any. */
static void write_drafts(const struct dr_answer *a, struct dr_json_out *o) {
    int64_t drafted[DR_DRAFTS_MAX] = {0}, accepted[DR_DRAFTS_MAX] = {0}, all = 0, good = 0;
    int32_t n = 0;
    for (int32_t k = 0; k < DR_DRAFTS_MAX; k++) {
        for (int32_t i = 0; i < a->n_choice; i++) {
            drafted[k] += a->choice[i].done.drafted[k];
            accepted[k] += a->choice[i].done.accepted[k];
        }
        all += drafted[k];
        good += accepted[k];
        if (drafted[k] > 0) n = k + 1;
    }
    dr_json_format(o,
                   ",\"completion_tokens_details\":{\"accepted_prediction_tokens\":%lld,"
                   "\"rejected_prediction_tokens\":%lld",
                   (long long)good, (long long)(all - good));
    if (n > 0) write_places(o, "drafted_by_position", drafted, n);
    if (n > 0) write_places(o, "accepted_by_position", accepted, n);
    dr_json_raw(o, "}");
}

/* Prompt tokens count once a prompt, new ones once a choice. */
static void write_usage(const struct dr_answer *a, struct dr_json_out *o) {
    int64_t prompt = 0, cached = 0, output = 0;
    for (int32_t i = 0; i < a->ask.n_prompt; i++) prompt += (int64_t)a->ask.prompt[i].ids.n;
    for (int32_t i = 0; i < a->n_choice; i++) {
        output += a->choice[i].n_output;
        if (i % a->ask.params.n == 0) cached += a->choice[i].done.n_cached;
    }
    dr_json_format(o,
                   "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%lld},"
                   "\"prompt_cache_hit_tokens\":%lld,\"prompt_cache_miss_tokens\":%lld",
                   (long long)prompt, (long long)output, (long long)(prompt + output), (long long)cached,
                   (long long)cached, (long long)(prompt - cached));
    write_drafts(a, o);
    dr_json_raw(o, "}");
}

static void write_prompt_ids(const struct dr_choice *c, struct dr_json_out *o) {
    dr_json_raw(o, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < c->prompt->ids.n; i++) dr_json_format(o, i ? ",%u" : "%u", c->prompt->ids.at[i]);
    dr_json_raw(o, "]");
}

static void write_ids(struct dr_choice *c, struct dr_json_out *o) {
    dr_json_raw(o, ",\"token_ids\":[");
    dr_json_bytes(o, c->ids.text.at, c->ids.text.n);
    dr_json_raw(o, "]");
    if (c->ids.failed) o->failed = true;
    dr_text_reset(&c->ids.text);
}

static void write_logprobs(const struct dr_answer *a, struct dr_choice *c, struct dr_json_out *o) {
    dr_json_raw(o, ",\"logprobs\":");
    if (a->ask.top < 0)
        dr_json_raw(o, "null");
    else
        dr_logprobs_write(&c->logprobs, o);
}

/* "finish_reason" and vLLM's "stop_reason": the stop string or stop_token_ids' id, null for an end token */
static void write_reasons(const struct dr_choice *c, struct dr_json_out *o) {
    if (!c->finish) {
        dr_json_raw(o, ",\"finish_reason\":null");
        return;
    }
    dr_json_format(o, ",\"finish_reason\":\"%s\",\"stop_reason\":", c->finish);
    if (c->stopped_by_text)
        quote(o, c->stop_text);
    else if (c->stop_id >= 0)
        dr_json_format(o, "%lld", (long long)c->stop_id);
    else
        dr_json_raw(o, "null");
}

/* ---- chunks ---- */

static struct dr_json_out *begin_chunk(struct dr_answer *a) {
    dr_text_reset(&a->event.text);
    write_head(a, a->ask.chat ? "chat.completion.chunk" : "text_completion", &a->event);
    return &a->event;
}

static void end_chunk(struct dr_answer *a, bool last, struct dr_json_out *out) {
    struct dr_json_out *o = &a->event;
    dr_json_raw(o, "]");
    if (last || a->ask.params.continuous_usage) {
        dr_json_raw(o, ",\"usage\":");
        write_usage(a, o);
    } else if (a->ask.params.include_usage)
        dr_json_raw(o, ",\"usage\":null");
    dr_json_raw(o, "}");
    dr_sse_event(out, o->text.at, o->text.n);
    if (o->failed) out->failed = true;
}

/* The part of a chunk that differs: {"index":i,"delta":{...} or "text":"..." */
static void write_text(const struct dr_answer *a, const struct dr_choice *c, const char *at, size_t n,
                       struct dr_json_out *o) {
    dr_json_format(o, "{\"index\":%d,", c->index);
    dr_json_raw(o, a->ask.chat ? "\"delta\":{\"content\":" : "\"text\":");
    dr_json_quote(o, at, n);
    if (a->ask.chat) dr_json_raw(o, "}");
}

void dr_answer_write_first(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out) {
    if (!a->ask.chat && !a->ask.echo && !a->ask.params.return_ids) return;
    struct dr_json_out *o = begin_chunk(a);
    if (a->ask.chat)
        dr_json_format(o, "{\"index\":%d,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", c->index);
    else
        write_text(a, c, c->text.at, c->text.n, o);
    dr_text_reset(&c->text);
    if (a->ask.echo)
        write_logprobs(a, c, o);
    else
        dr_json_raw(o, ",\"logprobs\":null");
    if (a->ask.params.return_ids) write_prompt_ids(c, o);
    dr_json_raw(o, ",\"finish_reason\":null}");
    end_chunk(a, false, out);
}

void dr_answer_write_delta(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out) {
    bool news = c->text.n || c->logprobs.n || (a->ask.params.return_ids && c->ids.text.n);
    if (!news) return;
    struct dr_json_out *o = begin_chunk(a);
    write_text(a, c, c->text.at, c->text.n, o);
    dr_text_reset(&c->text);
    write_logprobs(a, c, o);
    if (a->ask.params.return_ids) write_ids(c, o);
    dr_json_raw(o, ",\"finish_reason\":null}");
    end_chunk(a, false, out);
}

void dr_answer_write_finish(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out) {
    struct dr_json_out *o = begin_chunk(a);
    dr_json_format(o, "{\"index\":%d,%s,\"logprobs\":null", c->index,
                   a->ask.chat ? "\"delta\":{}" : "\"text\":\"\"");
    write_reasons(c, o);
    dr_json_raw(o, "}");
    end_chunk(a, false, out);
}

void dr_answer_write_done(struct dr_answer *a, struct dr_json_out *out) {
    if (a->ask.params.include_usage) {
        begin_chunk(a);
        end_chunk(a, true, out);
    }
    dr_sse_done(out);
}

void dr_answer_write_error(struct dr_answer *a, struct dr_json_out *out) {
    dr_text_reset(&a->event.text);
    dr_problem_write(&a->problem, &a->event);
    dr_sse_event(out, a->event.text.at, a->event.text.n);
}

/* ---- bodies ---- */

static void write_prompt_logprobs(const struct dr_choice *c, struct dr_json_out *o) {
    dr_json_raw(o, ",\"prompt_logprobs\":[null");
    dr_json_bytes(o, c->prompt_logprobs.text.at, c->prompt_logprobs.text.n);
    if (c->prompt_logprobs.failed) o->failed = true;
    dr_json_raw(o, "]");
}

static void write_choice(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *o) {
    dr_json_format(o, "%s{\"index\":%d,", c->index ? "," : "", c->index);
    if (a->ask.chat)
        dr_json_raw(o, "\"message\":{\"role\":\"assistant\",\"content\":");
    else
        dr_json_raw(o, "\"text\":");
    dr_json_quote(o, c->text.at, c->text.n);
    if (a->ask.chat) dr_json_raw(o, ",\"refusal\":null}");
    write_logprobs(a, c, o);
    write_reasons(c, o);
    if (a->ask.params.return_ids) {
        if (!a->ask.chat) write_prompt_ids(c, o);
        write_ids(c, o);
    }
    if (!a->ask.chat && a->ask.params.prompt_top >= 0) write_prompt_logprobs(c, o);
    dr_json_raw(o, "}");
}

void dr_answer_write_body(struct dr_answer *a, struct dr_json_out *o) {
    write_head(a, a->ask.chat ? "chat.completion" : "text_completion", o);
    for (int32_t i = 0; i < a->n_choice; i++) write_choice(a, &a->choice[i], o);
    dr_json_raw(o, "],\"usage\":");
    write_usage(a, o);
    if (a->ask.chat && a->ask.params.return_ids) write_prompt_ids(a->choice, o);
    if (a->ask.chat && a->ask.params.prompt_top >= 0) write_prompt_logprobs(a->choice, o);
    dr_json_raw(o, "}");
}
