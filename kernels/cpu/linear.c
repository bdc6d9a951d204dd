/* linear.c - products with packed matrices.
 * In:   rows and weights.      Out: rows.
 * Owns: nothing.
 * Why:  see ops.h; the walk over strips and blocks is in matrix.c. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matrix.h"

dr_status dr_cpu_linear(const struct dr_linear *a, struct dr_stream *s) {
    dr_matrix_run(&(struct dr_matrix_job){.y = a->y,
                                          .x = a->x,
                                          .w = a->w,
                                          .n_tok = a->n_tok,
                                          .n_head = 1,
                                          .y_stride = a->y_stride,
                                          .x_stride = a->x_stride,
                                          .add = a->add},
                  s->team);
    return dr_ok();
}

dr_status dr_cpu_linear_heads(const struct dr_linear_heads *a, struct dr_stream *s) {
    for (int32_t h = 1; h < a->n_head; h++)
        DR_ASSERT(a->w[h].n_out == a->w[0].n_out && a->w[h].n_in == a->w[0].n_in);
    dr_matrix_run(&(struct dr_matrix_job){.y = a->y,
                                          .x = a->x,
                                          .w = a->w,
                                          .n_tok = a->n_tok,
                                          .n_head = a->n_head,
                                          .y_stride = a->y_stride,
                                          .y_head_stride = a->y_head_stride,
                                          .x_stride = a->x_stride,
                                          .x_head_stride = a->x_head_stride},
                  s->team);
    return dr_ok();
}
