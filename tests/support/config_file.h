/* config_file.h - reads a config.json by its path.
 * In:   a path.      Out: the config.
 * Owns: nothing.
 * Why:  programs that need a model's shape, not its weights, have no folder to open. */
#pragma once

#include "model/config.h"

/* Fails: ENOENT; EIO (cannot be read, or a megabyte or more); as dr_config_parse. */
DR_FALLIBLE config_file_read(const char *path, struct dr_config *out);
