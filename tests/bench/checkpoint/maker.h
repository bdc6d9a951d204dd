/* maker.h - writes a random checkpoint in Hugging Face form.
 * In:   a config.json, the type of the weights, a seed, a folder.      Out: config.json, safetensors, index.
 * Owns: the folder while it works: what it began is taken away again when it fails.
 * Why:  speed is measured on models of true dimensions whose weights nobody has to download. */
#pragma once

#include "model/tensors.h"

struct dr_maker_wish {
    const char *config;   /* path of a config.json */
    const char *dir;      /* absent (its parent exists) or empty */
    enum dr_dtype dtype;  /* F8_E4M3 or BF16 */
    uint64_t seed;        /* equal seed, config and dtype: equal bytes */
    uint64_t shard_bytes; /* data of a file, at most, above 0; a weight that is larger has its own file */
    int32_t n_thread;     /* 0: one a processor that this process may use */
};

struct dr_maker_report {
    int32_t n_tensor, n_file, n_thread;
    uint64_t n_param, bytes; /* bytes: of the safetensors files */
    uint64_t write_ns,
        processor_ns; /* until everything is in the page cache; processor time of all threads */
    uint64_t sync_ns; /* until it is on the disk */
};

/* Blocks until everything is on the disk under its final name; config.json is the last to get its own.
 * Fails: ENOENT, EIO, EUSAGE (folder not empty), EINVAL, EMODEL (config), EFULL (disk, memory, limits of
 * an index or a header). */
DR_FALLIBLE dr_maker_run(const struct dr_maker_wish *wish, struct dr_maker_report *out);
