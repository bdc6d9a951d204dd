/* vocab.h - what each token id stands for.
 * In:   model.vocab and added_tokens of a tokenizer.json.      Out: bytes and kind of an id, id of a text.
 * Owns: one block of token bytes; read-only after _init, so any number of threads may look up.
 * Why:  the file writes bytes as letters of the GPT-2 alphabet; behind this header there are only bytes. */
#pragma once

#include <jansson.h>

#include "common/status.h"

enum {
    DR_VOCAB_MAX = 1 << 20,          /* ids are below it; the largest published vocabulary has 262,144 */
    DR_VOCAB_TOKEN_BYTES_MAX = 4096, /* of one token's text in the file */
};
#define DR_NO_ID UINT32_MAX

enum dr_token_kind {
    DR_TOKEN_NONE,    /* a hole: no token has this id */
    DR_TOKEN_TEXT,    /* from model.vocab only */
    DR_TOKEN_ADDED,   /* added token, stays in decoded text */
    DR_TOKEN_SPECIAL, /* added token that skip_special leaves out */
    DR_TOKEN_KIND_COUNT
};

struct dr_vocab {
    size_t n;              /* highest id + 1 */
    uint8_t *bytes;        /* owned, all tokens in id order */
    uint32_t *offset;      /* owned, [n + 1] into bytes */
    uint8_t *kind;         /* owned, [n] enum dr_token_kind */
    uint32_t byte_id[256]; /* id of the token that is this one byte; DR_NO_ID for bytes UTF-8 never uses, if
                              absent */
    uint32_t *slot;        /* owned, hash of text tokens by bytes; only with `whole` */
    size_t slot_mask;
};

#ifdef __cplusplus
extern "C" {
#endif

/* vocab: object text -> id; added: array of added tokens, or NULL; both borrowed for the call.
 * whole: also index text tokens for dr_vocab_find.
 * Fails: EINVAL for wrong types, ids out of range or given twice, an added token that contradicts the
 * vocabulary, a byte of UTF-8 without token; EFULL. *v is untouched then. */
DR_FALLIBLE dr_vocab_init(struct dr_vocab *v, json_t *vocab, json_t *added, bool whole);
void dr_vocab_fini(struct dr_vocab *v);

/* The text token of exactly these bytes, or DR_NO_ID. Needs `whole`. */
uint32_t dr_vocab_find(const struct dr_vocab *v, const uint8_t *bytes, size_t n);

/* Bytes of the token id < v->n, borrowed; 0 bytes for a hole. */
static inline const uint8_t *dr_vocab_token(const struct dr_vocab *v, uint32_t id, size_t *n) {
    *n = v->offset[id + 1] - v->offset[id];
    return v->bytes + v->offset[id];
}

#ifdef __cplusplus
}
#endif
