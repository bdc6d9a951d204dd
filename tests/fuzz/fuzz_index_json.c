/* fuzz_index_json.c - model.safetensors.index.json.
 * In:   the JSON.      Out: nothing; a crash is a finding.
 * Owns: nothing.
 * Why:  its strings become names of files to open, so an accepted one must be a plain name. */
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "model/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_files(const struct dr_index *ix) {
    DR_ASSERT(dr_index_files(ix) >= 1 && dr_index_files(ix) <= DR_INDEX_FILES_MAX);
    for (int32_t i = 0; i < dr_index_files(ix); i++) {
        const char *name = dr_index_file(ix, i);
        DR_ASSERT(name[0] != 0 && name[0] != '.' && strchr(name, '/') == NULL);
        DR_ASSERT(i == 0 || strcmp(dr_index_file(ix, i - 1), name) < 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct dr_index *ix = NULL;
    const char *tensor;
    json_t *file;
    dr_status st = dr_index_parse((const char *)data, size, &ix);
    if (st.code != DR_OK) {
        DR_ASSERT(st.code == DR_EMODEL && ix == NULL && dr_error_text()[0] != 0);
        return 0;
    }
    check_files(ix);
    json_t *again = json_loadb((const char *)data, size, 0, NULL);
    DR_ASSERT(again != NULL);
    json_object_foreach(json_object_get(again, "weight_map"), tensor, file) {
        DR_ASSERT(dr_index_finish(ix).code == DR_EMODEL);
        DR_ASSERT(dr_index_claim(ix, tensor, "?").code == DR_EMODEL);
        DR_ASSERT(dr_index_claim(ix, tensor, json_string_value(file)).code == DR_OK);
        DR_ASSERT(dr_index_claim(ix, tensor, json_string_value(file)).code == DR_EMODEL);
    }
    DR_ASSERT(dr_index_finish(ix).code == DR_OK);
    json_decref(again);
    dr_index_destroy(ix);
    return 0;
}
