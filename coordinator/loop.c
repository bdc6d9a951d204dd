/* loop.c - see loop.h.
 * In:   frames.      Out: frames.
 * Owns: core, roster, post.
 * Why:  one function shows the order of a turn: hear the workers, plan, tell the gateway, hear the gateway,
 * check, wait. */
#include "coordinator/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "coordinator/core.h"
#include "coordinator/post.h"
#include "coordinator/roster/roster.h"

enum { LINE = 512 };

static const uint64_t SECOND_NS = 1000000000U, CHECK_NS = 200000000U, JOIN_NS = 60 * 1000000000U;
/* Naps of contracts.md 7: a twentieth of the expected step while one runs; a millisecond when idle, longer
 * the longer it lasts. A frame of the gateway ends a nap at once; idle workers send beats only, which may lie
 * a tenth of a second. Where workers ring, a nap is only for deadlines. */
static const uint64_t NAP_LEAST_NS = 20000, NAP_STEP_MOST_NS = 2000000, NAP_IDLE_LEAST_NS = 1000000,
                      NAP_IDLE_MOST_NS = 100000000, NAP_RINGING_NS = 50000000;

struct loop {
    const struct dr_loop_setup *setup;
    struct dr_core *core;
    struct dr_roster roster;
    struct dr_post post;
    uint8_t *in;         /* [DR_FRAME_HEADER + DR_MPI_FRAME_MAX] owned: a frame of a worker */
    bool started, ready; /* Start sent; CLUSTER_READY sent */
    bool watched;        /* the gateway wants to see steps */
    bool full;           /* it was told last that nobody more may wait */
    bool ringing;        /* a worker's frame ends a nap */
    uint64_t begin_ns, now, next_check_ns, next_second_ns, idle_since_ns;
    int32_t fault_rank; /* whose fault it was; -1: nobody's in particular */
};

static dr_status drain_events(struct loop *l) {
    struct dr_core_event e;
    while (dr_core_event(l->core, &e)) DR_TRY(dr_post_event(&l->post, &e));
    return dr_ok();
}

/* ---- from the workers ---- */

static dr_status take_hello(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_hello hello;
    DR_TRY(dr_decode_hello(body, bytes, &l->post.scratch, &hello));
    DR_TRY(dr_roster_hello(&l->roster, rank, &hello));
    if (l->roster.n_joined < l->roster.n) return dr_ok();
    dr_log(DR_LOG_INFO, "ranks_joined", "n=%d layout=%016" PRIx64, l->roster.n, l->roster.layout_hash);
    l->started = true;
    return dr_post_start(&l->post, &l->roster);
}

static dr_status take_ready(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_ready ready;
    DR_TRY(dr_decode_ready(body, bytes, &l->post.scratch, &ready));
    if (!l->started) return dr_fail(DR_EPROTO, "rank %d is ready before the start", rank);
    DR_TRY(dr_roster_ready(&l->roster, rank, &ready));
    if (l->roster.n_ready < l->roster.n) return dr_ok();
    dr_log(DR_LOG_INFO, "cluster_ready", "ranks=%d ms=%" PRIu64, l->roster.n,
           (l->now - l->begin_ns) / 1000000U);
    l->ready = true;
    return dr_post_cluster_ready(&l->post, l->setup->layout, &l->roster);
}

static dr_status take_result(struct loop *l, const uint8_t *body, size_t bytes) {
    struct dr_step_result result;
    DR_TRY(dr_decode_step_result(body, bytes, &l->post.scratch, &result));
    DR_TRY(dr_core_result(l->core, l->now, &result));
    if (!l->watched) return dr_ok();
    const struct dr_step_news news = dr_core_last(l->core);
    return dr_post_step_news(&l->post, &news);
}

static dr_status take_report(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_step_report report;
    DR_TRY(dr_decode_step_report(body, bytes, &l->post.scratch, &report));
    if (report.epoch != l->setup->epoch)
        return dr_fail(DR_EPROTO, "a report of rank %d is of another epoch", rank);
    DR_TRY(dr_roster_report(&l->roster, rank, &report));
    if (report.code != DR_OK) l->fault_rank = rank;
    DR_TRY(dr_core_report(l->core, &report));
    return l->watched ? dr_post_forward(&l->post, l->in, DR_FRAME_HEADER + bytes) : dr_ok();
}

static dr_status take_logits(struct loop *l, const uint8_t *body, size_t bytes) {
    struct dr_logits logits;
    bool forward = false;
    DR_TRY(dr_decode_logits(body, bytes, &l->post.scratch, &logits));
    if (logits.epoch != l->setup->epoch)
        return dr_fail(DR_EPROTO, "logits of slot %d are of another epoch", logits.slot);
    DR_TRY(dr_core_logits(l->core, l->now, &logits, &forward));
    if (forward)
        DR_TRY(dr_post_logits(&l->post, &logits)); /* before the events that the last piece set free */
    return dr_ok();
}

static dr_status take_beat(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_beat beat;
    DR_TRY(dr_decode_beat(body, bytes, &l->post.scratch, &beat));
    if (beat.epoch != l->setup->epoch)
        return dr_fail(DR_EPROTO, "a beat of rank %d is of another epoch", rank);
    return dr_roster_beat(&l->roster, rank, &beat, l->now);
}

static dr_status take_progress(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_progress progress;
    DR_TRY(dr_decode_progress(body, bytes, &l->post.scratch, &progress));
    if (progress.rank != rank)
        return dr_fail(DR_EPROTO, "progress from rank %d says it is of rank %d", rank, progress.rank);
    return dr_post_progress(&l->post, &progress);
}

/* A worker's last words become the epoch's. */
static dr_status take_fault(struct loop *l, int32_t rank, const uint8_t *body, size_t bytes) {
    struct dr_fault_note note;
    DR_TRY(dr_decode_fault_note(body, bytes, &l->post.scratch, &note));
    l->fault_rank = rank;
    enum dr_code code = note.code > DR_OK && note.code < DR_CODE_COUNT ? (enum dr_code)note.code : DR_EPEER;
    return dr_fail(code, "rank %d: %s", rank, note.text[0] ? note.text : dr_code_text(code));
}

static dr_status worker_frame(struct loop *l, int32_t rank, const struct dr_frame *f, const uint8_t *body) {
    switch (f->type) {
    case DR_MSG_HELLO:
        return take_hello(l, rank, body, f->bytes);
    case DR_MSG_READY:
        return take_ready(l, rank, body, f->bytes);
    case DR_MSG_STEP_RESULT:
        return take_result(l, body, f->bytes);
    case DR_MSG_STEP_REPORT:
        return take_report(l, rank, body, f->bytes);
    case DR_MSG_LOGITS:
        return take_logits(l, body, f->bytes);
    case DR_MSG_BEAT:
        return take_beat(l, rank, body, f->bytes);
    case DR_MSG_PROGRESS:
        return take_progress(l, rank, body, f->bytes);
    case DR_MSG_FAULT:
        return take_fault(l, rank, body, f->bytes);
    default:
        return dr_fail(DR_EPROTO, "a worker does not send %s to the coordinator", dr_msg_name(f->type));
    }
}

/* Takes what has come; *any: something besides beats did. */
static dr_status hear_workers(struct loop *l, bool *any) {
    for (;;) {
        int32_t from = 0;
        size_t bytes = 0;
        DR_TRY(
            dr_channel_recv(l->setup->channel, l->in, DR_FRAME_HEADER + DR_MPI_FRAME_MAX, 0, &from, &bytes));
        if (bytes == 0) return dr_ok();
        struct dr_frame f;
        if (bytes < DR_FRAME_HEADER)
            return dr_fail(DR_EPROTO, "a frame of rank %d has %zu bytes", from - 1, bytes);
        dr_status st = dr_frame_read(l->in, DR_MPI_FRAME_MAX, &f);
        if (st.code != DR_OK) return dr_fail_within(st, "rank %d", from - 1);
        if (bytes != DR_FRAME_HEADER + (size_t)f.bytes || f.epoch != l->setup->epoch)
            return dr_fail(DR_EPROTO,
                           "rank %d: %s of %zu bytes, header says %u; epoch %016" PRIx64
                           ", expected %016" PRIx64,
                           from - 1, dr_msg_name(f.type), bytes, f.bytes, f.epoch, l->setup->epoch);
        *any = *any || f.type != DR_MSG_BEAT; /* a beat each second is no sign that more is near */
        dr_arena_rewind(&l->post.scratch, 0);
        DR_TRY(worker_frame(l, from - 1, &f, l->in + DR_FRAME_HEADER));
        if (f.type == DR_MSG_STEP_RESULT) return dr_ok(); /* the next plan goes first */
    }
}

/* ---- from the gateway ---- */

static dr_status take_submit(struct loop *l, const uint8_t *body, size_t bytes) {
    struct dr_submit submit;
    DR_TRY(dr_decode_submit(body, bytes, &l->post.scratch, &submit));
    dr_core_submit(l->core, l->now, &submit);
    return dr_ok();
}

static dr_status take_cancel(struct loop *l, const uint8_t *body, size_t bytes) {
    uint64_t request = 0;
    DR_TRY(dr_decode_word(body, bytes, &request));
    dr_core_cancel(l->core, l->now, request);
    return dr_ok();
}

static dr_status take_watch(struct loop *l, const uint8_t *body, size_t bytes) {
    uint64_t bits = 0;
    DR_TRY(dr_decode_word(body, bytes, &bits));
    if (bits & ~(uint64_t)(DR_WATCH_STEPS | DR_WATCH_PREFILL_FIRST))
        return dr_fail(DR_EPROTO, "WATCH: found bits %" PRIx64 ", known are %x", bits,
                       DR_WATCH_STEPS | DR_WATCH_PREFILL_FIRST);
    l->watched = (bits & DR_WATCH_STEPS) != 0;
    dr_core_prefill_first(l->core, (bits & DR_WATCH_PREFILL_FIRST) != 0);
    return dr_ok();
}

static dr_status gateway_frame(struct loop *l, const struct dr_frame *f, const uint8_t *body) {
    if (f->epoch != l->setup->epoch)
        return dr_fail(DR_EPROTO, "%s of epoch %016" PRIx64 " from the gateway, expected %016" PRIx64,
                       dr_msg_name(f->type), f->epoch, l->setup->epoch);
    switch (f->type) {
    case DR_MSG_SUBMIT:
        return take_submit(l, body, f->bytes);
    case DR_MSG_CANCEL:
        return take_cancel(l, body, f->bytes);
    case DR_MSG_DRAIN:
        dr_core_drain(l->core);
        return dr_ok();
    case DR_MSG_WATCH:
        return take_watch(l, body, f->bytes);
    case DR_MSG_RESET_PREFIX:
        dr_core_reset_prefix(l->core);
        return dr_ok();
    default:
        return dr_fail(DR_EPROTO, "the gateway does not send %s to a coordinator", dr_msg_name(f->type));
    }
}

static dr_status hear_gateway(struct loop *l, bool *any) {
    for (;;) {
        struct dr_frame f;
        const uint8_t *body = NULL;
        dr_status st = dr_link_recv(l->setup->link, &f, &body);
        if (st.code == DR_EPEER) {
            l->post.closed = true;
            return dr_ok();
        }
        DR_TRY(st);
        if (f.type == DR_MSG_NONE) return dr_ok();
        *any = true;
        dr_arena_rewind(&l->post.scratch, 0);
        DR_TRY(gateway_frame(l, &f, body));
        DR_TRY(drain_events(l));
    }
}

/* ---- a turn ---- */

/* Sends every plan that is due. Raw logits go up no faster than the gateway takes them. */
static dr_status plan(struct loop *l) {
    for (;;) {
        if (!l->ready || (dr_core_wants_logits(l->core) && dr_link_pending(l->setup->link))) return dr_ok();
        const struct dr_step_plan *next = dr_core_plan(l->core, l->now);
        if (next) {
            dr_arena_rewind(&l->post.scratch, 0);
            DR_TRY(dr_post_plan(&l->post, next));
        }
        DR_TRY(drain_events(l));
        if (!next) return dr_ok();
    }
}

static dr_status check_deadlines(struct loop *l) {
    char who[LINE];
    uint64_t step = dr_core_deadline_ns(l->core);
    uint64_t join = l->begin_ns + (l->setup->join_ns ? l->setup->join_ns : JOIN_NS);
    if (step != 0 && l->now > step)
        return dr_fail(DR_ETIME, "step %" PRIu64 " is not over after its deadline; no report from: %s",
                       dr_core_step(l->core),
                       dr_roster_unreported(&l->roster, dr_core_step(l->core), who, sizeof who));
    if (!l->started && l->now > join)
        return dr_fail(DR_ETIME, "after %" PRIu64 " ms these ranks have not joined: %s",
                       (l->now - l->begin_ns) / 1000000U,
                       dr_roster_below(&l->roster, DR_RANK_JOINED, who, sizeof who));
    return dr_ok();
}

static uint64_t oldest_beat_ns(const struct loop *l) {
    uint64_t age = 0;
    for (int32_t i = 0; i < l->roster.n; i++) {
        const struct dr_roster_rank *k = &l->roster.rank[i];
        if (k->beats && l->now - k->heard_ns > age) age = l->now - k->heard_ns;
    }
    return age;
}

static dr_status check_ranks(struct loop *l) {
    int32_t suspect = -1;
    if (l->now < l->next_check_ns) return dr_ok();
    l->next_check_ns = l->now + CHECK_NS;
    DR_TRY(dr_roster_check(&l->roster, l->now, &suspect));
    if (suspect >= 0) dr_log(DR_LOG_WARN, "rank_suspect", "peer=%d silent_ms=3000", suspect);
    return dr_ok();
}

/* Each second; counts also when the queue has filled or has room again: in between the gateway refuses by
 * itself, so it must not believe in a full queue any longer than that. */
static dr_status tell_state(struct loop *l) {
    struct dr_stats stats;
    const bool due = l->now >= l->next_second_ns;
    dr_core_stats(l->core, l->now, &stats);
    const bool full = stats.waiting >= DR_WAITING_MAX;
    if (due) {
        l->next_second_ns = l->now + SECOND_NS;
        DR_TRY(dr_post_alive(&l->post, oldest_beat_ns(l)));
    }
    if (!due && full == l->full) return dr_ok();
    l->full = full;
    dr_arena_rewind(&l->post.scratch, 0);
    return dr_post_stats(&l->post, &stats);
}

static uint64_t clamp(uint64_t v, uint64_t least, uint64_t most) {
    return v < least ? least : v > most ? most : v;
}

static dr_status wait(struct loop *l) {
    uint64_t expected = dr_core_expected_ns(l->core);
    uint64_t nap = expected ? clamp(expected / 20, NAP_LEAST_NS, NAP_STEP_MOST_NS)
                            : clamp((l->now - l->idle_since_ns) / 10, NAP_IDLE_LEAST_NS, NAP_IDLE_MOST_NS);
    bool pending = dr_link_pending(l->setup->link);
    struct pollfd fd = {.fd = dr_link_fd(l->setup->link),
                        .events = (short)(POLLIN | (pending ? POLLOUT : 0))};
    if (expected && l->ringing) nap = NAP_RINGING_NS;
    l->ringing = dr_channel_wait(l->setup->channel, &fd, nap);
    if (fd.revents & POLLOUT) {
        dr_status st = dr_link_flush(l->setup->link);
        if (st.code == DR_EPEER)
            l->post.closed = true;
        else
            DR_TRY(st);
    }
    return dr_ok();
}

static dr_status turn(struct loop *l) {
    bool any = false;
    l->now = dr_clock_ns();
    DR_TRY(hear_workers(l, &any));
    DR_TRY(plan(l));
    DR_TRY(hear_gateway(l, &any));
    if (l->post.closed) return dr_ok();
    DR_TRY(plan(l));
    DR_TRY(check_deadlines(l));
    DR_TRY(check_ranks(l));
    DR_TRY(tell_state(l));
    if (any || l->idle_since_ns == 0) l->idle_since_ns = l->now;
    return any ? dr_ok() : wait(l);
}

static dr_status init(struct loop *l, const struct dr_loop_setup *s) {
    struct dr_core_setup core = {
        .config = s->config,
        .layout = s->layout,
        .epoch = s->epoch,
        .deadline_scale = s->deadline_scale,
        .reuse = s->reuse,
        .drafts = s->drafts,
        .step_ns = s->step_ns,
    };
    DR_TRY(dr_post_init(&l->post, s->channel, s->link, s->epoch, s->layout->n_rank));
    if (s->channel->end != 0 || s->channel->n_end != s->layout->n_rank + 1)
        return dr_fail(DR_EMODEL, "the layout has %d ranks (tp %d x pp %d), the job started %d workers",
                       s->layout->n_rank, s->layout->tp, s->layout->pp, s->channel->n_end - 1);
    DR_TRY(dr_roster_init(&l->roster, s->layout->n_rank, dr_layout_hash(s->config, s->layout)));
    l->in = malloc(DR_FRAME_HEADER + DR_MPI_FRAME_MAX);
    if (!l->in) return dr_fail(DR_EFULL, "coordinator: no memory for frames");
    return dr_core_create(&core, &l->core);
}

/* Tells the gateway what happened; what cannot be told any more is logged by the caller. */
static void tell_fault(struct loop *l, dr_status st) {
    struct dr_fault_note note = {.rank = l->fault_rank, .code = (int32_t)st.code};
    snprintf(note.text, sizeof note.text, "%s", dr_error_text());
    if (l->core) {
        dr_arena_rewind(&l->post.scratch, 0);
        dr_core_lose(l->core, dr_clock_ns());
        dr_ignore(drain_events(l), "the gateway may be what failed");
    }
    dr_ignore(dr_post_fault(l->setup->link, l->setup->epoch, &note), "the gateway may be what failed");
    dr_ignore(dr_fail(st.code, "%s", note.text), "restores the text for the caller");
}

dr_status dr_loop_run(const struct dr_loop_setup *setup) {
    struct loop l = {.setup = setup, .fault_rank = -1, .begin_ns = dr_clock_ns()};
    dr_status st = init(&l, setup);
    while (st.code == DR_OK && !l.post.closed) st = turn(&l);
    if (st.code == DR_OK)
        st = dr_post_stop(&l.post);
    else
        tell_fault(&l, st);
    dr_core_destroy(l.core);
    dr_roster_fini(&l.roster);
    dr_post_fini(&l.post);
    free(l.in);
    return st;
}
