/* ledger.h - which sequence holds which cache pages.
 * In:   growth and end of sequences.      Out: page tables.
 * Owns: reference counts, the free list, one page table a slot, the names of pages (prefix.h).
 * Why:  workers hold no allocation state; all ranks use the same page numbers, so one ledger serves the whole
 * cluster.
 *
 * A page is in one of three places: free; idle (filled, named, without references: whoever begins alike may
 * have it, whoever needs room takes it); or in as many tables as it has references. */
#pragma once

#include "coordinator/ledger/prefix.h"

struct dr_ledger {
    int32_t n_page, page_tokens, n_slot, table_max;
    int32_t n_free;
    uint32_t *spare; /* [n_page] owned: stack of free pages, spare[n_free - 1] is next */
    uint32_t *ref;   /* [n_page] owned */
    uint32_t *table; /* [n_slot * table_max] owned mapping; used where sequences are */
    int32_t *n;      /* [n_slot] owned: pages of a slot */
    struct dr_prefix prefix;
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

/* Pages that somebody may still have: free and idle ones. */
static inline int32_t dr_ledger_room(const struct dr_ledger *l) {
    return l->n_free + l->prefix.n_idle;
}

static inline const uint32_t *dr_ledger_table(const struct dr_ledger *l, int32_t slot) {
    return l->table + (size_t)slot * (size_t)l->table_max;
}

/* Appends a filled page to the slot's table. */
void dr_ledger_share(struct dr_ledger *l, int32_t slot, int32_t page);

/* Grows the slot's table with pages of its own until it covers positions [0, n_tok), n_tok within the
 * context. Fails: EFULL when the room does not suffice; then nothing was taken. */
DR_FALLIBLE dr_ledger_reserve(struct dr_ledger *l, int32_t slot, int32_t n_tok);

/* Drops the slot's references, last page first, so that of a sequence's pages the first ones stay longest.
 * Pages without any reference become idle when they are filled, else free and unnamed. */
void dr_ledger_release(struct dr_ledger *l, int32_t slot);

/* Forgets every name; idle pages become free. */
void dr_ledger_reset(struct dr_ledger *l);

/* Reads everything: each page is free once, idle once, or its count equals the tables that have it. Fails:
 * EINTERNAL naming the page. For tests and after faults; costs pages + table entries. */
DR_FALLIBLE dr_ledger_check(const struct dr_ledger *l);
