/* tokenizer.c - see tokenizer.h.
 * In:   the two files; texts and ids.      Out: ids and texts.
 * Owns: vocab, merges, patterns, added tokens.
 * Why:  the order added tokens -> pieces -> merges is the file format's meaning and is written here once. */
#include "gateway/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "gateway/text/added.h"
#include "gateway/text/bpe.h"
#include "gateway/text/field.h"
#include "gateway/text/pretokenizer.h"
#include "gateway/text/utf8.h"
#include "gateway/text/vocab.h"

struct dr_tokenizer {
    struct dr_vocab vocab;
    struct dr_bpe bpe;
    struct dr_pretokenizer pretokenizer;
    struct dr_added added;
    struct dr_tokenizer_facts facts;
    char *chat_template; /* owned, what facts.chat_template points to */
};

/* --- reading --- */

/* An empty Sequence, or nothing: text is tokenized as it is. */
static dr_status check_normalizer(const json_t *json) {
    if (!json || json_is_null(json)) return dr_ok();
    const char *type;
    DR_TRY(dr_field_type(json, "normalizer", &type));
    if (strcmp(type, "Sequence") != 0)
        return dr_fail(DR_EINVAL, "normalizer: type %s is not supported; expected none or an empty Sequence",
                       type);
    json_t *list = NULL, *item;
    size_t i;
    DR_TRY(dr_field_array(json, "normalizer Sequence", "normalizers", &list));
    json_array_foreach(list, i, item) DR_TRY(check_normalizer(item));
    return dr_ok();
}

static dr_status check_decoder(const json_t *json) {
    const char *type;
    DR_TRY(dr_field_type(json, "decoder", &type));
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = NULL;
        DR_TRY(dr_field_array(json, "decoder Sequence", "decoders", &list));
        if (json_array_size(list) != 1)
            return dr_fail(DR_EINVAL, "decoder Sequence: expected ByteLevel alone, found %zu decoders",
                           json_array_size(list));
        return check_decoder(json_array_get(list, 0));
    }
    if (strcmp(type, "ByteLevel") != 0)
        return dr_fail(DR_EINVAL, "decoder: type %s is not supported; expected ByteLevel", type);
    return dr_ok();
}

static dr_status check_model(const json_t *model, bool *ignore_merges) {
    const json_t *type = json_object_get(model, "type");
    const char *name = "BPE"; /* old files leave it out */
    if (!json_is_object(model)) return dr_fail(DR_EINVAL, "model: expected an object");
    if (type) DR_TRY(dr_field_type(model, "model", &name));
    if (strcmp(name, "BPE") != 0)
        return dr_fail(DR_EINVAL, "model: type %s is not supported; expected BPE", name);
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return dr_fail(DR_EINVAL, "model: dropout is not supported; expected null");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        const json_t *affix = json_object_get(model, affixes[i]);
        if (affix && !json_is_null(affix) && !(json_is_string(affix) && json_string_length(affix) == 0))
            return dr_fail(DR_EINVAL, "model: %s is not supported; expected null", affixes[i]);
    }
    const json_t *unk = json_object_get(model, "unk_token");
    if (unk && !json_is_null(unk) && !json_is_string(unk))
        return dr_fail(DR_EINVAL, "model: expected a string or null for unk_token");
    /* Every byte has a token (vocab.c sees to it), so unk_token, fuse_unk and byte_fallback never come into
     * play. */
    bool inert = false;
    DR_TRY(dr_field_bool(model, "model", "fuse_unk", DR_FIELD_OPTIONAL, &inert));
    DR_TRY(dr_field_bool(model, "model", "byte_fallback", DR_FIELD_OPTIONAL, &inert));
    return dr_field_bool(model, "model", "ignore_merges", DR_FIELD_OPTIONAL, ignore_merges);
}

static dr_status read_tokenizer(struct dr_tokenizer *t, const json_t *root) {
    const json_t *model = json_object_get(root, "model");
    json_t *added = json_object_get(root, "added_tokens");
    bool ignore_merges = false;
    if (!json_is_object(root)) return dr_fail(DR_EINVAL, "expected an object");
    if (!model) return dr_fail(DR_EINVAL, "model is missing");
    DR_TRY(check_model(model, &ignore_merges));
    DR_TRY(check_normalizer(json_object_get(root, "normalizer")));
    DR_TRY(check_decoder(json_object_get(root, "decoder")));
    DR_TRY(dr_pretokenizer_init(&t->pretokenizer, json_object_get(root, "pre_tokenizer")));
    json_t *vocab = json_object_get(model, "vocab");
    if (json_is_null(added)) added = NULL;
    DR_TRY(dr_vocab_init(&t->vocab, vocab, added, ignore_merges));
    DR_TRY(dr_added_init(&t->added, added));
    return dr_bpe_init(&t->bpe, &t->vocab, vocab, json_object_get(model, "merges"), ignore_merges);
}

/* bos_token or eos_token: null, a text, or an object with a content. */
static dr_status read_named_token(const struct dr_tokenizer *t, const json_t *root, const char *key,
                                  uint32_t *id) {
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value)) return dr_ok();
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!json_is_string(value))
        return dr_fail(DR_EINVAL, "%s: expected a string, an object with a content, or null", key);
    if (!dr_added_id(&t->added, json_string_value(value), json_string_length(value), id))
        return dr_fail(DR_EINVAL, "%s: it is no added token of tokenizer.json", key);
    return dr_ok();
}

/* A string, or a list of {name, template}, of which "default" counts. */
static dr_status read_template(struct dr_tokenizer *t, const json_t *value) {
    if (!value || json_is_null(value)) return dr_ok();
    const json_t *text = value, *item;
    if (json_is_array(value)) {
        text = NULL;
        for (size_t i = 0; i < json_array_size(value); i++) {
            item = json_array_get(value, i);
            const char *name = json_string_value(json_object_get(item, "name"));
            if (!name || !json_is_string(json_object_get(item, "template")))
                return dr_fail(DR_EINVAL, "chat_template[%zu]: expected a name and a template", i);
            if (strcmp(name, "default") == 0) text = json_object_get(item, "template");
        }
        if (!text) return dr_ok();
    }
    if (!json_is_string(text))
        return dr_fail(DR_EINVAL, "chat_template: expected a string or a list of templates");
    t->chat_template = strdup(json_string_value(text));
    if (!t->chat_template) return dr_fail(DR_EFULL, "no memory for the chat template");
    t->facts.chat_template = t->chat_template;
    return dr_ok();
}

static dr_status read_config(struct dr_tokenizer *t, const json_t *root) {
    if (!json_is_object(root)) return dr_fail(DR_EINVAL, "expected an object");
    struct dr_tokenizer_facts *f = &t->facts;
    DR_TRY(read_named_token(t, root, "bos_token", &f->bos));
    DR_TRY(read_named_token(t, root, "eos_token", &f->eos));
    DR_TRY(dr_field_bool(root, "settings", "add_bos_token", DR_FIELD_OPTIONAL, &f->add_bos));
    if (f->add_bos && f->bos == DR_TOKENIZER_NONE)
        return dr_fail(DR_EINVAL, "add_bos_token is true, but there is no bos_token");
    if (f->eos != DR_TOKENIZER_NONE) f->stop[f->n_stop++] = f->eos;
    return read_template(t, json_object_get(root, "chat_template"));
}

/* A file that was read but is not accepted is a refused model; its name goes in front of the reason. */
static dr_status refused(dr_status st, const char *file) {
    if (file) st = dr_fail_within(st, "%s: ", file);
    return st.code == DR_EINVAL ? (dr_status){DR_EMODEL} : st;
}

static dr_status create(const json_t *root, const json_t *config, const char *names[2],
                        struct dr_tokenizer **out) {
    struct dr_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return dr_fail(DR_EFULL, "no memory for a tokenizer");
    t->facts.bos = t->facts.eos = DR_TOKENIZER_NONE;
    dr_status st = read_tokenizer(t, root);
    if (st.code != DR_OK) st = refused(st, names[0]);
    if (st.code == DR_OK && config) {
        st = read_config(t, config);
        if (st.code != DR_OK) st = refused(st, names[1]);
    }
    if (st.code != DR_OK)
        dr_tokenizer_destroy(t);
    else
        *out = t;
    return st;
}

static const struct dr_json_limits limits = {.bytes_max = DR_TOKENIZER_FILE_MAX,
                                             .nodes_max = DR_TOKENIZER_NODES_MAX};

dr_status dr_tokenizer_create(const char *tokenizer_json_path, const char *config_path,
                              struct dr_tokenizer **out) {
    json_t *root = NULL, *config = NULL;
    const char *names[2] = {tokenizer_json_path, config_path};
    dr_status st = dr_json_read(tokenizer_json_path, limits, &root); /* its texts name the file */
    if (st.code == DR_OK && config_path) st = dr_json_read(config_path, limits, &config);
    st = st.code == DR_OK ? create(root, config, names, out) : refused(st, NULL);
    json_decref(root);
    json_decref(config);
    return st;
}

dr_status dr_tokenizer_create_from(const struct dr_tokenizer_source *source, struct dr_tokenizer **out) {
    json_t *root = NULL, *config = NULL;
    const char *names[2] = {"tokenizer.json", "tokenizer_config.json"};
    dr_status st = dr_json_parse(source->json, source->json_bytes, limits, &root);
    if (st.code != DR_OK) st = refused(st, names[0]);
    if (st.code == DR_OK && source->config) {
        st = dr_json_parse(source->config, source->config_bytes, limits, &config);
        if (st.code != DR_OK) st = refused(st, names[1]);
    }
    if (st.code == DR_OK) st = create(root, config, names, out);
    json_decref(root);
    json_decref(config);
    return st;
}

void dr_tokenizer_destroy(struct dr_tokenizer *t) {
    if (!t) return;
    dr_bpe_fini(&t->bpe);
    dr_added_fini(&t->added);
    dr_vocab_fini(&t->vocab);
    dr_pretokenizer_fini(&t->pretokenizer);
    free(t->chat_template);
    free(t);
}

/* --- encoding --- */

struct encoder {
    const struct dr_tokenizer *t;
    struct dr_bpe_scratch scratch;
    struct dr_ids *out;
};

static dr_status take_piece(void *arg, const uint8_t *piece, size_t n) {
    struct encoder *e = arg;
    return dr_bpe_encode(&e->t->bpe, &e->scratch, piece, n, e->out);
}

/* Text between added tokens: gaps of one pass go to the next one, gaps of the last to the pre-tokenizer. */
static dr_status encode_pass(struct encoder *e, int pass, const char *text, size_t n) {
    if (n == 0) return dr_ok();
    if (pass == DR_ADDED_PASS_COUNT) {
        struct dr_piece_sink sink = {.take = take_piece, .arg = e};
        return dr_pretokenizer_cut(&e->t->pretokenizer, text, n, sink);
    }
    size_t done = 0;
    struct dr_added_hit hit;
    while (dr_added_find(&e->t->added, pass, text, n, done, &hit)) {
        DR_TRY(encode_pass(e, pass + 1, text + done, hit.start - done));
        DR_TRY(dr_ids_push(e->out, hit.id));
        done = hit.end;
    }
    return encode_pass(e, pass + 1, text + done, n - done);
}

dr_status dr_tokenizer_encode(const struct dr_tokenizer *t, const char *text, size_t bytes,
                              enum dr_match_added match, struct dr_ids *out) {
    size_t valid = dr_utf8_valid(text, bytes), before = out->n;
    if (valid < bytes) return dr_fail(DR_EINVAL, "text is not valid UTF-8 at byte %zu", valid);
    struct encoder e = {.t = t, .out = out};
    dr_status st = encode_pass(&e, match == DR_ADDED_MATCH ? 0 : DR_ADDED_PASS_COUNT, text, bytes);
    dr_bpe_scratch_fini(&e.scratch);
    if (st.code != DR_OK) out->n = before;
    return st;
}

dr_status dr_tokenizer_encode_prompt(const struct dr_tokenizer *t, const char *text, size_t bytes,
                                     struct dr_ids *out) {
    size_t before = out->n;
    DR_TRY(dr_ids_push(out, t->facts.bos)); /* taken out again if it is not wanted */
    dr_status st = dr_tokenizer_encode(t, text, bytes, DR_ADDED_MATCH, out);
    if (st.code != DR_OK) {
        out->n = before;
        return st;
    }
    bool there = out->n > before + 1 && out->at[before + 1] == t->facts.bos;
    if (t->facts.add_bos && !there) return st;
    memmove(out->at + before, out->at + before + 1, (out->n - before - 1) * sizeof *out->at);
    out->n--;
    return st;
}

/* --- decoding --- */

bool dr_tokenizer_has(const struct dr_tokenizer *t, uint32_t id) {
    return id < t->vocab.n && t->vocab.kind[id] != DR_TOKEN_NONE;
}

bool dr_tokenizer_is_special(const struct dr_tokenizer *t, uint32_t id) {
    return id < t->vocab.n && t->vocab.kind[id] == DR_TOKEN_SPECIAL;
}

bool dr_tokenizer_is_added(const struct dr_tokenizer *t, uint32_t id) {
    return id < t->vocab.n && (t->vocab.kind[id] == DR_TOKEN_SPECIAL || t->vocab.kind[id] == DR_TOKEN_ADDED);
}

dr_status dr_tokenizer_token(const struct dr_tokenizer *t, uint32_t id, const uint8_t **bytes, size_t *n) {
    if (!dr_tokenizer_has(t, id))
        return dr_fail(DR_EINVAL, "%u is no token of this tokenizer; ids are 0..%zu", id,
                       t->vocab.n ? t->vocab.n - 1 : 0);
    *bytes = dr_vocab_token(&t->vocab, id, n);
    return dr_ok();
}

dr_status dr_tokenizer_decode(const struct dr_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special,
                              struct dr_text *out) {
    struct dr_utf8_stream stream = {.n_held = 0};
    size_t before = out->n;
    dr_status st = dr_ok();
    for (size_t i = 0; i < n && st.code == DR_OK; i++) {
        const uint8_t *bytes;
        size_t n_bytes;
        st = dr_tokenizer_token(t, ids[i], &bytes, &n_bytes);
        if (st.code != DR_OK)
            st = dr_fail_within(st, "ids[%zu]: ", i);
        else if (!skip_special || !dr_tokenizer_is_special(t, ids[i]))
            st = dr_utf8_stream_push(&stream, bytes, n_bytes, out);
    }
    if (st.code == DR_OK) st = dr_utf8_stream_end(&stream, out);
    if (st.code != DR_OK && out->at) {
        out->n = before;
        out->at[before] = 0;
    }
    return st;
}

size_t dr_tokenizer_size(const struct dr_tokenizer *t) {
    return t->vocab.n;
}

bool dr_tokenizer_added_id(const struct dr_tokenizer *t, const char *text, size_t bytes, uint32_t *id) {
    return dr_added_id(&t->added, text, bytes, id);
}

const struct dr_tokenizer_facts *dr_tokenizer_facts(const struct dr_tokenizer *t) {
    return &t->facts;
}
