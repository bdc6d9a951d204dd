/* shadow.h - workers without tensors: they know whose rows a page holds.
 * In:   step plans; the true ids of each request.      Out: the results that real workers would send.
 * Owns: for each page how often tables name it and what it holds; for each slot its table and its last row.
 * Why:  a row stands for all tokens up to it: its hash folds the row before it and its own id. So one look at
 * a page's last row says whether all of it belongs to this beginning, and every step can be checked at the
 * cost of its rows.
 *
 * What is checked with every plan: pages are written by one owner only, pages that are found hold exactly the
 * beginning of the request that finds them, rows come in order and within their pages, budgets hold. Drafts
 * that it makes come true two times in three. */
#pragma once

#include "coordinator/book.h"

struct shadow_slot {
    bool open;
    int32_t n_page, n_row; /* n_row -1: no segment yet */
    int32_t n_kept;        /* rows that were found */
    uint32_t *page;        /* [table_max] */
    uint64_t last;         /* hash of its last row */
};

struct shadow {
    const struct dr_book *book; /* borrowed: which request a slot belongs to */
    struct shadow_slot *slot;   /* [seqs_max] owned */
    int32_t *ref;               /* [n_page] owned */
    uint64_t *end;              /* [n_page] owned: hash of the page's last row; 0: not all rows are there */
    uint32_t *table;            /* [seqs_max * table_max] owned */
    int32_t table_max, vocab;
    uint64_t step, n_row, n_found; /* last step; rows written; rows found in the cache */
};

/* Fails: EFULL. */
DR_FALLIBLE shadow_init(struct shadow *s, const struct dr_book *book, int32_t vocab);
void shadow_fini(struct shadow *s);

/* Runs a plan. rows of *out: in a list of the caller's, seqs_max of them. Fails: EINTERNAL saying which
 * promise was broken. */
DR_FALLIBLE shadow_step(struct shadow *s, const struct dr_step_plan *plan, struct dr_result_row *row,
                        struct dr_step_result *out);

/* The hash after more ids, from 0; and the id that follows a row. */
uint64_t shadow_fold(uint64_t hash, const uint32_t *ids, int32_t n);
static inline uint32_t shadow_next(uint64_t hash, int32_t vocab) {
    return (uint32_t)((hash >> 20) % (uint64_t)vocab);
}
