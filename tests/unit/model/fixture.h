/* fixture.h - configs of the golden cases, and damaged checkpoints in a temporary folder.
 * In:   a golden case's config, index and headers as JSON that a test may change.
 * Out:  a folder with these files; the data are holes of the right size.
 * Owns: the JSON and the folder until fixture_fini.
 * Why:  a table of damages needs one line a damage. */
#pragma once

#include <jansson.h>

#include "model/config.h"
#include "model/layout.h"

enum { FIXTURE_FILES = 2, FIXTURE_PATH = 512 };

struct fixture {
    char dir[FIXTURE_PATH];
    json_t *config, *generation, *index; /* NULL: the file is not written */
    json_t *header[FIXTURE_FILES];
    char file[FIXTURE_FILES][64];
    int n_file;
};

/* Path of tests/golden/CASE, or of deploy/models/NAME for "lexi-15m". */
const char *fixture_case(const char *name, char *out);

/* Config of tests/golden/CASE, or of tests/golden/configs/NAME.json for "configs/NAME". Fails the test and
 * aborts it if that cannot be read. */
struct dr_config fixture_config(const char *name);

/* A wish of everyday values: f32 cache, 4 sequences, 64 tokens a step. */
struct dr_layout_wish fixture_wish(int32_t tp, int32_t pp);

void fixture_init(struct fixture *f, const char *golden_case);
void fixture_write(struct fixture *f); /* makes the folder and all files */
void fixture_fini(struct fixture *f);  /* removes the folder */

/* Numbers the data offsets of a file anew, in the order of the entries, so that an entry can leave or change
 * its size. */
void fixture_renumber(struct fixture *f, int file);

/* The file that holds a tensor, -1: none. */
int fixture_find(const struct fixture *f, const char *tensor);

void fixture_path(const struct fixture *f, const char *name, char *out);
void fixture_put(const char *path, const void *bytes, size_t n, off_t size);
