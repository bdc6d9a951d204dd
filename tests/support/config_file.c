/* config_file.c - see config_file.h.
 * In:   a path.      Out: the config.
 * Owns: nothing.
 * Why:  see config_file.h. */
#include "tests/support/config_file.h"

#include <stdio.h>

enum { CONFIG_BYTES_MAX = 1 << 20 };

dr_status config_file_read(const char *path, struct dr_config *out) {
    static char text[CONFIG_BYTES_MAX];
    FILE *f = fopen(path, "rb");
    if (!f) return dr_fail(DR_ENOENT, "%s: cannot open it", path);
    const size_t n = fread(text, 1, sizeof text, f);
    const bool bad = ferror(f) != 0, full = n == sizeof text;
    fclose(f);
    if (bad) return dr_fail(DR_EIO, "%s: cannot read it", path);
    if (full) return dr_fail(DR_EIO, "%s: expected a config.json of less than a megabyte, found more", path);
    return dr_config_parse(text, n, NULL, 0, out);
}
