/* fold.h - a 64-bit hash of numbers, field by field.
 * In:   integers and doubles in a fixed order.      Out: a hash that is equal on every machine.
 * Owns: nothing.
 * Why:  structs have padding; identities of config and layout must not depend on it.
 *
 * FNV-1a over the eight little-endian bytes of each value. For equality among our own processes, not against
 * an adversary. */
#pragma once

#include <stdint.h>
#include <string.h>

#define DR_FOLD_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t dr_fold_u64(uint64_t h, uint64_t v) {
    for (int i = 0; i < 8; i++) h = (h ^ ((v >> (8 * i)) & 0xff)) * UINT64_C(0x100000001b3);
    return h;
}

static inline uint64_t dr_fold_f64(uint64_t h, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return dr_fold_u64(h, bits);
}
