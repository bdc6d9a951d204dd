/* chat.c - layouts by name and by template, and the ids of their control tokens.
 * In:   names, template texts, a tokenizer.      Out: struct dr_chat.
 * Owns: nothing.
 * Why:  templates are programs from a model's files; none of them is run, they only choose among known
 * layouts. */
#include "gateway/text/chat.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

#include "gateway/text/chat_writer.h"

static const char *const names[DR_CHAT_LAYOUT_COUNT] = {
    [DR_CHAT_NONE] = "none", [DR_CHAT_V2] = "v2",           [DR_CHAT_V3] = "v3",     [DR_CHAT_R1] = "r1",
    [DR_CHAT_V31] = "v3.1",  [DR_CHAT_KIMI_K2] = "kimi-k2", [DR_CHAT_LEXI] = "lexi",
};

#define DR_X_(name, text) [DR_CONTROL_##name] = text,
static const char *const controls[DR_CONTROL_COUNT] = {DR_CHAT_CONTROLS(DR_X_)};
#undef DR_X_

const char *dr_chat_control_text(enum dr_chat_control control) {
    return controls[control];
}

enum dr_chat_layout dr_chat_find(const char *name) {
    if (strcmp(name, "v31") == 0) return DR_CHAT_V31;
    for (int i = DR_CHAT_NONE + 1; i < DR_CHAT_LAYOUT_COUNT; i++)
        if (strcmp(name, names[i]) == 0) return (enum dr_chat_layout)i;
    return DR_CHAT_NONE;
}

const char *dr_chat_name(enum dr_chat_layout layout) {
    return layout >= 0 && layout < DR_CHAT_LAYOUT_COUNT ? names[layout] : names[DR_CHAT_NONE];
}

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* Whether a Jinja template uses this variable: the word by itself, in {{ }} or {% %}, outside of quotes. */
static bool has_variable(const char *template, const char *word) {
    size_t n = strlen(word);
    bool inside = false;
    char quote = 0;
    for (const char *p = template; *p; p++) {
        if (!inside) {
            if (p[0] == '{' && (p[1] == '{' || p[1] == '%')) {
                inside = true;
                p++;
            }
        } else if (quote) {
            if (*p == '\\' && p[1])
                p++;
            else if (*p == quote)
                quote = 0;
        } else if (*p == '\'' || *p == '"') {
            quote = *p;
        } else if ((*p == '}' || *p == '%') && p[1] == '}') {
            inside = false;
            p++;
        } else if (!is_word(p[-1]) && p[-1] != '.' && strncmp(p, word, n) == 0 && !is_word(p[n])) {
            return true;
        }
    }
    return false;
}

enum dr_chat_layout dr_chat_detect(const char *chat_template) {
    const char *t = chat_template;
    if (!t) return DR_CHAT_NONE;
    if (strstr(t, controls[DR_CONTROL_IM_MIDDLE])) return DR_CHAT_KIMI_K2;
    bool user = strstr(t, controls[DR_CONTROL_USER]) != NULL;
    if (strstr(t, "User: ") && !user) return DR_CHAT_V2;
    if (has_variable(t, "thinking")) return DR_CHAT_V31;
    /* In a template the newline is usually the two characters of an escape sequence. */
    if (strstr(t, "<｜Assistant｜><think>\\n") || strstr(t, "<｜Assistant｜><think>\n")) return DR_CHAT_R1;
    if (!user) return DR_CHAT_NONE;
    /* The sample model's template has neither tools nor a collected system prompt; every template of DeepSeek
     * has. */
    return strstr(t, "tool") || strstr(t, "system_prompt") ? DR_CHAT_V3 : DR_CHAT_LEXI;
}

/* Bits of the controls that a layout writes. */
static uint32_t needed(enum dr_chat_layout layout) {
#define BIT(name) (1u << DR_CONTROL_##name)
    const uint32_t base = BIT(BOS) | BIT(EOS), turns = base | BIT(USER) | BIT(ASSISTANT);
    const uint32_t tools =
        BIT(CALLS) | BIT(CALLS_END) | BIT(CALL) | BIT(CALL_END) | BIT(SEP) | BIT(OUTPUT) | BIT(OUTPUT_END);
    const uint32_t outputs = BIT(OUTPUTS) | BIT(OUTPUTS_END);
    switch (layout) {
    case DR_CHAT_V2:
        return base;
    case DR_CHAT_LEXI:
        return turns;
    case DR_CHAT_V3:
        return turns | tools | outputs;
    case DR_CHAT_R1:
        return turns | tools | outputs | BIT(THINK);
    case DR_CHAT_V31:
        return turns | tools | BIT(THINK) | BIT(THINK_END);
    case DR_CHAT_KIMI_K2:
        return BIT(IM_USER) | BIT(IM_ASSISTANT) | BIT(IM_SYSTEM) | BIT(IM_MIDDLE) | BIT(IM_END) |
               BIT(SECTION) | BIT(SECTION_END) | BIT(KCALL) | BIT(KCALL_ARGUMENT) | BIT(KCALL_END);
    case DR_CHAT_NONE:
    case DR_CHAT_LAYOUT_COUNT:
        break;
    }
    return 0;
#undef BIT
}
static_assert(DR_CONTROL_COUNT <= 32, "needed() keeps the controls of a layout in 32 bits");

/* A control token must be one id, and its text alone must not lead to that id. */
static dr_status resolve(struct dr_chat *c, enum dr_chat_control control) {
    const char *text = controls[control];
    if (!dr_tokenizer_added_id(c->tokenizer, text, strlen(text), &c->id[control]))
        return dr_fail(
            DR_EMODEL,
            "layout %s needs the control token %s, which the tokenizer lacks; choose another template",
            dr_chat_name(c->layout), text);
    struct dr_ids spelled = {0};
    dr_status st = dr_tokenizer_encode(c->tokenizer, text, strlen(text), DR_ADDED_OFF, &spelled);
    for (size_t i = 0; i < spelled.n && st.code == DR_OK; i++)
        if (dr_tokenizer_is_added(c->tokenizer, spelled.at[i]))
            st = dr_fail(
                DR_EMODEL,
                "layout %s: the tokenizer's merges spell the control token %s, so user text could forge it",
                dr_chat_name(c->layout), text);
    dr_ids_fini(&spelled);
    return st;
}

dr_status dr_chat_init(struct dr_chat *c, enum dr_chat_layout layout, const struct dr_tokenizer *t) {
    uint32_t needs = needed(layout);
    if (!needs)
        return dr_fail(DR_EINVAL, "there is no chat layout; name one of v2, v3, r1, v3.1, kimi-k2, lexi");
    struct dr_chat fresh = {.layout = layout, .tokenizer = t};
    for (int k = 0; k < DR_CONTROL_COUNT; k++) {
        fresh.id[k] = DR_TOKENIZER_NONE;
        if (t && needs >> k & 1) DR_TRY(resolve(&fresh, (enum dr_chat_control)k));
    }
    *c = fresh;
    return dr_ok();
}
