/* x86.h - the functions behind the tables of the x86 backend.
 * In:   op arguments of ops.h.      Out: results; every call has finished when it returns.
 * Owns: nothing.
 * Why:  table.c alone builds the tables; ops without a fast form are those of kernels/cpu. */
#pragma once

#include "kernels/cpu/cpu.h"
#include "kernels/x86/matrix.h"

DR_FALLIBLE dr_x86_linear(const struct dr_linear *a, struct dr_stream *s, const struct dr_matrix_set *set);
DR_FALLIBLE dr_x86_linear_heads(const struct dr_linear_heads *a, struct dr_stream *s,
                                const struct dr_matrix_set *set);
DR_FALLIBLE dr_x86_moe(const struct dr_moe *a, struct dr_stream *s, const struct dr_matrix_set *set);
