/* ask.c - reads what is asked for.
 * In:   a body.      Out: struct dr_ask.
 * Owns: nothing beyond the struct.
 * Why:  see ask.h. */
#include "gateway/api/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 2048 };

void dr_ask_fini(struct dr_ask *a) {
    dr_params_fini(&a->params);
    for (int32_t i = 0; i < a->n_prompt; i++) dr_ids_fini(&a->prompt[i].ids);
    free(a->prompt);
    dr_chat_talk_fini(&a->talk);
    json_decref(a->body);
    *a = (struct dr_ask){0};
}

/* ---- chat ---- */

/* {"thinking": bool} and its other name; anything else would change the prompt in a way that is not known
 * here */
static dr_status read_template_words(const struct dr_body *b, struct dr_chat_options *options) {
    json_t *words = json_object_get(b->object, "chat_template_kwargs"), *value;
    if (!words || json_is_null(words)) return dr_ok();
    char room[40], param[96];
    if (!json_is_object(words))
        return dr_problem_bad(b->why, "chat_template_kwargs",
                              "chat_template_kwargs: expected an object, found %s",
                              dr_body_found(words, room, sizeof room));
    const char *name;
    json_object_foreach(words, name, value) {
        if (strcmp(name, "thinking") == 0 || strcmp(name, "enable_thinking") == 0) continue;
        snprintf(param, sizeof param, "chat_template_kwargs.%.64s", name);
        return dr_problem_bad(b->why, param, "%s: not supported; thinking (or enable_thinking) is", param);
    }
    const struct dr_body inner = {.object = words, .prefix = "chat_template_kwargs.", .why = b->why};
    DR_TRY(dr_body_bool(&inner, "enable_thinking", &options->thinking));
    return dr_body_bool(&inner, "thinking", &options->thinking);
}

dr_status dr_ask_talk(const struct dr_kit *kit, const struct dr_body *b, struct dr_chat_talk *talk,
                      struct dr_chat_options *options) {
    json_t *messages = json_object_get(b->object, "messages");
    char room[40];
    if (!messages)
        return dr_problem_bad(b->why, "messages", "messages: missing; expected a list of messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0 ||
        json_array_size(messages) > MESSAGES_MAX)
        return dr_problem_bad(
            b->why, "messages", "messages: expected a list of 1 to %d messages, found %s", MESSAGES_MAX,
            json_array_size(messages) > MESSAGES_MAX ? "more" : dr_body_found(messages, room, sizeof room));
    if (kit->chat.layout == DR_CHAT_NONE)
        return dr_problem_bad(b->why, "messages",
                              "messages: this model names no chat layout that is known; use /v1/completions");
    bool generation_given = json_is_true(json_object_get(b->object, "add_generation_prompt"));
    DR_TRY(dr_body_bool(b, "continue_final_message", &options->continue_final_message));
    options->add_generation_prompt = !options->continue_final_message;
    DR_TRY(dr_body_bool(b, "add_generation_prompt", &options->add_generation_prompt));
    if (options->continue_final_message && generation_given)
        return dr_problem_bad(b->why, "continue_final_message",
                              "continue_final_message: excludes \"add_generation_prompt\": true");
    DR_TRY(read_template_words(b, options));
    dr_status st = dr_chat_from_json(messages, talk);
    return st.code == DR_OK ? st : dr_problem_from(b->why, st, "messages");
}

static dr_status read_chat(struct dr_ask *a, const struct dr_kit *kit, const struct dr_body *b) {
    bool logprobs = false;
    int32_t top = -1;
    DR_TRY(dr_ask_talk(kit, b, &a->talk, &a->options));
    DR_TRY(dr_body_int32(b, "max_completion_tokens", 1, INT32_MAX, &a->params.max_tokens));
    if (a->params.max_tokens == 0)
        return dr_problem_bad(b->why, "max_tokens", "max_tokens: expected at least 1, found 0");
    DR_TRY(dr_body_bool(b, "logprobs", &logprobs));
    DR_TRY(dr_body_int32(b, "top_logprobs", 0, DR_TOP_MAX, &top));
    if (top > 0 && !logprobs)
        return dr_problem_bad(b->why, "top_logprobs", "top_logprobs: only allowed with \"logprobs\": true");
    a->top = logprobs ? (top < 0 ? 0 : top) : -1;
    a->prompt = calloc(1, sizeof *a->prompt);
    if (!a->prompt) return dr_fail(DR_EFULL, "no memory for a prompt");
    a->n_prompt = 1;
    return dr_ok();
}

/* ---- completions ---- */

static dr_status read_prompt(struct dr_ask *a, const struct dr_kit *kit, const struct dr_body *b,
                             const json_t *v) {
    struct dr_ask_prompt *p = &a->prompt[a->n_prompt];
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->bytes = json_string_length(v);
        if (p->bytes == 0)
            return dr_problem_bad(b->why, "prompt",
                                  "prompt: expected a string of at least 1 byte, found an empty string");
        a->n_prompt++;
        return dr_ok();
    }
    a->n_prompt++; /* counts before it is filled, so that _fini gives back what a failure leaves */
    return dr_body_ids(b, "prompt", v, (uint32_t)kit->config.vocab, DR_PROMPT_IDS_MAX, &p->ids);
}

static dr_status read_prompts(struct dr_ask *a, const struct dr_kit *kit, const struct dr_body *b) {
    const json_t *v = json_object_get(b->object, "prompt");
    const json_t *first = json_array_get(v, 0);
    bool list = json_is_string(first) || json_is_array(first);
    size_t n = list ? json_array_size(v) : 1;
    char room[40];
    if (!v || (!json_is_string(v) && !json_is_array(v)) || (json_is_array(v) && json_array_size(v) == 0))
        return dr_problem_bad(b->why, "prompt",
                              "prompt: expected a string, token ids, or a list of these, found %s",
                              v ? dr_body_found(v, room, sizeof room) : "nothing");
    if (n > DR_ASK_PROMPTS_MAX)
        return dr_problem_bad(b->why, "prompt", "prompt: expected at most %d prompts, found %zu",
                              DR_ASK_PROMPTS_MAX, n);
    a->prompt = calloc(n, sizeof *a->prompt);
    if (!a->prompt) return dr_fail(DR_EFULL, "no memory for prompts");
    if (!list) return read_prompt(a, kit, b, v);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        if (!json_is_string(item) && !json_is_array(item))
            return dr_problem_bad(b->why, "prompt", "prompt[%zu]: expected a string or token ids, found %s",
                                  i, dr_body_found(item, room, sizeof room));
        DR_TRY(read_prompt(a, kit, b, item));
    }
    return dr_ok();
}

static dr_status read_completions(struct dr_ask *a, const struct dr_kit *kit, const struct dr_body *b) {
    struct dr_params *p = &a->params;
    a->add_special = true;
    DR_TRY(read_prompts(a, kit, b));
    DR_TRY(dr_body_bool(b, "echo", &a->echo));
    DR_TRY(dr_body_bool(b, "add_special_tokens", &a->add_special));
    if (p->max_tokens < 0) p->max_tokens = 16; /* OpenAI's default of this endpoint */
    if (p->max_tokens == 0 && !a->echo)
        return dr_problem_bad(b->why, "max_tokens",
                              "max_tokens: expected at least 1 without \"echo\": true, found 0");
    DR_TRY(dr_body_int32(b, "logprobs", 0, DR_TOP_MAX, &a->top));
    int32_t best_of = p->n;
    DR_TRY(dr_body_int32(b, "best_of", 1, DR_CHOICES_MAX, &best_of));
    if (best_of != p->n)
        return dr_problem_bad(
            b->why, "best_of",
            "best_of: expected the value of n, %d, found %d; choosing among more is not supported", p->n,
            best_of);
    if (a->n_prompt * p->n > DR_ASK_SEQUENCES_MAX)
        return dr_problem_bad(b->why, "prompt", "prompt: %d prompts of n = %d are more than %d sequences",
                              a->n_prompt, p->n, DR_ASK_SEQUENCES_MAX);
    return dr_ok();
}

/* ---- both ---- */

dr_status dr_ask_read(struct dr_ask *a, bool chat, const struct dr_kit *kit, const char *bytes, size_t n,
                      struct dr_body_names *names, struct dr_problem *why) {
    a->chat = chat;
    a->top = -1;
    dr_params_init(&a->params, kit);
    dr_status st = dr_body_parse(bytes, n, &a->body, why);
    if (st.code == DR_OK) {
        const struct dr_body b = {.object = a->body, .prefix = "", .why = why};
        st = dr_body_check(&b, chat ? DR_BODY_CHAT : DR_BODY_COMPLETIONS, names);
        if (st.code == DR_OK) st = dr_params_read(&a->params, kit, &b);
        if (st.code == DR_OK) st = chat ? read_chat(a, kit, &b) : read_completions(a, kit, &b);
        if (st.code == DR_OK && a->params.max_tokens >= 0 && a->params.min_tokens > a->params.max_tokens)
            st = dr_problem_bad(why, "min_tokens", "min_tokens: %d is more than the %d tokens of the answer",
                                a->params.min_tokens, a->params.max_tokens);
    }
    if (st.code != DR_OK) return dr_problem_from(why, st, NULL);
    a->params.sampling.n_top = a->top;
    return st;
}

static dr_status encode_text(const struct dr_ask *a, const struct dr_kit *kit, struct dr_ask_prompt *p) {
    if (a->add_special || !kit->tokenizer) return dr_kit_encode_prompt(kit, p->text, p->bytes, &p->ids);
    return dr_tokenizer_encode(kit->tokenizer, p->text, p->bytes, DR_ADDED_MATCH, &p->ids);
}

dr_status dr_ask_encode(struct dr_ask *a, const struct dr_kit *kit, struct dr_problem *why) {
    const char *param = a->chat ? "messages" : "prompt";
    for (int32_t i = 0; i < a->n_prompt; i++) {
        struct dr_ask_prompt *p = &a->prompt[i];
        dr_status st = dr_ok();
        if (a->chat) {
            struct dr_chat_prompt rendered = {0};
            st = dr_chat_render(&kit->chat, a->talk.messages, a->talk.n, a->options, &rendered);
            p->ids = rendered.ids;
            rendered.ids = (struct dr_ids){0};
            dr_chat_prompt_fini(&rendered);
        } else if (p->text)
            st = encode_text(a, kit, p);
        if (st.code != DR_OK) return dr_problem_from(why, st, param);
        if (p->ids.n == 0) return dr_problem_bad(why, param, "%s: no tokens come out of it", param);
        DR_TRY(dr_params_fit(kit, p->ids.n, param, why));
    }
    return dr_ok();
}
