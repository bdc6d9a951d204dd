/* ops.c - the table of the CPU backend.
 * In:   the processor's features.      Out: the table, or a refusal.
 * Owns: nothing; the table is constant.
 * Why:  kernels/cpu is compiled for AVX2 and FMA; this file is not, so that it can say so on older
 * processors. */
#include "kernels/ops.h"

#include "kernels/cpu/cpu.h"

#define DR_X_(op) .op = dr_cpu_##op,
static const struct dr_ops cpu = {
    .name = "oracle", .native_inputs = "f32", .int8_inputs = "f32", DR_OPS(DR_X_)};
#undef DR_X_

dr_status dr_ops_cpu(const struct dr_ops **out) {
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2"), fma = __builtin_cpu_supports("fma");
    if (!avx2 || !fma)
        return dr_fail(DR_EDEVICE,
                       "the CPU kernels need a processor with AVX2 and FMA: this one has AVX2 %s, FMA %s",
                       avx2 ? "yes" : "no", fma ? "yes" : "no");
    *out = &cpu;
    return dr_ok();
}
