/* lazy.h - zeroed tables sized for the most that can ever be in them.
 * In:   a size.      Out: a mapping of zeros, owned by the caller.
 * Why:  what the tables may hold is known at start and large; what they do hold is mostly small. The system
 * gives memory only where a page of the mapping is written. */
#pragma once

#include <stddef.h>
#include <sys/mman.h>

/* `bytes` > 0 of zeros, owned, to be given back by dr_lazy_unmap with the same size. NULL: no address space.
 */
static inline void *dr_lazy_map(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* at NULL: nothing is done. */
static inline void dr_lazy_unmap(void *at, size_t bytes) {
    if (at) (void)munmap(at, bytes);
}
