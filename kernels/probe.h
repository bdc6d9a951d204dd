/* probe.h - what this machine can do at best, measured.
 * In:   a number of threads, a buffer's size.      Out: bytes and operations a second.
 * Owns: nothing after the call.
 * Why:  a report says how far it is from what memory and arithmetic allow; data sheets do not know about
 * virtual machines. No kernel is chosen by these numbers. The one header of kernels/ that the gateway
 * includes. */
#pragma once

#include "common/status.h"

struct dr_probe {
    int32_t n_thread;
    size_t buffer_bytes;
    bool huge_pages;     /* most of the buffer lay on pages of 2 MiB */
    double read_bytes_s; /* plain loads, no software prefetch, all threads, buffer far beyond the caches */
    /* Operations a second of all threads, a multiply-add is two; operands in the first-level cache. 0: the
     * processor lacks the instructions. int8 is vpdpbusd, else the AVX2 sequence of sign, maddubs, maddwd,
     * add. */
    double f32_flop_s, bf16_flop_s, int8_op_s;
};

#ifdef __cplusplus
extern "C" {
#endif

/* About two seconds. buffer_bytes: at least 1 MiB; a GiB exceeds every cache. Takes the best of several
 * passes of each kind. Fails: EFULL, EDEVICE without AVX2 and FMA. */
DR_FALLIBLE dr_probe_run(int32_t n_thread, size_t buffer_bytes, struct dr_probe *out);

#ifdef __cplusplus
}
#endif
