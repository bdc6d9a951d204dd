/* added.c - see added.h.
 * In:   added_tokens, text.      Out: hits.
 * Owns: the tries.
 * Why:  a trie walk from each position that starts like a token; real files have under a thousand of them. */
#include "gateway/text/added.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/text/field.h"
#include "gateway/text/vocab.h"

struct dr_added_node {
    uint32_t child, sibling; /* 0: none, the root is nobody's child */
    uint32_t id;             /* DR_NO_ID: no token ends here */
    uint8_t byte;
};

static uint32_t step(const struct dr_added_trie *t, uint32_t node, uint8_t byte) {
    uint32_t next = node == 0 ? t->first[byte] : t->node[node].child;
    if (node != 0)
        while (next && t->node[next].byte != byte) next = t->node[next].sibling;
    return next;
}

static uint32_t extend(struct dr_added_trie *t, uint32_t node, uint8_t byte) {
    uint32_t fresh = (uint32_t)t->n++;
    t->node[fresh] = (struct dr_added_node){.id = DR_NO_ID, .byte = byte};
    if (node == 0) {
        t->first[byte] = fresh;
    } else {
        t->node[fresh].sibling = t->node[node].child;
        t->node[node].child = fresh;
    }
    return fresh;
}

static dr_status insert(struct dr_added *a, int pass, const char *text, size_t n, uint32_t id) {
    struct dr_added_trie *t = &a->pass[pass];
    uint32_t node = 0, other;
    if (dr_added_id(a, text, n, &other)) return dr_fail(DR_EINVAL, "its text is that of id %u, too", other);
    for (size_t i = 0; i < n; i++) {
        uint32_t next = step(t, node, (uint8_t)text[i]);
        node = next ? next : extend(t, node, (uint8_t)text[i]);
    }
    t->node[node].id = id;
    return dr_ok();
}

static dr_status read_token(struct dr_added *a, const json_t *token) {
    static const char *const refused[] = {"lstrip", "rstrip", "single_word"};
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++) {
        bool set = false;
        DR_TRY(dr_field_bool(token, "flags", refused[k], DR_FIELD_OPTIONAL, &set));
        if (set) return dr_fail(DR_EINVAL, "%s is not supported", refused[k]);
    }
    bool special = false, normalized;
    DR_TRY(dr_field_bool(token, "flags", "special", DR_FIELD_OPTIONAL, &special));
    normalized = !special; /* the library's default */
    DR_TRY(dr_field_bool(token, "flags", "normalized", DR_FIELD_OPTIONAL, &normalized));
    const json_t *content = json_object_get(token, "content");
    size_t n = json_string_length(content);
    if (n > DR_ADDED_BYTES_MAX)
        return dr_fail(DR_EINVAL, "its text has %zu bytes, at most %d are accepted", n, DR_ADDED_BYTES_MAX);
    return insert(a, normalized, json_string_value(content), n,
                  (uint32_t)json_integer_value(json_object_get(token, "id")));
}

static dr_status read_tokens(struct dr_added *a, json_t *tokens) {
    size_t i, total = 1;
    json_t *token;
    json_array_foreach(tokens, i, token) total += json_string_length(json_object_get(token, "content"));
    if (total > DR_ADDED_TOTAL_MAX)
        return dr_fail(DR_EINVAL, "added_tokens: %zu bytes of text, at most %d are accepted", total,
                       DR_ADDED_TOTAL_MAX);
    for (int pass = 0; pass < DR_ADDED_PASS_COUNT; pass++) {
        struct dr_added_trie *t = &a->pass[pass];
        t->node = calloc(total, sizeof *t->node);
        if (!t->node) return dr_fail(DR_EFULL, "no memory for the added tokens");
        t->node[0].id = DR_NO_ID;
        t->n = 1;
    }
    json_array_foreach(tokens, i, token) {
        dr_status st = read_token(a, token);
        if (st.code != DR_OK) return dr_fail_within(st, "added_tokens[%zu]: ", i);
    }
    return dr_ok();
}

dr_status dr_added_init(struct dr_added *a, json_t *tokens) {
    struct dr_added fresh = {.pass = {{.n = 0}}};
    dr_status st = read_tokens(&fresh, tokens);
    if (st.code != DR_OK)
        dr_added_fini(&fresh);
    else
        *a = fresh;
    return st;
}

void dr_added_fini(struct dr_added *a) {
    for (int pass = 0; pass < DR_ADDED_PASS_COUNT; pass++) free(a->pass[pass].node);
    *a = (struct dr_added){.pass = {{.n = 0}}};
}

/* Length of the longest token that begins at text[0]; 0: none. */
static size_t longest(const struct dr_added_trie *t, const char *text, size_t n, uint32_t *id) {
    size_t found = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = step(t, node, (uint8_t)text[i]);
        if (!node) break;
        if (t->node[node].id == DR_NO_ID) continue;
        found = i + 1;
        *id = t->node[node].id;
    }
    return found;
}

bool dr_added_find(const struct dr_added *a, int pass, const char *text, size_t n, size_t from,
                   struct dr_added_hit *hit) {
    const struct dr_added_trie *t = &a->pass[pass];
    if (t->n <= 1) return false;
    for (size_t i = from; i < n; i++) {
        if (!t->first[(uint8_t)text[i]]) continue;
        size_t bytes = longest(t, text + i, n - i, &hit->id);
        if (bytes == 0) continue;
        hit->start = i;
        hit->end = i + bytes;
        return true;
    }
    return false;
}

bool dr_added_id(const struct dr_added *a, const char *text, size_t n, uint32_t *id) {
    for (int pass = 0; pass < DR_ADDED_PASS_COUNT; pass++) {
        const struct dr_added_trie *t = &a->pass[pass];
        uint32_t node = 0;
        size_t i = 0;
        for (; i < n && t->n > 1; i++)
            if (!(node = step(t, node, (uint8_t)text[i]))) break;
        if (node == 0 || i < n || t->node[node].id == DR_NO_ID) continue;
        *id = t->node[node].id;
        return true;
    }
    return false;
}
