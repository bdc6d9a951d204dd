/* quantise.c - values and F8 codes to 8-bit integers, a step for each output and 128 inputs.
 * In:   rows of f32 values or E4M3 codes.      Out: codes, steps.
 * Owns: a table of 16 KiB, made at the first use.
 * Why:  see weight.h. E4M3 codes grow with the size of their values, so the largest one gives a block's step
 * and decides what every other becomes: 126 rows of a table hold all answers, and no value is decoded. */
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "kernels/decode.h"
#include "kernels/weight.h"

/* Largest size of 128 values; *number false when one is infinite or NaN. */
static float block_top(const float *v, bool *number) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 peak = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    float most[8], top = 0;
    for (int i = 0; i < DR_BLOCK; i += 8) {
        __m256 x = _mm256_loadu_ps(v + i);
        peak = _mm256_max_ps(peak, _mm256_andnot_ps(sign, x));
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(_mm256_sub_ps(x, x), _mm256_setzero_ps(), _CMP_NEQ_UQ));
    }
    _mm256_storeu_ps(most, peak);
    for (int i = 0; i < 8; i++) top = most[i] > top ? most[i] : top;
    *number = _mm256_movemask_ps(odd) == 0;
    return top;
}

float dr_weight_round_block(const float *v, int8_t *code) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    bool number;
    float top = block_top(v, &number), inverse = number && top > 0 ? 127.0f / top : 0;
    if (!(inverse > 0 && inverse < INFINITY)) { /* zeros, or so small that they count as zeros */
        memset(code, 0, DR_BLOCK);
        return number ? 0 : NAN;
    }
    const __m256 by = _mm256_set1_ps(inverse);
    for (int i = 0; i < DR_BLOCK; i += 32) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i), by));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i + 8), by));
        __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i + 16), by));
        __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i + 24), by));
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        _mm256_storeu_si256((__m256i *)(void *)(code + i), _mm256_permutevar8x32_epi32(bytes, order));
    }
    return top / 127.0f;
}

enum { F8_SIZES = 127, F8_ROW = 128 }; /* codes without sign: 0x7f is no number */

static int8_t rounded[F8_SIZES][F8_ROW]; /* [largest code of the block][code] */
static float step_of[F8_SIZES];
static pthread_once_t table_made = PTHREAD_ONCE_INIT;

static void make_table(void) {
    uint8_t code[F8_ROW];
    float value[F8_ROW];
    for (int c = 0; c < F8_ROW; c++) code[c] = (uint8_t)(c < F8_SIZES ? c : 0);
    dr_decode(DR_W_F8, code, F8_ROW, value);
    for (int top = 0; top < F8_SIZES; top++) {
        float block[DR_BLOCK] = {0};
        memcpy(block, value, ((size_t)top + 1) * sizeof *block);
        step_of[top] = dr_weight_round_block(block, rounded[top]);
    }
}

static int largest(const uint8_t *code) {
    const __m256i size = _mm256_set1_epi8(0x7f);
    __m256i most = _mm256_setzero_si256();
    uint8_t all[32], top = 0;
    for (int i = 0; i < DR_BLOCK; i += 32) {
        __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)(code + i));
        most = _mm256_max_epu8(most, _mm256_and_si256(c, size));
    }
    _mm256_storeu_si256((__m256i *)(void *)all, most);
    for (int i = 0; i < 32; i++) top = all[i] > top ? all[i] : top;
    return top;
}

/* 32 codes by a row of the table: 8 look-ups of 16 bytes, of which the code's high bits choose one. */
static __m256i look_up(const __m256i *table, __m256i code) {
    const __m256i low = _mm256_and_si256(code, _mm256_set1_epi8(15));
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(code, 4), _mm256_set1_epi8(7));
    __m256i found = _mm256_setzero_si256();
    for (int h = 0; h < 8; h++) {
        __m256i mine = _mm256_cmpeq_epi8(high, _mm256_set1_epi8((char)h));
        found = _mm256_or_si256(found, _mm256_and_si256(mine, _mm256_shuffle_epi8(table[h], low)));
    }
    return _mm256_sign_epi8(found, _mm256_or_si256(code, _mm256_set1_epi8(1))); /* code 0 keeps its 0 */
}

/* How a block of 128 becomes codes; returns its step. */
typedef float round_fn(const void *block, int8_t *code);

static float round_values(const void *block, int8_t *code) {
    return dr_weight_round_block(block, code);
}

static float round_f8(const void *block, int8_t *code) {
    const uint8_t *from = block;
    int top = largest(from);
    const __m128i *row = (const __m128i *)(const void *)rounded[top];
    __m256i table[8];
    for (int h = 0; h < 8; h++) table[h] = _mm256_broadcastsi128_si256(_mm_loadu_si128(row + h));
    for (int i = 0; i < DR_BLOCK; i += 32) {
        __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)(from + i));
        _mm256_storeu_si256((__m256i *)(void *)(code + i), look_up(table, c));
    }
    return step_of[top];
}

/* Both forms: blocks of 128 elements of `bytes`, shorter ones filled with zeros. */
static inline int32_t quantise(const struct dr_weight *w, const void *row, size_t bytes, round_fn *round,
                               const float *factor, int8_t *code, float *scale) {
    int32_t n_block = dr_weight_blocks(w->n_in, w->phase);
    for (int32_t b = 0; b < n_block; b++) {
        int32_t k = dr_weight_block_input(w, b), len = dr_weight_block_input(w, b + 1) - k;
        const uint8_t *from = (const uint8_t *)row + (size_t)k * bytes;
        float step;
        if (len == DR_BLOCK) {
            step = round(from, code + k);
        } else {
            float part[DR_BLOCK] = {0};
            int8_t part_code[DR_BLOCK];
            memcpy(part, from, (size_t)len * bytes);
            step = round(part, part_code);
            memcpy(code + k, part_code, (size_t)len);
        }
        if (factor) step *= factor[b];
        if (!(step < INFINITY)) return b;
        scale[(size_t)b * (size_t)dr_weight_out_padded(w->n_out)] = step;
    }
    return -1;
}

int32_t dr_weight_quantise(const struct dr_weight *w, const float *row, const float *factor, int8_t *code,
                           float *scale) {
    return quantise(w, row, sizeof *row, round_values, factor, code, scale);
}

int32_t dr_weight_quantise_f8(const struct dr_weight *w, const uint8_t *row, const float *factor,
                              int8_t *code, float *scale) {
    (void)pthread_once(&table_made, make_table);
    return quantise(w, row, sizeof *row, round_f8, factor, code, scale);
}
