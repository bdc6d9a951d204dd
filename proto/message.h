/* message.h - what the programs say to each other, as plain structs.
 * In:   codec.h decodes bytes into these.      Out: codec.h encodes them.
 * Owns: arrays inside decoded messages live in the arena given to the decoder; in messages to be sent they
 * are borrowed. Why:  the generated protobuf types stop at codec.c; the rest of the project sees these and
 * never checks a length twice.
 *
 * Slots: 0 .. seqs_max-1, chosen by the coordinator; a worker keeps per slot: page table, length, newest ids,
 * penalty counts. */
#pragma once

#include "model/layout.h"
#include "proto/limits.h"

/* type word of a frame (proto/codec.h); the number is on the wire and never reused */
/* clang-format off */
#define DR_MESSAGES(X)                                                                                       \
    /* coordinator <-> workers */                                                                            \
    X(HELLO, 1) X(START, 2) X(READY, 3) X(STEP_PLAN, 4) X(STEP_REPORT, 5) X(STEP_RESULT, 6) X(LOGITS, 7)     \
    X(STOP, 8) X(BEAT, 9) X(FAULT, 10)                                                                       \
    /* gateway -> coordinator */                                                                             \
    X(LINK_HELLO, 32) X(SUBMIT, 33) X(CANCEL, 34) X(DRAIN, 35) X(RESET_PREFIX, 36) X(WATCH, 37)              \
    /* coordinator -> gateway */                                                                             \
    X(CLUSTER_READY, 48) X(ACCEPTED, 49) X(REFUSED, 50) X(TOKENS, 51) X(DONE, 52) X(ALIVE, 53) X(STATS, 54)  \
    X(CLUSTER_FAULT, 55) X(PROGRESS, 56) X(STEP_NEWS, 57)
/* clang-format on */

#define DR_X_(name, number) DR_MSG_##name = number,
enum dr_msg { DR_MESSAGES(DR_X_) DR_MSG_NONE = 0 };
#undef DR_X_

/* ---- cluster: coordinator <-> workers ---- */

/* How a rank computes. Ranks must round alike, else replicated results (the experts of a token) differ. */
struct dr_arithmetic {
    char isa[DR_ISA_TEXT + 1];       /* instruction set of the kernels: "avx2" ... */
    char inputs[DR_INPUTS_TEXT + 1]; /* what inputs of products are rounded to: "f32", "bf16", "int8" */
};

/* worker -> coordinator, once, before loading; also the identity check: any difference stops the start with
 * both values printed */
struct dr_hello {
    uint32_t protocol;
    char build[32]; /* DR_VERSION */
    int32_t rank;   /* worker rank, 0-based */
    int32_t pid;
    char host[DR_HOST_MAX + 1];
    uint64_t tensors_hash; /* dr_tensors_hash */
    uint64_t layout_hash;  /* dr_layout_hash of the layout it computed from its own options */
    uint64_t memory_bytes; /* free memory of its host */
    struct dr_arithmetic arithmetic;
};

/* coordinator -> worker: all hellos agree, load now */
struct dr_start {
    int32_t n_rank;
    /* [n_rank] each rank's number among the ranks of its host, and how many these are: their shares of its
     * cores */
    const int32_t *place, *peers;
};

/* worker -> coordinator */
struct dr_ready {
    int32_t rank;
    uint64_t weights_bytes, cache_bytes, workspace_bytes, resident_bytes;
    uint64_t load_ns;
};

enum dr_source { DR_SOURCE_IDS, DR_SOURCE_CARRY };
enum dr_tokens_role { DR_TOKENS_PROMPT, DR_TOKENS_GENERATED };
enum dr_form { DR_FORM_EXPANDED, DR_FORM_ABSORBED };
enum dr_output { DR_OUTPUT_NONE, DR_OUTPUT_SAMPLE, DR_OUTPUT_SCORE, DR_OUTPUT_LOGITS };

struct dr_sampling {
    float temperature, top_p, min_p;       /* 0: arg-max; 1: off; 0: off */
    int32_t top_k;                         /* 0: off */
    float repetition, frequency, presence; /* 1, 0, 0: off */
    uint64_t seed;
    int32_t n_top; /* -1: no log-probabilities; 0..20 alternatives with each token's own */
};

struct dr_bias {
    uint32_t id;
    float value;
};

struct dr_count {
    uint32_t id, count;
};

/* Opens a slot: once per start or resume of a sequence */
struct dr_open {
    int32_t slot, cache_group; /* cache_group 0 for now: field of data-parallel attention */
    int32_t n_prompt;
    int32_t n_kept; /* positions whose cache rows are there and shared: computed again they are not stored */
    struct dr_sampling sampling;
    int32_t n_bias, n_seen_prompt, n_seen_output; /* seen_*: only when penalties are on */
    const struct dr_bias *bias;
    const uint32_t *seen_prompt; /* distinct ids of the prompt */
    const struct dr_count *seen_output;
};

/* Page-table entries [first, first + n) of a slot */
struct dr_pages {
    int32_t slot, first, n;
    const uint32_t *page;
};

/* Rows of one slot in this step. Positions [first, first + n_rows). */
struct dr_segment {
    int32_t slot, first, n_rows; /* CARRY: n_rows is max_rows */
    enum dr_source source;
    const uint32_t *ids; /* [n_rows] with DR_SOURCE_IDS */
    bool has_next;    /* next_id is the token after the last row (MTP input; SCORE target of the last row) */
    uint32_t next_id; /* missing: with SAMPLE it is the token drawn, else there is none */
    enum dr_tokens_role role;
    enum dr_form form;
    enum dr_output output; /* SAMPLE: of the last 1 + n_verify rows; SCORE and LOGITS: of every row */
    int32_t score_top;     /* SCORE: alternatives a row, 0..20 */
    int32_t n_verify; /* SAMPLE: the last ids are drafts, to be compared with what is drawn before them */
    int32_t n_draft;  /* drafts wanted of the tokens after the newest one; needs a next token */
};

struct dr_step_plan {
    uint64_t epoch, step; /* step grows by one within an epoch */
    int32_t cohort;
    int32_t n_open, n_pages, n_segment, n_drop;
    const struct dr_open *open; /* applied in this order: drop, open, pages, then the segments run */
    const struct dr_pages *pages;
    const struct dr_segment *segment; /* none: idle ping */
    const int32_t *drop;              /* slots closed before anything else of this plan */
    uint64_t schedule_hash;           /* dr_schedule_hash of layout and this plan */
};

enum dr_bytes_kind {
    DR_BYTES_ALLREDUCE,
    DR_BYTES_EXCHANGE,
    DR_BYTES_GATHER,
    DR_BYTES_BOUNDARY,
    DR_BYTES_SAMPLER,
    DR_BYTES_KIND_COUNT
};

/* Where the time of a step goes on a rank. At any moment exactly one part is charged, so that the parts add
 * up to the step. PROJECT: norms and products of attention, rotation, cache rows. ATTENTION: scores and sums
 * over the cache. EXPERTS: feed-forward of all layers, dense ones too. COLLECTIVE: the own work of calls to
 * other ranks. WAIT: for other ranks, in such calls. REST: the plan's checks, tables of rows. */
/* clang-format off */
#define DR_STEP_PARTS(X)                                                                                     \
    X(EMBED, "embed") X(PROJECT, "projections") X(ATTENTION, "attention") X(ROUTER, "router")                \
    X(EXPERTS, "experts") X(HEAD, "head") X(SAMPLER, "sampler") X(COLLECTIVE, "collectives")                 \
    X(WAIT, "waiting") X(REST, "rest")
/* clang-format on */
#define DR_X_(name, text) DR_PART_##name,
enum dr_step_part { DR_STEP_PARTS(DR_X_) DR_PART_COUNT };
#undef DR_X_

static inline const char *dr_step_part_name(int part) {
#define DR_X_(name, text) text,
    static const char *const names[] = {DR_STEP_PARTS(DR_X_)};
#undef DR_X_
    return part >= 0 && part < (int)DR_PART_COUNT ? names[part] : "?";
}

struct dr_step_report {
    uint64_t epoch, step;
    int32_t rank, code;                 /* enum dr_code; not OK: the epoch ends */
    uint64_t begin_ns, end_ns, wait_ns; /* the rank's own clock */
    uint64_t bytes[DR_BYTES_KIND_COUNT];
    uint64_t part_ns[DR_PART_COUNT];            /* they add up to end_ns - begin_ns */
    uint64_t wait_kind_ns[DR_BYTES_KIND_COUNT]; /* wait_ns by the kind of call */
    uint64_t peak_bytes; /* most memory that the process has had resident so far; 0: unknown */
    char text[256];      /* when code is not OK */
};

enum dr_fault { DR_FAULT_NONE, DR_FAULT_NUMERIC };

struct dr_top {
    uint32_t id;
    float logprob;
};

/* One per segment with SAMPLE, else one per output row; in the order of the plan's segments and their rows.
 * A draft is accepted iff it is what was drawn in its place; behind the first wrong one nothing is drawn.
 * With a fault the ids are those drawn before it. */
struct dr_result_row {
    int32_t slot, position; /* position of the (first) row whose logits these are */
    enum dr_fault fault;
    int32_t n_ids; /* SAMPLE: accepted drafts and, without a fault, 1; SCORE: 1 (its target), 0 when it has
                      none */
    uint32_t ids[1 + DR_DRAFTS_MAX];
    float logprob[1 + DR_DRAFTS_MAX]; /* of the raw logits */
    int32_t n_accepted, n_top, n_draft;
    uint32_t draft[DR_DRAFTS_MAX]; /* guesses of the tokens after the last id; in the segment's last row */
    const struct dr_top *top;      /* [n_ids, n_top], each descending */
};

struct dr_step_result {
    uint64_t epoch, step;
    int32_t n_row;
    const struct dr_result_row *row;
    int32_t n_bad;
    const int32_t *bad; /* slots with a row of this step, output or not, that is not finite */
};

/* Raw logits of one row, columns [first, first + n): from each rank of the last stage to the coordinator, on
 * to the gateway */
struct dr_logits {
    uint64_t epoch, step, request; /* request is filled in by the coordinator */
    int32_t slot, position, first, n;
    const float *value; /* raw little-endian f32 after the fixed header, no protobuf */
};

struct dr_beat {
    uint64_t epoch, step;
    int32_t rank, op; /* index of the schedule entry entered last */
};

struct dr_fault_note { /* a worker's last words, and the coordinator's to the gateway */
    int32_t rank, code;
    char text[DR_TEXT_MAX + 1];
};

/* ---- link: gateway <-> coordinator ---- */

struct dr_link_hello { /* first frame of the coordinator */
    uint32_t protocol;
    uint8_t token[32];
};

struct dr_submit {
    uint64_t request; /* chosen by the gateway, unique in its life */
    int32_t n_ids;
    const uint32_t *ids; /* prompt */
    int32_t n_delivered; /* the last n_delivered ids are generated tokens of an earlier epoch (resume) */
    int32_t max_tokens, min_tokens; /* new tokens; end tokens are masked out of stopping below min */
    bool ignore_eos;
    int32_t n_end;
    const uint32_t *end_ids; /* stop after any of these: model's and request's */
    struct dr_sampling sampling;
    int32_t n_bias;
    const struct dr_bias *bias;
    int32_t prompt_top;           /* -1: no prompt log-probabilities; else SCORE(k) rows for the prompt */
    bool logits;                  /* send raw logits of every prompt row (score --logits) */
    int32_t priority;             /* lower first */
    uint32_t deadline_ms;         /* 0: none */
    char tenant[DR_SALT_MAX + 1]; /* who asks: tenants of equal priority take turns */
    char salt[DR_SALT_MAX + 1];   /* only requests of equal salt share cached prefixes */
};

enum dr_refusal { DR_REFUSE_FULL, DR_REFUSE_INVALID, DR_REFUSE_TOO_LONG, DR_REFUSE_DRAINING };

struct dr_refused {
    uint64_t request;
    enum dr_refusal reason;
    uint32_t retry_ms;
    char text[DR_TEXT_MAX + 1];
};

/* One per request and step that has news */
struct dr_token_news {
    uint64_t request;
    bool prompt; /* rows are prompt log-probabilities: ids[i] is prompt token position + i + 1 */
    int32_t position, n;
    const uint32_t *ids;  /* [n] */
    const float *logprob; /* [n] or NULL */
    int32_t n_top;
    const struct dr_top *top; /* [n * n_top] or NULL */
};

struct dr_tokens {
    int32_t n;
    const struct dr_token_news *news;
};

/* clang-format off */
#define DR_FINISHES(X)                                                                                       \
    X(STOP, "stop") X(LENGTH, "length") X(CANCELLED, "cancelled")                                            \
    X(NUMERIC, "error") X(DEADLINE, "error") X(LOST, "error")
/* clang-format on */
#define DR_X_(name, text) DR_FINISH_##name,
enum dr_finish { DR_FINISHES(DR_X_) DR_FINISH_COUNT };
#undef DR_X_

struct dr_done {
    uint64_t request;
    enum dr_finish finish;
    uint32_t stop_id; /* end token that stopped; UINT32_MAX: none */
    int32_t n_prompt, n_cached, n_output;
    /* Drafts that were verified, and those that came true: the first after a token, the second, ... */
    int32_t drafted[DR_DRAFTS_MAX], accepted[DR_DRAFTS_MAX];
    uint64_t queue_ns, prefill_ns, decode_ns; /* waiting, first plan to first token, first to last token */
};

struct dr_rank_state {
    int32_t rank, pid;
    char host[DR_HOST_MAX + 1];
    uint64_t weights_bytes, cache_bytes, workspace_bytes, resident_bytes, load_ns;
    struct dr_arithmetic arithmetic;
};

struct dr_cluster_ready {
    struct dr_layout layout; /* encoded field by field */
    uint64_t tensors_hash;
    int32_t n_rank;
    const struct dr_rank_state *rank;
};

struct dr_progress { /* while loading, at most one a second and rank */
    int32_t rank;
    uint64_t done_bytes, total_bytes;
};

/* WATCH: what the gateway wants to see and have; a sum of these bits, 0 at the start of an epoch. */
enum dr_watch_bits {
    DR_WATCH_STEPS = 1,         /* STEP_NEWS for every step, and every rank's STEP_REPORT passed on */
    DR_WATCH_PREFILL_FIRST = 2, /* nothing is generated while a prompt that can run is not done */
};

/* A step as the coordinator saw it, when its result had come; times by the coordinator's clock. */
struct dr_step_news {
    uint64_t step, sent_ns, done_ns;
    int32_t prompt_rows, generated_rows;
    int32_t n_decode, n_drawn; /* sequences that decoded, and the tokens that they got */
};

struct dr_stats { /* once a second with Alive */
    uint64_t steps, prompt_tokens, generated_tokens, cached_tokens, cancelled, preempted;
    /* pages_used: of running requests; pages_idle: filled, kept for whoever begins alike */
    int32_t running, waiting, pages_used, pages_idle, pages_total, waiting_tokens;
    uint64_t last_step_ns, last_step_age_ns, step_wait_ns;
    uint64_t bytes[DR_BYTES_KIND_COUNT];
};
