/* config.c - reads config.json and generation_config.json.
 * In:   text.      Out: struct dr_config.
 * Owns: nothing.
 * Why:  see config.h. Defaults of absent keys are those of the classes DeepseekV2Config and DeepseekV3Config
 * of transformers; sizes have no defaults: a file without them is refused. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/size.h"
#include "model/fold.h"
#include "model/folder.h"
#include "model/keys.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

static const char *const known_keys[] = {
    /* arithmetic: read below */
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_nextn_predict_layers",
    "first_k_dense_replace", "moe_layer_freq", "num_attention_heads", "num_key_value_heads", "q_lora_rank",
    "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "head_dim", "v_head_dim",
    "intermediate_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok",
    "n_shared_experts", "n_group", "topk_group", "scoring_func", "topk_method", "norm_topk_prob",
    "routed_scaling_factor", "moe_router_dtype", "rms_norm_eps", "tie_word_embeddings", "hidden_act",
    "attention_bias", "mlp_bias", "rope_theta", "rope_scaling", "rope_parameters", "rope_interleave",
    "max_position_embeddings", "quantization_config", "bos_token_id", "eos_token_id",
    /* inert: of training, of other programs, or of no effect in inference */
    "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "use_cache",
    "initializer_range", "attention_dropout", "aux_loss_alpha", "seq_aux", "ep_size", "pretraining_tp",
    "pad_token_id", "output_router_logits", "router_aux_loss_coef", "output_attentions",
    "output_hidden_states", "return_dict", "is_encoder_decoder", "chunk_size_feed_forward", "id2label",
    "label2id", "problem_type", "use_return_dict", "_attn_implementation", "_attn_implementation_autoset",
    "_commit_hash", NULL};

static const char *const foreign_keys[] = {"index_topk",
                                           "index_n_heads",
                                           "index_head_dim",
                                           "index_topk_freq",
                                           "index_skip_topk_offset",
                                           "index_topk_pattern",
                                           "indexer_types",
                                           "indexer_rope_interleave",
                                           "index_share_for_mtp_iteration",
                                           "sliding_window",
                                           "layer_types",
                                           "text_config",
                                           "vision_config",
                                           "language_config",
                                           "llama_4_scaling",
                                           "llama_4_scaling_beta",
                                           "zero_expert_num",
                                           "zero_expert_type",
                                           "linear_attn_config",
                                           "mla_use_nope",
                                           "no_rope_layers",
                                           "kv_source_layers",
                                           "scale_emb",
                                           "scale_depth",
                                           "dim_model_base",
                                           "num_experts",
                                           "num_shared_experts",
                                           "num_local_experts",
                                           "hc_mult",
                                           "compress_ratios",
                                           "num_hash_layers",
                                           "o_lora_rank",
                                           "compression_config",
                                           "attn_logit_softcapping",
                                           "final_logit_softcapping",
                                           "sandwich_norm",
                                           "mla_scale_q_lora",
                                           "mla_scale_kv_lora",
                                           NULL};

/* Families that look close enough to be tried; the reason helps the reader more than the bare name. */
static const struct {
    const char *type, *why;
} other_families[] = {
    {"deepseek_v32", "sparse attention (DSA) is not supported"},
    {"glm_moe_dsa", "sparse attention (DSA) is not supported"},
    {"glm4_moe_lite", "its head sizes and names are not supported"},
    {"deepseek_v4", "it is no MLA model"},
    {"kimi_k25", "a wrapper with vision parts and INT4 experts is not supported"},
    {"kimi_vl", "a wrapper with vision parts is not supported"},
    {"deepseek_vl_v2", "a wrapper with vision parts is not supported"},
    {"kimi_linear", "linear attention is not supported"},
    {"bailing_hybrid", "linear attention is not supported"},
    {"longcat_flash", "shortcut experts are not supported"},
    {"mistral3", "its query scale and file layout are not supported"},
    {"mistral4", "its query scale and softmax router are not supported"},
    {"mistral_large3", "its query scale and file layout are not supported"},
    {"mistral_large4", "sparse attention and shared caches are not supported"},
    {"minicpm3", "LongRoPE is not supported"},
    {"axk1", "its norm behind the experts is not supported"},
};

static dr_status read_model_type(const struct dr_keys *k, struct dr_config *c) {
    static const char *const words[] = {"deepseek_v2", "deepseek_v3", "kimi_k2", NULL};
    const char *type = json_string_value(dr_keys_get(k, "model_type"));
    for (size_t i = 0; type && i < sizeof other_families / sizeof *other_families; i++) {
        if (strcmp(type, other_families[i].type) == 0)
            return dr_fail(
                DR_EMODEL,
                "%s: key \"model_type\": expected \"deepseek_v2\", \"deepseek_v3\" or \"kimi_k2\", "
                "found \"%s\": %s",
                k->file, type, other_families[i].why);
    }
    int32_t which = 0;
    DR_TRY(dr_keys_word(k, "model_type", DR_REQUIRED, words, &which));
    snprintf(c->model_type, sizeof c->model_type, "%s", words[which]);
    return dr_ok();
}

static bool is_v2(const struct dr_config *c) {
    return strcmp(c->model_type, "deepseek_v2") == 0;
}

static dr_status read_sizes(const struct dr_keys *k, struct dr_config *c) {
    DR_TRY(dr_keys_int(k, "vocab_size", DR_REQUIRED, 1, DR_VOCAB_MAX, &c->vocab));
    DR_TRY(dr_keys_int(k, "hidden_size", DR_REQUIRED, 1, DR_DIM_MAX, &c->dim));
    DR_TRY(dr_keys_int(k, "num_hidden_layers", DR_REQUIRED, 1, DR_LAYERS_MAX - 1, &c->n_layer));
    DR_TRY(dr_keys_int(k, "num_nextn_predict_layers", DR_OPTIONAL, 0, 1, &c->n_mtp));
    DR_TRY(dr_keys_int(k, "num_attention_heads", DR_REQUIRED, 1, DR_HEADS_MAX, &c->n_head));
    int32_t kv_heads = c->n_head;
    DR_TRY(dr_keys_int(k, "num_key_value_heads", DR_OPTIONAL, c->n_head, c->n_head, &kv_heads));
    if (k->object && !json_object_get(k->object, "q_lora_rank"))
        return dr_keys_refuse(k, "q_lora_rank", "a whole number, or null for one q_proj");
    DR_TRY(dr_keys_int(k, "q_lora_rank", DR_OPTIONAL, 1, DR_DIM_MAX, &c->q_lora));
    DR_TRY(dr_keys_int(k, "kv_lora_rank", DR_REQUIRED, 1, DR_DIM_MAX, &c->kv_lora));
    DR_TRY(dr_keys_int(k, "qk_nope_head_dim", DR_REQUIRED, 1, DR_DIM_MAX, &c->nope_dim));
    DR_TRY(dr_keys_int(k, "qk_rope_head_dim", DR_REQUIRED, 2, DR_DIM_MAX, &c->rope_dim));
    if (c->rope_dim % 2 != 0)
        return dr_keys_refuse(k, "qk_rope_head_dim", "an even number (pairs are rotated)");
    DR_TRY(dr_keys_int(k, "v_head_dim", DR_REQUIRED, 1, DR_DIM_MAX, &c->v_dim));
    int32_t qk = dr_config_qk_dim(c), head = c->rope_dim;
    DR_TRY(dr_keys_int(k, "qk_head_dim", DR_OPTIONAL, qk, qk, &qk));
    DR_TRY(dr_keys_int(k, "head_dim", DR_OPTIONAL, 1, DR_DIM_MAX,
                       &head)); /* transformers writes the rotated size here */
    if (head != c->rope_dim && head != qk)
        return dr_keys_refuse(k, "head_dim", "qk_rope_head_dim, or its sum with qk_nope_head_dim");
    DR_TRY(dr_keys_int(k, "intermediate_size", DR_REQUIRED, 1, DR_DIM_MAX, &c->mlp_dim));
    return dr_keys_int(k, "max_position_embeddings", DR_REQUIRED, 1, DR_POSITIONS_MAX, &c->n_position);
}

static dr_status read_router(const struct dr_keys *k, struct dr_config *c) {
    static const char *const softmax[] = {"softmax", NULL}, *const sigmoid[] = {"sigmoid", NULL};
    static const char *const v2_methods[] = {"greedy", "group_limited_greedy", NULL}, *const v3_methods[] = {
                                                                                          "noaux_tc", NULL};
    static const char *const router_types[] = {"float32", NULL};
    bool v2 = is_v2(c);
    int32_t which = 0;
    DR_TRY(dr_keys_word(k, "scoring_func", DR_OPTIONAL, v2 ? softmax : sigmoid, &which));
    DR_TRY(dr_keys_word(k, "moe_router_dtype", DR_OPTIONAL, router_types, &which));
    which = 0;
    DR_TRY(dr_keys_word(k, "topk_method", DR_OPTIONAL, v2 ? v2_methods : v3_methods, &which));
    c->router = !v2          ? DR_ROUTER_SIGMOID_NOAUX
                : which == 0 ? DR_ROUTER_SOFTMAX_GREEDY
                             : DR_ROUTER_SOFTMAX_GROUP;
    c->norm_topk = !v2;
    if (v2)
        DR_TRY(dr_keys_only_bool(k, "norm_topk_prob",
                                 false)); /* no two programs agree on what true means there */
    else
        DR_TRY(dr_keys_bool(k, "norm_topk_prob", &c->norm_topk));
    double scale = v2 ? 1.0 : 2.5;
    DR_TRY(dr_keys_real(k, "routed_scaling_factor", DR_OPTIONAL, 1e-6, 1e6, &scale));
    c->routed_scale = (float)scale;
    return dr_ok();
}

static dr_status read_groups(const struct dr_keys *k, struct dr_config *c) {
    c->n_group = c->n_group_active = 1;
    if (c->router == DR_ROUTER_SOFTMAX_GREEDY)
        return dr_ok(); /* groups have no effect there, whatever the file says */
    DR_TRY(dr_keys_int(k, "n_group", DR_REQUIRED, 1, c->n_expert, &c->n_group));
    if (c->n_expert % c->n_group != 0) return dr_keys_refuse(k, "n_group", "a divisor of n_routed_experts");
    DR_TRY(dr_keys_int(k, "topk_group", DR_REQUIRED, 1, c->n_group, &c->n_group_active));
    int32_t members = c->n_expert / c->n_group;
    if (c->router == DR_ROUTER_SIGMOID_NOAUX && c->n_group > 1 && members < 2)
        return dr_keys_refuse(k, "n_group",
                              "groups of at least 2 experts (a group's score is the sum of its two best)");
    if (c->n_active > c->n_group_active * members)
        return dr_keys_refuse(k, "num_experts_per_tok", "at most the experts of topk_group groups");
    return dr_ok();
}

static dr_status read_experts(const struct dr_keys *k, struct dr_config *c) {
    bool v2 = is_v2(c);
    c->moe_freq = c->n_group = c->n_group_active = 1;
    c->n_dense_layer = c->n_layer;
    DR_TRY(read_router(k, c));
    if (k->object && !json_object_get(k->object, "n_routed_experts"))
        return dr_keys_refuse(k, "n_routed_experts", "a whole number, or null for a model without experts");
    DR_TRY(dr_keys_int(k, "n_routed_experts", DR_OPTIONAL, 1, DR_EXPERTS_MAX, &c->n_expert));
    if (c->n_expert == 0) return dr_ok();
    c->n_dense_layer = v2 ? 0 : dr_min_i32(3, c->n_layer);
    DR_TRY(dr_keys_int(k, "first_k_dense_replace", DR_OPTIONAL, 0, c->n_layer, &c->n_dense_layer));
    DR_TRY(dr_keys_int(k, "moe_layer_freq", DR_OPTIONAL, 1, DR_LAYERS_MAX, &c->moe_freq));
    DR_TRY(dr_keys_int(k, "moe_intermediate_size", DR_REQUIRED, 1, DR_DIM_MAX, &c->expert_dim));
    DR_TRY(dr_keys_int(k, "num_experts_per_tok", DR_REQUIRED, 1, dr_min_i32(c->n_expert, DR_ACTIVE_MAX),
                       &c->n_active));
    c->n_shared = 0; /* null: none */
    if (k->object && !json_object_get(k->object, "n_shared_experts")) c->n_shared = v2 ? 2 : 1;
    DR_TRY(dr_keys_int(k, "n_shared_experts", DR_OPTIONAL, 0, DR_ACTIVE_MAX, &c->n_shared));
    if ((int64_t)c->n_shared * c->expert_dim > 16 * (int64_t)DR_DIM_MAX)
        return dr_keys_refuse(k, "n_shared_experts",
                              "n_shared_experts x moe_intermediate_size of at most 1048576");
    return read_groups(k, c);
}

static dr_status read_yarn(const struct dr_keys *k, struct dr_config *c) {
    c->yarn = true;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    c->yarn_mscale = 1;
    c->yarn_mscale_all = 0;
    DR_TRY(dr_keys_real(k, "factor", DR_REQUIRED, 1, 1e6, &c->yarn_factor));
    DR_TRY(dr_keys_real(k, "beta_fast", DR_OPTIONAL, 1e-3, 1e6, &c->yarn_beta_fast));
    DR_TRY(dr_keys_real(k, "beta_slow", DR_OPTIONAL, 1e-3, 1e6, &c->yarn_beta_slow));
    if (c->yarn_beta_fast < c->yarn_beta_slow) return dr_keys_refuse(k, "beta_fast", "at least beta_slow");
    DR_TRY(dr_keys_real(k, "mscale", DR_OPTIONAL, 0, 100, &c->yarn_mscale));
    DR_TRY(dr_keys_real(k, "mscale_all_dim", DR_OPTIONAL, 0, 100, &c->yarn_mscale_all));
    /* Published programs read every other combination differently from one another. */
    bool agreed =
        c->yarn_mscale_all == 0 ? c->yarn_mscale == 1 : dr_keys_get(k, "mscale") && c->yarn_mscale != 0;
    if (!agreed) return dr_keys_refuse(k, "mscale", "mscale and mscale_all_dim both given, or neither");
    DR_TRY(dr_keys_int(k, "original_max_position_embeddings", DR_REQUIRED, 1, DR_POSITIONS_MAX,
                       &c->yarn_positions));
    if (dr_keys_get(k, "attention_factor"))
        return dr_keys_refuse(k, "attention_factor", "nothing (mscale sets it)");
    if (dr_keys_get(k, "apply_scale")) return dr_keys_refuse(k, "apply_scale", "nothing");
    return dr_keys_only_bool(k, "truncate", true);
}

static dr_status read_rope_block(const struct dr_keys *k, struct dr_config *c) {
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "mscale",
                                        "mscale_all_dim",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor",
                                        "attention_factor",
                                        "apply_scale",
                                        "truncate",
                                        NULL};
    static const char *const foreign[] = {
        "short_factor",         "long_factor", "low_freq_factor", "high_freq_factor", "mrope_section",
        "llama_4_scaling_beta", NULL};
    static const char *const types[] = {"default", "yarn", NULL};
    DR_TRY(dr_keys_sort(k, known, foreign));
    const char *old = json_string_value(dr_keys_get(k, "type")),
               *new = json_string_value(dr_keys_get(k, "rope_type"));
    if (old && new &&strcmp(old, new) != 0)
        return dr_keys_refuse(k, "rope_type", "the same value as in \"type\"");
    int32_t which = 0;
    DR_TRY(dr_keys_word(k, dr_keys_get(k, "rope_type") ? "rope_type" : "type", DR_REQUIRED, types, &which));
    double whole = 1;
    DR_TRY(dr_keys_real(k, "partial_rotary_factor", DR_OPTIONAL, 1, 1, &whole));
    return which == 0 ? dr_ok() : read_yarn(k, c);
}

static dr_status read_rope(const struct dr_keys *k, struct dr_config *c) {
    struct dr_keys old, new;
    DR_TRY(dr_keys_object(k, "rope_scaling", "rope_scaling.", &old));
    DR_TRY(dr_keys_object(k, "rope_parameters", "rope_parameters.", &new));
    if (old.object && new.object)
        return dr_keys_refuse(k, "rope_scaling", "one of rope_scaling and rope_parameters, not both");
    const struct dr_keys *block = old.object ? &old : &new;
    c->rope_theta = 10000;
    DR_TRY(dr_keys_real(k, "rope_theta", DR_OPTIONAL, 2, 1e12, &c->rope_theta));
    double theta = c->rope_theta;
    DR_TRY(dr_keys_real(block, "rope_theta", DR_OPTIONAL, 2, 1e12, &theta));
    if (theta != c->rope_theta && dr_keys_get(k, "rope_theta"))
        return dr_keys_refuse(block, "rope_theta", "the same value as in the key \"rope_theta\" outside");
    c->rope_theta = theta;
    DR_TRY(dr_keys_only_bool(k, "rope_interleave", true));
    return block->object ? read_rope_block(block, c) : dr_ok();
}

static dr_status read_switches(const struct dr_keys *k, struct dr_config *c) {
    static const char *const silu[] = {"silu", NULL};
    int32_t which = 0;
    double eps = 1e-6;
    DR_TRY(dr_keys_word(k, "hidden_act", DR_OPTIONAL, silu, &which));
    DR_TRY(dr_keys_only_bool(k, "attention_bias", false));
    DR_TRY(dr_keys_only_bool(k, "mlp_bias", false));
    DR_TRY(dr_keys_bool(k, "tie_word_embeddings", &c->tied));
    DR_TRY(dr_keys_real(k, "rms_norm_eps", DR_OPTIONAL, 1e-30, 1, &eps));
    c->rms_eps = (float)eps;
    return dr_ok();
}

static dr_status read_quantization(const struct dr_keys *k, struct dr_config *c) {
    static const char *const known[] = {"quant_method",      "fmt",       "activation_scheme",
                                        "weight_block_size", "scale_fmt", "modules_to_not_convert",
                                        "ignored_layers",    NULL};
    static const char *const foreign[] = {"config_groups", "format",          "bits",
                                          "group_size",    "kv_cache_scheme", NULL};
    static const char *const methods[] = {"fp8", NULL}, *const formats[] = {"e4m3", NULL};
    static const char *const schemes[] = {"dynamic", NULL}, *const scales[] = {"ue8m0", NULL};
    struct dr_keys q;
    int32_t which = 0;
    DR_TRY(dr_keys_object(k, "quantization_config", "quantization_config.", &q));
    if (!q.object) return dr_ok();
    DR_TRY(dr_keys_word(&q, "quant_method", DR_REQUIRED, methods, &which));
    DR_TRY(dr_keys_sort(&q, known, foreign));
    DR_TRY(dr_keys_word(&q, "fmt", DR_OPTIONAL, formats, &which));
    DR_TRY(dr_keys_word(&q, "activation_scheme", DR_OPTIONAL, schemes, &which));
    DR_TRY(dr_keys_word(&q, "scale_fmt", DR_OPTIONAL, scales, &which));
    const json_t *block = dr_keys_get(&q, "weight_block_size");
    if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != 128 ||
        json_integer_value(json_array_get(block, 1)) != 128)
        return dr_keys_refuse(&q, "weight_block_size", "[128, 128]");
    c->fp8 = true;
    c->fp8_block = 128;
    return dr_ok();
}

static dr_status add_end_id(const struct dr_keys *k, const json_t *v, struct dr_config *c) {
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || id >= c->vocab)
        return dr_keys_refuse(k, "eos_token_id", "token ids within the vocabulary");
    int32_t at = 0;
    while (at < c->n_end_id && c->end_id[at] < (uint32_t)id) at++;
    if (at < c->n_end_id && c->end_id[at] == (uint32_t)id) return dr_ok();
    if (c->n_end_id == DR_END_IDS_MAX)
        return dr_keys_refuse(k, "eos_token_id", "at most 16 end tokens in all");
    memmove(c->end_id + at + 1, c->end_id + at, (size_t)(c->n_end_id - at) * sizeof *c->end_id);
    c->end_id[at] = (uint32_t)id;
    c->n_end_id++;
    return dr_ok();
}

static dr_status read_end_ids(const struct dr_keys *k, struct dr_config *c) {
    const json_t *v = dr_keys_get(k, "eos_token_id");
    if (!v) return dr_ok();
    if (!json_is_array(v)) return add_end_id(k, v, c);
    if (json_array_size(v) > DR_END_IDS_MAX)
        return dr_keys_refuse(k, "eos_token_id", "at most 16 end tokens in all");
    for (size_t i = 0; i < json_array_size(v); i++) DR_TRY(add_end_id(k, json_array_get(v, i), c));
    return dr_ok();
}

static dr_status read_config(const struct dr_keys *k, struct dr_config *c) {
    int32_t bos = -1;
    DR_TRY(read_model_type(k, c));
    DR_TRY(dr_keys_sort(k, known_keys, foreign_keys));
    DR_TRY(read_sizes(k, c));
    DR_TRY(read_experts(k, c));
    DR_TRY(read_rope(k, c));
    DR_TRY(read_switches(k, c));
    DR_TRY(read_quantization(k, c));
    DR_TRY(dr_keys_int(k, "bos_token_id", DR_OPTIONAL, 0, c->vocab - 1, &bos));
    c->bos_id = bos;
    return read_end_ids(k, c);
}

static dr_status read_generation(const struct dr_keys *k, struct dr_config *c) {
    static const char *const known[] = {"temperature",
                                        "top_p",
                                        "top_k",
                                        "do_sample",
                                        "eos_token_id",
                                        "bos_token_id",
                                        "pad_token_id",
                                        "_from_model_config",
                                        "transformers_version",
                                        "max_length",
                                        "max_new_tokens",
                                        "use_cache",
                                        "cache_implementation",
                                        NULL};
    static const char *const foreign[] = {NULL};
    double temperature = NAN, top_p = NAN;
    DR_TRY(dr_keys_sort(k, known, foreign));
    DR_TRY(dr_keys_real(k, "temperature", DR_OPTIONAL, 0, 100, &temperature));
    DR_TRY(dr_keys_real(k, "top_p", DR_OPTIONAL, 1e-6, 1, &top_p));
    DR_TRY(dr_keys_int(k, "top_k", DR_OPTIONAL, 0, DR_VOCAB_MAX, &c->gen_top_k));
    DR_TRY(dr_keys_bool(k, "do_sample", &c->gen_do_sample));
    c->gen_temperature = (float)temperature;
    c->gen_top_p = (float)top_p;
    return read_end_ids(k, c);
}

static dr_status parse_object(const char *file, const char *text, size_t bytes, json_t **out) {
    const struct dr_json_limits limits = {.bytes_max = CONFIG_BYTES_MAX};
    dr_status st = dr_json_parse(text, bytes, limits, out);
    if (st.code != DR_OK) return dr_fail(DR_EMODEL, "%s: %s", file, dr_error_text());
    if (json_is_object(*out)) return dr_ok();
    json_decref(*out);
    return dr_fail(DR_EMODEL, "%s: expected a JSON object", file);
}

dr_status dr_config_parse(const char *config, size_t config_bytes, const char *generation,
                          size_t generation_bytes, struct dr_config *out) {
    struct dr_config c = {
        .bos_id = -1, .gen_temperature = NAN, .gen_top_p = NAN, .gen_top_k = -1, .gen_do_sample = false};
    json_t *object = NULL;
    DR_TRY(parse_object("config.json", config, config_bytes, &object));
    const struct dr_keys k = {.file = "config.json", .prefix = "", .object = object};
    dr_status st = read_config(&k, &c);
    json_decref(object);
    DR_TRY(st);
    if (generation) {
        DR_TRY(parse_object("generation_config.json", generation, generation_bytes, &object));
        const struct dr_keys g = {.file = "generation_config.json", .prefix = "", .object = object};
        st = read_generation(&g, &c);
        json_decref(object);
        DR_TRY(st);
    }
    *out = c;
    return dr_ok();
}

dr_status dr_config_load(const char *dir, struct dr_config *out) {
    int folder = -1;
    char *config = NULL, *generation = NULL;
    size_t config_bytes = 0, generation_bytes = 0;
    DR_TRY(dr_folder_open(dir, &folder));
    dr_status st = dr_folder_read(folder, "config.json", CONFIG_BYTES_MAX, &config, &config_bytes);
    if (st.code == DR_OK) {
        st = dr_folder_read(folder, "generation_config.json", CONFIG_BYTES_MAX, &generation,
                            &generation_bytes);
        if (st.code == DR_ENOENT) st = dr_ok(); /* the file is optional */
    }
    if (st.code == DR_OK) st = dr_config_parse(config, config_bytes, generation, generation_bytes, out);
    free(config);
    free(generation);
    close(folder);
    return st.code == DR_OK ? st : dr_fail_within(st, "%s: ", dir);
}

uint64_t dr_config_hash(const struct dr_config *c) {
    const int32_t counts[] = {
        c->vocab,          c->dim,       c->n_layer, c->n_mtp,          c->n_dense_layer,
        c->moe_freq,       c->n_head,    c->q_lora,  c->kv_lora,        c->nope_dim,
        c->rope_dim,       c->v_dim,     c->mlp_dim, c->expert_dim,     c->n_expert,
        c->n_active,       c->n_shared,  c->n_group, c->n_group_active, (int32_t)c->router,
        c->norm_topk,      c->tied,      c->fp8,     c->fp8_block,      c->yarn,
        c->yarn_positions, c->n_position};
    const double reals[] = {c->routed_scale,   c->rms_eps,        c->rope_theta,  c->yarn_factor,
                            c->yarn_beta_fast, c->yarn_beta_slow, c->yarn_mscale, c->yarn_mscale_all};
    uint64_t h = DR_FOLD_START;
    for (const char *p = c->model_type; *p; p++) h = dr_fold_u64(h, (unsigned char)*p);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        h = dr_fold_u64(h, (uint64_t)(int64_t)counts[i]);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) h = dr_fold_f64(h, reals[i]);
    return h;
}
