/* size.h - sizes that cannot overflow silently.
 * In:   counts from outside.      Out: products and sums, or false.
 * Owns: nothing.
 * Why:  every length read from a file or a socket passes here before it is used to allocate or to index. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool dr_size_mul(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool dr_size_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

static inline size_t dr_size_align(size_t n, size_t to) { /* to: a power of two */
    return (n + to - 1) & ~(to - 1);
}

static inline int32_t dr_ceil_div(int32_t a, int32_t b) { /* a >= 0, b > 0 */
    return (a + b - 1) / b;
}

static inline int32_t dr_min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static inline int32_t dr_max_i32(int32_t a, int32_t b) {
    return a > b ? a : b;
}
