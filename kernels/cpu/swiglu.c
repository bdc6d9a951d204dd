/* swiglu.c - the gated activation.
 * In:   gate and up rows.      Out: silu(gate) up.
 * Owns: nothing.
 * Why:  see ops.h. */
#include "kernels/cpu/cpu.h"
#include "kernels/exp.h"

static void rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_swiglu *a = arg;
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        const float *gate = a->gate + t * a->gate_stride, *up = a->up + t * a->up_stride;
        float *y = a->y + t * a->y_stride;
        for (size_t i = 0; i < (size_t)a->dim; i++) y[i] = dr_silu(gate[i]) * up[i];
    }
}

dr_status dr_cpu_swiglu(const struct dr_swiglu *a, struct dr_stream *s) {
    struct dr_swiglu args = *a;
    dr_team_for(s->team, a->n_tok, 16, rows, &args);
    return dr_ok();
}
