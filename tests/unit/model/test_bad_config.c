/* test_bad_config.c - table of bad config.json and generation_config.json.
 * In:   a good config with one key changed.      Out: the exact refusal.
 * Owns: nothing.
 * Why:  each arithmetic key refuses what it does not know, by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <CUnit/CUnit.h>

#include "tests/unit/model/fixture.h"

/* value: JSON; NULL removes the key. The key may be "block.key". */
struct bad {
    const char *base, *key, *value, *text;
};

#define FROM_TO(a, b) "expected a whole number from " a " to " b ", found "
#define TYPES         "expected \"deepseek_v2\", \"deepseek_v3\" or \"kimi_k2\", found "
#define FOREIGN       "expected nothing (the key belongs to another architecture), found "

static const struct bad table[] = {
    {"v3-bf16", "model_type", NULL, "\"model_type\": " TYPES "nothing"},
    {"v3-bf16", "model_type", "3", "\"model_type\": " TYPES "3"},
    {"v3-bf16", "model_type", "\"llama\"", "\"model_type\": " TYPES "\"llama\""},
    {"v3-bf16", "model_type", "\"deepseek_v32\"",
     "\"model_type\": " TYPES "\"deepseek_v32\": sparse attention (DSA) is not supported"},
    {"v3-bf16", "model_type", "\"kimi_k25\"",
     "\"model_type\": " TYPES "\"kimi_k25\": a wrapper with vision parts and INT4 experts is not supported"},
    {"v3-bf16", "model_type", "\"mistral4\"",
     "\"model_type\": " TYPES "\"mistral4\": its query scale and softmax router are not supported"},
    {"v3-bf16", "index_topk", "2048", "\"index_topk\": " FOREIGN "2048"},
    {"v3-bf16", "sliding_window", "128", "\"sliding_window\": " FOREIGN "128"},
    {"v3-bf16", "llama_4_scaling", "{}", "\"llama_4_scaling\": " FOREIGN "an object"},
    {"v3-bf16", "num_attention_heads", "0", "\"num_attention_heads\": " FROM_TO("1", "1024") "0"},
    {"v3-bf16", "num_attention_heads", "-1", "\"num_attention_heads\": " FROM_TO("1", "1024") "-1"},
    {"v3-bf16", "num_attention_heads", "6.5",
     "\"num_attention_heads\": " FROM_TO("1", "1024") "6.5 (a real)"},
    {"v3-bf16", "num_attention_heads", "\"6\"", "\"num_attention_heads\": " FROM_TO("1", "1024") "\"6\""},
    {"v3-bf16", "num_attention_heads", "null", "\"num_attention_heads\": " FROM_TO("1", "1024") "null"},
    {"v3-bf16", "num_key_value_heads", "2", "\"num_key_value_heads\": " FROM_TO("6", "6") "2"},
    {"v3-bf16", "n_routed_experts", "2147483648", "\"n_routed_experts\": " FROM_TO("1", "4096") "2147483648"},
    {"v3-bf16", "n_routed_experts", "9223372036854775807",
     "\"n_routed_experts\": " FROM_TO("1", "4096") "9223372036854775807"},
    {"v3-bf16", "n_routed_experts", NULL,
     "\"n_routed_experts\": expected a whole number, or null for a model without experts, found nothing"},
    {"v3-bf16", "hidden_size", "104.0", "\"hidden_size\": " FROM_TO("1", "65536") "104 (a real)"},
    {"v3-bf16", "hidden_size", NULL, "\"hidden_size\": " FROM_TO("1", "65536") "nothing"},
    {"v3-bf16", "vocab_size", "1048577", "\"vocab_size\": " FROM_TO("1", "1048576") "1048577"},
    {"v3-bf16", "num_hidden_layers", "256", "\"num_hidden_layers\": " FROM_TO("1", "255") "256"},
    {"v3-bf16", "num_nextn_predict_layers", "2", "\"num_nextn_predict_layers\": " FROM_TO("0", "1") "2"},
    {"v3-bf16", "q_lora_rank", NULL,
     "\"q_lora_rank\": expected a whole number, or null for one q_proj, found nothing"},
    {"v3-bf16", "q_lora_rank", "0", "\"q_lora_rank\": " FROM_TO("1", "65536") "0"},
    {"v3-bf16", "qk_rope_head_dim", "0", "\"qk_rope_head_dim\": " FROM_TO("2", "65536") "0"},
    {"v3-bf16", "qk_rope_head_dim", "13",
     "\"qk_rope_head_dim\": expected an even number (pairs are rotated), found 13"},
    {"v3-bf16", "qk_head_dim", "33", "\"qk_head_dim\": " FROM_TO("32", "32") "33"},
    {"v3-bf16", "head_dim", "7",
     "\"head_dim\": expected qk_rope_head_dim, or its sum with qk_nope_head_dim, found 7"},
    {"v3-bf16", "max_position_embeddings", "16777217",
     "\"max_position_embeddings\": " FROM_TO("1", "16777216") "16777217"},
    {"v3-bf16", "first_k_dense_replace", "4", "\"first_k_dense_replace\": " FROM_TO("0", "3") "4"},
    {"v3-bf16", "moe_layer_freq", "0", "\"moe_layer_freq\": " FROM_TO("1", "256") "0"},
    {"v3-bf16", "num_experts_per_tok", "17", "\"num_experts_per_tok\": " FROM_TO("1", "16") "17"},
    {"v3-bf16", "num_experts_per_tok", "9",
     "\"num_experts_per_tok\": expected at most the experts of topk_group groups, found 9"},
    {"v3-bf16", "n_shared_experts", "-1", "\"n_shared_experts\": " FROM_TO("0", "64") "-1"},
    {"v3-bf16", "n_group", "3", "\"n_group\": expected a divisor of n_routed_experts, found 3"},
    {"v3-bf16", "n_group", "16",
     "\"n_group\": expected groups of at least 2 experts (a group's score is the sum of its two best), found "
     "16"},
    {"v3-bf16", "n_group", NULL, "\"n_group\": " FROM_TO("1", "16") "nothing"},
    {"v3-bf16", "topk_group", "5", "\"topk_group\": " FROM_TO("1", "4") "5"},
    {"v3-bf16", "scoring_func", "\"softmax\"", "\"scoring_func\": expected \"sigmoid\", found \"softmax\""},
    {"v3-bf16", "topk_method", "\"greedy\"", "\"topk_method\": expected \"noaux_tc\", found \"greedy\""},
    {"v2-lite", "scoring_func", "\"sigmoid\"", "\"scoring_func\": expected \"softmax\", found \"sigmoid\""},
    {"v2-lite", "topk_method", "\"noaux_tc\"",
     "\"topk_method\": expected \"greedy\" or \"group_limited_greedy\", found \"noaux_tc\""},
    {"v2-lite", "norm_topk_prob", "true", "\"norm_topk_prob\": expected false, found true"},
    {"v3-bf16", "norm_topk_prob", "1", "\"norm_topk_prob\": expected true or false, found 1"},
    {"v3-bf16", "routed_scaling_factor", "0",
     "\"routed_scaling_factor\": expected a number from 1e-06 to 1e+06, found 0"},
    {"v3-bf16", "routed_scaling_factor", "-2.5",
     "\"routed_scaling_factor\": expected a number from 1e-06 to 1e+06, found -2.5 (a real)"},
    {"v3-bf16", "rms_norm_eps", "0", "\"rms_norm_eps\": expected a number from 1e-30 to 1, found 0"},
    {"v3-bf16", "rms_norm_eps", "\"1e-6\"",
     "\"rms_norm_eps\": expected a number from 1e-30 to 1, found \"1e-6\""},
    {"v3-bf16", "hidden_act", "\"gelu\"", "\"hidden_act\": expected \"silu\", found \"gelu\""},
    {"v3-bf16", "hidden_act", "\"silu\\u00e9\\n\"", "\"hidden_act\": expected \"silu\", found \"silu???\""},
    {"v3-bf16", "attention_bias", "true", "\"attention_bias\": expected false, found true"},
    {"v3-bf16", "mlp_bias", "\"no\"", "\"mlp_bias\": expected false, found \"no\""},
    {"v3-bf16", "rope_interleave", "false", "\"rope_interleave\": expected true, found false"},
    {"v3-bf16", "tie_word_embeddings", "0", "\"tie_word_embeddings\": expected true or false, found 0"},
    {"v3-bf16", "moe_router_dtype", "\"bfloat16\"",
     "\"moe_router_dtype\": expected \"float32\", found \"bfloat16\""},
    {"v3-bf16", "rope_theta", "1", "\"rope_theta\": expected a number from 2 to 1e+12, found 1"},
    {"v3-bf16", "rope_scaling", "[]", "\"rope_scaling\": expected an object or null, found a list of 0"},
    {"v3-bf16", "rope_scaling.type", "\"linear\"",
     "\"rope_scaling.type\": expected \"default\" or \"yarn\", found \"linear\""},
    {"v3-bf16", "rope_scaling.type", NULL,
     "\"rope_scaling.type\": expected \"default\" or \"yarn\", found nothing"},
    {"v3-bf16", "rope_scaling.rope_type", "\"default\"",
     "\"rope_scaling.rope_type\": expected the same value as in \"type\", found \"default\""},
    {"v3-bf16", "rope_scaling.factor", "0.5",
     "\"rope_scaling.factor\": expected a number from 1 to 1e+06, found 0.5 (a real)"},
    {"v3-bf16", "rope_scaling.factor", NULL,
     "\"rope_scaling.factor\": expected a number from 1 to 1e+06, found nothing"},
    {"v3-bf16", "rope_scaling.beta_fast", "0.5",
     "\"rope_scaling.beta_fast\": expected at least beta_slow, found 0.5 (a real)"},
    {"v3-bf16", "rope_scaling.mscale", NULL,
     "\"rope_scaling.mscale\": expected mscale and mscale_all_dim both given, or neither, found nothing"},
    {"v2-lite", "rope_scaling.mscale_all_dim", NULL,
     "\"rope_scaling.mscale\": expected mscale and mscale_all_dim both given, or neither, found 0.707 (a "
     "real)"},
    {"v3-bf16", "rope_scaling.original_max_position_embeddings", NULL,
     "\"rope_scaling.original_max_position_embeddings\": " FROM_TO("1", "16777216") "nothing"},
    {"v3-bf16", "rope_scaling.attention_factor", "1.0",
     "\"rope_scaling.attention_factor\": expected nothing (mscale sets it), found 1 (a real)"},
    {"v3-bf16", "rope_scaling.apply_scale", "false",
     "\"rope_scaling.apply_scale\": expected nothing, found false"},
    {"v3-bf16", "rope_scaling.truncate", "false", "\"rope_scaling.truncate\": expected true, found false"},
    {"v3-bf16", "rope_scaling.low_freq_factor", "1", "\"rope_scaling.low_freq_factor\": " FOREIGN "1"},
    {"v3-bf16", "rope_parameters", "{\"rope_type\":\"default\"}",
     "\"rope_scaling\": expected one of rope_scaling and rope_parameters, not both, found an object"},
    {"v3-rope2", "rope_theta", "5",
     "\"rope_parameters.rope_theta\": expected the same value as in the key \"rope_theta\" outside, found "
     "10000 (a real)"},
    {"v3-rope2", "rope_parameters.partial_rotary_factor", "0.5",
     "\"rope_parameters.partial_rotary_factor\": expected a number from 1 to 1, found 0.5 (a real)"},
    {"v3-fp8", "quantization_config.quant_method", "\"compressed-tensors\"",
     "\"quantization_config.quant_method\": expected \"fp8\", found \"compressed-tensors\""},
    {"v3-fp8", "quantization_config.quant_method", NULL,
     "\"quantization_config.quant_method\": expected \"fp8\", found nothing"},
    {"v3-fp8", "quantization_config.fmt", "\"e5m2\"",
     "\"quantization_config.fmt\": expected \"e4m3\", found \"e5m2\""},
    {"v3-fp8", "quantization_config.activation_scheme", "\"static\"",
     "\"quantization_config.activation_scheme\": expected \"dynamic\", found \"static\""},
    {"v3-fp8", "quantization_config.scale_fmt", "\"float\"",
     "\"quantization_config.scale_fmt\": expected \"ue8m0\", found \"float\""},
    {"v3-fp8", "quantization_config.weight_block_size", "[128, 64]",
     "\"quantization_config.weight_block_size\": expected [128, 128], found a list of 2"},
    {"v3-fp8", "quantization_config.weight_block_size", NULL,
     "\"quantization_config.weight_block_size\": expected [128, 128], found nothing"},
    {"v3-bf16", "quantization_config", "\"fp8\"",
     "\"quantization_config\": expected an object or null, found \"fp8\""},
    {"v3-bf16", "bos_token_id", "512", "\"bos_token_id\": " FROM_TO("0", "511") "512"},
    {"v3-bf16", "eos_token_id", "512",
     "\"eos_token_id\": expected token ids within the vocabulary, found 512"},
    {"v3-bf16", "eos_token_id", "[1, -1]",
     "\"eos_token_id\": expected token ids within the vocabulary, found a list of 2"},
    {"v3-bf16", "eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
     "\"eos_token_id\": expected at most 16 end tokens in all, found a list of 17"},
};

static void change(json_t *config, const char *path, const char *value) {
    const char *dot = strchr(path, '.');
    if (dot) {
        char block[64];
        snprintf(block, sizeof block, "%.*s", (int)(dot - path), path);
        change(json_object_get(config, block), dot + 1, value);
    } else if (value) {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
        CU_ASSERT_PTR_NOT_NULL_FATAL(v);
        json_object_set_new(config, path, v);
    } else {
        CU_ASSERT_EQUAL(json_object_del(config, path), 0);
    }
}

static void refused(const char *text, const char *generation, const char *expected) {
    struct dr_config c = {.vocab = 4711};
    dr_status st = dr_config_parse(text, strlen(text), generation, generation ? strlen(generation) : 0, &c);
    CU_ASSERT_EQUAL(st.code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
    if (st.code == DR_OK || strcmp(dr_error_text(), expected) != 0)
        printf("expected: %s\n   found: %s\n", expected, st.code == DR_OK ? "(accepted)" : dr_error_text());
    CU_ASSERT_EQUAL(c.vocab, 4711);
}

static void bad_keys(void) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct fixture f;
        char expected[512];
        fixture_init(&f, table[i].base);
        change(f.config, table[i].key, table[i].value);
        char *text = json_dumps(f.config, 0);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        snprintf(expected, sizeof expected, "config.json: key %s", table[i].text);
        refused(text, NULL, expected);
        free(text);
        fixture_fini(&f);
    }
}

static void bad_json(void) {
    refused("", NULL, "config.json: not valid JSON at line 1, column 0: unexpected token near end of file");
    refused("[1]", NULL, "config.json: expected a JSON object");
    refused("{\"a\":1,\"a\":2}", NULL,
            "config.json: not valid JSON at line 1, column 10: duplicate object key");
    refused("{\"a\":NaN}", NULL, "config.json: not valid JSON at line 1, column 8: invalid token");
    refused("{\"a\":1} x", NULL, "config.json: not valid JSON at line 1, column 9: end of file expected");
    refused("{\"hidden_size\":9223372036854775808}", NULL,
            "config.json: not valid JSON at line 1, column 34: too big integer");
    refused("{\"rope_theta\":1e999}", NULL,
            "config.json: not valid JSON at line 1, column 19: real number overflow");
}

static void bad_generation(void) {
    static const struct {
        const char *generation, *text;
    } bad[] = {
        {"[]", "generation_config.json: expected a JSON object"},
        {"{\"temperature\":-1}",
         "generation_config.json: key \"temperature\": expected a number from 0 to 100, found -1"},
        {"{\"top_p\":0}",
         "generation_config.json: key \"top_p\": expected a number from 1e-06 to 1, found 0"},
        {"{\"top_p\":1.5}",
         "generation_config.json: key \"top_p\": expected a number from 1e-06 to 1, found 1.5 (a real)"},
        {"{\"top_k\":-1}",
         "generation_config.json: key \"top_k\": expected a whole number from 0 to 1048576, found -1"},
        {"{\"do_sample\":\"yes\"}",
         "generation_config.json: key \"do_sample\": expected true or false, found \"yes\""},
        {"{\"eos_token_id\":[2,99999]}", "generation_config.json: key \"eos_token_id\": expected token ids "
                                         "within the vocabulary, found a list of 2"},
        {"{\"eos_token_id\":\"</s>\"}", "generation_config.json: key \"eos_token_id\": expected token ids "
                                        "within the vocabulary, found \"</s>\""},
    };
    struct fixture f;
    fixture_init(&f, "v3-bf16");
    char *text = json_dumps(f.config, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(text, bad[i].generation, bad[i].text);
    free(text);
    fixture_fini(&f);
}

static void sparse_cases(void) {
    static const char *const names[] = {"v32-dsa", "glm-dsa"};
    static const char *const types[] = {"deepseek_v32", "glm_moe_dsa"};
    for (int i = 0; i < 2; i++) {
        struct dr_config c;
        char dir[FIXTURE_PATH], expected[1024];
        CU_ASSERT_EQUAL(dr_config_load(fixture_case(names[i], dir), &c).code, DR_EMODEL);
        snprintf(expected, sizeof expected,
                 "%s: config.json: key \"model_type\": " TYPES
                 "\"%s\": sparse attention (DSA) is not supported",
                 dir, types[i]);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
    }
}

static CU_TestInfo cases[] = {
    {"each arithmetic key refuses unknown values by name", bad_keys},
    {"JSON that is no strict JSON object is refused", bad_json},
    {"a bad generation_config.json is refused by name", bad_generation},
    {"sparse-attention models are refused by name", sparse_cases},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bad_config = {.pName = "model/bad_config", .pTests = cases};
