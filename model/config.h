/* config.h - the numbers of a model, as its config.json states them.
 * In:   config.json and generation_config.json.      Out: struct dr_config, complete and checked.
 * Owns: nothing; the struct holds no pointers.
 * Why:  every key that changes arithmetic is read here and nowhere else; unknown values of such keys are
 * refused by name.
 *
 * Names are those of the DeepSeek papers and of config.json. Rules: three lists of keys (arithmetic: unknown
 * value refused; inert: ignored; of other architectures: refused by name); any other key gives one warning.
 */
#pragma once

#include "common/status.h"

enum {
    DR_LAYERS_MAX = 256, /* main layers + MTP layers */
    DR_HEADS_MAX = 1024,
    DR_DIM_MAX = 65536, /* hidden, ranks, head dims, one MLP's width x shared experts: at most 16 x this */
    DR_EXPERTS_MAX = 4096,
    DR_ACTIVE_MAX = 64, /* num_experts_per_tok */
    DR_VOCAB_MAX = 1 << 20,
    DR_POSITIONS_MAX = 1 << 24,
    DR_END_IDS_MAX = 16,
};

enum dr_router { DR_ROUTER_SOFTMAX_GREEDY, DR_ROUTER_SOFTMAX_GROUP, DR_ROUTER_SIGMOID_NOAUX };

struct dr_config {
    char model_type[32];    /* deepseek_v2 | deepseek_v3 | kimi_k2 */
    int32_t vocab, dim;     /* vocab_size, hidden_size */
    int32_t n_layer, n_mtp; /* num_hidden_layers; num_nextn_predict_layers (0 or 1) */
    int32_t n_dense_layer;  /* first_k_dense_replace */
    int32_t moe_freq;       /* moe_layer_freq: layer l >= n_dense_layer is MoE iff l % moe_freq == 0 */
    int32_t n_head;
    int32_t q_lora, kv_lora; /* q_lora_rank (0: one q_proj), kv_lora_rank */
    int32_t nope_dim, rope_dim, v_dim;
    int32_t mlp_dim, expert_dim; /* intermediate_size, moe_intermediate_size */
    int32_t n_expert, n_active, n_shared;
    int32_t n_group, n_group_active; /* n_group, topk_group; 1, 1 without groups */
    enum dr_router router;
    bool norm_topk;     /* norm_topk_prob */
    float routed_scale; /* routed_scaling_factor */
    float rms_eps;      /* rms_norm_eps; the q_a and kv_a norms use 1e-6 whatever it says */
    bool tied;          /* tie_word_embeddings */
    bool fp8;           /* quantization_config is block FP8 (informative; the tensors decide) */
    int32_t fp8_block;  /* 128 */

    double rope_theta;
    bool yarn;
    double yarn_factor, yarn_beta_fast, yarn_beta_slow, yarn_mscale, yarn_mscale_all;
    int32_t yarn_positions; /* original_max_position_embeddings */

    int32_t n_position;              /* max_position_embeddings */
    int64_t bos_id;                  /* -1: none */
    uint32_t end_id[DR_END_IDS_MAX]; /* union of eos ids of config and generation_config, ascending */
    int32_t n_end_id;

    /* generation_config.json; NAN or -1 where it is silent */
    float gen_temperature, gen_top_p;
    int32_t gen_top_k;
    bool gen_do_sample;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads DIR/config.json, and DIR/generation_config.json if there is one. Blocks on the disk.
 * Fails: ENOENT, EIO, EMODEL (text: key, expected, found); *out is then untouched. Warnings go to the log. */
DR_FALLIBLE dr_config_load(const char *dir, struct dr_config *out);

/* The same from text, for tests and for `plan`. generation may be NULL. */
DR_FALLIBLE dr_config_parse(const char *config, size_t config_bytes, const char *generation,
                            size_t generation_bytes, struct dr_config *out);

static inline bool dr_config_is_moe(const struct dr_config *c, int32_t layer) {
    if (layer >= c->n_layer)
        return c->n_expert > 0; /* the MTP layer is MoE whatever first_k_dense_replace says */
    return c->n_expert > 0 && layer >= c->n_dense_layer && layer % c->moe_freq == 0;
}

static inline int32_t dr_config_qk_dim(const struct dr_config *c) { /* of one head's query */
    return c->nope_dim + c->rope_dim;
}

static inline int32_t
dr_config_row_dim(const struct dr_config *c) { /* of one cached row: latent + rotated key */
    return c->kv_lora + c->rope_dim;
}

static inline int32_t dr_config_shared_dim(const struct dr_config *c) {
    return c->n_shared * c->expert_dim;
}

/* Over every number above that changes arithmetic or shapes: equal on all ranks. Not over the sampling
 * defaults. */
uint64_t dr_config_hash(const struct dr_config *c);

/* Angle per position of pair i, w[rope_dim / 2] f64 (YaRN: arXiv 2309.00071, blended frequencies; applied at
 * every position). */
void dr_config_rope_freq(const struct dr_config *c, double *w);

/* Softmax scale: (nope + rope)^-1/2, times M(factor, mscale_all_dim)^2 under YaRN with a non-zero
 * mscale_all_dim. */
double dr_config_softmax_scale(const struct dr_config *c);

/* Factor on cos and sin: M(factor, mscale) / M(factor, mscale_all_dim); 1 in all released models. */
double dr_config_rope_gain(const struct dr_config *c);

#ifdef __cplusplus
}
#endif
