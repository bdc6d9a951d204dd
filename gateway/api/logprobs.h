/* logprobs.h - log-probabilities in the two forms that OpenAI's endpoints have.
 * In:   tokens with their alternatives.      Out: JSON, at once or in parts.
 * Owns: text not yet written.
 * Why:  chat wants a list of objects, completions four parallel arrays; answers differ in nothing else. */
#pragma once

#include "gateway/api/generation.h"
#include "gateway/api/json_out.h"

struct dr_logprobs {
    bool chat, ids_as_tokens;
    bool skip_special; /* special tokens are not in the text: they take no place in text_offset */
    int32_t n;         /* tokens waiting to be written */
    uint32_t offset;   /* completions: characters in front of the next token */
    struct dr_json_out
        entry[4]; /* chat: [0]; completions: tokens, token_logprobs, top_logprobs, text_offset */
};

#ifdef __cplusplus
extern "C" {
#endif

/* One token; top: how many of its alternatives, at most; known: false for the first token of a prompt, which
 * has no log-probability. */
void dr_logprobs_add(struct dr_logprobs *l, const struct dr_kit *kit, const struct dr_piece_token *token,
                     int32_t top, bool known);

/* Writes the object with what was added since the last call. */
void dr_logprobs_write(struct dr_logprobs *l, struct dr_json_out *out);
void dr_logprobs_fini(struct dr_logprobs *l);

/* One element of vLLM's prompt_logprobs: {"ID":{"logprob","rank","decoded_token"}, ...}; rank of an
 * alternative is its place, of a token outside them null. */
void dr_logprobs_prompt(struct dr_json_out *out, const struct dr_kit *kit, const struct dr_piece_token *token,
                        int32_t top);

#ifdef __cplusplus
}
#endif
