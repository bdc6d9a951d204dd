/* step.c - the control flow of a step.
 * In:   a plan.      Out: cache rows, a report, on the last stage results.
 * Owns: nothing.
 * Why:  one function says what happens in which order; everything it calls is a leaf. */

#include "worker/step.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "proto/plan_shape.h"
#include "worker/rows.h"
#include "worker/worker.h"

/* Applies the plan to the slots and refuses what this rank cannot run or would run differently from its
 * peers. */
static dr_status accept(struct dr_worker *w, const struct dr_step_plan *plan) {
    DR_TRY(dr_slots_apply(&w->slots, plan));
    DR_TRY(dr_slots_check(&w->slots, plan));
    dr_plan_shape(plan, w->slots.sampling, w->segment, &w->shape);
    uint64_t hash = dr_schedule_hash(w->config, w->layout, &w->shape);
    if (hash == plan->schedule_hash) return dr_ok();
    return dr_fail(DR_EPROTO,
                   "rank %d, step %" PRIu64 ": the plan's schedule hash is %016" PRIx64
                   ", this rank derives %016" PRIx64
                   "; coordinator and worker disagree about the layout or a slot",
                   w->rank, plan->step, plan->schedule_hash, hash);
}

static dr_status run(struct dr_worker *w) {
    w->pass = 0;
    if (w->shape.n_rows == 0) return dr_ok();
    DR_TRY(dr_rows_fill(w));
    dr_parts_enter(&w->parts, w->shard.first ? DR_PART_EMBED : DR_PART_COLLECTIVE);
    DR_TRY(w->shard.first ? dr_embed_rows(w) : dr_boundary_recv(w));
    for (int32_t i = 0; i < dr_range_len(w->shard.layers); i++) {
        dr_parts_enter(&w->parts, DR_PART_PROJECT);
        DR_TRY(dr_attention(w, i));
        dr_parts_enter(&w->parts, DR_PART_EXPERTS);
        DR_TRY(dr_ffn(w, i));
    }
    dr_parts_enter(&w->parts, w->shard.last ? DR_PART_HEAD : DR_PART_COLLECTIVE);
    if (!w->shard.last) return dr_boundary_send(w);
    DR_TRY(dr_head(w));
    return w->shard.mtp ? dr_draft(w) : dr_ok();
}

static dr_status step(struct dr_worker *w, uint64_t deadline_ns) {
    DR_TRY(accept(w, w->plan));
    dr_ledger_begin(&w->ledger, w->config, w->layout, &w->shape, w->plan->step, deadline_ns);
    DR_TRY(run(w));
    dr_parts_enter(&w->parts, DR_PART_REST);
    return dr_ledger_end(&w->ledger);
}

static uint64_t peak_bytes(void) {
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) == 0 ? (uint64_t)use.ru_maxrss << 10 : 0; /* it counts KiB */
}

static void report(struct dr_worker *w, dr_status st, struct dr_step_report *r) {
    const uint64_t most = (UINT64_C(1) << DR_PART_BITS) - 1;
    r->peak_bytes = peak_bytes();
    r->end_ns = dr_clock_ns();
    dr_parts_end(&w->parts, r->end_ns);
    r->wait_ns = dr_ledger_wait_ns(&w->ledger);
    memcpy(r->bytes, w->ledger.bytes, sizeof r->bytes);
    for (int i = 0; i < DR_PART_COUNT; i++) r->part_ns[i] = w->parts.ns[i] < most ? w->parts.ns[i] : most;
    for (int i = 0; i < DR_BYTES_KIND_COUNT; i++)
        r->wait_kind_ns[i] = w->ledger.wait_kind_ns[i] < most ? w->ledger.wait_kind_ns[i] : most;
    r->code = (int32_t)st.code;
    if (st.code != DR_OK) (void)snprintf(r->text, sizeof r->text, "%s", dr_error_text());
}

dr_status dr_worker_step(struct dr_worker *w, const struct dr_step_plan *plan, uint64_t deadline_ns,
                         dr_logits_sink *sink, void *arg, struct dr_step_out *out) {
    *out = (struct dr_step_out){
        .report = {.epoch = plan->epoch, .step = plan->step, .rank = w->rank, .begin_ns = dr_clock_ns()},
        .has_result = w->shard.last && w->shard.t == 0,
    };
    dr_parts_begin(&w->parts, out->report.begin_ns, DR_PART_REST);
    w->plan = plan;
    w->sink = sink;
    w->sink_arg = arg;
    w->n_result = w->n_top = w->n_bad = 0;
    atomic_store_explicit(&w->step_id, plan->step, memory_order_relaxed);
    dr_status st = step(w, deadline_ns);
    report(w, st, &out->report);
    out->result = (struct dr_step_result){
        .epoch = plan->epoch,
        .step = plan->step,
        .n_row = st.code == DR_OK ? w->n_result : 0,
        .row = dr_worker_buffer(w, DR_BUF_RESULT),
        .n_bad = st.code == DR_OK ? w->n_bad : 0,
        .bad = dr_worker_buffer(w, DR_BUF_BAD_SLOT),
    };
    w->plan = NULL;
    return st;
}

void dr_worker_tap(struct dr_worker *w, enum dr_tap_kind kind, int32_t layer, const void *x, size_t x_stride,
                   int32_t width) {
    for (int32_t i = 0; w->n_tap > 0 && i < w->plan->n_segment; i++) {
        const struct dr_run *r = &w->run[i];
        struct dr_tap_rows rows = {
            .slot = w->plan->segment[i].slot, .first_row = r->first_row, .position = r->position, .n = r->n};
        dr_tap_take(w->taps, w->n_tap, kind, layer, &rows, x, x_stride, width, w->stream);
    }
}

int32_t dr_worker_op(const struct dr_worker *w) {
    return atomic_load_explicit(&w->ledger.op, memory_order_relaxed);
}

uint64_t dr_worker_step_id(const struct dr_worker *w) {
    return atomic_load_explicit(&w->step_id, memory_order_relaxed);
}
