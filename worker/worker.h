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
    int32_t first_row, position, n; /* its rows of the running pass: the first, its position, how many */
    int32_t keys;                   /* expanded: they may see positions [0, keys) */
    /* what the head found: */
    int32_t n_true;  /* rows whose ids are true: all but the drafts from the first wrong one on */
    uint32_t newest; /* the token after those rows, then the newest draft */
    int32_t result;  /* its last result row; -1: none */
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
    int32_t pass; /* 0: main layers; 1: the MTP layer, rows one position later; k: the k-th draft in a row */
    int32_t n_row, n_absorbed; /* of the pass */
    int32_t n_batch;           /* batches of output rows and drafts so far */
    int32_t n_result, n_top;   /* result rows so far, and their alternatives */
    int32_t n_bad;             /* slots with a row that is not finite */
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

/* In the MTP layer no row belongs to position 0: whoever stores it hides it. */
static inline int32_t dr_worker_hidden_rows(const struct dr_worker *w) {
    return w->pass > 0 && w->shard.member == 0;
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
/* layers/draft.c: HIDDEN and the tokens after its rows through the MTP layer; drafts */
DR_FALLIBLE dr_draft(struct dr_worker *w);

/* layers/embed.c: y [n_row, dim] of IDS. layer and index name the sum. */
DR_FALLIBLE dr_embed_ids(struct dr_worker *w, float *y, int32_t layer, int32_t index);
/* layers/head.c: OUT [n, dim], the norms of n <= DR_OUT_BATCH rows of HIDDEN, and LOGITS [n, own columns]. */
DR_FALLIBLE dr_head_logits(struct dr_worker *w, const float *gain, const int32_t *row, int32_t n);
/* What the request in the slot wishes of the draw of its token at `position`, after n_seen ids that were not
 * counted yet. */
struct dr_sample_row dr_head_wish(const struct dr_worker *w, int32_t slot, int32_t position,
                                  const uint32_t *seen, int32_t n_seen);

#ifdef __cplusplus
}
#endif
