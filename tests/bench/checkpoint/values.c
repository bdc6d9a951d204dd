/* values.c - see values.h.
 * In:   keys and ranges.      Out: bytes.
 * Owns: nothing.
 * Why:  see values.h. */
#include "tests/bench/checkpoint/values.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "common/rng.h"

enum { HALF = DR_VALUES_QUANTILES / 2, CODE_MAX = 126, WORD = 8 };

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors are little-endian");

static uint64_t word_of(uint64_t key, uint64_t i) {
    uint64_t z = key + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t dr_values_key(uint64_t seed, const char *name) {
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
    for (const char *p = name; *p; p++) h = (h ^ (uint8_t)*p) * 0x100000001B3u;
    return dr_rng_u64(seed, h, 0x636865636B706Fu);
}

/* e^-y for 0 <= y < 8: (e^(-y/64))^64, the inner one by its series; y/64 < 1/8, so 12 terms reach 1e-18 */
static double exp_minus(double y) {
    double x = -y / 64, sum = 1;
    for (int k = 12; k >= 1; k--) sum = 1 + sum * x / k;
    for (int k = 0; k < 6; k++) sum *= sum;
    return sum;
}

static double density(double z) {
    return 0.39894228040143268 * exp_minus(z * z / 2);
}

/* Area from 0 to z: density(z) x (z + z^3/3 + z^5/(3 x 5) + ...); 80 terms are enough for z < 4 */
static double area(double z) {
    double term = z, sum = z;
    for (int k = 1; k < 80; k++) {
        term *= z * z / (2 * k + 1);
        sum += term;
    }
    return density(z) * sum;
}

/* The z with area(z) = a, from a z below it: Newton on a concave curve, which comes from below and squares
 * its error; 8 steps are twice what the widest gap of the table needs. */
static double inverse_area(double a, double from) {
    double z = from;
    for (int k = 0; k < 8; k++) z -= (area(z) - a) / density(z);
    return z;
}

double dr_values_of_code(uint8_t code) {
    int e = code >> 3 & 15, m = code & 7;
    double unit = 0x1p-9; /* subnormals: m x 2^-9 */
    for (int k = 1; k < e; k++) unit *= 2;
    double v = (e ? 8 + m : m) * unit;
    return code & 128 ? -v : v;
}

static uint8_t nearest_code(double v) { /* v >= 0; ties go to the even code */
    int best = 0;
    for (int c = 1; c <= CODE_MAX; c++) {
        double d = fabs(dr_values_of_code((uint8_t)c) - v), d0 = fabs(dr_values_of_code((uint8_t)best) - v);
        if (d < d0 || (d == d0 && c % 2 == 0)) best = c;
    }
    return (uint8_t)best;
}

void dr_values_init(struct dr_values_tables *t) {
    double z = 0;
    for (int i = 0; i < HALF; i++) {
        z = inverse_area((i + 0.5) / DR_VALUES_QUANTILES, z);
        t->quantile[HALF + i] = z;
        t->quantile[HALF - 1 - i] = -z;
    }
    const int half = DR_VALUES_CODES / 2;
    double q[DR_VALUES_CODES / 2], sum = 0;
    z = 0;
    for (int i = 0; i < half; i++) q[i] = z = inverse_area((i + 0.5) / DR_VALUES_CODES, z);
    for (int i = 0; i < half; i++) { /* the outermost quantile becomes the largest code, 448 */
        uint8_t c = nearest_code(q[i] * (dr_values_of_code(CODE_MAX) / q[half - 1]));
        t->code[half + i] = c;
        t->code[half - 1 - i] = c | 128;
        sum += dr_values_of_code(c) * dr_values_of_code(c);
    }
    t->code_rms = sqrt(sum / half);
}

static uint16_t bf16_of(double value) {
    float f = (float)value;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16); /* to nearest even; the values are finite */
}

static uint64_t fp8_word(const struct dr_values_tables *t, uint64_t r) {
    uint64_t w = 0;
    for (int k = 0; k < WORD; k++) w |= (uint64_t)t->code[r >> 8 * k & 255] << 8 * k;
    return w;
}

static uint64_t bf16_word(const struct dr_values_lane *lane, uint64_t r) {
    uint64_t w = 0;
    for (int k = 0; k < 4; k++) w |= (uint64_t)lane->bf16[r >> (16 * k + 4) & 4095] << 16 * k;
    return w;
}

static float f32_of(const struct dr_values_tables *t, const struct dr_values *v, uint64_t r) {
    if (v->form == DR_VALUES_NORMAL) return (float)(v->mean + v->sigma * t->quantile[r >> 52]);
    const double spread = 0.25; /* the root mean square of 1 + spread x U(-1, 1) is sqrt(1 + spread^2 / 3) */
    double factor = 1 + spread * ((double)(r >> 40) * 0x1p-23 - 1);
    return (float)(v->sigma / t->code_rms * factor / sqrt(1 + spread * spread / 3));
}

static uint64_t f32_word(const struct dr_values_tables *t, const struct dr_values *v, uint64_t i) {
    float pair[2] = {f32_of(t, v, word_of(v->key, 2 * i)), f32_of(t, v, word_of(v->key, 2 * i + 1))};
    uint64_t w;
    memcpy(&w, pair, sizeof w);
    return w;
}

static void prepare(const struct dr_values_tables *t, struct dr_values_lane *lane,
                    const struct dr_values *v) {
    if (lane->filled && lane->mean == v->mean && lane->sigma == v->sigma) return;
    for (int k = 0; k < DR_VALUES_QUANTILES; k++)
        lane->bf16[k] = bf16_of(v->mean + v->sigma * t->quantile[k]);
    lane->mean = v->mean;
    lane->sigma = v->sigma;
    lane->filled = true;
}

/* Eight bytes: word i of the file, which for F32 is made of two words of the generator. */
static inline uint64_t word_at(const struct dr_values_tables *t, const struct dr_values_lane *lane,
                               const struct dr_values *v, uint64_t i) {
    if (v->dtype == DR_DTYPE_F8_E4M3) return fp8_word(t, word_of(v->key, i));
    if (v->dtype == DR_DTYPE_BF16) return bf16_word(lane, word_of(v->key, i));
    return f32_word(t, v, i);
}

void dr_values_fill(const struct dr_values_tables *t, struct dr_values_lane *lane, const struct dr_values *v,
                    uint64_t offset, size_t bytes, uint8_t *out) {
    DR_ASSERT(offset % WORD == 0);
    DR_ASSERT(v->dtype == DR_DTYPE_F8_E4M3 || v->dtype == DR_DTYPE_BF16 || v->dtype == DR_DTYPE_F32);
    if (v->dtype == DR_DTYPE_BF16) prepare(t, lane, v);
    uint64_t first = offset / WORD;
    size_t whole = bytes / WORD;
    for (size_t i = 0; i < whole; i++) {
        uint64_t w = word_at(t, lane, v, first + i);
        memcpy(out + WORD * i, &w, WORD);
    }
    uint64_t last = word_at(t, lane, v, first + whole);
    memcpy(out + WORD * whole, &last, bytes % WORD);
}
