/* body.c - the table of known fields, and typed reading.
 * In:   a JSON object.      Out: values or problems.
 * Owns: nothing.
 * Why:  see body.h. What each field does is told in README.md; the table here is what decides. */
#include "gateway/api/body.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"

enum rule {
    READ,         /* by params.c, chat.c, completions.c, tokens.c */
    INERT,        /* accepted; changes nothing in the answer */
    UNLESS_NULL,  /* refused unless null */
    UNLESS_EMPTY, /* refused unless null, "", [] or {} */
    UNLESS_FALSE, /* refused unless null or false */
    UNLESS_TRUE,  /* refused unless null or true */
    UNLESS_NONE,  /* refused unless null or "none" */
    UNLESS_ONE,   /* refused unless null or 1 */
};

static const struct known {
    const char *name;
    int endpoints;
    enum rule rule;
} table[] = {
    /* what every answer is made of */
    {"model", DR_BODY_ANSWERS | DR_BODY_TOKENIZE | DR_BODY_DETOKENIZE, READ},
    {"stream", DR_BODY_ANSWERS, READ},
    {"stream_options", DR_BODY_ANSWERS, READ},
    {"n", DR_BODY_ANSWERS, READ},
    {"max_tokens", DR_BODY_ANSWERS, READ},
    {"min_tokens", DR_BODY_ANSWERS, READ},
    {"temperature", DR_BODY_ANSWERS, READ},
    {"top_p", DR_BODY_ANSWERS, READ},
    {"top_k", DR_BODY_ANSWERS, READ},
    {"min_p", DR_BODY_ANSWERS, READ},
    {"seed", DR_BODY_ANSWERS, READ},
    {"stop", DR_BODY_ANSWERS, READ},
    {"stop_token_ids", DR_BODY_ANSWERS, READ},
    {"include_stop_str_in_output", DR_BODY_ANSWERS, READ},
    {"ignore_eos", DR_BODY_ANSWERS, READ},
    {"skip_special_tokens", DR_BODY_ANSWERS, READ},
    {"frequency_penalty", DR_BODY_ANSWERS, READ},
    {"presence_penalty", DR_BODY_ANSWERS, READ},
    {"repetition_penalty", DR_BODY_ANSWERS, READ},
    {"logit_bias", DR_BODY_ANSWERS, READ},
    {"logprobs", DR_BODY_ANSWERS, READ},
    {"prompt_logprobs", DR_BODY_ANSWERS, READ},
    {"return_token_ids", DR_BODY_ANSWERS, READ},
    {"return_tokens_as_token_ids", DR_BODY_ANSWERS, READ},
    {"priority", DR_BODY_ANSWERS, READ},
    {"cache_salt", DR_BODY_ANSWERS, READ},
    /* chat */
    {"messages", DR_BODY_CHAT | DR_BODY_TOKENIZE, READ},
    {"max_completion_tokens", DR_BODY_CHAT, READ},
    {"top_logprobs", DR_BODY_CHAT, READ},
    {"chat_template_kwargs", DR_BODY_CHAT | DR_BODY_TOKENIZE, READ},
    {"add_generation_prompt", DR_BODY_CHAT | DR_BODY_TOKENIZE, READ},
    {"continue_final_message", DR_BODY_CHAT | DR_BODY_TOKENIZE, READ},
    {"response_format", DR_BODY_ANSWERS, READ}, /* refused unless {"type":"text"} */
    {"modalities", DR_BODY_CHAT, READ},         /* refused unless ["text"] */
    {"tools", DR_BODY_CHAT | DR_BODY_TOKENIZE, UNLESS_EMPTY},
    {"tool_choice", DR_BODY_CHAT, UNLESS_NONE},
    {"functions", DR_BODY_CHAT, UNLESS_EMPTY},
    {"function_call", DR_BODY_CHAT, UNLESS_NONE},
    {"audio", DR_BODY_CHAT, UNLESS_NULL},
    {"web_search_options", DR_BODY_CHAT, UNLESS_NULL},
    {"include_reasoning", DR_BODY_CHAT, UNLESS_TRUE}, /* thinking stays in the content */
    {"thinking_token_budget", DR_BODY_CHAT, UNLESS_NULL},
    {"chat_template", DR_BODY_CHAT | DR_BODY_TOKENIZE, UNLESS_NULL}, /* a client never chooses code */
    {"documents", DR_BODY_CHAT, UNLESS_EMPTY},
    /* completions, tokenize, detokenize */
    {"prompt", DR_BODY_COMPLETIONS | DR_BODY_TOKENIZE, READ},
    {"tokens", DR_BODY_DETOKENIZE, READ},
    {"echo", DR_BODY_COMPLETIONS, READ},
    {"add_special_tokens", DR_BODY_COMPLETIONS | DR_BODY_TOKENIZE, READ},
    {"return_token_strs", DR_BODY_TOKENIZE, READ},
    {"best_of", DR_BODY_COMPLETIONS, READ}, /* refused unless n */
    {"suffix", DR_BODY_COMPLETIONS, UNLESS_EMPTY},
    {"echo", DR_BODY_CHAT, UNLESS_FALSE},
    {"add_special_tokens", DR_BODY_CHAT, UNLESS_FALSE}, /* the layout has the begin token */
    {"prompt_embeds", DR_BODY_COMPLETIONS, UNLESS_NULL},
    /* constraints and searches that do not exist yet */
    {"structured_outputs", DR_BODY_ANSWERS, UNLESS_EMPTY},
    {"guided_json", DR_BODY_ANSWERS, UNLESS_NULL},
    {"guided_regex", DR_BODY_ANSWERS, UNLESS_NULL},
    {"guided_choice", DR_BODY_ANSWERS, UNLESS_NULL},
    {"guided_grammar", DR_BODY_ANSWERS, UNLESS_NULL},
    {"allowed_token_ids", DR_BODY_ANSWERS, UNLESS_EMPTY},
    {"bad_words", DR_BODY_ANSWERS, UNLESS_EMPTY},
    {"logits_processors", DR_BODY_ANSWERS, UNLESS_EMPTY},
    {"truncate_prompt_tokens", DR_BODY_ANSWERS, UNLESS_NULL},
    {"use_beam_search", DR_BODY_ANSWERS, UNLESS_FALSE},
    {"length_penalty", DR_BODY_ANSWERS, UNLESS_ONE},
    {"mm_processor_kwargs", DR_BODY_ANSWERS, UNLESS_EMPTY},
    /* accepted, without effect on the answer here */
    {"user", DR_BODY_ANSWERS, INERT},
    {"metadata", DR_BODY_ANSWERS, INERT},
    {"store", DR_BODY_ANSWERS, INERT},
    {"service_tier", DR_BODY_ANSWERS, INERT},
    {"safety_identifier", DR_BODY_ANSWERS, INERT},
    {"parallel_tool_calls", DR_BODY_CHAT, INERT},
    {"reasoning_effort", DR_BODY_CHAT, INERT},
    {"verbosity", DR_BODY_CHAT, INERT},
    {"prediction", DR_BODY_CHAT, INERT},
    {"prompt_cache_key", DR_BODY_ANSWERS, INERT},
    {"prompt_cache_options", DR_BODY_ANSWERS, INERT},
    {"prompt_cache_retention", DR_BODY_ANSWERS, INERT},
    {"spaces_between_special_tokens", DR_BODY_ANSWERS, INERT},
    {"stream_interval", DR_BODY_ANSWERS, INERT},
    {"request_id", DR_BODY_ANSWERS, INERT},
    {"session_id", DR_BODY_ANSWERS, INERT},
};

const char *dr_body_found(const json_t *v, char *room, size_t bytes) {
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return json_array_size(v) ? "an array" : "an empty array";
    case JSON_STRING:
        return json_string_length(v) ? "a string" : "an empty string";
    case JSON_INTEGER:
        snprintf(room, bytes, "%lld", (long long)json_integer_value(v));
        return room;
    case JSON_REAL:
        snprintf(room, bytes, "%.9g", json_real_value(v));
        if (!strpbrk(room, ".en") && strlen(room) + 3 < bytes)
            strcat(room, ".0"); /* 16.0 is not the integer 16 */
        return room;
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

dr_status dr_body_parse(const char *bytes, size_t n, json_t **out, struct dr_problem *why) {
    if (n > DR_BODY_BYTES_MAX)
        return dr_problem_fail(why, (struct dr_problem_kind){.status = 413, .type = "invalid_request_error"},
                               NULL, "body of more than %d bytes", DR_BODY_BYTES_MAX);
    if (n == 0) return dr_problem_bad(why, NULL, "empty body: expected a JSON object");
    json_t *value = NULL;
    struct dr_json_limits limits = {.bytes_max = DR_BODY_BYTES_MAX, .nodes_max = DR_BODY_NODES_MAX};
    dr_status st = dr_json_parse(bytes, n, limits, &value);
    if (st.code != DR_OK) return dr_problem_bad(why, NULL, "%s", dr_error_text());
    if (!json_is_object(value)) {
        char room[40];
        st = dr_problem_bad(why, NULL, "expected a JSON object, found %s",
                            dr_body_found(value, room, sizeof room));
        json_decref(value);
        return st;
    }
    *out = value;
    return dr_ok();
}

static bool neutral(enum rule rule, const json_t *v) {
    if (json_is_null(v)) return true;
    switch (rule) {
    case READ:
    case INERT:
        return true;
    case UNLESS_NULL:
        return false;
    case UNLESS_EMPTY:
        return (json_is_string(v) && json_string_length(v) == 0) ||
               (json_is_array(v) && json_array_size(v) == 0) ||
               (json_is_object(v) && json_object_size(v) == 0);
    case UNLESS_FALSE:
        return json_is_false(v);
    case UNLESS_TRUE:
        return json_is_true(v);
    case UNLESS_NONE:
        return json_is_string(v) && strcmp(json_string_value(v), "none") == 0;
    case UNLESS_ONE:
        return json_is_number(v) && json_number_value(v) == 1.0;
    }
    return false;
}

/* FNV-1a; names are compared by it for one purpose only: not to log one twice */
static uint64_t name_hash(const char *name) {
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 1099511628211u;
    return h;
}

static void unknown(struct dr_body_names *names, const char *name) {
    if (!names) return;
    uint64_t h = name_hash(name);
    bool fresh = true;
    pthread_mutex_lock(&names->lock);
    for (int32_t i = 0; i < names->n; i++) fresh = fresh && names->hash[i] != h;
    if (names->n == DR_BODY_NAMES_MAX) fresh = false; /* someone invents names: enough has been said */
    if (fresh) names->hash[names->n++] = h;
    pthread_mutex_unlock(&names->lock);
    if (fresh) dr_log(DR_LOG_WARN, "unknown_field", "name=\"%.64s\" ignored, here and from now on", name);
}

dr_status dr_body_check(const struct dr_body *b, int endpoint, struct dr_body_names *names) {
    const char *name;
    json_t *value;
    json_object_foreach(b->object, name, value) {
        const struct known *k = NULL;
        for (size_t i = 0; i < sizeof table / sizeof *table && !k; i++)
            if ((table[i].endpoints & endpoint) && strcmp(table[i].name, name) == 0) k = &table[i];
        if (!k)
            unknown(names, name);
        else if (!neutral(k->rule, value))
            return dr_problem_bad(b->why, name, "%s: not supported with this value; leave it out", name);
    }
    return dr_ok();
}

/* NULL when absent or null */
static const json_t *field(const struct dr_body *b, const char *name) {
    const json_t *v = json_object_get(b->object, name);
    return json_is_null(v) ? NULL : v;
}

static dr_status mismatch(const struct dr_body *b, const char *name, const json_t *v, const char *expected) {
    char param[96], room[40];
    snprintf(param, sizeof param, "%s%s", b->prefix, name);
    return dr_problem_bad(b->why, param, "%s: expected %s, found %s", param, expected,
                          dr_body_found(v, room, sizeof room));
}

dr_status dr_body_int(const struct dr_body *b, const char *name, int64_t least, int64_t most, int64_t *out) {
    const json_t *v = field(b, name);
    if (!v) return dr_ok();
    char expected[80];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least, (long long)most);
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return mismatch(b, name, v, expected);
    *out = json_integer_value(v);
    return dr_ok();
}

dr_status dr_body_int32(const struct dr_body *b, const char *name, int32_t least, int32_t most,
                        int32_t *out) {
    int64_t wide = *out;
    DR_TRY(dr_body_int(b, name, least, most, &wide));
    *out = (int32_t)wide;
    return dr_ok();
}

dr_status dr_body_float(const struct dr_body *b, const char *name, double least, double most, float *out) {
    const json_t *v = field(b, name);
    if (!v) return dr_ok();
    char expected[80];
    snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    double x = json_number_value(v);
    if (!json_is_number(v) || !isfinite(x) || x < least || x > most) return mismatch(b, name, v, expected);
    *out = (float)x;
    return dr_ok();
}

dr_status dr_body_bool(const struct dr_body *b, const char *name, bool *out) {
    const json_t *v = field(b, name);
    if (!v) return dr_ok();
    if (!json_is_boolean(v)) return mismatch(b, name, v, "true or false");
    *out = json_is_true(v);
    return dr_ok();
}

dr_status dr_body_text(const struct dr_body *b, const char *name, size_t bytes_max, const char **out) {
    const json_t *v = field(b, name);
    if (!v) return dr_ok();
    char expected[80];
    snprintf(expected, sizeof expected, "a string of at most %zu bytes", bytes_max);
    if (!json_is_string(v)) return mismatch(b, name, v, expected);
    if (json_string_length(v) > bytes_max) {
        char param[96];
        snprintf(param, sizeof param, "%s%s", b->prefix, name);
        return dr_problem_bad(b->why, param, "%s: expected %s, found one of %zu", param, expected,
                              json_string_length(v));
    }
    *out = json_string_value(v);
    return dr_ok();
}

dr_status dr_body_ids(const struct dr_body *b, const char *name, const json_t *list, uint32_t vocab,
                      size_t most, struct dr_ids *out) {
    size_t n = json_array_size(list);
    char param[96], room[40];
    snprintf(param, sizeof param, "%s%s", b->prefix, name);
    if (!json_is_array(list) || n == 0 || n > most)
        return dr_problem_bad(b->why, param, "%s: expected a list of 1 to %zu token ids, found %s", param,
                              most, n > most ? "more" : dr_body_found(list, room, sizeof room));
    DR_TRY(dr_ids_reserve(out, n));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= (json_int_t)vocab)
            return dr_problem_bad(b->why, param, "%s[%zu]: expected a token id from 0 to %u, found %s", param,
                                  i, vocab - 1, dr_body_found(v, room, sizeof room));
        DR_TRY(dr_ids_push(out, (uint32_t)json_integer_value(v)));
    }
    return dr_ok();
}
