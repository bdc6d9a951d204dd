/* fixture.c - see fixture.h.
 * In:   golden files.      Out: tokenizers and JSON.
 * Owns: the shared tokenizers.
 * Why:  see fixture.h. */
#include "tests/unit/text/fixture.h"

#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

static struct dr_tokenizer *deepseek, *lexi;

static void load(const char *json, const char *config, struct dr_tokenizer **out) {
    if (*out) return;
    dr_status st = dr_tokenizer_create(json, config, out);
    if (st.code == DR_OK) return;
    printf("cannot load: %s\n", dr_error_text());
    exit(1);
}

const struct dr_tokenizer *fixture_deepseek(void) {
    load(DR_TESTS_DIR "/golden/tokenizer/tokenizer.json", NULL, &deepseek);
    return deepseek;
}

const struct dr_tokenizer *fixture_lexi(void) {
    load(DR_SOURCE_DIR "/deploy/models/lexi-15m/tokenizer.json",
         DR_SOURCE_DIR "/deploy/models/lexi-15m/tokenizer_config.json", &lexi);
    return lexi;
}

void fixture_end(void) {
    dr_tokenizer_destroy(deepseek);
    dr_tokenizer_destroy(lexi);
    deepseek = lexi = NULL;
}

json_t *fixture_json(const char *path) {
    json_t *json = NULL;
    dr_status st =
        dr_json_read(path, (struct dr_json_limits){.nodes_max = 8000000, .nul_allowed = true}, &json);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    return json;
}

const char *fixture_letter(int byte, char letter[3]) {
    int c = byte, next = 0x100;
    for (int b = 0; b <= byte; b++) {
        bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        c = own ? b : next++;
    }
    letter[0] = (char)(c < 0x80 ? c : 0xC0 | c >> 6);
    letter[1] = (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3F));
    letter[2] = 0;
    return letter;
}

json_t *fixture_tiny(void) {
    json_t *vocab = json_object();
    char letter[3];
    for (int b = 0; b < 256; b++) json_object_set_new(vocab, fixture_letter(b, letter), json_integer(b));
    json_object_set_new(vocab, "ab", json_integer(256));
    json_object_set_new(vocab, "abc", json_integer(257));
    json_object_set_new(vocab,
                        "\xC4\xA0"
                        "a",
                        json_integer(258));                            /* the letter of the space is U+0120 */
    json_object_set_new(vocab, "\xC3\x83\xC2\xA9", json_integer(259)); /* bytes C3 A9 as letters */
    return json_pack("{s:s, s:[{s:i, s:s, s:b}, {s:i, s:s, s:b, s:b}], s:n, s:{s:s, s:b}, s:{s:s}, "
                     "s:{s:s, s:o, s:[s, s, s, [s, s]]}}",
                     "version", "1.0", "added_tokens", "id", 260, "content", "<end>", "special", 1, "id", 261,
                     "content", "<tool>", "special", 0, "normalized", 0, "normalizer", "pre_tokenizer",
                     "type", "ByteLevel", "add_prefix_space", 0, "decoder", "type", "ByteLevel", "model",
                     "type", "BPE", "vocab", vocab, "merges", "a b", "ab c", "\xC4\xA0 a", "\xC3\x83",
                     "\xC2\xA9");
}

dr_status fixture_create(const json_t *json, const json_t *config, struct dr_tokenizer **out) {
    char *text = json_dumps(json, JSON_ENCODE_ANY),
         *config_text = config ? json_dumps(config, JSON_ENCODE_ANY) : NULL;
    struct dr_tokenizer_source source = {.json = text,
                                         .json_bytes = strlen(text),
                                         .config = config_text,
                                         .config_bytes = config_text ? strlen(config_text) : 0};
    dr_status st = dr_tokenizer_create_from(&source, out);
    free(text);
    free(config_text);
    return st;
}

bool fixture_same_ids(const struct dr_ids *ids, const json_t *expected) {
    bool same = ids->n == json_array_size(expected);
    for (size_t i = 0; i < ids->n && same; i++)
        same = json_integer_value(json_array_get(expected, i)) == (json_int_t)ids->at[i];
    return same;
}

uint32_t fixture_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 16);
}
