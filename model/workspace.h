/* workspace.h - bytes of one step's buffers on a rank, and where each of them lies.
 * In:   config, layout, rank.      Out: offset and bytes of every buffer; bytes of the group's buffers.
 * Owns: nothing.
 * Why:  the worker places its buffers by exactly this map and footprint counts its end: no third number
 * exists. Nothing here grows with the context, except the page tables (4 bytes a page).
 *
 * Phases: STATE and STEP are always alive; ATTN (with ABSORBED or EXPANDED), FFN, OUT and DRAFT take turns in
 * the same bytes. */
#pragma once

#include "model/schedule.h"

enum dr_work_phase {
    DR_WORK_STATE,
    DR_WORK_STEP,
    DR_WORK_ATTN,
    DR_WORK_ABSORBED,
    DR_WORK_EXPANDED,
    DR_WORK_FFN,
    DR_WORK_OUT,
    DR_WORK_DRAFT,
    DR_WORK_PHASE_COUNT
};

/* clang-format off */
/* name, phase, elements (n: struct counts of workspace.c), bytes an element */
#define DR_WORK_BUFFERS(X)                                                                                   \
    /* slots: page tables on all ranks; sampling state on the last stage */                                  \
    X(PAGE_TABLE, STATE, n->slots * n->slot_pages, 4)                                                        \
    X(COUNT_PROMPT, STATE, n->last * n->slots * n->vocab, 2)                                                 \
    X(COUNT_OUTPUT, STATE, n->last * n->slots * n->vocab, 2)                                                 \
    X(BIAS_ID, STATE, n->last * n->slots * n->bias, 4)                                                       \
    X(BIAS, STATE, n->last * n->slots * n->bias, 4)                                                          \
    X(RESULT, STATE, n->last * n->rows, n->result_bytes)                                                     \
    X(RESULT_TOP, STATE, n->last * n->rows * n->top, 8)                                                      \
    X(BAD_SLOT, STATE, n->last * n->slots * 2, 4)                                                            \
    /* rows of the step */                                                                                   \
    X(IDS, STEP, n->rows, 4)                                                                                 \
    X(POS, STEP, n->rows, 4)                                                                                 \
    X(PAGE, STEP, n->rows, 4)                                                                                \
    X(ROW, STEP, n->rows, 4)                                                                                 \
    X(TABLE, STEP, n->rows, 8)                                                                               \
    X(VISIBLE, STEP, n->rows, 4)                                                                             \
    X(COS, STEP, n->rows * n->rope / 2, 4)                                                                   \
    X(SIN, STEP, n->rows * n->rope / 2, 4)                                                                   \
    X(HIDDEN, STEP, n->rows * n->dim, 4)                                                                     \
    X(NORMED, STEP, n->rows * n->dim, 4)                                                                     \
    X(PARTIAL, STEP, n->rows * n->dim, 4)                                                                    \
    X(BOUNDARY, STEP, n->boundary, 4)                                                                        \
    X(INPUT, STEP, n->input, 1)                                                                              \
    /* attention */                                                                                          \
    X(CQ, ATTN, n->rows * n->q_lora, 4)                                                                      \
    X(Q, ATTN, n->rows * n->heads * n->qk, 4)                                                                \
    X(KV, ATTN, n->rows * n->row, 4)                                                                         \
    X(HEADS, ATTN, n->rows * n->heads * n->v, 4)                                                             \
    X(Q_ALL, ABSORBED, n->value * n->absorbed * n->group_heads * n->qk, 4)                                   \
    X(U_OWN, ABSORBED, !n->value * n->absorbed * n->heads * n->row, 4)                                       \
    X(U, ABSORBED, n->cut * n->absorbed * n->group_heads * n->row, 4)                                        \
    X(PART, ABSORBED, n->absorbed * n->group_heads * (n->lat + 1), 4)                                        \
    X(PART_V, ABSORBED, n->value * n->absorbed * n->group_heads * (n->v + 1), 4)                             \
    X(PART_IN, ABSORBED, n->cut * n->absorbed * n->heads * n->c * ((n->value ? n->v : n->lat) + 1), 4)       \
    X(Z, ABSORBED, (n->cut - n->value) * n->absorbed * n->heads * n->lat, 4)                                 \
    X(ATTN_SCRATCH, ABSORBED, n->scratch_parts * n->group_heads * (n->lat + 2), 4)                           \
    X(MINE, EXPANDED, n->keys / n->c, n->row_bytes)                                                          \
    X(GATHERED, EXPANDED, n->cut * n->keys, n->row_bytes)                                                    \
    X(LATENT, EXPANDED, n->keys * n->row, 4)                                                                 \
    X(K, EXPANDED, n->keys * n->heads * n->nope, 4)                                                          \
    X(V, EXPANDED, n->keys * n->heads * n->v, 4)                                                             \
    X(LSE, EXPANDED, n->rows * n->heads, 4)                                                                  \
    /* feed-forward */                                                                                       \
    X(ROUTER, FFN, n->rows * n->experts, 4)                                                                  \
    X(EXPERT, FFN, n->rows * n->active, 4)                                                                   \
    X(EXPERT_WEIGHT, FFN, n->rows * n->active, 4)                                                            \
    X(MOE, FFN, n->moe_scratch, 1)                                                                           \
    /* one batch of output rows */                                                                           \
    X(BAD, OUT, n->last * n->rows, 1)                                                                        \
    X(OUT, OUT, n->last * n->out * n->dim, 4)                                                                \
    X(LOGITS, OUT, n->last * n->out * n->vocab, 4)                                                           \
    X(ADJUSTED, OUT, n->last * n->out * n->vocab, 4)                                                         \
    X(SAMPLE_IN, OUT, n->last * n->out * n->sample_bytes, 1)                                                 \
    X(SAMPLE_ALL, OUT, n->last * n->out * n->sample_bytes * n->tp, 1)                                        \
    X(SAMPLE_SUM, OUT, n->last * n->out * n->sample_bytes, 1)                                                \
    /* what the MTP layer joins: embedding and hidden state of each row */                                   \
    X(JOINED, DRAFT, n->mtp * n->rows * 2 * n->dim, 4)
/* clang-format on */

#define DR_X_(name, phase, elements, bytes) DR_BUF_##name,
enum dr_work_buffer { DR_WORK_BUFFERS(DR_X_) DR_BUF_COUNT };
#undef DR_X_

enum {
    DR_WORK_RESULT_BYTES =
        160,              /* at least one struct dr_result_row (proto/message.h); the worker asserts it */
    DR_WORK_TOP_MAX = 20, /* DR_TOP_MAX and DR_BIAS_MAX of proto/limits.h, which this folder does not see */
    DR_WORK_BIAS_MAX = 1024,
};

enum {
    DR_GROUP_CONTROL_BYTES = 16 << 10, /* of every group: words that members watch, alignment */
    DR_GROUP_CALL_LEAST = 64 << 10,    /* staging of a group that makes calls */
    DR_GROUP_CALL_MOST = 3 << 19,      /* pieces of half a megabyte between two ranks: more is not faster, and
                                          every rank of a host maps the others' pages, too */
    DR_GROUP_MESSAGE_MOST = 16 << 20,  /* a longer message goes in pieces */
};

struct dr_work_map {
    size_t offset[DR_BUF_COUNT]; /* multiples of 64 */
    size_t size[DR_BUF_COUNT];   /* bytes; 0: the rank has no such buffer */
    size_t bytes;                /* of the block */
};

#ifdef __cplusplus
extern "C" {
#endif

void dr_workspace_map(const struct dr_config *c, const struct dr_layout *l, int32_t rank,
                      struct dr_work_map *out);

/* The step's block: dr_work_map.bytes. */
size_t dr_workspace_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

/* Scratch of the MoE op for the rank's step (an upper bound of dr_moe_scratch_bytes of kernels/ops.h; tests
 * compare them). */
size_t dr_workspace_moe_scratch(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

/* What the rank's group of this kind may take: spec of dr_group_create (worker/collective/group.h). Zeros
 * with one member. Calls larger than their staging go in pieces; messages are the boundary's. */
struct dr_group_room {
    size_t call_bytes, message_bytes;
};
struct dr_group_room dr_workspace_group(const struct dr_config *c, const struct dr_layout *l, int32_t rank,
                                        enum dr_call_group group);

/* All that the rank's groups take: staging of calls, two open messages, control. */
size_t dr_workspace_collective_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank);

#ifdef __cplusplus
}
#endif
