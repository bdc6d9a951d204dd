/* safetensors.c - see safetensors.h.
 * In:   file.      Out: entries.
 * Owns: see safetensors.h.
 * Why:  see safetensors.h. */

#include "tests/support/safetensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tensors.h"

struct filling {
    struct safetensors *s;
    const uint8_t *data;
};

static void stop(const char *path, const char *why) {
    printf("FAIL %s: %s\n", path, why);
    abort();
}

static dr_status add(void *arg, const struct dr_header_entry *e) {
    struct filling *f = arg;
    if (f->s->n == SAFETENSORS_MAX || e->n_shape > 4)
        return dr_fail(DR_EMODEL, "more than the test reader holds");
    struct safetensors_entry *out = &f->s->entry[f->s->n++];
    (void)snprintf(out->name, sizeof out->name, "%s", e->name);
    (void)snprintf(out->dtype, sizeof out->dtype, "%s", e->dtype);
    out->n_shape = e->n_shape;
    for (int i = 0; i < e->n_shape; i++) out->shape[i] = (int64_t)e->shape[i];
    out->data = f->data + e->begin;
    out->bytes = (size_t)(e->end - e->begin);
    return dr_ok();
}

void safetensors_init(struct safetensors *s, const char *path) {
    FILE *f = fopen(path, "rb");
    uint64_t header;
    *s = (struct safetensors){0};
    if (!f) stop(path, "cannot be opened");
    if (fseek(f, 0, SEEK_END) != 0) stop(path, "cannot be measured");
    size_t bytes = (size_t)ftell(f);
    rewind(f);
    s->file = malloc(bytes);
    if (!s->file || bytes < sizeof header || fread(s->file, 1, bytes, f) != bytes)
        stop(path, "cannot be read");
    (void)fclose(f);
    memcpy(&header, s->file, sizeof header);
    if (header > bytes - sizeof header) stop(path, "header is longer than the file");
    struct filling fill = {.s = s, .data = s->file + sizeof header + header};
    dr_status st = dr_tensors_parse_header((const char *)s->file + sizeof header, (size_t)header,
                                           bytes - sizeof header - header, add, &fill);
    if (st.code != DR_OK) stop(path, dr_error_text());
}

void safetensors_fini(struct safetensors *s) {
    free(s->file);
    *s = (struct safetensors){0};
}

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *format, ...) {
    char name[SAFETENSORS_NAME];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, sizeof name, format, args);
    va_end(args);
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->entry[i].name, name) == 0) return &s->entry[i];
    return NULL;
}

const float *safetensors_f32(const struct safetensors *s, const char *name) {
    const struct safetensors_entry *e = safetensors_find(s, "%s", name);
    if (!e || strcmp(e->dtype, "F32") != 0) stop(name, "no such f32 tensor");
    return e->data;
}

const int32_t *safetensors_i32(const struct safetensors *s, const char *name, int64_t *n) {
    const struct safetensors_entry *e = safetensors_find(s, "%s", name);
    if (!e || strcmp(e->dtype, "I32") != 0) stop(name, "no such int32 tensor");
    *n = (int64_t)(e->bytes / 4);
    return e->data;
}
