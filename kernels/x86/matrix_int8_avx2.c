/* matrix_int8_avx2.c - matrices of 8-bit integers times rows rounded to 8-bit integers, on AVX2.
 * In:   strips and prepared rows.      Out: sums, the same bits as with VNNI.
 * Owns: nothing.
 * Why:  vpmaddwd on codes widened to 16 bits: two instructions for 16 products, and unlike vpmaddubsw it
 * cannot saturate and needs no handling of signs.
 *
 * Shifts by 8 within 16-bit lanes widen a dword of 4 codes to the pairs (0, 2) and (1, 3); prepared rows have
 * their codes in the same order. Few rows: codes are widened in registers. Many: into a panel of 16 KiB. */
#include "kernels/x86/int8.h"

enum {
    CELL_VECTORS = DR_LANES / VL,
    FEW_ROWS = 4,
    TILE_ROWS = 6,
    AHEAD_BYTES = 4096,
    PANEL = DR_STRIP, /* dwords of a row of the panel: pairs of 64 outputs */
};

/* A prepared row: 16-bit codes, 4 of a step in the order 0, 2, 1, 3; then a scale for each block. */
struct row {
    const uint8_t *code;
    const float *scale;
};

DR_INLINE size_t code_bytes(const struct dr_weight *w) {
    return (size_t)dr_weight_steps(DR_W_I8, w->n_in, w->phase) * 8;
}

void dr_prepare_int8_avx2(const struct dr_weight *w, const float *x, void *prepared) {
    uint8_t *at = prepared;
    float *scale = (float *)(void *)(at + code_bytes(w)), block[DR_BLOCK];
    for (int32_t b = 0; b < dr_weight_blocks(w->n_in, w->phase); b++) {
        int32_t n = (dr_weight_block_step(w, b + 1) - dr_weight_block_step(w, b)) * 4;
        int8_t code[DR_BLOCK];
        int16_t pair[DR_BLOCK];
        dr_int8_block(w, b, x, block);
        scale[b] = dr_weight_round_block(block, code);
        for (int32_t i = 0; i < DR_BLOCK; i += 4) {
            pair[i] = code[i];
            pair[i + 1] = code[i + 2];
            pair[i + 2] = code[i + 1];
            pair[i + 3] = code[i + 3];
        }
        memcpy(at, pair, (size_t)n * 2);
        at += n * 2;
    }
}

DR_INLINE vi pair_at(const uint8_t *at) {
    int32_t pair;
    memcpy(&pair, at, 4);
    return _mm256_set1_epi32(pair);
}

DR_INLINE vi even_pairs(vi raw) { /* inputs 0 and 2 */
    return _mm256_srai_epi16(_mm256_slli_epi16(raw, 8), 8);
}

DR_INLINE vi odd_pairs(vi raw) { /* inputs 1 and 3 */
    return _mm256_srai_epi16(raw, 8);
}

/* As one piece: gcc 12 otherwise makes all products of a tile first, and keeps its sums on the stack. */
DR_INLINE vi dot(vi acc, vi w, vi x) {
    vi product;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(acc), "=&x"(product) : "x"(w), "x"(x));
    return acc;
}

/* nr rows x nv vectors from `cell` on, codes widened in registers. */
DR_INLINE void few_rows(int nr, int nv, const struct dr_int8_cells *b, int32_t cell, const struct row *row,
                        size_t ahead, float *total) {
    vi acc[FEW_ROWS][8];
    DR_UNROLL
    for (int r = 0; r < nr; r++) DR_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = _mm256_setzero_si256();
    const uint8_t *at = b->data + (size_t)cell * DR_CELL_BYTES;
    size_t x = (size_t)b->first * 8;
    for (int32_t q = 0; q < b->n; q++, at += b->step, x += 8) {
        DR_UNROLL
        for (int v = 0; v < nv; v++) {
            if (v % CELL_VECTORS == 0) __builtin_prefetch(at + ahead + v / CELL_VECTORS * DR_CELL_BYTES);
            vi raw = vi_load(at + v * VL * 4), even = even_pairs(raw), odd = odd_pairs(raw);
            DR_UNROLL
            for (int r = 0; r < nr; r++) {
                acc[r][v] = dot(acc[r][v], even, pair_at(row[r].code + x));
                acc[r][v] = dot(acc[r][v], odd, pair_at(row[r].code + x + 4));
            }
        }
    }
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int v = 0; v < nv; v++)
            dr_int8_put(total + r * DR_STRIP + cell * DR_LANES + v * VL, acc[r][v],
                        vf_set(row[r].scale[b->index]), b->scale + cell * DR_LANES + v * VL);
}

static void few(const struct dr_int8_cells *b, int32_t cells, const struct row *row, int32_t n_row,
                float *total) {
    size_t ahead = (size_t)b->n * b->step; /* the same cells of the next block */
    int32_t c = 0;
    if (n_row == 1 && cells == 4) {
        few_rows(1, 8, b, 0, row, AHEAD_BYTES, total);
        return;
    }
    if (n_row == 2)
        for (; c + 2 <= cells; c += 2) few_rows(2, 4, b, c, row, ahead, total);
    for (; c < cells; c++) switch (n_row) {
        case 1:
            few_rows(1, 2, b, c, row, ahead, total);
            break;
        case 2:
            few_rows(2, 2, b, c, row, ahead, total);
            break;
        case 3:
            few_rows(3, 2, b, c, row, ahead, total);
            break;
        case 4:
            few_rows(4, 2, b, c, row, ahead, total);
            break;
        default:
            break;
        }
}

/* panel[2 q + half][output] = pair `half` of step q. */
static void fill_panel(const struct dr_int8_cells *b, int32_t cells, int32_t *panel) {
    const uint8_t *at = b->data;
    size_t ahead = (size_t)b->n * b->step;
    for (int32_t q = 0; q < b->n; q++, at += b->step, panel += 2 * PANEL)
        for (int32_t c = 0; c < cells; c++) {
            __builtin_prefetch(at + ahead + c * DR_CELL_BYTES);
            DR_UNROLL
            for (int v = 0; v < CELL_VECTORS; v++) {
                vi raw = vi_load(at + c * DR_CELL_BYTES + v * VL * 4);
                int32_t *to = panel + c * DR_LANES + v * VL;
                _mm256_storeu_si256((__m256i *)(void *)to, even_pairs(raw));
                _mm256_storeu_si256((__m256i *)(void *)(to + PANEL), odd_pairs(raw));
            }
        }
}

/* nr rows x 16 outputs of the panel. */
DR_INLINE void panel_tile(int nr, const struct dr_int8_cells *b, const int32_t *panel, const struct row *row,
                          const float *scale, float *total) {
    vi acc[TILE_ROWS][2];
    const uint8_t *x[TILE_ROWS];
    DR_UNROLL
    for (int r = 0; r < nr; r++) {
        acc[r][0] = acc[r][1] = _mm256_setzero_si256();
        x[r] = row[r].code + b->first * 8;
    }
    for (int32_t i = 0; i < 2 * b->n; i++, panel += PANEL) {
        vi low = vi_load(panel), high = vi_load(panel + VL);
        DR_UNROLL
        for (int r = 0; r < nr; r++) {
            vi in = pair_at(x[r] + 4 * i);
            acc[r][0] = dot(acc[r][0], low, in);
            acc[r][1] = dot(acc[r][1], high, in);
        }
    }
    DR_UNROLL
    for (int r = 0; r < nr; r++)
        DR_UNROLL for (int v = 0; v < 2; v++) dr_int8_put(total + r * DR_STRIP + v * VL, acc[r][v],
                                                          vf_set(row[r].scale[b->index]), scale + v * VL);
}

static void one_tile(int32_t nr, const struct dr_int8_cells *b, const int32_t *panel, const struct row *row,
                     const float *scale, float *total) {
    switch (nr) {
    case 1:
        panel_tile(1, b, panel, row, scale, total);
        break;
    case 2:
        panel_tile(2, b, panel, row, scale, total);
        break;
    case 3:
        panel_tile(3, b, panel, row, scale, total);
        break;
    case 4:
        panel_tile(4, b, panel, row, scale, total);
        break;
    case 5:
        panel_tile(5, b, panel, row, scale, total);
        break;
    case 6:
        panel_tile(6, b, panel, row, scale, total);
        break;
    default:
        break;
    }
}

/* Tiles of nearly equal height over all outputs of the panel; the rows of the next tile are asked for early.
 */
static void many(const struct dr_int8_cells *b, int32_t cells, const int32_t *panel, const struct row *row,
                 int32_t n_row, float *total) {
    int32_t tiles = dr_ceil_div(n_row, TILE_ROWS), height = dr_ceil_div(n_row, tiles);
    for (int32_t r = 0; r < n_row; r += height) {
        for (int32_t i = r + height; i < r + 2 * height && i < n_row; i++)
            for (int32_t at = 0; at < b->n * 8; at += 64) __builtin_prefetch(row[i].code + b->first * 8 + at);
        for (int32_t c = 0; c < cells; c++)
            one_tile(dr_min_i32(height, n_row - r), b, panel + c * DR_LANES, row + r, b->scale + c * DR_LANES,
                     total + r * DR_STRIP + c * DR_LANES);
    }
}

void dr_strip_int8_avx2(const struct dr_weight *w, int32_t strip, const void *const *prepared, int32_t n_row,
                        float *total) {
    _Alignas(64) int32_t panel[DR_BLOCK / 2 * PANEL];
    float scale[DR_STRIP];
    struct row row[DR_TILE_ROWS];
    struct dr_strip s = dr_weight_strip(w, strip);
    struct dr_int8_cells b;
    for (int32_t r = 0; r < n_row; r++) {
        row[r].code = prepared[r];
        row[r].scale = (const float *)(const void *)(row[r].code + code_bytes(w));
        memset(total + r * DR_STRIP, 0, DR_STRIP * sizeof *total);
    }
    for (int32_t i = 0; i < dr_weight_blocks(w->n_in, w->phase); i++) {
        dr_int8_cells(w, strip, &s, i, &b, scale);
        if (n_row <= FEW_ROWS) {
            few(&b, s.cells, row, n_row, total);
            continue;
        }
        fill_panel(&b, s.cells, panel);
        many(&b, s.cells, panel, row, n_row, total);
    }
}
