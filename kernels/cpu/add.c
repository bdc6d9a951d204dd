/* add.c - sum of two arrays.
 * In:   y and x.      Out: y + x in y.
 * Owns: nothing.
 * Why:  see ops.h. */
#include "kernels/cpu/cpu.h"

static void piece(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_add *a = arg;
    (void)thread;
    for (size_t i = (size_t)begin; i < (size_t)end; i++) a->y[i] += a->x[i];
}

dr_status dr_cpu_add(const struct dr_add *a, struct dr_stream *s) {
    struct dr_add args = *a;
    dr_team_for(s->team, (int64_t)a->n, 16384, piece, &args);
    return dr_ok();
}
