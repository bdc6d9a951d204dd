/* attn_run.h - how absorbed attention is divided among threads.
 * In:   op arguments, scratch.      Out: pieces of work and where their results lie.
 * Owns: nothing.
 * Why:  the f32 and the bf16 form differ in arithmetic alone. The scratch has the form of kernels/cpu.
 *
 * Many pieces (token, up to 64 heads): a thread takes one through all splits in order. Few pieces, and
 * scratch for two or more splits: threads take (token, split, heads) into parts, then (token, head) joins its
 * parts in order; in rounds of as many splits as the scratch holds. */
#pragma once

#include <math.h>

#include "common/size.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

enum { DR_ATTN_HEADS = 64, DR_ATTN_FEW_HEADS = 16 }; /* of a piece: most; least when heads are divided */

struct dr_attn_run {
    const struct dr_attn_absorbed *a;
    int32_t heads, n_group; /* of a piece; pieces of a token */
    int32_t n_split;        /* of a round */
    int32_t n_thread;
    int32_t split0; /* first split of the round */
    bool last;      /* round */
    float *part;    /* [n_tok, n_split, n_head, kv_lora + 2]: unnormalised output, max, sum */
    float *state;   /* [n_tok, n_head, 2]: max, sum so far */
};

struct dr_attn_item {
    size_t t;
    int32_t split, head0, n_head;
};

static inline struct dr_attn_item dr_attn_item(const struct dr_attn_run *run, int64_t i, int32_t n_split) {
    struct dr_attn_item item = {.t = (size_t)(i / run->n_group / n_split),
                                .split = (int32_t)(i / run->n_group % n_split),
                                .head0 = (int32_t)(i % run->n_group) * run->heads};
    item.n_head = dr_min_i32(run->heads, run->a->n_head - item.head0);
    return item;
}

/* The split of the same token that the thread will probably take after part i. */
static inline int32_t dr_attn_next(const struct dr_attn_run *run, int64_t i) {
    return (int32_t)((i / run->n_group % run->n_split * run->n_group + i % run->n_group + run->n_thread) /
                     run->n_group);
}

static inline float *dr_attn_part(const struct dr_attn_run *run, size_t t, int32_t split, int32_t head) {
    const struct dr_attn_absorbed *a = run->a;
    size_t row = (t * (size_t)run->n_split + (size_t)split) * (size_t)a->n_head + (size_t)head;
    return run->part + row * ((size_t)a->cache.kv_lora + 2);
}

/* Where the n stored rows of a split of row t begin. */
static inline void dr_attn_rows(const struct dr_attn_absorbed *a, size_t t, int32_t first, int32_t n,
                                const uint8_t **out) {
    const struct dr_cache_view *v = &a->cache;
    int32_t page = first / v->page_rows, row = first % v->page_rows;
    for (int32_t j = 0; j < n; j++) {
        out[j] = v->base + (size_t)a->table[t][page] * v->page_stride + (size_t)row * v->row_bytes;
        if (++row == v->page_rows) page++, row = 0;
    }
}

/* How a split's output enters a state: alone, or fresh * output + old * state's. */
struct dr_attn_enter {
    float old, fresh;
    bool empty;
};

/* Takes the split's largest score and sum (not 0) into those of the state. */
static inline struct dr_attn_enter dr_attn_enter(float *max, float *sum, float split_max, float split_sum) {
    struct dr_attn_enter e = {.empty = *sum == 0};
    if (e.empty) {
        *max = split_max;
        *sum = split_sum;
        return e;
    }
    float most = split_max > *max ? split_max : *max;
    e.old = dr_exp(*max - most);
    e.fresh = dr_exp(split_max - most);
    *max = most;
    *sum = fmaf(split_sum, e.fresh, *sum * e.old);
    return e;
}

/* Runs the pieces: whole (n_split 1), or parts and their joining. */
static inline dr_status dr_attn_divide(const struct dr_attn_absorbed *a, struct dr_stream *s,
                                       dr_team_fn *whole, dr_team_fn *part, dr_team_fn *join) {
    DR_ASSERT(a->split_rows >= 1 && a->split_rows <= DR_SPLIT_ROWS_MAX);
    if (a->n_tok == 0 || a->n_head == 0) return dr_ok();
    int32_t longest = 0, n_thread = dr_team_size(s->team);
    struct dr_attn_run run = {.a = a, .heads = DR_ATTN_HEADS, .n_thread = n_thread};
    for (int32_t t = 0; t < a->n_tok; t++) longest = dr_max_i32(longest, a->n_visible[t]);
    int32_t n_split = longest / a->split_rows + (longest % a->split_rows != 0);
    size_t row = (size_t)a->n_tok * (size_t)a->n_head, state = dr_size_align(2 * row, 16) * sizeof(float),
           split = row * ((size_t)a->cache.kv_lora + 2) * sizeof(float);
    size_t room = a->scratch && a->scratch_bytes > state ? (a->scratch_bytes - state) / split : 0;
    run.n_split = room < (size_t)n_split ? (int32_t)room : n_split;
    bool parts = run.n_split >= 2;
    /* Wide pieces share the widening of rows; half as many heads cost 4 %, a quarter 12 %. */
    int64_t want = n_thread > 1 ? 2 * (int64_t)n_thread : 1;
    int32_t least = parts ? DR_ATTN_HEADS / 2 : DR_ATTN_FEW_HEADS;
    while (run.heads > least && (int64_t)a->n_tok * dr_ceil_div(a->n_head, run.heads) < want) run.heads /= 2;
    parts = parts && (int64_t)a->n_tok * dr_ceil_div(a->n_head, run.heads) < want;
    if (parts)
        for (run.heads = DR_ATTN_HEADS; run.heads > DR_ATTN_FEW_HEADS;) {
            if ((int64_t)a->n_tok * dr_ceil_div(a->n_head, run.heads) * run.n_split >= 2 * want) break;
            run.heads /= 2;
        }
    run.n_group = dr_ceil_div(a->n_head, run.heads);
    int64_t items = (int64_t)a->n_tok * run.n_group;
    if (!parts) {
        dr_team_for(s->team, items, 1, whole, &run);
        return dr_ok();
    }
    run.state = a->scratch;
    run.part = run.state + state / sizeof(float);
    for (; run.split0 < n_split; run.split0 += run.n_split) {
        run.last = run.split0 + run.n_split >= n_split;
        dr_team_for(s->team, items * run.n_split, 1, part, &run);
        dr_team_for(s->team, (int64_t)a->n_tok * a->n_head, 4, join, &run);
    }
    return dr_ok();
}
