/* attention.h - scores, weights and values of 16 queries over one split of keys.
 * In:   queries, keys, values.      Out: a running state (largest score, sum of weights, unnormalised
 * output). Owns: nothing. Why:  absorbed attention (16 heads of a token over one set of rows) and expanded
 * attention (16 tokens of a head) add in one order.
 *
 * Order: scores add over d in the order of d, in blocks of 128 from zero, then times the scale. A split's
 * weights are exp(score - its largest); outputs add over keys in order, in blocks from zero that end at key
 * numbers divisible by 64. Splits join the state in order. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DR_ATTN_LANES = 16, DR_ATTN_SPLIT = 256, DR_ATTN_BLOCK = 64, DR_ATTN_CHUNK = 128 };

/* The keys of one split as the 16 queries see them. */
struct dr_attn_split {
    float p[DR_ATTN_SPLIT * DR_ATTN_LANES]; /* [key][lane]: raw scores, then weights */
    int32_t n, first;                       /* keys; number of the first one, for the borders of blocks */
    int32_t n_lane;                         /* queries */
    int32_t visible[DR_ATTN_LANES];         /* lane sees keys [0, visible) of the split */
    float max[DR_ATTN_LANES], sum[DR_ATTN_LANES]; /* of visible keys, set by dr_attn_softmax */
};

struct dr_attn_state {
    float max[DR_ATTN_LANES], sum[DR_ATTN_LANES]; /* sum 0 and max -inf: empty */
    float *o[DR_ATTN_LANES];                      /* unnormalised; not read while empty */
};

/* How a split enters a state: o = old * o + fresh * total; a lane that sees none of it keeps everything. */
struct dr_attn_join {
    float old[DR_ATTN_LANES], fresh[DR_ATTN_LANES];
    bool seen[DR_ATTN_LANES], empty[DR_ATTN_LANES]; /* empty: the state was, so o is overwritten */
};

/* Keys [j, j + result) of the split form one block. */
int32_t dr_attn_block(const struct dr_attn_split *s, int32_t j);

/* out [dims][16]: queries q[lane][0..dims) side by side, lanes beyond n_lane zero. dims <= 128. */
void dr_attn_pack_queries(float *out, const float *const *q, int32_t n_lane, int32_t dims);

/* p[j0 + i][lane] += sum over d < dims <= 128 of key i's d times the query's d; n <= 64 keys. The first chunk
 * starts from p = 0. */
void dr_attn_score(struct dr_attn_split *s, int32_t j0, int32_t n, const float *packed, int32_t dims,
                   const float *keys, size_t key_stride);

void dr_attn_softmax(struct dr_attn_split *s, float scale);

/* total[lane][16] += weighted sum over the block [j, j + n) of 16 value columns; values of key j at
 * values[0]. */
void dr_attn_value(const struct dr_attn_split *s, int32_t j, int32_t n, const float *values,
                   size_t value_stride, float *total);

/* Takes the split's max and sum into the state and says how totals enter o. */
struct dr_attn_join dr_attn_join(struct dr_attn_state *state, const float *max, const float *sum,
                                 const bool *seen);

/* Columns [first, first + n) of the lane: n totals enter o. */
void dr_attn_apply(const struct dr_attn_join *join, struct dr_attn_state *state, int32_t lane, int32_t first,
                   int32_t n, const float *total);

/* o[0..dim) /= sum and the lane's log-sum-exp; an empty lane gives zeros and -inf. */
float dr_attn_finish(const struct dr_attn_state *state, int32_t lane, int32_t dim);
