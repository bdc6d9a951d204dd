/* piece.c - see piece.h.
 * In:   file ranges.      Out: packed weights, scales, f32 vectors.
 * Owns: nothing.
 * Why:  see piece.h. */

#include "worker/load/piece.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "kernels/decode.h"
#include "kernels/weight.h"

enum {
    PIECE_BYTES = 256 << 10, /* of one read: large enough for a disk's rate with several readers, small enough
                                to stay in L2 until packed */
    GAP_BYTES =
        4096, /* skipping less than a page of the file saves no reading: rows are then read in one piece */
};

static size_t slice_bytes(const struct dr_piece *p) { /* of one row */
    return (size_t)p->holding->cols * dr_dtype_bytes(p->tensor->dtype);
}

static size_t full_bytes(const struct dr_piece *p) {
    return (size_t)p->tensor->cols * dr_dtype_bytes(p->tensor->dtype);
}

/* Distance of rows in the buffer: as in the file when the gap is small, else back to back. */
static size_t buffer_stride(const struct dr_piece *p) {
    size_t slice = slice_bytes(p), full = full_bytes(p);
    return full - slice < GAP_BYTES ? full : slice;
}

/* The matrix is rounded to 8-bit integers on its way. */
static bool quantised(const struct dr_holding *h) {
    return h->dtype == DR_DTYPE_I8;
}

int32_t dr_piece_first_row(const struct dr_holding *h) {
    return h->scale_bytes > 0 && !quantised(h) ? -1 : 0;
}

struct dr_piece dr_piece_at(const struct dr_tensors *t, const struct dr_holding *h, int32_t row) {
    struct dr_piece p = {.tensor = dr_tensors_get(t, h->role, h->layer, h->expert), .holding = h, .row = row};
    if (row < 0) return p;
    size_t rows =
        PIECE_BYTES / buffer_stride(&p) / DR_LANES * DR_LANES; /* whole cells: readers share no cache line */
    p.n_rows = dr_min_i32(h->rows - row, rows < DR_LANES    ? DR_LANES
                                         : rows > INT32_MAX ? INT32_MAX
                                                            : (int32_t)rows);
    if (quantised(h) && h->kind == DR_HOLD_TRANSPOSED)
        p.n_rows = h->rows; /* an output's scale needs all inputs */
    return p;
}

/* Where the parts of a buffer lie: raw rows of the file; for quantised matrices also one row of scales,
 * values in f32 and codes. */
struct room {
    size_t scale, factor, row, value, code, bytes;
};

static struct room room_of(const struct dr_piece *p) {
    const struct dr_holding *h = p->holding;
    struct room r = {.scale = dr_size_align((size_t)p->n_rows * buffer_stride(p), 64)};
    size_t scale = dr_size_align((size_t)p->tensor->scale_cols * 4, 64);
    if (!quantised(h)) {
        r.bytes = r.scale > scale ? r.scale : scale;
        return r;
    }
    size_t outs = h->kind == DR_HOLD_TRANSPOSED ? (size_t)h->cols : DR_LANES, in = (size_t)dr_holding_in(h);
    size_t grid = (size_t)dr_weight_blocks(h->rows, h->row0 % DR_BLOCK) * (size_t)p->tensor->scale_cols;
    r.factor = r.scale + dr_size_align(grid * 4, 64);
    r.row = r.factor + dr_size_align((in / DR_BLOCK + 2) * 4, 64);
    r.value = r.row + dr_size_align((size_t)h->cols * 4, 64);
    r.code = r.value + dr_size_align(outs * in * 4, 64);
    r.bytes = r.code + dr_size_align(outs * in, 64);
    return r;
}

size_t dr_piece_buffer_bytes(const struct dr_tensors *t, const struct dr_holding *h) {
    struct dr_piece p = dr_piece_at(t, h, 0);
    return room_of(&p).bytes;
}

uint64_t dr_piece_bytes(const struct dr_piece *p) {
    return (uint64_t)p->n_rows * slice_bytes(p);
}

static dr_status read_at(const struct dr_piece *p, int fd, const char *file, uint64_t offset, size_t bytes,
                         uint8_t *to) {
    size_t got = 0;
    while (got < bytes) {
        ssize_t n = pread(fd, to + got, bytes - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return dr_fail(DR_EIO, "%s: reading %s at byte %" PRIu64 ": %s", file, p->tensor->name,
                           offset + got, strerror(errno));
        if (n == 0)
            return dr_fail(DR_EMODEL,
                           "%s: %s needs %zu bytes at byte %" PRIu64
                           ", the file ends after %zu of them; it was cut since it was checked",
                           file, p->tensor->name, bytes, offset, got);
        got += (size_t)n;
    }
    return dr_ok();
}

static dr_status read_rows(const struct dr_piece *p, uint8_t *buffer) {
    const struct dr_tensor *t = p->tensor;
    size_t elem = dr_dtype_bytes(t->dtype), slice = slice_bytes(p), full = full_bytes(p),
           stride = buffer_stride(p);
    uint64_t first =
        t->offset +
        ((uint64_t)(p->holding->row0 + p->row) * (uint64_t)t->cols + (uint64_t)p->holding->col0) * elem;
    if (stride == full)
        return read_at(p, t->fd, t->file, first, (size_t)(p->n_rows - 1) * stride + slice, buffer);
    for (int32_t r = 0; r < p->n_rows; r++)
        DR_TRY(read_at(p, t->fd, t->file, first + (uint64_t)r * full, slice, buffer + (size_t)r * slice));
    return dr_ok();
}

static dr_status refuse_nan(const struct dr_piece *p, const uint8_t *buffer, size_t stride) {
    for (int32_t r = 0; r < p->n_rows; r++) {
        const uint8_t *code = buffer + (size_t)r * stride;
        int32_t k = dr_weight_find_nan(code, p->holding->cols);
        if (k >= 0)
            return dr_fail(DR_EMODEL,
                           "%s: %s: the F8_E4M3 code at row %d, column %d is 0x%02x, which is no number; "
                           "the file is damaged",
                           p->tensor->file, p->tensor->name, p->holding->row0 + p->row + r,
                           p->holding->col0 + k, code[k]);
    }
    return dr_ok();
}

static dr_status refuse_scale(const struct dr_piece *p, int32_t block_row, int32_t block_col, float s) {
    if (isfinite(s) && s >= 0) return dr_ok();
    return dr_fail(DR_EMODEL,
                   "%s: %s: the scale of block %d, %d is %g, expected a finite number; the file is damaged",
                   p->tensor->scale_file, p->tensor->name, block_row, block_col, (double)s);
}

/* Row `block_row` of the scale tensor. */
static dr_status read_scales(const struct dr_piece *p, int32_t block_row, float *row) {
    const struct dr_tensor *t = p->tensor;
    size_t bytes = (size_t)t->scale_cols * 4;
    return read_at(p, t->scale_fd, t->scale_file, t->scale_offset + (uint64_t)block_row * bytes, bytes,
                   (uint8_t *)row);
}

/* Factors of the blocks of one output: what the file's scales say, F8 only. Output o of a transposed matrix
 * is column o; of others it is row r of the piece. */
static dr_status factors_of(const struct dr_piece *p, const float *grid, int32_t r, int32_t o,
                            float *factor) {
    const struct dr_holding *h = p->holding;
    bool across = h->kind == DR_HOLD_TRANSPOSED;
    int32_t n = dr_weight_blocks(dr_holding_in(h), dr_holding_phase(h));
    for (int32_t b = 0; b < n; b++) {
        int32_t row = across ? h->row0 / DR_BLOCK + b : (h->row0 + p->row + r) / DR_BLOCK;
        int32_t col = across ? (h->col0 + o) / DR_BLOCK : h->col0 / DR_BLOCK + b;
        factor[b] = grid[(size_t)(row - h->row0 / DR_BLOCK) * (size_t)p->tensor->scale_cols + (size_t)col];
        DR_TRY(refuse_scale(p, row, col, factor[b]));
    }
    return dr_ok();
}

/* The file's scales of all rows of blocks that the holding touches. */
static dr_status read_grid(const struct dr_piece *p, float *grid) {
    const struct dr_holding *h = p->holding;
    for (int32_t b = h->row0 / DR_BLOCK; b * DR_BLOCK < h->row0 + h->rows; b++, grid += p->tensor->scale_cols)
        DR_TRY(read_scales(p, b, grid));
    return dr_ok();
}

/* One output of the slice from f32 values, or from F8 codes where `raw`. */
static dr_status one_output(const struct dr_piece *p, const struct dr_weight *w, const float *grid, int32_t r,
                            int32_t o, const void *row, bool raw, int8_t *code, float *scale, float *factor) {
    bool f8 = p->tensor->dtype == DR_DTYPE_F8_E4M3;
    if (f8) DR_TRY(factors_of(p, grid, r, o, factor));
    int32_t b = raw ? dr_weight_quantise_f8(w, row, factor, code, scale)
                    : dr_weight_quantise(w, row, f8 ? factor : NULL, code, scale);
    if (b < 0) return dr_ok();
    return dr_fail(DR_EMODEL,
                   "%s: %s: an infinite weight or NaN in output %d of the slice, block %d of its inputs; "
                   "--weights=int8 needs finite ones",
                   p->tensor->file, p->tensor->name, o, b);
}

/* Rounds rows to 8-bit integers: 16 outputs at a time, or all of a transposed matrix at once. */
static dr_status quantise(const struct dr_piece *p, const struct dr_weight *w, uint8_t *buffer, uint8_t *data,
                          float *scale) {
    const struct dr_holding *h = p->holding;
    struct room room = room_of(p);
    float *grid = (float *)(void *)(buffer + room.scale), *value = (float *)(void *)(buffer + room.value);
    float *row = (float *)(void *)(buffer + room.row), *factor = (float *)(void *)(buffer + room.factor);
    int8_t *code = (int8_t *)(void *)(buffer + room.code);
    enum dr_wtype type = (enum dr_wtype)p->tensor->dtype;
    bool across = h->kind == DR_HOLD_TRANSPOSED, raw = type == DR_W_F8 && !across;
    size_t n_in = (size_t)w->n_in, stride = buffer_stride(p);
    if (type == DR_W_F8) DR_TRY(read_grid(p, grid));
    for (int32_t r = 0, n; r < p->n_rows; r += n) {
        n = across ? p->n_rows : dr_min_i32(DR_LANES, p->n_rows - r);
        for (int32_t i = 0; i < n && !raw; i++) {
            float *to = across ? row : value + (size_t)i * n_in;
            dr_decode(type, buffer + (size_t)(r + i) * stride, (size_t)h->cols, to);
            for (int32_t o = 0; across && o < w->n_out; o++) value[(size_t)o * n_in + (size_t)i] = row[o];
        }
        int32_t first = across ? 0 : p->row + r, outs = across ? w->n_out : n;
        for (int32_t o = 0; o < outs; o++) {
            const void *from = value + (size_t)o * n_in;
            if (raw) from = buffer + (size_t)(r + o) * stride;
            DR_TRY(one_output(p, w, grid, r + o, first + o, from, raw, code + (size_t)o * n_in,
                              scale + first + o, factor));
        }
        dr_weight_pack_rows(w, data, first, outs, code, n_in);
    }
    return dr_ok();
}

static dr_status load_rows(const struct dr_piece *p, uint8_t *buffer, uint8_t *block) {
    const struct dr_holding *h = p->holding;
    uint8_t *data = block + h->offset;
    size_t stride = buffer_stride(p), slice = slice_bytes(p);
    struct dr_weight w = {
        .type = (enum dr_wtype)h->dtype,
        .n_out = dr_holding_out(h),
        .n_in = dr_holding_in(h),
        .phase = dr_holding_phase(h),
        .data = data,
    };
    DR_TRY(read_rows(p, buffer));
    if (p->tensor->dtype == DR_DTYPE_F8_E4M3) DR_TRY(refuse_nan(p, buffer, stride));
    if (quantised(h)) return quantise(p, &w, buffer, data, (float *)(void *)(data + h->data_bytes));
    switch (h->kind) {
    case DR_HOLD_PACKED:
        dr_weight_pack_rows(&w, data, p->row, p->n_rows, buffer, stride);
        return dr_ok();
    case DR_HOLD_TRANSPOSED:
        dr_weight_pack_cols(&w, data, p->row, p->n_rows, buffer, stride);
        return dr_ok();
    case DR_HOLD_ROWS:
        for (int32_t r = 0; r < p->n_rows; r++)
            memcpy(data + (size_t)(p->row + r) * slice, buffer + (size_t)r * stride, slice);
        return dr_ok();
    case DR_HOLD_VECTOR:
        for (int32_t i = 0; i < h->cols; i++)
            ((float *)(void *)data)[i] = dr_wtype_decode((enum dr_wtype)p->tensor->dtype, buffer, (size_t)i);
        return dr_ok();
    case DR_HOLD_KIND_COUNT:
        break;
    }
    return dr_fail(DR_EINTERNAL, "%s: holding of kind %d", p->tensor->name, (int)h->kind);
}

/* The holding's part of the grid of scales: [block of inputs][block of outputs]. */
static dr_status load_scales(const struct dr_piece *p, uint8_t *buffer, uint8_t *block) {
    const struct dr_holding *h = p->holding;
    float *scale = (float *)(void *)(block + h->offset + h->data_bytes), *row = (float *)(void *)buffer;
    int32_t row_block0 = h->row0 / DR_BLOCK, col_block0 = h->col0 / DR_BLOCK;
    int32_t n_row = dr_weight_blocks(h->rows, h->row0 % DR_BLOCK),
            n_col = dr_weight_blocks(h->cols, h->col0 % DR_BLOCK);
    for (int32_t r = 0; r < n_row; r++) {
        DR_TRY(read_scales(p, row_block0 + r, row));
        for (int32_t c = 0; c < n_col; c++) {
            float s = row[col_block0 + c];
            DR_TRY(refuse_scale(p, row_block0 + r, col_block0 + c, s));
            scale[h->kind == DR_HOLD_TRANSPOSED ? r * n_col + c : c * n_row + r] = s;
        }
    }
    return dr_ok();
}

dr_status dr_piece_load(const struct dr_piece *p, uint8_t *buffer, size_t room, uint8_t *block) {
    DR_ASSERT(room_of(p).bytes <= room);
    return p->row < 0 ? load_scales(p, buffer, block) : load_rows(p, buffer, block);
}
