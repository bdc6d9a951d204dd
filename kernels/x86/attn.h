/* attn.h - attention of the x86 backend.
 * In:   op arguments of ops.h.      Out: outputs with their log-sum-exp; done when a call returns.
 * Owns: nothing.
 * Why:  see ops.h. The f32 forms give the bits of kernels/cpu on both widths, for any number of threads, with
 * or without scratch; bf16 (AVX512_BF16 and VBMI) rounds queries, rows and weights to bfloat16 and is bit for
 * bit independent of the batch, threads and scratch too.
 *
 * A thread takes up to 64 queries (heads of a token, or tokens of a head) through one split of keys after the
 * other, with about 230 KiB of working memory on its stack. */
#pragma once

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

DR_FALLIBLE dr_x86_attn_absorbed_avx2(const struct dr_attn_absorbed *a, struct dr_stream *s);
DR_FALLIBLE dr_x86_attn_absorbed_avx512(const struct dr_attn_absorbed *a, struct dr_stream *s);
DR_FALLIBLE dr_x86_attn_absorbed_bf16(const struct dr_attn_absorbed *a, struct dr_stream *s);
DR_FALLIBLE dr_x86_attn_expanded_avx2(const struct dr_attn_expanded *a, struct dr_stream *s);
DR_FALLIBLE dr_x86_attn_expanded_avx512(const struct dr_attn_expanded *a, struct dr_stream *s);
DR_FALLIBLE dr_x86_attn_expanded_bf16(const struct dr_attn_expanded *a, struct dr_stream *s);

#ifdef __cplusplus
}
#endif
