/* attn_absorbed.c - attention in latent space, over the rows as they are cached.
 * In:   absorbed queries, page tables, cached rows.      Out: latent outputs with their log-sum-exp.
 * Owns: nothing.
 * Why:  see ops.h; all heads share one key and value row, so 16 heads lie in lanes and a row is widened once
 * for all of them.
 *
 * One thread takes (token, 16 heads) through all splits in order; or, when that gives too few pieces and
 * there is scratch, threads take (token, split, 16 heads), and a second pass joins the parts in the same
 * order by the same additions. */
#include "kernels/cpu/cpu.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cache.h"

enum { LANES = DR_ATTN_LANES };
static_assert((int)DR_SPLIT_ROWS_MAX == (int)DR_ATTN_SPLIT, "a split's weights lie on the stack");

struct run {
    const struct dr_attn_absorbed *a;
    int32_t n_group; /* of 16 heads */
    int32_t n_split; /* of a round */
    int32_t split0;  /* first split of the round */
    bool last;       /* round */
    float *part;     /* [n_tok, n_split, n_head, kv_lora + 2]: unnormalised output, max, sum */
    float *state;    /* [n_tok, n_head, 2]: max, sum so far */
};

/* n rows from local row j, numbers [d, d + dims), padded with zeros to `stride`. */
static void load_rows(const struct dr_attn_absorbed *a, size_t t, int32_t j, int32_t n, int32_t d,
                      int32_t dims, int32_t stride, float *out) {
    const struct dr_cache_view *v = &a->cache;
    int32_t page = j / v->page_rows, row = j % v->page_rows;
    for (int32_t i = 0; i < n; i++, out += stride) {
        const uint8_t *at = v->base + (size_t)a->table[t][page] * v->page_stride + (size_t)row * v->row_bytes;
        dr_cache_decode(v, at, d, dims, out);
        for (int32_t pad = dims; pad < stride; pad++) out[pad] = 0;
        if (++row == v->page_rows) page++, row = 0;
    }
}

static void score_split(const struct dr_attn_absorbed *a, size_t t, int32_t head0, struct dr_attn_split *s,
                        float *rows) {
    float packed[DR_ATTN_CHUNK * LANES];
    const float *q[LANES];
    int32_t lat = a->cache.kv_lora, width = lat + a->cache.rope_dim;
    memset(s->p, 0, (size_t)s->n * LANES * sizeof *s->p);
    for (int32_t d = 0, dims; d < width; d += dims) {
        dims =
            dr_min_i32(DR_ATTN_CHUNK, (d < lat ? lat : width) - d); /* a chunk is latent or key, not both */
        for (int32_t l = 0; l < s->n_lane; l++)
            q[l] = a->u + (t * (size_t)a->n_head + (size_t)(head0 + l)) * (size_t)width + (size_t)d;
        dr_attn_pack_queries(packed, q, s->n_lane, dims);
        for (int32_t j = 0, n; j < s->n; j += n) {
            n = dr_attn_block(s, j);
            load_rows(a, t, s->first + j, n, d, dims, dims, rows);
            dr_attn_score(s, j, n, packed, dims, rows, (size_t)dims);
        }
    }
}

static void value_split(const struct dr_attn_absorbed *a, size_t t, const struct dr_attn_split *s,
                        const struct dr_attn_join *join, struct dr_attn_state *state, float *rows) {
    float total[DR_ATTN_CHUNK / LANES][LANES * LANES]; /* [strip of columns][lane][column] */
    int32_t lat = a->cache.kv_lora;
    for (int32_t c = 0; c < lat; c += DR_ATTN_CHUNK) {
        int32_t dims = dr_min_i32(DR_ATTN_CHUNK, lat - c), n_strip = dr_ceil_div(dims, LANES),
                stride = n_strip * LANES;
        memset(total, 0, sizeof total);
        for (int32_t j = 0, n; j < s->n; j += n) {
            n = dr_attn_block(s, j);
            load_rows(a, t, s->first + j, n, c, dims, stride, rows);
            for (int32_t i = 0; i < n_strip; i++)
                dr_attn_value(s, j, n, rows + i * LANES, (size_t)stride, total[i]);
        }
        for (int32_t l = 0; l < s->n_lane; l++)
            for (int32_t i = 0; i < n_strip; i++)
                dr_attn_apply(join, state, l, c + i * LANES, dr_min_i32(LANES, dims - i * LANES),
                              total[i] + l * LANES);
    }
}

/* Split `index` of row t, heads head0 .. head0 + n_lane - 1, enters the state. */
static void add_split(const struct dr_attn_absorbed *a, size_t t, int32_t head0, int32_t n_lane,
                      int32_t index, struct dr_attn_state *state) {
    struct dr_attn_split s = {.first = index == 0 ? a->from : index * a->split_rows, .n_lane = n_lane};
    float rows[DR_ATTN_BLOCK * DR_ATTN_CHUNK];
    bool seen[LANES];
    s.n = dr_min_i32((index + 1) * a->split_rows, a->n_visible[t]) - s.first;
    if (s.n <= 0) return; /* only the row that nobody sees */
    for (int l = 0; l < LANES; l++) {
        s.visible[l] = l < n_lane ? s.n : 0;
        seen[l] = l < n_lane;
    }
    score_split(a, t, head0, &s, rows);
    dr_attn_softmax(&s, a->scale);
    struct dr_attn_join join = dr_attn_join(state, s.max, s.sum, seen);
    value_split(a, t, &s, &join, state, rows);
}

static struct dr_attn_state empty_state(void) {
    struct dr_attn_state state = {.sum = {0}};
    for (int l = 0; l < LANES; l++) state.max[l] = -INFINITY;
    return state;
}

static void whole_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        size_t t = (size_t)(i / run->n_group);
        int32_t head0 = (int32_t)(i % run->n_group) * LANES, n_lane = dr_min_i32(LANES, a->n_head - head0);
        size_t row = t * (size_t)a->n_head + (size_t)head0;
        struct dr_attn_state state = empty_state();
        for (int32_t l = 0; l < n_lane; l++) state.o[l] = a->o + (row + (size_t)l) * (size_t)a->cache.kv_lora;
        for (int32_t index = 0; index * a->split_rows < a->n_visible[t]; index++)
            add_split(a, t, head0, n_lane, index, &state);
        for (int32_t l = 0; l < n_lane; l++)
            a->lse[row + (size_t)l] = dr_attn_finish(&state, l, a->cache.kv_lora);
    }
}

static float *part_of(const struct run *run, size_t t, int32_t split, int32_t head) {
    const struct dr_attn_absorbed *a = run->a;
    size_t row = (t * (size_t)run->n_split + (size_t)split) * (size_t)a->n_head + (size_t)head;
    return run->part + row * ((size_t)a->cache.kv_lora + 2);
}

static void part_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    int32_t lat = a->cache.kv_lora;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        size_t t = (size_t)(i / run->n_group / run->n_split);
        int32_t split = (int32_t)(i / run->n_group % run->n_split), index = run->split0 + split;
        int32_t head0 = (int32_t)(i % run->n_group) * LANES, n_lane = dr_min_i32(LANES, a->n_head - head0);
        struct dr_attn_state state = empty_state();
        for (int32_t l = 0; l < n_lane; l++) state.o[l] = part_of(run, t, split, head0 + l);
        if ((int64_t)index * a->split_rows < a->n_visible[t]) add_split(a, t, head0, n_lane, index, &state);
        for (int32_t l = 0; l < n_lane; l++) {
            state.o[l][lat] = state.max[l];
            state.o[l][lat + 1] = state.sum[l];
        }
    }
}

/* Item = (token, head): the round's parts enter in order. */
static void join_items(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    int32_t lat = a->cache.kv_lora;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        size_t t = (size_t)(i / a->n_head);
        int32_t head = (int32_t)(i % a->n_head);
        float *saved = run->state + 2 * (size_t)i;
        struct dr_attn_state state = empty_state();
        state.o[0] = a->o + (size_t)i * (size_t)lat;
        if (run->split0 > 0) {
            state.max[0] = saved[0];
            state.sum[0] = saved[1];
        }
        for (int32_t split = 0; split < run->n_split; split++) {
            const float *part = part_of(run, t, split, head);
            float max[LANES] = {part[lat]}, sum[LANES] = {part[lat + 1]};
            bool seen[LANES] = {sum[0] != 0};
            struct dr_attn_join join = dr_attn_join(&state, max, sum, seen);
            dr_attn_apply(&join, &state, 0, 0, lat, part);
        }
        saved[0] = state.max[0];
        saved[1] = state.sum[0];
        if (run->last) a->lse[i] = dr_attn_finish(&state, 0, lat);
    }
}

static size_t state_floats(int32_t n_tok, int32_t n_head) {
    return dr_size_align((size_t)n_tok * (size_t)n_head * 2, 16);
}

static size_t part_floats(int32_t n_tok, int32_t n_head, int32_t kv_lora) { /* of one split */
    return (size_t)n_tok * (size_t)n_head * ((size_t)kv_lora + 2);
}

size_t dr_attn_absorbed_scratch_bytes(int32_t n_tok, int32_t n_head, int32_t kv_lora, int32_t n_split) {
    size_t floats = state_floats(n_tok, n_head) + part_floats(n_tok, n_head, kv_lora) * (size_t)n_split;
    return dr_size_align(floats * sizeof(float), 64);
}

dr_status dr_cpu_attn_absorbed(const struct dr_attn_absorbed *a, struct dr_stream *s) {
    DR_ASSERT(a->split_rows >= 1 && a->split_rows <= DR_SPLIT_ROWS_MAX);
    if (a->n_tok == 0 || a->n_head == 0) return dr_ok();
    struct run run = {.a = a, .n_group = dr_ceil_div(a->n_head, LANES)};
    int32_t longest = 0;
    for (int32_t t = 0; t < a->n_tok; t++) longest = dr_max_i32(longest, a->n_visible[t]);
    int32_t n_split = longest / a->split_rows + (longest % a->split_rows != 0);
    int64_t items = (int64_t)a->n_tok * run.n_group;
    size_t fixed = state_floats(a->n_tok, a->n_head) * sizeof(float);
    size_t room = a->scratch && a->scratch_bytes > fixed
                      ? (a->scratch_bytes - fixed) /
                            (part_floats(a->n_tok, a->n_head, a->cache.kv_lora) * sizeof(float))
                      : 0;
    run.n_split = room < (size_t)n_split ? (int32_t)room : n_split;
    int32_t n_thread = dr_team_size(s->team);
    if (n_thread == 1 || items >= 2 * (int64_t)n_thread || run.n_split < 2) {
        dr_team_for(s->team, items, 1, whole_items, &run);
        return dr_ok();
    }
    run.state = a->scratch;
    run.part = run.state + state_floats(a->n_tok, a->n_head);
    for (; run.split0 < n_split; run.split0 += run.n_split) {
        run.last = run.split0 + run.n_split >= n_split;
        dr_team_for(s->team, items * run.n_split, 1, part_items, &run);
        dr_team_for(s->team, (int64_t)a->n_tok * a->n_head, 4, join_items, &run);
    }
    return dr_ok();
}
