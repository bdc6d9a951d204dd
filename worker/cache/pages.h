/* pages.h - which page holds which positions of a slot, and where a position lies on this rank.
 * In:   page-table entries from the plan.      Out: (page, row) of a position; the local rows of a piece.
 * Owns: nothing; tables lie in the worker's block, seqs_max x pages of the longest context.
 * Why:  the coordinator keeps the only ledger; a worker stores what it is told and computes the rest.
 *
 * Position p lies on member p mod c; there it is local row p / c of the sequence, in page table[p /
 * page_tokens]. */
#pragma once

#include "proto/message.h"

struct dr_page_tables {
    uint32_t *entry; /* [seqs_max, slot_pages]; UINT32_MAX: none */
    int32_t n_slot, slot_pages, n_page;
    int32_t page_tokens, page_rows, c, member;
};

static inline const uint32_t *dr_page_table(const struct dr_page_tables *t, int32_t slot) {
    return t->entry + (size_t)slot * (size_t)t->slot_pages;
}

/* Local rows among the positions [0, n) */
static inline int32_t dr_pages_local_rows(const struct dr_page_tables *t, int32_t n) {
    return (n + t->c - 1 - t->member) / t->c;
}

#ifdef __cplusplus
extern "C" {
#endif

/* Forgets a slot's entries. */
void dr_pages_clear(struct dr_page_tables *t, int32_t slot);

/* Stores entries. Fails: EPROTO naming the slot, the entry and the limit; the slot's other entries are kept.
 */
DR_FALLIBLE dr_pages_set(struct dr_page_tables *t, const struct dr_pages *p);

/* Fails: EPROTO unless each position of [0, end) of the slot has a page. */
DR_FALLIBLE dr_pages_cover(const struct dr_page_tables *t, int32_t slot, int32_t end);

/* page: UINT32_MAX when another member stores the position. The slot must cover it. */
void dr_pages_place(const struct dr_page_tables *t, int32_t slot, int32_t position, uint32_t *page,
                    int32_t *row);

#ifdef __cplusplus
}
#endif
