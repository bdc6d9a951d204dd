/* matrix.c - see matrix.h.
 * In:   strips and rows.      Out: sums with block scales applied.
 * Owns: nothing.
 * Why:  a decoded block [<= 128][16] is 8 KiB and stays in L1 while 64 rows use it. */
#include "kernels/cpu/matrix.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/decode.h"
#include "kernels/cpu/lanes.h"

void dr_matrix_strip(const struct dr_weight *w, int32_t strip, const float *const *x, int32_t n_row,
                     float *total) {
    _Alignas(64) float panel[DR_BLOCK * DR_STRIP], sum[DR_MATRIX_ROWS * DR_STRIP];
    const float *at[DR_MATRIX_ROWS];
    size_t bytes = dr_weight_elem_bytes(w->type), padded = (size_t)dr_weight_out_padded(w->n_out);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)strip * (size_t)w->n_in * DR_STRIP * bytes;
    const float *scale = w->scale ? w->scale + (size_t)strip * DR_STRIP : NULL;
    const uint8_t *data_end = (const uint8_t *)w->data + (size_t)w->n_in * padded * bytes;
    DR_ASSERT(n_row <= DR_MATRIX_ROWS);
    memset(total, 0, (size_t)n_row * DR_STRIP * sizeof *total);
    for (int32_t r = 0; r < n_row; r++) at[r] = x[r];
    int32_t len = dr_min_i32(DR_BLOCK - w->phase, w->n_in);
    for (int32_t k = 0; k < w->n_in; k += len, len = dr_min_i32(DR_BLOCK, w->n_in - k)) {
        size_t block_bytes = (size_t)len * DR_STRIP * bytes;
        /* the block after this one (2 to 8 KiB ahead) is asked for early: the hardware starts anew at every
         * page */
        for (size_t ahead = 0; ahead < block_bytes && block_bytes + ahead < (size_t)(data_end - data);
             ahead += 64)
            __builtin_prefetch(data + block_bytes + ahead);
        const float *block = (const float *)(const void *)data;
        if (w->type != DR_W_F32) {
            dr_decode(w->type, data, (size_t)len * DR_STRIP, panel);
            block = panel;
        }
        dr_lanes_sum(block, DR_STRIP, len, at, 1, n_row, sum);
        if (scale) {
            for (int32_t r = 0; r < n_row; r++)
                for (int o = 0; o < DR_STRIP; o++)
                    total[r * DR_STRIP + o] = fmaf(sum[r * DR_STRIP + o], scale[o], total[r * DR_STRIP + o]);
            scale += padded;
        } else {
            for (int32_t i = 0; i < n_row * DR_STRIP; i++) total[i] += sum[i];
        }
        for (int32_t r = 0; r < n_row; r++) at[r] += len;
        data += block_bytes;
    }
}

struct run {
    const struct dr_matrix_job *job;
    int32_t n_strip, n_tile;
};

/* Item = (head, tile of rows, strip), strips innermost: neighbours share the rows. */
static void run_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_matrix_job *job = run->job;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t strip = (int32_t)(i % run->n_strip), tile = (int32_t)(i / run->n_strip % run->n_tile);
        size_t head = (size_t)(i / run->n_strip / run->n_tile);
        const struct dr_weight *w = job->w + head;
        int32_t first = tile * DR_MATRIX_ROWS, n_row = dr_min_i32(DR_MATRIX_ROWS, job->n_tok - first);
        float total[DR_MATRIX_ROWS * DR_STRIP];
        const float *x[DR_MATRIX_ROWS];
        for (int32_t r = 0; r < n_row; r++)
            x[r] = job->x + (size_t)(first + r) * job->x_stride + head * job->x_head_stride;
        dr_matrix_strip(w, strip, x, n_row, total);
        int32_t n_lane = dr_min_i32(DR_STRIP, w->n_out - strip * DR_STRIP);
        for (int32_t r = 0; r < n_row; r++) {
            float *y = job->y + (size_t)(first + r) * job->y_stride + head * job->y_head_stride +
                       (size_t)strip * DR_STRIP;
            const float *t = total + (size_t)r * DR_STRIP;
            for (int32_t o = 0; o < n_lane; o++) y[o] = job->add ? y[o] + t[o] : t[o];
        }
    }
}

int64_t dr_matrix_grain(int32_t n_in, int32_t n_row) {
    int64_t item = (int64_t)DR_STRIP * (n_in + 1) * (dr_min_i32(n_row, DR_MATRIX_ROWS) + 1);
    return item >= 16384 ? 1 : 16384 / item;
}

void dr_matrix_run(const struct dr_matrix_job *job, struct dr_team *team) {
    if (job->n_tok == 0 || job->n_head == 0) return;
    int32_t n_out = job->w[0].n_out, n_in = job->w[0].n_in;
    struct run run = {.job = job,
                      .n_strip = dr_weight_out_padded(n_out) / DR_STRIP,
                      .n_tile = dr_ceil_div(job->n_tok, DR_MATRIX_ROWS)};
    int64_t items = (int64_t)run.n_strip * run.n_tile * job->n_head;
    dr_team_for(team, items, dr_matrix_grain(n_in, job->n_tok), run_items, &run);
}
