/* fuzz_bpe_encode.c - any bytes through a tokenizer and back.
 * In:   text, valid UTF-8 or not.      Out: a crash, or a text that does not come back.
 * Owns: one tokenizer for the process.
 * Why:  every request's text takes this way. */
#include "gateway/text/tokenizer.h"
#include "gateway/text/utf8.h"
#include "tests/fuzz/tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dr_tokenizer *tokenizer;

static void load(void) {
    json_t *json = tiny_tokenizer();
    json_object_set_new(json, "added_tokens",
                        json_pack("[{s:i, s:s, s:b}, {s:i, s:s, s:b}, {s:i, s:s}]", "id", 300, "content",
                                  "<end>", "special", 1, "id", 301, "content", "<en", "normalized", 1, "id",
                                  302, "content", "d>a"));
    char *text = json_dumps(json, 0);
    struct dr_tokenizer_source source = {.json = text, .json_bytes = strlen(text)};
    FUZZ_CHECK(dr_tokenizer_create_from(&source, &tokenizer).code == DR_OK);
    free(text);
    json_decref(json);
}

static void round_trip(const char *text, size_t n, enum dr_match_added match) {
    struct dr_ids ids = {0};
    struct dr_text back = {0};
    size_t valid = dr_utf8_valid(text, n);
    dr_status st = dr_tokenizer_encode(tokenizer, text, n, match, &ids);
    FUZZ_CHECK(st.code == (valid == n ? DR_OK : DR_EINVAL));
    if (valid == n) {
        FUZZ_CHECK(dr_tokenizer_decode(tokenizer, ids.at, ids.n, false, &back).code == DR_OK);
        FUZZ_CHECK(back.n == n && (n == 0 || memcmp(back.at, text, n) == 0));
        for (size_t i = 0; i < ids.n; i++)
            FUZZ_CHECK(match == DR_ADDED_MATCH || !dr_tokenizer_is_added(tokenizer, ids.at[i]));
    }
    dr_ids_fini(&ids);
    dr_text_fini(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tokenizer) load();
    const char *text = (const char *)data;
    round_trip(text, size, DR_ADDED_MATCH);
    round_trip(text, size, DR_ADDED_OFF);
    round_trip(text, dr_utf8_valid(text, size), DR_ADDED_MATCH);
    return 0;
}
