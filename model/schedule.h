/* schedule.h - the list of collectives that a layout and a plan imply.
 * In:   config, layout, the shape of a step.      Out: for a stage, each call in order: kind, group, purpose, layer, bytes.
 * Owns: nothing.
 * Why:  coordinator and workers derive the same list; the plan carries its hash and workers compare call i with entry i before
 *       entering it, so two ranks can never enter different collectives. The list also gives deadlines and byte counters. */
#pragma once

#include "model/layout.h"

enum dr_call_kind { DR_CALL_ALLREDUCE, DR_CALL_ALLGATHER, DR_CALL_ALLTOALL, DR_CALL_SEND, DR_CALL_RECV, DR_CALL_KIND_COUNT };
enum dr_call_group { DR_GROUP_STAGE, DR_GROUP_CACHE, DR_GROUP_PIPE };
enum dr_call_what {
    DR_WHAT_EMBED, DR_WHAT_QUERY, DR_WHAT_PARTIAL, DR_WHAT_PREFILL, DR_WHAT_ATTN_OUT, DR_WHAT_FFN_OUT, DR_WHAT_BOUNDARY,
    DR_WHAT_BOUNDARY_GATHER, DR_WHAT_SAMPLE_MAX, DR_WHAT_SAMPLE_MASS, DR_WHAT_SAMPLE_BINS, DR_WHAT_SAMPLE_PICK,
    DR_WHAT_SAMPLE_TOP, DR_WHAT_COUNT
};

struct dr_call {
    uint8_t kind, group, what;
    int16_t layer;              /* -1: none */
    int32_t index;              /* piece, round */
    uint64_t bytes;             /* of the whole call, all members' contributions together */
};

/* What a schedule needs to know of a segment (proto/message.h has the rest). */
struct dr_shape_segment {
    int32_t first, n_rows;
    bool absorbed;
    int32_t n_out_rows;         /* rows with an output: 0, 1, or n_rows */
    bool sample;                /* output is SAMPLE */
    bool limits;                /* top-k, top-p ask for the radix descent */
    int32_t n_top;              /* -1: no log-probabilities asked; else alternatives a row */
};

struct dr_step_shape {
    int32_t n_segment, n_rows;
    const struct dr_shape_segment *segment;
};

typedef void dr_call_visit(void *arg, const struct dr_call *call);

#ifdef __cplusplus
extern "C" {
#endif

/* Visits the calls of a rank in `stage`, in order. Pure; allocates nothing. */
void dr_schedule_walk(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape, int32_t stage,
                      dr_call_visit *visit, void *arg);

/* Over the lists of all stages. */
uint64_t dr_schedule_hash(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape);

/* Sum of bytes and number of calls of a stage (deadlines). */
void dr_schedule_cost(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape, int32_t stage,
                      uint64_t *bytes, int32_t *calls);

#ifdef __cplusplus
}
#endif
