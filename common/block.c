/* block.c - see block.h.
 * In:   sizes.      Out: mappings.
 * Owns: nothing.
 * Why:  see block.h. */
#include "common/block.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "common/size.h"

static const size_t huge = (size_t)2 << 20, small = 4096;

/* Blocks of less than a huge page do not ask for one. */
static size_t mapped(size_t bytes) {
    return dr_size_align(bytes ? bytes : 1, bytes < huge ? small : huge);
}

dr_status dr_block_take(size_t bytes, uint8_t **out) {
    if (bytes > SIZE_MAX / 2)
        return dr_fail(DR_EFULL, "a block of %zu bytes: no address space is that large", bytes);
    size_t size = mapped(bytes), slack = size < huge ? 0 : huge;
    uint8_t *at = mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return dr_fail(DR_EFULL, "a block of %zu bytes: %s; free memory or use more ranks", bytes,
                       strerror(errno));
    if (slack > 0) { /* the part that begins at a huge page */
        size_t front = (huge - (uintptr_t)at % huge) % huge;
        if (front > 0) (void)munmap(at, front);
        (void)munmap(at + front + size, slack - front);
        at += front;
        (void)madvise(at, size, MADV_HUGEPAGE); /* a wish: without it small pages do */
    }
    *out = at;
    return dr_ok();
}

void dr_block_give(uint8_t *block, size_t bytes) {
    if (block) (void)munmap(block, mapped(bytes));
}
