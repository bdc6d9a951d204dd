/* test_pretokenizer.c - patterns in PCRE2 with Oniguruma's meaning, and the pieces they cut.
 * In:   patterns and texts.      Out: checks.
 * Owns: nothing.
 * Why:  pieces decide ids; expected cuts were made with the tokenizers library. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/text/pretokenizer.h"
#include "tests/unit/text/fixture.h"

static dr_status take(void *arg, const uint8_t *piece, size_t n) {
    DR_TRY(dr_text_push(arg, piece, n));
    return dr_text_push(arg, "|", 1);
}

/* Pieces of text, each followed by a bar; the caller frees it. */
static struct dr_text cut(const char *pre_tokenizer, const char *text, size_t n) {
    struct dr_pretokenizer p = {.n_stage = 0};
    struct dr_text out = {0};
    json_t *json = json_loads(pre_tokenizer, 0, NULL);
    CU_ASSERT_PTR_NOT_NULL(json);
    dr_status st = dr_pretokenizer_init(&p, json);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    st = dr_pretokenizer_cut(&p, text, n, (struct dr_piece_sink){.take = take, .arg = &out});
    CU_ASSERT_EQUAL(st.code, DR_OK);
    dr_pretokenizer_fini(&p);
    json_decref(json);
    return out;
}

#define SPLIT(regex)     "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" regex "\"}}"
#define BYTES            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SEQUENCE(stages) "{\"type\":\"Sequence\",\"pretokenizers\":[" stages "," BYTES "]}"
#define LOWER            "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]"
#define UPPER            "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]"
#define KIMI                                                                                                 \
    SPLIT("[\\\\p{Han}]+|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "*" LOWER                                     \
          "+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "+" LOWER                    \
          "*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\\\p{N}{1,3}| "                                                   \
          "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")

static void pieces_are_those_of_the_library(void) {
    static const struct {
        const char *pre_tokenizer, *text, *pieces;
    } all[] = {
        {BYTES, "a b  c", "a b  c|"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "I'll  be 12% there",
         "I|'ll| | be| 12|%| there|"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "Hi there", " Hi| there|"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", " Hi", " Hi|"},
        {SEQUENCE(SPLIT("\\\\p{N}{1,3}")), "ab1234567c", "ab|123|456|7|c|"},
        /* stages nest: $ and look-ahead end at the border of the piece of the stage before */
        {SEQUENCE(SPLIT("[0-9]") "," SPLIT("\\\\s+$")), "a 1 b", "a| |1| b|"},
        {SEQUENCE(SPLIT("x") "," SPLIT("\\\\s+(?!\\\\S)")), "a  x  b", "a|  |x| | b|"},
        /* ^ and $ match at every line */
        {SEQUENCE(SPLIT("^.")), "ab\ncd", "a|b\n|c|d|"},
        /* an empty match splits where it stands */
        {SEQUENCE(SPLIT("(?=[A-Z])")), "camelCaseText", "camel|Case|Text|"},
        {SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}"), "a12b", "a|1|2|b|"},
        {SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":false}"), "a12b", "a|12|b|"},
        {SEQUENCE("{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":true,\"pattern\":{\"String\":\"a."
                  "\"}}"),
         "xa.ab", "x|a.|ab|"},
        /* U+180E is no white space, U+0085 is */
        {SEQUENCE(SPLIT("\\\\s")),
         "a\xE1\xA0\x8E"
         "b\xC2\x85"
         "c",
         "a\xE1\xA0\x8E"
         "b|\xC2\x85|c|"},
        {SEQUENCE(SPLIT("[\\\\S]")), "\xE1\xA0\x8E \xC2\x85", "\xE1\xA0\x8E| \xC2\x85|"},
        /* the script Han alone: U+3001 has Han among its script extensions only */
        {SEQUENCE(SPLIT("\\\\p{Han}+")), "\xE6\xBC\xA2\xE3\x80\x81\xE6\xBC\xA2",
         "\xE6\xBC\xA2|\xE3\x80\x81|\xE6\xBC\xA2|"},
        {SEQUENCE(SPLIT("\\\\P{Han}")),
         "\xE6\xBC\xA2\xE6\xBC\xA2"
         "ab",
         "\xE6\xBC\xA2\xE6\xBC\xA2|a|b|"},
        {SEQUENCE(SPLIT("[\\\\u4E00-\\\\u9FA5]+")),
         "a\xE6\xBC\xA2\xE6\xBC\xA2"
         "b",
         "a|\xE6\xBC\xA2\xE6\xBC\xA2|b|"},
        {SEQUENCE(KIMI),
         "Hello WORLD it's \xE6\xBC\xA2\xE5\xAD\x97"
         "abc 12345!\n\n x",
         "Hello| WORLD| it's| |\xE6\xBC\xA2\xE5\xAD\x97|abc| |123|45|!\n\n| x|"},
        {SEQUENCE(KIMI), "camelCase DON'T \xE3\x81\x82\xE6\xBC\xA2",
         "camel|Case| DON'T| \xE3\x81\x82|\xE6\xBC\xA2|"},
        {SEQUENCE(SPLIT("[a-z&&[^b]&&[^c]]+")), "abcad", "a|bc|ad|"},
        {SEQUENCE(SPLIT("[a-f&&b-z]")), "abcx", "a|b|c|x|"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct dr_text out = cut(all[i].pre_tokenizer, all[i].text, strlen(all[i].text));
        CU_ASSERT_STRING_EQUAL(out.at, all[i].pieces);
        if (strcmp(out.at, all[i].pieces) != 0) printf("%zu: %s\nnot %s\n", i, out.at, all[i].pieces);
        dr_text_fini(&out);
    }
}

static void unequal_constructs_are_refused(void) {
    static const struct {
        const char *pattern, *text;
    } all[] = {
        {"a{2}+", "pattern, byte 3: a possessive interval is not supported"},
        {"a{,3}", "pattern, byte 1: an interval without a lower end is not supported"},
        {"(a)\\1", "pattern, byte 3: this escape sequence is not supported"},
        {"x\\b", "pattern, byte 1: this escape sequence is not supported"},
        {"\\h+", "pattern, byte 0: this escape sequence is not supported"},
        {"a\\", "pattern, byte 1: this escape sequence is not supported"},
        {"(?i)a", "pattern, byte 0: this kind of group is not supported"},
        {"(?R)", "pattern, byte 0: this kind of group is not supported"},
        {"(*LIMIT_MATCH=9)a", "pattern, byte 0: a verb is not supported"},
        {"[[:alpha:]]", "pattern, byte 1: a POSIX bracket is not supported"},
        {"[a[b]]", "pattern, byte 2: a class inside a class (other than with &&) is not supported"},
        {"[[b]a]", "pattern, byte 1: a class inside a class (other than with &&) is not supported"},
        {"[^a&&b]", "pattern, byte 3: && in a negated or inner class is not supported"},
        {"[a&&[b&&c]]", "pattern, byte 6: && in a negated or inner class is not supported"},
        {"[]", "pattern, byte 1: an empty class is not supported"},
        {"[a&&]", "pattern, byte 4: an empty class is not supported"},
        {"x[ab", "pattern, byte 1: the class has no end"},
        {"a\\w", "pattern, byte 1: this escape sequence is not supported"},
        {"[\\W]", "pattern, byte 1: this escape sequence is not supported"},
        {"\\pL", "pattern, byte 0: a property without braces is not supported"},
        {"\\p{}", "pattern, byte 0: this form of a property is not supported"},
        {"\\p{Klingonish}", "pattern, byte 0: the property Klingonish is not known"},
        {"\\xE4", "pattern, byte 0: a single byte above 7F is not supported"},
        {"\\u12", "pattern, byte 0: this form of a character number is not supported"},
        {"(a", "pattern, byte 2 after rewriting: missing closing parenthesis"},
        {"", "pattern: it is empty"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct dr_pattern p = {0};
        dr_status st = dr_pattern_init(&p, all[i].pattern, strlen(all[i].pattern), false);
        CU_ASSERT_EQUAL(st.code, DR_EINVAL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), all[i].text);
        CU_ASSERT_PTR_NULL(p.code);
        if (st.code == DR_OK) dr_pattern_fini(&p);
    }
    size_t n = DR_PATTERN_BYTES_MAX + 1;
    char *long_one = malloc(n);
    memset(long_one, 'a', n);
    struct dr_pattern p = {0};
    CU_ASSERT_EQUAL(dr_pattern_init(&p, long_one, n, false).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "pattern of 65537 bytes: at most 65536 are accepted");
    free(long_one);
}

/* Counts pieces and bytes; the longest piece too. */
struct tally {
    size_t pieces, bytes, longest;
};

static dr_status count(void *arg, const uint8_t *piece, size_t n) {
    struct tally *t = arg;
    (void)piece;
    t->pieces++;
    t->bytes += n;
    if (n > t->longest) t->longest = n;
    return dr_ok();
}

static struct tally tally(const char *pre_tokenizer, const char *unit, size_t times) {
    struct dr_pretokenizer p = {.n_stage = 0};
    struct tally t = {0};
    size_t bytes = strlen(unit);
    char *text = malloc(bytes * times);
    for (size_t i = 0; i < times; i++) memcpy(text + i * bytes, unit, bytes);
    json_t *json = json_loads(pre_tokenizer, 0, NULL);
    CU_ASSERT_EQUAL(dr_pretokenizer_init(&p, json).code, DR_OK);
    CU_ASSERT_EQUAL(
        dr_pretokenizer_cut(&p, text, bytes * times, (struct dr_piece_sink){.take = count, .arg = &t}).code,
        DR_OK);
    CU_ASSERT_EQUAL(t.bytes, bytes * times);
    dr_pretokenizer_fini(&p);
    json_decref(json);
    free(text);
    return t;
}

static void patterns_that_give_up_do_not_fail_the_text(void) {
    /* exponential; each part of 25,000 characters costs one limit and stays whole */
    struct tally t = tally(SEQUENCE(SPLIT("(?:a|aa)+$(?!a)b|(?:a+)+c")), "a", 60000);
    CU_ASSERT_EQUAL(t.pieces, 3);
    CU_ASSERT_EQUAL(t.longest, 25000);
    /* groups repeated more often than JIT's stack holds */
    t = tally(SEQUENCE(KIMI), "\xE0\xB8\x81", 200000);
    CU_ASSERT_EQUAL(t.longest, 75000);
    t = tally(SEQUENCE(SPLIT("\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")), " ", 1000000);
    CU_ASSERT_EQUAL(t.pieces, 40);
}

static dr_status fail(void *arg, const uint8_t *piece, size_t n) {
    (void)arg;
    (void)piece;
    return dr_fail(DR_ECANCEL, "stopped at %zu bytes", n);
}

static void a_failing_sink_stops_the_cutting(void) {
    struct dr_pretokenizer p = {.n_stage = 0};
    json_t *json = json_loads("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", 0, NULL);
    CU_ASSERT_EQUAL(dr_pretokenizer_init(&p, json).code, DR_OK);
    dr_status st = dr_pretokenizer_cut(&p, "abc def", 7, (struct dr_piece_sink){.take = fail});
    CU_ASSERT_EQUAL(st.code, DR_ECANCEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stopped at 4 bytes");
    dr_pretokenizer_fini(&p);
    json_decref(json);
}

static CU_TestInfo cases[] = {
    {"pieces are those of the tokenizers library", pieces_are_those_of_the_library},
    {"constructs without an equal meaning are refused by name and place", unequal_constructs_are_refused},
    {"a pattern that gives up does not fail the text", patterns_that_give_up_do_not_fail_the_text},
    {"a failing sink stops the cutting with its own failure", a_failing_sink_stops_the_cutting},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_pretokenizer = {.pName = "text/pretokenizer", .pTests = cases};
