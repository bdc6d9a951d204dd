/* vocab.c - see vocab.h.
 * In:   model.vocab and added_tokens.      Out: bytes and kinds by id.
 * Owns: what dr_vocab_init allocates.
 * Why:  every id and text of the file is checked here before anything is sized by it. */
#include "gateway/text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/text/utf8.h"

/* GPT-2's byte alphabet: 188 printable bytes are their own code point, the other 68 follow from U+0100 on. */
enum { ALPHABET_MAX = 0x100 + 68 };

struct alphabet {
    int16_t byte[ALPHABET_MAX]; /* code point -> byte, -1: not a letter of it */
    char letter[256][3];        /* byte -> its letter in UTF-8, 1 or 2 bytes and a zero */
};

static void alphabet_init(struct alphabet *a) {
    int next = 0x100;
    for (int c = 0; c < ALPHABET_MAX; c++) a->byte[c] = -1;
    for (int b = 0; b < 256; b++) {
        bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        int c = own ? b : next++;
        a->byte[c] = (int16_t)b;
        char *letter = a->letter[b];
        letter[0] = (char)(c < 0x80 ? c : 0xC0 | c >> 6);
        letter[1] = (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3F));
        letter[2] = 0;
    }
}

/* Writes the bytes that the letters of text stand for; false if one is no letter (then the token is its own
 * text). */
static bool alphabet_bytes(const struct alphabet *a, const char *text, size_t n, uint8_t *out,
                           size_t *n_out) {
    size_t used;
    *n_out = 0;
    for (size_t i = 0; i < n; i += used) {
        int32_t c = dr_utf8_read((const uint8_t *)text + i, n - i, &used);
        if (c < 0 || c >= ALPHABET_MAX || a->byte[c] < 0) return false;
        out[(*n_out)++] = (uint8_t)a->byte[c];
    }
    return true;
}

/* One token of the file while it is being read. */
struct entry {
    const char *text; /* borrowed from the JSON value; NULL: hole */
    uint32_t bytes;
    uint8_t kind;
};

static dr_status check_id(const json_t *id, const char *where, uint32_t *out) {
    if (!json_is_integer(id)) return dr_fail(DR_EINVAL, "%s: expected an integer id", where);
    json_int_t value = json_integer_value(id);
    if (value < 0 || value >= DR_VOCAB_MAX)
        return dr_fail(DR_EINVAL, "%s: id %lld is outside 0..%d", where, (long long)value, DR_VOCAB_MAX - 1);
    *out = (uint32_t)value;
    return dr_ok();
}

static dr_status check_text(size_t bytes, const char *where, uint32_t id) {
    if (bytes == 0) return dr_fail(DR_EINVAL, "%s: the token of id %u is empty", where, id);
    if (bytes > DR_VOCAB_TOKEN_BYTES_MAX)
        return dr_fail(DR_EINVAL, "%s: the token of id %u has %zu bytes, at most %d are accepted", where, id,
                       bytes, DR_VOCAB_TOKEN_BYTES_MAX);
    return dr_ok();
}

static dr_status read_vocab(json_t *vocab, struct entry *entries, size_t *n) {
    const char *text;
    size_t bytes;
    json_t *value;
    json_object_keylen_foreach(vocab, text, bytes, value) {
        uint32_t id = 0;
        DR_TRY(check_id(value, "model.vocab", &id));
        DR_TRY(check_text(bytes, "model.vocab", id));
        if (entries[id].text) return dr_fail(DR_EINVAL, "model.vocab: two tokens have id %u", id);
        entries[id] = (struct entry){.text = text, .bytes = (uint32_t)bytes, .kind = DR_TOKEN_TEXT};
        if (id >= *n) *n = (size_t)id + 1;
    }
    return dr_ok();
}

static dr_status read_added(const json_t *vocab, json_t *added, struct entry *entries, size_t *n) {
    size_t i;
    json_t *token;
    json_array_foreach(added, i, token) {
        char where[48];
        snprintf(where, sizeof where, "added_tokens[%zu]", i);
        const json_t *content = json_object_get(token, "content"),
                     *special = json_object_get(token, "special");
        uint32_t id = 0;
        DR_TRY(check_id(json_object_get(token, "id"), where, &id));
        if (!json_is_string(content)) return dr_fail(DR_EINVAL, "%s: expected a string content", where);
        if (special && !json_is_boolean(special))
            return dr_fail(DR_EINVAL, "%s: expected true or false for special", where);
        const char *text = json_string_value(content);
        size_t bytes = json_string_length(content);
        DR_TRY(check_text(bytes, where, id));
        struct entry *e = &entries[id];
        const json_t *same = json_object_getn(vocab, text, bytes);
        if (e->kind == DR_TOKEN_ADDED || e->kind == DR_TOKEN_SPECIAL)
            return dr_fail(DR_EINVAL, "%s: id %u belongs to an earlier added token", where, id);
        if (e->text && (e->bytes != bytes || memcmp(e->text, text, bytes) != 0))
            return dr_fail(DR_EINVAL, "%s: model.vocab gives id %u to another token", where, id);
        if (same && json_integer_value(same) != (json_int_t)id)
            return dr_fail(DR_EINVAL, "%s: model.vocab gives this token id %lld, not %u", where,
                           (long long)json_integer_value(same), id);
        *e = (struct entry){.text = text,
                            .bytes = (uint32_t)bytes,
                            .kind = json_is_true(special) ? DR_TOKEN_SPECIAL : DR_TOKEN_ADDED};
        if (id >= *n) *n = (size_t)id + 1;
    }
    return dr_ok();
}

/* 0xC0, 0xC1 and 0xF5..0xFF occur in no valid UTF-8, so a vocabulary may do without them. */
static bool byte_needed(int b) {
    return b != 0xC0 && b != 0xC1 && b < 0xF5;
}

static size_t hash_of(const uint8_t *bytes, size_t n) { /* FNV-1a, 64 bits */
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ bytes[i]) * 0x100000001B3u;
    return (size_t)(h ^ h >> 32);
}

static dr_status index_init(struct dr_vocab *v) {
    size_t room = 16;
    while (room < 2 * v->n) room *= 2;
    v->slot = malloc(room * sizeof *v->slot);
    if (!v->slot) return dr_fail(DR_EFULL, "no memory for an index of %zu tokens", v->n);
    v->slot_mask = room - 1;
    for (size_t i = 0; i < room; i++) v->slot[i] = DR_NO_ID;
    return dr_ok();
}

static void index_add(struct dr_vocab *v, uint32_t id, const uint8_t *bytes, size_t n) {
    size_t i = hash_of(bytes, n) & v->slot_mask;
    while (v->slot[i] != DR_NO_ID) i = (i + 1) & v->slot_mask;
    v->slot[i] = id;
}

static dr_status fill(struct dr_vocab *v, const struct entry *entries, const struct alphabet *alphabet) {
    size_t total = 0;
    for (size_t id = 0; id < v->n; id++)
        total += entries[id].bytes; /* a letter is never shorter than its byte */
    if (total > UINT32_MAX) return dr_fail(DR_EFULL, "the tokens have more than 4 GiB of text");
    v->bytes = malloc(total + 1);
    v->offset = malloc((v->n + 1) * sizeof *v->offset);
    v->kind = malloc(v->n + 1);
    if (!v->bytes || !v->offset || !v->kind)
        return dr_fail(DR_EFULL, "no memory for a vocabulary of %zu", v->n);
    uint32_t at = 0;
    for (size_t id = 0; id < v->n; id++) {
        const struct entry *e = &entries[id];
        size_t bytes = 0;
        v->offset[id] = at;
        v->kind[id] = e->kind;
        if (e->kind == DR_TOKEN_TEXT && alphabet_bytes(alphabet, e->text, e->bytes, v->bytes + at, &bytes)) {
            if (v->slot) index_add(v, (uint32_t)id, v->bytes + at, bytes);
        } else if (e->kind != DR_TOKEN_NONE) {
            memcpy(v->bytes + at, e->text, e->bytes);
            bytes = e->bytes;
        }
        at += (uint32_t)bytes;
    }
    v->offset[v->n] = at;
    return dr_ok();
}

/* From the file's object, not from the entries: an added token may be a single letter as well. */
static dr_status fill_byte_ids(struct dr_vocab *v, const json_t *vocab, const struct alphabet *alphabet) {
    for (int b = 0; b < 256; b++) {
        const json_t *id = json_object_get(vocab, alphabet->letter[b]);
        v->byte_id[b] = id ? (uint32_t)json_integer_value(id) : DR_NO_ID;
        if (!id && byte_needed(b))
            return dr_fail(
                DR_EINVAL,
                "model.vocab: no token for the byte 0x%02X; only byte-level vocabularies are supported",
                (unsigned)b);
    }
    return dr_ok();
}

uint32_t dr_vocab_find(const struct dr_vocab *v, const uint8_t *bytes, size_t n) {
    for (size_t i = hash_of(bytes, n) & v->slot_mask; v->slot[i] != DR_NO_ID; i = (i + 1) & v->slot_mask) {
        size_t have;
        const uint8_t *at = dr_vocab_token(v, v->slot[i], &have);
        if (have == n && memcmp(at, bytes, n) == 0) return v->slot[i];
    }
    return DR_NO_ID;
}

dr_status dr_vocab_init(struct dr_vocab *v, json_t *vocab, json_t *added, bool whole) {
    if (!json_is_object(vocab))
        return dr_fail(DR_EINVAL, "model.vocab: expected an object of token texts and ids");
    if (added && !json_is_array(added)) return dr_fail(DR_EINVAL, "added_tokens: expected an array");
    struct dr_vocab fresh = {0};
    struct entry *entries = calloc(DR_VOCAB_MAX, sizeof *entries);
    if (!entries) return dr_fail(DR_EFULL, "no memory to read a vocabulary");
    struct alphabet alphabet;
    alphabet_init(&alphabet);
    dr_status st = read_vocab(vocab, entries, &fresh.n);
    if (st.code == DR_OK && added) st = read_added(vocab, added, entries, &fresh.n);
    if (st.code == DR_OK && whole) st = index_init(&fresh);
    if (st.code == DR_OK) st = fill(&fresh, entries, &alphabet);
    if (st.code == DR_OK) st = fill_byte_ids(&fresh, vocab, &alphabet);
    free(entries);
    if (st.code != DR_OK) {
        dr_vocab_fini(&fresh);
        return st;
    }
    *v = fresh;
    return st;
}

void dr_vocab_fini(struct dr_vocab *v) {
    free(v->bytes);
    free(v->offset);
    free(v->kind);
    free(v->slot);
    *v = (struct dr_vocab){0};
}
