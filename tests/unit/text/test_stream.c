/* test_stream.c - detokenizer and stop strings on text that arrives in parts.
 * In:   golden ids, random texts.      Out: checks.
 * Owns: nothing.
 * Why:  what a client was sent cannot be taken back. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/text/detokenizer.h"
#include "gateway/text/stop.h"
#include "tests/unit/text/fixture.h"

/* --- detokenizer --- */

static void stream_ids(const struct dr_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special) {
    struct dr_detokenizer d;
    struct dr_text out = {0}, whole = {0};
    dr_detokenizer_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(dr_detokenizer_push(&d, ids[i], &out).code, DR_OK);
        CU_ASSERT_EQUAL(dr_utf8_valid(out.at, out.n), out.n);
    }
    CU_ASSERT_EQUAL(dr_detokenizer_end(&d, &out).code, DR_OK);
    CU_ASSERT_EQUAL(dr_tokenizer_decode(t, ids, n, skip_special, &whole).code, DR_OK);
    CU_ASSERT_TRUE(out.n == whole.n && (out.n == 0 || memcmp(out.at, whole.at, out.n) == 0));
    dr_text_fini(&out);
    dr_text_fini(&whole);
}

static void golden_ids_stream_as_they_decode(void) {
    json_t *file = fixture_json(DR_TESTS_DIR "/golden/tokenizer/cases.json"), *item;
    size_t i;
    json_array_foreach(json_object_get(file, "cases"), i, item) {
        const json_t *list = json_object_get(item, "ids");
        uint32_t ids[512];
        size_t n = json_array_size(list);
        for (size_t k = 0; k < n && k < 512; k++)
            ids[k] = (uint32_t)json_integer_value(json_array_get(list, k));
        stream_ids(fixture_deepseek(), ids, n, false);
        stream_ids(fixture_deepseek(), ids, n, true);
    }
    json_decref(file);
}

static void random_ids_stream_as_they_decode(void) {
    uint64_t seed = 1234567;
    for (int round = 0; round < 400; round++) {
        uint32_t ids[40];
        for (int i = 0; i < 40; i++) /* half of them single bytes, so that characters break */
            ids[i] = round % 2 ? fixture_random(&seed) % 8192 : fixture_random(&seed) % 260;
        stream_ids(fixture_lexi(), ids, 40, round % 3 == 0);
    }
}

static void smile_waits_for_its_last_byte(void) {
    const uint32_t smile[] = {175, 256, 249, 225}; /* the sample model's ids of U+1F600 */
    struct dr_detokenizer d;
    struct dr_text out = {0};
    dr_detokenizer_init(&d, fixture_lexi(), true);
    for (int i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(out.n, 0);
        CU_ASSERT_EQUAL(dr_detokenizer_push(&d, smile[i], &out).code, DR_OK);
        if (i == 1)
            CU_ASSERT_EQUAL(dr_detokenizer_push(&d, 0, &out).code, DR_OK); /* skipped: interrupts nothing */
    }
    CU_ASSERT_STRING_EQUAL(out.at, "\xF0\x9F\x98\x80");
    dr_text_reset(&out);
    CU_ASSERT_EQUAL(dr_detokenizer_push(&d, 175, &out).code, DR_OK);
    CU_ASSERT_EQUAL(dr_detokenizer_push(&d, 500000, &out).code, DR_OK); /* no token: adds nothing */
    CU_ASSERT_EQUAL(out.n, 0);
    CU_ASSERT_EQUAL(dr_detokenizer_push(&d, 1432, &out).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(out.at, "\xEF\xBF\xBD"
                                   "Hello");
    CU_ASSERT_EQUAL(dr_detokenizer_push(&d, 175, &out).code, DR_OK);
    CU_ASSERT_EQUAL(dr_detokenizer_end(&d, &out).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(out.at, "\xEF\xBF\xBD"
                                   "Hello\xEF\xBF\xBD");
    dr_text_fini(&out);
}

/* --- stop strings --- */

/* The rule itself: earliest position, longest string there, of equal ones the first. -1: none. */
static int find_slowly(const char *const *stops, size_t n_stops, const char *text, size_t n, size_t *where) {
    for (size_t i = 0; i < n; i++) {
        int best = -1;
        for (size_t k = 0; k < n_stops; k++) {
            size_t bytes = strlen(stops[k]);
            if (bytes > n - i || memcmp(stops[k], text + i, bytes) != 0) continue;
            if (best < 0 || bytes > strlen(stops[best])) best = (int)k;
        }
        *where = i;
        if (best >= 0) return best;
    }
    return -1;
}

static void matcher_equals_the_rule(void) {
    uint64_t seed = 42;
    size_t hits = 0;
    for (int round = 0; round < 6000; round++) {
        char words[16][12], text[80];
        const char *stops[16];
        size_t bytes[16], n_stops = 1 + fixture_random(&seed) % (round % 2 ? 16 : 3),
                          n = fixture_random(&seed) % 80;
        uint32_t letters = 1 + fixture_random(&seed) % 4;
        for (size_t k = 0; k < n_stops; k++) {
            bytes[k] = 1 + fixture_random(&seed) % 11;
            for (size_t i = 0; i < bytes[k]; i++) words[k][i] = (char)('a' + fixture_random(&seed) % letters);
            words[k][bytes[k]] = 0;
            stops[k] = words[k];
        }
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + fixture_random(&seed) % (letters + (uint32_t)round % 3));
        size_t where = 0;
        int expected = find_slowly(stops, n_stops, text, n, &where);
        bool include = fixture_random(&seed) % 2;
        struct dr_stop s;
        struct dr_text out = {0};
        CU_ASSERT_EQUAL(dr_stop_init(&s, stops, bytes, n_stops, include).code, DR_OK);
        for (size_t at = 0; at < n;) {
            size_t part = 1 + fixture_random(&seed) % 7;
            if (part > n - at) part = n - at;
            CU_ASSERT_EQUAL(dr_stop_push(&s, text + at, part, &out).code, DR_OK);
            at += part;
            if (expected >= 0) CU_ASSERT_TRUE(out.n <= where || s.hit == expected);
        }
        CU_ASSERT_EQUAL(dr_stop_end(&s, &out).code, DR_OK);
        size_t length = expected < 0 ? n : where + (include ? bytes[expected] : 0);
        CU_ASSERT_EQUAL(s.hit, expected);
        CU_ASSERT_TRUE(out.n == length && (length == 0 || memcmp(out.at, text, length) == 0));
        hits += expected >= 0;
        dr_stop_fini(&s);
        dr_text_fini(&out);
    }
    CU_ASSERT_TRUE(hits > 1000 && hits < 5900);
}

/* Pushes parts and checks what has come out after each. */
static void steps(const char *const *stops, size_t n_stops, const char *const (*parts)[2], size_t n,
                  int hit) {
    struct dr_stop s;
    struct dr_text out = {0};
    size_t bytes[16] = {0};
    for (size_t i = 0; i < n_stops; i++) bytes[i] = strlen(stops[i]);
    CU_ASSERT_EQUAL_FATAL(dr_stop_init(&s, stops, bytes, n_stops, false).code, DR_OK);
    for (size_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(dr_stop_push(&s, parts[i][0], strlen(parts[i][0]), &out).code, DR_OK);
        CU_ASSERT_STRING_EQUAL(out.at ? out.at : "", parts[i][1]);
    }
    CU_ASSERT_EQUAL(s.hit, hit);
    dr_stop_fini(&s);
    dr_text_fini(&out);
}

static void only_what_could_be_a_stop_is_held(void) {
    static const char *const stops[] = {"</end>", "STOP"};
    static const char *const parts[][2] = {
        {"a <", "a "},
        {"/en", "a "},
        {"t S", "a </ent "},
        {"TO", "a </ent "},
        {"M </end", "a </ent STOM "},
        {"> more", "a </ent STOM "},
        {"x", "a </ent STOM "},
    };
    steps(stops, 2, parts, sizeof parts / sizeof *parts, 0);
    static const char *const nested[] = {"\n", "\n\n"};
    static const char *const lines[][2] = {{"a\n", "a"}, {"b", "a"}};
    steps(nested, 2, lines, 2, 0);
    static const char *const twice[][2] = {{"a\n", "a"}, {"\n", "a"}};
    steps(nested, 2, twice, 2, 1);
    static const char *const none[][2] = {{"a", "a"}, {"b\n", "ab\n"}};
    steps(NULL, 0, none, 2, -1);
}

static void held_text_comes_out_at_the_end(void) {
    const char *stops[] = {"abcde", "bcd"};
    const size_t bytes[] = {5, 3};
    struct dr_stop s;
    struct dr_text out = {0};
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops, bytes, 2, false).code, DR_OK);
    CU_ASSERT_EQUAL(dr_stop_push(&s, "xabc", 4, &out).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(out.at, "x");
    CU_ASSERT_EQUAL(dr_stop_end(&s, &out).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(out.at, "xabc");
    CU_ASSERT_EQUAL(s.hit, -1);
    CU_ASSERT_EQUAL(dr_stop_push(&s, "abcd", 4, &out).code,
                    DR_OK); /* bcd stands, but abcde would stand before it */
    CU_ASSERT_EQUAL(s.hit, -1);
    CU_ASSERT_EQUAL(dr_stop_end(&s, &out).code, DR_OK);
    CU_ASSERT_EQUAL(s.hit, 1);
    CU_ASSERT_STRING_EQUAL(out.at, "xabca");
    dr_stop_fini(&s);
    dr_text_fini(&out);
}

static void bad_stops_are_refused_by_place(void) {
    static char long_one[257];
    memset(long_one, 'y', sizeof long_one);
    const char *stops[17] = {"ok", "", long_one, "\xFF"};
    size_t bytes[17] = {2, 0, 257, 1};
    struct dr_stop s;
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops, bytes, 2, false).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stop[1]: it is empty");
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops + 2, bytes + 2, 1, false).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stop[0]: 257 bytes, at most 256 are accepted");
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops + 3, bytes + 3, 1, false).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stop[0]: it is not valid UTF-8");
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops, bytes, 17, false).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stop: 17 strings, at most 16 are accepted");
    bytes[2] = 256;
    CU_ASSERT_EQUAL(dr_stop_init(&s, stops + 2, bytes + 2, 1, false).code, DR_OK);
    struct dr_text out = {0};
    for (int i = 0; i < 300; i++) CU_ASSERT_EQUAL(dr_stop_push(&s, "y", 1, &out).code, DR_OK);
    CU_ASSERT_TRUE(s.hit == 0 && out.n == 0);
    dr_stop_fini(&s);
    dr_text_fini(&out);
}

static CU_TestInfo cases[] = {
    {"golden ids stream to what they decode to", golden_ids_stream_as_they_decode},
    {"random ids stream to what they decode to", random_ids_stream_as_they_decode},
    {"a character waits for its last byte, across skipped tokens", smile_waits_for_its_last_byte},
    {"the matcher finds what the rule says, 6,000 random texts and cuts", matcher_equals_the_rule},
    {"only text that could begin a stop string is held back", only_what_could_be_a_stop_is_held},
    {"held text is decided at the end", held_text_comes_out_at_the_end},
    {"bad stop strings are refused by place", bad_stops_are_refused_by_place},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_stream = {.pName = "text/stream", .pTests = cases};
