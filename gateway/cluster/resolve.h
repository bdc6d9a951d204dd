/* resolve.h - the wish in the options becomes a layout that this machine can hold.
 * In:   options, config, headers, this machine.      Out: layout; options with pages, context, threads set.
 * Owns: nothing.
 * Why:  everything that can be refused is refused before a process is started, by name. */
#pragma once

#include "common/option.h"
#include "model/footprint.h"
#include "model/layout.h"

struct dr_resolved {
    struct dr_layout layout;
    int32_t n_host;        /* 0: this machine */
    int32_t local_workers; /* workers a machine */
    uint64_t tensors_hash;
    struct dr_footprint most; /* of the rank that needs most */
};

struct dr_machine {
    size_t free_bytes; /* MemAvailable, or what the control group leaves */
    int32_t cores;     /* that this process may use; hardware threads of one core count once */
    int32_t nodes;     /* NUMA nodes of these; 0 counts as 1 */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EMODEL (layout, memory), ENOENT, EIO, EUSAGE. */
DR_FALLIBLE dr_resolve(struct dr_options *options, const struct dr_config *config, struct dr_resolved *out);

/* The same with a given machine; t may be NULL (then dtypes are guessed and tensors_hash is 0): for `inspect`
 * and tests. */
DR_FALLIBLE dr_resolve_on(const struct dr_machine *m, struct dr_options *options,
                          const struct dr_config *config, const struct dr_tensors *t,
                          struct dr_resolved *out);

/* Without --tp: one rank for each NUMA node of the hosts (0: this machine), as far as there are heads. Fails:
 * EFULL. */
DR_FALLIBLE dr_resolve_tp(const struct dr_machine *m, struct dr_options *options, const struct dr_config *c,
                          int32_t n_host);

/* Fails: EIO. */
DR_FALLIBLE dr_machine_read(struct dr_machine *out);

/* "1.50 GiB" into out. */
const char *dr_bytes_text(uint64_t bytes, char out[32]);

#ifdef __cplusplus
}
#endif
