/* tokenizer.h - text to token ids and back, as a tokenizer.json says.
 * In:   tokenizer.json, tokenizer_config.json, texts, ids.      Out: ids, texts, and the facts of both files.
 * Owns: everything read from the files; read-only after _create, so all threads may share one tokenizer.
 * Why:  the model family uses byte-level BPE only; anything else is refused by name at start. */
#pragma once

#include "gateway/text/vectors.h"

struct dr_tokenizer;

enum {
    DR_TOKENIZER_FILE_MAX = 64 << 20, /* bytes of either file */
    DR_TOKENIZER_NODES_MAX = 8 << 20, /* JSON values of it: 2^20 tokens, 2^22 merges */
};

enum dr_match_added {
    DR_ADDED_MATCH, /* the text of an added token becomes its id */
    DR_ADDED_OFF,   /* it stays text: for contents that come from users */
};

/* From tokenizer_config.json; all absent without that file. */
struct dr_tokenizer_facts {
    uint32_t bos, eos; /* DR_TOKENIZER_NONE if not named */
    bool add_bos;      /* add_bos_token, false if absent */
    uint32_t stop[1];  /* ids that end a generation: eos_token */
    size_t n_stop;
    const char *chat_template; /* the template named default; NULL: none */
};
#define DR_TOKENIZER_NONE UINT32_MAX

/* Both files as texts in memory; config.at may be NULL. */
struct dr_tokenizer_source {
    const char *json, *config;
    size_t json_bytes, config_bytes;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads and checks both files; config_path may be NULL. Takes up to a second for 2^17 tokens.
 * Fails: ENOENT, EIO; EMODEL with file, place, expected and found; EFULL. *out is untouched then. */
DR_FALLIBLE dr_tokenizer_create(const char *tokenizer_json_path, const char *config_path,
                                struct dr_tokenizer **out);
/* The same from memory; texts of failures begin with "tokenizer.json: " or "tokenizer_config.json: ". */
DR_FALLIBLE dr_tokenizer_create_from(const struct dr_tokenizer_source *source, struct dr_tokenizer **out);
void dr_tokenizer_destroy(struct dr_tokenizer *t);

/* Appends the ids of text[0..bytes); no BOS. Fails: EINVAL naming the first byte that is not UTF-8, EFULL;
 * out is as before then. */
DR_FALLIBLE dr_tokenizer_encode(const struct dr_tokenizer *t, const char *text, size_t bytes,
                                enum dr_match_added match, struct dr_ids *out);
/* A plain prompt: added tokens matched, and BOS in front iff add_bos and the text does not begin with it. */
DR_FALLIBLE dr_tokenizer_encode_prompt(const struct dr_tokenizer *t, const char *text, size_t bytes,
                                       struct dr_ids *out);

/* Appends the text of ids[0..n); bytes that are not UTF-8 become U+FFFD. skip_special leaves special tokens
 * out. Fails: EINVAL naming the first id without token, EFULL; out is as before then. */
DR_FALLIBLE dr_tokenizer_decode(const struct dr_tokenizer *t, const uint32_t *ids, size_t n,
                                bool skip_special, struct dr_text *out);
/* Bytes of one token, borrowed, perhaps a part of a character. Fails: EINVAL if no token has this id. */
DR_FALLIBLE dr_tokenizer_token(const struct dr_tokenizer *t, uint32_t id, const uint8_t **bytes, size_t *n);

/* Highest id + 1. A model may have more rows than that. */
size_t dr_tokenizer_size(const struct dr_tokenizer *t);
bool dr_tokenizer_has(const struct dr_tokenizer *t, uint32_t id);
bool dr_tokenizer_is_special(const struct dr_tokenizer *t, uint32_t id);
/* Any added token, special or not. */
bool dr_tokenizer_is_added(const struct dr_tokenizer *t, uint32_t id);
/* Id of the added token with exactly this text; false if there is none. */
bool dr_tokenizer_added_id(const struct dr_tokenizer *t, const char *text, size_t bytes, uint32_t *id);
const struct dr_tokenizer_facts *dr_tokenizer_facts(const struct dr_tokenizer *t);

#ifdef __cplusplus
}
#endif
