/* head.c - output rows to tokens, log-probabilities or raw logits.
 * In:   HIDDEN of the last stage.      Out: result rows in the order of the plan, bad slots; logits through
 * the sink. Owns: nothing. Why:  only rows with an output pass norm and head, DR_OUT_BATCH at a time, so that
 * logits need no memory for a whole step. */

#include <assert.h>
#include <string.h>

#include "worker/worker.h"

enum { LOGITS_CHUNK = 65536 }; /* values of a frame: 256 KiB, well under the channel's limit */

static_assert(sizeof(struct dr_result_row) <= DR_WORK_RESULT_BYTES, "model/workspace counts these bytes");

struct out_row {
    int32_t segment, row; /* in the plan; row of the segment */
    int32_t place;        /* in the batch: rows that pass the sampler first */
};

struct out_batch {
    int32_t segment, row; /* next output row */
    int32_t index, n, n_sampled;
    struct out_row out[DR_OUT_BATCH];
};

/* The next rows in the order of the plan; false when none are left. */
static bool next_batch(const struct dr_worker *w, struct out_batch *b) {
    b->n = b->n_sampled = 0;
    while (b->segment < w->shape.n_segment && b->n < DR_OUT_BATCH) {
        const struct dr_shape_segment *g = &w->segment[b->segment];
        if (b->row == g->n_out_rows) {
            b->segment++;
            b->row = 0;
            continue;
        }
        int32_t row = g->n_rows - g->n_out_rows + b->row++;
        b->out[b->n++] = (struct out_row){.segment = b->segment, .row = row};
    }
    for (int32_t i = 0; i < b->n; i++)
        if (dr_shape_sampled(&w->segment[b->out[i].segment])) b->out[i].place = b->n_sampled++;
    for (int32_t i = 0, place = b->n_sampled; i < b->n; i++)
        if (!dr_shape_sampled(&w->segment[b->out[i].segment])) b->out[i].place = place++;
    return b->n > 0;
}

dr_status dr_head_logits(struct dr_worker *w, const float *gain, const int32_t *row, int32_t n) {
    size_t dim = (size_t)w->config->dim;
    float *out = dr_worker_floats(w, DR_BUF_OUT);
    struct dr_linear head = {
        .y = dr_worker_floats(w, DR_BUF_LOGITS),
        .x = out,
        .w = &w->model.head,
        .n_tok = n,
        .y_stride = (size_t)w->model.head.n_out,
        .x_stride = dim,
        .scratch = dr_worker_buffer(w, DR_BUF_INPUT),
        .scratch_bytes = w->map.size[DR_BUF_INPUT],
    };
    for (int32_t i = 0; i < n; i++) {
        struct dr_rmsnorm norm = {
            .y = out + (size_t)i * dim,
            .x = dr_worker_floats(w, DR_BUF_HIDDEN) + (size_t)row[i] * dim,
            .gain = gain,
            .n_tok = 1,
            .dim = w->config->dim,
            .y_stride = dim,
            .x_stride = dim,
            .eps = w->config->rms_eps,
        };
        DR_TRY(w->ops->rmsnorm(&norm, w->stream));
    }
    return w->ops->linear(&head, w->stream);
}

static dr_status logits_of(struct dr_worker *w, const struct out_batch *b) {
    int32_t row[DR_OUT_BATCH];
    for (int32_t i = 0; i < b->n; i++)
        row[b->out[i].place] = w->run[b->out[i].segment].first_row + b->out[i].row;
    return dr_head_logits(w, w->model.norm, row, b->n);
}

struct dr_sample_row dr_head_wish(const struct dr_worker *w, int32_t slot, int32_t position,
                                  const uint32_t *seen, int32_t n_seen) {
    const struct dr_slots *s = &w->slots;
    const struct dr_sampling *p = &s->sampling[slot];
    const struct dr_slot *state = &s->slot[slot];
    size_t counts = (size_t)slot * (size_t)s->n_vocab, biases = (size_t)slot * DR_BIAS_MAX;
    return (struct dr_sample_row){
        .temperature =
            p->temperature > 0 && p->temperature < 1e-5f ? 1e-5f : p->temperature, /* logits stay finite */
        .repetition = p->repetition,
        .frequency = p->frequency,
        .presence = p->presence,
        .count_prompt = state->counts ? s->count_prompt + counts : NULL,
        .count_output = state->counts ? s->count_output + counts : NULL,
        .seen = seen,
        .n_seen = n_seen,
        .bias_id = s->bias_id + biases,
        .bias = s->bias + biases,
        .n_bias = state->n_bias,
        .seed = p->seed,
        .position = (uint64_t)position,
    };
}

/* What is asked of an output row. A row behind drafts is drawn as if they were true. */
static struct dr_sample_want wish(const struct dr_worker *w, const struct out_row *o) {
    const struct dr_segment *g = &w->plan->segment[o->segment];
    const struct dr_shape_segment *shape = &w->segment[o->segment];
    const struct dr_sampling *p = &w->slots.sampling[g->slot];
    struct dr_sample_want want = {.draw = shape->sample, .target = UINT32_MAX, .n_top = shape->n_top};
    if (want.draw) {
        const int32_t first_draft = g->n_rows - g->n_verify;
        want.row =
            dr_head_wish(w, g->slot, g->first + o->row + 1, g->ids + first_draft, o->row + 1 - first_draft);
        want.top_k_on = shape->top_k;
        want.top_p_on = shape->top_p;
        want.top_k = p->top_k;
        want.top_p = p->top_p;
        want.min_p = p->min_p;
    } else if (o->row + 1 < g->n_rows) {
        want.target = g->ids[o->row + 1];
    } else if (g->has_next) {
        want.target = g->next_id;
    }
    return want;
}

/* The row's result row: its own, or of a segment that draws the one that its first output row began. */
static struct dr_result_row *result_of(struct dr_worker *w, const struct out_row *o) {
    const struct dr_segment *g = &w->plan->segment[o->segment];
    struct dr_result_row *result = dr_worker_buffer(w, DR_BUF_RESULT);
    struct dr_run *run = &w->run[o->segment];
    if (g->output == DR_OUTPUT_SAMPLE && run->result >= 0) return &result[run->result];
    run->result = w->n_result++;
    result[run->result] = (struct dr_result_row){.slot = g->slot, .position = g->first + o->row};
    return &result[run->result];
}

/* Adds what a row drew or scored to its result row. Of rows behind drafts only those count whose drafts all
 * came true: n_true says so far. */
static void take(struct dr_worker *w, const struct out_row *o, const struct dr_sample_got *got) {
    const struct dr_segment *g = &w->plan->segment[o->segment];
    struct dr_run *run = &w->run[o->segment];
    const bool draws = g->output == DR_OUTPUT_SAMPLE;
    if (draws && o->row >= run->n_true) return; /* a draft before it is wrong */
    struct dr_result_row *r = result_of(w, o);
    if (got->bad) {
        r->fault = DR_FAULT_NUMERIC;
        return;
    }
    if (got->id == UINT32_MAX) return;
    r->ids[r->n_ids] = got->id;
    r->logprob[r->n_ids++] = got->logprob;
    r->n_top = got->n_top;
    if (r->n_ids == 1) r->top = got->top;
    if (!draws) return;
    run->newest = g->has_next ? g->next_id : got->id;
    if (o->row + 1 == g->n_rows || g->ids[o->row + 1] != got->id) return;
    run->n_true++;
    r->n_accepted++;
}

/* Draws or scores the batch's rows and writes their result rows; rows that only give logits get an empty one.
 * The alternatives of a segment's rows lie one after the other. */
static dr_status sample(struct dr_worker *w, const struct out_batch *b) {
    struct dr_sample_want want[DR_OUT_BATCH];
    struct dr_sample_got got[DR_OUT_BATCH] = {{0}};
    struct dr_top *top = dr_worker_buffer(w, DR_BUF_RESULT_TOP);
    for (int32_t i = 0; i < b->n; i++) {
        const int32_t place = b->out[i].place;
        if (place >= b->n_sampled) continue;
        want[place] = wish(w, &b->out[i]);
        got[place].top = top + w->n_top;
        w->n_top += dr_max_i32(0, want[place].n_top);
    }
    if (b->n_sampled > 0)
        DR_TRY(dr_sampler_run(w->sampler, b->index, want, b->n_sampled, dr_worker_floats(w, DR_BUF_LOGITS),
                              got));
    for (int32_t i = 0; i < b->n; i++) {
        if (b->out[i].place < b->n_sampled)
            take(w, &b->out[i], &got[b->out[i].place]);
        else
            (void)result_of(w, &b->out[i]);
    }
    return dr_ok();
}

static dr_status send_logits(struct dr_worker *w, const struct out_batch *b) {
    const float *logits = dr_worker_floats(w, DR_BUF_LOGITS);
    int32_t cols = w->model.head.n_out;
    for (int32_t i = 0; i < b->n; i++) {
        const struct dr_segment *g = &w->plan->segment[b->out[i].segment];
        const float *row = logits + (size_t)b->out[i].place * (size_t)cols;
        if (g->output != DR_OUTPUT_LOGITS) continue;
        if (!w->sink) return dr_fail(DR_EPROTO, "slot %d asks for logits, but nobody takes them", g->slot);
        for (int32_t at = 0; at < cols; at += LOGITS_CHUNK) {
            struct dr_logits chunk = {
                .epoch = w->plan->epoch,
                .step = w->plan->step,
                .slot = g->slot,
                .position = g->first + b->out[i].row,
                .first = w->shard.vocab.begin + at,
                .n = dr_min_i32(cols - at, LOGITS_CHUNK),
                .value = row + at,
            };
            DR_TRY(w->sink(w->sink_arg, &chunk));
        }
    }
    return dr_ok();
}

/* Names the slots whose rows are not all finite, output rows or not: their cache pages must not be used. Rows
 * of wrong drafts do not count: nobody will see them. All ranks of the stage have the same rows; the one that
 * sends results looks. */
static dr_status find_bad(struct dr_worker *w) {
    uint8_t *bad = dr_worker_buffer(w, DR_BUF_BAD);
    int32_t *slot = dr_worker_buffer(w, DR_BUF_BAD_SLOT);
    struct dr_finite op = {
        .bad = bad,
        .x = dr_worker_floats(w, DR_BUF_HIDDEN),
        .n_tok = w->n_row,
        .dim = w->config->dim,
        .stride = (size_t)w->config->dim,
    };
    if (w->shard.t != 0) return dr_ok();
    DR_TRY(w->ops->finite(&op, w->stream));
    for (int32_t i = 0; i < w->plan->n_segment; i++)
        if (memchr(bad + w->run[i].first_row, 1, (size_t)w->run[i].n_true))
            slot[w->n_bad++] = w->plan->segment[i].slot;
    return dr_ok();
}

/* Only now: a row behind drafts was drawn with those drafts counted on top. */
static void count_drawn(struct dr_worker *w) {
    const struct dr_result_row *result = dr_worker_buffer(w, DR_BUF_RESULT);
    for (int32_t i = 0; i < w->plan->n_segment; i++) {
        const struct dr_segment *g = &w->plan->segment[i];
        if (g->output != DR_OUTPUT_SAMPLE) continue;
        const struct dr_result_row *r = &result[w->run[i].result];
        for (int32_t k = 0; k < r->n_ids; k++) dr_slots_count(&w->slots, g->slot, r->ids[k]);
    }
}

dr_status dr_head(struct dr_worker *w) {
    struct out_batch b = {0};
    for (int32_t i = 0; i < w->plan->n_segment; i++) {
        const struct dr_segment *g = &w->plan->segment[i];
        w->run[i].n_true = g->n_rows - g->n_verify;
        w->run[i].newest = g->has_next ? g->next_id : 0;
        w->run[i].result = -1;
    }
    for (; next_batch(w, &b); b.index++) {
        DR_TRY(logits_of(w, &b));
        dr_parts_enter(&w->parts, DR_PART_SAMPLER);
        DR_TRY(sample(w, &b));
        dr_parts_enter(&w->parts, DR_PART_HEAD);
        DR_TRY(send_logits(w, &b));
    }
    w->n_batch = b.index;
    count_drawn(w);
    return find_bad(w);
}
