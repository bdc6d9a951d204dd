/* fuzz_safetensors_header.c - the header of a safetensors file.
 * In:   4 bytes: size of the data, little-endian; then the JSON.      Out: nothing; a crash is a finding.
 * Owns: nothing.
 * Why:  what is accepted must cover the data exactly once: these offsets become reads without a second check.
 */
#include <stdint.h>
#include <string.h>

#include "model/roles.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t at;
};

static dr_status see(void *arg, const struct dr_header_entry *e) {
    struct seen *s = arg;
    char name[DR_TENSOR_NAME_MAX];
    uint64_t elements = 1;
    DR_ASSERT(e->begin == s->at && e->end >= e->begin && e->n_shape >= 0);
    for (int32_t i = 0; i < e->n_shape; i++)
        elements *= e->shape[i]; /* checked against overflow by the parser */
    DR_ASSERT(elements == 0 ? e->begin == e->end : (e->end - e->begin) % elements == 0);
    s->at = e->end;
    struct dr_role_name r = dr_role_parse(e->name, strlen(e->name));
    if (r.known) { /* a name that is understood is written back as the same name */
        dr_tensors_name(r.role, r.layer, r.expert, name, sizeof name);
        DR_ASSERT(strcmp(name, e->name) == 0);
    }
    return dr_ok();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct seen s = {.at = 0};
    uint64_t data_bytes = 0;
    if (size < 4) return 0;
    for (int i = 0; i < 4; i++) data_bytes |= (uint64_t)data[i] << (8 * i);
    dr_status st = dr_tensors_parse_header((const char *)data + 4, size - 4, data_bytes, see, &s);
    if (st.code == DR_OK)
        DR_ASSERT(s.at == data_bytes);
    else
        DR_ASSERT(st.code == DR_EMODEL && dr_error_text()[0] != 0);
    return 0;
}
