/* bench_matrix.c - products with packed matrices, one thread, weights in cache or in memory.
 * In:   outputs (64: one strip, in cache) and inputs.      Out: a line for each type, table and number of
 * rows. Owns: nothing. Why:  a kernel's speed is a ratio to the processor's peak; lines of one run can be
 * compared, runs cannot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"

enum { REPEATS = 7 };

static double thread_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *take(size_t bytes) {
    void *p = aligned_alloc(64, dr_size_align(bytes ? bytes : 64, 64));
    DR_ASSERT(p);
    memset(p, 0, bytes);
    return p;
}

/* Codes that are numbers of ordinary size in every type. */
static struct dr_weight matrix(enum dr_wtype type, int32_t n_out, int32_t n_in) {
    struct dr_weight w = {.type = type, .n_out = n_out, .n_in = n_in};
    size_t bytes = dr_weight_data_bytes(type, n_out, n_in, 0),
           scales = dr_weight_scale_bytes(type, n_out, n_in, 0, 0);
    uint8_t *data = take(bytes);
    float *scale = take(scales);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)((i * 2654435761u >> 13) & 0xbf);
    for (size_t i = 0; i < scales / 4; i++) scale[i] = 0.01f;
    w.data = data;
    w.scale = scales ? scale : NULL;
    return w;
}

/* Least time of one call. */
static double least_seconds(const struct dr_ops *ops, struct dr_linear *a, struct dr_stream *s) {
    double least = 1e9;
    for (int r = 0; r < REPEATS; r++) {
        int n = 0;
        double begin = thread_seconds(), now;
        do {
            dr_status st = ops->linear(a, s);
            DR_ASSERT(st.code == DR_OK);
            n++;
            now = thread_seconds();
        } while (now - begin < 0.02);
        least = (now - begin) / n < least ? (now - begin) / n : least;
    }
    return least;
}

static void bench(const char *table, const struct dr_ops *ops, struct dr_stream *s, enum dr_wtype type,
                  int32_t n_out, int32_t n_in) {
    static const int32_t rows[] = {1, 2, 4, 8, 16, 64, 256};
    static const char *const names[] = {"f32", "bf16", "f16", "fp8", "int8"};
    struct dr_weight w = matrix(type, n_out, n_in);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = (size_t)rows[i];
        struct dr_linear a = {.w = &w,
                              .x = take(n * (size_t)n_in * 4),
                              .y = take(n * (size_t)n_out * 4),
                              .n_tok = rows[i],
                              .x_stride = (size_t)n_in,
                              .y_stride = (size_t)n_out,
                              .scratch_bytes = dr_linear_scratch_bytes(rows[i], n_in)};
        a.scratch = take(a.scratch_bytes);
        for (size_t k = 0; k < n * (size_t)n_in; k++)
            ((float *)(void *)a.x)[k] = 0.01f * (float)(k % 17) - 0.08f;
        double t = least_seconds(ops, &a, s), weights = (double)n_out * n_in;
        printf("%-8s %-5s %3d rows %7.3f ns/weight %7.2f GB/s %7.1f GFLOP/s\n", table, names[type], rows[i],
               1e9 * t / weights, (double)dr_weight_data_bytes(type, n_out, n_in, 0) / t / 1e9,
               2 * weights * (double)n / t / 1e9);
        free((void *)a.x);
        free(a.y);
        free(a.scratch);
    }
    free((void *)w.data);
    free((void *)w.scale);
}

int main(int argc, char **argv) {
    int32_t n_out = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 64;
    int32_t n_in = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 7168;
    const struct dr_ops *oracle, *f32, *fast;
    struct dr_team *team = NULL;
    dr_status st = dr_team_create(1, &team);
    if (st.code == DR_OK) st = dr_ops_cpu(&oracle);
    if (st.code == DR_OK) st = dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_F32, &f32);
    if (st.code == DR_OK) st = dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_FAST, &fast);
    if (st.code != DR_OK || n_out < 1 || n_in < 1) {
        fprintf(stderr, "usage: bench-matrix [OUTPUTS [INPUTS]]; %s\n", dr_error_text());
        return 64;
    }
    struct dr_stream stream = {.team = team};
    printf(
        "%s, %d outputs x %d inputs, one thread; oracle, exact (f32) and fast (%s, %s with int8 weights)\n",
        f32->name, n_out, n_in, fast->native_inputs, fast->int8_inputs);
    for (enum dr_wtype t = 0; t < DR_W_COUNT; t++) {
        if (t == DR_W_F16) continue; /* no release has such weights */
        bench("oracle", oracle, &stream, t, n_out, n_in);
        bench("f32", f32, &stream, t, n_out, n_in);
        bench("fast", fast, &stream, t, n_out, n_in);
    }
    dr_team_destroy(team);
    return 0;
}
