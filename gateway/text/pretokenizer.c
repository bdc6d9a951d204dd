/* pretokenizer.c - see pretokenizer.h.
 * In:   pre_tokenizer JSON, texts.      Out: pieces.
 * Owns: compiled patterns, one match data a call.
 * Why:  stages nest instead of listing their pieces, so memory does not grow with the text. */
#include "gateway/text/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/text/field.h"
#include "gateway/text/utf8.h"

/* What ByteLevel with use_regex cuts by (GPT-2). */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* --- reading --- */

static dr_status add_stage(struct dr_pretokenizer *p, const char *pattern, size_t bytes, bool literal) {
    if (p->n_stage == DR_PRETOKENIZER_STAGES_MAX)
        return dr_fail(DR_EINVAL, "pre_tokenizer: more than %d stages", DR_PRETOKENIZER_STAGES_MAX);
    struct dr_pretokenizer_stage *stage = &p->stage[p->n_stage];
    *stage = (struct dr_pretokenizer_stage){.prefix_space = pattern == NULL};
    if (pattern) {
        dr_status st = dr_pattern_init(&stage->pattern, pattern, bytes, literal);
        if (st.code != DR_OK) return dr_fail_within(st, "pre_tokenizer, stage %zu: ", p->n_stage);
    }
    p->n_stage++;
    return dr_ok();
}

static dr_status read_split(struct dr_pretokenizer *p, const json_t *json) {
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    if (!behavior) return dr_fail(DR_EINVAL, "pre_tokenizer Split: expected a name for behavior");
    if (strcmp(behavior, "Isolated") != 0) {
        static const char *const others[] = {"Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
        const char *name = "of this name";
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            if (strcmp(behavior, others[i]) == 0) name = others[i];
        return dr_fail(DR_EINVAL, "pre_tokenizer Split: behavior %s is not supported, only Isolated is",
                       name);
    }
    bool invert = false; /* swaps the roles of matches and gaps, which Isolated does not tell apart */
    DR_TRY(dr_field_bool(json, "pre_tokenizer Split", "invert", DR_FIELD_OPTIONAL, &invert));
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *string = json_object_get(pattern, "String");
    if (json_object_size(pattern) != 1 || !(json_is_string(regex) || json_is_string(string)))
        return dr_fail(DR_EINVAL, "pre_tokenizer Split: expected a pattern with one string, Regex or String");
    const json_t *chosen = regex ? regex : string;
    return add_stage(p, json_string_value(chosen), json_string_length(chosen), regex == NULL);
}

static dr_status read_component(struct dr_pretokenizer *p, const json_t *json, bool *byte_level) {
    const char *type;
    DR_TRY(dr_field_type(json, "pre_tokenizer", &type));
    if (*byte_level) return dr_fail(DR_EINVAL, "pre_tokenizer: %s after ByteLevel is not supported", type);
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = NULL, *item;
        size_t i;
        DR_TRY(dr_field_array(json, "pre_tokenizer Sequence", "pretokenizers", &list));
        json_array_foreach(list, i, item) DR_TRY(read_component(p, item, byte_level));
        return dr_ok();
    }
    if (strcmp(type, "Split") == 0) return read_split(p, json);
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        DR_TRY(
            dr_field_bool(json, "pre_tokenizer Digits", "individual_digits", DR_FIELD_REQUIRED, &individual));
        return add_stage(p, individual ? "\\p{N}" : "\\p{N}+", individual ? 5 : 6, false);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        bool prefix = false, regex = true;
        DR_TRY(
            dr_field_bool(json, "pre_tokenizer ByteLevel", "add_prefix_space", DR_FIELD_REQUIRED, &prefix));
        DR_TRY(dr_field_bool(json, "pre_tokenizer ByteLevel", "use_regex", DR_FIELD_OPTIONAL, &regex));
        *byte_level = true;
        if (prefix) DR_TRY(add_stage(p, NULL, 0, false));
        return regex ? add_stage(p, gpt2_pattern, sizeof gpt2_pattern - 1, false) : dr_ok();
    }
    return dr_fail(DR_EINVAL,
                   "pre_tokenizer: type %s is not supported; known are Sequence, Split, Digits, ByteLevel",
                   type);
}

dr_status dr_pretokenizer_init(struct dr_pretokenizer *p, const json_t *json) {
    struct dr_pretokenizer fresh = {.n_stage = 0};
    bool byte_level = false;
    dr_status st = read_component(&fresh, json, &byte_level);
    if (st.code == DR_OK && !byte_level)
        st =
            dr_fail(DR_EINVAL, "pre_tokenizer: no ByteLevel in it; only byte-level tokenizers are supported");
    if (st.code != DR_OK)
        dr_pretokenizer_fini(&fresh);
    else
        *p = fresh;
    return st;
}

void dr_pretokenizer_fini(struct dr_pretokenizer *p) {
    for (size_t i = 0; i < p->n_stage; i++) dr_pattern_fini(&p->stage[i].pattern);
    p->n_stage = 0;
}

/* --- cutting --- */

struct cutter {
    const struct dr_pretokenizer *p;
    struct dr_piece_sink sink;
    pcre2_match_data *match; /* used between two finds only, so all stages share it */
};

static dr_status descend(struct cutter *c, size_t stage, const char *text, size_t n);

static dr_status deliver(struct cutter *c, const char *text, size_t n) {
    while (n > 0) {
        size_t part = n <= DR_PIECE_CHARS_MAX ? n : dr_utf8_skip(text, n, DR_PIECE_CHARS_MAX);
        DR_TRY(c->sink.take(c->sink.arg, (const uint8_t *)text, part));
        text += part;
        n -= part;
    }
    return dr_ok();
}

/* Cuts text[0..n) by the stage's pattern. *done: bytes handed on; less than n only if the pattern gave up. */
static dr_status cut(struct cutter *c, size_t stage, const char *text, size_t n, size_t *done) {
    const struct dr_pattern *pattern = &c->p->stage[stage].pattern;
    size_t from = 0, last_end = SIZE_MAX;
    *done = 0;
    while (from <= n) {
        enum dr_pattern_result result = DR_PATTERN_NONE;
        struct dr_pattern_span m = {0};
        DR_TRY(dr_pattern_find(pattern, c->match, text, n, from, &result, &m));
        if (result == DR_PATTERN_LIMIT) return dr_ok();
        if (result == DR_PATTERN_NONE) break;
        if (m.end == m.start &&
            m.end == last_end) { /* an empty match that touches the last one does not count */
            from = m.end + (m.end < n ? dr_utf8_skip(text + m.end, n - m.end, 1) : 1);
            continue;
        }
        DR_TRY(descend(c, stage + 1, text + *done, m.start - *done));
        DR_TRY(descend(c, stage + 1, text + m.start, m.end - m.start));
        *done = from = last_end = m.end;
    }
    DR_TRY(descend(c, stage + 1, text + *done, n - *done));
    *done = n;
    return dr_ok();
}

/* A pattern that gives up must not fail the text: from there on it sees 25,000 characters at a time, and a
 * part on which it gives up again stays in one piece. So a hostile pattern costs one limit a part, not one a
 * character. */
static dr_status split(struct cutter *c, size_t stage, const char *text, size_t n) {
    bool limited = false;
    while (n > 0) {
        size_t part = limited ? dr_utf8_skip(text, n, DR_PIECE_CHARS_MAX) : n, done;
        DR_TRY(cut(c, stage, text, part, &done));
        if (done < part && limited) {
            DR_TRY(descend(c, stage + 1, text + done, part - done));
            done = part;
        }
        limited = limited || done < part;
        text += done;
        n -= done;
    }
    return dr_ok();
}

static dr_status with_space(struct cutter *c, size_t stage, const char *text, size_t n) {
    char *joined = malloc(n + 1);
    if (!joined) return dr_fail(DR_EFULL, "no memory for %zu bytes of text", n + 1);
    joined[0] = ' ';
    memcpy(joined + 1, text, n);
    dr_status st = descend(c, stage + 1, joined, n + 1);
    free(joined);
    return st;
}

static dr_status descend(struct cutter *c, size_t stage, const char *text, size_t n) {
    if (n == 0) return dr_ok();
    if (stage == c->p->n_stage) return deliver(c, text, n);
    if (!c->p->stage[stage].prefix_space) return split(c, stage, text, n);
    return text[0] == ' ' ? descend(c, stage + 1, text, n) : with_space(c, stage, text, n);
}

dr_status dr_pretokenizer_cut(const struct dr_pretokenizer *p, const char *text, size_t n,
                              struct dr_piece_sink sink) {
    /* One pair for the whole match; patterns that capture need no more. */
    struct cutter c = {.p = p, .sink = sink, .match = pcre2_match_data_create(1, NULL)};
    if (!c.match) return dr_fail(DR_EFULL, "no memory to match patterns");
    dr_status st = descend(&c, 0, text, n);
    pcre2_match_data_free(c.match);
    return st;
}
