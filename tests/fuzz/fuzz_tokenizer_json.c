/* fuzz_tokenizer_json.c - hostile tokenizer.json files, then hostile text through those that load.
 * In:   a file; or ~ and an object whose members replace those of a working file ("model" member by member).
 * Out:  a crash, if there is one.
 * Owns: nothing.
 * Why:  model files come from strangers, and a pattern in them is a program. */
#include "gateway/text/tokenizer.h"
#include "tests/fuzz/tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The working file with the members of data; NULL if data is no object. */
static char *spliced(const char *data, size_t size) {
    json_t *fresh = json_loadb(data, size, 0, NULL), *value;
    if (!json_is_object(fresh)) {
        json_decref(fresh);
        return NULL;
    }
    json_t *base = tiny_tokenizer();
    const char *key;
    json_object_foreach(fresh, key, value) {
        json_t *model = json_object_get(base, "model");
        if (strcmp(key, "model") == 0 && json_is_object(value))
            json_object_update(model, value);
        else if (strcmp(key, "vocab") == 0 && json_is_object(value))
            json_object_update(json_object_get(model, "vocab"), value);
        else
            json_object_set(base, key, value);
    }
    char *text = json_dumps(base, 0);
    json_decref(fresh);
    json_decref(base);
    return text;
}

static void use(const struct dr_tokenizer *t, const char *text, size_t n) {
    struct dr_ids ids = {0};
    struct dr_text back = {0};
    dr_status st = dr_tokenizer_encode(t, text, n, DR_ADDED_MATCH, &ids);
    if (st.code == DR_OK) {
        st = dr_tokenizer_decode(t, ids.at, ids.n, false, &back);
        FUZZ_CHECK(st.code == DR_OK);
    } else {
        FUZZ_CHECK(st.code == DR_EINVAL && ids.n == 0);
    }
    dr_ids_fini(&ids);
    dr_text_fini(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    char *file = size > 0 && data[0] == '~' ? spliced(text + 1, size - 1) : NULL;
    struct dr_tokenizer_source source = {.json = file ? file : text,
                                         .json_bytes = file ? strlen(file) : size};
    struct dr_tokenizer *t = NULL;
    dr_status st = dr_tokenizer_create_from(&source, &t);
    FUZZ_CHECK((st.code == DR_OK) == (t != NULL));
    if (t) {
        static const char sample[] = "ab  a1b22\n\nI'll \xC3\xA9\xE6\xBC\xA2 \xF0\x9F\x98\x80";
        use(t, text, size);
        use(t, sample, sizeof sample - 1);
    }
    dr_tokenizer_destroy(t);
    free(file);
    return 0;
}
