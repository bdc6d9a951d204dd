/* folder.h - the files of a model's folder.
 * In:   the path of a folder, plain file names in it.      Out: descriptors and small files' bytes.
 * Owns: nothing; the caller closes and frees.
 * Why:  names come from files that anyone may have written: nothing outside the folder is opened, nothing
 * that could block. */
#pragma once

#include "common/status.h"

enum { DR_FILE_NAME_MAX = 255 };

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the folder itself. Fails: ENOENT, EMODEL (it is a file), EIO. *fd is then untouched. */
DR_FALLIBLE dr_folder_open(const char *dir, int *fd);

/* Opens a regular file by its plain name; links are not followed. *bytes is its size.
 * Fails: ENOENT, EMODEL (no plain name, a link, no regular file), EIO; the text starts with the name. */
DR_FALLIBLE dr_folder_open_file(int folder, const char *name, int *fd, uint64_t *bytes);

/* Reads a whole file of at most bytes_max. *text is malloc'ed, *bytes its length.
 * Fails: as dr_folder_open_file, and EMODEL when the file is larger, EFULL without memory. */
DR_FALLIBLE dr_folder_read(int folder, const char *name, size_t bytes_max, char **text, size_t *bytes);

/* Reads exactly `bytes` at `offset`. Fails: EIO ("ends early" when the file shrank). */
DR_FALLIBLE dr_folder_pread(int fd, const char *name, void *out, size_t bytes, uint64_t offset);

/* Copies at most room - 1 bytes of a foreign text, everything but printable ASCII as '?', for messages.
 * Returns out. */
const char *dr_folder_printable(const char *text, char *out, size_t room);

#ifdef __cplusplus
}
#endif
