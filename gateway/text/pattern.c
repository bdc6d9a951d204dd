/* pattern.c - see pattern.h.
 * In:   patterns of a tokenizer.json.      Out: PCRE2 code and matches.
 * Owns: what dr_pattern_init allocates.
 * Why:  whatever the two engines read differently is rewritten or refused here, by an allow-list. */
#include "gateway/text/pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* White_Space of Unicode, which is Oniguruma's \s. PCRE2's \s has U+180E as well. */
#define SPACE                                                                                                \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
#define NOT_SPACE                                                                                            \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"          \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

struct reader {
    const char *at;
    size_t n, i;
    struct dr_text *out;
};

static dr_status refuse(size_t where, const char *what) {
    return dr_fail(DR_EINVAL, "pattern, byte %zu: %s not supported", where, what);
}

static char peek(const struct reader *r, size_t ahead) {
    return r->i + ahead < r->n ? r->at[r->i + ahead] : 0;
}

static dr_status put(struct reader *r, const char *text) {
    return dr_text_push(r->out, text, strlen(text));
}

static dr_status copy(struct reader *r, size_t n) {
    DR_TRY(dr_text_push(r->out, r->at + r->i, n));
    r->i += n;
    return dr_ok();
}

static bool compiles(const char *pattern) {
    int error;
    PCRE2_SIZE where;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                     &error, &where, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* \p{Name}, \P{Name}, \p{^Name}; r->i is at the backslash. A bare script name means script extensions in
 * PCRE2 since 10.40 (U+3001 would be Han), so scripts get the prefix sc: which asks for the script alone. */
static dr_status property(struct reader *r) {
    size_t start = r->i, end = start + 3;
    bool negative = peek(r, 1) == 'P';
    if (peek(r, 2) != '{') return refuse(start, "a property without braces is");
    if (peek(r, 3) == '^') {
        negative = !negative;
        end++;
    }
    size_t name = end;
    while (end < r->n && (isalnum((unsigned char)r->at[end]) || r->at[end] == '_' || r->at[end] == '&'))
        end++;
    size_t bytes = end - name;
    if (end == r->n || r->at[end] != '}' || bytes == 0 || bytes > 40)
        return refuse(start, "this form of a property is");
    char scripted[64], plain[64];
    snprintf(plain, sizeof plain, "\\%c{%.*s}", negative ? 'P' : 'p', (int)bytes, r->at + name);
    snprintf(scripted, sizeof scripted, "\\%c{sc:%.*s}", negative ? 'P' : 'p', (int)bytes, r->at + name);
    r->i = end + 1;
    if (bytes > 2 && compiles(scripted)) return put(r, scripted);
    if (compiles(plain)) return put(r, plain);
    return dr_fail(DR_EINVAL, "pattern, byte %zu: the property %.*s is not known", start, (int)bytes,
                   r->at + name);
}

/* \uHHHH, \xHH, \x{H...}; r->i is at the backslash. */
static dr_status code_point(struct reader *r) {
    size_t start = r->i, digits = 0, at = 2;
    bool braces = peek(r, 1) == 'x' && peek(r, 2) == '{';
    size_t most = braces ? 6 : peek(r, 1) == 'u' ? 4 : 2;
    if (braces) at++;
    char hex[8] = {0};
    while (digits < most && isxdigit((unsigned char)peek(r, at))) {
        hex[digits++] = peek(r, at);
        at++;
    }
    if (digits == 0 || (braces ? peek(r, at) != '}' : digits != most))
        return refuse(start, "this form of a character number is");
    unsigned long c = strtoul(hex, NULL, 16);
    if (!braces && most == 2 && c >= 0x80) return refuse(start, "a single byte above 7F is");
    char text[16];
    snprintf(text, sizeof text, "\\x{%lx}", c);
    r->i += at + (braces ? 1 : 0);
    return put(r, text);
}

static dr_status escape(struct reader *r, bool in_class) {
    char c = peek(r, 1);
    size_t start = r->i;
    switch (c) {
    case 'p':
    case 'P':
        return property(r);
    case 'u':
    case 'x':
        return code_point(r);
    case 's':
        r->i += 2;
        return put(r, in_class ? SPACE : "[" SPACE "]");
    case 'S':
        r->i += 2;
        return put(r, in_class ? NOT_SPACE : "[^" SPACE "]");
    case 'd':
    case 'D':
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
        return copy(r, 2);
    case 'A':
    case 'z':
    case 'Z':
        if (!in_class) return copy(r, 2);
        break;
    default:
        if (r->i + 1 < r->n && ispunct((unsigned char)c)) return copy(r, 2);
    }
    return refuse(start, "this escape sequence is");
}

/* Reads one class from its [ to its ], writes it in PCRE2's spelling. depth 1: a class inside a class. */
static dr_status class_of(struct reader *r, int depth);

/* One operand of &&: either plain items, or one class of its own. */
static dr_status operand(struct reader *r, size_t open, bool negative, int depth) {
    size_t start = r->i;
    if (peek(r, 0) == '[' && peek(r, 1) != ':' && depth == 0) {
        DR_TRY(class_of(r, 1));
        bool ends = peek(r, 0) == ']' || (peek(r, 0) == '&' && peek(r, 1) == '&');
        if (!ends || negative) return refuse(start, "a class inside a class (other than with &&) is");
        return dr_ok();
    }
    DR_TRY(put(r, negative ? "[^" : "["));
    while (r->i < r->n) {
        char c = r->at[r->i];
        if (c == ']' || (c == '&' && peek(r, 1) == '&')) {
            if (r->i == start) return refuse(start, "an empty class is");
            return put(r, "]");
        }
        if (c == '[' && peek(r, 1) == ':') return refuse(r->i, "a POSIX bracket is");
        if (c == '[') return refuse(r->i, "a class inside a class (other than with &&) is");
        DR_TRY(c == '\\' ? escape(r, true) : copy(r, 1));
    }
    return dr_fail(DR_EINVAL, "pattern, byte %zu: the class has no end", open);
}

static dr_status class_of(struct reader *r, int depth) {
    size_t open = r->i++, n_operands = 0;
    bool negative = peek(r, 0) == '^';
    if (negative) r->i++;
    /* [A&&B&&C] becomes (?:(?=B)(?=C)A): operands are collected apart, the first one consumes the character.
     */
    struct dr_text first = {0}, others = {0}, *const whole = r->out;
    dr_status st = dr_ok();
    for (;;) {
        r->out = n_operands == 0 ? &first : &others;
        if (n_operands > 0) st = put(r, "(?=");
        if (st.code == DR_OK) st = operand(r, open, negative, depth);
        if (st.code == DR_OK && n_operands > 0) st = put(r, ")");
        n_operands++;
        if (st.code != DR_OK || peek(r, 0) != '&') break;
        if (negative || depth > 0) {
            st = refuse(r->i, "&& in a negated or inner class is");
            break;
        }
        r->i += 2;
    }
    r->out = whole;
    if (st.code == DR_OK) {
        r->i++; /* the ] */
        if (n_operands > 1) st = put(r, "(?:");
        if (st.code == DR_OK) st = dr_text_push(whole, others.at, others.n);
        if (st.code == DR_OK) st = dr_text_push(whole, first.at, first.n);
        if (st.code == DR_OK && n_operands > 1) st = put(r, ")");
    }
    dr_text_fini(&first);
    dr_text_fini(&others);
    return st;
}

/* An opening parenthesis; r->i is at it. */
static dr_status group(struct reader *r) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"};
    if (peek(r, 1) == '*') return refuse(r->i, "a verb is");
    if (peek(r, 1) != '?') return copy(r, 1);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        size_t n = strlen(known[k]);
        if (r->i + n <= r->n && memcmp(r->at + r->i, known[k], n) == 0) return copy(r, n);
    }
    return refuse(r->i, "this kind of group is");
}

dr_status dr_pattern_translate(const char *source, size_t bytes, struct dr_text *out) {
    if (bytes > DR_PATTERN_BYTES_MAX)
        return dr_fail(DR_EINVAL, "pattern of %zu bytes: at most %d are accepted", bytes,
                       DR_PATTERN_BYTES_MAX);
    struct reader r = {.at = source, .n = bytes, .out = out};
    while (r.i < r.n) {
        switch (r.at[r.i]) {
        case '\\':
            DR_TRY(escape(&r, false));
            break;
        case '[':
            DR_TRY(class_of(&r, 0));
            break;
        case '(':
            DR_TRY(group(&r));
            break;
        case '{':
            if (peek(&r, 1) == ',') return refuse(r.i, "an interval without a lower end is");
            DR_TRY(copy(&r, 1));
            break;
        case '}':
            if (peek(&r, 1) == '+') return refuse(r.i, "a possessive interval is");
            DR_TRY(copy(&r, 1));
            break;
        default:
            DR_TRY(copy(&r, 1));
        }
    }
    return dr_ok();
}

static dr_status compile(struct dr_pattern *p, const char *text, size_t bytes, bool literal) {
    int error = 0;
    PCRE2_SIZE where = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return dr_fail(DR_EFULL, "no memory to compile a pattern");
    pcre2_set_newline(context,
                      PCRE2_NEWLINE_LF); /* Oniguruma: only LF ends a line, ^ and $ match at every line */
    uint32_t options =
        PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    p->code = pcre2_compile((PCRE2_SPTR)text, bytes, options, &error, &where, context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        char words[128];
        if (pcre2_get_error_message(error, (PCRE2_UCHAR *)words, sizeof words) < 0) words[0] = 0;
        return dr_fail(DR_EINVAL, "pattern, byte %zu after rewriting: %s", (size_t)where, words);
    }
    /* Without JIT the same matches are found, only slower. */
    if (pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == PCRE2_ERROR_NOMEMORY)
        return dr_fail(DR_EFULL, "no memory to compile a pattern");
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits) return dr_fail(DR_EFULL, "no memory to compile a pattern");
    pcre2_set_match_limit(p->limits, DR_PATTERN_STEPS_MAX);
    pcre2_set_heap_limit(p->limits, 64 * 1024); /* KiB */
    return dr_ok();
}

dr_status dr_pattern_init(struct dr_pattern *p, const char *source, size_t bytes, bool literal) {
    struct dr_pattern fresh = {0};
    struct dr_text text = {0};
    if (bytes == 0) return dr_fail(DR_EINVAL, "pattern: it is empty");
    dr_status st = literal ? dr_text_push(&text, source, bytes) : dr_pattern_translate(source, bytes, &text);
    if (st.code == DR_OK) st = compile(&fresh, text.at, text.n, literal);
    dr_text_fini(&text);
    if (st.code != DR_OK)
        dr_pattern_fini(&fresh);
    else
        *p = fresh;
    return st;
}

void dr_pattern_fini(struct dr_pattern *p) {
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    *p = (struct dr_pattern){0};
}

dr_status dr_pattern_find(const struct dr_pattern *p, pcre2_match_data *match, const char *text, size_t n,
                          size_t from, enum dr_pattern_result *result, struct dr_pattern_span *span) {
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, options, match, p->limits);
    if (rc ==
        PCRE2_ERROR_JIT_STACKLIMIT) /* JIT has 32 KiB of stack; the interpreter's frames are on the heap */
        rc = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, options | PCRE2_NO_JIT, match, p->limits);
    if (rc >= 0) { /* 0: more groups than the match data holds; the whole match is there */
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(match);
        *result = DR_PATTERN_HIT;
        *span = (struct dr_pattern_span){.start = at[0], .end = at[1]};
        return dr_ok();
    }
    switch (rc) {
    case PCRE2_ERROR_NOMATCH:
        *result = DR_PATTERN_NONE;
        return dr_ok();
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT:
        *result = DR_PATTERN_LIMIT;
        return dr_ok();
    case PCRE2_ERROR_NOMEMORY:
        return dr_fail(DR_EFULL, "no memory to match a pattern");
    default:
        return dr_fail(DR_EINTERNAL, "PCRE2 failed with code %d", rc);
    }
}
