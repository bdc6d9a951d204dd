/* json.c - Jansson with the limits of this project.
 * In:   text.      Out: values.
 * Owns: nothing.
 * Why:  see json.h. */
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Depth and the number of values are bounded by a scan of the text before Jansson builds anything. */
static dr_status scan(const char *text, size_t bytes, size_t nodes_max) {
    size_t depth = 0, nodes = 1;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"')
            in_string = true;
        else if (c == '[' || c == '{') {
            if (++depth > DR_JSON_DEPTH_MAX)
                return dr_fail(DR_EINVAL, "JSON is nested deeper than %d levels at byte %zu",
                               DR_JSON_DEPTH_MAX, i);
        } else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        else if ((c == ',' || c == ':') && ++nodes > nodes_max)
            return dr_fail(DR_EINVAL, "JSON has more than %zu values; send less at once", nodes_max);
    }
    return dr_ok();
}

dr_status dr_json_parse(const char *text, size_t bytes, struct dr_json_limits limits, json_t **out) {
    if (limits.bytes_max && bytes > limits.bytes_max)
        return dr_fail(DR_EINVAL, "JSON of %zu bytes: at most %zu are read", bytes, limits.bytes_max);
    DR_TRY(scan(text, bytes, limits.nodes_max ? limits.nodes_max : DR_JSON_NODES_MAX));
    json_error_t error;
    size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | (limits.nul_allowed ? JSON_ALLOW_NUL : 0);
    json_t *value = json_loadb(text, bytes, flags, &error);
    if (!value) {
        char *near =
            strstr(error.text, " near '"); /* Jansson quotes the input; ours may be secret or hostile */
        if (near) *near = 0;
        return dr_fail(DR_EINVAL, "not valid JSON at line %d, column %d: %s", error.line, error.column,
                       error.text);
    }
    *out = value;
    return dr_ok();
}

dr_status dr_json_read(const char *path, struct dr_json_limits limits, json_t **out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dr_fail(errno == ENOENT ? DR_ENOENT : DR_EIO, "%s: cannot be opened: %s", path,
                       strerror(errno));
    struct stat st;
    char *text = NULL;
    dr_status status = dr_ok();
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = dr_fail(DR_EIO, "%s: not a regular file", path);
        goto out;
    }
    size_t bytes = (size_t)st.st_size;
    if (limits.bytes_max && bytes > limits.bytes_max) {
        status = dr_fail(DR_EINVAL, "%s: %zu bytes, at most %zu are read", path, bytes, limits.bytes_max);
        goto out;
    }
    text = malloc(bytes + 1);
    if (!text) {
        status = dr_fail(DR_EFULL, "%s: no memory for %zu bytes", path, bytes);
        goto out;
    }
    for (size_t at = 0; at < bytes;) {
        ssize_t n = read(fd, text + at, bytes - at);
        if (n <= 0) {
            status = dr_fail(DR_EIO, "%s: expected %zu bytes, got %zu: %s", path, bytes, at,
                             n < 0 ? strerror(errno) : "the file ends early");
            goto out;
        }
        at += (size_t)n;
    }
    status = dr_json_parse(text, bytes, limits, out);
    if (status.code != DR_OK) status = dr_fail_within(status, "%s: ", path);
out:
    free(text);
    close(fd);
    return status;
}
