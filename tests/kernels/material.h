/* material.h - inputs and comparisons of the kernel tests.
 * In:   seeds and shapes.      Out: buffers, matrices with their slices, verdicts.
 * Owns: what a pool took, until pool_fini.
 * Why:  every test makes its numbers the same way, and decodes them by formulas that share nothing with the
 * kernels. */
#pragma once

#include <math.h>
#include <string.h>

#include "common/rng.h"
#include "kernels/ops.h"

/* Every piece is its own block of exactly the size asked for, so that the address sanitizer sees one byte too
 * much. */
struct pool {
    void *at[512];
    int n;
};
void *pool_take(struct pool *p, size_t bytes);                           /* zeroed, 64-byte aligned */
float *pool_floats(struct pool *p, size_t n, uint64_t seed, float size); /* uniform in (-size, size) */
void pool_fini(struct pool *p);

/* A checkpoint tensor. */
struct matrix {
    enum dr_wtype type;
    int32_t rows, cols;
    uint8_t *src; /* row-major */
    float *scale; /* [ceil(rows / 128)][ceil(cols / 128)] or NULL */
};
struct matrix matrix_random(struct pool *p, uint64_t seed, enum dr_wtype type, int32_t rows, int32_t cols,
                            bool scaled);
double matrix_value(const struct matrix *m, int32_t r, int32_t c); /* unscaled */
double matrix_scale(const struct matrix *m, int32_t r, int32_t c); /* 1 without scales */
/* [row0, row0 + n_out) x [col0, col0 + n_in), packed as a worker does. */
struct dr_weight matrix_slice(struct pool *p, const struct matrix *m, int32_t row0, int32_t n_out,
                              int32_t col0, int32_t n_in);
/* One output of such a slice by scalar fmaf in the promised order, and in double. */
float matrix_dot_ordered(const struct matrix *m, int32_t row, int32_t col0, int32_t n_in, const float *x);
double matrix_dot(const struct matrix *m, int32_t row, int32_t col0, int32_t n_in, const float *x);

/* One query against keys [first, end) by scalar code in the order that kernels/README.md promises, joined to
 * a state (max, sum, o). The query and each key are two parts of dims a and b; key i is at keys + i * (a +
 * b). A split ends at multiples of `split`. */
struct ordered {
    float max, sum, o[64];
    bool bf16; /* factors are rounded to bfloat16, and of two neighbours the second is added first */
};
void attention_ordered(struct ordered *state, const float *q, int a, int b, const float *keys,
                       const float *values, size_t value_stride, int v_dim, int first, int end, int split,
                       float scale);
float attention_ordered_finish(struct ordered *state, int v_dim); /* divides o, returns the log-sum-exp */

float round_bf16(float v); /* to nearest, ties to even */

double decode_value(enum dr_wtype t, const void *src, size_t index);

/* The tables that tests run: the oracle, the kernels of this processor, and those for AVX-512 that it may
 * lack, with emulated instructions. */
enum rig_table { RIG_ORACLE, RIG_HERE, RIG_AVX512_SIMDE, RIG_TABLE_COUNT };
enum rig_fast { RIG_FAST_HERE, RIG_FAST_AVX2, RIG_FAST_VNNI_SIMDE, RIG_FAST_BF16_SIMDE, RIG_FAST_COUNT };

/* A team of n threads and the oracle's table; aborts when there is none. */
struct rig {
    struct dr_team *team;
    struct dr_stream stream;
    const struct dr_ops *ops;
};
struct rig rig_init(int32_t n_thread);
struct rig rig_init_table(int32_t n_thread, enum rig_table table); /* precision f32 */
struct rig rig_init_fast(int32_t n_thread, enum rig_fast table);
bool rig_has_bf16(void); /* RIG_FAST_HERE multiplies bfloat16 */

/* Scratch for a product of n_tok rows; freed with the pool. */
void rig_scratch(struct pool *p, size_t bytes, void **scratch, size_t *scratch_bytes);

/* name_on(table) becomes a test that runs on all tables. */
#define RIG_ON_TABLES(name)                                                                                  \
    static void name(void) {                                                                                 \
        for (int t = 0; t < RIG_TABLE_COUNT; t++) name##_on((enum rig_table)t);                              \
    }
void rig_fini(struct rig *r);

/* True when got is NaN exactly where want is, and elsewhere within abs + rel * |want|; prints the first that
 * is not. */
bool near_double(const float *got, const double *want, size_t n, double abs, double rel);
bool same_floats(const float *a, const float *b, size_t n); /* bit for bit; prints the first difference */

#define CHECK_OK(call) CU_ASSERT_EQUAL_FATAL((call).code, DR_OK)
