/* ledger.h - which sequence holds which cache pages.
 * In:   growth and end of sequences.      Out: page tables.
 * Owns: reference counts, the free list, one page table a slot.
 * Why:  workers hold no allocation state; all ranks use the same page numbers, so one ledger serves the whole
 * cluster.
 *
 * A page is free, or has as many references as tables name it. Today every table owns its pages alone; equal
 * prefixes will share. */
#pragma once

#include "common/status.h"

struct dr_ledger {
    int32_t n_page, page_tokens, n_slot, table_max;
    int32_t n_free;
    uint32_t *spare; /* [n_page] owned: stack of free pages, spare[n_free - 1] is next */
    uint32_t *ref;   /* [n_page] owned */
    uint32_t *table; /* [n_slot * table_max] owned mapping; used where sequences are */
    int32_t *n;      /* [n_slot] owned: pages of a slot */
};

struct dr_ledger_setup {
    int32_t n_page, page_tokens, n_slot;
    int32_t context; /* of one sequence, at most */
};

/* Fails: EFULL. */
DR_FALLIBLE dr_ledger_init(struct dr_ledger *l, const struct dr_ledger_setup *setup);
void dr_ledger_fini(struct dr_ledger *l);

/* Pages of n_tok positions. */
static inline int32_t dr_ledger_pages(const struct dr_ledger *l, int32_t n_tok) {
    return (int32_t)(((int64_t)n_tok + l->page_tokens - 1) / l->page_tokens);
}

/* Pages that the slot lacks for positions [0, n_tok). */
static inline int32_t dr_ledger_lacks(const struct dr_ledger *l, int32_t slot, int32_t n_tok) {
    int32_t need = dr_ledger_pages(l, n_tok) - l->n[slot];
    return need > 0 ? need : 0;
}

static inline const uint32_t *dr_ledger_table(const struct dr_ledger *l, int32_t slot) {
    return l->table + (size_t)slot * (size_t)l->table_max;
}

/* Grows the slot's table until it covers positions [0, n_tok), n_tok within the context.
 * Fails: EFULL when the free pages do not suffice; then nothing was taken. */
DR_FALLIBLE dr_ledger_reserve(struct dr_ledger *l, int32_t slot, int32_t n_tok);

/* Drops the slot's references; pages without any become free. */
void dr_ledger_release(struct dr_ledger *l, int32_t slot);

/* Reads everything: each page is either free once, or its count equals the tables that name it. Fails:
 * EINTERNAL naming the page. For tests and after faults; costs pages + table entries. */
DR_FALLIBLE dr_ledger_check(const struct dr_ledger *l);
