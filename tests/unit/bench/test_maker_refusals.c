/* test_maker_refusals.c - what the maker refuses, and what it leaves behind: nothing.
 * In:   bad wishes.      Out: CUnit results.
 * Owns: temporary folders.
 * Why:  it writes gigabytes; it must not write them over something, or leave half of them. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/support/runner.h"
#include "tests/unit/bench/scratch.h"

/* code, words of the text, and no folder afterwards */
static void refused(const struct dr_maker_wish *wish, enum dr_code code, const char *words) {
    struct dr_maker_report report;
    dr_status st = dr_maker_run(wish, &report);
    CU_ASSERT_EQUAL(st.code, code);
    bool said = strstr(dr_error_text(), words) != NULL;
    if (!said) printf("  expected \"%s\" in: %s\n", words, dr_error_text());
    CU_ASSERT(said);
}

static void taken_folder(void) {
    struct scratch s;
    scratch_init(&s);
    struct dr_maker_wish wish = scratch_wish(&s, "tiny", DR_DTYPE_BF16);
    (void)scratch_text(&s, "mine", "kept");
    wish.dir = s.dir;
    refused(&wish, DR_EUSAGE, "expected a folder that is absent or empty, found \"mine\"");
    CU_ASSERT_EQUAL(scratch_count(s.dir), 1);
    wish.dir = scratch_text(&s, "mine", "kept");
    refused(&wish, DR_EUSAGE, "expected a folder, found something else");
    CU_ASSERT_EQUAL(scratch_count(s.dir), 1);
    scratch_fini(&s);
}

static void empty_folder(void) {
    struct scratch s;
    struct dr_maker_report report;
    scratch_init(&s);
    const struct dr_maker_wish wish = scratch_wish(&s, "tiny", DR_DTYPE_BF16);
    CU_ASSERT_EQUAL(mkdir(s.out, 0755), 0);
    CU_ASSERT_EQUAL(dr_maker_run(&wish, &report).code, DR_OK);
    CU_ASSERT_EQUAL(scratch_count(s.out), 2);
    scratch_fini(&s);
}

static void no_parent(void) {
    struct scratch s;
    char deep[160];
    scratch_init(&s);
    struct dr_maker_wish wish = scratch_wish(&s, "tiny", DR_DTYPE_BF16);
    (void)snprintf(deep, sizeof deep, "%s/deeper", s.out);
    wish.dir = deep;
    refused(&wish, DR_ENOENT, "expected its parent folder to exist");
    CU_ASSERT_EQUAL(scratch_count(s.dir), 0);
    scratch_fini(&s);
}

static void bad_configs(void) {
    struct scratch s;
    scratch_init(&s);
    struct dr_maker_wish wish = scratch_wish(&s, "absent", DR_DTYPE_F8_E4M3);
    refused(&wish, DR_ENOENT, "absent.json");
    wish.config = scratch_text(&s, "a.json", "{\"model_type\":");
    refused(&wish, DR_EINVAL, "a.json");
    wish.config = scratch_text(&s, "a.json", "[1]");
    refused(&wish, DR_EMODEL, "expected a JSON object");
    wish.config = scratch_text(&s, "a.json", "{\"model_type\": \"llama\"}");
    refused(&wish, DR_EMODEL, "key \"model_type\"");
    wish.config = scratch_path("golden/v32-dsa/config.json");
    refused(&wish, DR_EMODEL, "sparse attention");
    CU_ASSERT_EQUAL(scratch_count(s.out), -1);
    scratch_fini(&s);
}

/* 255 layers of experts of 65,536 x 65,536 in BF16: 420 TB with 64 of them */
static const char vast[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":1048576,\"hidden_size\":65536,\"num_hidden_layers\":255,"
    "\"num_attention_heads\":1024,\"q_lora_rank\":65536,\"kv_lora_rank\":65536,\"qk_nope_head_dim\":1024,"
    "\"qk_rope_head_dim\":64,\"v_head_dim\":1024,\"intermediate_size\":65536,\"moe_intermediate_size\":65536,"
    "\"n_routed_experts\":%d,\"num_experts_per_tok\":1,\"n_group\":1,\"topk_group\":1,"
    "\"first_k_dense_replace\":0,\"max_position_embeddings\":4096}";

static void too_large(void) {
    struct scratch s;
    char text[sizeof vast + 16];
    scratch_init(&s);
    struct dr_maker_wish wish = scratch_wish(&s, "tiny", DR_DTYPE_BF16);
    (void)snprintf(text, sizeof text, vast, 64);
    wish.config = scratch_text(&s, "vast.json", text);
    wish.shard_bytes = UINT64_MAX;
    refused(&wish, DR_EFULL, "GB of free disk");
    wish.shard_bytes = 1;
    refused(&wish, DR_EFULL, "an index names at most 4096: take a larger --shard-bytes");
    (void)snprintf(text, sizeof text, vast, 256);
    wish.config = scratch_text(&s, "vast.json", text);
    wish.shard_bytes = UINT64_MAX;
    refused(&wish, DR_EFULL, "take a smaller --shard-bytes");
    CU_ASSERT_EQUAL(scratch_count(s.out), -1);
    scratch_fini(&s);
}

static void full_disk(void) {
    struct scratch s;
    struct rlimit old, small;
    scratch_init(&s);
    const struct dr_maker_wish wish = scratch_wish(&s, "tiny", DR_DTYPE_F8_E4M3);
    CU_ASSERT_EQUAL(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 3000000; /* less than half of the file */
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_FSIZE, &small), 0);
    refused(&wish, DR_EIO, "model.safetensors.partial: write: ");
    CU_ASSERT_EQUAL(scratch_count(s.out), -1);
    CU_ASSERT_EQUAL(mkdir(s.out, 0755), 0);
    refused(&wish, DR_EIO, "model.safetensors.partial: write: ");
    CU_ASSERT_EQUAL(scratch_count(s.out), 0); /* a folder that was there stays */
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, before);
    scratch_fini(&s);
}

static CU_TestInfo cases[] = {
    {"a folder with something in it, or a file, is refused and kept", taken_folder},
    {"an empty folder is taken", empty_folder},
    {"a folder without a parent is refused", no_parent},
    {"configs that are absent, broken or of another family are refused by name", bad_configs},
    {"a checkpoint that fits neither disk nor format is refused before anything is written", too_large},
    {"a failed write takes away what it began", full_disk},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_maker_refusals = {.pName = "bench/maker_refusals", .pTests = cases};
