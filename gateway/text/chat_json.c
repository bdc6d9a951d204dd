/* chat_json.c - the messages of an OpenAI request as a struct dr_chat_talk.
 * In:   a JSON array from a client.      Out: messages that borrow its strings.
 * Owns: what the talk owns.
 * Why:  every field is checked here, with its place in words, before a layout looks at it. */
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "gateway/text/chat.h"

static const char *kind_of(const json_t *value) {
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static struct dr_chat_string string_of(const json_t *value) {
    return (struct dr_chat_string){.at = json_string_value(value), .n = json_string_length(value)};
}

/* A field that may be left out or null. */
static dr_status optional_string(const json_t *object, size_t i, const char *key,
                                 struct dr_chat_string *out) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return dr_ok();
    if (!json_is_string(value))
        return dr_fail(DR_EINVAL, "messages[%zu].%s: expected a string, found %s", i, key, kind_of(value));
    *out = string_of(value);
    return dr_ok();
}

static dr_status read_role(const json_t *message, size_t i, enum dr_chat_role *role) {
    static const struct {
        const char *name;
        enum dr_chat_role role;
    } roles[] = {
        {.name = "system", .role = DR_CHAT_SYSTEM}, {.name = "developer", .role = DR_CHAT_SYSTEM},
        {.name = "user", .role = DR_CHAT_USER},     {.name = "assistant", .role = DR_CHAT_ASSISTANT},
        {.name = "tool", .role = DR_CHAT_TOOL},
    };
    const json_t *value = json_object_get(message, "role");
    if (!json_is_string(value))
        return dr_fail(DR_EINVAL, "messages[%zu].role: expected a string, found %s", i, kind_of(value));
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++)
        if (strcmp(json_string_value(value), roles[k].name) == 0) {
            *role = roles[k].role;
            return dr_ok();
        }
    return dr_fail(DR_EINVAL, "messages[%zu].role: expected system, developer, user, assistant or tool", i);
}

/* Checks the parts of a content and adds up their bytes. */
static dr_status measure_parts(json_t *parts, size_t i, size_t *bytes) {
    size_t k;
    json_t *part;
    json_array_foreach(parts, k, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!json_is_object(part) || !type)
            return dr_fail(DR_EINVAL, "messages[%zu].content[%zu]: expected an object with a type", i, k);
        if (strcmp(type, "text") != 0)
            return dr_fail(DR_EINVAL, "messages[%zu].content[%zu].type: only text parts are supported", i, k);
        const json_t *text = json_object_get(part, "text");
        if (!json_is_string(text))
            return dr_fail(DR_EINVAL, "messages[%zu].content[%zu].text: expected a string, found %s", i, k,
                           kind_of(text));
        if (!dr_size_add(*bytes, json_string_length(text) + 1, bytes))
            return dr_fail(DR_EFULL, "messages[%zu].content: too long", i);
    }
    return dr_ok();
}

static dr_status read_content(json_t *message, size_t i, struct dr_chat_talk *talk) {
    struct dr_chat_message *m = &talk->messages[i];
    json_t *value = json_object_get(message, "content"), *part;
    if (json_is_string(value)) {
        m->content = string_of(value);
    } else if (json_is_array(value)) {
        size_t start = talk->joined.n,
               k; /* room was made for all parts of all messages: the text does not move */
        json_array_foreach(value, k, part) {
            const json_t *text = json_object_get(part, "text");
            DR_TRY(dr_text_push(&talk->joined, json_string_value(text), json_string_length(text)));
        }
        m->content = (struct dr_chat_string){.at = talk->joined.at ? talk->joined.at + start : "",
                                             .n = talk->joined.n - start};
    } else if (value && !json_is_null(value)) {
        return dr_fail(DR_EINVAL,
                       "messages[%zu].content: expected a string or a list of text parts, found %s", i,
                       kind_of(value));
    } else if (m->n_calls == 0) {
        return dr_fail(DR_EINVAL,
                       "messages[%zu].content: only an assistant message with tool_calls may leave it out",
                       i);
    }
    return dr_ok();
}

static dr_status read_call(const json_t *json, size_t i, size_t k, struct dr_chat_call *call) {
    if (!json_is_object(json))
        return dr_fail(DR_EINVAL, "messages[%zu].tool_calls[%zu]: expected an object, found %s", i, k,
                       kind_of(json));
    const json_t *type = json_object_get(json, "type"), *function = json_object_get(json, "function");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0))
        return dr_fail(DR_EINVAL, "messages[%zu].tool_calls[%zu].type: only function is supported", i, k);
    const struct {
        const char *path;
        const json_t *value;
        struct dr_chat_string *out;
    } fields[] = {
        {.path = "id", .value = json_object_get(json, "id"), .out = &call->id},
        {.path = "function.name", .value = json_object_get(function, "name"), .out = &call->name},
        {.path = "function.arguments",
         .value = json_object_get(function, "arguments"),
         .out = &call->arguments},
    };
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        if (!json_is_string(fields[f].value))
            return dr_fail(DR_EINVAL, "messages[%zu].tool_calls[%zu].%s: expected a string, found %s", i, k,
                           fields[f].path, kind_of(fields[f].value));
        *fields[f].out = string_of(fields[f].value);
    }
    return dr_ok();
}

/* Fills calls[*n...]; the message borrows its part of them. */
static dr_status read_calls(json_t *message, size_t i, struct dr_chat_message *m, struct dr_chat_call *calls,
                            size_t *n) {
    json_t *list = json_object_get(message, "tool_calls"), *item;
    size_t k;
    if (!list || json_is_null(list)) return dr_ok();
    if (m->role != DR_CHAT_ASSISTANT)
        return dr_fail(DR_EINVAL, "messages[%zu].tool_calls: only an assistant message may have them", i);
    m->calls = calls + *n;
    json_array_foreach(list, k, item) DR_TRY(read_call(item, i, k, &calls[(*n)++]));
    m->n_calls = json_array_size(list);
    return dr_ok();
}

/* Fields of the API that would change the prompt and have no form in any layout must be empty. */
static dr_status check_rest(const json_t *message, size_t i) {
    static const char *const unsupported[] = {"function_call", "audio"};
    static const char *const dropped[] = {"refusal", "reasoning", "reasoning_content"};
    for (size_t k = 0; k < sizeof unsupported / sizeof *unsupported; k++) {
        const json_t *value = json_object_get(message, unsupported[k]);
        if (value && !json_is_null(value))
            return dr_fail(DR_EINVAL, "messages[%zu].%s: not supported; leave it out", i, unsupported[k]);
    }
    /* Earlier reasoning and refusals belong to no prompt of these layouts; only their types are checked. */
    struct dr_chat_string unused = {.at = NULL};
    for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
        DR_TRY(optional_string(message, i, dropped[k], &unused));
    return dr_ok();
}

static dr_status read_message(json_t *json, size_t i, struct dr_chat_talk *talk, size_t *n_calls) {
    struct dr_chat_message *m = &talk->messages[i];
    DR_TRY(read_role(json, i, &m->role));
    DR_TRY(read_calls(json, i, m, talk->calls, n_calls));
    DR_TRY(read_content(json, i, talk));
    DR_TRY(optional_string(json, i, "name", &m->name));
    DR_TRY(optional_string(json, i, "tool_call_id", &m->tool_call_id));
    if (m->role == DR_CHAT_TOOL && !m->tool_call_id.at)
        return dr_fail(DR_EINVAL, "messages[%zu].tool_call_id: a tool message needs it", i);
    return check_rest(json, i);
}

/* Counts what has to be allocated, checking the shapes it counts. */
static dr_status measure(json_t *messages, size_t *n_calls, size_t *bytes) {
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message) {
        json_t *content = json_object_get(message, "content"),
               *calls = json_object_get(message, "tool_calls");
        if (!json_is_object(message))
            return dr_fail(DR_EINVAL, "messages[%zu]: expected an object, found %s", i, kind_of(message));
        if (calls && !json_is_null(calls) && !json_is_array(calls))
            return dr_fail(DR_EINVAL, "messages[%zu].tool_calls: expected an array, found %s", i,
                           kind_of(calls));
        *n_calls += json_array_size(calls);
        if (json_is_array(content)) DR_TRY(measure_parts(content, i, bytes));
    }
    return dr_ok();
}

static dr_status read_all(json_t *messages, size_t n_calls, size_t bytes, struct dr_chat_talk *talk) {
    size_t i, at = 0;
    json_t *message;
    talk->n = json_array_size(messages);
    talk->messages = calloc(talk->n, sizeof *talk->messages);
    talk->calls = calloc(n_calls + 1, sizeof *talk->calls);
    talk->joined = (struct dr_text){.at = calloc(bytes + 1, 1), .room = bytes + 1};
    if (!talk->messages || !talk->calls || !talk->joined.at)
        return dr_fail(DR_EFULL, "no memory for %zu messages", talk->n);
    json_array_foreach(messages, i, message) DR_TRY(read_message(message, i, talk, &at));
    return dr_ok();
}

dr_status dr_chat_from_json(json_t *messages, struct dr_chat_talk *talk) {
    if (!json_is_array(messages))
        return dr_fail(DR_EINVAL, "messages: expected an array, found %s", kind_of(messages));
    if (json_array_size(messages) == 0) return dr_fail(DR_EINVAL, "messages: expected at least one");
    size_t n_calls = 0, bytes = 0;
    DR_TRY(measure(messages, &n_calls, &bytes));
    struct dr_chat_talk fresh = {.json = json_incref(messages)};
    dr_status st = read_all(messages, n_calls, bytes, &fresh);
    if (st.code != DR_OK)
        dr_chat_talk_fini(&fresh);
    else
        *talk = fresh;
    return st;
}

void dr_chat_talk_fini(struct dr_chat_talk *talk) {
    free(talk->messages);
    free(talk->calls);
    dr_text_fini(&talk->joined);
    json_decref(talk->json);
    *talk = (struct dr_chat_talk){0};
}
