/* chat_layouts.c - the prompt layouts of the family.
 * In:   messages.      Out: writes of a dr_chat_writer.
 * Owns: nothing.
 * Why:  each function reads like the published template it stands for; differences to it are named here. */
#include <stdio.h>
#include <string.h>

#include "gateway/text/chat_writer.h"

/* What all layouts read. */
struct talk {
    const struct dr_chat_message *at;
    size_t n;
    struct dr_chat_options options;
};

#define CTL(name)   dr_chat_writer_control(w, DR_CONTROL_##name)
#define LIT(text)   dr_chat_writer_literal(w, text)
#define TXT(string) dr_chat_writer_text(w, string)

/* The message that continue_final_message leaves open. */
static bool stays_open(const struct talk *t, size_t i) {
    return t->options.continue_final_message && i + 1 == t->n;
}

static dr_status no_tools(const struct talk *t, size_t i, const char *layout) {
    if (t->at[i].role == DR_CHAT_TOOL)
        return dr_fail(DR_EINVAL, "messages[%zu]: layout %s has no form for tool messages", i, layout);
    if (t->at[i].n_calls > 0)
        return dr_fail(DR_EINVAL, "messages[%zu].tool_calls: layout %s has no form for tool calls", i,
                       layout);
    return dr_ok();
}

/* What follows the first or the last </think> of s, all of s without one. */
static struct dr_chat_string after_think(struct dr_chat_string s, bool last) {
    const char *mark = dr_chat_control_text(DR_CONTROL_THINK_END);
    size_t n = strlen(mark);
    for (const char *hit; (hit = memmem(s.at, s.n, mark, n)) != NULL;) {
        s.n -= (size_t)(hit - s.at) + n;
        s.at = hit + n;
        if (!last) break;
    }
    return s;
}

static dr_status render_v2(struct dr_chat_writer *w, const struct talk *t) {
    CTL(BOS);
    for (size_t i = 0; i < t->n; i++) {
        DR_TRY(no_tools(t, i, "v2"));
        if (t->at[i].role == DR_CHAT_ASSISTANT) {
            LIT("Assistant: ");
            TXT(t->at[i].content);
            if (!stays_open(t, i)) CTL(EOS);
        } else {
            if (t->at[i].role == DR_CHAT_USER) LIT("User: ");
            TXT(t->at[i].content);
            LIT("\n\n");
        }
    }
    if (t->options.add_generation_prompt) LIT("Assistant:");
    return dr_ok();
}

static dr_status render_lexi(struct dr_chat_writer *w, const struct talk *t) {
    CTL(BOS);
    for (size_t i = 0; i < t->n; i++) {
        DR_TRY(no_tools(t, i, "lexi"));
        if (t->at[i].role == DR_CHAT_USER) CTL(USER);
        if (t->at[i].role == DR_CHAT_ASSISTANT) CTL(ASSISTANT);
        TXT(t->at[i].content);
        if (t->at[i].role == DR_CHAT_ASSISTANT && !stays_open(t, i)) CTL(EOS);
    }
    if (t->options.add_generation_prompt && t->at[t->n - 1].role == DR_CHAT_USER) CTL(ASSISTANT);
    return dr_ok();
}

/* All system messages of the conversation, wherever they stand. */
static void system_prompt(struct dr_chat_writer *w, const struct talk *t) {
    bool first = true;
    for (size_t i = 0; i < t->n; i++) {
        if (t->at[i].role != DR_CHAT_SYSTEM) continue;
        if (!first) LIT("\n\n");
        first = false;
        TXT(t->at[i].content);
    }
}

static void calls_v3(struct dr_chat_writer *w, const struct dr_chat_message *m) {
    TXT(m->content);
    CTL(CALLS);
    for (size_t k = 0; k < m->n_calls; k++) {
        if (k > 0) LIT("\n");
        CTL(CALL);
        LIT("function");
        CTL(SEP);
        TXT(m->calls[k].name);
        LIT("\n```json\n");
        TXT(m->calls[k].arguments);
        LIT("\n```");
        CTL(CALL_END);
    }
    CTL(CALLS_END);
    CTL(EOS);
}

/* V3 and R1. The template sets the flags for the first call and the first result once in a conversation; here
 * they are set once in each round, and calls that answer results follow them like any reply: closed, without
 * a mark. */
static dr_status render_v3(struct dr_chat_writer *w, const struct talk *t) {
    bool is_tool = false;
    CTL(BOS);
    system_prompt(w, t);
    for (size_t i = 0; i < t->n; i++) {
        const struct dr_chat_message *m = &t->at[i];
        if (m->role == DR_CHAT_USER) {
            is_tool = false;
            CTL(USER);
            TXT(m->content);
        } else if (m->role == DR_CHAT_ASSISTANT) {
            if (is_tool)
                CTL(OUTPUTS_END);
            else
                CTL(ASSISTANT);
            if (m->n_calls > 0) {
                calls_v3(w, m);
            } else {
                TXT(is_tool ? m->content : after_think(m->content, true));
                if (!stays_open(t, i)) CTL(EOS);
            }
            is_tool = false;
        } else if (m->role == DR_CHAT_TOOL) {
            if (!is_tool) CTL(OUTPUTS);
            is_tool = true;
            CTL(OUTPUT);
            TXT(m->content);
            CTL(OUTPUT_END);
        }
    }
    if (is_tool) CTL(OUTPUTS_END);
    if (t->options.add_generation_prompt && !is_tool) {
        CTL(ASSISTANT);
        if (w->chat->layout == DR_CHAT_R1) {
            CTL(THINK);
            LIT("\n");
        }
    }
    return dr_ok();
}

static void calls_v31(struct dr_chat_writer *w, const struct dr_chat_message *m) {
    TXT(m->content);
    CTL(CALLS);
    for (size_t k = 0; k < m->n_calls; k++) {
        CTL(CALL);
        TXT(m->calls[k].name);
        CTL(SEP);
        TXT(m->calls[k].arguments);
        CTL(CALL_END);
    }
    CTL(CALLS_END);
    CTL(EOS);
}

/* The assistant's own text. Continued in thinking mode it is reasoning as long as no </think> is in it. */
static void reply_v31(struct dr_chat_writer *w, const struct talk *t, size_t i, bool after_user,
                      bool is_tool) {
    struct dr_chat_string content = t->at[i].content, rest = after_think(content, false);
    if (after_user) {
        CTL(ASSISTANT);
        if (stays_open(t, i) && t->options.thinking && rest.at == content.at)
            CTL(THINK);
        else
            CTL(THINK_END);
    }
    TXT(is_tool ? content : rest);
    if (!stays_open(t, i)) CTL(EOS);
}

static dr_status render_v31(struct dr_chat_writer *w, const struct talk *t) {
    bool is_tool = false, after_user = false;
    CTL(BOS);
    system_prompt(w, t);
    for (size_t i = 0; i < t->n; i++) {
        const struct dr_chat_message *m = &t->at[i];
        if (m->role == DR_CHAT_SYSTEM) continue;
        if (m->role == DR_CHAT_USER) {
            CTL(USER);
            TXT(m->content);
        } else if (m->role == DR_CHAT_TOOL) {
            CTL(OUTPUT);
            TXT(m->content);
            CTL(OUTPUT_END);
        } else if (m->n_calls > 0) {
            if (after_user) {
                CTL(ASSISTANT);
                CTL(THINK_END);
            }
            calls_v31(w, m);
        } else {
            reply_v31(w, t, i, after_user, is_tool);
        }
        after_user = m->role == DR_CHAT_USER;
        is_tool = m->role == DR_CHAT_TOOL;
    }
    if (t->options.add_generation_prompt && after_user) {
        CTL(ASSISTANT);
        if (t->options.thinking)
            CTL(THINK);
        else
            CTL(THINK_END);
    }
    return dr_ok();
}

static const char kimi_prefix[] = "functions.";

/* An id of the form functions.NAME:IDX, which the model itself writes. */
static bool kimi_id(struct dr_chat_string id) {
    size_t n = sizeof kimi_prefix - 1, i = id.n;
    if (id.n <= n || memcmp(id.at, kimi_prefix, n) != 0) return false;
    while (i > n && id.at[i - 1] >= '0' && id.at[i - 1] <= '9') i--;
    return i < id.n && i > n + 1 && id.at[i - 1] == ':';
}

/* Other ids (call_1) are those of another model: the name and the number of the call in the conversation
 * stand in. */
static void write_kimi_id(struct dr_chat_writer *w, const struct dr_chat_call *call, size_t index) {
    if (kimi_id(call->id)) {
        TXT(call->id);
        return;
    }
    char number[24];
    snprintf(number, sizeof number, ":%zu", index);
    LIT(kimi_prefix);
    TXT(call->name);
    LIT(number);
}

/* The id of a result as its call was written; an id that no earlier call has stays as it is. */
static void write_result_id(struct dr_chat_writer *w, const struct talk *t, size_t i) {
    struct dr_chat_string id = t->at[i].tool_call_id;
    const struct dr_chat_call *found = NULL;
    size_t index = 0, found_index = 0;
    for (size_t j = 0; j < i; j++)
        for (size_t k = 0; k < t->at[j].n_calls; k++, index++) {
            const struct dr_chat_call *call = &t->at[j].calls[k];
            if (call->id.n != id.n || memcmp(call->id.at, id.at, id.n) != 0) continue;
            found = call; /* the latest one: some clients count from the start in each round */
            found_index = index;
        }
    if (found)
        write_kimi_id(w, found, found_index);
    else
        TXT(id);
}

static void head_kimi(struct dr_chat_writer *w, enum dr_chat_control control, struct dr_chat_string name,
                      const char *role) {
    dr_chat_writer_control(w, control);
    if (name.at && name.n > 0)
        TXT(name);
    else
        LIT(role);
    CTL(IM_MIDDLE);
}

static dr_status render_kimi(struct dr_chat_writer *w, const struct talk *t) {
    static const char *const roles[DR_CHAT_ROLE_COUNT] = {"system", "user", "assistant", "tool"};
    static const enum dr_chat_control heads[DR_CHAT_ROLE_COUNT] = {
        DR_CONTROL_IM_SYSTEM, DR_CONTROL_IM_USER, DR_CONTROL_IM_ASSISTANT, DR_CONTROL_IM_SYSTEM};
    const struct dr_chat_string none = {.at = NULL};
    size_t index = 0;
    if (t->at[0].role != DR_CHAT_SYSTEM) {
        head_kimi(w, DR_CONTROL_IM_SYSTEM, none, "system");
        LIT("You are a helpful assistant");
        CTL(IM_END);
    }
    for (size_t i = 0; i < t->n; i++) {
        const struct dr_chat_message *m = &t->at[i];
        head_kimi(w, heads[m->role], m->name, roles[m->role]);
        if (m->role == DR_CHAT_TOOL) {
            LIT("## Return of ");
            write_result_id(w, t, i);
            LIT("\n");
        }
        TXT(m->content);
        if (m->n_calls > 0) CTL(SECTION);
        for (size_t k = 0; k < m->n_calls; k++, index++) {
            CTL(KCALL);
            write_kimi_id(w, &m->calls[k], index);
            CTL(KCALL_ARGUMENT);
            TXT(m->calls[k].arguments);
            CTL(KCALL_END);
        }
        if (m->n_calls > 0) CTL(SECTION_END);
        if (!stays_open(t, i)) CTL(IM_END);
    }
    if (t->options.add_generation_prompt) head_kimi(w, DR_CONTROL_IM_ASSISTANT, none, "assistant");
    return dr_ok();
}

static dr_status check(const struct talk *t) {
    for (size_t i = 0; i < t->n; i++) {
        const struct dr_chat_message *m = &t->at[i];
        DR_ASSERT(m->role >= 0 && m->role < DR_CHAT_ROLE_COUNT);
        if (!m->content.at && m->n_calls == 0)
            return dr_fail(
                DR_EINVAL,
                "messages[%zu].content: only an assistant message with tool_calls may leave it out", i);
        if (m->role == DR_CHAT_TOOL && !m->tool_call_id.at)
            return dr_fail(DR_EINVAL, "messages[%zu].tool_call_id: a tool message needs it", i);
    }
    const struct dr_chat_message *last = &t->at[t->n - 1];
    if (!t->options.continue_final_message) return dr_ok();
    if (t->options.add_generation_prompt)
        return dr_fail(
            DR_EINVAL,
            "continue_final_message and add_generation_prompt exclude each other; set one of them");
    if (last->role != DR_CHAT_ASSISTANT || last->n_calls > 0)
        return dr_fail(DR_EINVAL,
                       "messages[%zu]: continue_final_message needs an assistant message without tool_calls",
                       t->n - 1);
    return dr_ok();
}

static dr_status render(struct dr_chat_writer *w, const struct talk *t) {
    switch (w->chat->layout) {
    case DR_CHAT_V2:
        return render_v2(w, t);
    case DR_CHAT_V3:
    case DR_CHAT_R1:
        return render_v3(w, t);
    case DR_CHAT_V31:
        return render_v31(w, t);
    case DR_CHAT_KIMI_K2:
        return render_kimi(w, t);
    case DR_CHAT_LEXI:
        return render_lexi(w, t);
    case DR_CHAT_NONE:
    case DR_CHAT_LAYOUT_COUNT:
        break;
    }
    return dr_fail(DR_EINVAL, "there is no chat layout");
}

dr_status dr_chat_render(const struct dr_chat *c, const struct dr_chat_message *messages, size_t n,
                         struct dr_chat_options options, struct dr_chat_prompt *out) {
    const struct talk talk = {.at = messages, .n = n, .options = options};
    struct dr_chat_writer w = {.chat = c, .out = out, .run = out->text.n};
    if (n == 0) return dr_fail(DR_EINVAL, "messages: expected at least one");
    DR_TRY(check(&talk));
    DR_TRY(render(&w, &talk));
    return dr_chat_writer_end(&w);
}

void dr_chat_prompt_fini(struct dr_chat_prompt *prompt) {
    dr_ids_fini(&prompt->ids);
    dr_text_fini(&prompt->text);
}
