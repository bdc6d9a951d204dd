/* matrix_int8_vnni.c - matrices of 8-bit integers times rows rounded to 8-bit integers, on AVX-512 with VNNI.
 * In:   strips and prepared rows.      Out: sums, the same bits as on AVX2.
 * Owns: nothing.
 * Why:  vpdpbusd: one instruction for 64 products. It multiplies unsigned by signed bytes: the weights' sign
 * bit is flipped, which adds 128 to each, and sums begin at -128 * (sum of the row's block). */
#include "kernels/x86/int8.h"

enum { TILE_ROWS = 6, AHEAD_BYTES = 4096 };

/* A prepared row: 8-bit codes, 4 a step; then for each block the scale and -128 * (sum of its codes). */
struct row {
    const uint8_t *code;
    const float *scale;
    const int32_t *start;
};

DR_INLINE size_t code_bytes(const struct dr_weight *w) {
    return (size_t)dr_weight_steps(DR_W_I8, w->n_in, w->phase) * 4;
}

void dr_prepare_int8_vnni(const struct dr_weight *w, const float *x, void *prepared) {
    int32_t n_block = dr_weight_blocks(w->n_in, w->phase);
    uint8_t *at = prepared;
    float *scale = (float *)(void *)(at + code_bytes(w)), block[DR_BLOCK];
    int32_t *start = (int32_t *)(void *)(scale + n_block);
    for (int32_t b = 0; b < n_block; b++) {
        int32_t n = (dr_weight_block_step(w, b + 1) - dr_weight_block_step(w, b)) * 4, sum = 0;
        int8_t code[DR_BLOCK];
        dr_int8_block(w, b, x, block);
        scale[b] = dr_weight_round_block(block, code);
        for (int32_t i = 0; i < DR_BLOCK; i++) {
            sum += code[i];
        }
        memcpy(at, code, (size_t)n);
        at += n;
        start[b] = -128 * sum;
    }
}

/* gcc 12 keeps sums of the intrinsic on the stack in tiles of 24. */
DR_INLINE vi dot(vi acc, vi w, vi x) {
#ifdef DR_SIMDE
    return _mm512_dpbusd_epi32(acc, w, x);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
#endif
}

/* nr rows x nc cells from `cell` on. */
DR_INLINE void tile(int nr, int nc, const struct dr_int8_cells *b, int32_t cell, const struct row *row,
                    size_t ahead, float *total) {
    vi acc[TILE_ROWS][4];
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int c = 0; c < nc; c++) acc[r][c] = vi_set(row[r].start[b->index]);
    const uint8_t *at = b->data + (size_t)cell * DR_CELL_BYTES;
    for (int32_t q = 0; q < b->n; q++, at += b->step) {
        vi w[4];
        DR_UNROLL
        for (int c = 0; c < nc; c++) {
            __builtin_prefetch(at + ahead + c * DR_CELL_BYTES, 0, 2); /* the first level would be the bound */
            w[c] = _mm512_xor_si512(vi_load(at + c * DR_CELL_BYTES), _mm512_set1_epi8((char)0x80));
        }
        DR_UNROLL
        for (int r = 0; r < nr; r++) {
            int32_t four;
            memcpy(&four, row[r].code + (size_t)(b->first + q) * 4, 4);
            vi x = vi_set(four);
            DR_UNROLL
            for (int c = 0; c < nc; c++) acc[r][c] = dot(acc[r][c], w[c], x);
        }
    }
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int c = 0; c < nc; c++)
            dr_int8_put(total + r * DR_STRIP + (cell + c) * DR_LANES, acc[r][c],
                        vf_set(row[r].scale[b->index]), b->scale + (cell + c) * DR_LANES);
}

DR_INLINE void rows(int nr, const struct dr_int8_cells *b, int32_t cells, const struct row *row,
                    float *total) {
    if (cells == 4) {
        tile(nr, 4, b, 0, row, AHEAD_BYTES, total);
        return;
    }
    for (int32_t c = 0; c < cells; c++) tile(nr, 1, b, c, row, (size_t)b->n * b->step, total);
}

static void some_rows(int32_t nr, const struct dr_int8_cells *b, int32_t cells, const struct row *row,
                      float *total) {
    switch (nr) {
    case 1:
        rows(1, b, cells, row, total);
        break;
    case 2:
        rows(2, b, cells, row, total);
        break;
    case 3:
        rows(3, b, cells, row, total);
        break;
    case 4:
        rows(4, b, cells, row, total);
        break;
    case 5:
        rows(5, b, cells, row, total);
        break;
    case 6:
        rows(6, b, cells, row, total);
        break;
    default:
        break;
    }
}

void dr_strip_int8_vnni(const struct dr_weight *w, int32_t strip, const void *const *prepared, int32_t n_row,
                        float *total) {
    float scale[DR_STRIP];
    struct row row[DR_TILE_ROWS];
    struct dr_strip s = dr_weight_strip(w, strip);
    struct dr_int8_cells b;
    int32_t n_block = dr_weight_blocks(w->n_in, w->phase);
    int32_t height = n_row == 0 ? 1 : dr_ceil_div(n_row, dr_ceil_div(n_row, TILE_ROWS));
    for (int32_t r = 0; r < n_row; r++) {
        row[r].code = prepared[r];
        row[r].scale = (const float *)(const void *)(row[r].code + code_bytes(w));
        row[r].start = (const int32_t *)(const void *)(row[r].scale + n_block);
        memset(total + r * DR_STRIP, 0, DR_STRIP * sizeof *total);
    }
    for (int32_t i = 0; i < n_block; i++) {
        dr_int8_cells(w, strip, &s, i, &b, scale);
        for (int32_t r = 0; r < n_row; r += height) {
            for (int32_t j = r + height; j < r + 2 * height && j < n_row; j++)
                for (int32_t at = 0; at < b.n * 4; at += 64)
                    __builtin_prefetch(row[j].code + b.first * 4 + at);
            some_rows(dr_min_i32(height, n_row - r), &b, s.cells, row + r, total + r * DR_STRIP);
        }
    }
}
