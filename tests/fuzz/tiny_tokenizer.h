/* tiny_tokenizer.h - a complete small tokenizer.json for the fuzz targets of the text world.
 * In:   nothing.      Out: a JSON value the caller owns.
 * Owns: nothing.
 * Why:  a fuzzer does not find 256 letters by itself; it starts from a file that works. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_CHECK(cond)                                                                                     \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #cond);                         \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* 256 letters, a few merges over a, b, c and the space, GPT-2 pieces; no added tokens. */
static inline json_t *tiny_tokenizer(void) {
    static const char *const merges[] = {
        "a b", "ab c", "a a", "aa aa", "b c", "\xC4\xA0 a", "c c", "\xC3\x83 \xC2\xA9", "bc c"};
    json_t *vocab = json_object(), *list = json_array();
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        int c = own ? b : next++;
        char letter[3] = {(char)(c < 0x80 ? c : 0xC0 | c >> 6), (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3F)), 0};
        json_object_set_new(vocab, letter, json_integer(b));
    }
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        char joined[16];
        const char *space = strchr(merges[i], ' ');
        snprintf(joined, sizeof joined, "%.*s%s", (int)(space - merges[i]), merges[i], space + 1);
        json_object_set_new(vocab, joined, json_integer((json_int_t)(256 + i)));
        json_array_append_new(list, json_string(merges[i]));
    }
    return json_pack("{s:[], s:{s:s, s:b}, s:{s:s}, s:{s:s, s:o, s:o}}", "added_tokens", "pre_tokenizer",
                     "type", "ByteLevel", "add_prefix_space", 0, "decoder", "type", "ByteLevel", "model",
                     "type", "BPE", "vocab", vocab, "merges", list);
}
