/* tokens.c - /tokenize and /detokenize.
 * In:   a text, a conversation, or ids.      Out: ids, or the text.
 * Owns: nothing.
 * Why:  a client counts and cuts prompts with the server's own tokenizer. */
#include <string.h>

#include "gateway/api/ask.h"
#include "gateway/api/tokens.h"

void dr_tokens_fini(struct dr_tokens_ask *a) {
    dr_chat_talk_fini(&a->talk);
    dr_ids_fini(&a->ids);
    json_decref(a->body);
    *a = (struct dr_tokens_ask){0};
}

static dr_status read_tokenize(struct dr_tokens_ask *a, const struct dr_kit *kit, const struct dr_body *b) {
    a->chat = json_object_get(a->body, "messages") != NULL;
    a->add_special = !a->chat;
    DR_TRY(dr_body_bool(b, "add_special_tokens", &a->add_special));
    DR_TRY(dr_body_bool(b, "return_token_strs", &a->strings));
    if (a->chat && json_object_get(a->body, "prompt"))
        return dr_problem_bad(b->why, "prompt", "prompt: excludes messages");
    if (a->chat && a->add_special)
        return dr_problem_bad(
            b->why, "add_special_tokens",
            "add_special_tokens: the chat layout has the begin token; leave it out with messages");
    if (a->chat) return dr_ask_talk(kit, b, &a->talk, &a->options);
    DR_TRY(dr_body_text(b, "prompt", DR_BODY_BYTES_MAX, &a->text));
    if (!a->text) return dr_problem_bad(b->why, "prompt", "prompt: missing; expected a string, or messages");
    return dr_ok();
}

static dr_status read_detokenize(struct dr_tokens_ask *a, const struct dr_kit *kit, const struct dr_body *b) {
    const json_t *tokens = json_object_get(a->body, "tokens");
    if (!tokens) return dr_problem_bad(b->why, "tokens", "tokens: missing; expected a list of token ids");
    if (json_is_array(tokens) && json_array_size(tokens) == 0) return dr_ok();
    return dr_body_ids(b, "tokens", tokens, (uint32_t)kit->config.vocab, DR_PROMPT_IDS_MAX, &a->ids);
}

dr_status dr_tokens_read(struct dr_tokens_ask *a, bool tokenize, const struct dr_kit *kit, const char *bytes,
                         size_t n, struct dr_body_names *names, struct dr_problem *why) {
    dr_status st = dr_body_parse(bytes, n, &a->body, why);
    if (st.code == DR_OK) {
        const struct dr_body b = {.object = a->body, .prefix = "", .why = why};
        st = dr_body_check(&b, tokenize ? DR_BODY_TOKENIZE : DR_BODY_DETOKENIZE, names);
        if (st.code == DR_OK) st = dr_params_model(kit, &b);
        if (st.code == DR_OK) st = tokenize ? read_tokenize(a, kit, &b) : read_detokenize(a, kit, &b);
    }
    return st.code == DR_OK ? st : dr_problem_from(why, st, NULL);
}

static dr_status encode(struct dr_tokens_ask *a, const struct dr_kit *kit, struct dr_problem *why) {
    dr_status st;
    if (a->chat) {
        struct dr_chat_prompt rendered = {0};
        st = dr_chat_render(&kit->chat, a->talk.messages, a->talk.n, a->options, &rendered);
        dr_ids_fini(&a->ids);
        a->ids = rendered.ids;
        rendered.ids = (struct dr_ids){0};
        dr_chat_prompt_fini(&rendered);
    } else if (a->add_special || !kit->tokenizer)
        st = dr_kit_encode_prompt(kit, a->text, strlen(a->text), &a->ids);
    else
        st = dr_tokenizer_encode(kit->tokenizer, a->text, strlen(a->text), DR_ADDED_MATCH, &a->ids);
    return st.code == DR_OK ? st : dr_problem_from(why, st, a->chat ? "messages" : "prompt");
}

static dr_status write_ids(const struct dr_tokens_ask *a, const struct dr_kit *kit, struct dr_json_out *o) {
    dr_json_format(o, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", a->ids.n, kit->context);
    for (size_t i = 0; i < a->ids.n; i++) dr_json_format(o, i ? ",%u" : "%u", a->ids.at[i]);
    dr_json_raw(o, a->strings ? "],\"token_strs\":[" : "],\"token_strs\":null}");
    for (size_t i = 0; a->strings && i < a->ids.n; i++) {
        const uint8_t *at;
        size_t n;
        DR_TRY(dr_tokenizer_token(kit->tokenizer, a->ids.at[i], &at, &n));
        if (i) dr_json_raw(o, ",");
        dr_json_quote(o, at, n);
    }
    if (a->strings) dr_json_raw(o, "]}");
    return dr_ok();
}

static dr_status write_text(const struct dr_tokens_ask *a, const struct dr_kit *kit, struct dr_json_out *o,
                            struct dr_problem *why) {
    if (!kit->tokenizer) return dr_problem_bad(why, NULL, "this model has no tokenizer.json");
    struct dr_text text = {0};
    dr_status st = dr_tokenizer_decode(kit->tokenizer, a->ids.at, a->ids.n, false, &text);
    if (st.code == DR_OK) {
        dr_json_raw(o, "{\"prompt\":");
        dr_json_quote(o, text.at, text.n);
        dr_json_raw(o, "}");
    }
    dr_text_fini(&text);
    return st.code == DR_OK ? st : dr_problem_from(why, st, "tokens");
}

static void answer(struct dr_api *api, bool tokenize, const char *body, size_t n, struct dr_reply *r) {
    struct dr_tokens_ask ask = {0};
    struct dr_problem why = {0};
    dr_status st = dr_tokens_read(&ask, tokenize, api->kit, body, n, &api->names, &why);
    if (st.code == DR_OK && tokenize) st = encode(&ask, api->kit, &why);
    if (st.code == DR_OK)
        st = tokenize ? write_ids(&ask, api->kit, &r->body) : write_text(&ask, api->kit, &r->body, &why);
    r->status = 200;
    r->type = "application/json";
    if (st.code != DR_OK) {
        dr_ignore(dr_problem_from(&why, st, NULL), "sent to the client");
        dr_reply_problem(r, &why);
    }
    dr_tokens_fini(&ask);
}

void dr_api_tokenize(struct dr_api *api, const char *body, size_t n, struct dr_reply *r) {
    answer(api, true, body, n, r);
}

void dr_api_detokenize(struct dr_api *api, const char *body, size_t n, struct dr_reply *r) {
    answer(api, false, body, n, r);
}
