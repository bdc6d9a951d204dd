/* attention.c - see attention.h.
 * In:   one split of keys at a time.      Out: the running state.
 * Owns: nothing.
 * Why:  see attention.h. */
#include "kernels/cpu/attention.h"

#include <math.h>
#include <string.h>

#include "common/size.h"
#include "kernels/cpu/lanes.h"
#include "kernels/exp.h"

enum { LANES = DR_ATTN_LANES };

int32_t dr_attn_block(const struct dr_attn_split *s, int32_t j) {
    return dr_min_i32(DR_ATTN_BLOCK - (s->first + j) % DR_ATTN_BLOCK, s->n - j);
}

void dr_attn_pack_queries(float *out, const float *const *q, int32_t n_lane, int32_t dims) {
    memset(out, 0, (size_t)dims * LANES * sizeof *out);
    for (int32_t l = 0; l < n_lane; l++)
        for (int32_t d = 0; d < dims; d++) out[d * LANES + l] = q[l][d];
}

void dr_attn_score(struct dr_attn_split *s, int32_t j0, int32_t n, const float *packed, int32_t dims,
                   const float *keys, size_t key_stride) {
    float sum[DR_ATTN_BLOCK * LANES], *p = s->p + j0 * LANES;
    const float *row[DR_ATTN_BLOCK];
    if (n <= 0) return;
    for (int32_t i = 0; i < n; i++) row[i] = keys + (size_t)i * key_stride;
    dr_lanes_sum(packed, LANES, dims, row, 1, n, sum);
    for (int32_t i = 0; i < n * LANES; i++) p[i] += sum[i];
}

void dr_attn_softmax(struct dr_attn_split *s, float scale) {
    float max[LANES], sum[LANES] = {0};
    for (int l = 0; l < LANES; l++) max[l] = -INFINITY;
    for (int32_t j = 0; j < s->n; j++) {
        float *p = s->p + j * LANES;
        for (int l = 0; l < LANES; l++) {
            p[l] *= scale;
            float v = j < s->visible[l] ? p[l] : -INFINITY;
            max[l] = v > max[l] ? v : max[l];
        }
    }
    for (int32_t j = 0; j < s->n; j++) {
        float *p = s->p + j * LANES;
        for (int l = 0; l < LANES; l++) {
            float w = dr_exp(p[l] - max[l]);
            p[l] = j < s->visible[l] ? w : 0;
            sum[l] += p[l];
        }
    }
    memcpy(s->max, max, sizeof max);
    memcpy(s->sum, sum, sizeof sum);
}

void dr_attn_value(const struct dr_attn_split *s, int32_t j, int32_t n, const float *values,
                   size_t value_stride, float *total) {
    float sum[LANES * LANES];
    const float *p[LANES];
    /* Neighbours that see equally much of the block go together. A hidden key is left out, not weighted with
     * 0: 0 times NaN is NaN. */
    for (int32_t l = 0, run; l < s->n_lane; l += run) {
        int32_t len = dr_max_i32(0, dr_min_i32(n, s->visible[l] - j));
        for (run = 0; l + run < s->n_lane && dr_max_i32(0, dr_min_i32(n, s->visible[l + run] - j)) == len;
             run++)
            p[run] = s->p + j * LANES + l + run;
        if (len == 0) continue;
        dr_lanes_sum(values, value_stride, len, p, LANES, run, sum);
        for (int32_t i = 0; i < run * LANES; i++) total[l * LANES + i] += sum[i];
    }
}

struct dr_attn_join dr_attn_join(struct dr_attn_state *state, const float *max, const float *sum,
                                 const bool *seen) {
    struct dr_attn_join join = {.old = {0}};
    for (int l = 0; l < LANES; l++) {
        join.seen[l] = seen[l];
        if (!seen[l]) continue;
        join.empty[l] = state->sum[l] == 0;
        if (join.empty[l]) {
            state->max[l] = max[l];
            state->sum[l] = sum[l];
            continue;
        }
        float most = max[l] > state->max[l] ? max[l] : state->max[l];
        join.old[l] = dr_exp(state->max[l] - most);
        join.fresh[l] = dr_exp(max[l] - most);
        state->max[l] = most;
        state->sum[l] = fmaf(sum[l], join.fresh[l], state->sum[l] * join.old[l]);
    }
    return join;
}

void dr_attn_apply(const struct dr_attn_join *join, struct dr_attn_state *state, int32_t lane, int32_t first,
                   int32_t n, const float *total) {
    float *o = state->o[lane] + first, old = join->old[lane], fresh = join->fresh[lane];
    if (!join->seen[lane]) return;
    if (join->empty[lane])
        memcpy(o, total, (size_t)n * sizeof *o);
    else
        for (int32_t i = 0; i < n; i++) o[i] = fmaf(total[i], fresh, o[i] * old);
}

float dr_attn_finish(const struct dr_attn_state *state, int32_t lane, int32_t dim) {
    float *o = state->o[lane], sum = state->sum[lane];
    if (sum == 0) {
        memset(o, 0, (size_t)dim * sizeof *o);
        return -INFINITY;
    }
    for (int32_t i = 0; i < dim; i++) o[i] /= sum;
    return state->max[lane] + dr_ln(sum);
}
