/* exp.h - the project's own exponential, logarithm, sigmoid.
 * In:   a float.      Out: a float, the same bits on every machine, compiler and instruction set.
 * Owns: nothing.
 * Why:  libm's bits change with its version; softmax weights and sampling masses may not.
 *
 * dr_exp: x = n ln 2 + r with n = round(x log2 e), |r| <= ln 2 / 2 by a two-part ln 2 (the first part has 15
 * bits, so n times it is exact), e^r by a polynomial of degree 6 (interpolated at Chebyshev nodes; 1e-8
 * relative before rounding), times 2^n. Arguments are clamped to [-87, 88], where 2^n is a normal number. NaN
 * stays NaN. */
#pragma once

#include <math.h>
#include <stdint.h>

static inline float dr_exp(float x) {
    union {
        float f;
        uint32_t u;
    } shifted, scale;
    x = -87.0f > x ? -87.0f : x; /* in this order a NaN passes through */
    x = 88.0f < x ? 88.0f : x;
    shifted.f = fmaf(x, 0x1.715476p+0f, 0x1.8p23f); /* the sum's low bits are round(x log2 e) */
    float n = shifted.f - 0x1.8p23f;
    float r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = fmaf(r, 0x1.6d10fcp-10f, 0x1.120b62p-7f);
    p = fmaf(p, r, 0x1.55551ap-5f);
    p = fmaf(p, r, 0x1.5554dep-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r * r, r) + 1.0f;
    scale.u = (shifted.u - 0x4b400000u + 127u) << 23; /* 0x4b400000: the bits of 0x1.8p23f */
    return p * scale.f;
}

/* 1 / (1 + e^-x) */
static inline float dr_sigmoid(float x) {
    return 1.0f / (1.0f + dr_exp(-x));
}

/* x sigmoid(x) */
static inline float dr_silu(float x) {
    return x / (1.0f + dr_exp(-x));
}

#ifdef __cplusplus
extern "C" {
#endif

/* ln x; -inf for 0, NaN for NaN and below 0, +inf for +inf. */
float dr_ln(float x);

#ifdef __cplusplus
}
#endif
