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

static dr_status project(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight,
                         bool exact) {
    struct dr_linear op = {
        .y = y,
        .x = x,
        .w = weight,
        .n_tok = w->n_row,
        .y_stride = (size_t)weight->n_out,
        .x_stride = (size_t)weight->n_in,
        .exact = exact,
        .scratch = dr_worker_buffer(w, DR_BUF_INPUT),
        .scratch_bytes = w->map.size[DR_BUF_INPUT],
    };
    return w->ops->linear(&op, w->stream);
}

dr_status dr_project_linear(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight) {
    return project(w, y, x, weight, false);
}

dr_status dr_project_router(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight) {
    return project(w, y, x, weight, true);
}

dr_status dr_project_heads(struct dr_worker *w, struct dr_linear_heads op) {
    op.scratch = dr_worker_buffer(w, DR_BUF_INPUT);
    op.scratch_bytes = w->map.size[DR_BUF_INPUT];
    return w->ops->linear_heads(&op, w->stream);
}
