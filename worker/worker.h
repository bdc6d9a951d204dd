/* worker.h - the inside of a worker, for the files of this folder.
 * In:   step.h's parameters.      Out: the struct that layers, sampler and step share.
 * Owns: see step.h.
 * Why:  context is passed, never looked up: whoever needs the ops, the ledger or a buffer gets the worker. */
#pragma once

#include <stdatomic.h>

#include "model/workspace.h"
#include "worker/cache/cache.h"
#include "worker/collective/ledger.h"
#include "worker/load/model.h"
#include "worker/sampler/sampler.h"
#include "worker/slots.h"
#include "worker/step.h"
#include "worker/tap.h"

/* A segment as the step runs it. Absorbed segments come first in the rows of the step, then expanded ones,
 * each kind in the order of the plan: so that each form's rows lie together. Results keep the order of the
 * plan. */
struct dr_run {
    int32_t first_row; /* of the step's rows */
};

struct dr_worker {
    const struct dr_config *config;
    const struct dr_layout *layout;
    const struct dr_tensors *tensors;
    const struct dr_ops *ops;
    struct dr_stream *stream;
    int32_t rank, n_reader;
    struct dr_shard shard;
    struct dr_range member_heads[DR_GROUP_MEMBERS_MAX]; /* [c] heads of each member of the cache group */

    struct dr_ledger ledger;
    struct dr_parts parts; /* of the running step */
    struct dr_model model;
    struct dr_cache cache;
    struct dr_slots slots;
    struct dr_sampler *sampler; /* last stage */
    struct dr_tap *taps;        /* borrowed */
    int32_t n_tap;

    struct dr_holding *holding; /* [n_holding] */
    int32_t n_holding;
    struct dr_footprint footprint;
    uint8_t *weights, *pages, *work; /* the three blocks; page-aligned, zeroed when taken */
    size_t weights_bytes, pages_bytes;
    struct dr_work_map map;
    double *rope_freq; /* [rope_dim / 2] */
    float softmax_scale, rope_gain;

    /* the running step */
    const struct dr_step_plan *plan;
    struct dr_step_shape shape;
    struct dr_shape_segment segment[DR_SEGMENTS_MAX];
    struct dr_run run[DR_SEGMENTS_MAX];
    int32_t n_row, n_absorbed;
    int32_t n_result; /* result rows so far */
    int32_t n_bad;    /* slots with a row that is not finite */
    _Atomic uint64_t step_id;
    dr_logits_sink *sink;
    void *sink_arg;
};

/* A buffer of the step; NULL where the rank has none. */
static inline void *dr_worker_buffer(const struct dr_worker *w, enum dr_work_buffer b) {
    return w->map.size[b] ? w->work + w->map.offset[b] : NULL;
}
static inline float *dr_worker_floats(const struct dr_worker *w, enum dr_work_buffer b) {
    return (float *)dr_worker_buffer(w, b);
}

/* Where member m's heads begin among those whose kv_b this rank holds (dr_layer.uk_t, uv). */
static inline int32_t dr_worker_held_at(const struct dr_worker *w, int32_t m) {
    return w->member_heads[m].begin - dr_layout_held_heads(w->layout, &w->shard).begin;
}

#ifdef __cplusplus
extern "C" {
#endif

/* Copies rows of [n_row, width] f32 or int32 values to the taps that ask for them; all segments. */
void dr_worker_tap(struct dr_worker *w, enum dr_tap_kind kind, int32_t layer, const void *x, size_t x_stride,
                   int32_t width);

/* layers/project.c, over all rows of the step. norm: y may be x, both `stride` elements between rows. */
DR_FALLIBLE dr_project_norm(struct dr_worker *w, float *y, const float *x, const float *gain, int32_t dim,
                            size_t stride, float eps);
DR_FALLIBLE dr_project_linear(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight);
/* The same, inputs never rounded. */
DR_FALLIBLE dr_project_router(struct dr_worker *w, float *y, const float *x, const struct dr_weight *weight);
/* op but for its scratch. */
DR_FALLIBLE dr_project_heads(struct dr_worker *w, struct dr_linear_heads op);

/* worker/layers: one file each, in the order in which rows meet them */
DR_FALLIBLE dr_embed_rows(struct dr_worker *w);    /* layers/embed.c: ids to HIDDEN */
DR_FALLIBLE dr_boundary_recv(struct dr_worker *w); /* layers/boundary.c: HIDDEN from the stage before */
DR_FALLIBLE dr_attention(struct dr_worker *w,
                         int32_t index); /* layers/attention.c: HIDDEN += attention of model.layer[index] */
DR_FALLIBLE dr_attention_absorbed(struct dr_worker *w, int32_t index); /* layers/absorbed.c */
DR_FALLIBLE dr_attention_expanded(struct dr_worker *w, int32_t index); /* layers/expanded.c */
DR_FALLIBLE dr_ffn(struct dr_worker *w, int32_t index); /* layers/ffn.c: HIDDEN += MLP or experts */
DR_FALLIBLE dr_boundary_send(struct dr_worker *w);      /* layers/boundary.c: HIDDEN to the next stage */
DR_FALLIBLE dr_head(struct dr_worker *w); /* layers/head.c: output rows to logits, sampler, results */

#ifdef __cplusplus
}
#endif
