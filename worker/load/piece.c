/* piece.c - see piece.h.
 * In:   file ranges.      Out: packed weights, expanded scales, f32 vectors.
 * Owns: nothing.
 * Why:  see piece.h. */

#include "worker/load/piece.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "kernels/weight.h"

enum {
    PIECE_BYTES = 1 << 20, /* of one read: large enough for a disk's full rate, small enough to stay in the
                              cache until packed */
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

struct dr_piece dr_piece_at(const struct dr_tensors *t, const struct dr_holding *h, int32_t row) {
    struct dr_piece p = {.tensor = dr_tensors_get(t, h->role, h->layer, h->expert), .holding = h, .row = row};
    if (row < 0) return p;
    size_t rows =
        PIECE_BYTES / buffer_stride(&p) / DR_STRIP * DR_STRIP; /* whole strips: readers share no cache line */
    p.n_rows = dr_min_i32(h->rows - row, rows < DR_STRIP    ? DR_STRIP
                                         : rows > INT32_MAX ? INT32_MAX
                                                            : (int32_t)rows);
    return p;
}

size_t dr_piece_buffer_bytes(const struct dr_tensors *t, const struct dr_holding *h) {
    struct dr_piece p = dr_piece_at(t, h, 0);
    size_t data = (size_t)p.n_rows * buffer_stride(&p), scale = (size_t)p.tensor->scale_cols * 4;
    return data > scale ? data : scale;
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
        for (int32_t k = 0; k < p->holding->cols; k++)
            if ((code[k] & 0x7f) == 0x7f)
                return dr_fail(DR_EMODEL,
                               "%s: %s: the F8_E4M3 code at row %d, column %d is 0x%02x, which is no number; "
                               "the file is damaged",
                               p->tensor->file, p->tensor->name, p->holding->row0 + p->row + r,
                               p->holding->col0 + k, code[k]);
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
    switch (h->kind) {
    case DR_HOLD_PACKED:
        return dr_weight_pack_rows(&w, data, p->row, p->n_rows, buffer, stride);
    case DR_HOLD_TRANSPOSED:
        return dr_weight_pack_cols(&w, data, p->row, p->n_rows, buffer, stride);
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

/* Spreads one row of the scale tensor, block row `block_row`, over the outputs and blocks of the holding. */
static dr_status spread_scales(const struct dr_piece *p, int32_t block_row, const uint8_t *row,
                               float *scale) {
    const struct dr_holding *h = p->holding;
    int32_t padded = dr_weight_out_padded(dr_holding_out(h));
    int32_t col_block0 = h->col0 / DR_BLOCK, row_block0 = h->row0 / DR_BLOCK;
    int32_t r0 = dr_max_i32(block_row * DR_BLOCK, h->row0),
            r1 = dr_min_i32((block_row + 1) * DR_BLOCK, h->row0 + h->rows);
    for (int32_t b = col_block0; b * DR_BLOCK < h->col0 + h->cols; b++) {
        float s = dr_wtype_decode(DR_W_F32, row, (size_t)b);
        if (!isfinite(s) || s < 0)
            return dr_fail(
                DR_EMODEL,
                "%s: %s: the scale of block %d, %d is %g, expected a finite number; the file is damaged",
                p->tensor->scale_file, p->tensor->name, block_row, b, (double)s);
        if (h->kind == DR_HOLD_TRANSPOSED) {
            int32_t c0 = dr_max_i32(b * DR_BLOCK, h->col0),
                    c1 = dr_min_i32((b + 1) * DR_BLOCK, h->col0 + h->cols);
            for (int32_t k = c0; k < c1; k++)
                scale[(size_t)(block_row - row_block0) * (size_t)padded + (size_t)(k - h->col0)] = s;
        } else {
            for (int32_t r = r0; r < r1; r++)
                scale[(size_t)(b - col_block0) * (size_t)padded + (size_t)(r - h->row0)] = s;
        }
    }
    return dr_ok();
}

static dr_status load_scales(const struct dr_piece *p, uint8_t *buffer, uint8_t *block) {
    const struct dr_holding *h = p->holding;
    const struct dr_tensor *t = p->tensor;
    float *scale = (float *)(void *)(block + h->offset + h->data_bytes);
    size_t bytes = (size_t)t->scale_cols * 4;
    for (int32_t b = h->row0 / DR_BLOCK; b * DR_BLOCK < h->row0 + h->rows; b++) {
        DR_TRY(read_at(p, t->scale_fd, t->scale_file, t->scale_offset + (uint64_t)b * bytes, bytes, buffer));
        DR_TRY(spread_scales(p, b, buffer, scale));
    }
    return dr_ok();
}

dr_status dr_piece_load(const struct dr_piece *p, uint8_t *buffer, size_t room, uint8_t *block) {
    if (p->row < 0) {
        DR_ASSERT((size_t)p->tensor->scale_cols * 4 <= room);
        return load_scales(p, buffer, block);
    }
    DR_ASSERT((size_t)p->n_rows * buffer_stride(p) <= room);
    return load_rows(p, buffer, block);
}
