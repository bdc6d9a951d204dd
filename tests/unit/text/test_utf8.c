/* test_utf8.c - characters, their errors, and streams cut anywhere.
 * In:   byte strings.      Out: checks.
 * Owns: nothing.
 * Why:  a broken byte that gets through ends in a client's JSON. */
#include <CUnit/CUnit.h>
#include <string.h>

#include "gateway/text/utf8.h"
#include "tests/unit/text/fixture.h"

#define R "\xEF\xBF\xBD"

static void every_code_point_reads_back(void) {
    size_t wrong = 0;
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        uint8_t b[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, used = 0;
        for (size_t i = n - 1; i > 0; i--) b[i] = (uint8_t)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3F));
        b[0] = (uint8_t)(n == 1 ? c : (0xF00 >> n & 0xFF) | c >> (6 * (n - 1)));
        bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        int32_t got = dr_utf8_read(b, n, &used);
        wrong += surrogate ? got != DR_UTF8_BAD : got != c || used != n;
        for (size_t cut = 1; cut < n && !surrogate; cut++)
            wrong += dr_utf8_read(b, cut, &used) != DR_UTF8_CUT;
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* Maximal subparts as in Unicode 3.9, table 3-8 and its neighbours. */
static const struct {
    const char *bytes, *text;
} broken[] = {
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "A"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "A"},
    {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A"},
    {"\xF0\x9F\x98", R},
    {"ok \xE4\xBD\xA0\xE5\xA5", "ok \xE4\xBD\xA0" R},
    {"\x80\x80", R R},
    {"\xC3\xC3\xA9", R "\xC3\xA9"},
};

static void broken_bytes_become_one_mark_a_subpart(void) {
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct dr_utf8_stream s = {.n_held = 0};
        struct dr_text out = {0};
        CU_ASSERT_EQUAL(dr_utf8_stream_push(&s, broken[i].bytes, strlen(broken[i].bytes), &out).code, DR_OK);
        CU_ASSERT_EQUAL(dr_utf8_stream_end(&s, &out).code, DR_OK);
        CU_ASSERT_STRING_EQUAL(out.at, broken[i].text);
        dr_text_fini(&out);
    }
}

static void cuts_do_not_change_the_text(void) {
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        for (size_t step = 1; step < 4; step++) {
            struct dr_utf8_stream s = {.n_held = 0};
            struct dr_text out = {0};
            size_t n = strlen(broken[i].bytes);
            for (size_t at = 0; at < n; at += step) {
                size_t part = n - at < step ? n - at : step;
                CU_ASSERT_EQUAL(dr_utf8_stream_push(&s, broken[i].bytes + at, part, &out).code, DR_OK);
                CU_ASSERT_EQUAL(dr_utf8_valid(out.at, out.n), out.n);
            }
            CU_ASSERT_EQUAL(dr_utf8_stream_end(&s, &out).code, DR_OK);
            CU_ASSERT_STRING_EQUAL(out.at, broken[i].text);
            dr_text_fini(&out);
        }
}

static void nothing_is_marked_before_it_is_proven(void) {
    struct dr_utf8_stream s = {.n_held = 0};
    struct dr_text out = {0};
    const char *smile = "\xF0\x9F\x98\x80";
    for (size_t i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(out.n, 0);
        CU_ASSERT_EQUAL(dr_utf8_stream_push(&s, smile + i, 1, &out).code, DR_OK);
    }
    CU_ASSERT_STRING_EQUAL(out.at, smile);
    CU_ASSERT_EQUAL(s.n_held, 0);
    dr_text_fini(&out);
}

static void skip_counts_characters(void) {
    const char *text = "a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80z";
    static const size_t after[] = {0, 1, 3, 6, 10, 11, 11};
    for (size_t k = 0; k < sizeof after / sizeof *after; k++)
        CU_ASSERT_EQUAL(dr_utf8_skip(text, 11, k), after[k]);
}

static void vectors_grow_and_keep(void) {
    struct dr_ids ids = {0};
    for (uint32_t i = 0; i < 1000; i++) CU_ASSERT_EQUAL(dr_ids_push(&ids, i * 3).code, DR_OK);
    CU_ASSERT_TRUE(ids.n == 1000 && ids.at[999] == 2997 && ids.at[0] == 0);
    CU_ASSERT_EQUAL(dr_ids_reserve(&ids, SIZE_MAX).code, DR_EFULL);
    CU_ASSERT_EQUAL(dr_ids_reserve(&ids, SIZE_MAX / 2).code, DR_EFULL);
    CU_ASSERT_EQUAL(ids.n, 1000);
    struct dr_text text = {0};
    CU_ASSERT_EQUAL(dr_text_push(&text, NULL, 0).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(text.at, "");
    CU_ASSERT_EQUAL(dr_text_push(&text, "abc", 3).code, DR_OK);
    CU_ASSERT_EQUAL(dr_text_push(&text, "x", SIZE_MAX).code, DR_EFULL);
    CU_ASSERT_STRING_EQUAL(text.at, "abc");
    dr_text_reset(&text);
    CU_ASSERT_STRING_EQUAL(text.at, "");
    dr_ids_fini(&ids);
    dr_text_fini(&text);
}

static CU_TestInfo cases[] = {
    {"every code point is read, surrogates are bad, prefixes are cut", every_code_point_reads_back},
    {"broken bytes become one U+FFFD a maximal subpart", broken_bytes_become_one_mark_a_subpart},
    {"the text of a stream does not depend on its cuts", cuts_do_not_change_the_text},
    {"an unfinished character waits without a mark", nothing_is_marked_before_it_is_proven},
    {"skip counts characters, not bytes", skip_counts_characters},
    {"vectors grow, keep their contents and refuse what has no room", vectors_grow_and_keep},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_utf8 = {.pName = "text/utf8", .pTests = cases};
