/* group.c - the one place where the parts of a sum are added.
 * In:   the members' parts of the same elements.      Out: their sum.
 * Owns: nothing.
 * Why:  the order of additions is a promise (batch invariance); every implementation of the group adds
 * through here. */
#include "worker/collective/group.h"

#include <string.h>

/* A block of sums stays in the first-level cache (4 KiB) while the parts stream past it. */
enum { BLOCK = 1024 };

void dr_group_sum(float *out, const float *const *part, int32_t n, size_t count) {
    float acc[BLOCK];
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t len = count - at < BLOCK ? count - at : BLOCK;
        memcpy(acc, part[0] + at, len * sizeof *acc);
        for (int32_t m = 1; m < n; m++) {
            const float *p = part[m] + at;
            for (size_t i = 0; i < len; i++) acc[i] += p[i];
        }
        memcpy(out + at, acc, len * sizeof *acc);
    }
}
