/* decode.c - see decode.h.
 * In:   stored numbers.      Out: f32 numbers.
 * Owns: nothing.
 * Why:  plain loops of shifts and one multiplication, which the compiler turns into vector code.
 *
 * A small float format becomes f32 by moving its exponent and mantissa bits into place: the result is the
 * value times 2^-(127 - bias), subnormals included (they become f32 subnormals, so denormals must not be
 * flushed); one exact multiplication repairs the exponent. */
#include "kernels/decode.h"

#include <math.h>
#include <string.h>

static inline float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void decode_bf16(const uint8_t *restrict src, size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = float_of((uint32_t)h << 16);
    }
}

static void decode_f16(const uint8_t *restrict src, size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
        uint32_t number = bits_of(float_of(rest) * 0x1p112f); /* bias 15 against 127 */
        uint32_t special = rest | 0x7f800000u;                /* infinity, NaN */
        out[i] = float_of(sign | (rest >= 0x0f800000u ? special : number));
    }
}

static void decode_f8(const uint8_t *restrict src, size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t code = (uint32_t)(int32_t)(int8_t)src[i] << 20; /* the sign fills bits 27 to 31 */
        out[i] = float_of(code & 0x87f00000u) * 0x1p120f;        /* bias 7 against 127 */
    }
}

static void decode_i8(const uint8_t *restrict src, size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++) out[i] = (float)(int8_t)src[i];
}

void dr_decode(enum dr_wtype t, const void *src, size_t n, float *out) {
    switch (t) {
    case DR_W_F32:
        memcpy(out, src, n * sizeof *out);
        return;
    case DR_W_BF16:
        decode_bf16(src, n, out);
        return;
    case DR_W_F16:
        decode_f16(src, n, out);
        return;
    case DR_W_F8:
        decode_f8(src, n, out);
        return;
    case DR_W_I8:
        decode_i8(src, n, out);
        return;
    case DR_W_COUNT:
        break;
    }
    DR_ASSERT(!"a weight type");
}

uint16_t dr_encode_bf16(float v) {
    uint32_t u = bits_of(v);
    if (v != v) return (uint16_t)(u >> 16 | 0x40); /* quiet, and never rounded to infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

uint8_t dr_encode_f8(float v) {
    uint32_t u = bits_of(v), sign = u >> 24 & 0x80;
    float size = fabsf(v);
    if (size < 0x1p-6f) { /* steps of 2^-9; eight of them are the smallest normal number, whose code is 8 */
        float steps = (size * 512.0f + 0x1p23f) - 0x1p23f;
        return (uint8_t)(sign | (uint32_t)steps);
    }
    u &= 0x7fffffff;
    uint32_t code =
        ((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120u << 3); /* exponent bias 127 to 7, three bits left */
    return (uint8_t)(sign | (code > 0x7e ? 0x7e : code));
}
