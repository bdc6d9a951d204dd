/* tokenize.c - text to ids without a cluster.
 * In:   stdin: one text, or with --jsonl an object a line.      Out: stdout: ids, or an object a line.
 * Owns: nothing.
 * Why:  tests compare ids with the published tokenizer line by line; people see how a prompt is cut. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "gateway/cli/command.h"

enum { LINE_BYTES_MAX = 16 << 20 };

static dr_status ids_json(const struct dr_ids *ids, json_t **out) {
    json_t *array = json_array();
    bool good = array != NULL;
    for (size_t i = 0; good && i < ids->n; i++)
        good = json_array_append_new(array, json_integer(ids->at[i])) == 0;
    if (!good) {
        json_decref(array);
        return dr_fail(DR_EFULL, "no memory for %zu ids", ids->n);
    }
    *out = array;
    return dr_ok();
}

static dr_status print(const struct dr_ids *ids, const struct dr_text *text) {
    json_t *array = NULL;
    DR_TRY(ids_json(ids, &array));
    json_t *out = json_pack("{s:o,s:s%}", "ids", array, "text", text->at ? text->at : "", text->n);
    return dr_output_json(out);
}

/* {"text": ...}: added tokens matched, no BOS; the answer's text is decoded from the ids. */
static dr_status take_text(const struct dr_kit *kit, const json_t *value) {
    if (!json_is_string(value)) return dr_fail(DR_EINVAL, "text: expected a string");
    if (!kit->tokenizer) return dr_fail(DR_EUSAGE, "the model's folder has no tokenizer.json");
    struct dr_ids ids = {.n = 0};
    struct dr_text text = {.n = 0};
    dr_status st = dr_tokenizer_encode(kit->tokenizer, json_string_value(value), json_string_length(value),
                                       DR_ADDED_MATCH, &ids);
    if (st.code == DR_OK) st = dr_tokenizer_decode(kit->tokenizer, ids.at, ids.n, false, &text);
    if (st.code == DR_OK) st = print(&ids, &text);
    dr_ids_fini(&ids);
    dr_text_fini(&text);
    return st;
}

static dr_status take_flag(const json_t *line, const char *name, bool fallback, bool *out) {
    const json_t *value = json_object_get(line, name);
    if (value && !json_is_boolean(value)) return dr_fail(DR_EINVAL, "%s: expected true or false", name);
    *out = value ? json_is_true(value) : fallback;
    return dr_ok();
}

/* {"messages": ...}: the answer's text is the rendered prompt. */
static dr_status take_messages(const struct dr_kit *kit, const json_t *line, json_t *messages) {
    struct dr_chat_options options = {.thinking = false};
    DR_TRY(take_flag(line, "add_generation_prompt", false, &options.add_generation_prompt));
    DR_TRY(take_flag(line, "thinking", false, &options.thinking));
    DR_TRY(take_flag(line, "continue_final_message", false, &options.continue_final_message));
    if (kit->chat.layout == DR_CHAT_NONE)
        return dr_fail(DR_EINVAL, "messages: no chat layout is known here; give --template");
    struct dr_chat_talk talk = {.n = 0};
    struct dr_chat_prompt prompt = {.ids = {.n = 0}};
    DR_TRY(dr_chat_from_json(messages, &talk));
    dr_status st = dr_chat_render(&kit->chat, talk.messages, talk.n, options, &prompt);
    if (st.code == DR_OK) st = print(&prompt.ids, &prompt.text);
    dr_chat_prompt_fini(&prompt);
    dr_chat_talk_fini(&talk);
    return st;
}

static dr_status take_line(const struct dr_kit *kit, const char *text, size_t bytes) {
    json_t *line = NULL;
    DR_TRY(dr_json_parse(text, bytes,
                         (struct dr_json_limits){.bytes_max = LINE_BYTES_MAX, .nul_allowed = true}, &line));
    json_t *value = json_object_get(line, "text"), *messages = json_object_get(line, "messages");
    dr_status st;
    if (!json_is_object(line) || !value == !messages)
        st = dr_fail(DR_EINVAL, "expected an object with either \"text\" or \"messages\"");
    else
        st = value ? take_text(kit, value) : take_messages(kit, line, messages);
    json_decref(line);
    return st;
}

static dr_status take_lines(const struct dr_kit *kit) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    dr_status st = dr_ok();
    for (uint64_t number = 1; st.code == DR_OK && (n = getline(&line, &room, stdin)) >= 0; number++) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        if (n == 0) continue;
        st = take_line(kit, line, (size_t)n);
        if (st.code != DR_OK && st.code != DR_ECANCEL)
            st = dr_fail_within(st, "line %llu: ", (unsigned long long)number);
    }
    free(line);
    return st;
}

/* Without --jsonl: all of stdin is one text; the ids come as --prompt-ids takes them. */
static dr_status take_all(const struct dr_kit *kit) {
    struct dr_text text = {.n = 0};
    struct dr_ids ids = {.n = 0};
    if (!kit->tokenizer) return dr_fail(DR_EUSAGE, "the model's folder has no tokenizer.json");
    dr_status st = dr_input_read("-", LINE_BYTES_MAX, &text);
    if (st.code == DR_OK)
        st = dr_tokenizer_encode(kit->tokenizer, text.at ? text.at : "", text.n, DR_ADDED_MATCH, &ids);
    for (size_t i = 0; st.code == DR_OK && i < ids.n; i++) {
        char number[16];
        int n = snprintf(number, sizeof number, "%s%u", i ? "," : "", ids.at[i]);
        st = dr_output_write(number, (size_t)n);
    }
    if (st.code == DR_OK) st = dr_output_write("\n", 1);
    dr_text_fini(&text);
    dr_ids_fini(&ids);
    return st;
}

dr_status dr_tokenize(struct dr_options *o, struct dr_interrupt *i) {
    (void)i;
    struct dr_kit *kit = NULL;
    DR_TRY(dr_kit_create(o, &kit));
    dr_status st = dr_option_int(o, DR_OPTION_JSONL) ? take_lines(kit) : take_all(kit);
    dr_kit_destroy(kit);
    return st;
}
