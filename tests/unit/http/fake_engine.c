/* fake_engine.c - see fake_engine.h.
 * In:   requests.      Out: scripted news.
 * Owns: struct dr_engine of this program.
 * Why:  see fake_engine.h. */
#include "tests/unit/http/fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

static void finish(struct dr_engine *e, struct fake_open *o, enum dr_finish finish, uint32_t stop_id) {
    const struct dr_done done = {.request = o->request,
                                 .finish = finish,
                                 .stop_id = stop_id,
                                 .n_prompt = o->n_prompt,
                                 .n_output = o->n_done,
                                 .n_cached = o->n_prompt > 4 ? 4 : 0,
                                 .drafted = {5, 4},
                                 .accepted = {4, 1},
                                 .queue_ns = 1000,
                                 .prefill_ns = 2000,
                                 .decode_ns = 3000};
    free(o->prompt);
    struct dr_engine_sink sink = o->sink;
    *o = (struct fake_open){.used = false};
    e->n_open--;
    if (finish == DR_FINISH_CANCELLED) e->n_cancelled++;
    pthread_mutex_unlock(&e->lock);
    sink.on_done(sink.arg, &done);
    pthread_mutex_lock(&e->lock);
}

static void refuse(struct dr_engine *e, struct fake_open *o, enum dr_refusal reason, uint32_t retry_ms,
                   const char *text) {
    struct dr_refused r = {.request = o->request, .reason = reason, .retry_ms = retry_ms};
    snprintf(r.text, sizeof r.text, "%s", text);
    struct dr_engine_sink sink = o->sink;
    free(o->prompt);
    *o = (struct fake_open){.used = false};
    e->n_open--;
    pthread_mutex_unlock(&e->lock);
    sink.on_refused(sink.arg, &r);
    pthread_mutex_lock(&e->lock);
}

/* One token with log-probability -(k + 1) / 8 and alternatives id, id + 1, ... at steps of -1. */
static void give(struct dr_engine *e, struct fake_open *o, uint32_t id, bool prompt, int32_t k) {
    struct dr_top top[DR_TOP_MAX];
    float logprob = -(float)(k + 1) / 8;
    int32_t n_top = prompt ? o->prompt_top : o->n_top;
    for (int32_t i = 0; i < n_top; i++)
        top[i] = (struct dr_top){.id = id + (uint32_t)i, .logprob = logprob - (float)i};
    const struct dr_token_news news = {.request = o->request,
                                       .prompt = prompt,
                                       .position = k,
                                       .n = 1,
                                       .ids = &id,
                                       .logprob = &logprob,
                                       .n_top = n_top > 0 ? n_top : 0,
                                       .top = n_top > 0 ? top : NULL};
    struct dr_engine_sink sink = o->sink;
    pthread_mutex_unlock(&e->lock);
    sink.on_tokens(sink.arg, &news);
    pthread_mutex_lock(&e->lock);
}

static void accept_it(struct dr_engine *e, struct fake_open *o) {
    struct dr_engine_sink sink = o->sink;
    o->accepted = true;
    pthread_mutex_unlock(&e->lock);
    sink.on_accepted(sink.arg);
    pthread_mutex_lock(&e->lock);
    if (o->prompt_top < 0) return;
    for (int32_t i = 1; i < o->n_prompt; i++) give(e, o, o->prompt[i], true, i);
}

static bool is_end(const struct fake_open *o, uint32_t id) {
    for (int32_t i = 0; i < o->n_end; i++)
        if (o->end_id[i] == id) return true;
    return false;
}

static void step(struct dr_engine *e, struct fake_open *o) {
    if (o->cancelled) {
        finish(e, o, DR_FINISH_CANCELLED, UINT32_MAX);
        return;
    }
    switch (e->mode) {
    case FAKE_SILENT:
        return;
    case FAKE_FULL:
        refuse(e, o, DR_REFUSE_FULL, 1500, "the queue holds 256 requests; try again");
        return;
    case FAKE_TOO_LONG:
        refuse(e, o, DR_REFUSE_TOO_LONG, 0, "too long for the cache");
        return;
    case FAKE_DRAINING:
        refuse(e, o, DR_REFUSE_DRAINING, 3000, "draining");
        return;
    case FAKE_LOST_EARLY:
        finish(e, o, DR_FINISH_LOST, UINT32_MAX);
        return;
    default:
        break;
    }
    if (!o->accepted) {
        accept_it(e, o);
        return;
    }
    if (e->mode == FAKE_HANG) return;
    if (o->max_tokens == 0) {
        finish(e, o, DR_FINISH_LENGTH, UINT32_MAX);
        return;
    }
    if (o->n_done == 2 && e->mode >= FAKE_LOST) {
        finish(e, o,
               e->mode == FAKE_LOST      ? DR_FINISH_LOST
               : e->mode == FAKE_NUMERIC ? DR_FINISH_NUMERIC
                                         : DR_FINISH_CANCELLED,
               UINT32_MAX);
        return;
    }
    uint32_t id = e->script[o->n_done < e->n_script ? o->n_done : e->n_script - 1];
    give(e, o, id, false, o->n_done++);
    if (is_end(o, id))
        finish(e, o, DR_FINISH_STOP, id);
    else if (o->n_done >= o->max_tokens)
        finish(e, o, DR_FINISH_LENGTH, UINT32_MAX);
}

static void *run(void *arg) {
    struct dr_engine *e = arg;
    pthread_mutex_lock(&e->lock);
    while (!e->stopping || e->n_open) {
        for (int i = 0; i < FAKE_OPEN_MAX; i++) {
            if (!e->open[i].used) continue;
            if (e->stopping) e->open[i].cancelled = true;
            step(e, &e->open[i]);
        }
        uint64_t ns = e->step_ns;
        pthread_mutex_unlock(&e->lock);
        dr_clock_sleep_ns(ns);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

struct dr_engine *fake_create(void) {
    struct dr_engine *e = calloc(1, sizeof *e);
    DR_ASSERT(e);
    e->state = DR_ENGINE_READY;
    e->n_script = 1;
    e->step_ns = 500000;
    pthread_mutex_init(&e->lock, NULL);
    DR_ASSERT(pthread_create(&e->thread, NULL, run, e) == 0);
    return e;
}

void fake_set_pace(struct dr_engine *e, uint64_t step_ns) {
    pthread_mutex_lock(&e->lock);
    e->step_ns = step_ns;
    pthread_mutex_unlock(&e->lock);
}

void fake_set(struct dr_engine *e, enum fake_mode mode, const uint32_t *script, int32_t n) {
    pthread_mutex_lock(&e->lock);
    e->mode = mode;
    if (n) memcpy(e->script, script, (size_t)n * sizeof *script);
    if (n) e->n_script = n;
    pthread_mutex_unlock(&e->lock);
}

void fake_state(struct dr_engine *e, enum dr_engine_state state) {
    pthread_mutex_lock(&e->lock);
    e->state = state;
    pthread_mutex_unlock(&e->lock);
}

void fake_full(struct dr_engine *e, bool full) {
    pthread_mutex_lock(&e->lock);
    e->full = full;
    pthread_mutex_unlock(&e->lock);
}

int64_t fake_submitted(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    int64_t n = e->n_submitted;
    pthread_mutex_unlock(&e->lock);
    return n;
}

int64_t fake_cancelled(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    int64_t n = e->n_cancelled;
    pthread_mutex_unlock(&e->lock);
    return n;
}

int32_t fake_open(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    int32_t n = e->n_open;
    pthread_mutex_unlock(&e->lock);
    return n;
}

/* ---- engine.h ---- */

dr_status dr_engine_create(struct dr_options *options, const struct dr_config *config,
                           struct dr_engine **out) {
    (void)options;
    (void)config;
    (void)out;
    return dr_fail(DR_EINTERNAL, "the fake engine is made by fake_create");
}

dr_status dr_engine_wait(struct dr_engine *e, uint64_t timeout_ns) {
    (void)e;
    (void)timeout_ns;
    return dr_ok();
}

dr_status dr_engine_submit(struct dr_engine *e, const struct dr_submit *s,
                           const struct dr_engine_sink *sink) {
    dr_status st = dr_ok();
    pthread_mutex_lock(&e->lock);
    int i = 0;
    while (i < FAKE_OPEN_MAX && e->open[i].used) i++;
    if (e->mode == FAKE_DOWN || i == FAKE_OPEN_MAX) {
        st = dr_fail(DR_EPEER, "the cluster failed five times in ten minutes and stays down");
    } else {
        struct fake_open *o = &e->open[i];
        *o = (struct fake_open){.used = true,
                                .request = s->request,
                                .sink = *sink,
                                .n_prompt = s->n_ids,
                                .n_end = s->n_end,
                                .max_tokens = s->max_tokens,
                                .n_top = s->sampling.n_top,
                                .prompt_top = s->prompt_top};
        memcpy(o->end_id, s->end_ids, (size_t)s->n_end * sizeof *s->end_ids);
        o->prompt = malloc((size_t)s->n_ids * sizeof *o->prompt);
        DR_ASSERT(o->prompt);
        memcpy(o->prompt, s->ids, (size_t)s->n_ids * sizeof *o->prompt);
        e->n_open++;
        e->last = *s;
        e->last_bias = s->n_bias ? s->bias[0] : (struct dr_bias){0};
        e->seed[e->n_submitted++ % 8] = s->sampling.seed;
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}

uint64_t dr_engine_next_id(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    uint64_t id = ++e->next_id;
    pthread_mutex_unlock(&e->lock);
    return id;
}

bool dr_engine_full(struct dr_engine *e, struct dr_refused *out) {
    pthread_mutex_lock(&e->lock);
    const bool full = e->full;
    pthread_mutex_unlock(&e->lock);
    if (full) *out = (struct dr_refused){.reason = DR_REFUSE_FULL, .retry_ms = 2001, .text = "256 wait"};
    return full;
}

void dr_engine_reset_prefix(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->n_reset++;
    pthread_mutex_unlock(&e->lock);
}

void dr_engine_cancel(struct dr_engine *e, uint64_t request) {
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < FAKE_OPEN_MAX; i++)
        if (e->open[i].used && e->open[i].request == request) e->open[i].cancelled = true;
    pthread_mutex_unlock(&e->lock);
}

void dr_engine_facts(struct dr_engine *e, struct dr_engine_facts *out) {
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&e->lock);
    out->state = e->state;
    if (e->state != DR_ENGINE_READY) snprintf(out->reason, sizeof out->reason, "rank 1 on \"n1\" died");
    out->epoch = 0xabcdef;
    out->layout = (struct dr_layout){.tp = 2, .pp = 1, .c = 2};
    out->n_rank = 2;
    for (int i = 0; i < 2; i++)
        out->rank[i] = (struct dr_rank_state){
            .rank = i, .pid = 100 + i, .host = "n0", .weights_bytes = 7, .cache_bytes = 8};
    out->stats.running = e->n_open;
    out->stats.pages_total = 100;
    out->stats.pages_used = 25;
    out->open_requests = e->n_open;
    pthread_mutex_unlock(&e->lock);
}

void dr_engine_drain(struct dr_engine *e, uint64_t timeout_ns) {
    (void)e;
    (void)timeout_ns;
}

void dr_engine_destroy(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    pthread_mutex_destroy(&e->lock);
    free(e);
}
