/* ask.h - one request for answers: prompts and parameters.
 * In:   the body of /v1/chat/completions or /v1/completions.      Out: token ids of each prompt, checked
 * parameters. Owns: the JSON tree, prompts, conversation. Why:  reading (pure, fuzzed) and tokenizing (slow)
 * are two calls; what follows no longer cares which endpoint it was. */
#pragma once

#include "gateway/api/params.h"

enum { DR_ASK_PROMPTS_MAX = 128, DR_ASK_SEQUENCES_MAX = 256 };

struct dr_ask_prompt {
    const char *text; /* borrowed from the body; NULL: given as ids */
    size_t bytes;
    struct dr_ids ids; /* owned */
};

struct dr_ask {
    bool chat; /* else completions */
    struct dr_params params;
    int32_t top; /* alternatives a token; -1: no log-probabilities */
    bool echo;
    bool add_special; /* completions: BOS in front of a text prompt, if the model wants it */
    int32_t n_prompt;
    struct dr_ask_prompt *prompt; /* owned, [n_prompt] */
    struct dr_chat_talk talk;     /* chat */
    struct dr_chat_options options;
    json_t *body; /* owned */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a whole body; `names` as in body.h. *ask: all zero. Fails: EREQUEST with *why; _fini is legal then.
 */
DR_FALLIBLE dr_ask_read(struct dr_ask *ask, bool chat, const struct dr_kit *kit, const char *bytes, size_t n,
                        struct dr_body_names *names, struct dr_problem *why);

/* Texts to ids; every prompt fits the context afterwards. Fails: EREQUEST with *why. */
DR_FALLIBLE dr_ask_encode(struct dr_ask *ask, const struct dr_kit *kit, struct dr_problem *why);
void dr_ask_fini(struct dr_ask *ask);

/* The fields of a conversation: messages, add_generation_prompt, continue_final_message,
 * chat_template_kwargs; the same for chat and /tokenize. Fails: EREQUEST. */
DR_FALLIBLE dr_ask_talk(const struct dr_kit *kit, const struct dr_body *b, struct dr_chat_talk *talk,
                        struct dr_chat_options *options);

#ifdef __cplusplus
}
#endif
