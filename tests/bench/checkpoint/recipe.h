/* recipe.h - which tensors a checkpoint has, in which file, at which place.
 * In:   config, type of the weights, bytes a file.      Out: the list, in the order of files and places.
 * Owns: the list until dr_recipe_fini.
 * Why:  names and shapes are model/roles' own; the places are fixed before the first byte is written, so that
 * pieces can be written in any order. */
#pragma once

#include "tests/bench/checkpoint/values.h"

struct dr_recipe_tensor {
    uint64_t begin, bytes; /* within its file's data */
    enum dr_role role;
    enum dr_dtype dtype;
    int32_t layer, expert;
    int32_t rows, cols; /* a vector is [1, n] */
    int32_t file;
    bool scale; /* the block scales of this role's weight: [ceil(rows/128), ceil(cols/128)] of it */
};

struct dr_recipe_file {
    int32_t first, n_tensor;
    uint64_t data_bytes;
};

struct dr_recipe {
    struct dr_config config;
    struct dr_recipe_tensor *tensor;
    struct dr_recipe_file *file;
    int32_t n_tensor, n_file;
    uint64_t n_param;    /* elements of all tensors but the scales */
    uint64_t data_bytes; /* of all files, without their headers */
};

enum { DR_RECIPE_NAME_MAX = 192 };

/* weights: F8_E4M3 (linear ones that releases store so; BF16 and an F32 router bias beside them) or BF16
 * (everything). file_bytes: data of a file, at most; a weight that is larger has its own.
 * Fails: EFULL (memory; more files than an index may name). */
DR_FALLIBLE dr_recipe_init(const struct dr_config *c, enum dr_dtype weights, uint64_t file_bytes,
                           struct dr_recipe *out);
void dr_recipe_fini(struct dr_recipe *r);

/* The published name into out[DR_RECIPE_NAME_MAX]. */
void dr_recipe_name(const struct dr_recipe_tensor *t, char *out);

/* "model.safetensors", or "model-00002-of-00003.safetensors". */
void dr_recipe_file_name(const struct dr_recipe *r, int32_t file, char *out);

/* How the tensor is filled. */
struct dr_values dr_recipe_values(const struct dr_recipe *r, const struct dr_recipe_tensor *t, uint64_t seed);
