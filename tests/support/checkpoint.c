/* checkpoint.c - see checkpoint.h.
 * In:   checkpoint.      Out: changed checkpoint.
 * Owns: see checkpoint.h.
 * Why:  see checkpoint.h. */

#include "tests/support/checkpoint.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void need(int good, const char *what) {
    if (good) return;
    printf("FAIL checkpoint: %s\n", what);
    abort();
}

static int is_model(const char *name) {
    size_t n = strlen(name);
    return strncmp(name, "model", 5) == 0 && n > 12 && strcmp(name + n - 12, ".safetensors") == 0;
}

void checkpoint_init(struct checkpoint *c, const char *dir) {
    struct dirent *e;
    char path[1024];
    *c = (struct checkpoint){0};
    (void)snprintf(c->from, sizeof c->from, "%s", dir);
    DIR *d = opendir(dir);
    need(d != NULL, dir);
    while ((e = readdir(d)))
        if (is_model(e->d_name) && (!c->file[0] || strcmp(e->d_name, c->file) < 0))
            (void)snprintf(c->file, sizeof c->file, "%.63s", e->d_name);
    (void)closedir(d);
    (void)snprintf(path, sizeof path, "%s/%s", dir, c->file);
    safetensors_init(&c->tensors, path);
    for (int i = 0; i < c->tensors.n; i++) {
        c->data[i] = malloc(c->tensors.entry[i].bytes + 1);
        need(c->data[i] != NULL, "memory");
        memcpy(c->data[i], c->tensors.entry[i].data, c->tensors.entry[i].bytes);
    }
}

void checkpoint_fini(struct checkpoint *c) {
    char path[1024];
    struct dirent *e;
    DIR *d = c->dir[0] ? opendir(c->dir) : NULL;
    while (d && (e = readdir(d))) {
        (void)snprintf(path, sizeof path, "%s/%s", c->dir, e->d_name);
        if (e->d_name[0] != '.') (void)unlink(path);
    }
    if (d) (void)closedir(d);
    if (c->dir[0]) (void)rmdir(c->dir);
    for (int i = 0; i < c->tensors.n; i++) free(c->data[i]);
    safetensors_fini(&c->tensors);
    *c = (struct checkpoint){0};
}

/* f16 bits of a float that is small enough: scaled to units of the last place, rounded to even. */
static uint16_t half_of(float v) {
    int e = 0;
    float a = fabsf(v);
    (void)frexpf(a, &e);
    int unit = (e < -13 ? -13 : e) - 11; /* exponent of the last place; subnormals share 2^-24 */
    long m = lrintf(ldexpf(a, -unit));
    if (m == 2048) {
        m = 1024;
        unit++;
    }
    need(unit + 24 < 31, "a weight beyond F16");
    unsigned bits = m < 1024 ? (unsigned)m : (unsigned)(unit + 25) << 10 | (unsigned)(m - 1024);
    return (uint16_t)(bits | (signbit(v) ? 0x8000u : 0));
}

static float float_of_half(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    float v = e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
    return h & 0x8000 ? -v : v;
}

static float float_of_bf16(uint16_t b) {
    uint32_t u = (uint32_t)b << 16;
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

void checkpoint_convert(struct checkpoint *c, enum checkpoint_type to) {
    for (int i = 0; i < c->tensors.n; i++) {
        struct safetensors_entry *e = &c->tensors.entry[i];
        int bf16 = strcmp(e->dtype, "BF16") == 0, f16 = strcmp(e->dtype, "F16") == 0;
        if (!bf16 && !(f16 && to == CHECKPOINT_F32)) continue;
        size_t n = e->bytes / 2, size = to == CHECKPOINT_F32 ? 4 : 2;
        uint8_t *out = malloc(n * size + 1);
        need(out != NULL, "memory");
        for (size_t k = 0; k < n; k++) {
            uint16_t bits;
            memcpy(&bits, (uint8_t *)c->data[i] + 2 * k, 2);
            float v = bf16 ? float_of_bf16(bits) : float_of_half(bits);
            bits = to == CHECKPOINT_F16 ? half_of(v) : 0;
            memcpy(out + k * size, to == CHECKPOINT_F32 ? (void *)&v : (void *)&bits, size);
        }
        free(c->data[i]);
        c->data[i] = out;
        e->bytes = n * size;
        (void)snprintf(e->dtype, sizeof e->dtype, "%s", to == CHECKPOINT_F32 ? "F32" : "F16");
    }
}

int checkpoint_find(const struct checkpoint *c, const char *name) {
    const struct safetensors_entry *e = safetensors_find(&c->tensors, "%s", name);
    need(e != NULL, name);
    return (int)(e - c->tensors.entry);
}

uint8_t *checkpoint_bytes(struct checkpoint *c, const char *name) {
    return c->data[checkpoint_find(c, name)];
}

static void copy_file(const char *from, const char *to) {
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    char buffer[65536];
    size_t n;
    need(in && out, from);
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) need(fwrite(buffer, 1, n, out) == n, to);
    (void)fclose(in);
    need(fclose(out) == 0, to);
}

static size_t append_entry(const struct safetensors_entry *e, size_t begin, char *out, size_t room) {
    size_t at = (size_t)snprintf(out, room, "\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name, e->dtype);
    for (int k = 0; k < e->n_shape; k++)
        at += (size_t)snprintf(out + at, room - at, "%s%lld", k ? "," : "", (long long)e->shape[k]);
    return at +
           (size_t)snprintf(out + at, room - at, "],\"data_offsets\":[%zu,%zu]}", begin, begin + e->bytes);
}

static void write_model(const struct checkpoint *c, const char *path) {
    size_t room = (size_t)c->tensors.n * 256 + 64, at = 0, begin = 0;
    char *header = malloc(room);
    FILE *f = fopen(path, "wb");
    need(header && f, path);
    header[at++] = '{';
    for (int i = 0; i < c->tensors.n; i++) {
        if (i) header[at++] = ',';
        at += append_entry(&c->tensors.entry[i], begin, header + at, room - at);
        begin += c->tensors.entry[i].bytes;
    }
    header[at++] = '}';
    while (at % 8) header[at++] = ' ';
    uint64_t length = at;
    need(fwrite(&length, sizeof length, 1, f) == 1 && fwrite(header, 1, at, f) == at, path);
    for (int i = 0; i < c->tensors.n; i++)
        need(fwrite(c->data[i], 1, c->tensors.entry[i].bytes, f) == c->tensors.entry[i].bytes, path);
    need(fclose(f) == 0, path);
    free(header);
}

void checkpoint_write(struct checkpoint *c) {
    char from[1024], to[1024];
    struct dirent *e;
    (void)snprintf(c->dir, sizeof c->dir, "/tmp/deeprack-test-XXXXXX");
    need(mkdtemp(c->dir) != NULL, "temporary folder");
    DIR *d = opendir(c->from);
    need(d != NULL, c->from);
    while ((e = readdir(d))) {
        (void)snprintf(from, sizeof from, "%s/%s", c->from, e->d_name);
        (void)snprintf(to, sizeof to, "%s/%s", c->dir, e->d_name);
        if (strcmp(e->d_name, c->file) == 0)
            write_model(c, to);
        else if (is_model(e->d_name) || strcmp(e->d_name, "config.json") == 0 ||
                 strcmp(e->d_name, "model.safetensors.index.json") == 0)
            copy_file(from, to);
    }
    (void)closedir(d);
}

void checkpoint_cut(const struct checkpoint *c, long bytes) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", c->dir, c->file);
    FILE *f = fopen(path, "rb");
    need(f && fseek(f, 0, SEEK_END) == 0, path);
    long size = ftell(f);
    (void)fclose(f);
    need(truncate(path, size - bytes) == 0, path);
}
