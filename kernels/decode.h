/* decode.h - stored numbers to f32, many at a time, and back.
 * In:   F32, BF16, F16 or F8_E4M3 elements.      Out: their exact f32 values; f32 rounded to BF16 or E4M3.
 * Owns: nothing.
 * Why:  weights, embedding rows and cache rows are widened by the same loops. */
#pragma once

#include "kernels/weight.h"

/* out[i] = element i; src needs no alignment. F8 NaN codes are not decoded (refused when packed, never
 * written to a cache). */
void dr_decode(enum dr_wtype t, const void *src, size_t n, float *out);

/* Rounds to nearest, ties to even; NaN stays NaN. */
uint16_t dr_encode_bf16(float v);

/* |v| <= 448 or beyond, finite: nearest E4M3, ties to even, at most 448 in size. */
uint8_t dr_encode_f8(float v);
