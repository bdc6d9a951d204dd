/* test_kit.c - what is known of a model before anything runs.
 * In:   the sample model, golden checkpoints, broken folders.      Out: facts or refusals.
 * Owns: a temporary folder.
 * Why:  every command begins here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

static dr_status make(enum dr_command command, const char *a, const char *b, const char *c, const char *d,
                      struct dr_kit **out) {
    const char *const flags[] = {a, b, c, d, NULL};
    struct dr_options o = {0};
    dr_status st = rig_options(command, flags, &o);
    if (st.code == DR_OK) st = dr_kit_create(&o, out);
    dr_options_fini(&o);
    return st;
}

static void sample_model(void) {
    const struct dr_kit *k = rig_kit();
    CU_ASSERT_STRING_EQUAL(k->name, "lexi-15m");
    CU_ASSERT_EQUAL(k->context, 2048);
    CU_ASSERT_EQUAL(k->n_end_id, 1);
    CU_ASSERT_EQUAL(k->end_id[0], 1);
    CU_ASSERT_EQUAL(k->chat.layout, DR_CHAT_LEXI);
    CU_ASSERT_EQUAL(k->config.vocab, 8192);
    struct dr_ids ids = {0};
    CU_ASSERT_EQUAL(dr_kit_encode_prompt(k, "In the", 6, &ids).code, DR_OK);
    CU_ASSERT_TRUE(ids.n > 1 && ids.at[0] == 0);
    dr_ids_fini(&ids);
    CU_ASSERT_EQUAL(dr_kit_encode_prompt(k, "\xff", 1, &ids).code, DR_EINVAL);
    dr_ids_fini(&ids);
}

static void options_win(void) {
    struct dr_kit *k = NULL;
    const char *dir = DR_SOURCE_DIR "/deploy/models/lexi-15m/";
    CU_ASSERT_EQUAL_FATAL(
        make(DR_CMD_SERVE, "--model", dir, "--context=100", "--served-model-name=x/y", &k).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(k->name, "x/y");
    CU_ASSERT_EQUAL(k->context, 100);
    dr_kit_destroy(k);
    CU_ASSERT_EQUAL_FATAL(
        make(DR_CMD_SERVE, "--model", dir, "--sampling-defaults=openai", "--template=v3", &k).code, DR_OK);
    struct dr_sampling s = dr_kit_sampling(k), other = dr_kit_sampling(k);
    CU_ASSERT_STRING_EQUAL(k->name, "lexi-15m"); /* a slash at the end of the path is not a name */
    CU_ASSERT_TRUE(s.temperature == 1 && s.top_p == 1 && s.top_k == 0 && s.min_p == 0 && s.repetition == 1);
    CU_ASSERT_NOT_EQUAL(s.seed, other.seed);
    CU_ASSERT_EQUAL(k->chat.layout, DR_CHAT_V3);
    dr_kit_destroy(k);
}

static void no_tokenizer(void) {
    struct dr_kit *k = NULL;
    CU_ASSERT_EQUAL_FATAL(make(DR_CMD_SERVE, "--model", DR_TESTS_DIR "/golden/v3-bf16", NULL, NULL, &k).code,
                          DR_OK);
    struct dr_ids ids = {0};
    CU_ASSERT_PTR_NULL(k->tokenizer);
    CU_ASSERT_EQUAL(k->chat.layout, DR_CHAT_NONE);
    CU_ASSERT_EQUAL(k->n_vocab_named, 0);
    CU_ASSERT_EQUAL(dr_kit_encode_prompt(k, "x", 1, &ids).code, DR_EINVAL);
    dr_ids_fini(&ids);
    dr_kit_destroy(k);
}

static void tokenizer_alone(void) {
    struct dr_kit *k = NULL;
    CU_ASSERT_EQUAL_FATAL(make(DR_CMD_TOKENIZE, "--tokenizer",
                               DR_TESTS_DIR "/golden/tokenizer/tokenizer.json", "--template=v3", NULL, &k)
                              .code,
                          DR_OK);
    CU_ASSERT_PTR_NOT_NULL(k->tokenizer);
    CU_ASSERT_EQUAL(k->chat.layout, DR_CHAT_V3);
    dr_kit_destroy(k);
    CU_ASSERT_EQUAL(make(DR_CMD_TOKENIZE, "--tokenizer", "/nonexistent.json", NULL, NULL, &k).code,
                    DR_ENOENT);
    CU_ASSERT_EQUAL(make(DR_CMD_TOKENIZE, NULL, NULL, NULL, NULL, &k).code, DR_EUSAGE);
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, NULL, NULL, NULL, NULL, &k).code, DR_EUSAGE);
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, "--model", "/nonexistent", NULL, NULL, &k).code, DR_ENOENT);
}

static void put(const char *dir, const char *name, const char *text, size_t n) {
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void copy(const char *dir, const char *name) {
    char path[256];
    snprintf(path, sizeof path, DR_SOURCE_DIR "/deploy/models/lexi-15m/%s", name);
    FILE *f = fopen(path, "r");
    size_t room = 4 << 20;
    char *text = malloc(room);
    CU_ASSERT_TRUE_FATAL(f && text);
    put(dir, name, text, fread(text, 1, room, f));
    free(text);
    fclose(f);
}

static void broken_folders(void) {
    char dir[32] = "/tmp/dr-test-XXXXXX", path[96];
    struct dr_kit *k = NULL;
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, "--model", dir, NULL, NULL, &k).code, DR_ENOENT);
    copy(dir, "config.json");
    put(dir, "tokenizer.json", "{", 1);
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, "--model", dir, NULL, NULL, &k).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "tokenizer.json"));
    copy(dir, "tokenizer.json");
    put(dir, "tokenizer_config.json", "{\"chat_template\":\"{{ hello }}\"}", 31);
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, "--model", dir, NULL, NULL, &k).code, DR_OK);
    CU_ASSERT_EQUAL(k->chat.layout, DR_CHAT_NONE); /* a template that nobody knows: completions only */
    dr_kit_destroy(k);
    put(dir, "chat_template.jinja", "{% if thinking %}<｜User｜><｜Assistant｜>{% endif %}",
        strlen("{% if thinking %}<｜User｜><｜Assistant｜>{% endif %}"));
    CU_ASSERT_EQUAL(make(DR_CMD_SERVE, "--model", dir, NULL, NULL, &k).code, DR_OK);
    CU_ASSERT_NOT_EQUAL(k->chat.layout, DR_CHAT_LEXI); /* the file beside it counts */
    dr_kit_destroy(k);
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static CU_TestInfo cases[] = {
    {"the sample model states name, context, end token and layout", sample_model},
    {"options win over the model's files", options_win},
    {"a model without tokenizer takes ids only", no_tokenizer},
    {"a tokenizer without model, and nothing at all", tokenizer_alone},
    {"broken folders are refused by name", broken_folders},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_kit = {.pName = "http/kit", .pTests = cases};
