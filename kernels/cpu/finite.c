/* finite.c - which rows are numbers throughout.
 * In:   rows.      Out: a flag a row.
 * Owns: nothing.
 * Why:  see ops.h. Exponents are compared as integers: no compiler flag can take that away. */
#include <string.h>

#include "kernels/cpu/cpu.h"

static void piece(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_finite *a = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *row = a->x + (size_t)t * a->stride;
        uint32_t bits, most = 0;
        for (int32_t i = 0; i < a->dim; i++) {
            memcpy(&bits, &row[i], sizeof bits);
            bits &= 0x7fffffffU;
            most = bits > most ? bits : most;
        }
        a->bad[t] = most >= 0x7f800000U;
    }
}

dr_status dr_cpu_finite(const struct dr_finite *a, struct dr_stream *s) {
    struct dr_finite args = *a;
    dr_team_for(s->team, a->n_tok, 4, piece, &args);
    return dr_ok();
}
