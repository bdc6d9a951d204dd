/* schedule.h - the list of collectives that a layout and a plan imply.
 * In:   config, layout, the shape of a step.      Out: for a stage, each call in order: kind, group, purpose,
 * layer, bytes. Owns: nothing. Why:  coordinator and workers derive the same list; the plan carries its hash
 * and workers compare call i with entry i before entering it, so two ranks can never enter different
 * collectives. The list also gives deadlines and byte counters.
 *
 * Calls of groups with one member do not exist: neither listed nor made. */
#pragma once

#include "model/layout.h"

enum dr_call_kind {
    DR_CALL_ALLREDUCE,
    DR_CALL_ALLGATHER,
    DR_CALL_ALLTOALL,
    DR_CALL_SEND,
    DR_CALL_RECV,
    DR_CALL_KIND_COUNT
};
enum dr_call_group { DR_GROUP_STAGE, DR_GROUP_CACHE, DR_GROUP_PIPE, DR_GROUP_COUNT };

/* clang-format off */
#define DR_WHATS(X)                                                                                          \
    X(EMBED, "embed") X(QUERY, "query") X(PARTIAL, "partial") X(PREFILL, "prefill") X(ATTN_OUT, "attn_out")  \
    X(FFN_OUT, "ffn_out") X(BOUNDARY, "boundary") X(BOUNDARY_GATHER, "boundary_gather")                      \
    X(SAMPLE_MAX, "sample_max") X(SAMPLE_MASS, "sample_mass") X(SAMPLE_BINS, "sample_bins")                  \
    X(SAMPLE_PICK, "sample_pick") X(SAMPLE_TOP, "sample_top")
/* clang-format on */
#define DR_X_(name, text) DR_WHAT_##name,
enum dr_call_what { DR_WHATS(DR_X_) DR_WHAT_COUNT };
#undef DR_X_

enum {
    DR_OUT_BATCH = 64,       /* output rows that pass norm, head and sampler together: bounds their memory */
    DR_ABSORBED_BATCH = 128, /* rows whose queries and partial results are exchanged together */
    DR_PIECE_PAGES =
        4, /* pages of keys that the expanded form handles at once: split of fixed position and size */
    DR_BOUNDARY_HEADER = 32, /* bytes in front of the rows at a stage boundary (worker/layers/boundary.h) */
    /* bytes of one row and member in the sampler's calls (worker/sampler) */
    DR_SAMPLE_MAX_BYTES = 12, /* largest raw and adjusted logit, bad */
    DR_SAMPLE_MASS_BYTES = 8,
    DR_SAMPLE_BINS_BYTES = 256 * 12, /* counts u32 and masses u64 */
    DR_SAMPLE_PICK_BYTES = 12,       /* score, id, raw logit */
    DR_SAMPLE_TOP_BYTES = 8,         /* of one alternative: logit, id */
    DR_SAMPLE_ROUNDS = 4,            /* of one radix descent; index 0..3: top-k, 4..7: top-p */
};

struct dr_call {
    uint8_t kind, group, what;
    int16_t layer; /* -1: none */
    int32_t index; /* piece of the step, round, batch of output rows */
    uint64_t
        bytes; /* of the whole call, all members' contributions together; boundary: of all T pairs together */
};

/* What a schedule needs to know of a segment (proto/message.h has the rest). */
struct dr_shape_segment {
    int32_t first, n_rows;
    bool absorbed;
    bool next;       /* the token after its last row is known or drawn in the step: a row of the MTP layer */
    int32_t n_draft; /* drafts wanted */
    int32_t n_out_rows; /* rows with an output, the last ones of the segment: 0, 1 + n_verify, or n_rows */
    bool sample;        /* output is SAMPLE: a token is drawn */
    bool top_k, top_p;  /* a descent each; false for greedy rows */
    int32_t n_top;      /* -1: no log-probabilities asked; else alternatives a row. SCORE has n_top >= 0 */
};

/* True when the segment's output rows pass the sampler (LOGITS rows do not). */
static inline bool dr_shape_sampled(const struct dr_shape_segment *s) {
    return s->n_out_rows > 0 && (s->sample || s->n_top >= 0);
}

struct dr_step_shape {
    int32_t n_segment, n_rows;
    const struct dr_shape_segment *segment;
};

/* Passes of a step: 0 through the main layers and the head; where the MTP layer is loaded, 1 through it, with
 * every row one position later; then pass k drafts k tokens ahead, with one row for each segment that wants
 * as many drafts. */
static inline int32_t dr_shape_drafting(const struct dr_step_shape *s, int32_t pass) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_segment; i++) n += s->segment[i].n_draft >= pass;
    return n;
}

/* Keys that the segment's expanded rows may see in a pass (below): positions [0, that). */
static inline int32_t dr_shape_keys(const struct dr_shape_segment *s, int32_t pass) {
    return s->first + s->n_rows + (pass > 0 && s->next);
}

/* A place in a stage's list; fields are private to schedule.c. */
struct dr_schedule {
    const struct dr_config *c;
    const struct dr_layout *l;
    const struct dr_step_shape *shape; /* borrowed */
    int32_t stage, group_heads, state, layer, layer_end;
    int32_t pass, n_rows, n_absorbed, absorbed_done; /* of the pass */
    int32_t drafts_done;                             /* rows of the pass whose drafts were drawn */
    int32_t segment, piece, n_piece;     /* prefill: next piece of a segment, pieces of the layer so far */
    int32_t out_segment, out_row, batch; /* output rows before the next batch */
    int32_t n_sampled, n_logprob, n_top_k, n_top_p, round; /* of the batch */
    int64_t n_top;
};

typedef void dr_call_visit(void *arg, const struct dr_call *call);

#ifdef __cplusplus
extern "C" {
#endif

/* Stands before the first call of a rank in `stage`. All three pointers are borrowed while the cursor is
 * used. */
void dr_schedule_begin(struct dr_schedule *s, const struct dr_config *c, const struct dr_layout *l,
                       const struct dr_step_shape *shape, int32_t stage, int32_t cache_group);

/* The next call, or false after the last one. */
bool dr_schedule_next(struct dr_schedule *s, struct dr_call *out);

/* Visits the calls of a rank in `stage` and `cache_group` (rank's t / c), in order. Pure; allocates nothing.
 */
void dr_schedule_walk(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape,
                      int32_t stage, int32_t cache_group, dr_call_visit *visit, void *arg);

/* Over the lists of all stages; costs one layer a stage, not all of them. */
uint64_t dr_schedule_hash(const struct dr_config *c, const struct dr_layout *l,
                          const struct dr_step_shape *shape);

/* Sum of bytes and number of calls of a stage (deadlines). */
void dr_schedule_cost(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape,
                      int32_t stage, uint64_t *bytes, int32_t *calls);

const char *dr_call_kind_name(int kind);
const char *dr_call_what_name(int what);

#ifdef __cplusplus
}
#endif
