/* checkpoint.h - a golden checkpoint that a test may change, written to a temporary folder.
 * In:   a folder with config.json and model.safetensors.      Out: the same with other bytes or types.
 * Owns: the bytes, and the folder until checkpoint_fini.
 * Why:  damaged and converted weights are made from good ones, so that nothing else differs. */
#pragma once

#include "tests/support/safetensors.h"

enum checkpoint_type { CHECKPOINT_F32, CHECKPOINT_F16 };

struct checkpoint {
    char from[512], dir[64];    /* dir: "" until written */
    char file[64];              /* name of the safetensors file: model.safetensors, or one shard of several */
    struct safetensors tensors; /* of that file */
    void *data[SAFETENSORS_MAX]; /* owned copies of the data, may be changed */
};

/* One-file checkpoints; for a sharded one the file of the first shard, the others being copied as they are.
 */
void checkpoint_init(struct checkpoint *c, const char *dir);
void checkpoint_fini(struct checkpoint *c);

/* BF16 tensors to F16 (rounded to nearest even) or F32; F16 ones to F32. */
void checkpoint_convert(struct checkpoint *c, enum checkpoint_type to);

/* The bytes of a tensor, to be damaged before checkpoint_write. Aborts when there is none. */
uint8_t *checkpoint_bytes(struct checkpoint *c, const char *name);

/* Index of the entry in c->tensors. */
int checkpoint_find(const struct checkpoint *c, const char *name);

/* Writes everything to a fresh folder c->dir. */
void checkpoint_write(struct checkpoint *c);

/* Cuts the written safetensors file by `bytes` at its end. */
void checkpoint_cut(const struct checkpoint *c, long bytes);
