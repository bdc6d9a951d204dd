/* table.c - the tables of the x86 backend, and which of them the processor runs.
 * In:   the processor's features, a wish.      Out: a table, or a refusal.
 * Owns: nothing; tables are constant.
 * Why:  compiled for any x86-64, since it runs before the processor has been asked. One binary holds all
 * instruction sets. */
#include <cpuid.h>

#include "kernels/x86/attn.h"
#include "kernels/x86/x86.h"

/* clang-format off */
#define DR_F32(strip_) {.prepare = dr_prepare_f32, .strip = (strip_)}
#define DR_ALL_F32(strip_) {DR_F32(strip_), DR_F32(strip_), DR_F32(strip_), DR_F32(strip_), DR_F32(strip_)}
/* by enum dr_wtype: F32, BF16, F16, F8, I8 */
#define DR_FAST(strip_, int8_) {DR_F32(strip_), DR_F32(strip_), DR_F32(strip_), DR_F32(strip_), int8_}
#define DR_INT8_AVX2 {.prepare = dr_prepare_int8_avx2, .strip = dr_strip_int8_avx2}
#define DR_INT8_VNNI {.prepare = dr_prepare_int8_vnni, .strip = dr_strip_int8_vnni}
#define DR_BF16 {.prepare = dr_prepare_bf16, .strip = dr_strip_bf16}

#define DR_WIDE dr_strip_f32_avx512
static const struct dr_matrix_set
    set_avx2 = {.by_type = DR_ALL_F32(dr_strip_f32_avx2), .exact = DR_ALL_F32(dr_strip_f32_avx2)},
    set_avx2_fast = {.by_type = DR_FAST(dr_strip_f32_avx2, DR_INT8_AVX2), .exact = DR_ALL_F32(dr_strip_f32_avx2)},
    set_avx512 = {.by_type = DR_ALL_F32(DR_WIDE), .exact = DR_ALL_F32(DR_WIDE)},
    set_avx512_fast = {.by_type = DR_FAST(DR_WIDE, DR_INT8_AVX2), .exact = DR_ALL_F32(DR_WIDE)},
    set_vnni_fast = {.by_type = DR_FAST(DR_WIDE, DR_INT8_VNNI), .exact = DR_ALL_F32(DR_WIDE)},
    set_bf16_fast = {.by_type = {DR_F32(DR_WIDE), DR_BF16, DR_F32(DR_WIDE), DR_BF16, DR_INT8_VNNI},
                     .exact = DR_ALL_F32(DR_WIDE)};

/* A cache of f32 rows was chosen for its precision. */
static dr_status absorbed_bf16(const struct dr_attn_absorbed *a, struct dr_stream *s) {
    return a->cache.type == DR_ROW_F32 ? dr_x86_attn_absorbed_avx512(a, s) : dr_x86_attn_absorbed_bf16(a, s);
}
static dr_status expanded_bf16(const struct dr_attn_expanded *a, struct dr_stream *s) {
    return a->exact ? dr_x86_attn_expanded_avx512(a, s) : dr_x86_attn_expanded_bf16(a, s);
}

/* Ops of a table that need its set, and the table. */
#define DR_TABLE(id, name_, native_, int8_, absorbed_, expanded_)                                            \
    static dr_status linear_##id(const struct dr_linear *a, struct dr_stream *s) {                           \
        return dr_x86_linear(a, s, &set_##id);                                                               \
    }                                                                                                        \
    static dr_status heads_##id(const struct dr_linear_heads *a, struct dr_stream *s) {                      \
        return dr_x86_linear_heads(a, s, &set_##id);                                                         \
    }                                                                                                        \
    static dr_status moe_##id(const struct dr_moe *a, struct dr_stream *s) {                                 \
        return dr_x86_moe(a, s, &set_##id);                                                                  \
    }                                                                                                        \
    static const struct dr_ops ops_##id = {                                                                  \
        .name = name_, .native_inputs = native_, .int8_inputs = int8_,                                       \
        .embed = dr_cpu_embed, .rmsnorm = dr_cpu_rmsnorm, .linear = linear_##id, .linear_heads = heads_##id, \
        .rope_angles = dr_cpu_rope_angles, .rope = dr_cpu_rope, .cache_put = dr_cpu_cache_put,               \
        .cache_gather = dr_cpu_cache_gather, .cache_unpack = dr_cpu_cache_unpack,                            \
        .attn_absorbed = absorbed_, .attn_expanded = expanded_, .attn_merge = dr_cpu_attn_merge,             \
        .add = dr_cpu_add, .finite = dr_cpu_finite, .route = dr_cpu_route, .moe = moe_##id,                  \
        .logit_adjust = dr_cpu_logit_adjust, .row_max = dr_cpu_row_max, .row_mass = dr_cpu_row_mass,         \
        .row_bins = dr_cpu_row_bins, .row_pick = dr_cpu_row_pick, .row_top = dr_cpu_row_top,                 \
    };

DR_TABLE(avx2, "avx2", "f32", "f32", dr_x86_attn_absorbed_avx2, dr_x86_attn_expanded_avx2)
DR_TABLE(avx2_fast, "avx2", "f32", "int8", dr_x86_attn_absorbed_avx2, dr_x86_attn_expanded_avx2)
DR_TABLE(avx512, "avx512", "f32", "f32", dr_x86_attn_absorbed_avx512, dr_x86_attn_expanded_avx512)
DR_TABLE(avx512_fast, "avx512", "f32", "int8", dr_x86_attn_absorbed_avx512, dr_x86_attn_expanded_avx512)
DR_TABLE(vnni_fast, "vnni", "f32", "int8", dr_x86_attn_absorbed_avx512, dr_x86_attn_expanded_avx512)
DR_TABLE(bf16_fast, "bf16", "bf16", "int8", absorbed_bf16, expanded_bf16)
/* clang-format on */

/* More than AVX-512 adds nothing to exact arithmetic. */
static const struct dr_ops *const tables[DR_ISA_COUNT][2] = {
    [DR_ISA_AVX2] = {&ops_avx2, &ops_avx2_fast},
    [DR_ISA_AVX512] = {&ops_avx512, &ops_avx512_fast},
    [DR_ISA_VNNI] = {&ops_avx512, &ops_vnni_fast},
    [DR_ISA_BF16] = {&ops_avx512, &ops_bf16_fast},
};

#define DR_X_(name, text) text,
static const char *const names[DR_ISA_COUNT] = {DR_ISAS(DR_X_)};
#undef DR_X_

const char *dr_isa_name(enum dr_isa isa) {
    return isa < DR_ISA_COUNT ? names[isa] : "none";
}

enum dr_isa dr_isa_here(void) {
#ifdef DR_SIMDE
    return DR_ISA_BF16; /* a test build, whose instructions are emulated */
#else
    enum { F16C = 1 << 29 }; /* of ecx, leaf 1: clang 14 does not know its name */
    unsigned eax, ebx, ecx = 0, edx;
    __builtin_cpu_init();
    bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & F16C);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !f16c) return DR_ISA_COUNT;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return DR_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512vnni")) return DR_ISA_AVX512;
    bool bf16 = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
    return bf16 ? DR_ISA_BF16 : DR_ISA_VNNI;
#endif
}

dr_status dr_ops_x86(enum dr_isa isa, enum dr_precision precision, const struct dr_ops **out) {
    enum dr_isa here = dr_isa_here();
    if (here == DR_ISA_COUNT)
        return dr_fail(DR_EDEVICE,
                       "the CPU kernels need a processor with AVX2, FMA and F16C; this one lacks one of "
                       "them");
    if (isa != DR_ISA_COUNT && isa > here)
        return dr_fail(DR_EDEVICE, "--isa=%s: this processor has %s at most; use --isa=%s or leave it out",
                       dr_isa_name(isa), dr_isa_name(here), dr_isa_name(here));
    *out = tables[isa == DR_ISA_COUNT ? here : isa][precision];
    return dr_ok();
}
