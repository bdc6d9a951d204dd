/* detokenizer.c - see detokenizer.h.
 * In:   ids.      Out: complete characters.
 * Owns: nothing.
 * Why:  the same bytes and the same reader of UTF-8 as whole-text decoding, so the two cannot differ. */
#include "gateway/text/detokenizer.h"

void dr_detokenizer_init(struct dr_detokenizer *d, const struct dr_tokenizer *t, bool skip_special) {
    *d = (struct dr_detokenizer){.tokenizer = t, .skip_special = skip_special};
}

dr_status dr_detokenizer_push(struct dr_detokenizer *d, uint32_t id, struct dr_text *out) {
    const uint8_t *bytes;
    size_t n;
    if (!dr_tokenizer_has(d->tokenizer, id)) return dr_ok();
    if (d->skip_special && dr_tokenizer_is_special(d->tokenizer, id)) return dr_ok();
    DR_TRY(dr_tokenizer_token(d->tokenizer, id, &bytes, &n));
    return dr_utf8_stream_push(&d->stream, bytes, n, out);
}

dr_status dr_detokenizer_end(struct dr_detokenizer *d, struct dr_text *out) {
    return dr_utf8_stream_end(&d->stream, out);
}
