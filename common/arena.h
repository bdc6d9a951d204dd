/* arena.h - memory that dies all at once.
 * In:   one block from the system, taken at init.      Out: aligned pieces of it.
 * Owns: the block.
 * Why:  the step path may not allocate after READY; a mark and a rewind replace every free. */
#pragma once

#include "common/status.h"

struct dr_arena {
    uint8_t *base;   /* 4096-byte aligned; NULL in the zero object */
    void *block;     /* owned: base lies in it; NULL when it is the caller's */
    size_t bytes;    /* capacity */
    size_t used;     /* bytes handed out since the last rewind to 0 */
    size_t used_max; /* high-water mark, for the memory report */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Takes `bytes` of zeroed memory from the system; pages of a large arena become resident when they are used.
 * Fails: EFULL when the system has none; *a is then untouched. */
DR_FALLIBLE dr_arena_init(struct dr_arena *a, size_t bytes);
void dr_arena_fini(struct dr_arena *a);

/* A piece of `bytes` at a multiple of `align` (power of two, at most 4096). Contents are what was there
 * before. Aborts when the arena is full: the caller sized it, so running out is a bug. Never returns NULL. */
void *dr_arena_take(struct dr_arena *a, size_t bytes, size_t align);

/* The same, but returns NULL when the arena is full: for sizes that come from outside. */
void *dr_arena_try(struct dr_arena *a, size_t bytes, size_t align);

size_t dr_arena_mark(const struct dr_arena *a);
void dr_arena_rewind(struct dr_arena *a, size_t mark);

#ifdef __cplusplus
}
#endif
