/* vec.h - one vocabulary for vectors of 8 (AVX2) and 16 (AVX-512) 32-bit lanes.
 * In:   the macro DR_VL from the build, 8 or 16.      Out: names for the few instructions that the kernels
 * use. Owns: nothing. Why:  the f32 kernels are written once and compiled for both widths; lanes are outputs,
 * so the width cannot be seen in a result.
 *
 * With DR_SIMDE the AVX-512 names come from SIMDe, which runs them on AVX2: that is how tests execute code
 * for processors they do not have. */
#pragma once

#include <stdint.h>

#ifdef DR_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#else
#include <immintrin.h>
#endif

#define DR_INLINE static inline __attribute__((always_inline))
#ifdef DR_SIMDE /* registers are memory there, and unrolled emulation takes minutes to compile */
#define DR_UNROLL
#else
#define DR_UNROLL _Pragma("GCC unroll 32")
#endif

#if DR_VL == 16

typedef __m512 vf;
typedef __m512i vi;

#ifdef DR_BF16 /* with the dot product of bfloat16 */
#define DR_NAME(base) base##_bf16
#else
#define DR_NAME(base) base##_avx512
#endif
enum { VL = 16 };

DR_INLINE vf vf_zero(void) {
    return _mm512_setzero_ps();
}
DR_INLINE vf vf_set(float x) {
    return _mm512_set1_ps(x);
}
DR_INLINE vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
DR_INLINE void vf_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
DR_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
DR_INLINE vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
DR_INLINE vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
DR_INLINE vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
DR_INLINE vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
DR_INLINE vi vi_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
DR_INLINE vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
#define vi_sll(a, n) _mm512_slli_epi32(a, n)
#ifdef DR_SIMDE /* which lacks the instruction */
DR_INLINE vi vi_sra(vi a, int n) {
    int32_t in[16];
    _mm512_storeu_si512(in, a);
    for (int i = 0; i < 16; i++) in[i] >>= n;
    return _mm512_loadu_si512(in);
}
#else
#define vi_sra(a, n) _mm512_srai_epi32(a, n)
#endif
DR_INLINE vf vi_as_vf(vi a) {
    return _mm512_castsi512_ps(a);
}
DR_INLINE vf vi_to_vf(vi a) {
#ifdef DR_SIMDE /* which lacks the instruction */
    int32_t in[16];
    float out[16];
    _mm512_storeu_si512(in, a);
    for (int i = 0; i < 16; i++) out[i] = (float)in[i];
    return _mm512_loadu_ps(out);
#else
    return _mm512_cvtepi32_ps(a);
#endif
}
/* The low 16 bits of each lane as binary16. */
DR_INLINE vf vi_half(vi a) {
#ifdef DR_SIMDE /* which lacks the instructions */
    uint32_t in[16];
    uint16_t half[16];
    float out[16];
    _mm512_storeu_si512(in, a);
    for (int i = 0; i < 16; i++) half[i] = (uint16_t)in[i];
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(out + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(half + i))));
    return _mm512_loadu_ps(out);
#else
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
#endif
}

DR_INLINE vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
DR_INLINE vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
/* a < b ? a : b, as vf_max is a > b ? a : b: with a NaN among them the second. */
DR_INLINE vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
/* bound > x ? yes : no */
DR_INLINE vf vf_if_above(vi bound, vi x, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmpgt_epi32_mask(bound, x), no, yes);
}
DR_INLINE vi vi_add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
DR_INLINE vi vf_as_vi(vf a) {
    return _mm512_castps_si512(a);
}
/* 16 numbers of 16 bits, unsigned. */
DR_INLINE vi vi_load_u16(const void *p) {
#ifdef DR_SIMDE /* which lacks the instruction */
    const __m128i *at = (const __m128i *)p;
    __m512i low = _mm512_castsi256_si512(_mm256_cvtepu16_epi32(_mm_loadu_si128(at)));
    return _mm512_inserti64x4(low, _mm256_cvtepu16_epi32(_mm_loadu_si128(at + 1)), 1);
#else
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
#endif
}
/* 16 numbers of 8 bits, signed. */
DR_INLINE vi vi_load_i8(const void *p) {
#ifdef DR_SIMDE /* which lacks the instruction */
    __m128i all = _mm_loadu_si128((const __m128i *)p);
    __m512i low = _mm512_castsi256_si512(_mm256_cvtepi8_epi32(all));
    return _mm512_inserti64x4(low, _mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)), 1);
#else
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
#endif
}

#else

typedef __m256 vf;
typedef __m256i vi;

#define DR_NAME(base) base##_avx2
enum { VL = 8 };

DR_INLINE vf vf_zero(void) {
    return _mm256_setzero_ps();
}
DR_INLINE vf vf_set(float x) {
    return _mm256_set1_ps(x);
}
DR_INLINE vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
DR_INLINE void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
DR_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
DR_INLINE vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
DR_INLINE vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
DR_INLINE vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
DR_INLINE vi vi_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
DR_INLINE vi vi_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
DR_INLINE vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
#define vi_sll(a, n)  _mm256_slli_epi32(a, n)
#define vi_sra(a, n)  _mm256_srai_epi32(a, n)
DR_INLINE vf vi_as_vf(vi a) {
    return _mm256_castsi256_ps(a);
}
DR_INLINE vf vi_to_vf(vi a) {
    return _mm256_cvtepi32_ps(a);
}
DR_INLINE vf vi_half(vi a) {
    __m256i low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
DR_INLINE vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
DR_INLINE vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
/* a < b ? a : b, as vf_max is a > b ? a : b: with a NaN among them the second. */
DR_INLINE vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
/* bound > x ? yes : no */
DR_INLINE vf vf_if_above(vi bound, vi x, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, x)));
}
DR_INLINE vi vi_add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
DR_INLINE vi vf_as_vi(vf a) {
    return _mm256_castps_si256(a);
}
/* 8 numbers of 16 bits, unsigned. */
DR_INLINE vi vi_load_u16(const void *p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
}
/* 8 numbers of 8 bits, signed. */
DR_INLINE vi vi_load_i8(const void *p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

#endif

/* dr_exp of kernels/exp.h in every lane: the same operations, the same bits. */
DR_INLINE vf vf_exp(vf x) {
    const vf half = vf_set(0.5f), one = vf_set(1.0f), round = vf_set(0x1.8p23f);
    x = vf_min(vf_set(88.0f), vf_max(vf_set(-87.0f), x));
    vf shifted = vf_fma(x, vf_set(0x1.715476p+0f), round);
    vf n = vf_sub(shifted, round);
    vf r = vf_fma(n, vf_set(-0x1.62e4p-1f), x);
    r = vf_fma(n, vf_set(-0x1.7f7d1cp-20f), r);
    vf p = vf_fma(r, vf_set(0x1.6d10fcp-10f), vf_set(0x1.120b62p-7f));
    p = vf_fma(p, r, vf_set(0x1.55551ap-5f));
    p = vf_fma(p, r, vf_set(0x1.5554dep-3f));
    p = vf_fma(p, r, half);
    p = vf_add(vf_fma(p, vf_mul(r, r), r), one);
    return vf_mul(p, vi_as_vf(vi_sll(vi_add(vf_as_vi(shifted), vi_set(127 - 0x4b400000)), 23)));
}
