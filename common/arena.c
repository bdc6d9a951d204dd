/* arena.c - one block, one cursor.
 * In:   sizes.      Out: aligned pieces.
 * Owns: the block taken at init.
 * Why:  see arena.h. */
#include "common/arena.h"

#include <stdlib.h>

#include "common/size.h"

enum { BLOCK_ALIGN = 4096 };

dr_status dr_arena_init(struct dr_arena *a, size_t bytes) {
    size_t room = 0;
    if (!dr_size_add(bytes, 2 * BLOCK_ALIGN, &room))
        return dr_fail(DR_EFULL, "arena of %zu bytes: size overflows", bytes);
    size_t rounded = dr_size_align(bytes ? bytes : 1, BLOCK_ALIGN);
    /* calloc does not write to what the system gives as zeros, a memset would make all of it resident */
    uint8_t *block = calloc(1, rounded + BLOCK_ALIGN - 1);
    if (!block)
        return dr_fail(DR_EFULL, "arena of %zu bytes: the system has no such block; free memory", bytes);
    size_t front = (BLOCK_ALIGN - (uintptr_t)block % BLOCK_ALIGN) % BLOCK_ALIGN;
    *a = (struct dr_arena){.base = block + front, .block = block, .bytes = rounded};
    return dr_ok();
}

void dr_arena_fini(struct dr_arena *a) {
    free(a->block);
    *a = (struct dr_arena){0};
}

void *dr_arena_try(struct dr_arena *a, size_t bytes, size_t align) {
    DR_ASSERT(align != 0 && (align & (align - 1)) == 0 && align <= BLOCK_ALIGN);
    size_t at = dr_size_align(a->used, align), end = 0;
    if (!dr_size_add(at, bytes, &end) || end > a->bytes) return NULL;
    a->used = end;
    if (end > a->used_max) a->used_max = end;
    return a->base + at;
}

void *dr_arena_take(struct dr_arena *a, size_t bytes, size_t align) {
    void *p = dr_arena_try(a, bytes, align);
    DR_ASSERT(p != NULL);
    return p;
}

size_t dr_arena_mark(const struct dr_arena *a) {
    return a->used;
}

void dr_arena_rewind(struct dr_arena *a, size_t mark) {
    DR_ASSERT(mark <= a->used);
    a->used = mark;
}
