/* logits_file.h - all logits of a prompt as one safetensors file.
 * In:   pieces of rows in any order.      Out: a file with the tensor logits, f32 [n, vocab].
 * Owns: the descriptor and the temporary name until end or abort.
 * Why:  100,000 rows of 129,280 logits are 52 GB: they go to their place on disk as they come; nobody sees
 * half a file. */
#pragma once

#include "common/status.h"

struct dr_logits_file {
    int fd;                 /* -1: none */
    char *path, *temporary; /* owned */
    uint64_t data;          /* offset of the first value */
    int32_t n_row, n_col;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Creates PATH.PID.part and writes the header. Fails: EIO, EFULL; nothing is left then. */
DR_FALLIBLE dr_logits_file_begin(struct dr_logits_file *f, const char *path, int32_t n_row, int32_t n_col);

/* Row's columns [first, first + n). Fails: EIO, EINVAL outside the tensor. */
DR_FALLIBLE dr_logits_file_put(const struct dr_logits_file *f, int32_t row, int32_t first, int32_t n,
                               const float *value);

/* Makes it durable and gives it its name. Fails: EIO; the temporary file is gone then. */
DR_FALLIBLE dr_logits_file_end(struct dr_logits_file *f);

/* Throws it away; accepts a file that has ended or never began (fd -1 or the zero object's paths). */
void dr_logits_file_abort(struct dr_logits_file *f);

#ifdef __cplusplus
}
#endif
