/* engine.h - a running cluster, seen from the text world: submit token ids, get token ids back.
 * In:   resolved options, token ids.      Out: news of each request by callbacks.
 * Owns: RUN directory, listener, link, mpirun and its watch; one engine thread.
 * Why:  http/ and cli/ must not know about processes, sockets, epochs or frames.
 *
 * Epochs: when a rank dies every open request ends with on_done(LOST) within 2 s, the job is stopped
 * completely and started again (back-off from the second failure on; five failures in ten minutes latch it
 * down). Requests submitted meanwhile wait up to 10 s, then fail. */
#pragma once

#include "common/option.h"
#include "model/layout.h"
#include "proto/message.h"

struct dr_engine;

enum dr_engine_state {
    DR_ENGINE_STARTING,
    DR_ENGINE_READY,
    DR_ENGINE_RELAUNCHING,
    DR_ENGINE_DRAINING,
    DR_ENGINE_LATCHED,
    DR_ENGINE_STOPPED
};

/* Callbacks run on the engine thread, must not block and must not call the engine except dr_engine_cancel.
 * For one request: on_accepted at most once, on_tokens any number of times, then exactly one of on_done and
 * on_refused, after which arg is not touched again. */
struct dr_engine_sink {
    void (*on_accepted)(void *arg);
    void (*on_tokens)(void *arg, const struct dr_token_news *news); /* news is valid during the call */
    void (*on_logits)(void *arg, const struct dr_logits *logits);   /* may be NULL */
    void (*on_done)(void *arg, const struct dr_done *done);         /* finish LOST: the cluster failed */
    void (*on_refused)(void *arg, const struct dr_refused *refused);
    void *arg;
};

/* Who watches the cluster's steps. Engine thread, as above; either may be NULL. */
struct dr_step_sink {
    void (*on_step)(void *arg, const struct dr_step_news *news); /* a step's result has come */
    /* a rank's report; heard_ns: when it came, by this machine's clock */
    void (*on_report)(void *arg, const struct dr_step_report *report, uint64_t heard_ns);
    void *arg;
};

struct dr_engine_facts { /* a snapshot */
    enum dr_engine_state state;
    char reason[DR_TEXT_MAX + 1]; /* last failure, "" if none */
    enum dr_code code; /* of the reason: EMODEL when a rank refused the model, else EPEER, ENOENT ... */
    uint64_t epoch;
    uint32_t relaunches;
    struct dr_layout layout; /* valid once it has been READY */
    int32_t n_rank;
    struct dr_rank_state rank[DR_RANKS_MAX];
    uint64_t rank_beat_age_ns; /* of Alive */
    struct dr_stats stats;
    int32_t open_requests;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Checks model, layout and memory (config, every tensor header, footprint against the machine), then starts
 * mpirun with the coordinator and the workers, and returns at once; readiness by dr_engine_wait. Options are
 * resolved in place (pages, context, threads, model's full path). Both are borrowed until destroy. A first
 * epoch that fails is final (STOPPED); later ones are started again. Fails: EMODEL, ENOENT, EIO, EUSAGE. */
DR_FALLIBLE dr_engine_create(struct dr_options *options, const struct dr_config *config,
                             struct dr_engine **out);

/* Until READY, failure or timeout. Fails: EPEER with the reason (a rank's own text), ETIME. EMODEL when a
 * rank refused the model. */
DR_FALLIBLE dr_engine_wait(struct dr_engine *e, uint64_t timeout_ns);

/* Any thread. Copies everything. request ids come from dr_engine_next_id. Fails: EPEER when draining, latched
 * or stopped (text says which and retry advice); then the sink is not called. */
DR_FALLIBLE dr_engine_submit(struct dr_engine *e, const struct dr_submit *submit,
                             const struct dr_engine_sink *sink);
uint64_t dr_engine_next_id(struct dr_engine *e);

/* Any thread. True: a submit would be refused for want of room. Then *out is what the coordinator told the
 * last one that was, less than a second ago, and it has not said since that there is room. False: ask it. */
bool dr_engine_full(struct dr_engine *e, struct dr_refused *out);

/* Any thread. The request ends with on_done(CANCELLED) within one step, unless it has ended already. */
void dr_engine_cancel(struct dr_engine *e, uint64_t request);

/* Any thread. From now on, in every epoch, the coordinator does what `bits` (enum dr_watch_bits) ask;
 * requests submitted later run under them. sink is copied; its arg must live as long as the engine. */
void dr_engine_watch(struct dr_engine *e, uint32_t bits, const struct dr_step_sink *sink);

/* Any thread. Requests submitted later find no prefix that was computed before. */
void dr_engine_reset_prefix(struct dr_engine *e);

/* Any thread. facts is large: keep it off small stacks. */
void dr_engine_facts(struct dr_engine *e, struct dr_engine_facts *out);

/* No new requests; waits until the open ones have ended or the timeout has passed (the rest end CANCELLED).
 */
void dr_engine_drain(struct dr_engine *e, uint64_t timeout_ns);

/* Stops the job (SIGTERM, 3 s, SIGKILL), waits for every process, removes RUN. Leaves nothing behind. */
void dr_engine_destroy(struct dr_engine *e);

#ifdef __cplusplus
}
#endif
