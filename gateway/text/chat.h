/* chat.h - a conversation to the prompt a model was trained on.
 * In:   messages.      Out: token ids and the text a person would read.
 * Owns: ids of control tokens (dr_chat), messages read from JSON (dr_chat_talk); the tokenizer is borrowed.
 * Why:  control ids come from the layout alone; what users write stays text, also if it looks like a token.
 */
#pragma once

#include <jansson.h>

#include "gateway/text/tokenizer.h"

enum dr_chat_layout {
    DR_CHAT_NONE, /* no layout known: completions only */
    DR_CHAT_V2,
    DR_CHAT_V3,
    DR_CHAT_R1,
    DR_CHAT_V31,
    DR_CHAT_KIMI_K2,
    DR_CHAT_LEXI,
    DR_CHAT_LAYOUT_COUNT
};

/* name in the code, text in prompts */
#define DR_CHAT_CONTROLS(X)                                                                                  \
    X(BOS, "<｜begin▁of▁sentence｜>")                                                                        \
    X(EOS, "<｜end▁of▁sentence｜>")                                                                          \
    X(USER, "<｜User｜>")                                                                                    \
    X(ASSISTANT, "<｜Assistant｜>")                                                                          \
    X(THINK, "<think>")                                                                                      \
    X(THINK_END, "</think>")                                                                                 \
    X(CALLS, "<｜tool▁calls▁begin｜>")                                                                       \
    X(CALLS_END, "<｜tool▁calls▁end｜>")                                                                     \
    X(CALL, "<｜tool▁call▁begin｜>")                                                                         \
    X(CALL_END, "<｜tool▁call▁end｜>")                                                                       \
    X(SEP, "<｜tool▁sep｜>")                                                                                 \
    X(OUTPUTS, "<｜tool▁outputs▁begin｜>")                                                                   \
    X(OUTPUTS_END, "<｜tool▁outputs▁end｜>")                                                                 \
    X(OUTPUT, "<｜tool▁output▁begin｜>")                                                                     \
    X(OUTPUT_END, "<｜tool▁output▁end｜>")                                                                   \
    X(IM_USER, "<|im_user|>")                                                                                \
    X(IM_ASSISTANT, "<|im_assistant|>")                                                                      \
    X(IM_SYSTEM, "<|im_system|>")                                                                            \
    X(IM_MIDDLE, "<|im_middle|>")                                                                            \
    X(IM_END, "<|im_end|>")                                                                                  \
    X(SECTION, "<|tool_calls_section_begin|>")                                                               \
    X(SECTION_END, "<|tool_calls_section_end|>")                                                             \
    X(KCALL, "<|tool_call_begin|>")                                                                          \
    X(KCALL_ARGUMENT, "<|tool_call_argument_begin|>")                                                        \
    X(KCALL_END, "<|tool_call_end|>")

#define DR_X_(name, text) DR_CONTROL_##name,
enum dr_chat_control { DR_CHAT_CONTROLS(DR_X_) DR_CONTROL_COUNT };
#undef DR_X_

struct dr_chat {
    enum dr_chat_layout layout;
    const struct dr_tokenizer *tokenizer; /* borrowed; NULL: text only */
    uint32_t id[DR_CONTROL_COUNT];        /* set for the controls that the layout uses */
};

enum dr_chat_role { DR_CHAT_SYSTEM, DR_CHAT_USER, DR_CHAT_ASSISTANT, DR_CHAT_TOOL, DR_CHAT_ROLE_COUNT };

struct dr_chat_string {
    const char *at; /* borrowed UTF-8; NULL: absent */
    size_t n;
};

struct dr_chat_call {
    struct dr_chat_string id, name, arguments; /* arguments: JSON text, used as it is */
};

struct dr_chat_message {
    enum dr_chat_role role;
    struct dr_chat_string content;      /* absent only in an assistant message with calls */
    struct dr_chat_string name;         /* may be absent */
    struct dr_chat_string tool_call_id; /* of a tool message */
    const struct dr_chat_call *calls;   /* [n_calls] of an assistant message */
    size_t n_calls;
};

/* A conversation read from JSON; the zero object is empty. Callers that build messages by hand need none. */
struct dr_chat_talk {
    struct dr_chat_message *messages; /* owned, [n] */
    size_t n;
    struct dr_chat_call *calls; /* owned, of all messages */
    struct dr_text joined;      /* owned, contents that came in parts */
    json_t *json;               /* one reference; all other strings live in it */
};

struct dr_chat_options {
    bool add_generation_prompt;  /* end where the model begins its reply */
    bool thinking;               /* V3.1: open the reply with <think> instead of </think> */
    bool continue_final_message; /* leave the last message open, an assistant's; not with
                                    add_generation_prompt */
};

/* A rendered prompt; the zero object is empty. */
struct dr_chat_prompt {
    struct dr_ids ids; /* stays empty without a tokenizer */
    struct dr_text text;
};

#ifdef __cplusplus
extern "C" {
#endif

/* "v2", "v3", "r1", "v3.1" (or "v31"), "kimi-k2", "lexi"; DR_CHAT_NONE for any other name. */
enum dr_chat_layout dr_chat_find(const char *name);
const char *dr_chat_name(enum dr_chat_layout layout);
/* The layout of a model from the text of its chat template; NULL or unknown: DR_CHAT_NONE. */
enum dr_chat_layout dr_chat_detect(const char *chat_template);

/* t: borrowed for the life of c, or NULL to render text only. Fails: EINVAL for DR_CHAT_NONE; EMODEL naming a
 * control token that the tokenizer lacks, or that it also spells with its ordinary tokens (user text could
 * then forge it). */
DR_FALLIBLE dr_chat_init(struct dr_chat *c, enum dr_chat_layout layout, const struct dr_tokenizer *t);

/* messages: the array of an OpenAI request, kept by reference. role developer becomes system, parts of type
 * text are joined without separator. Fails: EINVAL "messages[i].field: ..."; EFULL. *talk is untouched then.
 */
DR_FALLIBLE dr_chat_from_json(json_t *messages, struct dr_chat_talk *talk);
void dr_chat_talk_fini(struct dr_chat_talk *talk);

/* Appends the prompt for messages[0..n), n > 0, to *out; thread-safe. Fails: EINVAL "messages[i]: ..." for
 * what the layout has no form for, with a tokenizer also for text that is not UTF-8; EFULL. *out may hold a
 * part of it then. */
DR_FALLIBLE dr_chat_render(const struct dr_chat *c, const struct dr_chat_message *messages, size_t n,
                           struct dr_chat_options options, struct dr_chat_prompt *out);
void dr_chat_prompt_fini(struct dr_chat_prompt *prompt);

#ifdef __cplusplus
}
#endif
