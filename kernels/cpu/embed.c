/* embed.c - rows of the embedding table.
 * In:   token ids.      Out: activations, zero for ids of other ranks.
 * Owns: nothing.
 * Why:  see ops.h; the group adds the ranks, of which exactly one is not zero. */
#include "kernels/cpu/cpu.h"

#include <string.h>

#include "kernels/decode.h"

static void rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_embed *a = arg;
    size_t dim = (size_t)a->dim, row_bytes = dim * dr_weight_elem_bytes(a->type);
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        uint32_t row = a->ids[t] - a->first; /* wraps to a huge number below first */
        float *y = a->y + t * dim;
        if (a->ids[t] >= a->first && row < a->n_row)
            dr_decode(a->type, (const uint8_t *)a->table + row * row_bytes, dim, y);
        else
            memset(y, 0, dim * sizeof *y);
    }
}

dr_status dr_cpu_embed(const struct dr_embed *a, struct dr_stream *s) {
    struct dr_embed args = *a;
    dr_team_for(s->team, a->n_tok, 16, rows, &args);
    return dr_ok();
}
