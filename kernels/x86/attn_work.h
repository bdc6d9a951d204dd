/* attn_work.h - what a thread keeps while 64 queries go through the splits of a sequence.
 * In:   nothing.      Out: types and sizes of attn_tile.h.
 * Owns: nothing.
 * Why:  see attn_tile.h. */
#pragma once

#include <string.h>

#include "common/size.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cache.h"
#ifdef DR_BF16
#include "kernels/x86/bf16.h"
#else
#include "kernels/x86/vec.h"
#endif

#ifdef DR_BF16
enum { PER = 2, BLOCK = DR_ATTN_SPLIT }; /* numbers of a lane; keys that are added from zero */
#else
enum { PER = 1, BLOCK = DR_ATTN_BLOCK };
#endif

enum {
    LANES = 2 * VL,               /* queries of a group, columns of a strip */
    TILE_ROWS = VL == 8 ? 6 : 12, /* x 2 vectors: 12 of 16 or 24 of 32 registers hold sums */
    QUERIES = 64,                 /* of a thread at once */
    GROUPS = QUERIES / LANES,
    SPLIT = DR_ATTN_SPLIT,
    STRIP =
        SPLIT / PER * LANES + 16, /* lanes between strips: neighbours lie in different sets of the caches */
    CHUNK = DR_ATTN_CHUNK,
    ROW = CHUNK / PER,
    KEYS = 48, /* widened together: 24 KiB, full tiles */
};

/* One chunk of numbers of the split's keys: row j begins at row[j] + at. */
struct source {
    const uint8_t *const *row;
    size_t at;             /* bytes */
    size_t scale;          /* DR_ROW_FP8: where the row keeps the chunk's scale */
    enum dr_row_type type; /* of the chunk */
};

/* Rows that will be wanted next, asked for line by line while tiles are computed. */
struct fetch {
    const uint8_t *row[SPLIT];
    int32_t n, lines; /* rows, lines of a row */
    int32_t j, line;  /* the next one */
    int32_t step;     /* lines a unit: one tile of scores, one block of values */
};

struct work {
    _Alignas(
        64) float p[QUERIES * SPLIT];  /* [group][key][LANES]: raw scores, then weights (PER keys a lane) */
    float q[QUERIES * ROW];            /* [group][number / PER][LANES] */
    float keys[CHUNK / LANES * STRIP]; /* [key][ROW], or values as [strip][key / PER][LANES], STRIP apart */
    const float *query[QUERIES];
    /* the split */
    int32_t n_query, n, first; /* keys; number of the first one, for the borders of blocks */
    int32_t visible[QUERIES];  /* the query sees keys [0, visible) of the split */
    float split_max[QUERIES], split_sum[QUERIES];
    /* the state: max -inf and sum 0 are empty; o is unnormalised and not read while empty */
    float max[QUERIES], sum[QUERIES];
    float *o[QUERIES];
    /* how the split enters it */
    float old[QUERIES], fresh[QUERIES];
    bool empty[QUERIES];
    struct fetch next;
};

static int32_t score_units(const struct work *w, int32_t dims) {
    return dr_ceil_div(w->n_query, LANES) * dr_ceil_div(w->n, TILE_ROWS) * dr_ceil_div(dims, CHUNK);
}

static int32_t value_units(const struct work *w, int32_t dims) {
    return dr_ceil_div(w->n_query, LANES) * dr_ceil_div(w->n, BLOCK) * dr_ceil_div(dims, LANES);
}

/* The first `bytes` of n rows (already in f->row) are wanted in the course of `units`. */
static void fetch_begin(struct fetch *f, int32_t n, size_t bytes, int32_t units) {
    f->n = n;
    f->lines = (int32_t)((bytes + 63) / 64);
    f->j = f->line = 0;
    f->step = n > 0 ? dr_ceil_div(f->lines * n, units) : 0;
}

static void fetch_some(struct fetch *f) {
    for (int32_t i = 0; i < f->step && f->j < f->n; i++) {
        __builtin_prefetch(f->row[f->j] + f->line * 64, 0, 2); /* not the first level: tiles need all of it */
        if (++f->line == f->lines) f->line = 0, f->j++;
    }
}

/* Bytes of a number as it is stored. */
DR_INLINE size_t number_bytes(enum dr_row_type type) {
    return type == DR_ROW_F32 ? 4 : type == DR_ROW_BF16 ? 2 : 1;
}

/* The chunk's scale in row j; 1 for types without. */
DR_INLINE vf row_scale(enum dr_row_type type, const struct source *src, int32_t j) {
    float scale = 1;
    if (type == DR_ROW_FP8) memcpy(&scale, src->row[j] + src->scale, sizeof scale);
    return vf_set(scale);
}

/* VL numbers of the chunk; f8: the scale. */
DR_INLINE vf widen(enum dr_row_type type, const uint8_t *at, size_t i, vf scale) {
    if (type == DR_ROW_F32) return vi_as_vf(vi_load(at + 4 * i));
    if (type == DR_ROW_BF16) return vi_as_vf(vi_sll(vi_load_u16(at + 2 * i), 16));
    vi code = vi_and(vi_sll(vi_load_i8(at + i), 20), vi_set((int32_t)0x87f00000));
    return vf_mul(vf_mul(vi_as_vf(code), vf_set(0x1p120f)), scale); /* two steps: the product may overflow */
}
