/* bench_attention.c - absorbed and expanded attention of V3's dimensions.
 * In:   nothing, or the part to run: decode, prefill.      Out: a line for each case and table.
 * Owns: nothing.
 * Why:  attention grows with the context and becomes the bound of decode. A kernel's speed is a ratio to the
 * processor's peak; lines of one run can be compared, runs cannot. One thread: its processor time; two: time
 * of the clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"

enum { REPEATS = 3, LAT = 512, ROPE = 64, WIDTH = LAT + ROPE, NOPE = 128, PAGE = 64, TABLES = 3 };

static const char *const type_names[] = {"f32", "bf16", "fp8"};

struct table {
    const char *name;
    const struct dr_ops *ops;
};

static double seconds(bool thread) {
    struct timespec t;
    (void)clock_gettime(thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *take(size_t bytes) {
    void *p = aligned_alloc(64, dr_size_align(bytes ? bytes : 64, 64));
    DR_ASSERT(p);
    memset(p, 0, bytes);
    return p;
}

static float *take_floats(size_t n) {
    float *x = take(n * sizeof *x);
    uint64_t state = n;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) * 0x1p-23f - 1.0f;
    }
    return x;
}

/* n_seq sequences of n_row random rows, in pages that lie in turns. */
static struct dr_cache_view make_cache(const struct dr_ops *ops, struct dr_stream *s, enum dr_row_type type,
                                       int32_t n_seq, int32_t n_row, uint32_t **table) {
    static const size_t bytes[] = {4 * WIDTH, 2 * WIDTH, LAT + 4 * (LAT / 128) + 2 * ROPE};
    size_t n = (size_t)n_row, n_page = n / PAGE;
    struct dr_cache_view v = {.page_stride = PAGE * bytes[type],
                              .row_bytes = bytes[type],
                              .type = type,
                              .kv_lora = LAT,
                              .rope_dim = ROPE,
                              .page_rows = PAGE};
    v.base = take((size_t)n_seq * n_page * v.page_stride);
    float *x = take_floats(n * WIDTH);
    uint32_t *page = take(n * sizeof *page);
    int32_t *row = take(n * sizeof *row);
    for (int32_t q = 0; q < n_seq; q++) {
        table[q] = take(n_page * sizeof *table[q]);
        for (size_t i = 0; i < n_page; i++) table[q][i] = (uint32_t)(i * (size_t)n_seq + (size_t)q);
        for (size_t i = 0; i < n; i++) page[i] = table[q][i / PAGE], row[i] = (int32_t)(i % PAGE);
        struct dr_cache_put put = {.cache = v,
                                   .latent = x,
                                   .k_pe = x + LAT,
                                   .page = page,
                                   .row = row,
                                   .n_tok = n_row,
                                   .latent_stride = WIDTH,
                                   .k_pe_stride = WIDTH};
        dr_status st = ops->cache_put(&put, s);
        DR_ASSERT(st.code == DR_OK);
    }
    free(x);
    free(page);
    free(row);
    return v;
}

static void absorbed(const struct table *tables, struct dr_stream *s, enum dr_row_type type, int32_t n_tok,
                     int32_t n_head, int32_t n_row) {
    uint32_t *table[8];
    int32_t visible[8], n_thread = dr_team_size(s->team);
    size_t heads = (size_t)n_tok * (size_t)n_head;
    struct dr_attn_absorbed a = {.o = take(heads * LAT * 4),
                                 .lse = take(heads * 4),
                                 .u = take_floats(heads * WIDTH),
                                 .cache = make_cache(tables[0].ops, s, type, n_tok, n_row, table),
                                 .table = (const uint32_t *const *)table,
                                 .n_visible = visible,
                                 .n_tok = n_tok,
                                 .n_head = n_head,
                                 .split_rows = 256,
                                 .scale = 0.07f};
    a.scratch_bytes = dr_attn_absorbed_scratch_bytes(n_tok, n_head, LAT, 2 * n_thread);
    a.scratch = take(a.scratch_bytes);
    for (int32_t t = 0; t < n_tok; t++) visible[t] = n_row;
    printf("absorbed %d x %3d heads, %5d rows %-4s %d thread%s", n_tok, n_head, n_row, type_names[type],
           n_thread, n_thread > 1 ? "s:" : ": ");
    for (int i = 0; i < TABLES; i++) {
        double least = 1e9;
        for (int r = 0; r < REPEATS; r++) {
            double begin = seconds(n_thread == 1);
            dr_status st = tables[i].ops->attn_absorbed(&a, s);
            DR_ASSERT(st.code == DR_OK);
            double t = seconds(n_thread == 1) - begin;
            least = t < least ? t : least;
        }
        printf("  %s %8.3f ms %6.1f GFLOP/s", tables[i].name, 1e3 * least,
               2e-9 * (double)heads * n_row * (WIDTH + LAT) / least);
    }
    printf("\n");
    for (int32_t q = 0; q < n_tok; q++) free(table[q]);
    free(a.cache.base);
    free((void *)a.u);
    free(a.o);
    free(a.lse);
    free(a.scratch);
}

/* The last n_tok tokens of a prompt of n_key. */
static void expanded(const struct table *tables, struct dr_stream *s, int32_t n_tok, int32_t n_key,
                     int32_t n_head) {
    size_t tok = (size_t)n_tok, heads = (size_t)n_head, key = (size_t)n_key;
    int32_t *pos = take(tok * sizeof *pos), n_thread = dr_team_size(s->team);
    double seen = 0;
    for (int32_t t = 0; t < n_tok; t++) pos[t] = n_key - n_tok + t, seen += pos[t] + 1;
    struct dr_attn_expanded a = {.o = take(tok * heads * NOPE * 4),
                                 .lse = take(tok * heads * 4),
                                 .q = take_floats(tok * heads * (NOPE + ROPE)),
                                 .k = take_floats(key * heads * NOPE),
                                 .k_pe = take_floats(key * ROPE),
                                 .v = take_floats(key * heads * NOPE),
                                 .pos = pos,
                                 .n_tok = n_tok,
                                 .n_head = n_head,
                                 .n_key = n_key,
                                 .nope_dim = NOPE,
                                 .rope_dim = ROPE,
                                 .v_dim = NOPE,
                                 .q_stride = heads * (NOPE + ROPE),
                                 .k_pe_stride = ROPE,
                                 .scale = 0.07f,
                                 .start = true};
    printf("expanded %d x %d heads over %d keys %d thread%s", n_tok, n_head, n_key, n_thread,
           n_thread > 1 ? "s:" : ": ");
    for (int i = 0; i < TABLES; i++) {
        double least = 1e9;
        for (int r = 0; r < REPEATS; r++) {
            double begin = seconds(n_thread == 1);
            dr_status st = tables[i].ops->attn_expanded(&a, s);
            DR_ASSERT(st.code == DR_OK);
            double t = seconds(n_thread == 1) - begin;
            least = t < least ? t : least;
        }
        printf("  %s %8.3f ms %6.1f GFLOP/s", tables[i].name, 1e3 * least,
               2e-9 * seen * n_head * (2 * NOPE + ROPE) / least);
    }
    printf("\n");
    free(pos);
    free(a.o);
    free(a.lse);
    free((void *)a.q);
    free((void *)a.k);
    free((void *)a.k_pe);
    free((void *)a.v);
}

int main(int argc, char **argv) {
    static const int32_t rows[] = {4096, 16384}, heads[] = {16, 128};
    struct table tables[TABLES] = {{.name = "oracle"}, {.name = "f32"}, {.name = "fast"}};
    struct dr_team *team[2] = {NULL};
    bool decode = argc < 2 || strcmp(argv[1], "decode") == 0,
         prefill = argc < 2 || strcmp(argv[1], "prefill") == 0;
    dr_status st = dr_ops_cpu(&tables[0].ops);
    if (st.code == DR_OK) st = dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_F32, &tables[1].ops);
    if (st.code == DR_OK) st = dr_ops_x86(DR_ISA_COUNT, DR_PRECISION_FAST, &tables[2].ops);
    for (int32_t i = 0; i < 2 && st.code == DR_OK; i++) st = dr_team_create(i + 1, &team[i]);
    if (st.code != DR_OK || (!decode && !prefill)) {
        fprintf(stderr, "usage: bench-attention [decode | prefill]; %s\n", dr_error_text());
        return 64;
    }
    printf("%s\n", tables[1].ops->name);
    for (int i = 0; i < 2; i++) {
        struct dr_stream s = {.team = team[i]};
        for (int h = 0; h < 2 && decode; h++)
            for (int r = 0; r < 2; r++)
                for (enum dr_row_type type = DR_ROW_F32; type <= DR_ROW_FP8; type++)
                    absorbed(tables, &s, type, 1, heads[h], rows[r]);
        for (int h = 0; h < 2 && decode; h++) absorbed(tables, &s, DR_ROW_BF16, 8, heads[h], rows[0]);
        if (prefill) expanded(tables, &s, 512, 2048, 16);
        if (prefill) expanded(tables, &s, 512, 512, 16);
        dr_team_destroy(team[i]);
    }
    return 0;
}
