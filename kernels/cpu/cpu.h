/* cpu.h - the functions behind the CPU table.
 * In:   op arguments of ops.h.      Out: results; every call has finished when it returns.
 * Owns: nothing.
 * Why:  one file an op; ops.c alone builds the table. */
#pragma once

#include "kernels/ops.h"

#define DR_X_(op) DR_FALLIBLE dr_cpu_##op(const struct dr_##op *a, struct dr_stream *s);
DR_OPS(DR_X_)
#undef DR_X_
