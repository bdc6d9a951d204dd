/* attn_absorbed.c - attention in latent space, over the rows as they are cached, in f32.
 * In:   absorbed queries, page tables, cached rows.      Out: latent outputs with their log-sum-exp.
 * Owns: nothing.
 * Why:  see ops.h and attn_tile.h. Compiled twice: 8 lanes (AVX2) and 16 (AVX-512), both with the bits of
 * kernels/cpu.
 *
 * A thread takes (token, up to 64 heads) through all splits in order; or, when that gives too few pieces and
 * there is scratch, threads take (token, split, heads), and a second pass joins the parts in the same order
 * by the same additions. */
#include "kernels/x86/attn.h"

#include "kernels/x86/attn_run.h"
#include "kernels/x86/attn_tile.h"

/* Numbers [d, ...) of the rows, up to the next border of 128 or to the end of latent or key. */
static struct source chunk_of(const struct dr_cache_view *v, const uint8_t *const *row, int32_t d) {
    size_t lat = (size_t)v->kv_lora, at = (size_t)d, groups = (lat + DR_CACHE_GROUP - 1) / DR_CACHE_GROUP;
    struct source s = {.row = row, .at = 4 * at, .type = v->type};
    if (v->type == DR_ROW_BF16) s.at = 2 * at;
    if (v->type != DR_ROW_FP8) return s;
    s.at = at;
    s.scale = lat + 4 * (at / DR_CACHE_GROUP);
    if (at < lat) return s;
    return (struct source){.row = row, .at = lat + 4 * groups + 2 * (at - lat), .type = DR_ROW_BF16};
}

/* Rows of split `index`, if there is one, are fetched while the present split is computed. */
static void fetch_split(const struct dr_attn_absorbed *a, size_t t, int32_t index, struct work *w) {
    int64_t first = (int64_t)index * a->split_rows;
    int32_t n = first < a->n_visible[t] ? dr_min_i32(a->split_rows, a->n_visible[t] - (int32_t)first) : 0;
    if (n > 0) dr_attn_rows(a, t, (int32_t)first, n, w->next.row);
    fetch_begin(&w->next, n, a->cache.row_bytes,
                score_units(w, a->cache.kv_lora + a->cache.rope_dim) + value_units(w, a->cache.kv_lora));
}

/* Split `index` of row t enters the states of the item's heads; split `next` will be wanted afterwards. */
static void add_split(const struct dr_attn_absorbed *a, size_t t, int32_t index, int32_t next,
                      struct work *w) {
    const struct dr_cache_view *v = &a->cache;
    const uint8_t *row[SPLIT];
    int32_t lat = v->kv_lora, width = lat + v->rope_dim;
    w->first = index == 0 ? a->from : index * a->split_rows;
    w->n = dr_min_i32((index + 1) * a->split_rows, a->n_visible[t]) - w->first;
    if (w->n <= 0) return; /* only the row that nobody sees */
    dr_attn_rows(a, t, w->first, w->n, row);
    for (int32_t l = 0; l < w->n_query; l++) w->visible[l] = w->n;
    fetch_split(a, t, next, w);
    for (int32_t d = 0, dims; d < width; d += dims) { /* a chunk is latent or key, not both */
        struct source src = chunk_of(v, row, d);
        dims = dr_min_i32(CHUNK, (d < lat ? lat : width) - d);
        score_chunk(w, &src, d, dims);
    }
    softmax(w, a->scale);
    join_split(w);
    for (int32_t c = 0; c < lat; c += CHUNK) {
        struct source src = chunk_of(v, row, c);
        value_chunk(w, &src, c, dr_min_i32(CHUNK, lat - c));
    }
}

static void begin(const struct dr_attn_absorbed *a, size_t t, int32_t head0, int32_t n_head, struct work *w) {
    size_t width = (size_t)a->cache.kv_lora + (size_t)a->cache.rope_dim;
    const float *u = a->u + (t * (size_t)a->n_head + (size_t)head0) * width;
    w->n_query = n_head;
    clear_state(w);
    for (int32_t l = 0; l < n_head; l++) w->query[l] = u + (size_t)l * width;
}

static void whole_items(void *arg, int64_t first, int64_t end, int32_t thread) {
    const struct dr_attn_run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    struct work w;
    (void)thread;
    for (int64_t i = first; i < end; i++) {
        struct dr_attn_item item = dr_attn_item(run, i, 1);
        size_t row = item.t * (size_t)a->n_head + (size_t)item.head0;
        begin(a, item.t, item.head0, item.n_head, &w);
        for (int32_t l = 0; l < item.n_head; l++)
            w.o[l] = a->o + (row + (size_t)l) * (size_t)a->cache.kv_lora;
        for (int32_t index = 0; (int64_t)index * a->split_rows < a->n_visible[item.t]; index++)
            add_split(a, item.t, index, index + 1, &w);
        for (int32_t l = 0; l < item.n_head; l++)
            a->lse[row + (size_t)l] = finish(w.o[l], w.max[l], w.sum[l], a->cache.kv_lora);
    }
}

static void part_items(void *arg, int64_t first, int64_t end, int32_t thread) {
    const struct dr_attn_run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    struct work w;
    (void)thread;
    for (int64_t i = first; i < end; i++) {
        struct dr_attn_item item = dr_attn_item(run, i, run->n_split);
        int32_t lat = a->cache.kv_lora;
        begin(a, item.t, item.head0, item.n_head, &w);
        for (int32_t l = 0; l < item.n_head; l++)
            w.o[l] = dr_attn_part(run, item.t, item.split, item.head0 + l);
        if ((int64_t)(run->split0 + item.split) * a->split_rows < a->n_visible[item.t])
            add_split(a, item.t, run->split0 + item.split, run->split0 + dr_attn_next(run, i), &w);
        for (int32_t l = 0; l < item.n_head; l++) {
            w.o[l][lat] = w.max[l];
            w.o[l][lat + 1] = w.sum[l];
        }
    }
}

/* part enters o: o = part, or part * fresh + o * old. */
static void enter(float *o, const float *part, int32_t n, bool empty, float old, float fresh) {
    int32_t i = 0;
    if (empty) {
        memcpy(o, part, (size_t)n * sizeof *o);
        return;
    }
    for (; i + VL <= n; i += VL)
        vf_store(o + i, vf_fma(vf_load(part + i), vf_set(fresh), vf_mul(vf_load(o + i), vf_set(old))));
    for (; i < n; i++) o[i] = fmaf(part[i], fresh, o[i] * old);
}

/* Item = (token, head): the round's parts enter in order. */
static void join_items(void *arg, int64_t first, int64_t end, int32_t thread) {
    const struct dr_attn_run *run = arg;
    const struct dr_attn_absorbed *a = run->a;
    int32_t lat = a->cache.kv_lora;
    (void)thread;
    for (int64_t i = first; i < end; i++) {
        float *o = a->o + (size_t)i * (size_t)lat, *state = run->state + 2 * (size_t)i;
        float max = run->split0 > 0 ? state[0] : -INFINITY, sum = run->split0 > 0 ? state[1] : 0;
        for (int32_t split = 0; split < run->n_split; split++) {
            const float *part = dr_attn_part(run, (size_t)(i / a->n_head), split, (int32_t)(i % a->n_head));
            if (part[lat + 1] == 0) continue;
            struct dr_attn_enter e = dr_attn_enter(&max, &sum, part[lat], part[lat + 1]);
            enter(o, part, lat, e.empty, e.old, e.fresh);
        }
        state[0] = max;
        state[1] = sum;
        if (run->last) a->lse[i] = finish(o, max, sum, lat);
    }
}

dr_status DR_NAME(dr_x86_attn_absorbed)(const struct dr_attn_absorbed *a, struct dr_stream *s) {
    return dr_attn_divide(a, s, whole_items, part_items, join_items);
}
