/* rng.h - random numbers as a pure function of where they are used.
 * In:   a key (seed) and a counter (position, token id).      Out: 64 random bits, a uniform, a Gumbel.
 * Owns: nothing; there is no generator state.
 * Why:  the same request must draw the same numbers in any batch and on any cut of the vocabulary.
 *
 * The generator is Philox-4x32-10 (Salmon et al., SC 2011): a counter of 128 bits under a key of 64 bits. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 64 bits for (key, a, b). */
uint64_t dr_rng_u64(uint64_t key, uint64_t a, uint64_t b);

/* Uniform in (0, 1): never 0 and never 1, 24 bits. */
float dr_rng_uniform(uint64_t key, uint64_t a, uint64_t b);

/* Standard Gumbel, -ln(-ln u), with this project's own logarithm: equal bits on every machine. */
float dr_rng_gumbel(uint64_t key, uint64_t a, uint64_t b);

/* The same number when it is above d, else that number or -INFINITY: most of a vocabulary cannot win a draw,
 * and is told so without the two logarithms. tail: e^-d, or up to 1e-4 of it more. */
float dr_rng_gumbel_above(uint64_t key, uint64_t a, uint64_t b, float tail);

/* Seed of choice i of a request with n > 1. */
uint64_t dr_rng_derive(uint64_t key, uint64_t i);

/* 8 unpredictable bytes from the system (epoch ids, request ids, seeds that nobody gave). Aborts if it has
 * none. */
uint64_t dr_rng_system(void);

#ifdef __cplusplus
}
#endif
