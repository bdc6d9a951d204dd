/* added.h - finds added tokens in raw text.
 * In:   the added_tokens of a tokenizer.json, then text.      Out: the leftmost, longest token and its place.
 * Owns: two tries of bytes; read-only after _init.
 * Why:  added tokens are matched before anything else, those with normalized = false before those with true.
 */
#pragma once

#include <jansson.h>

#include "common/status.h"

enum {
    DR_ADDED_BYTES_MAX = 512,     /* of one token's text: bounds the work at one position of the text */
    DR_ADDED_TOTAL_MAX = 4 << 20, /* bytes of all texts */
    DR_ADDED_PASS_COUNT = 2,      /* 0: normalized false, 1: normalized true */
};

struct dr_added_trie {
    struct dr_added_node *node; /* owned; node[0] is the root */
    size_t n;
    uint32_t first[256]; /* child of the root by byte, 0: none */
};

struct dr_added {
    struct dr_added_trie pass[DR_ADDED_PASS_COUNT];
};

struct dr_added_hit {
    size_t start, end;
    uint32_t id;
};

#ifdef __cplusplus
extern "C" {
#endif

/* tokens: the array, ids and contents already checked (vocab.h); NULL: none. Fails: EINVAL naming the entry
 * for lstrip, rstrip or single_word set, wrong types, a text given twice or too long; EFULL. *a is untouched
 * then. */
DR_FALLIBLE dr_added_init(struct dr_added *a, json_t *tokens);
void dr_added_fini(struct dr_added *a);

/* First token of `pass` in text[from..n), the longest at its place. Returns false if there is none. */
bool dr_added_find(const struct dr_added *a, int pass, const char *text, size_t n, size_t from,
                   struct dr_added_hit *hit);

/* Id of the added token that is exactly this text; false if there is none. */
bool dr_added_id(const struct dr_added *a, const char *text, size_t n, uint32_t *id);

#ifdef __cplusplus
}
#endif
