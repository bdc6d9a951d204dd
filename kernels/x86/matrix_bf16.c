/* matrix_bf16.c - F8 and BF16 matrices times rows rounded to bfloat16, on AVX-512 with BF16 and VBMI.
 * In:   strips and prepared rows.      Out: sums.
 * Owns: nothing.
 * Why:  both products of a pair in one instruction. Weights are exact; the rounding of the inputs and the
 * additions in f32 are the only errors. Pairs of inputs lie at even absolute columns; within a pair the
 * second input is added first.
 *
 * Few rows: F8 is decoded in registers, once for all rows. Many: into a panel of 16 KiB, which has the form
 * that BF16 weights have by themselves. */
#include "kernels/x86/bf16.h"
#include "kernels/x86/matrix.h"

enum { FEW_ROWS = 8, TILE_ROWS = 6 };

void dr_prepare_bf16(const struct dr_weight *w, const float *x, void *prepared) {
    uint16_t *out = prepared;
    int32_t lead = dr_weight_lead(w->type, w->phase);
    int32_t end = dr_weight_steps(w->type, w->n_in, w->phase) * dr_weight_per(w->type);
    for (int32_t k = 0; k < lead; k++) out[k] = 0;
    for (int32_t k = 0; k < w->n_in; k++) out[lead + k] = dr_bf16_of(x[k]);
    for (int32_t k = lead + w->n_in; k < end; k++) out[k] = 0;
}

struct block {
    const uint8_t *data; /* first step, first cell */
    size_t step;         /* bytes between steps */
    int32_t n;           /* steps */
    const float *scale;  /* [64] */
};

DR_INLINE void put(float *total, const float *scale, vf sum) {
    vf_store(total, vf_fma(sum, vf_load(scale), vf_load(total)));
}

/* nr rows x nc cells from `cell` on. x[r]: the block's first input. What is `ahead` bytes away is asked for
 * into the second level (0: nothing): on Zen 4 one row alone reads 54 GB/s by the hardware's own streams, 46
 * to 52 with asking; 8 rows, with their two passes over a block, 23 with and 16 without
 * (tests/bench/README.md). */
DR_INLINE void few_rows(bool f8, int nr, int nc, const struct dr_bf16_decoder *d, const struct block *b,
                        int32_t cell, const uint16_t *const *x, size_t ahead, float *total) {
    const int per = f8 ? 4 : 2;
    vf acc[FEW_ROWS][4];
    DR_UNROLL
    for (int r = 0; r < nr; r++) DR_UNROLL for (int c = 0; c < nc; c++) acc[r][c] = vf_zero();
    const uint8_t *at = b->data + (size_t)cell * DR_CELL_BYTES;
    for (int32_t q = 0; q < b->n; q++, at += b->step) {
        DR_UNROLL
        for (int c = 0; c < nc; c++) {
            if (ahead) __builtin_prefetch(at + ahead + c * DR_CELL_BYTES, 0, 2);
            vi first = vi_load(at + c * DR_CELL_BYTES), second = first;
            if (f8) dr_bf16_decode(d, first, &first, &second);
            DR_UNROLL
            for (int r = 0; r < nr; r++) {
                acc[r][c] = dr_bf16_dot(acc[r][c], first, dr_bf16_pair(x[r] + q * per));
                if (f8) acc[r][c] = dr_bf16_dot(acc[r][c], second, dr_bf16_pair(x[r] + q * per + 2));
            }
        }
    }
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int c = 0; c < nc; c++)
            put(total + r * DR_STRIP + (cell + c) * DR_LANES, b->scale + (cell + c) * DR_LANES, acc[r][c]);
}

DR_INLINE void rows(bool f8, int nr, const struct dr_bf16_decoder *d, const struct block *b, int32_t cells,
                    const uint16_t *const *x, float *total) {
    const size_t ahead = (size_t)b->n * b->step; /* the same cells of the next block */
    int32_t c = 0;
    if (cells == 4 && nr <= 4) {
        few_rows(f8, nr, 4, d, b, 0, x, 0, total);
        return;
    }
    for (; c + 2 <= cells; c += 2) few_rows(f8, nr, 2, d, b, c, x, ahead, total);
    for (; c < cells; c++) few_rows(f8, nr, 1, d, b, c, x, ahead, total);
}

DR_INLINE void few(bool f8, const struct dr_bf16_decoder *d, const struct block *b, int32_t cells,
                   const uint16_t *const *x, int32_t n_row, float *total) {
    switch (n_row) {
    case 1:
        rows(f8, 1, d, b, cells, x, total);
        break;
    case 2:
        rows(f8, 2, d, b, cells, x, total);
        break;
    case 3:
        rows(f8, 3, d, b, cells, x, total);
        break;
    case 4:
        rows(f8, 4, d, b, cells, x, total);
        break;
    case 5:
        rows(f8, 5, d, b, cells, x, total);
        break;
    case 6:
        rows(f8, 6, d, b, cells, x, total);
        break;
    case 7:
        rows(f8, 7, d, b, cells, x, total);
        break;
    case 8:
        rows(f8, 8, d, b, cells, x, total);
        break;
    default:
        break;
    }
}

/* panel [pair][outputs] of the block. */
static void fill_panel(const struct dr_bf16_decoder *d, const struct block *b, int32_t cells,
                       uint8_t *panel) {
    const uint8_t *at = b->data;
    size_t ahead = (size_t)b->n * b->step, row = (size_t)cells * DR_CELL_BYTES;
    for (int32_t q = 0; q < b->n; q++, at += b->step, panel += 2 * row)
        for (int32_t c = 0; c < cells; c++) {
            vi first, second;
            __builtin_prefetch(at + ahead + c * DR_CELL_BYTES);
            dr_bf16_decode(d, vi_load(at + c * DR_CELL_BYTES), &first, &second);
            _mm512_storeu_si512(panel + c * DR_CELL_BYTES, first);
            _mm512_storeu_si512(panel + row + c * DR_CELL_BYTES, second);
        }
}

/* nr rows x nc groups of 16 outputs; panel rows are `step` bytes apart. */
DR_INLINE void panel_tile(int nr, int nc, const uint8_t *panel, size_t step, int32_t n_pair,
                          const uint16_t *const *x, const float *scale, float *total) {
    vf acc[TILE_ROWS][4];
    DR_UNROLL
    for (int r = 0; r < nr; r++) DR_UNROLL for (int c = 0; c < nc; c++) acc[r][c] = vf_zero();
    for (int32_t i = 0; i < n_pair; i++, panel += step) {
        vi w[4];
        DR_UNROLL
        for (int c = 0; c < nc; c++) w[c] = vi_load(panel + c * DR_CELL_BYTES);
        DR_UNROLL
        for (int r = 0; r < nr; r++) {
            vi in = dr_bf16_pair(x[r] + 2 * i);
            DR_UNROLL
            for (int c = 0; c < nc; c++) acc[r][c] = dr_bf16_dot(acc[r][c], w[c], in);
        }
    }
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int c = 0; c < nc; c++)
            put(total + r * DR_STRIP + c * DR_LANES, scale + c * DR_LANES, acc[r][c]);
}

DR_INLINE void panel_rows(int nr, const uint8_t *panel, size_t step, int32_t cells, int32_t n_pair,
                          const uint16_t *const *x, const float *scale, float *total) {
    if (cells == 4) {
        panel_tile(nr, 4, panel, step, n_pair, x, scale, total);
        return;
    }
    for (int32_t c = 0; c < cells; c++)
        panel_tile(nr, 1, panel + c * DR_CELL_BYTES, step, n_pair, x, scale + c * DR_LANES,
                   total + c * DR_LANES);
}

/* Tiles of nearly equal height; the rows of the next tile are asked for early. */
static void many(const uint8_t *panel, size_t step, int32_t cells, int32_t n_pair, const uint16_t *const *x,
                 int32_t n_row, const float *scale, float *total) {
    int32_t height = dr_ceil_div(n_row, dr_ceil_div(n_row, TILE_ROWS));
    for (int32_t r = 0; r < n_row; r += height) {
        float *t = total + r * DR_STRIP;
        for (int32_t i = r + height; i < r + 2 * height && i < n_row; i++)
            for (int32_t at = 0; at < 2 * n_pair; at += 32) __builtin_prefetch(x[i] + at);
        switch (dr_min_i32(height, n_row - r)) {
        case 1:
            panel_rows(1, panel, step, cells, n_pair, x + r, scale, t);
            break;
        case 2:
            panel_rows(2, panel, step, cells, n_pair, x + r, scale, t);
            break;
        case 3:
            panel_rows(3, panel, step, cells, n_pair, x + r, scale, t);
            break;
        case 4:
            panel_rows(4, panel, step, cells, n_pair, x + r, scale, t);
            break;
        case 5:
            panel_rows(5, panel, step, cells, n_pair, x + r, scale, t);
            break;
        case 6:
            panel_rows(6, panel, step, cells, n_pair, x + r, scale, t);
            break;
        default:
            break;
        }
    }
}

DR_INLINE void run(bool f8, const struct dr_weight *w, int32_t strip, const void *const *prepared,
                   int32_t n_row, float *total) {
    _Alignas(64) uint8_t panel[DR_BLOCK / 2 * DR_STRIP * 4];
    float scale[DR_STRIP];
    const uint16_t *x[DR_TILE_ROWS];
    const int32_t per = f8 ? 4 : 2;
    const struct dr_bf16_decoder d = dr_bf16_decoder();
    struct dr_strip s = dr_weight_strip(w, strip);
    struct block b = {.step = (size_t)s.cells * DR_CELL_BYTES, .scale = scale};
    for (int32_t r = 0; r < n_row; r++) memset(total + r * DR_STRIP, 0, DR_STRIP * sizeof *total);
    for (int32_t i = 0; i < dr_weight_blocks(w->n_in, w->phase); i++) {
        int32_t begin = dr_weight_block_step(w, i);
        b.n = dr_weight_block_step(w, i + 1) - begin;
        b.data = s.data + (size_t)begin * b.step;
        if (w->scale || i == 0) dr_strip_scales(w, strip, i, 1, scale);
        for (int32_t r = 0; r < n_row; r++) x[r] = (const uint16_t *)prepared[r] + begin * per;
        if (n_row <= FEW_ROWS) {
            few(f8, &d, &b, s.cells, x, n_row, total);
            continue;
        }
        if (f8) fill_panel(&d, &b, s.cells, panel);
        many(f8 ? panel : b.data, (size_t)s.cells * DR_CELL_BYTES, s.cells, b.n * per / 2, x, n_row, scale,
             total);
    }
}

void dr_strip_bf16(const struct dr_weight *w, int32_t strip, const void *const *prepared, int32_t n_row,
                   float *total) {
    if (w->type == DR_W_F8)
        run(true, w, strip, prepared, n_row, total);
    else
        run(false, w, strip, prepared, n_row, total);
}
