/* index.c - see index.h.
 * In:   JSON.      Out: files, claims.
 * Owns: the weight map and the list of names.
 * Why:  see index.h. */
#include "model/index.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "model/folder.h"

enum { NODES_MAX = 1 << 20, SHOWN = 160 };

struct dr_index {
    json_t *root;
    json_t *map;        /* borrowed from root; entries leave as they are claimed */
    json_t *names;      /* a set: its keys are the file names */
    const char **files; /* sorted; borrowed from names */
    int32_t n_file;
};

static const char *printable(const char *text, char *out) {
    return dr_folder_printable(text, out, SHOWN);
}

static bool is_shard_name(const char *name) {
    const char tail[] = ".safetensors";
    size_t n = strlen(name), t = sizeof tail - 1;
    return n > t && n <= DR_FILE_NAME_MAX && !strchr(name, '/') && name[0] != '.' &&
           strcmp(name + n - t, tail) == 0;
}

static dr_status collect_names(struct dr_index *ix) {
    const char *tensor;
    json_t *value;
    char shown[SHOWN], found[SHOWN];
    json_object_foreach(ix->map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file)
            return dr_fail(DR_EMODEL, "weight_map: tensor %s: expected a file name",
                           printable(tensor, shown));
        if (!is_shard_name(file))
            return dr_fail(
                DR_EMODEL,
                "weight_map: tensor %s: expected the plain name of a .safetensors file in the same folder, "
                "found \"%s\"",
                printable(tensor, shown), printable(file, found));
        if (json_object_get(ix->names, file)) continue;
        if (json_object_size(ix->names) == DR_INDEX_FILES_MAX)
            return dr_fail(DR_EMODEL, "weight_map: expected at most %d files", DR_INDEX_FILES_MAX);
        if (json_object_set_new(ix->names, file, json_true()) != 0)
            return dr_fail(DR_EFULL, "index: no memory");
    }
    if (json_object_size(ix->names) == 0)
        return dr_fail(DR_EMODEL, "weight_map: expected tensors, found none");
    return dr_ok();
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dr_status sort_names(struct dr_index *ix) {
    const char *file;
    json_t *value;
    ix->files = calloc(json_object_size(ix->names), sizeof *ix->files);
    if (!ix->files) return dr_fail(DR_EFULL, "index: no memory");
    json_object_foreach(ix->names, file, value) ix->files[ix->n_file++] = file;
    qsort(ix->files, (size_t)ix->n_file, sizeof *ix->files, by_name);
    return dr_ok();
}

static dr_status build(const char *json, size_t bytes, struct dr_index *ix) {
    const struct dr_json_limits limits = {.bytes_max = DR_INDEX_BYTES_MAX, .nodes_max = NODES_MAX};
    if (dr_json_parse(json, bytes, limits, &ix->root).code != DR_OK)
        return dr_fail(DR_EMODEL, "%s", dr_error_text());
    ix->map = json_object_get(ix->root, "weight_map");
    if (!json_is_object(ix->map))
        return dr_fail(DR_EMODEL, "expected an object with the object \"weight_map\"");
    ix->names = json_object();
    if (!ix->names) return dr_fail(DR_EFULL, "index: no memory");
    DR_TRY(collect_names(ix));
    return sort_names(ix);
}

dr_status dr_index_parse(const char *json, size_t bytes, struct dr_index **out) {
    struct dr_index *ix = calloc(1, sizeof *ix);
    if (!ix) return dr_fail(DR_EFULL, "index: no memory");
    dr_status st = build(json, bytes, ix);
    if (st.code == DR_OK)
        *out = ix;
    else
        dr_index_destroy(ix);
    return st;
}

void dr_index_destroy(struct dr_index *ix) {
    if (!ix) return;
    free(ix->files);
    json_decref(ix->names);
    json_decref(ix->root);
    free(ix);
}

int32_t dr_index_files(const struct dr_index *ix) {
    return ix->n_file;
}

const char *dr_index_file(const struct dr_index *ix, int32_t i) {
    return ix->files[i];
}

dr_status dr_index_claim(struct dr_index *ix, const char *tensor, const char *file) {
    const char *listed = json_string_value(json_object_get(ix->map, tensor));
    char shown[SHOWN], found[SHOWN];
    if (!listed)
        return dr_fail(DR_EMODEL,
                       "tensor %s: found in this file, but the index lists it nowhere or it was found before",
                       printable(tensor, shown));
    if (strcmp(listed, file) != 0)
        return dr_fail(DR_EMODEL, "tensor %s: found in this file, but the index lists it in %s",
                       printable(tensor, shown), printable(listed, found));
    json_object_del(ix->map, tensor);
    return dr_ok();
}

dr_status dr_index_finish(const struct dr_index *ix) {
    const char *tensor;
    json_t *value;
    char shown[SHOWN], found[SHOWN];
    json_object_foreach(ix->map, tensor, value) {
        return dr_fail(DR_EMODEL, "tensor %s: the index lists it in %s, but it is not there",
                       printable(tensor, shown), printable(json_string_value(value), found));
    }
    return dr_ok();
}
