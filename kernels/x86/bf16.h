/* bf16.h - pairs of bfloat16 and their dot product.
 * In:   f32 numbers, E4M3 codes, pairs.      Out: pairs, sums.
 * Owns: nothing.
 * Why:  matrices and attention multiply in the same way, and tests must be able to run it without the
 * instruction.
 *
 * vdpbf16ps is documented as two fused multiply-adds, the high half of the pair first, rounding to nearest,
 * subnormal inputs and results taken as zero, without regard to MXCSR. */
#pragma once

#include <string.h>

#include "kernels/x86/vec.h"

/* acc + high(w) high(x) + low(w) low(x) in each of 16 lanes. */
DR_INLINE vf dr_bf16_dot(vf acc, vi w, vi x) {
#ifdef DR_SIMDE
    const vi high = vi_set((int32_t)0xffff0000);
    acc = vf_fma(vi_as_vf(vi_and(w, high)), vi_as_vf(vi_and(x, high)), acc);
    return vf_fma(vi_as_vf(vi_sll(w, 16)), vi_as_vf(vi_sll(x, 16)), acc);
#else
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x);
#endif
}

/* Nearest bfloat16, ties to even; NaN stays NaN. */
DR_INLINE uint16_t dr_bf16_of(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)(v != v ? (u >> 16 | 0x40) : rounded);
}

/* 32 numbers as pairs of neighbours: first[0], first[1], first[2] ... The instruction takes subnormal numbers
 * as zero; so does every product with them. */
DR_INLINE vi dr_bf16_pairs(vf first, vf second) {
#ifdef DR_SIMDE
    float in[32];
    uint16_t out[32];
    vf_store(in, first);
    vf_store(in + 16, second);
    for (int i = 0; i < 32; i++) out[i] = dr_bf16_of(in[i]);
    return vi_load(out);
#else
    return (vi)_mm512_cvtne2ps_pbh(second, first);
#endif
}

/* Pairs of lanes: (a[0], b[0]), (a[1], b[1]) ... */
DR_INLINE vi dr_bf16_join(vf a, vf b) {
    _Alignas(64) static const uint16_t turn[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                   21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                   11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    vi all = dr_bf16_pairs(a, b);
    return _mm512_permutex2var_epi16(all, vi_load(turn), all);
}

DR_INLINE vi dr_bf16_pair(const uint16_t *at) {
    int32_t pair;
    memcpy(&pair, at, sizeof pair);
    return vi_set(pair);
}

/* E4M3 to bfloat16 by two look-ups of 128 bytes: every code is a normal number there, so nothing is flushed.
 */
struct dr_bf16_decoder {
    vi low[2], high[2], sign, order;
};

static inline struct dr_bf16_decoder dr_bf16_decoder(void) {
    _Alignas(64) uint8_t low[128], high[128];
    _Alignas(64) static const uint8_t order[16] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
    for (int c = 0; c < 128; c++) {
        int e = c >> 3, m = c & 7, up = 0; /* code 0x7f is NaN and never stored */
        while (e == 0 && m != 0 && m << up < 8) up++;
        uint32_t bits = e > 0   ? (uint32_t)(e + 120) << 7 | (uint32_t)m << 4
                        : m > 0 ? (uint32_t)(121 - up) << 7 | (uint32_t)(m << up & 7) << 4
                                : 0;
        low[c] = (uint8_t)bits;
        high[c] = (uint8_t)(bits >> 8);
    }
    return (struct dr_bf16_decoder){
        .low = {vi_load(low), vi_load(low + 64)},
        .high = {vi_load(high), vi_load(high + 64)},
        .sign = _mm512_set1_epi8((char)0x80),
        .order = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)order)),
    };
}

/* A cell of 16 outputs x 4 inputs to the pairs (0, 1) and (2, 3) of each output. */
DR_INLINE void dr_bf16_decode(const struct dr_bf16_decoder *d, vi raw, vi *first, vi *second) {
    vi code = _mm512_shuffle_epi8(raw, d->order);
    vi low = _mm512_permutex2var_epi8(d->low[0], code, d->low[1]);
    vi high = _mm512_permutex2var_epi8(d->high[0], code, d->high[1]);
    high = _mm512_or_si512(high, vi_and(code, d->sign));
    *first = _mm512_unpacklo_epi8(low, high);
    *second = _mm512_unpackhi_epi8(low, high);
}
