/* linear.c - products with packed matrices, as fast as the processor allows.
 * In:   rows and weights.      Out: rows.
 * Owns: nothing.
 * Why:  see ops.h; the walk over strips is in matrix.c. */
#include "kernels/x86/x86.h"

dr_status dr_x86_linear(const struct dr_linear *a, struct dr_stream *s, const struct dr_matrix_set *set) {
    const struct dr_family *f = a->exact ? &set->exact[a->w->type] : &set->by_type[a->w->type];
    dr_x86_matrix_run(&(struct dr_matrix_run){.y = a->y,
                                              .x = a->x,
                                              .w = a->w,
                                              .n_tok = a->n_tok,
                                              .n_head = 1,
                                              .y_stride = a->y_stride,
                                              .x_stride = a->x_stride,
                                              .add = a->add,
                                              .scratch = a->scratch,
                                              .scratch_bytes = a->scratch_bytes},
                      f, s->team);
    return dr_ok();
}

dr_status dr_x86_linear_heads(const struct dr_linear_heads *a, struct dr_stream *s,
                              const struct dr_matrix_set *set) {
    if (a->n_tok == 0 || a->n_head == 0) return dr_ok();
    for (int32_t h = 1; h < a->n_head; h++)
        DR_ASSERT(a->w[h].n_out == a->w[0].n_out && a->w[h].n_in == a->w[0].n_in &&
                  a->w[h].type == a->w[0].type);
    for (int32_t h = 1; h < a->n_head; h++) /* a row that all heads share is prepared once */
        DR_ASSERT(a->x_head_stride > 0 || a->w[h].phase == a->w[0].phase);
    dr_x86_matrix_run(&(struct dr_matrix_run){.y = a->y,
                                              .x = a->x,
                                              .w = a->w,
                                              .n_tok = a->n_tok,
                                              .n_head = a->n_head,
                                              .y_stride = a->y_stride,
                                              .y_head_stride = a->y_head_stride,
                                              .x_stride = a->x_stride,
                                              .x_head_stride = a->x_head_stride,
                                              .scratch = a->scratch,
                                              .scratch_bytes = a->scratch_bytes},
                      &set->by_type[a->w->type], s->team);
    return dr_ok();
}
