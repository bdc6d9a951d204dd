/* folder.c - see folder.h.
 * In:   names.      Out: descriptors, bytes.
 * Owns: nothing.
 * Why:  one place decides which files may be opened. */
#include "model/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHOWN = 128 };

const char *dr_folder_printable(const char *text, char *out, size_t room) {
    size_t n = 0;
    for (; text[n] && n + 1 < room; n++) out[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
    out[n] = 0;
    return out;
}

dr_status dr_folder_open(const char *dir, int *fd) {
    struct stat st;
    if (stat(dir, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return dr_fail(DR_ENOENT, "%s: no such folder; give the folder that holds config.json", dir);
        return dr_fail(DR_EIO, "%s: cannot be examined: %s", dir, strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return dr_fail(
            DR_EMODEL,
            "%s: expected the folder of a model, found a file; give the folder that holds config.json "
            "and the .safetensors files",
            dir);
    int got = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (got < 0) return dr_fail(DR_EIO, "%s: cannot be opened: %s", dir, strerror(errno));
    *fd = got;
    return dr_ok();
}

dr_status dr_folder_open_file(int folder, const char *name, int *fd, uint64_t *bytes) {
    char shown[SHOWN];
    dr_folder_printable(name, shown, sizeof shown);
    size_t length = strlen(name);
    if (length == 0 || length > DR_FILE_NAME_MAX || strchr(name, '/') || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return dr_fail(DR_EMODEL, "%s: expected the plain name of a file in the model's folder", shown);
    /* O_NONBLOCK: a FIFO must not hold us; it has no effect on regular files. */
    int got = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (got < 0) {
        if (errno == ENOENT) return dr_fail(DR_ENOENT, "%s: file missing", shown);
        if (errno == ELOOP)
            return dr_fail(DR_EMODEL,
                           "%s: expected a regular file, found a symbolic link; links are not followed, "
                           "copy the folder with its links resolved (cp -rL)",
                           shown);
        return dr_fail(DR_EIO, "%s: cannot be opened: %s", shown, strerror(errno));
    }
    struct stat st;
    if (fstat(got, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(got);
        return dr_fail(DR_EMODEL, "%s: expected a regular file", shown);
    }
    *fd = got;
    *bytes = (uint64_t)st.st_size;
    return dr_ok();
}

dr_status dr_folder_pread(int fd, const char *name, void *out, size_t bytes, uint64_t offset) {
    for (size_t at = 0; at < bytes;) {
        ssize_t n = pread(fd, (char *)out + at, bytes - at, (off_t)(offset + at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return dr_fail(DR_EIO, "%s: expected %zu bytes at %llu, got %zu: %s", name, bytes,
                           (unsigned long long)offset, at, n < 0 ? strerror(errno) : "the file ends early");
        at += (size_t)n;
    }
    return dr_ok();
}

dr_status dr_folder_read(int folder, const char *name, size_t bytes_max, char **text, size_t *bytes) {
    int fd = -1;
    uint64_t size = 0;
    DR_TRY(dr_folder_open_file(folder, name, &fd, &size));
    if (size > bytes_max) {
        close(fd);
        return dr_fail(DR_EMODEL, "%s: expected at most %zu bytes, found %llu", name, bytes_max,
                       (unsigned long long)size);
    }
    char *got = malloc((size_t)size + 1);
    if (!got) {
        close(fd);
        return dr_fail(DR_EFULL, "%s: no memory for %llu bytes", name, (unsigned long long)size);
    }
    dr_status st = dr_folder_pread(fd, name, got, (size_t)size, 0);
    close(fd);
    if (st.code != DR_OK) {
        free(got);
        return st;
    }
    got[size] = 0;
    *text = got;
    *bytes = (size_t)size;
    return dr_ok();
}
