/* report.h - what a bench found, for people and for programs.
 * In:   clusters with their rows.      Out: a table, Markdown, or one JSON object on stdout.
 * Owns: nothing; the structs own what is said at their fields.
 * Why:  a number without machine, commit and command cannot be reproduced. */
#pragma once

#include "gateway/bench/bound.h"
#include "gateway/bench/tally.h"

struct dr_bench_machine { /* the gateway's */
    char cpu[96], system[96];
    int32_t cores, nodes;
    uint64_t memory_bytes;
};

struct dr_bench_row {
    struct dr_bench_case c;
    struct dr_bench_tally tally; /* owned */
    struct dr_bench_bound bound;
};

struct dr_bench_cluster {
    struct dr_layout layout;
    char precision[16];
    int32_t threads, n_host, stage_hosts; /* threads a rank; machines in all and of one stage */
    struct dr_probe probe;
    struct dr_bench_peaks peaks;
    struct dr_engine_facts *facts; /* owned: how the ranks described themselves */
    uint64_t *plan_bytes;          /* [n_rank] owned: by model/footprint */
    uint64_t *peak_bytes;          /* [n_rank] owned: most resident memory so far */
    struct dr_bench_row *row;      /* [n_row] owned */
    int32_t n_row;
    size_t token_bytes; /* cache bytes of a token, all layers */
};

struct dr_bench_report {
    struct dr_bench_machine machine;
    const char *model;                /* borrowed: the folder's name */
    struct dr_bench_cluster *cluster; /* [n] owned */
    int32_t n, reps, warmup;
    uint64_t seed;
    bool roofline;
};

#ifdef __cplusplus
extern "C" {
#endif

struct dr_bench_machine dr_bench_machine_read(void);
void dr_bench_report_fini(struct dr_bench_report *r);

/* The program's version, and the commit it was built from where the build knew one: "0.1.0 (1a2b3c4)". */
const char *dr_bench_version(void);
const char *dr_bench_commit(void); /* "" when unknown */

/* "tp=2 pp=1" and what differs from the usual; the model folder's name says the rest. */
const char *dr_bench_layout_name(const struct dr_bench_cluster *c, char out[96]);

/* Bytes and operations a second of a row's median repetition: those of a token by the bound, times its rate.
 */
double dr_bench_row_bytes_s(const struct dr_bench_row *row);
double dr_bench_row_flop_s(const struct dr_bench_row *row);

/* To stdout. Fails: EFULL, EIO, ECANCEL as dr_output_write. */
DR_FALLIBLE dr_bench_report_text(const struct dr_bench_report *r, bool markdown);
DR_FALLIBLE dr_bench_report_json(const struct dr_bench_report *r);

#ifdef __cplusplus
}
#endif
