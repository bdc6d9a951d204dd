/* header.c - one safetensors header.
 * In:   the JSON text between the length word and the data, and the size of the data.
 * Out:  its tensors in the order of their data, each checked; or a refusal that names the tensor.
 * Owns: nothing.
 * Why:  the format is checked here completely, whatever the model: names, dtypes, shapes, sizes, no hole, no
 * overlap, exact end. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/size.h"
#include "model/folder.h"
#include "model/header.h"
#include "model/tensors.h"

enum { DIMS_MAX = 8, NODES_MAX = 3 << 20, SHOWN = 160, DTYPE_SHOWN = 24 };

/* The published dtypes of whole bytes. Sub-byte ones are refused as unknown. */
static const struct {
    const char *name;
    uint8_t bytes;
} dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
              {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
              {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8}};

struct entry {
    const char *name;
    const char *dtype;
    uint64_t begin, end;
    uint64_t shape[DIMS_MAX];
    int32_t n_shape;
};

static dr_status refuse(const char *name, const char *what) {
    char shown[SHOWN];
    return dr_fail(DR_EMODEL, "tensor %s: %s", dr_folder_printable(name, shown, sizeof shown), what);
}

static bool is_count(const json_t *v) {
    return json_is_integer(v) && json_integer_value(v) >= 0;
}

static dr_status read_dtype(const char *name, const json_t *v, struct entry *e, size_t *size) {
    const char *text = json_string_value(v);
    if (!text) return refuse(name, "expected a string as dtype");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(text, dtypes[i].name) != 0) continue;
        e->dtype = dtypes[i].name;
        *size = dtypes[i].bytes;
        return dr_ok();
    }
    char shown[SHOWN], found[DTYPE_SHOWN];
    return dr_fail(DR_EMODEL, "tensor %s: dtype \"%s\" is unknown",
                   dr_folder_printable(name, shown, sizeof shown),
                   dr_folder_printable(text, found, sizeof found));
}

static dr_status read_shape(const char *name, const json_t *v, struct entry *e, size_t *elements) {
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n > DIMS_MAX) return refuse(name, "expected a shape of at most 8 dimensions");
    *elements = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(v, i);
        if (!is_count(d)) return refuse(name, "expected whole numbers of at least 0 as shape");
        e->shape[i] = (uint64_t)json_integer_value(d);
        if (!dr_size_mul(*elements, e->shape[i], elements))
            return refuse(name, "the product of the shape overflows");
    }
    e->n_shape = (int32_t)n;
    return dr_ok();
}

static dr_status read_entry(const char *name, const json_t *v, uint64_t data_bytes, struct entry *e) {
    size_t size = 0, elements = 0, bytes = 0;
    e->name = name;
    if (name[0] == 0) return dr_fail(DR_EMODEL, "a tensor has an empty name");
    if (!json_is_object(v)) return refuse(name, "expected an object of dtype, shape and data_offsets");
    if (json_object_size(v) != 3) return refuse(name, "expected exactly dtype, shape and data_offsets");
    DR_TRY(read_dtype(name, json_object_get(v, "dtype"), e, &size));
    DR_TRY(read_shape(name, json_object_get(v, "shape"), e, &elements));
    const json_t *offsets = json_object_get(v, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !is_count(begin) || !is_count(end))
        return refuse(name, "expected two whole numbers of at least 0 as data_offsets");
    e->begin = (uint64_t)json_integer_value(begin);
    e->end = (uint64_t)json_integer_value(end);
    char shown[SHOWN];
    dr_folder_printable(name, shown, sizeof shown);
    if (e->begin > e->end || e->end > data_bytes)
        return dr_fail(DR_EMODEL,
                       "tensor %s: data_offsets: expected a range within %" PRIu64
                       " bytes of data, found %" PRIu64 " to %" PRIu64,
                       shown, data_bytes, e->begin, e->end);
    if (!dr_size_mul(elements, size, &bytes)) return refuse(name, "the product of the shape overflows");
    if (e->end - e->begin != bytes)
        return dr_fail(DR_EMODEL,
                       "tensor %s: data_offsets: expected %zu bytes for its shape and %s, found %" PRIu64,
                       shown, bytes, e->dtype, e->end - e->begin);
    return dr_ok();
}

static dr_status check_metadata(const json_t *v) {
    const char *key;
    json_t *text;
    if (!json_is_object(v)) return dr_fail(DR_EMODEL, "__metadata__: expected an object of strings");
    json_object_foreach((json_t *)(uintptr_t)v, key, text) {
        if (!json_is_string(text)) return dr_fail(DR_EMODEL, "__metadata__: expected an object of strings");
    }
    return dr_ok();
}

static int by_place(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1; /* empty tensors first */
    return strcmp(x->name, y->name);
}

static dr_status check_places(const struct entry *e, size_t n, uint64_t data_bytes) {
    uint64_t at = 0;
    char shown[SHOWN];
    for (size_t i = 0; i < n; i++) {
        if (e[i].begin != at)
            return dr_fail(DR_EMODEL, "tensor %s: %s: expected its data at %" PRIu64 ", found %" PRIu64,
                           dr_folder_printable(e[i].name, shown, sizeof shown),
                           e[i].begin < at ? "data overlap" : "a hole in the data", at, e[i].begin);
        at = e[i].end;
    }
    if (at != data_bytes)
        return dr_fail(DR_EMODEL,
                       "expected the data to end with the last tensor at %" PRIu64 ", found %" PRIu64
                       " bytes of data",
                       at, data_bytes);
    return dr_ok();
}

static dr_status walk(const json_t *header, uint64_t data_bytes, struct entry *entries,
                      dr_header_visit *visit, void *arg) {
    const char *name;
    json_t *value;
    size_t n = 0;
    json_object_foreach((json_t *)(uintptr_t)header, name, value) {
        if (strcmp(name, "__metadata__") == 0)
            DR_TRY(check_metadata(value));
        else
            DR_TRY(read_entry(name, value, data_bytes, &entries[n++]));
    }
    qsort(entries, n, sizeof *entries, by_place);
    DR_TRY(check_places(entries, n, data_bytes));
    for (size_t i = 0; i < n; i++) {
        const struct dr_header_entry e = {.name = entries[i].name,
                                          .dtype = entries[i].dtype,
                                          .shape = entries[i].shape,
                                          .n_shape = entries[i].n_shape,
                                          .begin = entries[i].begin,
                                          .end = entries[i].end};
        DR_TRY(visit(arg, &e));
    }
    return dr_ok();
}

dr_status dr_tensors_parse_header(const char *json, size_t bytes, uint64_t data_bytes, dr_header_visit *visit,
                                  void *arg) {
    const struct dr_json_limits limits = {.bytes_max = DR_HEADER_BYTES_MAX, .nodes_max = NODES_MAX};
    if (bytes == 0 || json[0] != '{') return dr_fail(DR_EMODEL, "header: expected JSON that starts with {");
    json_t *header = NULL;
    if (dr_json_parse(json, bytes, limits, &header).code != DR_OK)
        return dr_fail(DR_EMODEL, "header: %s", dr_error_text());
    struct entry *entries = calloc(json_object_size(header) + 1, sizeof *entries);
    dr_status st =
        entries ? walk(header, data_bytes, entries, visit, arg) : dr_fail(DR_EFULL, "header: no memory");
    free(entries);
    json_decref(header);
    return st;
}
