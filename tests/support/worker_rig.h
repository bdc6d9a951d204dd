/* worker_rig.h - a whole layout of workers as threads of the test.
 * In:   a model's folder and a layout wish; then plans.      Out: every rank's report, the results, raw
 * logits. Owns: threads, groups, workers; the model's config and table. Why:  tensor and pipeline layouts are
 * tested without MPI, with the group that adds in the order of the real one. */
#pragma once

#include <pthread.h>

#include "worker/step.h"
#include "worker/tap.h"

enum { RIG_RANKS_MAX = 32 };

struct rig;

struct rig_rank {
    struct rig *rig;
    int32_t rank;
    pthread_t thread;
    struct dr_worker *worker;
    struct dr_team *team;
    struct dr_stream stream;
    struct dr_group *stage, *cache, *pipe;
    struct dr_step_out out;
    dr_status st;
    char text[1024];
};

struct rig {
    const struct dr_ops *ops;
    struct dr_config config;
    struct dr_tensors *tensors;
    struct dr_layout layout;
    struct rig_rank rank[RIG_RANKS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t go, done;
    int32_t n_thread, n_done;
    uint64_t turn;
    bool leave;
    const struct dr_step_plan *plan;
    uint64_t deadline_ns;
    dr_logits_sink *sink;
    void *sink_arg;
    uint64_t step; /* of the next plan made by rig_step */
};

/* Kernels and weights of the rigs to come (rig_init reads it): the oracle and native weights unless a test
 * says otherwise. */
struct rig_kernels {
    const struct dr_ops *ops; /* NULL: the oracle */
    enum dr_weights weights;
};
extern struct rig_kernels rig_kernels;

/* Makes everything and loads. Fails as config, tensors, layout and worker do; nothing is left then. */
dr_status rig_init(struct rig *r, const char *dir, const struct dr_layout_wish *wish);
void rig_fini(struct rig *r);

/* Fills in epoch, step and schedule hash, runs the plan on every rank, waits for all.
 * Returns the first failure in the order of ranks, its text with dr_error_text. */
dr_status rig_step(struct rig *r, struct dr_step_plan *plan);

/* The same without touching the plan (fault tests). */
dr_status rig_step_as_is(struct rig *r, const struct dr_step_plan *plan);

/* Results of the last step: the last stage's first rank. */
const struct dr_step_result *rig_result(const struct rig *r);

/* A wish of everyday test values: f32 cache, latent exchange, 4 slots, 160 rows a step, context 256. */
struct dr_layout_wish rig_wish(int32_t tp, int32_t pp, int32_t c, enum dr_expert_cut experts);
