/* generation.c - tokens in, pieces of text out.
 * In:   news on the engine thread.      Out: pieces on the consumer's thread.
 * Owns: two arrays of tokens that change places, detokenizer, stop matcher, one reference for each side.
 * Why:  see generation.h. Text is made by the consumer, so the engine thread only copies.
 *
 * An id that may stop the sequence is held until it is known whether it did: its text belongs to the answer
 * only if not. */
#include "gateway/api/generation.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/size.h"
#include "gateway/text/detokenizer.h"
#include "gateway/text/stop.h"

static const float NEVER = -100; /* bias that OpenAI's interface calls a ban */

struct tokens {
    struct dr_piece_token *at; /* owned */
    int32_t n, room;
};

struct dr_generation {
    pthread_mutex_t lock; /* the block below; notify is called under it, the engine's and a notifier's lock
                             may be taken */
    pthread_cond_t news;
    int32_t references; /* consumer 1, engine 1 */
    struct tokens incoming;
    bool accepted, stopped, ended, refused, broken;
    struct dr_done done;
    struct dr_refused refusal;
    void (*notify)(void *arg);
    void *notify_arg;

    /* the consumer's */
    struct dr_engine *engine;
    uint64_t request;
    struct tokens taken;
    bool told; /* the last piece was given out */
    bool has_text;
    struct dr_detokenizer detokenizer;
    struct dr_stop stop;
    struct dr_text raw, text; /* of the last token; of the piece */
    uint32_t end_id[DR_STOP_IDS_MAX];
    int32_t n_end;
    bool include_stop, holds;
    uint32_t held; /* an id of end_id whose text waits */
    int32_t n_output;
};

/* ---- engine thread ---- */

static void release(struct dr_generation *g) {
    pthread_mutex_lock(&g->lock);
    bool last = --g->references == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last) return;
    free(g->incoming.at);
    free(g->taken.at);
    dr_stop_fini(&g->stop);
    dr_text_fini(&g->raw);
    dr_text_fini(&g->text);
    pthread_cond_destroy(&g->news);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* With the lock held. */
static void tell(struct dr_generation *g) {
    pthread_cond_broadcast(&g->news);
    if (g->notify) g->notify(g->notify_arg);
}

static bool append(struct tokens *t, const struct dr_piece_token *token) {
    if (t->n == t->room) {
        int32_t room = t->room ? 2 * t->room : 16;
        struct dr_piece_token *at = realloc(t->at, (size_t)room * sizeof *at);
        if (!at) return false;
        t->at = at;
        t->room = room;
    }
    t->at[t->n++] = *token;
    return true;
}

static void on_accepted(void *arg) {
    struct dr_generation *g = arg;
    pthread_mutex_lock(&g->lock);
    g->accepted = true;
    tell(g);
    pthread_mutex_unlock(&g->lock);
}

static void on_tokens(void *arg, const struct dr_token_news *news) {
    struct dr_generation *g = arg;
    bool cancel = false;
    pthread_mutex_lock(&g->lock);
    g->accepted = true;
    for (int32_t i = 0; i < news->n && !g->stopped && !g->broken; i++) {
        struct dr_piece_token token = {.id = news->ids[i], .prompt = news->prompt};
        if (news->logprob) token.logprob = news->logprob[i];
        token.n_top = news->top ? dr_min_i32(news->n_top, DR_TOP_MAX) : 0;
        for (int32_t k = 0; k < token.n_top; k++)
            token.top[k] = news->top[(size_t)i * (size_t)news->n_top + (size_t)k];
        if (!append(&g->incoming, &token)) g->broken = cancel = true;
    }
    tell(g);
    pthread_mutex_unlock(&g->lock);
    if (cancel) dr_engine_cancel(g->engine, g->request);
}

static void on_done(void *arg, const struct dr_done *done) {
    struct dr_generation *g = arg;
    pthread_mutex_lock(&g->lock);
    g->ended = true;
    g->accepted = g->accepted || done->finish == DR_FINISH_STOP || done->finish == DR_FINISH_LENGTH;
    g->done = *done;
    tell(g);
    pthread_mutex_unlock(&g->lock);
    release(g);
}

static void on_refused(void *arg, const struct dr_refused *refused) {
    struct dr_generation *g = arg;
    pthread_mutex_lock(&g->lock);
    g->ended = g->refused = true;
    g->refusal = *refused;
    tell(g);
    pthread_mutex_unlock(&g->lock);
    release(g);
}

/* ---- start ---- */

static dr_status check(const struct dr_kit *kit, const struct dr_generation_wish *w) {
    if (w->n_ids < 1) return dr_fail(DR_EINVAL, "prompt: it is empty; expected one token at least");
    if (w->n_ids >= kit->context)
        return dr_fail(DR_EINVAL, "prompt: %d tokens; the context holds %d, one of them new", w->n_ids,
                       kit->context);
    for (int32_t i = 0; i < w->n_ids; i++)
        if (w->ids[i] >= (uint32_t)kit->config.vocab)
            return dr_fail(DR_EINVAL, "prompt: token id %u at position %d; the vocabulary has %d", w->ids[i],
                           i, kit->config.vocab);
    if (w->n_stop_ids < 0 || w->n_stop_ids > DR_STOP_IDS_MAX - DR_END_IDS_MAX)
        return dr_fail(DR_EINVAL, "stop_token_ids: %d ids, at most %d are accepted", w->n_stop_ids,
                       DR_STOP_IDS_MAX - DR_END_IDS_MAX);
    if (w->n_bias < 0 || w->n_bias > DR_BIAS_MAX)
        return dr_fail(DR_EINVAL, "logit_bias: %d tokens, at most %d are accepted", w->n_bias, DR_BIAS_MAX);
    if (w->n_stop > 0 && !kit->tokenizer)
        return dr_fail(DR_EINVAL, "stop: this model has no tokenizer, so there is no text to search");
    return dr_ok();
}

static dr_status init_text(struct dr_generation *g, const struct dr_kit *kit,
                           const struct dr_generation_wish *w) {
    size_t bytes[DR_STOP_STRINGS_MAX] = {0};
    for (int32_t i = 0; i < w->n_stop && i < DR_STOP_STRINGS_MAX; i++) bytes[i] = strlen(w->stop[i]);
    DR_TRY(dr_stop_init(&g->stop, w->stop, bytes, (size_t)w->n_stop, w->include_stop));
    g->include_stop = w->include_stop;
    g->has_text = kit->tokenizer != NULL;
    if (g->has_text) dr_detokenizer_init(&g->detokenizer, kit->tokenizer, w->skip_special);
    return dr_text_push(&g->text, "", 0);
}

static void add_end(struct dr_generation *g, uint32_t id) {
    for (int32_t i = 0; i < g->n_end; i++)
        if (g->end_id[i] == id) return;
    if (g->n_end < DR_STOP_IDS_MAX) g->end_id[g->n_end++] = id;
}

/* Request's biases, then a ban on every row of the head that no token names (they exist to round the
 * vocabulary up). */
static int32_t fill_bias(const struct dr_kit *kit, const struct dr_generation_wish *w, struct dr_bias *out) {
    int32_t n = w->n_bias;
    if (n) memcpy(out, w->bias, (size_t)n * sizeof *out);
    int32_t unnamed = kit->n_vocab_named ? kit->config.vocab - kit->n_vocab_named : 0;
    if (unnamed <= 0 || n + unnamed > DR_BIAS_MAX) return n;
    for (int32_t id = kit->n_vocab_named; id < kit->config.vocab; id++)
        out[n++] = (struct dr_bias){.id = (uint32_t)id, .value = NEVER};
    return n;
}

static dr_status submit(struct dr_generation *g, const struct dr_kit *kit,
                        const struct dr_generation_wish *w) {
    struct dr_bias bias[DR_BIAS_MAX]; /* 8 KiB */
    for (int32_t i = 0; !w->ignore_eos && i < kit->n_end_id; i++) add_end(g, kit->end_id[i]);
    for (int32_t i = 0; i < w->n_stop_ids; i++) add_end(g, w->stop_ids[i]);
    struct dr_submit s = {
        .request = g->request,
        .n_ids = w->n_ids,
        .ids = w->ids,
        .max_tokens = dr_min_i32(w->max_tokens, kit->context - w->n_ids),
        .min_tokens = dr_min_i32(w->min_tokens, kit->context - w->n_ids),
        .ignore_eos = g->n_end == 0,
        .n_end = g->n_end,
        .end_ids = g->end_id,
        .sampling = w->sampling,
        .n_bias = fill_bias(kit, w, bias),
        .bias = bias,
        .prompt_top = w->prompt_top,
        .priority = w->priority,
        .deadline_ms = w->deadline_ms,
    };
    snprintf(s.tenant, sizeof s.tenant, "%s", w->tenant);
    snprintf(s.salt, sizeof s.salt, "%s", w->salt);
    const struct dr_engine_sink sink = {.on_accepted = on_accepted,
                                        .on_tokens = on_tokens,
                                        .on_done = on_done,
                                        .on_refused = on_refused,
                                        .arg = g};
    g->references = 2;
    return dr_engine_submit(g->engine, &s, &sink);
}

dr_status dr_generation_start(struct dr_engine *e, const struct dr_kit *kit,
                              const struct dr_generation_wish *w, struct dr_generation **out) {
    DR_TRY(check(kit, w));
    struct dr_generation *g = calloc(1, sizeof *g);
    if (!g) return dr_fail(DR_EFULL, "no memory for a request");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->news, &attr);
    pthread_condattr_destroy(&attr);
    g->engine = e;
    g->request = dr_engine_next_id(e);
    g->notify = w->notify;
    g->notify_arg = w->notify_arg;
    dr_status st = init_text(g, kit, w);
    if (st.code == DR_OK) st = submit(g, kit, w);
    if (st.code != DR_OK) {
        g->references = 1; /* the engine took none */
        release(g);
        return st;
    }
    *out = g;
    return st;
}

/* ---- consumer ---- */

static dr_status add_text(struct dr_generation *g, uint32_t id) {
    dr_text_reset(&g->raw);
    DR_TRY(dr_detokenizer_push(&g->detokenizer, id, &g->raw));
    return dr_stop_push(&g->stop, g->raw.at, g->raw.n, &g->text);
}

static bool may_end(const struct dr_generation *g, uint32_t id) {
    for (int32_t i = 0; i < g->n_end; i++)
        if (g->end_id[i] == id) return true;
    return false;
}

static dr_status take_token(struct dr_generation *g, const struct dr_piece_token *token) {
    if (token->prompt) return dr_ok();
    g->n_output++;
    if (!g->has_text) return dr_ok();
    if (g->holds) {
        g->holds = false;
        DR_TRY(add_text(g, g->held));
        if (g->stop.hit >= 0) return dr_ok();
    }
    if (!g->include_stop && may_end(g, token->id)) {
        g->holds = true;
        g->held = token->id;
        return dr_ok();
    }
    return add_text(g, token->id);
}

/* Nothing follows: decides on what is held. */
static dr_status finish_text(struct dr_generation *g) {
    if (!g->has_text || g->stop.hit >= 0) return dr_ok();
    bool stopped_it = !g->refused && g->done.finish == DR_FINISH_STOP && g->done.stop_id == g->held;
    if (g->holds && !stopped_it) DR_TRY(add_text(g, g->held));
    g->holds = false;
    dr_text_reset(&g->raw);
    DR_TRY(dr_detokenizer_end(&g->detokenizer, &g->raw));
    DR_TRY(dr_stop_push(&g->stop, g->raw.at, g->raw.n, &g->text));
    return dr_stop_end(&g->stop, &g->text);
}

static const char *failure_text(enum dr_finish finish) {
    switch (finish) {
    case DR_FINISH_NUMERIC:
        return "the model's output for this request was not a number";
    case DR_FINISH_DEADLINE:
        return "the request's deadline passed";
    case DR_FINISH_LOST:
        return "the cluster was lost under this request and is being started again; try again";
    default:
        return "";
    }
}

/* The fields of the last piece. */
static void fill_end(struct dr_generation *g, bool broken, struct dr_piece *out) {
    static const char *const names[DR_FINISH_COUNT] = {
#define DR_X_(name, text) [DR_FINISH_##name] = (text),
        DR_FINISHES(DR_X_)
#undef DR_X_
    };
    out->end = true;
    out->stop_id = -1;
    out->error = "";
    out->done = g->done;
    out->done.n_output = g->n_output;
    if (g->stop.hit >= 0) {
        out->finish = "stop";
        out->stop_text = g->stop.stop[g->stop.hit].text;
    } else if (broken) {
        out->finish = "error";
        out->error = "no memory for this request's answer";
    } else if (g->refused) {
        out->finish = "error";
        out->refused = true;
        out->refusal = g->refusal.reason;
        out->retry_ms = g->refusal.retry_ms;
        out->error = g->refusal.text;
    } else {
        out->finish = names[g->done.finish];
        out->error = failure_text(g->done.finish);
        out->lost = g->done.finish == DR_FINISH_LOST;
        if (g->done.finish == DR_FINISH_STOP && g->done.stop_id != UINT32_MAX) out->stop_id = g->done.stop_id;
    }
}

static void stop_now(struct dr_generation *g) {
    pthread_mutex_lock(&g->lock);
    g->stopped = true;
    g->incoming.n = 0;
    bool ended = g->ended;
    pthread_mutex_unlock(&g->lock);
    if (!ended) dr_engine_cancel(g->engine, g->request);
}

bool dr_generation_next(struct dr_generation *g, struct dr_piece *out) {
    pthread_mutex_lock(&g->lock);
    struct tokens swap = g->taken;
    g->taken = g->incoming;
    g->incoming = swap;
    g->incoming.n = 0;
    bool ended = g->ended, broken = g->broken;
    pthread_mutex_unlock(&g->lock);
    if (g->told || (g->taken.n == 0 && !ended)) return false;

    dr_text_reset(&g->text);
    int32_t n = 0;
    while (n < g->taken.n && g->stop.hit < 0 && !broken)
        broken = take_token(g, &g->taken.at[n++]).code != DR_OK;
    if (ended && !broken) broken = finish_text(g).code != DR_OK;
    if (g->stop.hit >= 0 || broken) stop_now(g);
    *out = (struct dr_piece){
        .text = g->text.at, .text_bytes = g->text.n, .token = g->taken.at, .n_token = n, .stop_id = -1};
    if (broken) {
        pthread_mutex_lock(&g->lock);
        g->broken = true;
        pthread_mutex_unlock(&g->lock);
    }
    if (ended) {
        fill_end(g, broken, out);
        g->told = true;
    }
    return true;
}

bool dr_generation_wait(struct dr_generation *g, uint64_t timeout_ns) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns % 1000000000u;
    until.tv_sec += (time_t)(timeout_ns / 1000000000u + ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&g->lock);
    int rc = 0;
    while (rc != ETIMEDOUT && g->incoming.n == 0 && !(g->ended && !g->told))
        rc = pthread_cond_timedwait(&g->news, &g->lock, &until);
    bool ready = g->incoming.n > 0 || (g->ended && !g->told);
    pthread_mutex_unlock(&g->lock);
    return ready;
}

enum dr_generation_stage dr_generation_stage(struct dr_generation *g) {
    pthread_mutex_lock(&g->lock);
    enum dr_generation_stage stage = g->accepted ? DR_GENERATION_RUNNING
                                     : g->ended  ? DR_GENERATION_REFUSED
                                                 : DR_GENERATION_WAITING;
    pthread_mutex_unlock(&g->lock);
    return stage;
}

void dr_generation_cancel(struct dr_generation *g) {
    pthread_mutex_lock(&g->lock);
    bool ended = g->ended;
    pthread_mutex_unlock(&g->lock);
    if (!ended) dr_engine_cancel(g->engine, g->request);
}

void dr_generation_destroy(struct dr_generation *g) {
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->notify = NULL;
    g->stopped = true; /* nobody will read: nothing is copied any more */
    bool ended = g->ended;
    pthread_mutex_unlock(&g->lock);
    if (!ended) dr_engine_cancel(g->engine, g->request);
    release(g);
}
