/* run.c - see run.h.
 * In:   calls of the engine thread.      Out: struct dr_bench_run.
 * Owns: see run.h.
 * Why:  see run.h. */
#include "gateway/bench/run.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/size.h"

static const uint64_t second = 1000000000u, slice = 100000000u, reports_wait = 30 * 1000000000u;

struct sequence {
    struct dr_bench_runner *runner;
    uint64_t request;
    int32_t n; /* ids so far */
};

struct dr_bench_runner {
    struct dr_engine *engine;
    struct dr_interrupt *interrupt;
    int32_t n_rank, n_stage, vocab, context;
    uint64_t seed, salt;       /* of the run's prompts: only requests of one salt find each other's tokens */
    struct dr_bench_case last; /* the case of the run before */

    pthread_mutex_t lock; /* guards everything below while a run is under way */
    pthread_cond_t news;
    struct sequence *seq;                     /* [batch] owned */
    uint32_t *ids;                            /* [batch, draws] owned */
    int32_t batch, draws, n_started, n_ended; /* started: has an id */
    enum dr_finish finish; /* of a sequence that ended otherwise than by its length; LENGTH: none */
    bool refused, broken;
    char why[DR_TEXT_MAX + 1];
    uint64_t first_step; /* number of step[0] */
    struct dr_bench_step *step;
    struct dr_bench_rank_step *report;
    int32_t n_step, room;
    int64_t rows, prompt_rows; /* of the steps that have news; rows: of prompts, and tokens drawn */
    int64_t found;             /* prompt tokens that were in the cache */
    int32_t n_open;            /* steps that lack news or reports */
};

/* ---- engine thread ---- */

/* Lock held. The step of this number; NULL: no memory, or a number that cannot be. */
static struct dr_bench_step *step_of(struct dr_bench_runner *r, uint64_t number) {
    if (r->n_step == 0) r->first_step = number;
    if (number < r->first_step || number - r->first_step > INT32_MAX / 2) return NULL;
    const int32_t at = (int32_t)(number - r->first_step);
    if (at >= r->room) {
        const int32_t room = 2 * at + 64;
        struct dr_bench_step *step = realloc(r->step, (size_t)room * sizeof *step);
        if (step) r->step = step;
        struct dr_bench_rank_step *report =
            realloc(r->report, (size_t)room * (size_t)r->n_rank * sizeof *report);
        if (report) r->report = report;
        if (!step || !report) return NULL;
        r->room = room;
    }
    for (; r->n_step <= at; r->n_step++, r->n_open++)
        r->step[r->n_step] = (struct dr_bench_step){.timed = false};
    return &r->step[at];
}

static void settle(struct dr_bench_runner *r, const struct dr_bench_step *s) {
    if (s->has_news && s->n_report == r->n_rank) r->n_open--;
    pthread_cond_broadcast(&r->news);
}

static void on_step(void *arg, const struct dr_step_news *news) {
    struct dr_bench_runner *r = arg;
    pthread_mutex_lock(&r->lock);
    struct dr_bench_step *s = step_of(r, news->step);
    if (!s || s->has_news) {
        r->broken = true;
    } else {
        s->news = *news;
        s->has_news = true;
        r->rows += news->prompt_rows + news->n_drawn;
        r->prompt_rows += news->prompt_rows;
        settle(r, s);
    }
    pthread_mutex_unlock(&r->lock);
}

static void on_report(void *arg, const struct dr_step_report *from, uint64_t heard_ns) {
    struct dr_bench_runner *r = arg;
    pthread_mutex_lock(&r->lock);
    struct dr_bench_step *s = step_of(r, from->step);
    if (!s || from->rank >= r->n_rank || s->n_report == r->n_rank) {
        r->broken = true;
    } else {
        struct dr_bench_rank_step *to =
            &r->report[(from->step - r->first_step) * (uint64_t)r->n_rank + (uint64_t)from->rank];
        *to = (struct dr_bench_rank_step){
            .begin_ns = from->begin_ns,
            .end_ns = from->end_ns,
            .heard_ns = heard_ns,
            .wait_ns = from->wait_ns,
            .peak_bytes = from->peak_bytes,
        };
        memcpy(to->part_ns, from->part_ns, sizeof to->part_ns);
        memcpy(to->wait_kind_ns, from->wait_kind_ns, sizeof to->wait_kind_ns);
        memcpy(to->bytes, from->bytes, sizeof to->bytes);
        s->n_report++;
        settle(r, s);
    }
    pthread_mutex_unlock(&r->lock);
}

static void on_tokens(void *arg, const struct dr_token_news *news) {
    struct sequence *q = arg;
    struct dr_bench_runner *r = q->runner;
    pthread_mutex_lock(&r->lock);
    r->n_started += q->n == 0;
    for (int32_t i = 0; i < news->n; i++) {
        if (q->n == r->draws)
            r->broken = true;
        else
            r->ids[(q - r->seq) * r->draws + q->n++] = news->ids[i];
    }
    pthread_mutex_unlock(&r->lock);
}

static void on_done(void *arg, const struct dr_done *done) {
    struct dr_bench_runner *r = ((struct sequence *)arg)->runner;
    pthread_mutex_lock(&r->lock);
    if (done->finish != DR_FINISH_LENGTH) r->finish = done->finish;
    r->found += done->n_cached;
    r->n_ended++;
    pthread_cond_broadcast(&r->news);
    pthread_mutex_unlock(&r->lock);
}

static void on_refused(void *arg, const struct dr_refused *refused) {
    struct dr_bench_runner *r = ((struct sequence *)arg)->runner;
    pthread_mutex_lock(&r->lock);
    r->refused = true;
    snprintf(r->why, sizeof r->why, "%s", refused->text);
    r->n_ended++;
    pthread_cond_broadcast(&r->news);
    pthread_mutex_unlock(&r->lock);
}

/* ---- life ---- */

dr_status dr_bench_runner_create(struct dr_engine *e, struct dr_interrupt *interrupt,
                                 const struct dr_layout *l, int32_t vocab, uint64_t seed,
                                 struct dr_bench_runner **out) {
    struct dr_bench_runner *r = calloc(1, sizeof *r);
    pthread_condattr_t attr;
    if (!r) return dr_fail(DR_EFULL, "no memory for a bench");
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->news, &attr);
    pthread_condattr_destroy(&attr);
    r->engine = e;
    r->interrupt = interrupt;
    r->n_rank = l->n_rank;
    r->n_stage = l->pp;
    r->context = l->context;
    r->vocab = vocab;
    r->seed = seed;
    const struct dr_step_sink sink = {.on_step = on_step, .on_report = on_report, .arg = r};
    dr_engine_watch(e, DR_WATCH_STEPS | DR_WATCH_PREFILL_FIRST, &sink);
    *out = r;
    return dr_ok();
}

void dr_bench_runner_destroy(struct dr_bench_runner *r) {
    if (!r) return;
    pthread_cond_destroy(&r->news);
    pthread_mutex_destroy(&r->lock);
    free(r->seq);
    free(r->ids);
    free(r->step);
    free(r->report);
    free(r);
}

/* ---- a run ---- */

/* A repetition of a generation case needs its prompts in the cache, not the work of getting them there; its
 * first run does that work, so that ids are checked with prompts computed in this very batch. What a prefill
 * case measures is never found. */
static bool repeats(const struct dr_bench_case *last, const struct dr_bench_case *c) {
    return c->prompt == 0 && last->prompt == 0 && last->gen == c->gen && last->depth == c->depth &&
           last->batch == c->batch;
}

static dr_status prepare(struct dr_bench_runner *r, const struct dr_bench_case *c) {
    const int32_t draws = dr_bench_case_draws(c);
    struct sequence *seq = calloc((size_t)c->batch, sizeof *seq);
    uint32_t *ids = calloc((size_t)c->batch * (size_t)draws, sizeof *ids);
    if (!seq || !ids) {
        free(seq);
        free(ids);
        return dr_fail(DR_EFULL, "no memory for %d sequences", c->batch);
    }
    pthread_mutex_lock(&r->lock);
    free(r->seq);
    free(r->ids);
    r->seq = seq;
    r->ids = ids;
    r->batch = c->batch;
    r->draws = draws;
    r->n_started = r->n_ended = r->n_step = r->n_open = 0;
    r->rows = r->prompt_rows = r->found = 0;
    if (!repeats(&r->last, c)) r->salt++;
    r->last = *c;
    r->finish = DR_FINISH_LENGTH;
    r->refused = r->broken = false;
    for (int32_t i = 0; i < c->batch; i++)
        seq[i] = (struct sequence){.runner = r, .request = dr_engine_next_id(r->engine)};
    pthread_mutex_unlock(&r->lock);
    return dr_ok();
}

static dr_status submit(struct dr_bench_runner *r, const struct dr_bench_case *c, int32_t i,
                        uint32_t *prompt) {
    const int32_t n = dr_bench_case_prompt(c);
    for (int32_t p = 0; p < n; p++) prompt[p] = dr_bench_id(r->seed, i, p, r->vocab);
    struct dr_submit s = {
        .request = r->seq[i].request,
        .n_ids = n,
        .ids = prompt,
        .max_tokens = r->draws,
        .ignore_eos = true,
        .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
        .prompt_top = -1,
    };
    snprintf(s.salt, sizeof s.salt, "%" PRIu64, r->salt);
    const struct dr_engine_sink sink = {
        .on_tokens = on_tokens, .on_done = on_done, .on_refused = on_refused, .arg = &r->seq[i]};
    return dr_engine_submit(r->engine, &s, &sink);
}

/* Lock held. */
static void doze(struct dr_bench_runner *r) {
    const uint64_t until = dr_clock_ns() + slice;
    const struct timespec t = {.tv_sec = (time_t)(until / second), .tv_nsec = (long)(until % second)};
    pthread_cond_timedwait(&r->news, &r->lock, &t);
}

/* Until the first n sequences have ended; after Ctrl-C they are cancelled, and waited for all the same: their
 * callbacks point into the runner. */
static void wait_ended(struct dr_bench_runner *r, int32_t n, bool cancel) {
    bool cancelled = false;
    pthread_mutex_lock(&r->lock);
    while (r->n_ended < n) {
        const bool now = !cancelled && (cancel || dr_interrupt_poll(r->interrupt, 0) > 0);
        if (now) {
            cancelled = true;
            pthread_mutex_unlock(&r->lock);
            for (int32_t i = 0; i < n; i++) dr_engine_cancel(r->engine, r->seq[i].request);
            pthread_mutex_lock(&r->lock);
            continue;
        }
        doze(r);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Until the queue takes a prompt of n tokens behind the first `sent` sequences, by the limits that admission
 * holds to (proto/limits.h). There is always work left meanwhile, so the cluster does not notice. False:
 * Ctrl-C, or something went wrong. */
static bool wait_room(struct dr_bench_runner *r, int32_t n, int32_t sent) {
    bool room = false, on = true;
    pthread_mutex_lock(&r->lock);
    while (!room && on) {
        const int64_t left = (int64_t)sent * n - r->prompt_rows; /* more when some were found */
        const int64_t unstarted = (int64_t)(sent - r->n_started) * n;
        const int64_t waiting = left < unstarted ? left : unstarted;
        room = waiting + n <= dr_waiting_tokens_most(r->context) && sent - r->n_started < DR_WAITING_MAX;
        on = !r->refused && !r->broken && r->finish == DR_FINISH_LENGTH &&
             dr_interrupt_poll(r->interrupt, 0) == 0;
        if (!room && on) doze(r);
    }
    pthread_mutex_unlock(&r->lock);
    return on;
}

static dr_status wait_reports(struct dr_bench_runner *r, int64_t rows) {
    const uint64_t until = dr_clock_ns() + reports_wait;
    pthread_mutex_lock(&r->lock);
    while (!r->broken && (r->rows < rows || r->n_open > 0) && dr_clock_ns() < until) doze(r);
    const bool broken = r->broken, done = r->rows >= rows && r->n_open == 0;
    const int64_t found = r->rows;
    const int32_t open = r->n_open;
    pthread_mutex_unlock(&r->lock);
    if (broken) return dr_fail(DR_EREQUEST, "the cluster's reports of this run are not of this run");
    if (!done)
        return dr_fail(DR_ETIME,
                       "30 s after the last token %d steps lack reports; they had %" PRId64
                       " rows, expected %" PRId64,
                       open, found, rows);
    return dr_ok();
}

static dr_status judge(const struct dr_bench_runner *r, const struct dr_bench_case *c) {
    if (r->refused) return dr_fail(DR_EREQUEST, "a sequence was refused: %s", r->why);
    if (r->finish == DR_FINISH_LOST) return dr_fail(DR_EPEER, "the cluster was lost");
    if (r->finish == DR_FINISH_NUMERIC)
        return dr_fail(DR_EREQUEST, "the model's logits are no numbers (infinite or NaN)");
    if (r->finish != DR_FINISH_LENGTH) return dr_fail(DR_EREQUEST, "a sequence ended before its length");
    if (c->prompt && r->found)
        return dr_fail(DR_EREQUEST,
                       "%" PRId64 " prompt tokens were found in the cache, expected none: no "
                       "time of computing them",
                       r->found);
    for (int32_t i = 0; i < r->batch; i++)
        if (r->seq[i].n != r->draws)
            return dr_fail(DR_EREQUEST, "sequence %d has %d ids, expected %d", i, r->seq[i].n, r->draws);
    return dr_ok();
}

/* FNV-1a over little-endian ids. */
static uint64_t digest(const uint32_t *ids, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 32; b += 8) h = (h ^ (ids[i] >> b & 255)) * 0x100000001b3u;
    return h;
}

static dr_status run(struct dr_bench_runner *r, const struct dr_bench_case *c, uint32_t *prompt,
                     struct dr_bench_run *out) {
    const uint64_t submit_ns = dr_clock_ns();
    int32_t n = 0;
    dr_status st = dr_ok();
    while (st.code == DR_OK && n < c->batch && wait_room(r, dr_bench_case_prompt(c), n)) {
        st = submit(r, c, n, prompt);
        n += st.code == DR_OK;
    }
    if (st.code != DR_OK) {
        char text[256];
        snprintf(text, sizeof text, "%s", dr_error_text());
        wait_ended(r, n, true);
        return dr_fail(st.code, "%s", text);
    }
    wait_ended(r, n, n < c->batch);
    if (dr_interrupt_poll(r->interrupt, 0) > 0) return dr_fail(DR_ECANCEL, "interrupted");
    DR_TRY(judge(r, c));
    DR_TRY(wait_reports(r, (int64_t)c->batch * (dr_bench_case_prompt(c) + r->draws - 1) - r->found));
    *out = (struct dr_bench_run){
        .step = r->step,
        .report = r->report,
        .n_step = r->n_step,
        .n_rank = r->n_rank,
        .n_stage = r->n_stage,
        .digest = digest(r->ids, (size_t)r->batch * (size_t)r->draws),
        .digest_one = digest(r->ids, (size_t)r->draws),
    };
    return dr_bench_run_time(c, submit_ns, r->step, out);
}

dr_status dr_bench_runner_run(struct dr_bench_runner *r, const struct dr_bench_case *c,
                              struct dr_bench_run *out) {
    uint32_t *prompt = calloc((size_t)dr_bench_case_prompt(c), sizeof *prompt);
    if (!prompt) return dr_fail(DR_EFULL, "no memory for a prompt");
    dr_status st = prepare(r, c);
    if (st.code == DR_OK) st = run(r, c, prompt, out);
    free(prompt);
    return st;
}

/* ---- what a run is worth ---- */

dr_status dr_bench_run_check(const struct dr_bench_run *run, uint64_t alone, uint64_t *first) {
    if (run->digest_one != alone)
        return dr_fail(DR_EREQUEST,
                       "the first sequence gave ids with digest %016" PRIx64 " in its batch, %016" PRIx64
                       " alone: the answer depends on the batch",
                       run->digest_one, alone);
    if (!*first) *first = run->digest;
    if (run->digest == *first) return dr_ok();
    return dr_fail(DR_EREQUEST,
                   "a repetition gave ids with digest %016" PRIx64 ", the first run %016" PRIx64
                   ": the answer changes from run to run",
                   run->digest, *first);
}

/* Prefill: the steps with prompt rows that come when the depth is filled. */
static bool timed_prefill(const struct dr_bench_case *c, const struct dr_step_news *n, int64_t filled) {
    return n->prompt_rows > 0 && filled >= c->depth;
}

/* Generation: the steps in which all sequences, and nothing else, take part: with several stages, each in one
 * step of as many. */
static bool timed_generation(const struct dr_bench_case *c, const struct dr_step_news *n, int32_t n_stage) {
    const int32_t least = dr_max_i32(1, c->batch / dr_max_i32(1, n_stage));
    return n->prompt_rows == 0 && n->n_decode >= least;
}

dr_status dr_bench_run_time(const struct dr_bench_case *c, uint64_t submit_ns, struct dr_bench_step *step,
                            struct dr_bench_run *run) {
    int64_t filled = 0;
    int32_t last = -1;
    char name[64];
    for (int32_t i = 0; i < run->n_step; i++) {
        const struct dr_step_news *n = &step[i].news;
        const bool timed = c->prompt ? timed_prefill(c, n, filled) : timed_generation(c, n, run->n_stage);
        filled += n->prompt_rows;
        if (!timed || (last >= 0 && last != i - 1)) continue; /* one stretch without gaps */
        if (last < 0) run->begin_ns = i > 0 ? step[i - 1].news.done_ns : submit_ns;
        step[i].timed = true;
        run->n_timed++;
        run->tokens += c->prompt ? n->prompt_rows : n->n_drawn;
        run->end_ns = n->done_ns;
        last = i;
    }
    const int64_t expected = c->prompt ? (int64_t)c->batch * c->prompt : 1;
    if (run->tokens < expected)
        return dr_fail(DR_EREQUEST,
                       "%s: the steps timed hold %" PRId64 " tokens, expected %" PRId64
                       " or more: the sequences did not run together",
                       dr_bench_case_name(c, name), run->tokens, expected);
    return dr_ok();
}
