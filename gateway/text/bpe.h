/* bpe.h - byte-pair merging of one piece of text.
 * In:   the merges of a tokenizer.json, then pieces of bytes.      Out: token ids.
 * Owns: a hash of the merges, read-only after _init; a scratch belongs to one call at a time.
 * Why:  a heap makes a long piece O(n log n); the plain loop takes minutes for one hostile megabyte. */
#pragma once

#include "gateway/text/vectors.h"
#include "gateway/text/vocab.h"

enum { DR_BPE_MERGES_MAX = 1 << 22 };

struct dr_bpe_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
    uint32_t rank; /* line in the file; lower merges first */
    uint32_t id;   /* of the joined token */
};

struct dr_bpe {
    const struct dr_vocab *vocab; /* borrowed */
    struct dr_bpe_merge *slot;    /* owned, open addressing */
    size_t slot_mask;
    bool ignore_merges; /* a piece that is a token as a whole is not taken apart */
};

/* Working memory of one encode call; the zero object is ready, _fini gives it back. */
struct dr_bpe_scratch {
    struct dr_bpe_symbol *symbol; /* [room] */
    uint64_t *heap;               /* [3 * room] */
    size_t room;
};

#ifdef __cplusplus
extern "C" {
#endif

/* merges: array of "A B" strings or [A, B] pairs; vocab_json: the object they refer to; both borrowed for the
 * call, vocab for the life of b. ignore_merges needs a vocab with an index. A pair given twice has its last
 * rank. Fails: EINVAL naming the merge whose form is wrong or whose parts or result are no tokens; EFULL. */
DR_FALLIBLE dr_bpe_init(struct dr_bpe *b, const struct dr_vocab *vocab, const json_t *vocab_json,
                        json_t *merges, bool ignore_merges);
void dr_bpe_fini(struct dr_bpe *b);

/* Appends the ids of one piece of valid UTF-8, n <= 2^24. Thread-safe with a scratch of its own. Fails:
 * EFULL. */
DR_FALLIBLE dr_bpe_encode(const struct dr_bpe *b, struct dr_bpe_scratch *scratch, const uint8_t *piece,
                          size_t n, struct dr_ids *out);
void dr_bpe_scratch_fini(struct dr_bpe_scratch *scratch);

#ifdef __cplusplus
}
#endif
