/* pool.c - see pool.h.
 * In:   counts.      Out: records.
 * Owns: what pool.h says.
 * Why:  one place that maps and returns the memory of tokens. */
#include "coordinator/queue/pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/size.h"
#include "coordinator/ledger/lazy.h"

enum {
    GIVE_BACK_BYTES = 64 << 10, /* shorter stripes stay: the call costs more than 16 pages are worth */
    PAGE_BYTES = 4096,
};

static size_t ids_bytes(int32_t n, int32_t context) {
    return (size_t)n * (size_t)context * sizeof(uint32_t);
}

static size_t bias_bytes(int32_t n) {
    return (size_t)n * DR_BIAS_MAX * sizeof(struct dr_bias);
}

static size_t name_bytes(int32_t n, int32_t names) {
    return (size_t)n * (size_t)names * sizeof(struct dr_digest);
}

dr_status dr_pool_init(struct dr_pool *p, int32_t n, int32_t context, int32_t page_tokens) {
    DR_ASSERT(n > 0 && context > 0 && page_tokens > 0);
    struct dr_pool out = {.n = n, .n_spare = n, .context = context, .names = context / page_tokens + 1};
    out.request = calloc((size_t)n, sizeof *out.request);
    out.spare = calloc((size_t)n, sizeof *out.spare);
    out.ids = dr_lazy_map(ids_bytes(n, context));
    out.bias = dr_lazy_map(bias_bytes(n));
    out.name = dr_lazy_map(name_bytes(n, out.names));
    if (!out.request || !out.spare || !out.ids || !out.bias || !out.name) {
        dr_pool_fini(&out);
        return dr_fail(DR_EFULL,
                       "coordinator: no %zu bytes of address space for %d requests of %d tokens; lower "
                       "--context or --seqs-max",
                       ids_bytes(n, context) + bias_bytes(n) + name_bytes(n, out.names), n, context);
    }
    for (int32_t i = 0; i < n; i++) out.spare[i] = n - 1 - i;
    *p = out;
    return dr_ok();
}

void dr_pool_fini(struct dr_pool *p) {
    dr_lazy_unmap(p->ids, ids_bytes(p->n, p->context));
    dr_lazy_unmap(p->bias, bias_bytes(p->n));
    dr_lazy_unmap(p->name, name_bytes(p->n, p->names));
    free(p->request);
    free(p->spare);
    *p = (struct dr_pool){0};
}

struct dr_request *dr_pool_acquire(struct dr_pool *p) {
    if (p->n_spare == 0) return NULL;
    int32_t i = p->spare[--p->n_spare];
    struct dr_request *r = &p->request[i];
    *r = (struct dr_request){
        .slot = -1,
        .ids = p->ids + (size_t)i * (size_t)p->context,
        .bias = p->bias + (size_t)i * DR_BIAS_MAX,
        .name = p->name + (size_t)i * (size_t)p->names,
    };
    return r;
}

/* Returns whole pages inside [at, at + bytes) to the system. */
static void give_back(void *at, size_t bytes) {
    if (bytes < GIVE_BACK_BYTES) return;
    uintptr_t begin = dr_size_align((uintptr_t)at, PAGE_BYTES);
    uintptr_t end = ((uintptr_t)at + bytes) & ~(uintptr_t)(PAGE_BYTES - 1);
    (void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* advice: nothing depends on it */
}

void dr_pool_release(struct dr_pool *p, struct dr_request *r) {
    DR_ASSERT(r->state == DR_REQUEST_FREE && p->n_spare < p->n);
    give_back(r->ids, (size_t)r->n_ids * sizeof *r->ids);
    give_back(r->name, (size_t)r->n_name * sizeof *r->name);
    p->spare[p->n_spare++] = (int32_t)(r - p->request);
}

struct dr_request *dr_pool_find(struct dr_pool *p, uint64_t id) {
    for (int32_t i = 0; i < p->n; i++) {
        struct dr_request *r = &p->request[i];
        if (r->state != DR_REQUEST_FREE && r->id == id) return r;
    }
    return NULL;
}
