/* layout.h - who holds what: the pure function of (config, P, T, options).
 * In:   model numbers and the wish (stages, ranks a stage, cache width, expert cut).
 * Out:  for each rank: layers, heads, columns, experts, vocabulary rows, cache rows.
 * Owns: nothing; the struct holds no pointers.
 * Why:  the coordinator computes it once, every worker computes it again and compares the hash; nothing has
 * to divide evenly.
 *
 * Every tensor is cut (each row or column has exactly one owner in its stage) or replicated (on all T ranks);
 * no third kind. */
#pragma once

#include "model/config.h"

enum { DR_TP_MAX = 64, DR_PP_MAX = 64, DR_RANKS_MAX = 1024, DR_PAGE_TOKENS = 64 };
enum { DR_CHUNK_LEAST = 64 }; /* rows: smaller chunks read the weights too often for what they compute */
enum {
    DR_LAYOUT_SEQS_MAX = 1024,
    DR_LAYOUT_STEP_MAX = 8192,
    DR_PAGES_MAX = 1 << 30
}; /* proto/limits.h has the same two */

enum dr_expert_cut { DR_EXPERTS_COLUMNS, DR_EXPERTS_WHOLE };
enum dr_exchange { DR_EXCHANGE_LATENT, DR_EXCHANGE_VALUE };
enum dr_cache_type { DR_CACHE_F32, DR_CACHE_BF16, DR_CACHE_FP8 };

/* NATIVE: the checkpoint's values exactly. INT8: matrices (all but embedding and router) are rounded to 8-bit
 * integers at load, one scale an output and block of 128 inputs. */
enum dr_weights { DR_WEIGHTS_NATIVE, DR_WEIGHTS_INT8 };

struct dr_layout_wish {
    int32_t tp, pp;
    int32_t cache_width; /* 0: tp */
    enum dr_expert_cut experts;
    enum dr_exchange exchange;
    enum dr_cache_type cache_type;
    enum dr_weights weights;
    bool mtp;            /* load the MTP layer (drafts) */
    int32_t context;     /* 0: n_position of the config */
    int32_t seqs_max;    /* slots */
    int32_t step_tokens; /* rows of one step, at most */
    int32_t pages;       /* cache pages; 0: as many as seqs_max x context needs, bounded by `cache_bytes` */
    size_t cache_bytes;  /* a rank's cache at most; 0: no bound */
};

struct dr_range { /* [begin, end) */
    int32_t begin, end;
};

static inline int32_t dr_range_len(struct dr_range r) {
    return r.end - r.begin;
}

struct dr_layout {
    int32_t tp, pp, c; /* ranks a stage, stages, cache width (divides tp) */
    int32_t n_rank;    /* tp * pp; worker rank w = stage * tp + t, MPI rank = w + 1 */
    enum dr_expert_cut experts;
    enum dr_exchange exchange;
    enum dr_cache_type cache_type;
    enum dr_weights weights;
    bool mtp;
    int32_t page_tokens; /* 64 rounded up to a multiple of c */
    int32_t page_rows;   /* page_tokens / c: rows of a page on each rank */
    int32_t context, seqs_max, step_tokens, n_page;
    int32_t layer_begin[DR_PP_MAX + 1]; /* stage s owns main layers [layer_begin[s], layer_begin[s+1]) */
};

/* What rank (stage, t) holds. */
struct dr_shard {
    int32_t rank, stage, t; /* rank = stage * tp + t */
    int32_t member, group;  /* cache group t / c and member t % c: position p is on member p % c */
    struct dr_range layers; /* main layers */
    bool first, last,
        mtp; /* holds the embedding; holds norm and head; holds the MTP layer (last stage only) */
    struct dr_range heads;
    struct dr_range group_heads; /* union of the heads of the cache group's members */
    struct dr_range mlp_cols;    /* of mlp_dim */
    struct dr_range expert_cols; /* of expert_dim: all of it under DR_EXPERTS_WHOLE */
    struct dr_range experts;     /* all of them under DR_EXPERTS_COLUMNS */
    struct dr_range shared_cols; /* of n_shared * expert_dim */
    struct dr_range vocab;       /* rows of embedding (first stage) and head (last stage) */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EMODEL naming the number that does not fit (tp > heads, pp > layers, c does not divide tp, an empty
 * cut, an MTP layer that the model lacks, context beyond the model, pages fewer than one sequence needs ...).
 * Pure. */
DR_FALLIBLE dr_layout_make(const struct dr_config *c, const struct dr_layout_wish *wish,
                           struct dr_layout *out);

/* 0 <= rank < n_rank. Pure, total. */
struct dr_shard dr_layout_shard(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

/* Prompt rows of one sequence in a step, at most: with several stages no more than leaves each of them a
 * chunk of a long prompt, but not fewer than DR_CHUNK_LEAST. */
static inline int32_t dr_layout_chunk(const struct dr_layout *l) {
    int32_t share = l->step_tokens / l->pp;
    share = share > DR_CHUNK_LEAST ? share : DR_CHUNK_LEAST;
    return share < l->step_tokens ? share : l->step_tokens;
}

/* Heads whose part of kv_b the rank holds: its own, or with the value exchange those of its whole cache
 * group. */
static inline struct dr_range dr_layout_held_heads(const struct dr_layout *l, const struct dr_shard *s) {
    return l->exchange == DR_EXCHANGE_VALUE ? s->group_heads : s->heads;
}

/* Part i of n of [0, total): the first total % n parts get one more. */
struct dr_range dr_layout_cut(int32_t total, int32_t n, int32_t i);

/* Over all fields of config and layout that change arithmetic or ownership (not a hash of padding). */
uint64_t dr_layout_hash(const struct dr_config *c, const struct dr_layout *l);

/* Owner within the stage. */
int32_t dr_layout_vocab_owner(const struct dr_config *c, const struct dr_layout *l, uint32_t id);

const char *dr_expert_cut_name(enum dr_expert_cut v);
const char *dr_exchange_name(enum dr_exchange v);
const char *dr_cache_type_name(enum dr_cache_type v);
const char *dr_weights_name(enum dr_weights v);

#ifdef __cplusplus
}
#endif
