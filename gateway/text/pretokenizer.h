/* pretokenizer.h - cuts text into the pieces that merges never cross.
 * In:   the pre_tokenizer of a tokenizer.json, then valid UTF-8.      Out: pieces, left to right.
 * Owns: compiled patterns; read-only after _init.
 * Why:  each stage sees only a piece of the stage before, so anchors and look-ahead end at its borders. */
#pragma once

#include <jansson.h>

#include "gateway/text/pattern.h"

enum {
    DR_PRETOKENIZER_STAGES_MAX = 32,
    DR_PIECE_CHARS_MAX = 25000, /* longer pieces are split there; also the retreat when a pattern gives up */
};

struct dr_pretokenizer_stage {
    bool prefix_space;         /* put a space in front of a piece that has none; pattern is empty then */
    struct dr_pattern pattern; /* matches become pieces, gaps stay pieces */
};

struct dr_pretokenizer {
    struct dr_pretokenizer_stage stage[DR_PRETOKENIZER_STAGES_MAX];
    size_t n_stage;
};

/* Receives one piece, 1..4 * DR_PIECE_CHARS_MAX bytes; a failure stops the cutting and is returned. */
struct dr_piece_sink {
    dr_status (*take)(void *arg, const uint8_t *piece, size_t n);
    void *arg;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Known types: Sequence, Split (Isolated), Digits, and ByteLevel, which must be there and be the last.
 * Fails: EINVAL naming the type, field or pattern that is not supported; EFULL. *p is untouched then. */
DR_FALLIBLE dr_pretokenizer_init(struct dr_pretokenizer *p, const json_t *json);
void dr_pretokenizer_fini(struct dr_pretokenizer *p);

/* Cuts text[0..n). Thread-safe. Fails: EFULL, EINTERNAL, and what the sink returns. */
DR_FALLIBLE dr_pretokenizer_cut(const struct dr_pretokenizer *p, const char *text, size_t n,
                                struct dr_piece_sink sink);

#ifdef __cplusplus
}
#endif
