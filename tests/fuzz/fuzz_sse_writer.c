/* fuzz_sse_writer.c - payloads through the event writer and back through a reader.
 * In:   bytes, cut into payloads at 0xff.      Out: nothing; a payload that comes back different is the
 * finding. Owns: nothing. Why:  a payload that ends its event early would let a model's text forge events. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The reader of the HTML standard, for data lines only: lines end in LF, CR or CRLF, an empty line ends the
 * event. Returns the bytes read; *n: bytes of the payload in `out`. */
static size_t read_event(const char *at, size_t left, char *out, size_t *n) {
    size_t i = 0, lines = 0;
    *n = 0;
    while (i < left) {
        size_t end = i;
        while (end < left && at[end] != '\n' && at[end] != '\r') end++;
        DR_ASSERT(end < left);
        size_t next = end + (at[end] == '\r' && end + 1 < left && at[end + 1] == '\n' ? 2 : 1);
        if (end == i) return next;
        DR_ASSERT(end - i >= 6 && memcmp(at + i, "data: ", 6) == 0); /* no other field can appear */
        if (lines++) out[(*n)++] = '\n';
        memcpy(out + *n, at + i + 6, end - i - 6);
        *n += end - i - 6;
        i = next;
    }
    DR_ASSERT(!"an event without an end");
    return i;
}

/* What a reader makes of line breaks. */
static size_t normal(const uint8_t *at, size_t n, char *out) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (at[i] == '\r' && i + 1 < n && at[i + 1] == '\n') continue;
        out[k++] = at[i] == '\r' ? '\n' : (char)at[i];
    }
    return k;
}

static void quote_back(const uint8_t *data, size_t size) {
    struct dr_json_out o = {0};
    dr_json_quote(&o, data, size);
    DR_ASSERT(!o.failed && o.text.n >= 2 && o.text.at[0] == '"' && o.text.at[o.text.n - 1] == '"');
    for (size_t i = 0; i < o.text.n; i++) DR_ASSERT((uint8_t)o.text.at[i] >= 0x20);
    dr_json_out_fini(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct dr_json_out o = {0};
    char *got = malloc(2 * size + 1), *want = malloc(size + 1);
    DR_ASSERT(got && want);
    size_t events = 0;
    for (size_t at = 0; at <= size; events++) {
        const uint8_t *cut = at < size ? memchr(data + at, 0xff, size - at) : NULL;
        size_t end = cut ? (size_t)(cut - data) : size;
        dr_sse_event(&o, at < size ? (const char *)data + at : "", end - at);
        at = end + 1;
    }
    DR_ASSERT(!o.failed);
    size_t pos = 0;
    for (size_t at = 0; events > 0; events--) {
        size_t n, end = at;
        while (end < size && data[end] != 0xff) end++;
        pos += read_event(o.text.at + pos, o.text.n - pos, got, &n);
        size_t n_want = normal(data + (at < size ? at : size), end - at, want);
        DR_ASSERT(n == n_want && memcmp(got, want, n) == 0);
        at = end + 1;
    }
    DR_ASSERT(pos == o.text.n);
    quote_back(data, size);
    dr_json_out_fini(&o);
    free(got);
    free(want);
    return 0;
}
