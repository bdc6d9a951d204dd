/* ledger.c - see ledger.h.
 * In:   slots, positions.      Out: tables.
 * Owns: what ledger.h says.
 * Why:  see ledger.h. */
#include "coordinator/ledger/ledger.h"

#include <stdlib.h>
#include <sys/mman.h>

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
    void *at = mmap(NULL, table_bytes(&out), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    out.table = at == MAP_FAILED ? NULL : at;
    if (!out.spare || !out.ref || !out.n || !out.table) {
        dr_ledger_fini(&out);
        return dr_fail(DR_EFULL, "coordinator: no memory for the ledger of %d pages and %d slots", s->n_page,
                       s->n_slot);
    }
    for (int32_t i = 0; i < out.n_page; i++) out.spare[i] = (uint32_t)(out.n_page - 1 - i);
    *l = out;
    return dr_ok();
}

void dr_ledger_fini(struct dr_ledger *l) {
    if (l->table) munmap(l->table, table_bytes(l));
    free(l->spare);
    free(l->ref);
    free(l->n);
    *l = (struct dr_ledger){0};
}

dr_status dr_ledger_reserve(struct dr_ledger *l, int32_t slot, int32_t n_tok) {
    DR_ASSERT(slot >= 0 && slot < l->n_slot && dr_ledger_pages(l, n_tok) <= l->table_max);
    int32_t need = dr_ledger_lacks(l, slot, n_tok);
    if (need > l->n_free)
        return dr_fail(DR_EFULL, "ledger: slot %d needs %d pages, %d of %d are free", slot, need, l->n_free,
                       l->n_page);
    uint32_t *table = l->table + (size_t)slot * (size_t)l->table_max;
    for (; need > 0; need--) {
        uint32_t page = l->spare[--l->n_free];
        DR_ASSERT(l->ref[page] == 0);
        l->ref[page] = 1;
        table[l->n[slot]++] = page;
    }
    return dr_ok();
}

void dr_ledger_release(struct dr_ledger *l, int32_t slot) {
    DR_ASSERT(slot >= 0 && slot < l->n_slot);
    const uint32_t *table = dr_ledger_table(l, slot);
    for (int32_t i = l->n[slot] - 1; i >= 0; i--) {
        uint32_t page = table[i];
        DR_ASSERT(l->ref[page] > 0);
        if (--l->ref[page] == 0) l->spare[l->n_free++] = page;
    }
    l->n[slot] = 0;
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
        seen[page] = UINT32_MAX;
    }
    for (int32_t i = 0; i < l->n_page; i++)
        if (seen[i] == 0) return dr_fail(DR_EINTERNAL, "ledger: page %d is lost", i);
    return dr_ok();
}

dr_status dr_ledger_check(const struct dr_ledger *l) {
    uint32_t *seen = calloc((size_t)l->n_page, sizeof *seen);
    if (!seen) return dr_fail(DR_EFULL, "ledger: no memory to check %d pages", l->n_page);
    dr_status st = count_references(l, seen);
    free(seen);
    return st;
}
