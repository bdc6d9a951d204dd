/* test_config.c - what config.json says.
 * In:   golden cases, published numbers, strings.      Out: checks.
 * Owns: nothing.
 * Why:  every number of the golden cases must arrive, and defaults must be those of the reference classes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "tests/unit/model/fixture.h"

static void v3_numbers(void) {
    struct dr_config c = fixture_config("v3-bf16");
    CU_ASSERT_STRING_EQUAL(c.model_type, "deepseek_v3");
    CU_ASSERT_EQUAL(c.vocab, 512);
    CU_ASSERT_EQUAL(c.dim, 104);
    CU_ASSERT_EQUAL(c.n_layer, 3);
    CU_ASSERT_EQUAL(c.n_mtp, 0);
    CU_ASSERT_EQUAL(c.n_dense_layer, 1);
    CU_ASSERT_EQUAL(c.moe_freq, 1);
    CU_ASSERT_EQUAL(c.n_head, 6);
    CU_ASSERT_EQUAL(c.q_lora, 44);
    CU_ASSERT_EQUAL(c.kv_lora, 36);
    CU_ASSERT_EQUAL(dr_config_qk_dim(&c), 32);
    CU_ASSERT_EQUAL(dr_config_row_dim(&c), 48);
    CU_ASSERT_EQUAL(c.v_dim, 18);
    CU_ASSERT_EQUAL(c.mlp_dim, 150);
    CU_ASSERT_EQUAL(c.expert_dim, 38);
    CU_ASSERT_EQUAL(c.n_expert, 16);
    CU_ASSERT_EQUAL(c.n_active, 4);
    CU_ASSERT_EQUAL(c.n_shared, 1);
    CU_ASSERT_EQUAL(c.n_group, 4);
    CU_ASSERT_EQUAL(c.n_group_active, 2);
    CU_ASSERT_EQUAL(c.router, DR_ROUTER_SIGMOID_NOAUX);
    CU_ASSERT_TRUE(c.norm_topk && !c.tied && !c.fp8 && c.yarn);
    CU_ASSERT_EQUAL(c.routed_scale, 2.5f);
    CU_ASSERT_EQUAL(c.rms_eps, 1e-6f);
    CU_ASSERT_EQUAL(c.yarn_positions, 64);
    CU_ASSERT_EQUAL(c.n_position, 2560);
    CU_ASSERT_EQUAL(c.bos_id, 0);
    CU_ASSERT_EQUAL(c.n_end_id, 1);
    CU_ASSERT_EQUAL(c.end_id[0], 1);
}

static void other_cases(void) {
    struct dr_config lite = fixture_config("v2-lite"), group = fixture_config("v2-group"),
                     kimi = fixture_config("kimi-k2");
    struct dr_config moon = fixture_config("moonlight"), fp8 = fixture_config("dense-fp8"),
                     mtp = fixture_config("v3-mtp");
    CU_ASSERT_EQUAL(lite.q_lora, 0);
    CU_ASSERT_EQUAL(lite.router, DR_ROUTER_SOFTMAX_GREEDY);
    CU_ASSERT_FALSE(lite.norm_topk);
    CU_ASSERT_EQUAL(lite.yarn_mscale_all, 0.707);
    CU_ASSERT_EQUAL(group.router, DR_ROUTER_SOFTMAX_GROUP);
    CU_ASSERT_EQUAL(group.n_group, 5);
    CU_ASSERT_EQUAL(group.routed_scale, 4.0f);
    CU_ASSERT_STRING_EQUAL(kimi.model_type, "kimi_k2");
    CU_ASSERT_EQUAL(kimi.rms_eps, 2e-3f);
    CU_ASSERT_TRUE(moon.tied && !moon.yarn);
    CU_ASSERT_EQUAL(moon.rope_theta, 50000);
    CU_ASSERT_TRUE(fp8.fp8);
    CU_ASSERT_EQUAL(fp8.fp8_block, 128);
    for (int32_t i = 0; i < 3; i++) CU_ASSERT_FALSE(dr_config_is_moe(&fp8, i));
    CU_ASSERT_EQUAL(mtp.n_mtp, 1);
    CU_ASSERT_TRUE(dr_config_is_moe(&mtp, 3) && !dr_config_is_moe(&mtp, 0));
}

static void both_spellings(void) {
    struct dr_config old = fixture_config("v3-bf16"), new = fixture_config("v3-rope2");
    CU_ASSERT_EQUAL(dr_config_hash(&old), dr_config_hash(&new));
    CU_ASSERT_TRUE(new.yarn);
    CU_ASSERT_EQUAL(new.yarn_factor, 40);
}

static void sample_model(void) {
    struct dr_config c = fixture_config("lexi-15m");
    CU_ASSERT_EQUAL(c.n_mtp, 1);
    CU_ASSERT_TRUE(c.fp8 && c.gen_do_sample && !c.yarn);
    CU_ASSERT_EQUAL(c.gen_temperature, 0.3f);
    CU_ASSERT_EQUAL(c.gen_top_p, 0.95f);
    CU_ASSERT_EQUAL(c.gen_top_k, -1);
}

static const char minimal[] =
    "{\"model_type\":\"%s\",\"vocab_size\":100,\"hidden_size\":16,\"num_hidden_layers\":5,\"num_attention_"
    "heads\":2,"
    "\"q_lora_rank\":null,\"kv_lora_rank\":8,\"qk_nope_head_dim\":4,\"qk_rope_head_dim\":4,\"v_head_dim\":4,"
    "\"intermediate_size\":20,\"moe_intermediate_size\":6,\"n_routed_experts\":8,\"num_experts_per_tok\":2,"
    "\"n_group\":2,"
    "\"topk_group\":1,\"max_position_embeddings\":99%s}";

static struct dr_config parse(const char *type, const char *more, const char *generation) {
    char text[2048];
    struct dr_config c = {0};
    snprintf(text, sizeof text, minimal, type, more);
    dr_status st = dr_config_parse(text, strlen(text), generation, generation ? strlen(generation) : 0, &c);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    CU_ASSERT_EQUAL(st.code, DR_OK);
    return c;
}

static void defaults(void) {
    struct dr_config v3 = parse("deepseek_v3", "", NULL), v2 = parse("deepseek_v2", "", NULL);
    CU_ASSERT_EQUAL(v3.router, DR_ROUTER_SIGMOID_NOAUX);
    CU_ASSERT_EQUAL(v3.n_dense_layer, 3);
    CU_ASSERT_EQUAL(v3.n_shared, 1);
    CU_ASSERT_EQUAL(v3.routed_scale, 2.5f);
    CU_ASSERT_TRUE(v3.norm_topk);
    CU_ASSERT_EQUAL(v2.router, DR_ROUTER_SOFTMAX_GREEDY);
    CU_ASSERT_EQUAL(v2.n_dense_layer, 0);
    CU_ASSERT_EQUAL(v2.n_shared, 2);
    CU_ASSERT_EQUAL(v2.n_group, 1); /* greedy ignores groups */
    CU_ASSERT_EQUAL(v2.routed_scale, 1.0f);
    CU_ASSERT_FALSE(v2.norm_topk);
    CU_ASSERT_EQUAL(v3.moe_freq, 1);
    CU_ASSERT_EQUAL(v3.rms_eps, 1e-6f);
    CU_ASSERT_EQUAL(v3.rope_theta, 10000);
    CU_ASSERT_EQUAL(v3.bos_id, -1);
    CU_ASSERT_EQUAL(v3.n_end_id, 0);
    CU_ASSERT_EQUAL(v3.gen_top_k, -1);
    CU_ASSERT_TRUE(isnan(v3.gen_temperature) && isnan(v3.gen_top_p));
}

static void end_ids(void) {
    struct dr_config c = parse("deepseek_v3", ",\"eos_token_id\":[9,3,9]", "{\"eos_token_id\":[5,3]}");
    CU_ASSERT_EQUAL(c.n_end_id, 3);
    CU_ASSERT_EQUAL(c.end_id[0], 3);
    CU_ASSERT_EQUAL(c.end_id[1], 5);
    CU_ASSERT_EQUAL(c.end_id[2], 9);
    CU_ASSERT_EQUAL(parse("deepseek_v3", "", "{\"eos_token_id\":7}").end_id[0], 7);
}

static void without_experts(void) {
    struct dr_config c = {0};
    char text[2048];
    snprintf(text, sizeof text, minimal, "deepseek_v3", "");
    json_t *j = json_loads(text, 0, NULL);
    json_object_set_new(j, "n_routed_experts", json_null());
    char *changed = json_dumps(j, 0);
    CU_ASSERT_EQUAL(dr_config_parse(changed, strlen(changed), NULL, 0, &c).code, DR_OK);
    CU_ASSERT_EQUAL(c.n_expert, 0);
    for (int32_t i = 0; i < 5; i++) CU_ASSERT_FALSE(dr_config_is_moe(&c, i));
    free(changed);
    json_decref(j);
}

static void rope_spellings(void) {
    CU_ASSERT_FALSE(parse("deepseek_v3", ",\"rope_scaling\":null", NULL).yarn);
    CU_ASSERT_FALSE(parse("deepseek_v3", ",\"rope_scaling\":{\"type\":\"default\"}", NULL).yarn);
    struct dr_config c =
        parse("deepseek_v3", ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1000000}", NULL);
    CU_ASSERT_EQUAL(c.rope_theta, 1000000);
    c = parse("deepseek_v3",
              ",\"rope_theta\":77,\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"yarn\",\"factor\":4,"
              "\"original_max_position_embeddings\":32}",
              NULL);
    CU_ASSERT_TRUE(c.yarn);
    CU_ASSERT_EQUAL(c.rope_theta, 77);
    CU_ASSERT_EQUAL(c.yarn_beta_fast, 32);
    CU_ASSERT_EQUAL(c.yarn_beta_slow, 1);
    CU_ASSERT_EQUAL(c.yarn_mscale, 1);
    CU_ASSERT_EQUAL(c.yarn_mscale_all, 0);
}

static void inert_keys(void) {
    struct dr_config plain = parse("deepseek_v3", "", NULL);
    struct dr_config c =
        parse("deepseek_v3",
              ",\"torch_dtype\":\"float16\",\"dtype\":\"float32\",\"architectures\":[\"Whatever\"],"
              "\"index_topk\":null,\"sliding_window\":null,\"head_dim\":4,\"moe_router_dtype\":\"float32\"",
              NULL);
    CU_ASSERT_EQUAL(dr_config_hash(&c), dr_config_hash(&plain));
}

/* Runs a parse with stderr in a file and returns what was logged. */
static char *logged(const char *more, const char *generation) {
    static const size_t room = 1 << 16;
    FILE *f = tmpfile();
    char *text = calloc(1, room);
    CU_ASSERT_FATAL(f && text);
    int saved = dup(2);
    dup2(fileno(f), 2);
    parse("deepseek_v3", more, generation);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    CU_ASSERT_TRUE(fread(text, 1, room - 1, f) < room - 1);
    fclose(f);
    return text;
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) n++;
    return n;
}

static void unknown_keys(void) {
    char *text = logged(",\"shiny\":1,\"ne\\nw\":2", "{\"glow\":3}");
    CU_ASSERT_EQUAL(count(text, "WARN"), 3);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "config.json: key \"shiny\" is unknown and ignored"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "key \"ne?w\" is unknown and ignored"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "generation_config.json: key \"glow\" is unknown and ignored"));
    free(text);
    text = logged("", NULL);
    CU_ASSERT_STRING_EQUAL(text, "");
    free(text);
}

static void many_unknown_keys(void) {
    char more[1600] = "";
    for (int i = 0; i < 100; i++) snprintf(more + strlen(more), sizeof more - strlen(more), ",\"k%d\":0", i);
    char *text = logged(more, NULL);
    CU_ASSERT_EQUAL(count(text, "WARN"), 33);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "68 more keys"));
    free(text);
}

static void failure_leaves_out_alone(void) {
    struct dr_config c = {.vocab = 12345};
    CU_ASSERT_EQUAL(dr_config_parse("{}", 2, NULL, 0, &c).code, DR_EMODEL);
    CU_ASSERT_EQUAL(c.vocab, 12345);
}

static void hash_sees_arithmetic(void) {
    struct dr_config a = fixture_config("v3-bf16"), b = a;
    b.gen_temperature = 0.25f;
    CU_ASSERT_EQUAL(dr_config_hash(&a), dr_config_hash(&b));
    b = a;
    b.rms_eps = 1e-5f;
    CU_ASSERT_NOT_EQUAL(dr_config_hash(&a), dr_config_hash(&b));
    b = a;
    b.n_active++;
    CU_ASSERT_NOT_EQUAL(dr_config_hash(&a), dr_config_hash(&b));
    b = a;
    b.yarn_mscale_all = 0.5;
    CU_ASSERT_NOT_EQUAL(dr_config_hash(&a), dr_config_hash(&b));
}

static CU_TestInfo cases[] = {
    {"the numbers of a V3 config arrive", v3_numbers},
    {"the numbers of the other golden cases arrive", other_cases},
    {"both spellings of the rotation give the same config", both_spellings},
    {"the sample model and its sampling defaults arrive", sample_model},
    {"absent keys take the reference classes' defaults", defaults},
    {"end tokens are the union of both files, ascending", end_ids},
    {"null experts make a model of dense layers", without_experts},
    {"every spelling of the rotation is read", rope_spellings},
    {"inert keys and null foreign keys change nothing", inert_keys},
    {"an unknown key gives exactly one warning", unknown_keys},
    {"a hundred unknown keys give 33 lines", many_unknown_keys},
    {"a refused config leaves the result untouched", failure_leaves_out_alone},
    {"the hash sees arithmetic and not sampling defaults", hash_sees_arithmetic},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_config = {.pName = "model/config", .pTests = cases};
