/* prefix.c - see prefix.h.
 * In:   names.      Out: pages.
 * Owns: what prefix.h says.
 * Why:  see prefix.h. */
#include "coordinator/ledger/prefix.h"

#include <string.h>

#include "coordinator/ledger/lazy.h"

/* EVP takes memory for every digest that it begins (3.0), and a page is named in nearly every step; these
 * functions do not. They are deprecated, not going to change. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

dr_status dr_prefix_init(struct dr_prefix *p, int32_t n_page) {
    DR_ASSERT(n_page > 0);
    struct dr_prefix out = {.n_page = n_page, .n_bucket = 16, .newest = -1, .oldest = -1};
    while (out.n_bucket < n_page) out.n_bucket *= 2;
    const size_t n = (size_t)n_page;
    out.digest = dr_lazy_map(n * sizeof *out.digest);
    out.state = dr_lazy_map(n);
    out.bucket = dr_lazy_map((size_t)out.n_bucket * sizeof *out.bucket);
    out.next = dr_lazy_map(n * sizeof *out.next);
    out.newer = dr_lazy_map(n * sizeof *out.newer);
    out.older = dr_lazy_map(n * sizeof *out.older);
    if (!out.digest || !out.state || !out.bucket || !out.next || !out.newer || !out.older) {
        dr_prefix_fini(&out);
        return dr_fail(DR_EFULL, "coordinator: no memory for the names of %d pages", n_page);
    }
    memset(out.bucket, 0xff, (size_t)out.n_bucket * sizeof *out.bucket);
    *p = out;
    return dr_ok();
}

void dr_prefix_fini(struct dr_prefix *p) {
    const size_t n = (size_t)p->n_page;
    dr_lazy_unmap(p->digest, n * sizeof *p->digest);
    dr_lazy_unmap(p->state, n);
    dr_lazy_unmap(p->bucket, (size_t)p->n_bucket * sizeof *p->bucket);
    dr_lazy_unmap(p->next, n * sizeof *p->next);
    dr_lazy_unmap(p->newer, n * sizeof *p->newer);
    dr_lazy_unmap(p->older, n * sizeof *p->older);
    *p = (struct dr_prefix){0};
}

/* SHA-256 of a, b and c in this order. */
static void hash(const void *a, size_t n_a, const void *b, size_t n_b, const void *c, size_t n_c,
                 struct dr_digest *out) {
    SHA256_CTX ctx;
    const bool ok = SHA256_Init(&ctx) && SHA256_Update(&ctx, a, n_a) && SHA256_Update(&ctx, b, n_b) &&
                    SHA256_Update(&ctx, c, n_c) && SHA256_Final(out->byte, &ctx);
    DR_ASSERT(ok); /* pure arithmetic */
}

void dr_prefix_root(const char *salt, struct dr_digest *out) {
    static const char what[] = "deeprack latent pages, version 1";
    hash(what, sizeof what, salt, strlen(salt), "", 0, out);
}

void dr_prefix_next(const struct dr_digest *before, const uint32_t *ids, int32_t n, uint32_t kind,
                    struct dr_digest *out) {
    hash(before->byte, sizeof before->byte, &kind, sizeof kind, ids, (size_t)n * sizeof *ids, out);
}

static int32_t *bucket_of(const struct dr_prefix *p, const struct dr_digest *name) {
    uint32_t word; /* a digest is random enough as it is */
    memcpy(&word, name->byte, sizeof word);
    return &p->bucket[word & (uint32_t)(p->n_bucket - 1)];
}

static bool same(const struct dr_digest *a, const struct dr_digest *b) {
    return memcmp(a->byte, b->byte, sizeof a->byte) == 0;
}

int32_t dr_prefix_find(const struct dr_prefix *p, const struct dr_digest *name) {
    int32_t page = *bucket_of(p, name);
    while (page >= 0 && !same(&p->digest[page], name)) page = p->next[page];
    return page;
}

void dr_prefix_name(struct dr_prefix *p, int32_t page, const struct dr_digest *name) {
    DR_ASSERT(p->state[page] == DR_PAGE_UNNAMED && dr_prefix_find(p, name) < 0);
    int32_t *first = bucket_of(p, name);
    p->digest[page] = *name;
    p->state[page] = DR_PAGE_PENDING;
    p->next[page] = *first;
    *first = page;
}

void dr_prefix_fill(struct dr_prefix *p, int32_t page) {
    DR_ASSERT(p->state[page] == DR_PAGE_PENDING);
    p->state[page] = DR_PAGE_FILLED;
}

void dr_prefix_forget(struct dr_prefix *p, int32_t page) {
    if (p->state[page] == DR_PAGE_UNNAMED) return;
    p->n_forgotten += p->state[page] == DR_PAGE_FILLED;
    int32_t *at = bucket_of(p, &p->digest[page]);
    while (*at != page) at = &p->next[*at];
    *at = p->next[page];
    p->state[page] = DR_PAGE_UNNAMED;
}

void dr_prefix_rest(struct dr_prefix *p, int32_t page) {
    DR_ASSERT(p->state[page] == DR_PAGE_FILLED);
    p->newer[page] = -1;
    p->older[page] = p->newest;
    *(p->newest < 0 ? &p->oldest : &p->newer[p->newest]) = page;
    p->newest = page;
    p->n_idle++;
}

void dr_prefix_wake(struct dr_prefix *p, int32_t page) {
    const int32_t newer = p->newer[page], older = p->older[page];
    *(newer < 0 ? &p->newest : &p->older[newer]) = older;
    *(older < 0 ? &p->oldest : &p->newer[older]) = newer;
    p->n_idle--;
}

int32_t dr_prefix_evict(struct dr_prefix *p) {
    const int32_t page = p->oldest;
    DR_ASSERT(page >= 0);
    dr_prefix_wake(p, page);
    dr_prefix_forget(p, page);
    return page;
}

dr_status dr_prefix_check(const struct dr_prefix *p) {
    int32_t n = 0, before = -1;
    for (int32_t i = 0; i < p->n_page; i++)
        if (p->state[i] != DR_PAGE_UNNAMED && dr_prefix_find(p, &p->digest[i]) != i)
            return dr_fail(DR_EINTERNAL, "prefix: page %d is not found under its name", i);
    for (int32_t i = p->oldest; i >= 0; before = i, i = p->newer[i]) {
        if (p->state[i] != DR_PAGE_FILLED || p->older[i] != before || n++ >= p->n_page)
            return dr_fail(DR_EINTERNAL, "prefix: idle page %d has state %d after page %d, expected %d", i,
                           p->state[i], p->older[i], before);
    }
    if (n != p->n_idle || before != p->newest)
        return dr_fail(DR_EINTERNAL, "prefix: %d idle pages end with %d, counted %d and %d", n, before,
                       p->n_idle, p->newest);
    return dr_ok();
}
