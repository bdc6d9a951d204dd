/* test_refusals.c - damaged tokenizer files and the exact words that refuse them.
 * In:   the tiny tokenizer.json with one thing changed.      Out: checks.
 * Owns: nothing.
 * Why:  a file that is almost right would give almost right answers. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/text/fixture.h"

/* Sets what path ("model/merges/0") names to value; NULL deletes it. */
static void damage(json_t *root, const char *path, const char *value) {
    char copy[128], *rest = copy, *key;
    snprintf(copy, sizeof copy, "%s", path);
    json_t *at = root, *fresh = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    CU_ASSERT_TRUE(!value || fresh);
    while ((key = strsep(&rest, "/")) && rest)
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    CU_ASSERT_PTR_NOT_NULL(at);
    if (json_is_array(at))
        json_array_set_new(at, (size_t)atoi(key), fresh);
    else if (fresh)
        json_object_set_new(at, key, fresh);
    else
        json_object_del(at, key);
}

static void damaged_files_are_refused_in_these_words(void) {
    static const struct {
        const char *path, *value, *text;
    } all[] = {
        {"model", NULL, "model is missing"},
        {"model", "[]", "model: expected an object"},
        {"model/type", "\"Unigram\"", "model: type Unigram is not supported; expected BPE"},
        {"model/type", "7", "model: expected a name for type"},
        {"model/type", "\"a\\u001b[31m\"", "model: expected a name for type"},
        {"model/dropout", "0.1", "model: dropout is not supported; expected null"},
        {"model/continuing_subword_prefix", "\"##\"",
         "model: continuing_subword_prefix is not supported; expected null"},
        {"model/end_of_word_suffix", "\"</w>\"", "model: end_of_word_suffix is not supported; expected null"},
        {"model/unk_token", "5", "model: expected a string or null for unk_token"},
        {"model/ignore_merges", "\"yes\"", "model: expected true or false for ignore_merges"},
        {"model/byte_fallback", "1", "model: expected true or false for byte_fallback"},
        {"model/vocab", NULL, "model.vocab: expected an object of token texts and ids"},
        {"model/vocab", "[\"a\"]", "model.vocab: expected an object of token texts and ids"},
        {"model/vocab", "{}",
         "model.vocab: no token for the byte 0x00; only byte-level vocabularies are supported"},
        {"model/vocab/ab", "\"256\"", "model.vocab: expected an integer id"},
        {"model/vocab/ab", "256.0", "model.vocab: expected an integer id"},
        {"model/vocab/ab", "-1", "model.vocab: id -1 is outside 0..1048575"},
        {"model/vocab/ab", "1048576", "model.vocab: id 1048576 is outside 0..1048575"},
        {"model/vocab/ab", "97", "model.vocab: two tokens have id 97"},
        {"model/vocab/", "300", "model.vocab: the token of id 300 is empty"},
        {"model/vocab/a", NULL,
         "model.vocab: no token for the byte 0x61; only byte-level vocabularies are supported"},
        {"model/merges", NULL, "model.merges: expected an array"},
        {"model/merges", "{}", "model.merges: expected an array"},
        {"model/merges/1", "\"abc\"", "model.merges[1]: expected two tokens with one space between"},
        {"model/merges/1", "\"a b c\"", "model.merges[1]: expected two tokens with one space between"},
        {"model/merges/1", "7", "model.merges[1]: expected \"A B\" or [\"A\", \"B\"]"},
        {"model/merges/1", "[\"a\"]", "model.merges[1]: expected \"A B\" or [\"A\", \"B\"]"},
        {"model/merges/1", "[\"a\", 2]", "model.merges[1]: expected \"A B\" or [\"A\", \"B\"]"},
        {"model/merges/0", "\"qq b\"", "model.merges[0]: its left part is not in model.vocab"},
        {"model/merges/0", "[\"a\", \"\"]", "model.merges[0]: its right part is not in model.vocab"},
        {"model/merges/3", "[\"b\", \"a\"]", "model.merges[3]: its result is not in model.vocab"},
        {"added_tokens", "{}", "added_tokens: expected an array"},
        {"added_tokens/0", "3", "added_tokens[0]: expected an integer id"},
        {"added_tokens/0/id", NULL, "added_tokens[0]: expected an integer id"},
        {"added_tokens/0/id", "4294967296", "added_tokens[0]: id 4294967296 is outside 0..1048575"},
        {"added_tokens/0/content", "1", "added_tokens[0]: expected a string content"},
        {"added_tokens/0/content", "\"\"", "added_tokens[0]: the token of id 260 is empty"},
        {"added_tokens/0/special", "\"no\"", "added_tokens[0]: expected true or false for special"},
        {"added_tokens/1/id", "260", "added_tokens[1]: id 260 belongs to an earlier added token"},
        {"added_tokens/1/id", "97", "added_tokens[1]: model.vocab gives id 97 to another token"},
        {"added_tokens/1/content", "\"ab\"", "added_tokens[1]: model.vocab gives this token id 256, not 261"},
        {"added_tokens/1/content", "\"<end>\"", "added_tokens[1]: its text is that of id 260, too"},
        {"added_tokens/1/lstrip", "true", "added_tokens[1]: lstrip is not supported"},
        {"added_tokens/1/rstrip", "true", "added_tokens[1]: rstrip is not supported"},
        {"added_tokens/1/single_word", "true", "added_tokens[1]: single_word is not supported"},
        {"added_tokens/1/normalized", "0", "added_tokens[1]: flags: expected true or false for normalized"},
        {"normalizer", "{\"type\":\"NFKC\"}",
         "normalizer: type NFKC is not supported; expected none or an empty Sequence"},
        {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}",
         "normalizer: type Lowercase is not supported; expected none or an empty Sequence"},
        {"normalizer", "{\"type\":\"Sequence\"}", "normalizer Sequence: expected an array normalizers"},
        {"normalizer", "true", "normalizer: expected an object with a type"},
        {"decoder", NULL, "decoder: expected an object with a type"},
        {"decoder", "{\"type\":\"WordPiece\"}",
         "decoder: type WordPiece is not supported; expected ByteLevel"},
        {"decoder", "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}",
         "decoder Sequence: expected ByteLevel alone, found 2 decoders"},
        {"pre_tokenizer", "null", "pre_tokenizer: expected an object with a type"},
        {"pre_tokenizer/type", "\"Metaspace\"",
         "pre_tokenizer: type Metaspace is not supported; known are Sequence, Split, Digits, ByteLevel"},
        {"pre_tokenizer", "{\"type\":\"Digits\",\"individual_digits\":true}",
         "pre_tokenizer: no ByteLevel in it; only byte-level tokenizers are supported"},
        {"pre_tokenizer", "{\"type\":\"Digits\"}",
         "pre_tokenizer Digits: expected true or false for individual_digits, it is missing"},
        {"pre_tokenizer/add_prefix_space", NULL,
         "pre_tokenizer ByteLevel: expected true or false for add_prefix_space, it is missing"},
        {"pre_tokenizer/use_regex", "1", "pre_tokenizer ByteLevel: expected true or false for use_regex"},
        {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":{}}",
         "pre_tokenizer Sequence: expected an array pretokenizers"},
        {"pre_tokenizer",
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false},{"
         "\"type\":\"Split\"}]}",
         "pre_tokenizer: Split after ByteLevel is not supported"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":{\"Regex\":\"a\"}}",
         "pre_tokenizer Split: behavior Removed is not supported, only Isolated is"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"x\\u0007\",\"pattern\":{\"Regex\":\"a\"}}",
         "pre_tokenizer Split: behavior of this name is not supported, only Isolated is"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"}}",
         "pre_tokenizer Split: expected a name for behavior"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":\"a\"}",
         "pre_tokenizer Split: expected a pattern with one string, Regex or String"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"[a\"}}",
         "pre_tokenizer, stage 0: pattern, byte 0: the class has no end"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":3,\"pattern\":{\"Regex\":\"a\"}}",
         "pre_tokenizer Split: expected true or false for invert"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char expected[512];
        json_t *json = fixture_tiny();
        damage(json, all[i].path, all[i].value);
        struct dr_tokenizer *t = NULL;
        dr_status st = fixture_create(json, NULL, &t);
        snprintf(expected, sizeof expected, "tokenizer.json: %s", all[i].text);
        CU_ASSERT_EQUAL(st.code, DR_EMODEL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
        if (strcmp(dr_error_text(), expected) != 0) printf("%s -> %s\n", all[i].path, dr_error_text());
        CU_ASSERT_PTR_NULL(t);
        dr_tokenizer_destroy(t);
        json_decref(json);
    }
}

static void damaged_configs_are_refused_in_these_words(void) {
    static const struct {
        const char *config, *text;
    } all[] = {
        {"[]", "expected an object"},
        {"{\"bos_token\": 3}", "bos_token: expected a string, an object with a content, or null"},
        {"{\"eos_token\": {\"text\": \"<end>\"}}",
         "eos_token: expected a string, an object with a content, or null"},
        {"{\"eos_token\": \"<stop>\"}", "eos_token: it is no added token of tokenizer.json"},
        {"{\"add_bos_token\": 1}", "settings: expected true or false for add_bos_token"},
        {"{\"add_bos_token\": true}", "add_bos_token is true, but there is no bos_token"},
        {"{\"chat_template\": 1}", "chat_template: expected a string or a list of templates"},
        {"{\"chat_template\": [{\"name\": \"default\"}]}",
         "chat_template[0]: expected a name and a template"},
    };
    json_t *json = fixture_tiny();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char expected[256];
        json_t *config = json_loads(all[i].config, 0, NULL);
        struct dr_tokenizer *t = NULL;
        snprintf(expected, sizeof expected, "tokenizer_config.json: %s", all[i].text);
        CU_ASSERT_EQUAL(fixture_create(json, config, &t).code, DR_EMODEL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
        json_decref(config);
    }
    json_decref(json);
}

static void good_configs_are_read(void) {
    json_t *json = fixture_tiny();
    json_t *config = json_loads(
        "{\"bos_token\": \"<tool>\", \"eos_token\": {\"content\": \"<end>\"}, \"add_bos_token\": true, "
        "\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"a\"}, {\"name\": \"default\", "
        "\"template\": \"b\"}]}",
        0, NULL);
    struct dr_tokenizer *t = NULL;
    CU_ASSERT_EQUAL_FATAL(fixture_create(json, config, &t).code, DR_OK);
    const struct dr_tokenizer_facts *f = dr_tokenizer_facts(t);
    CU_ASSERT_TRUE(f->bos == 261 && f->eos == 260 && f->add_bos && f->n_stop == 1 && f->stop[0] == 260);
    CU_ASSERT_STRING_EQUAL(f->chat_template, "b");
    dr_tokenizer_destroy(t);
    json_decref(config);
    json_decref(json);
}

/* Published files leave fields out, and hold ones that do not matter here. */
static void harmless_variants_are_accepted(void) {
    static const char *const all[][2] = {
        {"model/type", NULL},
        {"added_tokens", NULL},
        {"added_tokens", "null"},
        {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[]}"},
        {"normalizer", NULL},
        {"post_processor", "{\"type\":\"TemplateProcessing\"}"},
        {"model/dropout", "0.0"},
        {"model/unk_token", "\"<unk>\""},
        {"model/byte_fallback", "true"},
        {"model/fuse_unk", "true"},
        {"decoder", "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"}]}"},
        {"model/vocab/ab c", "400"},    /* a hole in front of it, and a text that is no letter string */
        {"model/vocab/\xC3\x80", NULL}, /* the byte C0 is in no UTF-8 */
        {"added_tokens/1/lstrip", "false"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_t *json = fixture_tiny();
        damage(json, all[i][0], all[i][1]);
        struct dr_tokenizer *t = NULL;
        dr_status st = fixture_create(json, NULL, &t);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        if (st.code != DR_OK) printf("%s: %s\n", all[i][0], dr_error_text());
        dr_tokenizer_destroy(t);
        json_decref(json);
    }
}

static void long_tokens_are_refused(void) {
    char text[5000];
    json_t *json = fixture_tiny();
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    json_t *added = json_object_get(json, "added_tokens");
    struct dr_tokenizer *t = NULL;
    json_object_set_new(json_object_get(json_object_get(json, "model"), "vocab"), text, json_integer(300));
    CU_ASSERT_EQUAL(fixture_create(json, NULL, &t).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "tokenizer.json: model.vocab: the token of id 300 has 4999 bytes, at most 4096 are accepted");
    json_object_del(json_object_get(json_object_get(json, "model"), "vocab"), text);
    text[513] = 0;
    json_object_set_new(json_array_get(added, 1), "content", json_string(text));
    CU_ASSERT_EQUAL(fixture_create(json, NULL, &t).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(), "tokenizer.json: added_tokens[1]: its text has 513 bytes, at most 512 are accepted");
    json_decref(json);
}

static void broken_json_and_files_are_refused(void) {
    struct dr_tokenizer *t = NULL;
    struct dr_tokenizer_source source = {.json = "{\"model\": ", .json_bytes = 10};
    CU_ASSERT_EQUAL(dr_tokenizer_create_from(&source, &t).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "tokenizer.json: not valid JSON at line 1"));
    source = (struct dr_tokenizer_source){.json = "[1, 2]", .json_bytes = 6};
    CU_ASSERT_EQUAL(dr_tokenizer_create_from(&source, &t).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "tokenizer.json: expected an object");
    CU_ASSERT_EQUAL(dr_tokenizer_create("/nowhere/tokenizer.json", NULL, &t).code, DR_ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "/nowhere/tokenizer.json: "));
    CU_ASSERT_EQUAL(dr_tokenizer_create("/", NULL, &t).code, DR_EIO);
    CU_ASSERT_EQUAL(
        dr_tokenizer_create(DR_SOURCE_DIR "/deploy/models/lexi-15m/tokenizer.json", "/nowhere/config", &t)
            .code,
        DR_ENOENT);
    char path[] = "/tmp/dr-text-XXXXXX"; /* 64 MiB and a byte, without writing them */
    int fd = mkstemp(path);
    CU_ASSERT_TRUE(fd >= 0 && ftruncate(fd, DR_TOKENIZER_FILE_MAX + 1) == 0);
    CU_ASSERT_EQUAL(dr_tokenizer_create(path, NULL, &t).code, DR_EMODEL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "67108865 bytes, at most 67108864 are read"));
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), path));
    CU_ASSERT_PTR_NULL(t);
    close(fd);
    unlink(path);
}

static void holes_have_no_token(void) {
    json_t *json = fixture_tiny();
    damage(json, "model/vocab/xyz", "300");
    struct dr_tokenizer *t = NULL;
    CU_ASSERT_EQUAL_FATAL(fixture_create(json, NULL, &t).code, DR_OK);
    CU_ASSERT_EQUAL(dr_tokenizer_size(t), 301);
    CU_ASSERT_TRUE(dr_tokenizer_has(t, 300));
    CU_ASSERT_FALSE(dr_tokenizer_has(t, 299));
    struct dr_text text = {0};
    const uint32_t ids[] = {300, 299};
    CU_ASSERT_EQUAL(dr_tokenizer_decode(t, ids, 2, false, &text).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "ids[1]: 299 is no token of this tokenizer; ids are 0..300");
    dr_text_fini(&text);
    dr_tokenizer_destroy(t);
    json_decref(json);
}

static CU_TestInfo cases[] = {
    {"a damaged tokenizer.json is refused in the words of the table",
     damaged_files_are_refused_in_these_words},
    {"a damaged tokenizer_config.json is refused in the words of the table",
     damaged_configs_are_refused_in_these_words},
    {"both forms of named tokens and templates are read", good_configs_are_read},
    {"harmless variants of published files are accepted", harmless_variants_are_accepted},
    {"tokens longer than the limits are refused", long_tokens_are_refused},
    {"broken JSON, missing and huge files are refused with their names", broken_json_and_files_are_refused},
    {"an id in a hole of the vocabulary has no token", holes_have_no_token},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_refusals = {.pName = "text/refusals", .pTests = cases};
