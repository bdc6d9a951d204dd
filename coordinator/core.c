/* core.c - see core.h.
 * In:   calls in order.      Out: plans, events.
 * Owns: all parts.
 * Why:  the order in which the parts meet is written here once. */
#include "coordinator/core.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "coordinator/admission.h"
#include "coordinator/collector.h"
#include "coordinator/plan/pace.h"
#include "coordinator/plan/plan.h"

static const uint64_t STEP_DEADLINE_LEAST_NS = 5000000000U; /* contracts: max(5 s, 8 x predicted) */
static const double STEP_DEADLINE_FACTOR = 8.0;
enum { RETRY_LEAST_MS = 250, RETRY_MOST_MS = 30000, RETRY_FIRST_MS = 1000 };

struct dr_core {
    struct dr_config config;
    struct dr_layout layout;
    uint64_t epoch, step;
    double deadline_scale;
    bool draining, lost;
    struct dr_book book;
    struct dr_batcher batcher;
    struct dr_planner planner;
    struct dr_collector collector;
    struct dr_pace pace;
    struct dr_drafts drafts;
    uint64_t next_deadline_ns; /* no open request has an earlier one; UINT64_MAX: none has one */
    uint64_t last_done_ns, done_gap_ns;
    struct dr_stats stats; /* counters */
    uint64_t last_result_ns;
    struct dr_step_news last;    /* the step of the last result */
    struct dr_refused refused;   /* of the event under way */
    struct dr_core_event *event; /* [event_max] owned */
    int32_t n_event, event_at, event_max;
};

static dr_status init_parts(struct dr_core *core, const struct dr_core_setup *s) {
    core->config = *s->config;
    core->layout = *s->layout;
    core->epoch = s->epoch;
    core->deadline_scale = s->deadline_scale;
    core->next_deadline_ns = UINT64_MAX;
    DR_TRY(dr_book_init(&core->book, &core->config, &core->layout, s->reuse));
    DR_TRY(dr_batcher_init(&core->batcher, &core->book, &core->pace, &core->drafts, s->step_ns));
    DR_TRY(dr_planner_init(&core->planner, &core->config, &core->book));
    const int32_t under_way = core->layout.pp == 1 ? 1 : core->layout.pp + 1;
    DR_TRY(dr_collector_init(&core->collector, &core->config, &core->book, under_way));
    dr_pace_init(&core->pace, &core->config, &core->layout);
    dr_drafts_init(&core->drafts, s->drafts);
    /* between two drains: one DONE for each open request, TOKENS, ACCEPTED or REFUSED */
    core->event_max = core->book.pool.n + 4;
    core->event = calloc((size_t)core->event_max, sizeof *core->event);
    if (!core->event) return dr_fail(DR_EFULL, "coordinator: no memory for %d events", core->event_max);
    return dr_ok();
}

dr_status dr_core_create(const struct dr_core_setup *setup, struct dr_core **out) {
    struct dr_core *core = calloc(1, sizeof *core);
    if (!core) return dr_fail(DR_EFULL, "coordinator: no memory");
    dr_status st = init_parts(core, setup);
    if (st.code != DR_OK) {
        dr_core_destroy(core);
        return st;
    }
    *out = core;
    return dr_ok();
}

void dr_core_destroy(struct dr_core *core) {
    if (!core) return;
    free(core->event);
    dr_collector_fini(&core->collector);
    dr_planner_fini(&core->planner);
    dr_batcher_fini(&core->batcher);
    dr_book_fini(&core->book);
    free(core);
}

static void push(struct dr_core *core, const struct dr_core_event *e) {
    DR_ASSERT(core->n_event < core->event_max); /* the caller did not drain */
    core->event[core->n_event++] = *e;
}

bool dr_core_event(struct dr_core *core, struct dr_core_event *out) {
    if (core->event_at == core->n_event) {
        core->event_at = core->n_event = 0;
        return false;
    }
    *out = core->event[core->event_at++];
    return true;
}

/* Recent time between two ends of requests: when a place in the queue should be free again. */
static uint32_t retry_ms(const struct dr_core *core) {
    uint64_t ms = core->done_gap_ns / 1000000U;
    if (core->done_gap_ns == 0) return RETRY_FIRST_MS;
    return (uint32_t)(ms < RETRY_LEAST_MS ? RETRY_LEAST_MS : ms > RETRY_MOST_MS ? RETRY_MOST_MS : ms);
}

static struct dr_done done_of(const struct dr_request *r, uint64_t now_ns, enum dr_finish finish,
                              uint32_t stop_id) {
    struct dr_done done = {
        .request = r->id,
        .finish = finish,
        .stop_id = stop_id,
        .n_prompt = r->n_prompt,
        .n_output = dr_request_output(r),
        .queue_ns = (r->start_ns ? r->start_ns : now_ns) - r->submit_ns,
        .n_cached = r->n_cached,
        .prefill_ns = r->first_ns ? r->first_ns - r->start_ns : 0,
        .decode_ns = r->first_ns ? r->last_ns - r->first_ns : 0,
    };
    memcpy(done.drafted, r->drafted, sizeof done.drafted);
    memcpy(done.accepted, r->accepted, sizeof done.accepted);
    return done;
}

/* The only way out for a request. */
static void end_request(struct dr_core *core, uint64_t now_ns, struct dr_request *r, enum dr_finish finish,
                        uint32_t stop_id) {
    struct dr_core_event e = {.type = DR_MSG_DONE, .done = done_of(r, now_ns, finish, stop_id)};
    push(core, &e);
    if (finish == DR_FINISH_CANCELLED) core->stats.cancelled++;
    if (core->last_done_ns) {
        uint64_t gap = now_ns - core->last_done_ns;
        core->done_gap_ns = core->done_gap_ns ? (core->done_gap_ns * 7 + gap) / 8 : gap;
    }
    core->last_done_ns = now_ns;
    dr_collector_forget(&core->collector, r);
    dr_book_end(&core->book, r);
}

void dr_core_submit(struct dr_core *core, uint64_t now_ns, const struct dr_submit *submit) {
    struct dr_admission a = {
        .config = &core->config,
        .layout = &core->layout,
        .book = &core->book,
        .draining = core->draining,
        .retry_ms = retry_ms(core),
    };
    DR_ASSERT(!core->lost && core->n_event == 0);
    struct dr_core_event e = {.type = DR_MSG_ACCEPTED, .request = submit->request};
    if (!dr_admission_check(&a, submit, &core->refused)) {
        e = (struct dr_core_event){
            .type = DR_MSG_REFUSED, .request = submit->request, .refused = &core->refused};
        push(core, &e);
        return;
    }
    struct dr_request *r = dr_book_open(&core->book);
    DR_ASSERT(r != NULL); /* fewer than DR_WAITING_MAX wait, so one of the records is free */
    dr_admission_fill(&a, submit, now_ns, r);
    dr_book_accept(&core->book, r, submit->salt);
    if (r->deadline_ns && r->deadline_ns < core->next_deadline_ns) core->next_deadline_ns = r->deadline_ns;
    push(core, &e);
}

void dr_core_cancel(struct dr_core *core, uint64_t now_ns, uint64_t request) {
    struct dr_request *r = dr_pool_find(&core->book.pool, request);
    if (r) end_request(core, now_ns, r, DR_FINISH_CANCELLED, UINT32_MAX);
}

void dr_core_reset_prefix(struct dr_core *core) {
    dr_book_reset(&core->book);
}

void dr_core_drain(struct dr_core *core) {
    core->draining = true;
}

void dr_core_lose(struct dr_core *core, uint64_t now_ns) {
    for (int32_t i = 0; i < core->book.pool.n; i++) {
        struct dr_request *r = &core->book.pool.request[i];
        if (r->state != DR_REQUEST_FREE) end_request(core, now_ns, r, DR_FINISH_LOST, UINT32_MAX);
    }
    core->lost = true;
}

static void expire(struct dr_core *core, uint64_t now_ns) {
    if (now_ns < core->next_deadline_ns) return;
    core->next_deadline_ns = UINT64_MAX;
    for (int32_t i = 0; i < core->book.pool.n; i++) {
        struct dr_request *r = &core->book.pool.request[i];
        if (r->state == DR_REQUEST_FREE || r->deadline_ns == 0) continue;
        if (r->deadline_ns <= now_ns)
            end_request(core, now_ns, r, DR_FINISH_DEADLINE, UINT32_MAX);
        else if (r->deadline_ns < core->next_deadline_ns)
            core->next_deadline_ns = r->deadline_ns;
    }
}

/* Fills in the flight's times from the shape of the plan just built. Those before it go first. */
static void schedule_flight(struct dr_core *core, uint64_t now_ns, struct dr_flight *f) {
    const struct dr_step_shape *shape = &core->planner.step_shape;
    const int32_t turns = core->collector.n_flight;
    double limit = STEP_DEADLINE_FACTOR * turns * (double)dr_pace_longest_ns(&core->pace, shape);
    if (limit < (double)STEP_DEADLINE_LEAST_NS) limit = (double)STEP_DEADLINE_LEAST_NS;
    f->sent_ns = now_ns;
    f->deadline_ns = now_ns + (uint64_t)(limit * core->deadline_scale);
    f->expected_ns = (uint64_t)turns * dr_pace_expected_ns(&core->pace, shape);
    f->work = dr_pace_work(&core->pace, shape);
}

const struct dr_step_plan *dr_core_plan(struct dr_core *core, uint64_t now_ns) {
    if (core->lost) return NULL;
    expire(core, now_ns);
    if (!dr_collector_free(&core->collector)) return NULL;
    const int32_t under_way = core->collector.n_flight;
    const struct dr_draft *d = dr_batcher_draft(&core->batcher, under_way);
    while (d->stuck) { /* the cache has no place for it, and a frame none for its penalties: its answer ends
                          here */
        end_request(core, now_ns, d->stuck, DR_FINISH_LENGTH, UINT32_MAX);
        d = dr_batcher_draft(&core->batcher, under_way);
    }
    if (d->n == 0) return NULL;
    const struct dr_step_plan *plan = dr_planner_build(&core->planner, d, core->epoch, ++core->step);
    for (int32_t i = 0; i < d->n; i++)
        if (d->item[i].request->start_ns == 0) d->item[i].request->start_ns = now_ns;
    schedule_flight(core, now_ns, dr_collector_begin(&core->collector, d, core->step));
    return plan;
}

/* The step is over: whoever ended in it goes. */
static void complete(struct dr_core *core, uint64_t now_ns) {
    struct dr_collector *c = &core->collector;
    for (int32_t i = 0; i < c->n_ended; i++) {
        struct dr_ended e = c->ended[i];
        if (e.request) end_request(core, now_ns, e.request, e.finish, e.stop_id);
    }
    dr_collector_end(c);
}

/* A step says what drafts are worth if its decodes brought as many as are wanted now, but for a few near
 * their end, and prompts were the smaller part of it; their time is taken off by their work. */
static void measure_drafts(struct dr_core *core, const struct dr_flight *f, uint64_t ns) {
    const int32_t asked = f->wanted * f->n_decode;
    if (f->n_decode == 0 || f->n_verify > asked || f->n_verify < asked - asked / 4) return;
    const double work = f->decode_work + dr_pace_fixed(&core->pace);
    if (f->wanted != dr_drafts_wanted(&core->drafts, f->n_decode) || work < f->work / 2) return;
    dr_drafts_measured(&core->drafts, f->n_decode, (double)ns * work / f->work, f->n_drawn);
}

dr_status dr_core_result(struct dr_core *core, uint64_t now_ns, const struct dr_step_result *result) {
    struct dr_collector *c = &core->collector;
    if (result->epoch != core->epoch)
        return dr_fail(DR_EPROTO, "result of epoch %016llx, expected %016llx",
                       (unsigned long long)result->epoch, (unsigned long long)core->epoch);
    DR_TRY(dr_collector_result(c, result, now_ns));
    struct dr_stats *s = &core->stats;
    s->steps++;
    const struct dr_flight *f = dr_collector_oldest(c);
    s->prompt_tokens += (uint64_t)f->prompt_rows;
    s->last_step_ns = now_ns - f->sent_ns;
    core->last = (struct dr_step_news){
        .step = f->step,
        .sent_ns = f->sent_ns,
        .done_ns = now_ns,
        .prompt_rows = f->prompt_rows,
        .generated_rows = f->generated_rows,
        .n_decode = f->n_decode,
        .n_drawn = f->n_drawn,
    };
    /* behind another step it waited for that one */
    const uint64_t ns = now_ns - (f->sent_ns > core->last_result_ns ? f->sent_ns : core->last_result_ns);
    dr_pace_measured(&core->pace, f->work, ns);
    measure_drafts(core, f, ns);
    core->last_result_ns = now_ns;
    if (c->n_news > 0) {
        struct dr_core_event e = {.type = DR_MSG_TOKENS, .tokens = {.n = c->n_news, .news = c->news}};
        push(core, &e);
    }
    if (dr_collector_complete(c)) complete(core, now_ns);
    return dr_ok();
}

dr_status dr_core_report(struct dr_core *core, const struct dr_step_report *r) {
    if (r->rank < 0 || r->rank >= core->layout.n_rank)
        return dr_fail(DR_EPROTO, "report of rank %d, expected 0 to %d", r->rank, core->layout.n_rank - 1);
    if (r->code != DR_OK)
        return dr_fail(DR_EPEER, "rank %d, step %llu: %s", r->rank, (unsigned long long)r->step,
                       r->text[0] ? r->text : dr_code_text((enum dr_code)r->code));
    core->stats.step_wait_ns += r->wait_ns;
    for (int32_t i = 0; i < DR_BYTES_KIND_COUNT; i++) core->stats.bytes[i] += r->bytes[i];
    return dr_ok();
}

dr_status dr_core_logits(struct dr_core *core, uint64_t now_ns, struct dr_logits *l, bool *forward) {
    const struct dr_request *r = NULL;
    DR_TRY(dr_collector_logits(&core->collector, l, &r));
    *forward = r != NULL;
    l->request = r ? r->id : 0;
    if (dr_collector_complete(&core->collector)) complete(core, now_ns);
    return dr_ok();
}

uint64_t dr_core_step(const struct dr_core *core) {
    const struct dr_flight *f = dr_collector_oldest(&core->collector);
    return f ? f->step : core->step;
}

uint64_t dr_core_deadline_ns(const struct dr_core *core) {
    const struct dr_flight *f = dr_collector_oldest(&core->collector);
    return f ? f->deadline_ns : 0;
}

uint64_t dr_core_expected_ns(const struct dr_core *core) {
    const struct dr_flight *f = dr_collector_oldest(&core->collector);
    return f ? f->expected_ns : 0;
}

struct dr_step_news dr_core_last(const struct dr_core *core) {
    return core->last;
}

void dr_core_prefill_first(struct dr_core *core, bool on) {
    core->batcher.prefill_first = on;
}

bool dr_core_idle(const struct dr_core *core) {
    return dr_book_open_count(&core->book) == 0;
}

bool dr_core_wants_logits(const struct dr_core *core) {
    for (int32_t i = 0; i < core->book.n_running; i++)
        if (core->book.running[i]->logits) return true;
    return false;
}

void dr_core_stats(const struct dr_core *core, uint64_t now_ns, struct dr_stats *out) {
    const struct dr_book *b = &core->book;
    *out = core->stats;
    out->generated_tokens = core->collector.n_drawn;
    out->preempted = b->n_preempted;
    out->running = b->n_running;
    out->waiting = b->queue.n;
    out->waiting_tokens = (int32_t)(b->queue.n_tokens < INT32_MAX ? b->queue.n_tokens : INT32_MAX);
    out->pages_total = b->ledger.n_page;
    out->pages_used = b->ledger.n_page - dr_ledger_room(&b->ledger);
    out->pages_idle = b->ledger.prefix.n_idle;
    out->cached_tokens = b->n_cached;
    out->last_step_age_ns = core->last_result_ns ? now_ns - core->last_result_ns : 0;
}

const struct dr_book *dr_core_book(const struct dr_core *core) {
    return &core->book;
}
