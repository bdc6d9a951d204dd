/* values.h - the random numbers of a checkpoint, as a pure function of where they stand.
 * In:   a tensor's key, type and spread, and a range of its bytes.      Out: these bytes.
 * Owns: nothing; the tables live in the caller's storage.
 * Why:  any thread may write any piece of a tensor, and the file's bytes are the same on every machine.
 *
 * Definition. Word i of a tensor is mix(key + (i + 1) x 0x9E3779B97F4A7C15), mix being the last step of
 * splitmix64 (Steele, Lea, Flood, OOPSLA 2014). An FP8 tensor takes eight values from a word, byte 0 first;
 * BF16 takes four, the upper 12 bits of each half of a half, lowest first; F32 takes one, from the top bits.
 * The bits choose a quantile of the standard normal distribution, (index + 1/2) / n. Only +, -, x, / and
 * square roots are used, so that no mathematical library has a say. */
#pragma once

#include "model/tensors.h"

enum {
    DR_VALUES_CODES = 256,      /* quantiles of an FP8 tensor: out to 2.9 sigma */
    DR_VALUES_QUANTILES = 4096, /* of the others: out to 3.7 sigma */
};

struct dr_values_tables {
    double quantile[DR_VALUES_QUANTILES]; /* ascending, symmetric */
    uint8_t code[DR_VALUES_CODES];        /* E4M3, ascending values, -448 to 448, none of them NaN */
    double code_rms;                      /* of the codes' values */
};

enum dr_values_form { DR_VALUES_NORMAL, DR_VALUES_SCALES };

/* What a tensor holds. NORMAL: mean + sigma x normal, in BF16 or F32; in FP8 the codes, whose size is left to
 * the scales. SCALES (F32): block scales that give codes the spread sigma, each another one within +-25 %. */
struct dr_values {
    uint64_t key;
    enum dr_dtype dtype;
    enum dr_values_form form;
    double mean, sigma;
};

/* One thread's scratch; zero is valid. */
struct dr_values_lane {
    bool filled;
    double mean, sigma; /* of the table */
    uint16_t bf16[DR_VALUES_QUANTILES];
};

void dr_values_init(struct dr_values_tables *t);

/* The key of a tensor: of the checkpoint's seed and the tensor's name. */
uint64_t dr_values_key(uint64_t seed, const char *name);

/* Bytes [offset, offset + bytes) of the tensor into out. offset: a multiple of 8. */
void dr_values_fill(const struct dr_values_tables *t, struct dr_values_lane *lane, const struct dr_values *v,
                    uint64_t offset, size_t bytes, uint8_t *out);

/* The value of an E4M3 code that is no NaN. */
double dr_values_of_code(uint8_t code);
