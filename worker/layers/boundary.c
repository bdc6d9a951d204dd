/* boundary.c - the residual stream from one stage to the next.
 * In:   HIDDEN of the last layer of a stage.      Out: HIDDEN before the first layer of the next.
 * Owns: nothing.
 * Why:  all T ranks hold the same rows, so each sends a T-th of the elements to its counterpart and the
 * receivers gather. */

#include "worker/layers/boundary.h"

#include <inttypes.h>
#include <string.h>

#include "worker/worker.h"

static size_t elements(const struct dr_worker *w) {
    return (size_t)w->n_row * (size_t)w->config->dim;
}

/* Elements [begin, end) of part i of T */
static void part(const struct dr_worker *w, int32_t i, size_t *begin, size_t *end) {
    size_t n = elements(w), t = (size_t)w->layout->tp;
    *begin = n * (size_t)i / t;
    *end = n * ((size_t)i + 1) / t;
}

static uint64_t whole_bytes(const struct dr_worker *w) {
    return (uint64_t)elements(w) * 4 + (uint64_t)w->layout->tp * DR_BOUNDARY_HEADER;
}

dr_status dr_boundary_send(struct dr_worker *w) {
    uint8_t *message = dr_worker_buffer(w, DR_BUF_BOUNDARY);
    size_t begin, end;
    part(w, w->shard.t, &begin, &end);
    struct dr_boundary_header header = {
        .step = w->plan->step,
        .n_row = (uint32_t)w->n_row,
        .part = (uint32_t)w->shard.t,
        .n_part = (uint32_t)w->layout->tp,
    };
    memcpy(message, &header, sizeof header);
    dr_copy_rows(message + sizeof header, 0, dr_worker_floats(w, DR_BUF_HIDDEN) + begin, 0, (end - begin) * 4,
                 1, w->stream);
    return dr_ledger_send(&w->ledger, w->shard.stage + 1, message, sizeof header + (end - begin) * 4,
                          whole_bytes(w));
}

static dr_status check_header(const struct dr_worker *w, const struct dr_boundary_header *h) {
    if (h->step == w->plan->step && h->n_row == (uint32_t)w->n_row && h->n_carry == 0 &&
        h->part == (uint32_t)w->shard.t && h->n_part == (uint32_t)w->layout->tp && h->zero == 0)
        return dr_ok();
    return dr_fail(DR_EPEER,
                   "rank %d: boundary from stage %d: step %" PRIu64
                   ", %u rows, %u carried, part %u of %u; expected step %" PRIu64
                   ", %d rows, none carried, part %d of %d",
                   w->rank, w->shard.stage - 1, h->step, h->n_row, h->n_carry, h->part, h->n_part,
                   w->plan->step, w->n_row, w->shard.t, w->layout->tp);
}

dr_status dr_boundary_recv(struct dr_worker *w) {
    uint8_t *message = dr_worker_buffer(w, DR_BUF_BOUNDARY);
    float *hidden = dr_worker_floats(w, DR_BUF_HIDDEN);
    struct dr_call_name name = {.what = DR_WHAT_BOUNDARY_GATHER, .layer = -1};
    struct dr_boundary_header header;
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX];
    for (int32_t m = 0; m < w->layout->tp; m++) {
        size_t begin, end;
        part(w, m, &begin, &end);
        bytes[m] = (end - begin) * 4;
        at[m] = begin * 4;
    }
    size_t mine = bytes[w->shard.t];
    DR_TRY(dr_ledger_recv(&w->ledger, w->shard.stage - 1, message, sizeof header + mine, whole_bytes(w)));
    memcpy(&header, message, sizeof header);
    DR_TRY(check_header(w, &header));
    return dr_ledger_allgatherv(&w->ledger, DR_GROUP_STAGE, name, message + sizeof header, hidden, bytes, at);
}
