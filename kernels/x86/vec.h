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
#define DR_UNROLL _Pragma("GCC unroll 32")

#if DR_VL == 16

typedef __m512 vf;
typedef __m512i vi;

#define DR_NAME(base) base##_avx512
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

#endif
