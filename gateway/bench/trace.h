/* trace.h - the steps of all ranks as a file for chrome://tracing or Perfetto.
 * In:   runs.      Out: a JSON file in Chrome's trace event format.
 * Owns: the file.
 * Why:  waiting, imbalance and the time between steps are seen at once on one time line.
 *
 * Processes are machines, threads are ranks; the coordinator is rank -1 of the gateway's machine. The parts
 * of a step are sums over its layers, laid out one after the other inside the step: their lengths are
 * measured, their places are not. Ranks of the gateway's machine share its monotonic clock. For others the
 * offset is bounded by every step: a rank cannot begin before the plan was sent, nor have ended after its
 * report was heard; the file states the middle of the bounds and half their distance. */
#pragma once

#include "gateway/bench/run.h"

struct dr_bench_trace;

/* Clock of a rank minus the gateway's. */
struct dr_bench_offset {
    double ns, error_ns;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Makes or empties the file. Fails: EIO, EFULL. */
DR_FALLIBLE dr_bench_trace_create(const char *path, struct dr_bench_trace **out);
/* Completes the file. NULL is legal. Fails: EIO when something could not be written. */
DR_FALLIBLE dr_bench_trace_destroy(struct dr_bench_trace *t);

/* The timed steps of a run. cluster: a number for each cluster, since the next one's ranks are others. */
DR_FALLIBLE dr_bench_trace_add(struct dr_bench_trace *t, int32_t cluster, const char *layout,
                               const char *test, const struct dr_rank_state *rank,
                               const struct dr_bench_run *run);

/* Of rank k over all steps of a run. same_host: it reads the gateway's own clock. */
struct dr_bench_offset dr_bench_trace_offset(const struct dr_bench_run *run, int32_t k, bool same_host);

#ifdef __cplusplus
}
#endif
