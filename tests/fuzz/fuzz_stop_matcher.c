/* fuzz_stop_matcher.c - stop strings on a text in parts, against a search in the whole text.
 * In:   a byte (cuts, include), then lines: stop strings, an empty one, the text.      Out: a difference.
 * Owns: nothing.
 * Why:  a leaked stop string and a lost letter look the same to no test but this one. */
#include "gateway/text/stop.h"
#include "tests/fuzz/tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const char *stop[DR_STOP_STRINGS_MAX + 1];
    size_t bytes[DR_STOP_STRINGS_MAX + 1];
    size_t n_stops;
    const char *text;
    size_t n;
};

static struct input split(const char *at, size_t n) {
    struct input in = {.n_stops = 0};
    while (n > 0 && in.n_stops <= DR_STOP_STRINGS_MAX) {
        const char *end = memchr(at, '\n', n);
        size_t line = end ? (size_t)(end - at) : n;
        size_t used = end ? line + 1 : line;
        if (line == 0) {
            at += used;
            n -= used;
            break;
        }
        in.stop[in.n_stops] = at;
        in.bytes[in.n_stops++] = line;
        at += used;
        n -= used;
    }
    in.text = at;
    in.n = n;
    return in;
}

static int find_slowly(const struct input *in, size_t *where) {
    for (size_t i = 0; i < in->n; i++) {
        int best = -1;
        for (size_t k = 0; k < in->n_stops; k++) {
            if (in->bytes[k] > in->n - i || memcmp(in->stop[k], in->text + i, in->bytes[k]) != 0) continue;
            if (best < 0 || in->bytes[k] > in->bytes[best]) best = (int)k;
        }
        *where = i;
        if (best >= 0) return best;
    }
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    struct input in = split((const char *)data + 1, size - 1);
    struct dr_stop s;
    struct dr_text out = {0};
    bool include = data[0] & 128;
    size_t step = 1 + data[0] % 13, where = 0;
    if (dr_stop_init(&s, in.stop, in.bytes, in.n_stops, include).code != DR_OK) return 0;
    for (size_t at = 0; at < in.n; at += step)
        FUZZ_CHECK(dr_stop_push(&s, in.text + at, in.n - at < step ? in.n - at : step, &out).code == DR_OK);
    FUZZ_CHECK(dr_stop_end(&s, &out).code == DR_OK);
    int expected = find_slowly(&in, &where);
    size_t length = expected < 0 ? in.n : where + (include ? in.bytes[expected] : 0);
    FUZZ_CHECK(s.hit == expected);
    FUZZ_CHECK(out.n == length && (length == 0 || memcmp(out.at, in.text, length) == 0));
    dr_stop_fini(&s);
    dr_text_fini(&out);
    return 0;
}
