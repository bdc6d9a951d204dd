/* matrix.c - see matrix.h.
 * In:   rows.      Out: prepared rows, products.
 * Owns: nothing.
 * Why:  who does which strip is the same for every family. */
#include "kernels/x86/matrix.h"

#include <string.h>

#include "kernels/ops.h"

void dr_prepare_f32(const struct dr_weight *w, const float *x, void *row) {
    float *out = row, factor = w->type == DR_W_F8 ? 0x1p100f : 1;
    int32_t lead = dr_weight_lead(w->type, w->phase), per = dr_weight_per(w->type);
    int32_t end = dr_weight_steps(w->type, w->n_in, w->phase) * per;
    for (int32_t k = 0; k < lead; k++) out[k] = 0;
    for (int32_t k = 0; k < w->n_in; k++) out[lead + k] = x[k] * factor;
    for (int32_t k = lead + w->n_in; k < end; k++) out[k] = 0;
}

size_t dr_linear_scratch_bytes(int32_t rows, int32_t n_in) {
    return (size_t)rows * dr_prepared_bytes(n_in);
}

struct run {
    const struct dr_matrix_run *job;
    const struct dr_family *family;
    size_t row_bytes;
    int32_t first, n;       /* rows of this pass */
    int32_t n_prepared;     /* heads whose inputs differ */
    int32_t n_strip, n_sub; /* items of a head: strips x runs of rows */
    int32_t n_thread;
};

static uint8_t *prepared(const struct run *run, int32_t row, int32_t head) {
    int32_t h = run->n_prepared == 1 ? 0 : head;
    return run->job->scratch + ((size_t)h * (size_t)run->n + (size_t)row) * run->row_bytes;
}

static void prepare_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_matrix_run *job = run->job;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t head = (int32_t)(i / run->n), row = (int32_t)(i % run->n);
        const float *x =
            job->x + (size_t)(run->first + row) * job->x_stride + (size_t)head * job->x_head_stride;
        run->family->prepare(job->w + head, x, prepared(run, row, head));
    }
}

/* Rows [begin, begin + n) of the pass, one strip of one head. */
static void one_strip(const struct run *run, int32_t head, int32_t strip, int32_t begin, int32_t n) {
    const struct dr_matrix_run *job = run->job;
    const struct dr_weight *w = job->w + head;
    const void *row[DR_TILE_ROWS] = {NULL};
    _Alignas(64) float total[DR_TILE_ROWS * DR_STRIP];
    for (int32_t r = 0; r < n; r++) row[r] = prepared(run, begin + r, head);
    run->family->strip(w, strip, row, n, total);
    int32_t n_lane = dr_min_i32(DR_STRIP, w->n_out - strip * DR_STRIP);
    for (int32_t r = 0; r < n; r++) {
        float *y = job->y + (size_t)(run->first + begin + r) * job->y_stride +
                   (size_t)head * job->y_head_stride + (size_t)strip * DR_STRIP;
        const float *t = total + r * DR_STRIP;
        if (job->add)
            for (int32_t o = 0; o < n_lane; o++) y[o] += t[o];
        else
            memcpy(y, t, (size_t)n_lane * sizeof *y);
    }
}

/* Item = (head, strip, run of rows). */
static void strip_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    int32_t height = dr_ceil_div(run->n, run->n_sub);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t sub = (int32_t)(i % run->n_sub), strip = (int32_t)(i / run->n_sub % run->n_strip);
        int32_t head = (int32_t)(i / run->n_sub / run->n_strip), first = sub * height;
        if (i + 1 == end) /* where this thread goes on, if all are equally fast */
            dr_strip_ask(run->job->w + head, strip + 1 + (int32_t)(end - begin) * (run->n_thread - 1));
        one_strip(run, head, strip, first, dr_min_i32(height, run->n - first));
    }
}

static void pass(struct run *run, struct dr_team *team) {
    enum {
        PIECE_BYTES = 98304,
        PIECE = 32768
    }; /* multiply-adds, or numbers prepared: a few microseconds, so that claiming one does not show */
    const struct dr_weight *w = run->job->w;
    int64_t row = w->n_in + 1, strip = (int64_t)DR_STRIP * row, least = 8 * (int64_t)dr_team_size(team);
    dr_team_for(team, (int64_t)run->n_prepared * run->n, row >= PIECE ? 1 : PIECE / row, prepare_items, run);
    int64_t items = (int64_t)run->job->n_head * run->n_strip;
    run->n_sub = items < least && run->n > 64 ? dr_ceil_div(run->n, 64) : 1;
    /* pieces of some 100 KiB of weights, as long as every thread has several */
    int64_t bytes = (int64_t)dr_weight_steps(w->type, w->n_in, w->phase) * 4 * DR_CELL_BYTES + 1;
    int64_t grain = run->n <= 8 ? PIECE_BYTES / bytes : PIECE / (strip * (run->n / run->n_sub));
    int64_t most = items * run->n_sub / least;
    grain = grain < most ? grain : most;
    dr_team_for(team, items * run->n_sub, grain > 1 ? grain : 1, strip_items, run);
}

void dr_x86_matrix_run(const struct dr_matrix_run *job, const struct dr_family *family,
                       struct dr_team *team) {
    if (job->n_tok == 0 || job->n_head == 0) return;
    struct run run = {.job = job,
                      .family = family,
                      .row_bytes = dr_prepared_bytes(job->w->n_in),
                      .n_prepared = job->x_head_stride == 0 ? 1 : job->n_head,
                      .n_strip = dr_weight_strips(job->w),
                      .n_thread = dr_team_size(team)};
    size_t rows = job->scratch_bytes / (run.row_bytes * (size_t)run.n_prepared);
    int32_t most = rows < DR_TILE_ROWS ? (int32_t)rows : DR_TILE_ROWS;
    DR_ASSERT(most >= 1);
    int32_t passes = dr_ceil_div(job->n_tok, most), height = dr_ceil_div(job->n_tok, passes);
    for (run.first = 0; run.first < job->n_tok; run.first += height) {
        run.n = dr_min_i32(height, job->n_tok - run.first);
        pass(&run, team);
    }
}
