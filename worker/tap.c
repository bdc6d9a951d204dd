/* tap.c - see tap.h.
 * In:   rows of a step.      Out: copies.
 * Owns: nothing.
 * Why:  see tap.h. */

#include "worker/tap.h"

void dr_tap_take(struct dr_tap *taps, int32_t n_tap, enum dr_tap_kind kind, int32_t layer,
                 const struct dr_tap_rows *rows, const void *x, size_t x_stride, int32_t width,
                 struct dr_stream *s) {
    for (int32_t i = 0; i < n_tap; i++) {
        struct dr_tap *t = &taps[i];
        const bool of_layer = kind != DR_TAP_EMBED && kind != DR_TAP_MTP_LOGITS;
        if (t->kind != kind || t->slot != rows->slot || (of_layer && t->layer != layer)) continue;
        DR_ASSERT(t->width == width);
        int32_t n = rows->n < t->room - t->n ? rows->n : t->room - t->n;
        if (n <= 0) continue;
        size_t bytes = (size_t)width * 4;
        dr_copy_rows((uint8_t *)t->row + (size_t)t->n * bytes, bytes,
                     (const uint8_t *)x + (size_t)rows->first_row * x_stride * 4, x_stride * 4, bytes,
                     (size_t)n, s);
        for (int32_t r = 0; r < n; r++) t->position[t->n + r] = rows->position + r;
        t->n += n;
    }
}
