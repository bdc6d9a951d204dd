/* vectors.c - see vectors.h.
 * In:   values to append.      Out: contiguous arrays.
 * Owns: their memory.
 * Why:  growth by doubling and the overflow check are written once. */
#include "gateway/text/vectors.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

/* Room for `need` elements of `size` bytes; the new room, or 0 when it cannot be had. */
static size_t grow(void **at, size_t room, size_t need, size_t size) {
    size_t fresh = room ? room : 64, bytes;
    while (fresh < need)
        if (!dr_size_mul(fresh, 2, &fresh)) return 0;
    if (!dr_size_mul(fresh, size, &bytes)) return 0;
    void *p = realloc(*at, bytes);
    if (!p) return 0;
    *at = p;
    return fresh;
}

dr_status dr_ids_reserve(struct dr_ids *ids, size_t more) {
    size_t need;
    if (!dr_size_add(ids->n, more, &need)) return dr_fail(DR_EFULL, "no room for %zu more token ids", more);
    if (need <= ids->room) return dr_ok();
    void *at = ids->at;
    size_t room = grow(&at, ids->room, need, sizeof *ids->at);
    if (!room) return dr_fail(DR_EFULL, "no memory for %zu token ids", need);
    ids->at = at;
    ids->room = room;
    return dr_ok();
}

dr_status dr_ids_push(struct dr_ids *ids, uint32_t id) {
    if (ids->n == ids->room) DR_TRY(dr_ids_reserve(ids, 1));
    ids->at[ids->n++] = id;
    return dr_ok();
}

void dr_ids_fini(struct dr_ids *ids) {
    free(ids->at);
    *ids = (struct dr_ids){0};
}

dr_status dr_text_push(struct dr_text *text, const void *bytes, size_t n) {
    size_t need;
    if (!dr_size_add(text->n, n, &need) || !dr_size_add(need, 1, &need))
        return dr_fail(DR_EFULL, "no room for %zu more bytes of text", n);
    if (need > text->room) {
        void *at = text->at;
        size_t room = grow(&at, text->room, need, 1);
        if (!room) return dr_fail(DR_EFULL, "no memory for %zu bytes of text", need);
        text->at = at;
        text->room = room;
    }
    if (n) memcpy(text->at + text->n, bytes, n);
    text->n += n;
    text->at[text->n] = 0;
    return dr_ok();
}

void dr_text_reset(struct dr_text *text) {
    text->n = 0;
    if (text->at) text->at[0] = 0;
}

void dr_text_fini(struct dr_text *text) {
    free(text->at);
    *text = (struct dr_text){0};
}
