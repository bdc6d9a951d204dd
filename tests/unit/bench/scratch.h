/* scratch.h - a folder for made checkpoints.
 * In:   a wish's differences.      Out: made checkpoints, their bytes.
 * Owns: the folder until scratch_fini.
 * Why:  every test of the maker needs the same few lines. */
#pragma once

#include "tests/bench/checkpoint/maker.h"

struct scratch {
    char dir[64];  /* fresh */
    char out[128]; /* dir/out, absent */
};

void scratch_init(struct scratch *s);
void scratch_fini(struct scratch *s); /* with everything in it */

/* The wish for a shipped config ("tiny") of tests/bench/configs, into s->out; seed 1, 2 threads, one file. */
struct dr_maker_wish scratch_wish(const struct scratch *s, const char *config, enum dr_dtype dtype);

/* Path of a file under tests/, valid until the next call. */
const char *scratch_path(const char *rest);

/* Number of entries in a folder; -1: there is none. */
int scratch_count(const char *dir);

/* Writes text to s->dir/NAME and gives its path, valid until the next call. */
const char *scratch_text(const struct scratch *s, const char *name, const char *text);

/* The whole tensor as floats, FP8 with its scales applied; malloc'd, rows x cols. Aborts when it cannot be
 * read. */
float *scratch_floats(const struct dr_tensor *t);

/* bytes of a file from an offset; malloc'd, aborts when it has fewer. */
uint8_t *scratch_bytes(int fd, uint64_t offset, size_t bytes);
