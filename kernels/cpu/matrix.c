/* matrix.c - see matrix.h.
 * In:   groups of 16 outputs, and rows.      Out: sums with block scales applied.
 * Owns: nothing.
 * Why:  the oracle: one block of one group of outputs after the other, as kernels/README.md states the order.
 */
#include "kernels/cpu/matrix.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/lanes.h"
#include "kernels/decode.h"

/* Inputs [lead, n * per) of n cells of one group of outputs, which are `step` bytes apart, to panel
 * [input][16]. */
static void decode_cells(enum dr_wtype type, const uint8_t *data, size_t step, int32_t n, int32_t lead,
                         float *panel) {
    int32_t per = dr_weight_per(type);
    float cell[DR_CELL_BYTES];
    for (int32_t i = 0; i < n; i++) {
        dr_decode(type, data + (size_t)i * step, (size_t)(DR_LANES * per), cell);
        for (int32_t j = 0; j < per; j++) {
            if (i * per + j < lead) continue;
            float *row = panel + (size_t)(i * per + j - lead) * DR_LANES;
            for (int32_t o = 0; o < DR_LANES; o++) row[o] = cell[o * per + j];
        }
    }
}

void dr_matrix_group(const struct dr_weight *w, int32_t group, const float *const *x, int32_t n_row,
                     float *total) {
    _Alignas(64) float panel[(DR_BLOCK + 4) * DR_LANES], sum[DR_MATRIX_ROWS * DR_LANES];
    const float *at[DR_MATRIX_ROWS];
    struct dr_strip s = dr_weight_strip(w, group / 4);
    size_t step = (size_t)s.cells * DR_CELL_BYTES;
    const uint8_t *data = s.data + (size_t)(group % 4) * DR_CELL_BYTES;
    DR_ASSERT(n_row <= DR_MATRIX_ROWS);
    memset(total, 0, (size_t)n_row * DR_LANES * sizeof *total);
    for (int32_t b = 0; b < dr_weight_blocks(w->n_in, w->phase); b++) {
        int32_t k = dr_weight_block_input(w, b), len = dr_weight_block_input(w, b + 1) - k;
        int32_t begin = dr_weight_block_step(w, b), end = dr_weight_block_step(w, b + 1);
        int32_t lead = b == 0 ? dr_weight_lead(w->type, w->phase) : 0;
        decode_cells(w->type, data + (size_t)begin * step, step, end - begin, lead, panel);
        for (int32_t r = 0; r < n_row; r++) at[r] = x[r] + k;
        dr_lanes_sum(panel, DR_LANES, len, at, 1, n_row, sum);
        for (int32_t o = 0; o < DR_LANES; o++) {
            int32_t out = group * DR_LANES + o;
            float scale = out < w->n_out ? dr_weight_scale(w, b, out) : 1;
            for (int32_t r = 0; r < n_row; r++)
                total[r * DR_LANES + o] = fmaf(sum[r * DR_LANES + o], scale, total[r * DR_LANES + o]);
        }
    }
}

struct run {
    const struct dr_matrix_job *job;
    int32_t n_group, n_tile;
};

/* Item = (head, tile of rows, group of outputs), groups innermost: neighbours share the rows. */
static void run_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_matrix_job *job = run->job;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t group = (int32_t)(i % run->n_group), tile = (int32_t)(i / run->n_group % run->n_tile);
        size_t head = (size_t)(i / run->n_group / run->n_tile);
        const struct dr_weight *w = job->w + head;
        int32_t first = tile * DR_MATRIX_ROWS, n_row = dr_min_i32(DR_MATRIX_ROWS, job->n_tok - first);
        float total[DR_MATRIX_ROWS * DR_LANES];
        const float *x[DR_MATRIX_ROWS];
        for (int32_t r = 0; r < n_row; r++)
            x[r] = job->x + (size_t)(first + r) * job->x_stride + head * job->x_head_stride;
        dr_matrix_group(w, group, x, n_row, total);
        int32_t n_lane = dr_min_i32(DR_LANES, w->n_out - group * DR_LANES);
        for (int32_t r = 0; r < n_row; r++) {
            float *y = job->y + (size_t)(first + r) * job->y_stride + head * job->y_head_stride +
                       (size_t)group * DR_LANES;
            const float *t = total + (size_t)r * DR_LANES;
            for (int32_t o = 0; o < n_lane; o++) y[o] = job->add ? y[o] + t[o] : t[o];
        }
    }
}

int64_t dr_matrix_grain(int32_t n_in, int32_t n_row) {
    int64_t item = (int64_t)DR_LANES * (n_in + 1) * (dr_min_i32(n_row, DR_MATRIX_ROWS) + 1);
    return item >= 16384 ? 1 : 16384 / item;
}

void dr_matrix_run(const struct dr_matrix_job *job, struct dr_team *team) {
    if (job->n_tok == 0 || job->n_head == 0) return;
    int32_t n_out = job->w[0].n_out, n_in = job->w[0].n_in;
    struct run run = {.job = job,
                      .n_group = dr_weight_out_padded(n_out) / DR_LANES,
                      .n_tile = dr_ceil_div(job->n_tok, DR_MATRIX_ROWS)};
    int64_t items = (int64_t)run.n_group * run.n_tile * job->n_head;
    dr_team_for(team, items, dr_matrix_grain(n_in, job->n_tok), run_items, &run);
}
