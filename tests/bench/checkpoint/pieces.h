/* pieces.h - the data of one safetensors file, written by several threads.
 * In:   a recipe, one of its files, an open file.      Out: the tensors' bytes at their places.
 * Owns: one buffer a thread while it runs.
 * Why:  a piece's bytes depend on its place alone, so threads take whatever piece is next. */
#pragma once

#include "tests/bench/checkpoint/recipe.h"

struct dr_pieces {
    const struct dr_recipe *recipe;
    const struct dr_values_tables *tables;
    int32_t file;
    int fd;
    uint64_t data_begin; /* where the data start in the file */
    uint64_t seed;
    int32_t n_thread; /* at least 1; the caller's is one of them */
};

/* Blocks. Fails: EIO (the system's words), EFULL (memory). */
DR_FALLIBLE dr_pieces_write(const struct dr_pieces *p);
