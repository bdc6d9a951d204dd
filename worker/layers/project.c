/* project.c - norm and product over all rows of the step.
 * In:   activations of n_row rows.      Out: the same, normalised or multiplied by a matrix.
 * Owns: nothing.
 * Why:  attention and feed-forward say what is projected, not how an op's arguments are filled in. */

#include "worker/worker.h"

dr_status dr_project_norm(struct dr_worker *w, float *y, const float *x, const float *gain, int32_t dim,
                          size_t stride, float eps) {
    struct dr_rmsnorm op = {
        .y = y,
        .x = x,
        .gain = gain,
        .n_tok = w->n_row,
        .dim = dim,
        .y_stride = stride,
        .x_stride = stride,
        .eps = eps,
    };
    return w->ops->rmsnorm(&op, w->stream);
}

dr_status dr_project_linear(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight) {
    struct dr_linear op = {
        .y = y,
        .x = x,
        .w = weight,
        .n_tok = w->n_row,
        .y_stride = (size_t)weight->n_out,
        .x_stride = (size_t)weight->n_in,
    };
    return w->ops->linear(&op, w->stream);
}
