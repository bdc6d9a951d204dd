/* json_out.c - JSON text without a tree.
 * In:   values.      Out: text.
 * Owns: nothing beyond the writer.
 * Why:  see json_out.h. */
#include "gateway/api/json_out.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gateway/text/utf8.h"

void dr_json_bytes(struct dr_json_out *o, const void *at, size_t n) {
    if (o->failed) return;
    if (dr_text_push(&o->text, at, n).code != DR_OK) o->failed = true;
}

void dr_json_raw(struct dr_json_out *o, const char *syntax) {
    dr_json_bytes(o, syntax, strlen(syntax));
}

void dr_json_format(struct dr_json_out *o, const char *fmt, ...) {
    char words[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(words, sizeof words, fmt, args);
    va_end(args);
    DR_ASSERT(n >= 0 && (size_t)n < sizeof words); /* callers format numbers and short names only */
    dr_json_bytes(o, words, (size_t)n);
}

/* Bytes at the start of at[0..n) that stand for themselves inside a JSON string. */
static size_t plain(const uint8_t *at, size_t n) {
    size_t i = 0;
    while (i < n && at[i] >= 0x20 && at[i] < 0x7f && at[i] != '"' && at[i] != '\\') i++;
    return i;
}

void dr_json_quote(struct dr_json_out *o, const void *bytes, size_t n) {
    const uint8_t *at = bytes;
    dr_json_raw(o, "\"");
    for (size_t i = 0; i < n && !o->failed;) {
        size_t run = plain(at + i, n - i);
        if (run) {
            dr_json_bytes(o, at + i, run);
            i += run;
            continue;
        }
        size_t used = 1;
        int32_t c = dr_utf8_read(at + i, n - i, &used);
        if (c == DR_UTF8_CUT) used = n - i;
        if (c < 0)
            dr_json_raw(o, "\xef\xbf\xbd");
        else if (c == '"')
            dr_json_raw(o, "\\\"");
        else if (c == '\\')
            dr_json_raw(o, "\\\\");
        else if (c == '\n')
            dr_json_raw(o, "\\n");
        else if (c < 0x20 || c == 0x7f)
            dr_json_format(o, "\\u%04x", (unsigned)c);
        else
            dr_json_bytes(o, at + i, used);
        i += used;
    }
    dr_json_raw(o, "\"");
}

void dr_json_logprob(struct dr_json_out *o, float value) {
    if (!isfinite(value))
        dr_json_raw(o, "-9999.0");
    else
        dr_json_format(o, "%.9g", (double)value);
}

void dr_json_octets(struct dr_json_out *o, const uint8_t *at, size_t n) {
    dr_json_raw(o, "[");
    for (size_t i = 0; i < n; i++) dr_json_format(o, i ? ",%u" : "%u", at[i]);
    dr_json_raw(o, "]");
}

void dr_json_out_fini(struct dr_json_out *o) {
    dr_text_fini(&o->text);
    o->failed = false;
}
