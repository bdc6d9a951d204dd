/* logits_file.c - see logits_file.h.
 * In:   rows.      Out: bytes at their offsets.
 * Owns: nothing.
 * Why:  see logits_file.h. Values are little-endian, as on every machine this runs on. */
#include "gateway/cli/logits_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data is little-endian");

static dr_status write_at(const struct dr_logits_file *f, const void *bytes, size_t n, uint64_t at) {
    const char *p = bytes;
    while (n > 0) {
        ssize_t wrote = pwrite(f->fd, p, n, (off_t)at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0)
            return dr_fail(DR_EIO, "--logits %s: cannot be written: %s", f->path,
                           strerror(wrote < 0 ? errno : ENOSPC));
        p += wrote;
        n -= (size_t)wrote;
        at += (uint64_t)wrote;
    }
    return dr_ok();
}

/* The header is padded with spaces so that the values begin at a multiple of 8. */
static dr_status write_header(struct dr_logits_file *f) {
    char text[256];
    const uint64_t values = 4 * (uint64_t)f->n_row * (uint64_t)f->n_col;
    int n = snprintf(text + 8, sizeof text - 16,
                     "{\"logits\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[0,%llu]}}", f->n_row,
                     f->n_col, (unsigned long long)values);
    while (n % 8 != 0) text[8 + n++] = ' ';
    const uint64_t length = (uint64_t)n;
    memcpy(text, &length, 8);
    f->data = 8 + length;
    DR_TRY(write_at(f, text, (size_t)f->data, 0));
    if (ftruncate(f->fd, (off_t)(f->data + values)) != 0)
        return dr_fail(DR_EIO, "--logits %s: no file of %llu bytes can be made: %s", f->path,
                       (unsigned long long)(f->data + values), strerror(errno));
    return dr_ok();
}

dr_status dr_logits_file_begin(struct dr_logits_file *f, const char *path, int32_t n_row, int32_t n_col) {
    struct dr_logits_file new = {.fd = -1, .path = strdup(path), .n_row = n_row, .n_col = n_col};
    if (!new.path || asprintf(&new.temporary, "%s.%d.part", path, (int)getpid()) < 0) {
        free(new.path);
        return dr_fail(DR_EFULL, "--logits: no memory for a path");
    }
    new.fd = open(new.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    dr_status st = new.fd < 0 ? dr_fail(DR_EIO, "--logits %s: cannot be created: %s", path, strerror(errno))
                              : write_header(&new);
    if (st.code != DR_OK)
        dr_logits_file_abort(&new);
    else
        *f = new;
    return st;
}

dr_status dr_logits_file_put(const struct dr_logits_file *f, int32_t row, int32_t first, int32_t n,
                             const float *value) {
    if (row < 0 || row >= f->n_row || first < 0 || n < 0 || n > f->n_col - first)
        return dr_fail(DR_EINVAL, "logits: row %d, columns %d + %d are outside [%d, %d]", row, first, n,
                       f->n_row, f->n_col);
    return write_at(f, value, 4 * (size_t)n,
                    f->data + 4 * ((uint64_t)row * (uint64_t)f->n_col + (uint64_t)first));
}

static void forget(struct dr_logits_file *f) {
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f->temporary);
    *f = (struct dr_logits_file){.fd = -1};
}

dr_status dr_logits_file_end(struct dr_logits_file *f) {
    if (fsync(f->fd) != 0 || rename(f->temporary, f->path) != 0) {
        dr_status st = dr_fail(DR_EIO, "--logits %s: cannot be finished: %s", f->path, strerror(errno));
        dr_logits_file_abort(f);
        return st;
    }
    forget(f);
    return dr_ok();
}

void dr_logits_file_abort(struct dr_logits_file *f) {
    if (f->fd >= 0 && f->temporary) unlink(f->temporary);
    forget(f);
}
