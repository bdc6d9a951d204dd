/* fuzz_utf8_stream.c - bytes cut in two ways must become the same valid text.
 * In:   a byte that chooses the cuts, then bytes.      Out: a crash, or two different texts.
 * Owns: nothing.
 * Why:  what a client sees must not depend on where tokens end. */
#include "gateway/text/utf8.h"
#include "tests/fuzz/tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    struct dr_utf8_stream one = {.n_held = 0}, many = {.n_held = 0};
    struct dr_text whole = {0}, parts = {0};
    size_t step = 1 + data[0] % 7;
    data++;
    size--;
    FUZZ_CHECK(dr_utf8_stream_push(&one, data, size, &whole).code == DR_OK);
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        FUZZ_CHECK(dr_utf8_stream_push(&many, data + at, n, &parts).code == DR_OK);
        FUZZ_CHECK(dr_utf8_valid(parts.at, parts.n) == parts.n);
    }
    FUZZ_CHECK(dr_utf8_stream_end(&one, &whole).code == DR_OK);
    FUZZ_CHECK(dr_utf8_stream_end(&many, &parts).code == DR_OK);
    FUZZ_CHECK(whole.n == parts.n && (whole.n == 0 || memcmp(whole.at, parts.at, whole.n) == 0));
    FUZZ_CHECK(dr_utf8_valid(whole.at, whole.n) == whole.n);
    if (dr_utf8_valid(data, size) == size)
        FUZZ_CHECK(whole.n == size && (size == 0 || memcmp(whole.at, data, size) == 0));
    dr_text_fini(&whole);
    dr_text_fini(&parts);
    return 0;
}
