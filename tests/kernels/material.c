/* material.c - see material.h.
 * In:   seeds and shapes.      Out: test inputs.
 * Owns: the blocks of a pool.
 * Why:  see material.h. */
#include "tests/kernels/material.h"

/* kernels/x86/table.c, built once more with emulated instructions (tests/CMakeLists.txt) */
dr_status dr_ops_x86_simde(enum dr_isa isa, enum dr_precision precision, const struct dr_ops **out);

#include <stdio.h>
#include <stdlib.h>

#include "kernels/exp.h"

void *pool_take(struct pool *p, size_t bytes) {
    void *at = NULL;
    DR_ASSERT(p->n < (int)(sizeof p->at / sizeof p->at[0]));
    DR_ASSERT(posix_memalign(&at, 64, bytes ? bytes : 1) == 0);
    memset(at, 0, bytes);
    p->at[p->n++] = at;
    return at;
}

float *pool_floats(struct pool *p, size_t n, uint64_t seed, float size) {
    float *x = pool_take(p, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (2 * dr_rng_uniform(seed, i, 7) - 1) * size;
    return x;
}

void pool_fini(struct pool *p) {
    while (p->n > 0) free(p->at[--p->n]);
}

double decode_value(enum dr_wtype t, const void *src, size_t index) {
    const uint8_t *b = src;
    if (t == DR_W_F32) {
        float f;
        memcpy(&f, b + 4 * index, 4);
        return (double)f;
    }
    if (t == DR_W_I8) return (int8_t)b[index];
    int bits = t == DR_W_F8 ? b[index] : b[2 * index] | b[2 * index + 1] << 8;
    int total = t == DR_W_F8 ? 8 : 16, n_man = t == DR_W_F8 ? 3 : t == DR_W_F16 ? 10 : 7;
    int n_exp = total - 1 - n_man, bias = (1 << (n_exp - 1)) - 1;
    int man = bits & ((1 << n_man) - 1), e = bits >> n_man & ((1 << n_exp) - 1);
    double sign = bits >> (total - 1) ? -1 : 1, unit = exp2(-n_man);
    if (t == DR_W_F8 && e == 15 && man == 7) return NAN;
    if (t != DR_W_F8 && e == (1 << n_exp) - 1) return man ? NAN : sign * INFINITY;
    return e ? sign * (1 + man * unit) * exp2(e - bias) : sign * man * unit * exp2(1 - bias);
}

static void random_element(uint8_t *at, enum dr_wtype type, uint64_t seed, uint64_t index) {
    uint64_t bits = dr_rng_u64(seed, index, 1);
    float v = (2 * dr_rng_uniform(seed, index, 2) - 1) * 0.25f;
    if (type == DR_W_F32) memcpy(at, &v, 4);
    if (type == DR_W_BF16) memcpy(at, (uint8_t *)&v + 2, 2);
    if (type == DR_W_F16) { /* exponents of numbers below 1 */
        uint16_t h = (uint16_t)((bits & 0x83ff) | (bits >> 20 & 15) << 10);
        memcpy(at, &h, 2);
    }
    if (type == DR_W_I8) *at = (uint8_t)bits == 0x80 ? 0 : (uint8_t)bits;
    if (type == DR_W_F8) {
        *at = (uint8_t)bits;
        if ((*at & 0x7f) == 0x7f) *at ^= 1;
    }
}

struct matrix matrix_random(struct pool *p, uint64_t seed, enum dr_wtype type, int32_t rows, int32_t cols,
                            bool scaled) {
    size_t n = (size_t)rows * (size_t)cols, bytes = dr_weight_elem_bytes(type);
    struct matrix m = {.type = type, .rows = rows, .cols = cols, .src = pool_take(p, n * bytes)};
    for (size_t i = 0; i < n; i++) random_element(m.src + i * bytes, type, seed, i);
    if (scaled && type == DR_W_F8) {
        size_t blocks = (size_t)dr_ceil_div(rows, 128) * (size_t)dr_ceil_div(cols, 128);
        m.scale = pool_take(p, blocks * sizeof(float));
        for (size_t i = 0; i < blocks; i++) m.scale[i] = 0.001f + 0.1f * dr_rng_uniform(seed, i, 3);
    }
    return m;
}

double matrix_value(const struct matrix *m, int32_t r, int32_t c) {
    return decode_value(m->type, m->src, (size_t)r * (size_t)m->cols + (size_t)c);
}

double matrix_scale(const struct matrix *m, int32_t r, int32_t c) {
    return m->scale ? (double)m->scale[r / 128 * dr_ceil_div(m->cols, 128) + c / 128] : 1;
}

struct dr_weight matrix_slice(struct pool *p, const struct matrix *m, int32_t row0, int32_t n_out,
                              int32_t col0, int32_t n_in) {
    struct dr_weight w = {
        .type = m->type, .n_out = n_out, .n_in = n_in, .phase = col0 % 128, .out_phase = row0 % 128};
    size_t bytes = dr_weight_elem_bytes(m->type), stride = (size_t)m->cols * bytes;
    void *data = pool_take(p, dr_weight_data_bytes(m->type, n_out, n_in, w.phase));
    dr_weight_pack_rows(&w, data, 0, n_out, m->src + (size_t)row0 * stride + (size_t)col0 * bytes, stride);
    w.data = data;
    if (m->scale) {
        int32_t n_block = dr_weight_blocks(n_in, w.phase), n_out_block = dr_weight_blocks(n_out, w.out_phase);
        float *scale = pool_take(p, dr_weight_scale_bytes(m->type, n_out, n_in, w.phase, w.out_phase));
        for (int32_t b = 0; b < n_block; b++)
            for (int32_t o = 0; o < n_out_block; o++)
                scale[b * n_out_block + o] =
                    (float)matrix_scale(m, (row0 / 128 + o) * 128, (col0 / 128 + b) * 128);
        w.scale = scale;
    }
    return w;
}

float matrix_dot_ordered(const struct matrix *m, int32_t row, int32_t col0, int32_t n_in, const float *x) {
    float total = 0, s = 0;
    for (int32_t c = col0; c < col0 + n_in; c++) {
        s = fmaf((float)matrix_value(m, row, c), x[c - col0], s);
        if (c % 128 == 127 || c == col0 + n_in - 1) {
            total = fmaf(s, (float)matrix_scale(m, row, c), total);
            s = 0;
        }
    }
    return total;
}

double matrix_dot(const struct matrix *m, int32_t row, int32_t col0, int32_t n_in, const float *x) {
    double total = 0;
    for (int32_t c = col0; c < col0 + n_in; c++)
        total += matrix_value(m, row, c) * matrix_scale(m, row, c) * (double)x[c - col0];
    return total;
}

float round_bf16(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&v, &u, 4);
    return v;
}

/* s + a[0] b[0] + a[stride] b[..] ...: n <= 2 terms, in the order of the kernel. */
static float step(bool bf16, int n, const float *a, size_t a_stride, const float *b, float s) {
    if (!bf16) return fmaf(*a, *b, s);
    for (int i = n; i-- > 0;) s = fmaf(round_bf16(a[(size_t)i * a_stride]), round_bf16(b[i]), s);
    return s;
}

static float part_score(bool bf16, const float *q, const float *key, int n) {
    float total = 0, s = 0;
    int step_size = bf16 ? 2 : 1;
    for (int d = 0; d < n; d += step_size) {
        s = step(bf16, d + 1 < n ? 2 : 1, key + d, 1, q + d, s);
        if ((d + step_size) % 128 == 0 || d + step_size >= n) total += s, s = 0;
    }
    return total;
}

/* One split. In f32 blocks of keys end where the key's number is a multiple of 64. */
static void ordered_split(struct ordered *state, const float *q, int a, int b, const float *keys,
                          const float *values, size_t value_stride, int v_dim, int first, int end,
                          float scale) {
    float p[256], max = -INFINITY, sum = 0;
    int step_size = state->bf16 ? 2 : 1;
    for (int j = first; j < end; j++) {
        const float *key = keys + (size_t)j * (size_t)(a + b);
        float latent = part_score(state->bf16, q, key, a),
              rotated = part_score(state->bf16, q + a, key + a, b);
        p[j - first] = (latent + rotated) * scale;
        max = p[j - first] > max ? p[j - first] : max;
    }
    for (int j = 0; j < end - first; j++) sum += p[j] = dr_exp(p[j] - max);
    float most = state->sum == 0 || max > state->max ? max : state->max;
    float old = state->sum == 0 ? 0 : dr_exp(state->max - most), fresh = dr_exp(max - most);
    for (int d = 0; d < v_dim; d++) {
        float total = 0, s = 0;
        for (int j = first; j < end; j += step_size) {
            s = step(state->bf16, j + 1 < end ? 2 : 1, values + (size_t)j * value_stride + (size_t)d,
                     value_stride, p + j - first, s);
            if ((!state->bf16 && (j + 1) % 64 == 0) || j + step_size >= end) total += s, s = 0;
        }
        state->o[d] = state->sum == 0 ? total : fmaf(total, fresh, state->o[d] * old);
    }
    state->sum = state->sum == 0 ? sum : fmaf(sum, fresh, state->sum * old);
    state->max = most;
}

void attention_ordered(struct ordered *state, const float *q, int a, int b, const float *keys,
                       const float *values, size_t value_stride, int v_dim, int first, int end, int split,
                       float scale) {
    for (int next; first < end; first = next) {
        next = (first / split + 1) * split < end ? (first / split + 1) * split : end;
        ordered_split(state, q, a, b, keys, values, value_stride, v_dim, first, next, scale);
    }
}

float attention_ordered_finish(struct ordered *state, int v_dim) {
    for (int d = 0; d < v_dim; d++) state->o[d] = state->sum == 0 ? 0 : state->o[d] / state->sum;
    return state->sum == 0 ? -INFINITY : state->max + dr_ln(state->sum);
}

static struct rig init(int32_t n_thread, const struct dr_ops *ops) {
    struct rig r = {.ops = ops};
    DR_ASSERT(dr_team_create(n_thread, &r.team).code == DR_OK);
    r.stream.team = r.team;
    return r;
}

struct rig rig_init_table(int32_t n_thread, enum rig_table table) {
    const struct dr_ops *ops = NULL;
    dr_status st = table == RIG_ORACLE ? dr_ops_cpu(&ops)
                   : table == RIG_HERE ? dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_F32, &ops)
                                       : dr_ops_x86_simde(DR_ISA_AVX512, DR_PRECISION_F32, &ops);
    DR_ASSERT(st.code == DR_OK);
    return init(n_thread, ops);
}

struct rig rig_init_fast(int32_t n_thread, enum rig_fast table) {
    const struct dr_ops *ops = NULL;
    dr_status st = table == RIG_FAST_HERE         ? dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_FAST, &ops)
                   : table == RIG_FAST_AVX2       ? dr_ops_x86(DR_ISA_AVX2, DR_PRECISION_FAST, &ops)
                   : table == RIG_FAST_VNNI_SIMDE ? dr_ops_x86_simde(DR_ISA_VNNI, DR_PRECISION_FAST, &ops)
                                                  : dr_ops_x86_simde(DR_ISA_BF16, DR_PRECISION_FAST, &ops);
    DR_ASSERT(st.code == DR_OK);
    return init(n_thread, ops);
}

bool rig_has_bf16(void) {
    return dr_isa_here() == DR_ISA_BF16;
}

struct rig rig_init(int32_t n_thread) {
    return rig_init_table(n_thread, RIG_ORACLE);
}

void rig_scratch(struct pool *p, size_t bytes, void **scratch, size_t *scratch_bytes) {
    *scratch = pool_take(p, bytes);
    *scratch_bytes = bytes;
}

void rig_fini(struct rig *r) {
    dr_team_destroy(r->team);
    *r = (struct rig){0};
}

bool near_double(const float *got, const double *want, size_t n, double abs, double rel) {
    for (size_t i = 0; i < n; i++) {
        double g = (double)got[i], w = want[i];
        if (isnan(g) && isnan(w)) continue;
        if (isinf(w) ? g == w : fabs(g - w) <= abs + rel * fabs(w)) continue;
        printf("element %zu: got %.9g, want %.9g\n", i, g, w);
        return false;
    }
    return true;
}

bool same_floats(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0) {
            printf("element %zu: %a differs from %a\n", i, (double)a[i], (double)b[i]);
            return false;
        }
    return true;
}
