/* core.h - the coordinator without its clock and its pipes.
 * In:   now, Submit, Cancel, Drain, results, reports, raw logits.      Out: step plans; events for the
 * gateway. Owns: book, batcher, planner, collector: all memory is taken at create. Why:  deterministic: the
 * same calls with the same times give the same plans and events, so simulator, replay and property tests
 * drive the same code that serves.
 *
 * One thread. After each call that takes `now_ns` the caller drains the events with dr_core_event; every
 * accepted request gets exactly one DONE, every other Submit exactly one REFUSED. With P stages up to P + 1
 * plans are under way (one with P = 1), so that every stage has work; their results come in the order of the
 * plans. */
#pragma once

#include "coordinator/book.h"
#include "coordinator/plan/drafts.h"

struct dr_core;

struct dr_core_setup {
    const struct dr_config *config; /* copied, as layout */
    const struct dr_layout *layout;
    uint64_t epoch;
    double deadline_scale;
    enum dr_reuse reuse;
    uint64_t step_ns; /* wanted time of a step with decodes; 0: as large as the layout lets it be */
    int32_t drafts; /* after each token, where the layout has the MTP layer; DR_DRAFTS_AUTO: as many as pay */
};

struct dr_core_event {
    enum dr_msg type; /* ACCEPTED, REFUSED, TOKENS or DONE */
    uint64_t request; /* ACCEPTED */
    const struct dr_refused *refused;
    struct dr_tokens tokens; /* arrays live in the core until its next result */
    struct dr_done done;
};

/* Fails: EFULL when the system lacks the memory. */
DR_FALLIBLE dr_core_create(const struct dr_core_setup *setup, struct dr_core **out);
void dr_core_destroy(struct dr_core *core);

/* Checks and queues the request; ACCEPTED or REFUSED. Copies everything. */
void dr_core_submit(struct dr_core *core, uint64_t now_ns, const struct dr_submit *submit);

/* DONE(CANCELLED), now: pages and slot are free at once, rows of the steps under way are dropped. Unknown or
 * ended requests: nothing. */
void dr_core_cancel(struct dr_core *core, uint64_t now_ns, uint64_t request);

/* Nothing that was computed up to now will be found as a prefix again. */
void dr_core_reset_prefix(struct dr_core *core);

/* No new requests from now on. */
void dr_core_drain(struct dr_core *core);

/* The epoch is over: DONE(LOST) for every open request. Only events and destroy may follow. */
void dr_core_lose(struct dr_core *core, uint64_t now_ns);

/* The next plan, or NULL: none is due, or no more may be under way. Ends requests whose deadline has passed.
 * Borrowed until the next call. */
const struct dr_step_plan *dr_core_plan(struct dr_core *core, uint64_t now_ns);

/* Fails: EPROTO naming row, expected and found. */
DR_FALLIBLE dr_core_result(struct dr_core *core, uint64_t now_ns, const struct dr_step_result *result);

/* Fails: EPEER with the rank's own text when its code is not OK. */
DR_FALLIBLE dr_core_report(struct dr_core *core, const struct dr_step_report *report);

/* Fills in l->request; *forward is false when that request has ended. Fails: EPROTO. */
DR_FALLIBLE dr_core_logits(struct dr_core *core, uint64_t now_ns, struct dr_logits *l, bool *forward);

/* Takes the oldest event; false when there is none. */
bool dr_core_event(struct dr_core *core, struct dr_core_event *out);

/* The oldest step under way: its number, when it must be over, how long it should take; deadline 0: none is
 * under way. */
uint64_t dr_core_step(const struct dr_core *core);
uint64_t dr_core_deadline_ns(const struct dr_core *core);
uint64_t dr_core_expected_ns(const struct dr_core *core);

/* The last step whose result has come. */
struct dr_step_news dr_core_last(const struct dr_core *core);

/* Decodes wait for every prompt that can run, until this is taken back: for benches. */
void dr_core_prefill_first(struct dr_core *core, bool on);

bool dr_core_idle(const struct dr_core *core); /* no open request */
/* A running request sends raw logits: plan only when the link is empty. */
bool dr_core_wants_logits(const struct dr_core *core);
void dr_core_stats(const struct dr_core *core, uint64_t now_ns, struct dr_stats *out);

/* For tests: everything that book.h checks. */
const struct dr_book *dr_core_book(const struct dr_core *core);
