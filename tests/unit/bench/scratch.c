/* scratch.c - see scratch.h.
 * In:   paths, tensors.      Out: paths, values.
 * Owns: see scratch.h.
 * Why:  see scratch.h. */
#include "tests/unit/bench/scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/checkpoint/values.h"

static void need(int good, const char *what) {
    if (good) return;
    printf("FAIL scratch: %s\n", what);
    abort();
}

void scratch_init(struct scratch *s) {
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/deeprack-test-XXXXXX");
    need(mkdtemp(s->dir) != NULL, "temporary folder");
    (void)snprintf(s->out, sizeof s->out, "%s/out", s->dir);
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void scratch_fini(struct scratch *s) {
    need(nftw(s->dir, drop, 8, FTW_DEPTH | FTW_PHYS) == 0, s->dir);
}

const char *scratch_path(const char *rest) {
    static char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", DR_TESTS_DIR, rest);
    return path;
}

struct dr_maker_wish scratch_wish(const struct scratch *s, const char *config, enum dr_dtype dtype) {
    static char path[1024];
    (void)snprintf(path, sizeof path, "%s/bench/configs/%s.json", DR_TESTS_DIR, config);
    return (struct dr_maker_wish){.config = path,
                                  .dir = s->out,
                                  .dtype = dtype,
                                  .seed = 1,
                                  .shard_bytes = (uint64_t)1 << 40,
                                  .n_thread = 2};
}

int scratch_count(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return -1;
    int n = -2; /* . and .. */
    while (readdir(d)) n++;
    (void)closedir(d);
    return n;
}

const char *scratch_text(const struct scratch *s, const char *name, const char *text) {
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", s->dir, name);
    FILE *f = fopen(path, "wb");
    need(f && fputs(text, f) >= 0 && fclose(f) == 0, path);
    return path;
}

uint8_t *scratch_bytes(int fd, uint64_t offset, size_t bytes) {
    uint8_t *b = malloc(bytes + 1);
    need(b && pread(fd, b, bytes, (off_t)offset) == (ssize_t)bytes, "read");
    return b;
}

float *scratch_floats(const struct dr_tensor *t) {
    size_t n = (size_t)t->rows * (size_t)t->cols, size = dr_dtype_bytes(t->dtype);
    uint8_t *raw = scratch_bytes(t->fd, t->offset, n * size), *scales = NULL;
    float *out = malloc(n * sizeof *out);
    need(out != NULL, "memory");
    if (t->dtype == DR_DTYPE_F8_E4M3)
        scales =
            scratch_bytes(t->scale_fd, t->scale_offset, 4 * (size_t)t->scale_rows * (size_t)t->scale_cols);
    for (size_t i = 0; i < n; i++) {
        size_t row = i / (size_t)t->cols, col = i % (size_t)t->cols;
        uint32_t bits = 0;
        memcpy(&bits, raw + i * size, size);
        if (t->dtype == DR_DTYPE_F8_E4M3) {
            float scale;
            memcpy(&scale, scales + 4 * (row / 128 * (size_t)t->scale_cols + col / 128), 4);
            need((bits & 127) != 127, "a NaN code");
            out[i] = (float)dr_values_of_code((uint8_t)bits) * scale;
        } else {
            bits = t->dtype == DR_DTYPE_BF16 ? bits << 16 : bits;
            memcpy(&out[i], &bits, 4);
        }
    }
    free(raw);
    free(scales);
    return out;
}
