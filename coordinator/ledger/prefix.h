/* prefix.h - names of cache pages, so that equal beginnings are found again.
 * In:   token ids, page by page; which page holds them.      Out: the page that holds a given beginning.
 * Owns: a name for each page, the hash table over the names, the list of filled pages that nobody uses.
 * Why:  a page's content depends on all tokens up to its end, so its name is a chain: SHA-256 of the name
 * before it and its own ids, begun with the tenant's salt. Equal names mean equal rows, whoever computed
 * them.
 *
 * A page is unnamed, pending (its name is known, its rows are not all computed) or filled. One name belongs
 * to one page. Only filled pages without references are idle; the one idle longest is given up first. */
#pragma once

#include "common/status.h"

struct dr_digest {
    uint8_t byte[32];
};

enum dr_page_state { DR_PAGE_UNNAMED, DR_PAGE_PENDING, DR_PAGE_FILLED };

struct dr_prefix {
    int32_t n_page, n_bucket;
    struct dr_digest *digest; /* [n_page] owned mapping, as all arrays; of named pages */
    uint8_t *state;           /* [n_page] enum dr_page_state */
    int32_t *bucket;          /* [n_bucket] first page of a chain, -1: none; n_bucket is a power of two */
    int32_t *next;            /* [n_page] next page of the chain */
    int32_t *newer, *older;   /* [n_page] neighbours among the idle pages */
    int32_t newest, oldest, n_idle;
    uint64_t n_forgotten; /* filled pages that have lost their names so far */
};

/* Fails: EFULL. */
DR_FALLIBLE dr_prefix_init(struct dr_prefix *p, int32_t n_page);
void dr_prefix_fini(struct dr_prefix *p);

/* The name before the first page. salt: what must be equal besides the tokens. */
void dr_prefix_root(const char *salt, struct dr_digest *out);

/* The name of the page after `before` that holds ids[0 .. n). kind: what else distinguishes its rows. */
void dr_prefix_next(const struct dr_digest *before, const uint32_t *ids, int32_t n, uint32_t kind,
                    struct dr_digest *out);

/* The page with this name, or -1. Its state says whether it may be read. */
int32_t dr_prefix_find(const struct dr_prefix *p, const struct dr_digest *name);

/* Unnamed -> pending. No page may have the name yet. */
void dr_prefix_name(struct dr_prefix *p, int32_t page, const struct dr_digest *name);

/* Pending -> filled. */
void dr_prefix_fill(struct dr_prefix *p, int32_t page);

/* Any state -> unnamed. An idle page must be taken off the list first. */
void dr_prefix_forget(struct dr_prefix *p, int32_t page);

/* A filled page loses its last reference; gets its first one again. */
void dr_prefix_rest(struct dr_prefix *p, int32_t page);
void dr_prefix_wake(struct dr_prefix *p, int32_t page);

/* Gives up the page that has been idle longest: it is unnamed and off the list afterwards. n_idle > 0. */
int32_t dr_prefix_evict(struct dr_prefix *p);

/* Reads everything: names are found under their pages, the idle list is whole. Fails: EINTERNAL naming the
 * page.
 */
DR_FALLIBLE dr_prefix_check(const struct dr_prefix *p);
