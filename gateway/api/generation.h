/* generation.h - one answer on its way: token ids become text, stop strings are watched, the consumer is
 * told. In:   prompt ids and wishes; token news from the engine.      Out: pieces: ids, log-probabilities,
 * finished text. Owns: its queue of pieces, detokenizer and stop matcher; cancels its request when destroyed
 * before the end. Why:  `generate`, `chat` and every HTTP endpoint turn tokens into text in exactly one way.
 *
 * Threads: the engine thread appends, one consumer takes; `notify` runs on the engine thread, must not block
 * and must not call into its generation; after destroy it is not called any more. */
#pragma once

#include "gateway/api/kit.h"
#include "gateway/cluster/engine.h"

struct dr_generation;

enum dr_generation_stage { DR_GENERATION_WAITING, DR_GENERATION_RUNNING, DR_GENERATION_REFUSED };

struct dr_generation_wish {
    const uint32_t *ids; /* prompt, borrowed during start */
    int32_t n_ids;
    int32_t max_tokens, min_tokens;
    bool ignore_eos, include_stop, skip_special;
    struct dr_sampling sampling;
    const struct dr_bias *bias;
    int32_t n_bias;
    const uint32_t *stop_ids; /* besides the model's */
    int32_t n_stop_ids;
    const char *const *stop; /* strings */
    int32_t n_stop;
    int32_t prompt_top; /* -1: no prompt log-probabilities */
    int32_t priority;
    uint32_t deadline_ms;
    const char *tenant, *salt; /* "": none (proto/message.h) */
    void (*notify)(void *arg); /* accepted, news or end; may be NULL */
    void *notify_arg;
};

struct dr_piece_token {
    uint32_t id;
    float logprob;
    int32_t n_top;
    struct dr_top top[DR_TOP_MAX];
    bool prompt; /* a prompt token's log-probability */
};

struct dr_piece {
    const char
        *text; /* valid UTF-8, NUL-terminated, may be ""; stop strings and held-back text are never in it */
    size_t text_bytes;
    const struct dr_piece_token *token; /* the ids that arrived with it */
    int32_t n_token;
    bool end;           /* last piece; the fields below are valid */
    const char *finish; /* "stop" | "length" | "error" | "cancelled" */
    bool lost, refused; /* error: cluster lost (retry); never started */
    enum dr_refusal refusal;
    uint32_t retry_ms;
    const char *error;     /* "" or a sentence */
    int64_t stop_id;       /* end or stop token id that stopped, else -1 */
    const char *stop_text; /* stop string that stopped, else NULL */
    struct dr_done done;   /* usage and times */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Submits. Fails as dr_engine_submit, and EINVAL (prompt empty, id >= vocab, prompt >= context, stop list too
 * long) naming the field. */
DR_FALLIBLE dr_generation_start(struct dr_engine *e, const struct dr_kit *kit,
                                const struct dr_generation_wish *wish, struct dr_generation **out);

/* Takes the next piece; false if there is none yet. The piece is valid until the next call for this
 * generation. */
bool dr_generation_next(struct dr_generation *g, struct dr_piece *out);

/* Blocks until dr_generation_next would return true, or the timeout has passed (false). For the command line.
 */
bool dr_generation_wait(struct dr_generation *g, uint64_t timeout_ns);

/* What the queue says. Once RUNNING it stays so; REFUSED: it ended before the queue took it, only the last
 * piece will come. */
enum dr_generation_stage dr_generation_stage(struct dr_generation *g);

void dr_generation_cancel(struct dr_generation *g);

/* Any time, consumer's thread; cancels if needed; the engine may still deliver: the object waits for the last
 * callback by reference count. */
void dr_generation_destroy(struct dr_generation *g);

#ifdef __cplusplus
}
#endif
