/* cache.c - the latent cache: store, collect, widen.
 * In:   latents and rotated keys; stored rows.      Out: stored rows; f32 rows.
 * Owns: nothing.
 * Why:  see ops.h and cache.h. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/cache.h"
#include "kernels/decode.h"

static size_t groups(const struct dr_cache_view *v) {
    return (size_t)dr_ceil_div(v->kv_lora, DR_CACHE_GROUP);
}

size_t dr_cache_row_used(const struct dr_cache_view *v) {
    size_t lat = (size_t)v->kv_lora, key = (size_t)v->rope_dim;
    switch (v->type) {
    case DR_ROW_F32:
        return 4 * (lat + key);
    case DR_ROW_BF16:
        return 2 * (lat + key);
    case DR_ROW_FP8:
        return lat + 4 * groups(v) + 2 * key;
    }
    DR_ASSERT(!"a row type");
    return 0;
}

static const uint8_t *row_at(const struct dr_cache_view *v, const uint32_t *table, int32_t i) {
    return v->base + (size_t)table[i / v->page_rows] * v->page_stride +
           (size_t)(i % v->page_rows) * v->row_bytes;
}

static void decode_fp8(const struct dr_cache_view *v, const uint8_t *row, int32_t first, int32_t n,
                       float *out) {
    const uint8_t *scales = row + v->kv_lora;
    if (first >= v->kv_lora) {
        const uint8_t *key = scales + 4 * groups(v);
        dr_decode(DR_W_BF16, key + 2 * (size_t)(first - v->kv_lora), (size_t)n, out);
        return;
    }
    dr_decode(DR_W_F8, row + first, (size_t)n, out);
    for (int32_t i = 0; i < n;) {
        int32_t group = (first + i) / DR_CACHE_GROUP,
                end = dr_min_i32((group + 1) * DR_CACHE_GROUP - first, n);
        float scale;
        memcpy(&scale, scales + 4 * (size_t)group, sizeof scale);
        for (; i < end; i++) out[i] *= scale;
    }
}

void dr_cache_decode(const struct dr_cache_view *v, const uint8_t *row, int32_t first, int32_t n,
                     float *out) {
    switch (v->type) {
    case DR_ROW_F32:
        dr_decode(DR_W_F32, row + 4 * (size_t)first, (size_t)n, out);
        return;
    case DR_ROW_BF16:
        dr_decode(DR_W_BF16, row + 2 * (size_t)first, (size_t)n, out);
        return;
    case DR_ROW_FP8:
        decode_fp8(v, row, first, n, out);
        return;
    }
    DR_ASSERT(!"a row type");
}

static void encode_bf16(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h = dr_encode_bf16(x[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

/* Smallest power of two that brings every number within 448; NaN for a group that holds a NaN or an infinity
 * (E4M3 codes never say it). The exponent stays within +-100, so that scale and 1 / scale are normal; smaller
 * numbers become 0, larger ones saturate. */
static float group_scale(const float *x, size_t n) {
    float most = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        most = fmaxf(most, fabsf(x[i]));
    }
    if (!finite) return NAN;
    if (most == 0) return 1;
    int e;
    float m = frexpf(most / 448.0f, &e); /* most / 448 = m 2^e, m in [1/2, 1) */
    if (m == 0.5f) e--;
    return ldexpf(1.0f, dr_max_i32(-100, dr_min_i32(100, e)));
}

static void encode_row(const struct dr_cache_view *v, const float *latent, const float *key, uint8_t *row) {
    size_t lat = (size_t)v->kv_lora, n_key = (size_t)v->rope_dim;
    if (v->type == DR_ROW_F32) {
        memcpy(row, latent, 4 * lat);
        memcpy(row + 4 * lat, key, 4 * n_key);
    } else if (v->type == DR_ROW_BF16) {
        encode_bf16(latent, lat, row);
        encode_bf16(key, n_key, row + 2 * lat);
    } else {
        for (size_t g = 0; g < groups(v); g++) {
            size_t first = g * DR_CACHE_GROUP,
                   n = lat - first < DR_CACHE_GROUP ? lat - first : DR_CACHE_GROUP;
            float scale = group_scale(latent + first, n), inverse = 1.0f / scale;
            for (size_t i = 0; i < n; i++)
                row[first + i] = scale != scale ? 0 : dr_encode_f8(latent[first + i] * inverse);
            memcpy(row + lat + 4 * g, &scale, sizeof scale);
        }
        encode_bf16(key, n_key, row + lat + 4 * groups(v));
    }
    size_t used = dr_cache_row_used(v);
    memset(row + used, 0, v->row_bytes - used); /* equal rows are equal bytes */
}

static void put(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_cache_put *a = arg;
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        if (a->page[t] == UINT32_MAX) continue;
        uint8_t *row = a->cache.base + (size_t)a->page[t] * a->cache.page_stride +
                       (size_t)a->row[t] * a->cache.row_bytes;
        encode_row(&a->cache, a->latent + t * a->latent_stride, a->k_pe + t * a->k_pe_stride, row);
    }
}

dr_status dr_cpu_cache_put(const struct dr_cache_put *a, struct dr_stream *s) {
    struct dr_cache_put args = *a;
    DR_ASSERT(a->cache.row_bytes >= dr_cache_row_used(&a->cache));
    dr_team_for(s->team, a->n_tok, 16, put, &args);
    return dr_ok();
}

static void gather(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_cache_gather *a = arg;
    size_t bytes = a->cache.row_bytes;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        memcpy(a->out + (size_t)i * bytes, row_at(&a->cache, a->table, a->first + (int32_t)i), bytes);
}

dr_status dr_cpu_cache_gather(const struct dr_cache_gather *a, struct dr_stream *s) {
    struct dr_cache_gather args = *a;
    dr_team_for(s->team, a->n, 64, gather, &args);
    return dr_ok();
}

static void unpack(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_cache_unpack *a = arg;
    const struct dr_cache_view *v = &a->cache;
    size_t width = (size_t)v->kv_lora + (size_t)v->rope_dim;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        size_t member = (size_t)((a->first_pos + i) % a->c);
        size_t ordinal = (size_t)(i / a->c); /* the c members take turns, whoever is first */
        const uint8_t *row = a->in + a->run[member] + ordinal * v->row_bytes;
        float *y = a->y + (size_t)i * width;
        dr_cache_decode(v, row, 0, v->kv_lora, y);
        dr_cache_decode(v, row, v->kv_lora, v->rope_dim, y + v->kv_lora);
    }
}

dr_status dr_cpu_cache_unpack(const struct dr_cache_unpack *a, struct dr_stream *s) {
    struct dr_cache_unpack args = *a;
    dr_team_for(s->team, a->n, 32, unpack, &args);
    return dr_ok();
}
