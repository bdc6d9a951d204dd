/* pages.c - see pages.h.
 * In:   entries.      Out: places.
 * Owns: nothing.
 * Why:  see pages.h. */

#include "worker/cache/pages.h"

#include <string.h>

void dr_pages_clear(struct dr_page_tables *t, int32_t slot) {
    memset(t->entry + (size_t)slot * (size_t)t->slot_pages, 0xff, (size_t)t->slot_pages * sizeof *t->entry);
}

dr_status dr_pages_set(struct dr_page_tables *t, const struct dr_pages *p) {
    if (p->slot < 0 || p->slot >= t->n_slot)
        return dr_fail(DR_EPROTO, "pages: slot %d, expected 0 to %d", p->slot, t->n_slot - 1);
    if (p->first < 0 || p->n < 0 || p->first > t->slot_pages - p->n)
        return dr_fail(DR_EPROTO, "pages of slot %d: %d entries from %d on, a slot has %d", p->slot, p->n,
                       p->first, t->slot_pages);
    for (int32_t i = 0; i < p->n; i++)
        if (p->page[i] >= (uint32_t)t->n_page)
            return dr_fail(DR_EPROTO, "pages of slot %d: entry %d is page %u, this rank has %d pages",
                           p->slot, p->first + i, p->page[i], t->n_page);
    memcpy(t->entry + (size_t)p->slot * (size_t)t->slot_pages + p->first, p->page,
           (size_t)p->n * sizeof *t->entry);
    return dr_ok();
}

dr_status dr_pages_cover(const struct dr_page_tables *t, int32_t slot, int32_t end) {
    const uint32_t *table = dr_page_table(t, slot);
    int32_t last = (end + t->page_tokens - 1) / t->page_tokens;
    if (last > t->slot_pages)
        return dr_fail(DR_EPROTO, "slot %d: positions up to %d, a slot has pages for %d", slot, end - 1,
                       t->slot_pages * t->page_tokens);
    for (int32_t i = 0; i < last; i++)
        if (table[i] == UINT32_MAX)
            return dr_fail(DR_EPROTO,
                           "slot %d: rows up to position %d need page-table entry %d, which was never sent",
                           slot, end - 1, i);
    return dr_ok();
}

void dr_pages_place(const struct dr_page_tables *t, int32_t slot, int32_t position, uint32_t *page,
                    int32_t *row) {
    *page = position % t->c == t->member ? dr_page_table(t, slot)[position / t->page_tokens] : UINT32_MAX;
    *row = position % t->page_tokens / t->c;
}
