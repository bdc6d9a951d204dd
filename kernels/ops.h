/* ops.h - the arithmetic of the model, one struct of arguments an op, one table of functions.
 * In:   weights and activations.      Out: activations.
 * Owns: nothing; ops never allocate, callers give outputs and scratch.
 * Why:  the third seam (CPU | CUDA). kernels/cpu/<op>.c is the oracle: it reads like the formula.
 *
 * Dimensions carry the names of the DeepSeek-V3 paper. Activations are f32. [a, b] means row-major with b
 * contiguous; a `_stride` counts elements between rows. n_tok == 0 is legal everywhere: nothing happens.
 * Aliasing is forbidden unless an op allows it. Every op is in order on its stream. A token's result does not
 * depend on the other tokens of the call, bit for bit. */
#pragma once

#include "kernels/device.h"
#include "kernels/weight.h"

/* y[t,:] = table[ids[t] - first,:], or zeros when another rank owns the id */
struct dr_embed {
    float *y;            /* [n_tok, dim] */
    const uint32_t *ids; /* [n_tok] */
    const void *table;   /* [n_row, dim] row-major of type */
    enum dr_wtype type;
    uint32_t first, n_row; /* owned ids [first, first + n_row) */
    int32_t n_tok, dim;
};

/* y[t,:] = x[t,:] * gain / sqrt(mean(x^2) + eps); y may be x */
struct dr_rmsnorm {
    float *y;
    const float *x;
    const float *gain; /* [dim] */
    int32_t n_tok, dim;
    size_t y_stride, x_stride;
    float eps;
};

/* y[t,:] (+)= W x[t,:] */
struct dr_linear {
    float *y;       /* [n_tok, n_out] */
    const float *x; /* [n_tok, n_in] */
    const struct dr_weight *w;
    int32_t n_tok;
    size_t y_stride, x_stride;
    bool add;   /* y += instead of y = */
    bool exact; /* inputs are not rounded, whatever the table's precision: the router */
    /* dr_linear_scratch_bytes for any number of rows >= 1, 64-byte aligned; more rows, fewer passes over the
     * weights (256 are enough). The oracle needs none. */
    void *scratch;
    size_t scratch_bytes;
};

/* y[t,h,:] = W[h] x[t,h,:]: absorbed query, value up-projection, expansion of latents (x_head_stride 0: one x
 * for all heads) */
struct dr_linear_heads {
    float *y;
    const float *x;
    const struct dr_weight *w; /* [n_head], all of one shape */
    int32_t n_tok, n_head;
    size_t y_stride, y_head_stride, x_stride, x_head_stride;
    void *scratch; /* as in dr_linear; for inputs that differ by head, rows x n_head rows */
    size_t scratch_bytes;
};

/* cos[t,i], sin[t,i] of pos[t] * freq[i], computed in f64 */
struct dr_rope_angles {
    float *cos, *sin;   /* [n_tok, n_pair] */
    const int32_t *pos; /* [n_tok] */
    const double *freq; /* [n_pair] */
    int32_t n_tok, n_pair;
    double gain; /* on both */
};

/* Rotates pairs (2i, 2i+1) of x[t,h,:] in place */
struct dr_rope {
    float *x;
    const float *cos, *sin; /* [n_tok, n_pair] */
    int32_t n_tok, n_head, n_pair;
    size_t x_stride, x_head_stride;
};

/* --- latent cache: rows of (latent, rotated key) in pages; a rank stores page_rows rows a page and layer ---
 */
enum dr_row_type { DR_ROW_F32, DR_ROW_BF16, DR_ROW_FP8 }; /* same order as model/layout.h's dr_cache_type */

struct dr_cache_view { /* one layer's cache on this rank */
    uint8_t *base;     /* page i, local row r: base + i * page_stride + r * row_bytes */
    size_t page_stride, row_bytes;
    enum dr_row_type type;
    int32_t kv_lora, rope_dim, page_rows;
};

/* Row t goes to (page[t], row[t]), rounded to the cache type; page[t] == UINT32_MAX: another member stores it
 */
struct dr_cache_put {
    struct dr_cache_view cache;
    const float *latent;  /* [n_tok, kv_lora], latent_stride apart */
    const float *k_pe;    /* [n_tok, rope_dim], k_pe_stride apart */
    const uint32_t *page; /* [n_tok] */
    const int32_t *row;   /* [n_tok] */
    int32_t n_tok;
    size_t latent_stride, k_pe_stride;
};

/* Copies local rows [first, first + n) of a sequence, as stored, to out (n x row_bytes). Local row i is in
 * page table[i / page_rows]. */
struct dr_cache_gather {
    struct dr_cache_view cache;
    uint8_t *out;
    const uint32_t *table;
    int32_t first, n;
};

/* Stored rows to f32 in the order of position. in: c runs of stored rows, run m holds the rows of member m
 * and starts at in + run[m]; position first_pos + i is row number (i's ordinal within its member) of member
 * (first_pos + i) % c. y [n, kv_lora + rope_dim]. */
struct dr_cache_unpack {
    struct dr_cache_view cache; /* type and sizes; base unused */
    float *y;
    const uint8_t *in;
    const size_t *run; /* [c] byte offsets */
    int32_t c, first_pos, n;
};

enum { DR_SPLIT_ROWS_MAX = 256 };

/* Absorbed attention of query rows over this rank's rows (MQA: key = row, value = its latent part).
 * Row t sees the local rows [from, n_visible[t]) of its sequence. Local rows are cut into splits of
 * split_rows (fixed by the layout), each computed from zero; splits merge by log-sum-exp in ascending order.
 * No visible row: o = 0, lse = -inf. */
struct dr_attn_absorbed {
    float *o;       /* [n_tok, n_head, kv_lora], normalised */
    float *lse;     /* [n_tok, n_head], natural log of the sum of exp(scale * score) */
    const float *u; /* [n_tok, n_head, kv_lora + rope_dim] */
    struct dr_cache_view cache;
    const uint32_t *const *table;      /* [n_tok] page table of the row's sequence */
    const int32_t *n_visible;          /* [n_tok] */
    int32_t n_tok, n_head, split_rows; /* split_rows 1 .. DR_SPLIT_ROWS_MAX */
    int32_t from;                      /* 0; 1: nobody sees local row 0, whatever it holds */
    float scale;
    /* An offer, may be NULL, 64-byte aligned. With room for the parts of two or more splits of each row, few
     * rows of a long sequence are divided among the threads by splits too. The bits are the same. */
    void *scratch;
    size_t scratch_bytes;
};

/* Expanded attention over one piece of keys at positions [first_key, first_key + n_key), merged into the
 * running (o, lse). Causal: row t sees keys at positions from .. pos[t]. start: the running state is taken as
 * empty (o = 0, lse = -inf) and overwritten. A row that sees no key of the piece keeps its state's bits. */
struct dr_attn_expanded {
    float *o;           /* [n_tok, n_head, v_dim] */
    float *lse;         /* [n_tok, n_head] */
    const float *q;     /* [n_tok, n_head, nope_dim + rope_dim], q_stride between tokens */
    const float *k;     /* [n_key, n_head, nope_dim] */
    const float *k_pe;  /* [n_key] rows of rope_dim, k_pe_stride apart */
    const float *v;     /* [n_key, n_head, v_dim] */
    const int32_t *pos; /* [n_tok] */
    int32_t n_tok, n_head, n_key, first_key, nope_dim, rope_dim, v_dim;
    int32_t from; /* 0; 1: nobody sees position 0, whatever its key and value hold */
    size_t q_stride, k_pe_stride;
    float scale;
    bool start;
    bool exact; /* queries, keys and weights are never rounded: asked for where the cache is f32 */
};

/* Parts of c members into one, in member order: o[t,h,:] = sum_m w_m part_m / sum w. Empty parts have lse =
 * -inf and weight 0. */
struct dr_attn_merge {
    float *o;                     /* [n_tok, n_head, dim] */
    float *lse;                   /* [n_tok, n_head]; may be NULL */
    const float *const *part_o;   /* [c] of [n_tok, n_head, dim] */
    const float *const *part_lse; /* [c] of [n_tok, n_head] */
    int32_t c, n_tok, n_head, dim;
};

/* y[i] += x[i] */
struct dr_add {
    float *y;
    const float *x;
    size_t n;
};

/* bad[t] = whether row t has an infinity or a NaN */
struct dr_finite {
    uint8_t *bad;   /* [n_tok] */
    const float *x; /* [n_tok, dim], `stride` elements between rows */
    int32_t n_tok, dim;
    size_t stride;
};

enum dr_route_kind { DR_ROUTE_SOFTMAX_GREEDY, DR_ROUTE_SOFTMAX_GROUP, DR_ROUTE_SIGMOID_NOAUX };

/* Chooses experts (DeepSeek-V3 paper 2.1.2; V2 paper 2.2.2). Ties take the lowest index. */
struct dr_route {
    int32_t *expert;     /* [n_tok, n_active], ascending */
    float *weight;       /* [n_tok, n_active], final: renormalised and scaled as the config says */
    const float *logits; /* [n_tok, n_expert] */
    const float *bias;   /* [n_expert] or NULL; selects, never weighs */
    int32_t n_tok, n_expert, n_active, n_group, n_group_active;
    int32_t kind; /* enum dr_route_kind; same order as enum dr_router of model/config.h */
    bool norm_topk;
    float scale;
};

/* y[t,:] = sum over owned chosen experts e, ascending, of weight * Down_e(silu(Gate_e x) * Up_e x), then +
 * shared(x) last */
struct dr_expert {
    struct dr_weight gate, up, down;
};
struct dr_moe {
    float *y;              /* [n_tok, dim], overwritten */
    const float *x;        /* [n_tok, dim] */
    const int32_t *expert; /* [n_tok, n_active] from dr_route */
    const float *weight;
    const struct dr_expert *owned;                /* experts [first, first + n_owned) */
    const struct dr_expert *shared;               /* NULL: none */
    int32_t n_tok, dim, n_active, first, n_owned; /* a dense block: n_active = n_owned = 0 and shared */
    void *scratch; /* dr_moe_scratch_bytes, 64-byte aligned; fewer: EINTERNAL */
    size_t scratch_bytes;
};

/* --- sampler: a row's logits are cut over the vocabulary; every op handles the local columns [first, first +
 * n) --- */

enum { DR_SEEN_MAX = 8 };

/* One output row's wishes. Ids are absolute. Arrays are borrowed. */
struct dr_sample_row {
    float temperature;         /* 0: arg-max */
    float repetition;          /* 1: off; logit > 0 is divided, else multiplied */
    float frequency, presence; /* 0: off */
    const uint16_t *count_prompt,
        *count_output;    /* [n] occurrences of the local columns; NULL when penalties are off */
    const uint32_t *seen; /* ids that count as output, too: drafts before this row. Counts end at 65,535 */
    int32_t n_seen;       /* at most DR_SEEN_MAX */
    const uint32_t *bias_id;
    const float *bias;
    int32_t n_bias;
    const uint32_t *mask;  /* bit i of the local columns: allowed; NULL: all */
    int32_t n_masked_from; /* absolute ids >= this are never drawn (ids without a tokenizer entry); 0: none */
    uint64_t seed, position; /* of the token to be drawn */
};

/* adjusted[r,i] = (logit with mask, bias, repetition, frequency, presence) / T, in this order; T = 0 leaves
 * it undivided */
struct dr_logit_adjust {
    float *adjusted;     /* [n_row, n] */
    const float *logits; /* [n_row, n] */
    const struct dr_sample_row *rows;
    int32_t n_row, n, first;
};

/* Per row: largest value, and whether any value is NaN or +inf */
struct dr_row_max {
    float *max;   /* [n_row]; -inf when all are -inf */
    int32_t *bad; /* [n_row] 0 or 1 */
    const float *x;
    int32_t n_row, n;
};

/* Per row: sum of floor(2^40 exp(x - max)) over values whose key is >= least: exact in any order. exp is the
 * project's own (kernels/exp.h). */
struct dr_row_mass {
    uint64_t *mass; /* [n_row] */
    const float *x;
    const float *max;      /* [n_row] global */
    const uint32_t *least; /* [n_row] keys; 0: all */
    int32_t n_row, n;
};

/* Order-preserving key of a float: larger value, larger key (defined in ops.h for all backends). */
static inline uint32_t dr_float_key(float v) {
    union {
        float f;
        uint32_t u;
    } x;
    x.f = v;
    return x.u & 0x80000000u ? ~x.u : x.u | 0x80000000u;
}

static inline float dr_key_float(uint32_t key) {
    union {
        uint32_t u;
        float f;
    } x;
    x.u = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    return x.f;
}

/* One round of the radix descent: for values whose key has `prefix` above bit `shift + 8` and is >= least,
 * count and mass by the byte at `shift` */
struct dr_row_bins {
    uint32_t *count; /* [n_row, 256] */
    uint64_t *mass;  /* [n_row, 256] */
    const float *x;
    const float *max; /* [n_row] */
    const uint32_t
        *prefix; /* [n_row]; compared with key >> (shift + 8); ignored in the first round (shift 24) */
    const uint32_t *least; /* [n_row] */
    int32_t n_row, n, shift;
};

/* Best candidate of the local columns with key >= least: score = x + Gumbel(seed, position, id), or x alone
 * when T = 0; ties: lowest id */
struct dr_row_pick {
    float *score;          /* [n_row]; -inf when none */
    uint32_t *id;          /* [n_row] absolute */
    const float *x;        /* adjusted [n_row, n] */
    const uint32_t *least; /* [n_row] */
    const struct dr_sample_row *rows;
    int32_t n_row, n, first;
};

/* The k largest local values, descending, ties by lowest id; absent ones have value -inf and id UINT32_MAX */
struct dr_row_top {
    float *value; /* [n_row, k] */
    uint32_t *id; /* [n_row, k] */
    const float *x;
    int32_t n_row, n, first, k;
};

/* clang-format off */
#define DR_OPS(X)                                                                                            \
    X(embed) X(rmsnorm) X(linear) X(linear_heads) X(rope_angles) X(rope)                                     \
    X(cache_put) X(cache_gather) X(cache_unpack) X(attn_absorbed) X(attn_expanded) X(attn_merge)             \
    X(add) X(finite) X(route) X(moe)                                                                         \
    X(logit_adjust) X(row_max) X(row_mass) X(row_bins) X(row_pick) X(row_top)
/* clang-format on */

/* Instruction sets of x86-64, each with all before it. AVX512: F BW VL DQ. VNNI: AVX512_VNNI. BF16:
 * AVX512_BF16 and VBMI. */
#define DR_ISAS(X)        X(AVX2, "avx2") X(AVX512, "avx512") X(VNNI, "vnni") X(BF16, "bf16")
#define DR_X_(name, text) DR_ISA_##name,
enum dr_isa { DR_ISAS(DR_X_) DR_ISA_COUNT };
#undef DR_X_

/* F32: products of exact weights and f32 inputs. FAST: inputs of products may be rounded: to bfloat16 where
 * the processor multiplies F8 and BF16 weights with them (BF16), to 8-bit integers with I8 weights. */
enum dr_precision { DR_PRECISION_F32, DR_PRECISION_FAST };

/* The seam: one table, filled once at start. */
struct dr_ops {
    const char *name; /* "oracle", "avx2" ... */
    /* What inputs are rounded to in products with weights as in the checkpoint, and with I8 weights: "f32",
     * "bf16", "int8". Tables that say the same give the same bits; ranks must agree. */
    const char *native_inputs, *int8_inputs;
#define DR_X_(op)                                                                                            \
    __attribute__((warn_unused_result)) dr_status (*op)(const struct dr_##op *, struct dr_stream *);
    DR_OPS(DR_X_)
#undef DR_X_
};

#ifdef __cplusplus
extern "C" {
#endif

/* The fastest table for the processor, or for the instruction set `isa` (DR_ISA_COUNT: the best it has).
 * Fails: EDEVICE when the processor lacks it (text says what it has). */
DR_FALLIBLE dr_ops_x86(enum dr_isa isa, enum dr_precision precision, const struct dr_ops **out);

/* The best instruction set of this processor; DR_ISA_COUNT: not even AVX2 and FMA. */
enum dr_isa dr_isa_here(void);
const char *dr_isa_name(enum dr_isa isa);

/* The oracle table. Fails: EDEVICE when the processor lacks AVX2 and FMA (text says so). */
DR_FALLIBLE dr_ops_cpu(const struct dr_ops **out);

/* Scratch of dr_attn_absorbed that holds the parts of n_split splits of every row at once. */
size_t dr_attn_absorbed_scratch_bytes(int32_t n_tok, int32_t n_head, int32_t kv_lora, int32_t n_split);

/* Scratch of dr_linear for `rows` rows at a time (dr_linear_heads: rows x heads with inputs of their own). */
size_t dr_linear_scratch_bytes(int32_t rows, int32_t n_in);

/* Scratch of dr_moe for n_tok rows; expert_dim: the widest owned expert or shared expert. */
size_t dr_moe_scratch_bytes(int32_t n_tok, int32_t dim, int32_t expert_dim, int32_t n_active,
                            int32_t n_owned);

#ifdef __cplusplus
}
#endif
