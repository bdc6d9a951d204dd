/* ledger.c - see ledger.h.
 * In:   slots, positions.      Out: tables.
 * Owns: what ledger.h says.
 * Why:  see ledger.h. */
#include "coordinator/ledger/ledger.h"

#include <stdlib.h>

#include "coordinator/ledger/lazy.h"

static size_t table_bytes(const struct dr_ledger *l) {
    return (size_t)l->n_slot * (size_t)l->table_max * sizeof(uint32_t);
}

dr_status dr_ledger_init(struct dr_ledger *l, const struct dr_ledger_setup *s) {
    DR_ASSERT(s->n_page > 0 && s->page_tokens > 0 && s->n_slot > 0 && s->context > 0);
    struct dr_ledger out = {.n_page = s->n_page, .page_tokens = s->page_tokens, .n_slot = s->n_slot};
    out.table_max = dr_ledger_pages(&out, s->context);
    out.n_free = out.n_page;
    out.spare = calloc((size_t)out.n_page, sizeof *out.spare);
    out.ref = calloc((size_t)out.n_page, sizeof *out.ref);
    out.n = calloc((size_t)out.n_slot, sizeof *out.n);
    out.table = dr_lazy_map(table_bytes(&out));
    if (!out.spare || !out.ref || !out.n || !out.table) {
        dr_ledger_fini(&out);
        return dr_fail(DR_EFULL, "coordinator: no memory for the ledger of %d pages and %d slots", s->n_page,
                       s->n_slot);
    }
    dr_status st = dr_prefix_init(&out.prefix, out.n_page);
    if (st.code != DR_OK) {
        dr_ledger_fini(&out);
        return st;
    }
    for (int32_t i = 0; i < out.n_page; i++) out.spare[i] = (uint32_t)(out.n_page - 1 - i);
    *l = out;
    return dr_ok();
}

void dr_ledger_fini(struct dr_ledger *l) {
    dr_lazy_unmap(l->table, table_bytes(l));
    free(l->spare);
    free(l->ref);
    free(l->n);
    dr_prefix_fini(&l->prefix);
    *l = (struct dr_ledger){0};
}

static void append(struct dr_ledger *l, int32_t slot, uint32_t page) {
    DR_ASSERT(l->n[slot] < l->table_max);
    l->ref[page]++;
    l->table[(size_t)slot * (size_t)l->table_max + (size_t)l->n[slot]++] = page;
}

void dr_ledger_share(struct dr_ledger *l, int32_t slot, int32_t page) {
    DR_ASSERT(slot >= 0 && slot < l->n_slot && l->prefix.state[page] == DR_PAGE_FILLED);
    if (l->ref[page] == 0) dr_prefix_wake(&l->prefix, page);
    append(l, slot, (uint32_t)page);
}

/* An unnamed page without references. */
static uint32_t take(struct dr_ledger *l) {
    return l->n_free > 0 ? l->spare[--l->n_free] : (uint32_t)dr_prefix_evict(&l->prefix);
}

dr_status dr_ledger_reserve(struct dr_ledger *l, int32_t slot, int32_t n_tok) {
    DR_ASSERT(slot >= 0 && slot < l->n_slot && dr_ledger_pages(l, n_tok) <= l->table_max);
    int32_t need = dr_ledger_lacks(l, slot, n_tok);
    if (need > dr_ledger_room(l))
        return dr_fail(DR_EFULL, "ledger: slot %d needs %d pages, %d of %d are free or idle", slot, need,
                       dr_ledger_room(l), l->n_page);
    for (; need > 0; need--) append(l, slot, take(l));
    return dr_ok();
}

void dr_ledger_release(struct dr_ledger *l, int32_t slot) {
    DR_ASSERT(slot >= 0 && slot < l->n_slot);
    const uint32_t *table = dr_ledger_table(l, slot);
    for (int32_t i = l->n[slot] - 1; i >= 0; i--) {
        uint32_t page = table[i];
        DR_ASSERT(l->ref[page] > 0);
        if (--l->ref[page] > 0) continue;
        if (l->prefix.state[page] == DR_PAGE_FILLED) {
            dr_prefix_rest(&l->prefix, (int32_t)page);
        } else {
            dr_prefix_forget(&l->prefix, (int32_t)page);
            l->spare[l->n_free++] = page;
        }
    }
    l->n[slot] = 0;
}

void dr_ledger_reset(struct dr_ledger *l) {
    while (l->prefix.n_idle > 0) l->spare[l->n_free++] = (uint32_t)dr_prefix_evict(&l->prefix);
    for (int32_t i = 0; i < l->n_page; i++) dr_prefix_forget(&l->prefix, i);
}

static dr_status count_references(const struct dr_ledger *l, uint32_t *seen) {
    for (int32_t slot = 0; slot < l->n_slot; slot++) {
        for (int32_t i = 0; i < l->n[slot]; i++) {
            uint32_t page = dr_ledger_table(l, slot)[i];
            if (page >= (uint32_t)l->n_page)
                return dr_fail(DR_EINTERNAL, "ledger: slot %d entry %d names page %u of %d", slot, i, page,
                               l->n_page);
            seen[page]++;
        }
    }
    for (int32_t i = 0; i < l->n_page; i++)
        if (seen[i] != l->ref[i])
            return dr_fail(DR_EINTERNAL, "ledger: page %d has count %u, tables name it %u times", i,
                           l->ref[i], seen[i]);
    for (int32_t i = 0; i < l->n_free; i++) {
        uint32_t page = l->spare[i];
        if (page >= (uint32_t)l->n_page || seen[page] != 0)
            return dr_fail(DR_EINTERNAL, "ledger: page %u is free twice or in use", page);
        if (l->prefix.state[page] != DR_PAGE_UNNAMED)
            return dr_fail(DR_EINTERNAL, "ledger: free page %u has a name", page);
        seen[page] = UINT32_MAX;
    }
    for (int32_t i = l->prefix.oldest; i >= 0; i = l->prefix.newer[i]) {
        if (seen[i] != 0) return dr_fail(DR_EINTERNAL, "ledger: page %d is idle and free or in use", i);
        seen[i] = UINT32_MAX;
    }
    for (int32_t i = 0; i < l->n_page; i++)
        if (seen[i] == 0) return dr_fail(DR_EINTERNAL, "ledger: page %d is lost", i);
    return dr_ok();
}

dr_status dr_ledger_check(const struct dr_ledger *l) {
    uint32_t *seen = calloc((size_t)l->n_page, sizeof *seen);
    if (!seen) return dr_fail(DR_EFULL, "ledger: no memory to check %d pages", l->n_page);
    dr_status st = dr_prefix_check(&l->prefix);
    if (st.code == DR_OK) st = count_references(l, seen);
    free(seen);
    return st;
}
