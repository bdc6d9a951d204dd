/* test_tokenizer.c - encoding and decoding against values from the tokenizers library.
 * In:   tests/golden/tokenizer, the sample model.      Out: checks.
 * Owns: nothing.
 * Why:  one wrong id changes every answer of a model. */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/text/fixture.h"

static void check_ids(const struct dr_tokenizer *t, const char *text, size_t n, const json_t *expected) {
    struct dr_ids ids = {0};
    dr_status st = dr_tokenizer_encode(t, text, n, DR_ADDED_MATCH, &ids);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    bool same = fixture_same_ids(&ids, expected);
    CU_ASSERT_TRUE(same);
    if (!same) printf("other ids for: %s\n", text);
    dr_ids_fini(&ids);
}

static void check_decoded(const struct dr_tokenizer *t, const json_t *ids, const char *expected, size_t n) {
    struct dr_text text = {0};
    size_t n_ids = json_array_size(ids);
    uint32_t *at = malloc((n_ids + 1) * sizeof *at);
    for (size_t i = 0; i < n_ids; i++) at[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    dr_status st = dr_tokenizer_decode(t, at, n_ids, false, &text);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_EQUAL(text.n, n);
    CU_ASSERT_TRUE(text.n == n && (n == 0 || memcmp(text.at, expected, n) == 0));
    dr_text_fini(&text);
    free(at);
}

static void golden_cases(void) {
    json_t *file = fixture_json(DR_TESTS_DIR "/golden/tokenizer/cases.json"), *item;
    size_t i;
    CU_ASSERT_EQUAL(json_array_size(json_object_get(file, "cases")), 120);
    json_array_foreach(json_object_get(file, "cases"), i, item) {
        const json_t *text = json_object_get(item, "text"), *decoded = json_object_get(item, "decoded");
        check_ids(fixture_deepseek(), json_string_value(text), json_string_length(text),
                  json_object_get(item, "ids"));
        check_decoded(fixture_deepseek(), json_object_get(item, "ids"), json_string_value(decoded),
                      json_string_length(decoded));
    }
    json_decref(file);
}

/* Values published with the tokenizer's description; four implementations agree on them. */
static void check_vectors(void) {
    static const struct {
        const char *text, *ids;
    } vectors[] = {
        {"Hello, world!", "[19923,14,2058,3]"},
        {"1234567", "[6895,18009,25]"},
        {"  two  spaces", "[223,1234,223,13564]"},
        {"a\n\n\n b", "[67,6328,291]"},
        {"def f(x):\n    return x+1\n", "[3465,285,4042,3395,361,1354,1527,13,19,201]"},
        {"こんにちは世界123abc", "[4549,7245,2298,12457,2841,3427,6895,32372]"},
        {"naïve café", "[2720,91223,57664]"},
        {"foo   ", "[40897,361]"},
        {"\r\nwin\r\n", "[204,201,11510,204,201]"},
        {"_heap", "[127990]"},
        {"don't I'll WE'RE", "[20385,1664,342,5922,33418,9,3827]"},
        {"<｜User｜>Hi<｜Assistant｜>", "[128803,23166,128804]"},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        json_t *ids = json_loads(vectors[i].ids, 0, NULL);
        check_ids(fixture_deepseek(), vectors[i].text, strlen(vectors[i].text), ids);
        json_decref(ids);
    }
}

static void lexi_cases(void) {
    json_t *file = fixture_json(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json"), *item;
    size_t i, n = 0;
    json_array_foreach(json_object_get(file, "tokenizer"), i, item) {
        const json_t *text = json_object_get(item, "text");
        check_ids(fixture_lexi(), json_string_value(text), json_string_length(text),
                  json_object_get(item, "ids"));
        n++;
    }
    json_array_foreach(json_object_get(file, "cases"), i, item) {
        const json_t *prompt = json_object_get(item, "prompt");
        struct dr_ids ids = {0};
        dr_status st = dr_tokenizer_encode_prompt(fixture_lexi(), json_string_value(prompt),
                                                  json_string_length(prompt), &ids);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        CU_ASSERT_TRUE(fixture_same_ids(&ids, json_object_get(item, "prompt_ids")));
        dr_ids_fini(&ids);
        n++;
    }
    CU_ASSERT_TRUE(n > 20);
    json_decref(file);
}

static void sample_facts(void) {
    const struct dr_tokenizer *t = fixture_lexi();
    const struct dr_tokenizer_facts *f = dr_tokenizer_facts(t);
    CU_ASSERT_EQUAL(f->bos, 0);
    CU_ASSERT_EQUAL(f->eos, 1);
    CU_ASSERT_TRUE(f->add_bos);
    CU_ASSERT_EQUAL(f->n_stop, 1);
    CU_ASSERT_EQUAL(f->stop[0], 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(f->chat_template, "add_generation_prompt"));
    CU_ASSERT_EQUAL(dr_tokenizer_size(t), 8192);
    uint32_t id = 9;
    CU_ASSERT_TRUE(dr_tokenizer_added_id(t, "<think>", 7, &id));
    CU_ASSERT_EQUAL(id, 8179);
    CU_ASSERT_FALSE(dr_tokenizer_added_id(t, "<think", 6, &id));
    CU_ASSERT_FALSE(dr_tokenizer_added_id(t, "", 0, &id));
    CU_ASSERT_TRUE(dr_tokenizer_is_special(t, 0));
    CU_ASSERT_FALSE(dr_tokenizer_is_special(t, 8179));
    CU_ASSERT_TRUE(dr_tokenizer_is_added(t, 8179));
    CU_ASSERT_FALSE(dr_tokenizer_is_added(t, 100));
    CU_ASSERT_FALSE(dr_tokenizer_is_added(t, 8192));
    CU_ASSERT_EQUAL(dr_tokenizer_facts(fixture_deepseek())->bos, DR_TOKENIZER_NONE);
    CU_ASSERT_EQUAL(dr_tokenizer_facts(fixture_deepseek())->n_stop, 0);
    CU_ASSERT_EQUAL(dr_tokenizer_size(fixture_deepseek()), 128815);
}

static void prompt_gets_one_bos(void) {
    static const char *const texts[] = {"Hello", "<｜begin▁of▁sentence｜>Hello"};
    for (size_t i = 0; i < 2; i++) {
        struct dr_ids ids = {0};
        dr_status st = dr_tokenizer_encode_prompt(fixture_lexi(), texts[i], strlen(texts[i]), &ids);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        CU_ASSERT_TRUE(ids.n == 2 && ids.at[0] == 0 && ids.at[1] == 1432);
        dr_ids_fini(&ids);
    }
    struct dr_ids ids = {0};
    dr_status st = dr_tokenizer_encode_prompt(fixture_deepseek(), "Hello!", 6, &ids); /* no config: no BOS */
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_TRUE(ids.n == 2 && ids.at[0] == 19923);
    st = dr_tokenizer_encode_prompt(fixture_deepseek(), "\xFF", 1, &ids);
    CU_ASSERT_EQUAL(st.code, DR_EINVAL);
    CU_ASSERT_EQUAL(ids.n, 2);
    dr_ids_fini(&ids);
}

static void added_tokens_can_stay_text(void) {
    struct dr_ids ids = {0};
    const char *text = "<｜User｜>Hi<think>";
    dr_status st = dr_tokenizer_encode(fixture_deepseek(), text, strlen(text), DR_ADDED_OFF, &ids);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    for (size_t i = 0; i < ids.n; i++) CU_ASSERT_FALSE(dr_tokenizer_is_added(fixture_deepseek(), ids.at[i]));
    struct dr_text back = {0};
    st = dr_tokenizer_decode(fixture_deepseek(), ids.at, ids.n, true, &back);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_STRING_EQUAL(back.at, text);
    dr_ids_fini(&ids);
    dr_text_fini(&back);
}

static void invalid_utf8_is_refused_by_offset(void) {
    static const struct {
        const char *text;
        size_t n, at;
    } bad[] = {
        {"\x80", 1, 0},         {"abc\xFF", 4, 3},          {"\xC0\x80", 2, 0},
        {"a\xC1\xBF", 3, 1},    {"\xE4\xBD", 2, 0},         {"ok\xE0\x80\x80", 5, 2},
        {"\xED\xA0\x80", 3, 0}, {"\xF4\x90\x80\x80", 4, 0}, {"\xF8\x88\x80\x80\x80", 5, 0},
        {"\xC3", 1, 0},         {"x\xF0\x9F\x98", 4, 1},    {"é\xE9", 3, 2},
    };
    struct dr_ids ids = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "text is not valid UTF-8 at byte %zu", bad[i].at);
        dr_status st = dr_tokenizer_encode(fixture_lexi(), bad[i].text, bad[i].n, DR_ADDED_MATCH, &ids);
        CU_ASSERT_EQUAL(st.code, DR_EINVAL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
        CU_ASSERT_EQUAL(ids.n, 0);
    }
    dr_ids_fini(&ids);
}

/* Encodes, decodes and compares; returns the number of ids. */
static size_t round_trip(const struct dr_tokenizer *t, const char *text, size_t n,
                         enum dr_match_added match) {
    struct dr_ids ids = {0};
    struct dr_text back = {0};
    dr_status st = dr_tokenizer_encode(t, text, n, match, &ids);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    st = dr_tokenizer_decode(t, ids.at, ids.n, false, &back);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_TRUE(back.n == n && (n == 0 || memcmp(back.at, text, n) == 0));
    size_t n_ids = ids.n;
    dr_ids_fini(&ids);
    dr_text_fini(&back);
    return n_ids;
}

static void every_byte_survives(void) {
    char text[2 * 256];
    size_t n = 0;
    for (int c = 0; c < 256; c++) { /* U+0000..U+00FF: each byte that UTF-8 uses occurs with the four below */
        if (c >= 0x80) text[n++] = (char)(0xC0 | c >> 6);
        text[n++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3F));
    }
    round_trip(fixture_lexi(), text, n, DR_ADDED_MATCH);
    round_trip(fixture_deepseek(), text, n, DR_ADDED_OFF);
    for (uint32_t lead = 0xC2; lead <= 0xF4; lead++) {
        char one[4] = {(char)lead,
                       (char)(lead == 0xE0   ? 0xA0
                              : lead == 0xF0 ? 0x90
                                             : 0x80),
                       (char)0x80, (char)0x80};
        round_trip(fixture_deepseek(), one, lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4, DR_ADDED_OFF);
    }
    round_trip(fixture_lexi(), "a\0b", 3, DR_ADDED_MATCH);
}

static char *repeat(const char *unit, size_t times, size_t *n) {
    size_t bytes = strlen(unit);
    char *text = malloc(bytes * times);
    for (size_t i = 0; i < times; i++) memcpy(text + i * bytes, unit, bytes);
    *n = bytes * times;
    return text;
}

static void long_runs_pass(void) {
    static const char *const units[] = {
        "a", "é", "漢", " ", ".", "9", "\n", " \n", "\xF0\x9F\x98\x80", "aB", "\xCC\x81", "\t "};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        for (size_t times = 24999; times <= 26000; times += times < 25001 ? 1 : 999) {
            size_t n;
            char *text = repeat(units[i], times, &n);
            round_trip(fixture_deepseek(), text, n, DR_ADDED_MATCH);
            free(text);
        }
}

static void million_equal_characters_pass(void) {
    static const char *const units[] = {"a", ".", " ", "<", "1"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n;
        char *text = repeat(units[i], 1000000, &n);
        CU_ASSERT_TRUE(round_trip(fixture_deepseek(), text, n, DR_ADDED_MATCH) > 1000);
        free(text);
    }
}

/* A run longer than a piece is cut at 25,000 characters: the ids are those of the two parts. */
static void long_pieces_split_at_25000(void) {
    size_t n;
    char *text = repeat("é", 26001, &n);
    struct dr_ids whole = {0}, parts = {0};
    dr_status st = dr_tokenizer_encode(fixture_deepseek(), text, n, DR_ADDED_OFF, &whole);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    st = dr_tokenizer_encode(fixture_deepseek(), text, 50000, DR_ADDED_OFF, &parts);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    st = dr_tokenizer_encode(fixture_deepseek(), text + 50000, n - 50000, DR_ADDED_OFF, &parts);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT_EQUAL(whole.n, parts.n);
    CU_ASSERT_TRUE(whole.n == parts.n && memcmp(whole.at, parts.at, whole.n * sizeof *whole.at) == 0);
    free(text);
    dr_ids_fini(&whole);
    dr_ids_fini(&parts);
}

static void decode_checks_ids(void) {
    struct dr_text text = {0};
    CU_ASSERT_EQUAL(dr_text_push(&text, "kept", 4).code, DR_OK);
    const uint32_t past[] = {5, 8192}, huge[] = {UINT32_MAX};
    dr_status st = dr_tokenizer_decode(fixture_lexi(), past, 2, false, &text);
    CU_ASSERT_EQUAL(st.code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "ids[1]: 8192 is no token of this tokenizer; ids are 0..8191");
    CU_ASSERT_STRING_EQUAL(text.at, "kept");
    st = dr_tokenizer_decode(fixture_lexi(), huge, 1, true, &text);
    CU_ASSERT_EQUAL(st.code, DR_EINVAL);
    const uint8_t *bytes;
    size_t n;
    st = dr_tokenizer_token(fixture_lexi(), 1432, &bytes, &n);
    CU_ASSERT_TRUE(st.code == DR_OK && n == 5 && memcmp(bytes, "Hello", 5) == 0);
    CU_ASSERT_EQUAL(dr_tokenizer_token(fixture_lexi(), 8192, &bytes, &n).code, DR_EINVAL);
    dr_text_fini(&text);
}

static void skip_special_leaves_out_special_only(void) {
    const uint32_t ids[] = {0, 8181, 1432, 8179, 1};
    struct dr_text text = {0};
    CU_ASSERT_EQUAL(dr_tokenizer_decode(fixture_lexi(), ids, 5, true, &text).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(text.at, "<｜User｜>Hello<think>");
    dr_text_reset(&text);
    CU_ASSERT_EQUAL(dr_tokenizer_decode(fixture_lexi(), ids, 5, false, &text).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(text.at, "<｜begin▁of▁sentence｜><｜User｜>Hello<think><｜end▁of▁sentence｜>");
    dr_text_fini(&text);
}

struct worker {
    pthread_t thread;
    size_t wrong;
};

static void *encode_often(void *arg) {
    struct worker *w = arg;
    const char *text = "<｜User｜>The quick brown fox, 1234567 こんにちは don't\n\n\n stop.<｜Assistant｜>";
    struct dr_ids first = {0}, again = {0};
    for (int i = 0; i < 200; i++) {
        struct dr_ids *ids = i ? &again : &first;
        ids->n = 0;
        if (dr_tokenizer_encode(fixture_deepseek(), text, strlen(text), DR_ADDED_MATCH, ids).code != DR_OK)
            w->wrong++;
        if (i && (first.n != again.n || memcmp(first.at, again.at, first.n * sizeof *first.at) != 0))
            w->wrong++;
    }
    w->wrong += first.n < 20;
    dr_ids_fini(&first);
    dr_ids_fini(&again);
    return NULL;
}

static void threads_share_a_tokenizer(void) {
    struct worker workers[4] = {{.wrong = 0}};
    fixture_deepseek();
    for (int i = 0; i < 4; i++)
        CU_ASSERT_EQUAL(pthread_create(&workers[i].thread, NULL, encode_often, &workers[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        CU_ASSERT_EQUAL(workers[i].wrong, 0);
    }
}

static CU_TestInfo cases[] = {
    {"all 120 golden strings give the library's ids and come back", golden_cases},
    {"the published check vectors hold", check_vectors},
    {"the sample model's strings and prompts give its ids", lexi_cases},
    {"facts of the config and kinds of tokens are read", sample_facts},
    {"a prompt begins with exactly one BOS where the config asks for it", prompt_gets_one_bos},
    {"with matching off no text becomes an added token", added_tokens_can_stay_text},
    {"invalid UTF-8 is refused with the offset of its first byte", invalid_utf8_is_refused_by_offset},
    {"every byte of valid UTF-8 survives the round trip", every_byte_survives},
    {"runs around 25,000 and of 26,000 characters survive the round trip", long_runs_pass},
    {"a million equal characters survive the round trip", million_equal_characters_pass},
    {"a piece longer than 25,000 characters is split there", long_pieces_split_at_25000},
    {"decoding refuses ids without token by place and range", decode_checks_ids},
    {"skip_special leaves out special tokens and no others", skip_special_leaves_out_special_only},
    {"four threads encode with one tokenizer and agree", threads_share_a_tokenizer},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_tokenizer = {.pName = "text/tokenizer", .pTests = cases};
