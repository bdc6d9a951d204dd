/* safetensors.h - reads the golden files.
 * In:   a path.      Out: tensors by name.
 * Owns: the file's bytes until safetensors_fini.
 * Why:  expected values are stored as the models are; the header goes through the project's own parser. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MAX = 1024, SAFETENSORS_NAME = 96 };

struct safetensors_entry {
    char name[SAFETENSORS_NAME];
    char dtype[12];
    int64_t shape[4];
    int n_shape;
    const void *data; /* 4-byte values are aligned: the writer pads the header */
    size_t bytes;
};

struct safetensors {
    uint8_t *file;
    struct safetensors_entry entry[SAFETENSORS_MAX];
    int n;
};

/* Prints and aborts when the file cannot be read: a test without its expectations must not pass. */
void safetensors_init(struct safetensors *s, const char *path);
void safetensors_fini(struct safetensors *s);

/* NULL when there is none. Name as printf gives it. */
const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Values of one that must exist. */
const float *safetensors_f32(const struct safetensors *s, const char *name);
const int32_t *safetensors_i32(const struct safetensors *s, const char *name, int64_t *n);
