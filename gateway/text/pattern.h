/* pattern.h - the regular expressions of a tokenizer.json, run by PCRE2.
 * In:   a pattern in Oniguruma's spelling (Ruby syntax).      Out: matches with Oniguruma's meaning.
 * Owns: the compiled code, read-only after _init; any number of threads may match.
 * Why:  both engines accept the same letters for different sets; a silent difference would give other tokens.
 */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "gateway/text/vectors.h"

enum {
    DR_PATTERN_BYTES_MAX = 1 << 16, /* of a pattern in the file */
    DR_PATTERN_STEPS_MAX = 1000000, /* of one match, PCRE2's match limit */
};

struct dr_pattern {
    pcre2_code *code;            /* owned */
    pcre2_match_context *limits; /* owned */
};

enum dr_pattern_result {
    DR_PATTERN_NONE,
    DR_PATTERN_HIT,
    DR_PATTERN_LIMIT, /* gave up after DR_PATTERN_STEPS_MAX; says nothing about the text */
    DR_PATTERN_RESULT_COUNT
};

struct dr_pattern_span {
    size_t start, end;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Rewrites a pattern for PCRE2 and appends it to out: \s as Oniguruma's set, \p{Script} without
 * script extensions, \uHHHH, [A&&B] as look-ahead and class per character. Fails: EINVAL naming a construct
 * that has no equal meaning (\w, \b, possessive intervals, back-references, POSIX brackets, nested classes,
 * inline options, ...). */
DR_FALLIBLE dr_pattern_translate(const char *source, size_t bytes, struct dr_text *out);

/* Compiles a pattern, or with `literal` the text itself. Fails: EINVAL with offset and reason; EFULL. */
DR_FALLIBLE dr_pattern_init(struct dr_pattern *p, const char *source, size_t bytes, bool literal);
void dr_pattern_fini(struct dr_pattern *p);

/* Looks for the first match at or after `from` in valid UTF-8 text[0..n). match: the caller's, one thread at
 * a time. *span is set with DR_PATTERN_HIT only. Fails: EFULL, EINTERNAL. */
DR_FALLIBLE dr_pattern_find(const struct dr_pattern *p, pcre2_match_data *match, const char *text, size_t n,
                            size_t from, enum dr_pattern_result *result, struct dr_pattern_span *span);

#ifdef __cplusplus
}
#endif
