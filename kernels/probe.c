/* probe.c - see probe.h.
 * In:   a thread team.      Out: rates.
 * Owns: the team and the buffer for the length of a call.
 * Why:  see probe.h. Each loop has its instruction set as an attribute, so this file is compiled for any
 * x86-64 and asks the processor first. */
#include "kernels/probe.h"

#include <immintrin.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "common/block.h"
#include "common/clock.h"
#include "common/topology.h"
#include "kernels/ops.h"
#include "kernels/team.h"

/* CHAINS independent sums hide a latency of 4 cycles on two ports with room to spare. */
enum { CHAINS = 12, TURNS = 1 << 16, PASSES = 7, PIECE = 2 << 20, OPERANDS = 16, PIECES_EACH = 64 };

#define AVX2_   __attribute__((target("avx2,fma")))
#define AVX512_ __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define VNNI_   __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define BF16_   __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

/* 64-byte operands that the compiler cannot know: OPERANDS of them, 1 KiB. */
struct operands {
    _Alignas(64) uint8_t at[OPERANDS][64];
};

struct job {
    const uint8_t *buffer;
    uint8_t *fill; /* the same, while it is written */
    const struct operands *x;
    uint64_t *sink; /* makes results count */
};

static void keep(const struct job *j, uint64_t v) {
    __atomic_fetch_xor(j->sink, v, __ATOMIC_RELAXED);
}

/* ---- memory ---- */

static void fill(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct job *j = arg;
    (void)thread;
    memset(j->fill + begin, 1, (size_t)(end - begin));
}

AVX2_ static void read_all(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct job *j = arg;
    const __m256i *at = (const __m256i *)(const void *)(j->buffer + begin);
    const int64_t n = (end - begin) / 32;
    __m256i s[8] = {_mm256_setzero_si256()};
    (void)thread;
    for (int64_t i = 0; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] = _mm256_or_si256(s[k], _mm256_load_si256(at + i + k));
    for (int k = 1; k < 8; k++) s[0] = _mm256_or_si256(s[0], s[k]);
    keep(j, (uint64_t)_mm256_extract_epi64(s[0], 0));
}

/* ---- arithmetic: a piece is TURNS rounds of CHAINS instructions ----
 * The sums begin with loaded values: a compiler would make one of several that it knows to be equal. */

#define LOOP(name_, isa_, type_, load_, step_, out_)                                                         \
    isa_ static void name_(void *arg, int64_t begin, int64_t end, int32_t thread) {                          \
        const struct job *j = arg;                                                                           \
        (void)thread;                                                                                        \
        for (int64_t piece = begin; piece < end; piece++) {                                                  \
            type_ s[CHAINS];                                                                                 \
            for (int k = 0; k < CHAINS; k++) s[k] = load_(j->x->at[k]);                                      \
            for (int32_t t = 0; t < TURNS; t++) {                                                            \
                const uint8_t *a = j->x->at[t % OPERANDS], *b = j->x->at[(t + 5) % OPERANDS];                \
                for (int k = 0; k < CHAINS; k++) s[k] = step_;                                               \
            }                                                                                                \
            for (int k = 1; k < CHAINS; k++) s[0] = out_(s[0], s[k]);                                        \
            uint64_t first;                                                                                  \
            memcpy(&first, &s[0], sizeof first);                                                             \
            keep(j, first);                                                                                  \
        }                                                                                                    \
    }

#define PS256(p) _mm256_load_ps((const float *)(const void *)(p))
#define PS512(p) _mm512_load_ps((const float *)(const void *)(p))
#define I256(p)  _mm256_load_si256((const __m256i *)(const void *)(p))
#define I512(p)  _mm512_load_si512((const void *)(p))

LOOP(fma_avx2, AVX2_, __m256, PS256, _mm256_fmadd_ps(PS256(a), PS256(b), s[k]), _mm256_add_ps)
LOOP(fma_avx512, AVX512_, __m512, PS512, _mm512_fmadd_ps(PS512(a), PS512(b), s[k]), _mm512_add_ps)
LOOP(dot_bf16, BF16_, __m512, PS512, _mm512_dpbf16_ps(s[k], (__m512bh)I512(a), (__m512bh)I512(b)),
     _mm512_add_ps)
LOOP(dot_int8, VNNI_, __m512i, I512, _mm512_dpbusd_epi32(s[k], I512(a), I512(b)), _mm512_add_epi32)

/* Four instructions for the products of 32 signed bytes, |a| being at hand. */
AVX2_ static inline __m256i madd_int8(__m256i sum, __m256i a, __m256i b, __m256i ones) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(b, a)), ones));
}

AVX2_ static void int8_avx2(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct job *j = arg;
    const __m256i ones = _mm256_set1_epi16(1);
    (void)thread;
    for (int64_t piece = begin; piece < end; piece++) {
        __m256i s[CHAINS / 2];
        for (int k = 0; k < CHAINS / 2; k++) s[k] = I256(j->x->at[k]);
        for (int32_t t = 0; t < TURNS; t++)
            for (int k = 0; k < CHAINS / 2; k++)
                s[k] = madd_int8(s[k], I256(j->x->at[t % OPERANDS]), I256(j->x->at[k]), ones);
        for (int k = 1; k < CHAINS / 2; k++) s[0] = _mm256_add_epi32(s[0], s[k]);
        keep(j, (uint64_t)_mm256_extract_epi64(s[0], 0));
    }
}

/* ---- rates ---- */

/* Items a second, the best of PASSES runs over n of them. */
static double best(struct dr_team *team, int64_t n, int64_t grain, dr_team_fn *fn, struct job *j) {
    double most = 0;
    for (int p = 0; p < PASSES; p++) {
        const uint64_t begin = dr_clock_ns();
        dr_team_for(team, n, grain, fn, j);
        const double seconds = (double)(dr_clock_ns() - begin + 1) / 1e9;
        if ((double)n / seconds > most) most = (double)n / seconds;
    }
    return most;
}

/* madds: multiply-adds of one instruction group; chains: groups a turn. */
static double rate(struct dr_team *team, dr_team_fn *fn, int madds, int chains, struct job *j) {
    return best(team, (int64_t)dr_team_size(team) * PIECES_EACH, 1, fn, j) * TURNS * chains * madds * 2;
}

/* AnonHugePages of the mapping that holds the buffer, from /proc/self/smaps. */
static bool on_huge_pages(const uint8_t *buffer, size_t bytes) {
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    unsigned long from = 0, to = 0, kib = 0, sum = 0;
    const unsigned long begin = (unsigned long)(uintptr_t)buffer, end = begin + bytes;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long a, b;
        if (sscanf(line, "%lx-%lx ", &a, &b) == 2) from = a, to = b;
        if (from < end && to > begin && sscanf(line, "AnonHugePages: %lu", &kib) == 1) sum += kib;
    }
    if (f) fclose(f);
    return sum >= bytes / 1024 / 2;
}

static void pin(struct dr_team *team) {
    struct dr_cpu list[DR_CPUS_MAX];
    int32_t cpu[DR_CPUS_MAX], n = dr_topology_list("/sys", list, DR_CPUS_MAX), size = dr_team_size(team);
    if (size <= DR_CPUS_MAX && dr_topology_share(list, n, 0, 1, size, cpu))
        dr_ignore(dr_team_pin(team, cpu), "threads that float measure a little less");
}

static void measure(struct dr_team *team, struct job *j, struct dr_probe *p) {
    const enum dr_isa isa = dr_isa_here();
    dr_team_for(team, (int64_t)p->buffer_bytes, PIECE, fill, j);
    p->huge_pages = on_huge_pages(j->buffer, p->buffer_bytes);
    p->read_bytes_s = best(team, (int64_t)p->buffer_bytes, PIECE, read_all, j);
    p->f32_flop_s = rate(team, fma_avx2, 8, CHAINS, j);
    if (isa >= DR_ISA_AVX512) {
        const double wide = rate(team, fma_avx512, 16, CHAINS, j);
        if (wide > p->f32_flop_s) p->f32_flop_s = wide;
    }
    p->int8_op_s =
        isa >= DR_ISA_VNNI ? rate(team, dot_int8, 64, CHAINS, j) : rate(team, int8_avx2, 32, CHAINS / 2, j);
    if (isa >= DR_ISA_BF16) p->bf16_flop_s = rate(team, dot_bf16, 32, CHAINS, j);
}

static dr_status run(int32_t n_thread, struct job *j, struct dr_probe *p) {
    struct dr_team *team = NULL;
    cpu_set_t mask;
    const bool known = sched_getaffinity(0, sizeof mask, &mask) == 0;
    DR_TRY(dr_team_create(n_thread, &team));
    p->n_thread = dr_team_size(team);
    pin(team);
    measure(team, j, p);
    dr_team_destroy(team);
    /* the caller was bound with the team; whatever it starts next would inherit that */
    if (known && sched_setaffinity(0, sizeof mask, &mask) != 0)
        return dr_fail(DR_EDEVICE, "the processors of this thread cannot be set back");
    return dr_ok();
}

dr_status dr_probe_run(int32_t n_thread, size_t buffer_bytes, struct dr_probe *out) {
    uint8_t *buffer = NULL;
    struct operands x;
    uint64_t sink = 0;
    if (dr_isa_here() == DR_ISA_COUNT)
        return dr_fail(DR_EDEVICE, "the processor lacks AVX2 and FMA, which every kernel needs");
    struct dr_probe p = {.buffer_bytes = buffer_bytes / PIECE * PIECE};
    if (p.buffer_bytes == 0) p.buffer_bytes = PIECE;
    memset(&x, 0x3f, sizeof x); /* 0.75 as f32 and bf16, 63 as int8: no sum overflows or denormalises */
    DR_TRY(dr_block_take(p.buffer_bytes, &buffer));
    struct job j = {.buffer = buffer, .fill = buffer, .x = &x, .sink = &sink};
    dr_status st = run(n_thread, &j, &p);
    dr_block_give(buffer, p.buffer_bytes);
    if (st.code == DR_OK) *out = p;
    return st;
}
