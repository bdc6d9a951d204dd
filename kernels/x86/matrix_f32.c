/* matrix_f32.c - matrices of every type times f32 rows.
 * In:   strips and prepared rows.      Out: sums, the same bits as kernels/cpu.
 * Owns: nothing.
 * Why:  exact arithmetic on every processor. Compiled twice: 8 lanes (AVX2) and 16 (AVX-512).
 *
 * Few rows: weights are decoded in registers, once for all rows. Many rows: half a strip's block (32 outputs
 * x 128 inputs, 16 KiB) is decoded into a panel that stays in L1.
 *
 * An F8 code is shifted into the place of an f32's sign, exponent and mantissa, which gives the weight times
 * 2^-120 (subnormal codes become f32 subnormals: they must not be flushed). Inputs are prepared times 2^100
 * and the sum of a block is multiplied by 2^20: every product and sum is the true one times 2^-20, with the
 * same roundings as long as inputs are below 2^27 and sums above 2^-106. */
#include "kernels/x86/matrix.h"

#include <string.h>

#include "kernels/x86/vec.h"

enum {
    CELL_VECTORS = DR_LANES / VL, /* of a cell */
    FEW_ROWS = VL == 8 ? 4 : 8,   /* up to here weights are decoded in registers */
    TILE_ROWS = VL == 8 ? 6 : 12, /* rows x 2 vectors: 12 of 16 or 24 of 32 registers hold sums */
    PANEL = 32,                   /* outputs */
    AHEAD_BYTES = 4096,           /* of one stream: hardware prefetch starts anew at every page */
};

/* Input j of the cells' dwords as numbers. */
DR_INLINE vf decode(enum dr_wtype type, vi raw, int j) {
    switch (type) {
    case DR_W_F8: {
        vi code = j == 0 ? vi_sll(raw, 24) : j == 1 ? vi_sll(raw, 16) : j == 2 ? vi_sll(raw, 8) : raw;
        return vi_as_vf(vi_and(vi_sra(code, 4), vi_set((int32_t)0x87f00000)));
    }
    case DR_W_I8: {
        vi code = j == 0 ? vi_sll(raw, 24) : j == 1 ? vi_sll(raw, 16) : j == 2 ? vi_sll(raw, 8) : raw;
        return vi_to_vf(vi_sra(code, 24));
    }
    case DR_W_BF16:
        return vi_as_vf(j == 0 ? vi_sll(raw, 16) : vi_and(raw, vi_set((int32_t)0xffff0000)));
    case DR_W_F16:
        return vi_half(j == 0 ? raw : vi_sra(raw, 16));
    default:
        return vi_as_vf(raw);
    }
}

/* A block of a strip as the tiles see it. */
struct block {
    const uint8_t *data; /* first step, first cell */
    size_t step;         /* bytes between steps */
    int32_t n;           /* steps */
    const float *scale;  /* [64] */
};

/* acc[i] * scale + total, in place; a block's part of one row and vector. */
DR_INLINE void put(float *total, const float *scale, vf acc) {
    vf_store(total, vf_fma(acc, vf_load(scale), vf_load(total)));
}

/* One row, nv vectors from the strip's first output on: each is decoded and multiplied at once. */
DR_INLINE void one_row(enum dr_wtype type, int nv, const struct block *b, const float *x, float *total) {
    const int per = dr_weight_per(type);
    vf acc[64 / VL];
    DR_UNROLL for (int v = 0; v < nv; v++) acc[v] = vf_zero();
    const uint8_t *at = b->data;
    for (int32_t q = 0; q < b->n; q++, at += b->step, x += per) {
        vf in[4];
        DR_UNROLL for (int j = 0; j < per; j++) in[j] = vf_set(x[j]);
        DR_UNROLL for (int v = 0; v < nv; v++) {
            if (v % CELL_VECTORS == 0)
                __builtin_prefetch(at + AHEAD_BYTES + v / CELL_VECTORS * DR_CELL_BYTES);
            vi raw = vi_load(at + v * VL * 4);
            DR_UNROLL for (int j = 0; j < per; j++) acc[v] = vf_fma(decode(type, raw, j), in[j], acc[v]);
        }
    }
    DR_UNROLL for (int v = 0; v < nv; v++) put(total + v * VL, b->scale + v * VL, acc[v]);
}

/* nr rows, nv vectors from `cell` on. The walk over one cell column asks for the same cells of the next
 * block. */
DR_INLINE void few_rows(enum dr_wtype type, int nr, int nv, const struct block *b, int32_t cell,
                        const float *const *x, float *total) {
    const int per = dr_weight_per(type);
    vf acc[FEW_ROWS][4];
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    const uint8_t *at = b->data + (size_t)cell * DR_CELL_BYTES;
    size_t ahead = (size_t)b->n * b->step;
    for (int32_t q = 0; q < b->n; q++, at += b->step) {
        vi raw[4];
        DR_UNROLL for (int v = 0; v < nv; v++) {
            if (v % CELL_VECTORS == 0) __builtin_prefetch(at + ahead + v / CELL_VECTORS * DR_CELL_BYTES);
            raw[v] = vi_load(at + v * VL * 4);
        }
        DR_UNROLL for (int j = 0; j < per; j++) {
            vf w[4];
            DR_UNROLL for (int v = 0; v < nv; v++) w[v] = decode(type, raw[v], j);
            DR_UNROLL for (int r = 0; r < nr; r++) {
                vf in = vf_set(x[r][q * per + j]);
                DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(w[v], in, acc[r][v]);
            }
        }
    }
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++)
        put(total + r * DR_STRIP + cell * DR_LANES + v * VL, b->scale + cell * DR_LANES + v * VL, acc[r][v]);
}

/* Up to FEW_ROWS rows over all cells. */
DR_INLINE void few(enum dr_wtype type, const struct block *b, int32_t cells, const float *const *x,
                   int32_t n_row, float *total) {
    enum { TWO = VL == 8 ? 2 : 1, FOUR = VL == 8 ? 1 : 1 }; /* cells that a tile of few rows spans */
    if (n_row == 1 && cells == 4) {
        one_row(type, 64 / VL, b, x[0], total);
        return;
    }
    int32_t c = 0;
    if (n_row == 2)
        for (; c + TWO <= cells; c += TWO) few_rows(type, 2, TWO * CELL_VECTORS, b, c, x, total);
    for (; c < cells; c++) switch (n_row) {
        case 1:
            few_rows(type, 1, CELL_VECTORS, b, c, x, total);
            break;
        case 2:
            few_rows(type, 2, CELL_VECTORS, b, c, x, total);
            break;
        case 3:
            few_rows(type, 3, CELL_VECTORS, b, c, x, total);
            break;
        case 4:
            few_rows(type, 4, CELL_VECTORS, b, c, x, total);
            break;
#if DR_VL == 16
        case 5:
            few_rows(type, 5, CELL_VECTORS, b, c, x, total);
            break;
        case 6:
            few_rows(type, 6, CELL_VECTORS, b, c, x, total);
            break;
        case 7:
            few_rows(type, 7, CELL_VECTORS, b, c, x, total);
            break;
        case 8:
            few_rows(type, 8, CELL_VECTORS, b, c, x, total);
            break;
#endif
        default:
            break;
        }
}

/* The block's cells [cell, cell + nc) to panel [input][32]. */
DR_INLINE void fill_panel(enum dr_wtype type, const struct block *b, int32_t cell, int32_t nc, float *panel) {
    const int per = dr_weight_per(type);
    const uint8_t *at = b->data + (size_t)cell * DR_CELL_BYTES;
    size_t ahead = (size_t)b->n * b->step;
    for (int32_t q = 0; q < b->n; q++, at += b->step, panel += per * PANEL)
        for (int32_t c = 0; c < nc; c++) {
            __builtin_prefetch(at + ahead + c * DR_CELL_BYTES);
            DR_UNROLL for (int v = 0; v < CELL_VECTORS; v++) {
                vi raw = vi_load(at + c * DR_CELL_BYTES + v * VL * 4);
                DR_UNROLL for (int j = 0; j < per; j++)
                    vf_store(panel + j * PANEL + c * DR_LANES + v * VL, decode(type, raw, j));
            }
        }
}

/* nr rows times nv vectors of a panel. */
DR_INLINE void panel_tile(int nr, int nv, const float *panel, int32_t n, const float *const *x, int32_t at,
                          const float *scale, float *total) {
    vf acc[TILE_ROWS][2];
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    const float *row[TILE_ROWS];
    DR_UNROLL for (int r = 0; r < nr; r++) row[r] = x[r] + at;
    for (int32_t k = 0; k < n; k++, panel += PANEL) {
        vf w[2];
        DR_UNROLL for (int v = 0; v < nv; v++) w[v] = vf_load(panel + v * VL);
        DR_UNROLL for (int r = 0; r < nr; r++) {
            vf in = vf_set(row[r][k]);
            DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(w[v], in, acc[r][v]);
        }
    }
    DR_UNROLL for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++)
        put(total + r * DR_STRIP + v * VL, scale + v * VL, acc[r][v]);
}

#define DR_TILE(nr)                                                                                          \
    case nr:                                                                                                 \
        panel_tile(nr, NV, panel, n, x, at, scale, total);                                                   \
        break;

#define DR_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#if DR_VL == 16
#define DR_MORE_TILES(X) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define DR_MORE_TILES(X)
#endif

enum { NV = 2 };

static void one_tile(const float *panel, int32_t n, const float *const *x, int32_t nr, int32_t at,
                     const float *scale, float *total) {
    switch (nr) {
        DR_TILES(DR_TILE)
        DR_MORE_TILES(DR_TILE)
    default:
        break;
    }
}

/* All rows times the panel's outputs: tiles of nearly equal height. */
static void many_rows(const float *panel, int32_t n, int32_t outs, const float *const *x, int32_t n_row,
                      int32_t at, const float *scale, float *total) {
    int32_t tiles = dr_ceil_div(n_row, TILE_ROWS), height = dr_ceil_div(n_row, tiles);
    for (int32_t r = 0; r < n_row; r += height)
        for (int32_t o = 0; o < outs; o += NV * VL)
            one_tile(panel + o, n, x + r, dr_min_i32(height, n_row - r), at, scale + o,
                     total + r * DR_STRIP + o);
}

DR_INLINE void run(enum dr_wtype type, const struct dr_weight *w, int32_t strip, const float *const *x,
                   int32_t n_row, float *total) {
    _Alignas(64) float panel[DR_BLOCK * PANEL];
    float scale[DR_STRIP];
    const float *row[FEW_ROWS];
    const int32_t per = dr_weight_per(type);
    struct dr_strip s = dr_weight_strip(w, strip);
    struct block b = {.step = (size_t)s.cells * DR_CELL_BYTES, .scale = scale};
    for (int32_t r = 0; r < n_row; r++) memset(total + r * DR_STRIP, 0, DR_STRIP * sizeof *total);
    for (int32_t i = 0; i < dr_weight_blocks(w->n_in, w->phase); i++) {
        int32_t begin = dr_weight_block_step(w, i);
        b.n = dr_weight_block_step(w, i + 1) - begin;
        b.data = s.data + (size_t)begin * b.step;
        if (w->scale || i == 0) dr_strip_scales(w, strip, i, type == DR_W_F8 ? 0x1p20f : 1, scale);
        if (n_row <= FEW_ROWS) {
            for (int32_t r = 0; r < n_row; r++) row[r] = x[r] + begin * per;
            few(type, &b, s.cells, row, n_row, total);
            continue;
        }
        for (int32_t c = 0; c < s.cells; c += 2) {
            int32_t nc = dr_min_i32(2, s.cells - c);
            fill_panel(type, &b, c, nc, panel);
            many_rows(panel, b.n * per, nc * DR_LANES, x, n_row, begin * per, scale + c * DR_LANES,
                      total + c * DR_LANES);
        }
    }
}

void DR_NAME(dr_strip_f32)(const struct dr_weight *w, int32_t strip, const void *const *row, int32_t n_row,
                           float *total) {
    const float *const *x = (const float *const *)row;
    switch (w->type) {
    case DR_W_F8:
        run(DR_W_F8, w, strip, x, n_row, total);
        return;
    case DR_W_I8:
        run(DR_W_I8, w, strip, x, n_row, total);
        return;
    case DR_W_BF16:
        run(DR_W_BF16, w, strip, x, n_row, total);
        return;
    case DR_W_F16:
        run(DR_W_F16, w, strip, x, n_row, total);
        return;
    default:
        run(DR_W_F32, w, strip, x, n_row, total);
        return;
    }
}
