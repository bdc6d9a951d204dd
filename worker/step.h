/* step.h - a worker as an object: one rank's weights, cache and slots, and the one function that runs a step.
 * In:   config, checkpoint, layout, rank, ops, groups; then step plans.      Out: reports, results, raw
 * logits. Owns: weights, cache, the step's buffers; everything is taken at create and load, nothing during a
 * step. Why:  no MPI and no channel in here, so that a test runs several workers as threads of one process.
 *
 * One thread calls create .. destroy; dr_worker_op and dr_worker_step_id may be read by any thread. */
#pragma once

#include "kernels/ops.h"
#include "model/footprint.h"
#include "proto/message.h"
#include "worker/collective/group.h"

struct dr_worker;
struct dr_tap;

struct dr_worker_params { /* all borrowed for the worker's life */
    const struct dr_config *config;
    const struct dr_tensors *tensors;
    const struct dr_layout *layout;
    int32_t rank;
    const struct dr_ops *ops;
    struct dr_stream *stream;
    /* stage: the T ranks of this stage by t; cache: the c members of this rank's cache group; pipe: the P
     * ranks of the same t by stage. NULL where there is one member. Owned by the caller, who destroys them
     * after the worker. */
    struct dr_group *stage, *cache, *pipe;
    int32_t n_reader; /* threads that read the checkpoint; 0: 4 */
};

/* done and total: bytes of this rank's part of the checkpoint. Called from the thread that loads, at most
 * once a second and at the end. */
typedef void dr_load_progress(void *arg, uint64_t done, uint64_t total);

/* Takes a chunk of raw logits (this rank's columns of one row); its values are valid during the call. */
typedef dr_status dr_logits_sink(void *arg, const struct dr_logits *chunk);

struct dr_step_out {
    struct dr_step_report report;
    struct dr_step_result result; /* rows live in the worker until its next step */
    bool has_result;              /* last stage, its first rank */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Takes all memory. Fails: EMODEL for what this build cannot run, EFULL when the host lacks the bytes of the
 * footprint. */
DR_FALLIBLE dr_worker_create(const struct dr_worker_params *params, struct dr_worker **out);
void dr_worker_destroy(struct dr_worker *w);

/* Reads this rank's part of the checkpoint. Blocks on the disk. Fails: EIO, EMODEL naming tensor, file and
 * place; EFULL. */
DR_FALLIBLE dr_worker_load(struct dr_worker *w, dr_load_progress *progress, void *arg);

/* Runs one plan. deadline_ns: of every wait for other ranks (dr_clock_ns; 0: none). sink: NULL when no
 * segment asks for logits. *out is filled also on failure (report.code and text). Fails: EPROTO for a plan
 * that cannot be run, EPEER, ETIME, EDEVICE; the worker must not be stepped again then. */
DR_FALLIBLE dr_worker_step(struct dr_worker *w, const struct dr_step_plan *plan, uint64_t deadline_ns,
                           dr_logits_sink *sink, void *arg, struct dr_step_out *out);

/* For the beat: collectives entered in the running step, and its id. Any thread. */
int32_t dr_worker_op(const struct dr_worker *w);
uint64_t dr_worker_step_id(const struct dr_worker *w);

/* Sampling of all slots, [seqs_max], for dr_plan_shape. */
const struct dr_sampling *dr_worker_sampling(const struct dr_worker *w);

struct dr_footprint dr_worker_footprint(const struct dr_worker *w);

/* taps: n of them (worker/tap.h), borrowed; n = 0: none. Between steps only. */
void dr_worker_set_taps(struct dr_worker *w, struct dr_tap *taps, int32_t n);

#ifdef __cplusplus
}
#endif
