/* test_bpe.c - merging against the definition, written as slowly as it reads.
 * In:   random merges and texts; the sample model's merges.      Out: checks.
 * Owns: nothing.
 * Why:  the heap must give what repeated search for the lowest rank gives, ties included. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/text/bpe.h"
#include "tests/unit/text/fixture.h"

enum { TEXT_MAX = 160, ROUNDS = 300 };

/* A vocabulary over the letters a..d that grows by random merges; pieces[i] is the text of merge i's result.
 */
static json_t *random_tokenizer(uint64_t *seed, int n_merges) {
    json_t *json = fixture_tiny(), *model = json_object_get(json, "model");
    json_t *vocab = json_object_get(model, "vocab"), *merges = json_array();
    char known[64][16];
    int n_known = 4;
    for (int i = 0; i < 4; i++) snprintf(known[i], sizeof known[i], "%c", "abcd"[i]);
    for (int i = 0; i < n_merges && n_known < 64; i++) {
        const char *left = known[fixture_random(seed) % (uint32_t)n_known];
        const char *right = known[fixture_random(seed) % (uint32_t)n_known];
        char joined[32];
        snprintf(joined, sizeof joined, "%s%s", left, right);
        if (strlen(joined) > 12) continue;
        if (!json_object_get(vocab, joined)) {
            json_object_set_new(vocab, joined, json_integer(300 + n_known));
            memcpy(known[n_known++], joined, strlen(joined) + 1);
        }
        json_array_append_new(merges, json_pack("[s, s]", left, right));
    }
    json_object_set_new(model, "merges", merges);
    return json;
}

/* Rank of a pair by the file: the last line with it counts. -1: none. */
static int rank_of(const json_t *merges, const char *left, const char *right) {
    for (size_t i = json_array_size(merges); i-- > 0;) {
        const json_t *pair = json_array_get(merges, i);
        if (strcmp(json_string_value(json_array_get(pair, 0)), left) == 0 &&
            strcmp(json_string_value(json_array_get(pair, 1)), right) == 0)
            return (int)i;
    }
    return -1;
}

/* One occurrence at a time: lowest rank, leftmost. */
static size_t merge_slowly(const json_t *merges, const char *text, char parts[TEXT_MAX][16]) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) snprintf(parts[i], sizeof parts[i], "%c", text[i]);
    for (;;) {
        int best = -1;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int rank = rank_of(merges, parts[i], parts[i + 1]);
            if (rank < 0 || (best >= 0 && rank >= best)) continue;
            best = rank;
            where = i;
        }
        if (best < 0) return n;
        char right[16];
        memcpy(right, parts[where + 1], sizeof right);
        strncat(parts[where], right, sizeof right - 1 - strlen(parts[where]));
        for (size_t i = where + 1; i + 1 < n; i++) memcpy(parts[i], parts[i + 1], sizeof parts[i]);
        n--;
    }
}

static void heap_equals_the_definition(void) {
    uint64_t seed = 88172645463325252u;
    for (int round = 0; round < ROUNDS; round++) {
        json_t *json = random_tokenizer(&seed, 4 + round % 40);
        const json_t *model = json_object_get(json, "model"), *vocab = json_object_get(model, "vocab");
        struct dr_tokenizer *t = NULL;
        CU_ASSERT_EQUAL_FATAL(fixture_create(json, NULL, &t).code, DR_OK);
        char text[TEXT_MAX + 1] = {0}, parts[TEXT_MAX][16];
        size_t n = 1 + fixture_random(&seed) % TEXT_MAX;
        for (size_t i = 0; i < n; i++) text[i] = "abcd"[fixture_random(&seed) % (1 + (uint32_t)round % 4)];
        size_t n_parts = merge_slowly(json_object_get(model, "merges"), text, parts);
        struct dr_ids ids = {0};
        CU_ASSERT_EQUAL(dr_tokenizer_encode(t, text, n, DR_ADDED_OFF, &ids).code, DR_OK);
        CU_ASSERT_EQUAL(ids.n, n_parts);
        for (size_t i = 0; i < ids.n && i < n_parts; i++)
            CU_ASSERT_EQUAL((json_int_t)ids.at[i], json_integer_value(json_object_get(vocab, parts[i])));
        dr_ids_fini(&ids);
        dr_tokenizer_destroy(t);
        json_decref(json);
    }
}

static void expect(const json_t *json, const char *text, const char *ids_text) {
    struct dr_tokenizer *t = NULL;
    CU_ASSERT_EQUAL_FATAL(fixture_create(json, NULL, &t).code, DR_OK);
    struct dr_ids ids = {0};
    json_t *expected = json_loads(ids_text, 0, NULL);
    CU_ASSERT_EQUAL(dr_tokenizer_encode(t, text, strlen(text), DR_ADDED_MATCH, &ids).code, DR_OK);
    CU_ASSERT_TRUE(fixture_same_ids(&ids, expected));
    json_decref(expected);
    dr_ids_fini(&ids);
    dr_tokenizer_destroy(t);
}

static void both_spellings_of_merges_count(void) {
    json_t *json = fixture_tiny();
    expect(json, "abc", "[257]");
    expect(json, "aab a", "[97,256,258]");
    expect(json, "\xC3\xA9", "[259]");
    expect(json, "x<end>ab<tool>", "[120,260,256,261]");
    json_decref(json);
}

static void whole_pieces_win_with_ignore_merges(void) {
    json_t *json = fixture_tiny(), *model = json_object_get(json, "model");
    json_object_set_new(json_object_get(model, "vocab"), "xyz", json_integer(262)); /* no merge leads there */
    expect(json, "xyz", "[120,121,122]");
    json_object_set_new(model, "ignore_merges", json_true());
    expect(json, "xyz", "[262]");
    expect(json, "xyzab", "[120,121,122,256]");
    json_decref(json);
}

static void the_last_of_equal_merges_counts(void) {
    json_t *json = fixture_tiny(), *model = json_object_get(json, "model");
    json_object_set_new(json_object_get(model, "vocab"), "bc", json_integer(262));
    json_object_set_new(model, "merges", json_pack("[s, s, s]", "a b", "b c", "ab c"));
    expect(json, "abc", "[257]");
    json_array_append_new(json_object_get(model, "merges"), json_string("a b"));
    expect(json, "abc", "[97,262]");
    json_decref(json);
}

static CU_TestInfo cases[] = {
    {"the heap merges as the definition does, 300 random tokenizers", heap_equals_the_definition},
    {"merges are read as strings and as pairs", both_spellings_of_merges_count},
    {"a piece that is a token wins with ignore_merges only", whole_pieces_win_with_ignore_merges},
    {"of a merge given twice the last rank counts", the_last_of_equal_merges_counts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bpe = {.pName = "text/bpe", .pTests = cases};
