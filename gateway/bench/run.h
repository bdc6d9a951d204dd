/* run.h - one run of one case on a running cluster.
 * In:   a case, the engine's sinks.      Out: the ids that came, the steps that were taken and what each rank
 * says of them.
 * Owns: the sequences and the list of steps, until the next run.
 * Why:  times come from the steps themselves: when the coordinator sent them and had their result, what the
 * ranks report. What the gateway's own threads add is not part of a step.
 *
 * One thread calls everything here; the engine thread fills in. A runner must outlive its engine. */
#pragma once

#include "gateway/bench/plan.h"
#include "gateway/cli/interrupt.h"
#include "gateway/cluster/engine.h"

struct dr_bench_runner;

struct dr_bench_rank_step { /* a rank's report of a step, without its text */
    uint64_t begin_ns, end_ns, heard_ns, wait_ns, peak_bytes;
    uint64_t part_ns[DR_PART_COUNT], wait_kind_ns[DR_BYTES_KIND_COUNT], bytes[DR_BYTES_KIND_COUNT];
};

struct dr_bench_step {
    struct dr_step_news news;
    bool has_news;
    int32_t n_report;
    bool timed; /* part of what the case measures */
};

/* What a run shows; points into the runner, valid until its next run. */
struct dr_bench_run {
    const struct dr_bench_step *step;        /* [n_step] */
    const struct dr_bench_rank_step *report; /* [n_step, n_rank] */
    int32_t n_step, n_rank;
    int32_t n_stage;             /* steps over which sequences that generate are spread; 0 counts as 1 */
    int32_t n_timed;             /* steps */
    int64_t tokens;              /* of the timed steps */
    uint64_t begin_ns, end_ns;   /* of the timed part */
    uint64_t digest, digest_one; /* of all ids in the order of sequences; of the first sequence */
};

#ifdef __cplusplus
extern "C" {
#endif

/* engine and interrupt are borrowed; l: its layout. Begins to watch. Fails: EFULL. */
DR_FALLIBLE dr_bench_runner_create(struct dr_engine *e, struct dr_interrupt *interrupt,
                                   const struct dr_layout *l, int32_t vocab, uint64_t seed,
                                   struct dr_bench_runner **out);
/* After the engine's end. NULL is legal. */
void dr_bench_runner_destroy(struct dr_bench_runner *r);

/* Blocks until all ids and all reports are there. Fails: EREQUEST with the reason, EPEER when the cluster is
 * lost, ETIME when reports stay away, ECANCEL after Ctrl-C. */
DR_FALLIBLE dr_bench_runner_run(struct dr_bench_runner *r, const struct dr_bench_case *c,
                                struct dr_bench_run *out);

/* Whether a run gave the right ids. alone: digest of its first sequence when that runs alone; *first: digest
 * of the case's first run, 0 before it: then it is set. Fails: EREQUEST saying which differs. */
DR_FALLIBLE dr_bench_run_check(const struct dr_bench_run *run, uint64_t alone, uint64_t *first);

/* Marks the timed steps of a run that is complete, and fills in n_timed, tokens, begin_ns, end_ns. submit_ns:
 * when the requests were submitted. Pure but for `timed`; for the runner and for tests. Fails: EREQUEST when
 * no step belongs to the case. */
DR_FALLIBLE dr_bench_run_time(const struct dr_bench_case *c, uint64_t submit_ns, struct dr_bench_step *step,
                              struct dr_bench_run *run);

#ifdef __cplusplus
}
#endif
