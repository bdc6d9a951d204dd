/* tokens.h - reading the bodies of /tokenize and /detokenize.
 * In:   a body.      Out: a text, a conversation, or ids.
 * Owns: the JSON tree and what was read from it.
 * Why:  reading is pure, so that it can be fuzzed without a model. */
#pragma once

#include "gateway/api/api.h"

struct dr_tokens_ask {
    bool chat, add_special, strings;
    const char *text; /* borrowed from the body */
    struct dr_chat_talk talk;
    struct dr_chat_options options;
    struct dr_ids ids;
    json_t *body; /* owned */
};

#ifdef __cplusplus
extern "C" {
#endif

/* *ask and *why: all zero. Fails: EREQUEST with *why; _fini is legal then. */
DR_FALLIBLE dr_tokens_read(struct dr_tokens_ask *ask, bool tokenize, const struct dr_kit *kit,
                           const char *bytes, size_t n, struct dr_body_names *names, struct dr_problem *why);
void dr_tokens_fini(struct dr_tokens_ask *ask);

#ifdef __cplusplus
}
#endif
