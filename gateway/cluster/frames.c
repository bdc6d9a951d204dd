/* frames.c - see frames.h.
 * In:   frames.      Out: facts and sinks' calls.
 * Owns: the arena of a large frame, for as long as the frame is looked at.
 * Why:  see frames.h. News of requests that have ended (a cancel crosses a result) are dropped silently. */
#include "gateway/cluster/frames.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

static struct dr_request *find(struct dr_engine *e, uint64_t id) {
    pthread_mutex_lock(&e->lock);
    struct dr_request *r = dr_request_find(e, id);
    pthread_mutex_unlock(&e->lock);
    return r && r->sent ? r : NULL; /* only this thread sends and removes */
}

static dr_status take_accepted(struct dr_engine *e, const uint8_t *body, size_t bytes) {
    uint64_t id;
    DR_TRY(dr_decode_word(body, bytes, &id));
    struct dr_request *r = find(e, id);
    if (r && r->sink.on_accepted) r->sink.on_accepted(r->sink.arg);
    return dr_ok();
}

static dr_status take_refused(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_refused refused;
    DR_TRY(dr_decode_refused(body, bytes, a, &refused));
    if (refused.reason == DR_REFUSE_FULL) {
        pthread_mutex_lock(&e->lock);
        e->refused = refused;
        e->refused_ns = dr_clock_ns();
        pthread_mutex_unlock(&e->lock);
    }
    struct dr_request *r = find(e, refused.request);
    if (r) dr_request_refuse(e, r, &refused);
    return dr_ok();
}

static dr_status take_tokens(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_tokens tokens;
    DR_TRY(dr_decode_tokens(body, bytes, a, &tokens));
    for (int32_t i = 0; i < tokens.n; i++) {
        struct dr_request *r = find(e, tokens.news[i].request);
        if (r) r->sink.on_tokens(r->sink.arg, &tokens.news[i]);
    }
    return dr_ok();
}

static dr_status take_done(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_done done;
    DR_TRY(dr_decode_done(body, bytes, a, &done));
    struct dr_request *r = find(e, done.request);
    if (r) dr_request_end(e, r, &done);
    return dr_ok();
}

static dr_status take_logits(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_logits logits;
    DR_TRY(dr_decode_logits(body, bytes, a, &logits));
    struct dr_request *r = find(e, logits.request);
    if (r && r->sink.on_logits) r->sink.on_logits(r->sink.arg, &logits);
    return dr_ok();
}

static dr_status take_ready(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a,
                            enum dr_frame_news *news) {
    struct dr_cluster_ready ready;
    DR_TRY(dr_decode_cluster_ready(body, bytes, a, &ready));
    const struct dr_engine_setup *s = &e->setup;
    if (e->phase != DR_PHASE_LINKED) return dr_fail(DR_EPROTO, "READY came twice in one epoch");
    if (ready.n_rank != s->layout.n_rank ||
        dr_layout_hash(s->config, &ready.layout) != dr_layout_hash(s->config, &s->layout))
        return dr_fail(DR_EPROTO,
                       "the coordinator's layout (tp %d, pp %d, c %d, %d pages) is not the gateway's (tp %d, "
                       "pp %d, c %d, %d pages)",
                       ready.layout.tp, ready.layout.pp, ready.layout.c, ready.layout.n_page, s->layout.tp,
                       s->layout.pp, s->layout.c, s->layout.n_page);
    if (s->tensors_hash && ready.tensors_hash != s->tensors_hash)
        return dr_fail(
            DR_EPROTO,
            "the workers' checkpoint is not the gateway's; is the folder the same on every machine?");
    pthread_mutex_lock(&e->lock);
    e->facts.n_rank = ready.n_rank;
    memcpy(e->facts.rank, ready.rank, (size_t)ready.n_rank * sizeof *ready.rank);
    pthread_mutex_unlock(&e->lock);
    *news = DR_NEWS_READY;
    return dr_ok();
}

static dr_status take_fault(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a,
                            enum dr_frame_news *news) {
    struct dr_fault_note note;
    DR_TRY(dr_decode_fault_note(body, bytes, a, &note));
    if (note.code <= DR_OK || note.code >= DR_CODE_COUNT) note.code = DR_EPEER;
    e->fault = note;
    if (!note.text[0])
        snprintf(e->fault.text, sizeof e->fault.text, "rank %d failed: %s", note.rank,
                 dr_code_text((enum dr_code)note.code));
    e->has_fault = true;
    *news = DR_NEWS_FAULT;
    return dr_ok();
}

static dr_status take_alive(struct dr_engine *e, const uint8_t *body, size_t bytes) {
    uint64_t age;
    DR_TRY(dr_decode_word(body, bytes, &age));
    pthread_mutex_lock(&e->lock);
    e->facts.rank_beat_age_ns = age;
    e->alive_ns = dr_clock_ns();
    pthread_mutex_unlock(&e->lock);
    return dr_ok();
}

static dr_status take_stats(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_stats stats;
    DR_TRY(dr_decode_stats(body, bytes, a, &stats));
    pthread_mutex_lock(&e->lock);
    e->facts.stats = stats;
    e->queue_full = stats.waiting >= DR_WAITING_MAX;
    pthread_mutex_unlock(&e->lock);
    return dr_ok();
}

static struct dr_step_sink watcher(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    const struct dr_step_sink sink = e->watch;
    pthread_mutex_unlock(&e->lock);
    return sink;
}

static dr_status take_step_news(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_step_news step;
    const struct dr_step_sink sink = watcher(e);
    DR_TRY(dr_decode_step_news(body, bytes, a, &step));
    if (sink.on_step) sink.on_step(sink.arg, &step);
    return dr_ok();
}

static dr_status take_step_report(struct dr_engine *e, const uint8_t *body, size_t bytes,
                                  struct dr_arena *a) {
    struct dr_step_report report;
    const struct dr_step_sink sink = watcher(e);
    DR_TRY(dr_decode_step_report(body, bytes, a, &report));
    if (report.rank >= e->facts.n_rank)
        return dr_fail(DR_EPROTO, "a report of rank %d, expected 0 to %d", report.rank, e->facts.n_rank - 1);
    if (sink.on_report) sink.on_report(sink.arg, &report, dr_clock_ns());
    return dr_ok();
}

static dr_status take_progress(struct dr_engine *e, const uint8_t *body, size_t bytes, struct dr_arena *a) {
    struct dr_progress progress;
    DR_TRY(dr_decode_progress(body, bytes, a, &progress));
    if (e->phase == DR_PHASE_LINKED) dr_progress_take(&e->bar, &progress);
    return dr_ok();
}

static dr_status dispatch(struct dr_engine *e, const struct dr_frame *f, const uint8_t *body,
                          struct dr_arena *a, enum dr_frame_news *news) {
    switch (f->type) {
    case DR_MSG_CLUSTER_READY:
        return take_ready(e, body, f->bytes, a, news);
    case DR_MSG_ACCEPTED:
        return take_accepted(e, body, f->bytes);
    case DR_MSG_REFUSED:
        return take_refused(e, body, f->bytes, a);
    case DR_MSG_TOKENS:
        return take_tokens(e, body, f->bytes, a);
    case DR_MSG_DONE:
        return take_done(e, body, f->bytes, a);
    case DR_MSG_LOGITS:
        return take_logits(e, body, f->bytes, a);
    case DR_MSG_ALIVE:
        return take_alive(e, body, f->bytes);
    case DR_MSG_STATS:
        return take_stats(e, body, f->bytes, a);
    case DR_MSG_CLUSTER_FAULT:
        return take_fault(e, body, f->bytes, a, news);
    case DR_MSG_STEP_NEWS:
        return take_step_news(e, body, f->bytes, a);
    case DR_MSG_STEP_REPORT:
        return take_step_report(e, body, f->bytes, a);
    case DR_MSG_PROGRESS:
        return take_progress(e, body, f->bytes, a);
    default:
        return dr_fail(DR_EPROTO, "a coordinator does not send %s to a gateway", dr_msg_name(f->type));
    }
}

dr_status dr_frames_take(struct dr_engine *e, const struct dr_frame *frame, const uint8_t *body,
                         enum dr_frame_news *news) {
    /* Varints of one byte become 4-byte ids; alternatives of about 10 bytes become 8: eight times the frame
     * is plenty. */
    const size_t need = 8 * (size_t)frame->bytes + 65536;
    if (need <= e->arena.bytes) {
        dr_arena_rewind(&e->arena, 0);
        return dispatch(e, frame, body, &e->arena, news);
    }
    struct dr_arena large = {0};
    DR_TRY(dr_arena_init(&large, need));
    dr_status st = dispatch(e, frame, body, &large, news);
    dr_arena_fini(&large);
    return st;
}
