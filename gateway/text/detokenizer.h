/* detokenizer.h - token ids to text while they arrive.
 * In:   one id at a time.      Out: the characters it completes.
 * Owns: nothing; at most 3 bytes are held in the caller's struct. The tokenizer is borrowed.
 * Why:  a token may end inside a character, and a client must never see half of one. */
#pragma once

#include "gateway/text/tokenizer.h"
#include "gateway/text/utf8.h"

struct dr_detokenizer {
    const struct dr_tokenizer *tokenizer; /* borrowed */
    struct dr_utf8_stream stream;
    bool skip_special;
};

#ifdef __cplusplus
extern "C" {
#endif

void dr_detokenizer_init(struct dr_detokenizer *d, const struct dr_tokenizer *t, bool skip_special);

/* Appends what id completes, perhaps nothing. U+FFFD appears only where the bytes are proven invalid. All
 * pushes and the end together append what dr_tokenizer_decode would. An id without token adds nothing: a
 * model may have more rows than its tokenizer has tokens. Fails: EFULL. */
DR_FALLIBLE dr_detokenizer_push(struct dr_detokenizer *d, uint32_t id, struct dr_text *out);
/* No more ids: an unfinished character becomes one U+FFFD. Fails: EFULL. */
DR_FALLIBLE dr_detokenizer_end(struct dr_detokenizer *d, struct dr_text *out);

#ifdef __cplusplus
}
#endif
