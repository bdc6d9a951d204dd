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

/* LOGITS [n, own columns] of the batch, rows by place. */
static dr_status logits_of(struct dr_worker *w, const struct out_batch *b, float *logits) {
    size_t dim = (size_t)w->config->dim;
    float *out = dr_worker_floats(w, DR_BUF_OUT);
    struct dr_linear head = {
        .y = logits,
        .x = out,
        .w = &w->model.head,
        .n_tok = b->n,
        .y_stride = (size_t)w->model.head.n_out,
        .x_stride = dim,
        .scratch = dr_worker_buffer(w, DR_BUF_INPUT),
        .scratch_bytes = w->map.size[DR_BUF_INPUT],
    };
    for (int32_t i = 0; i < b->n; i++) {
        size_t row = (size_t)w->run[b->out[i].segment].first_row + (size_t)b->out[i].row;
        struct dr_rmsnorm norm = {
            .y = out + (size_t)b->out[i].place * dim,
            .x = dr_worker_floats(w, DR_BUF_HIDDEN) + row * dim,
            .gain = w->model.norm,
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

static struct dr_sample_row adjustment(const struct dr_worker *w, const struct dr_segment *g) {
    const struct dr_slots *s = &w->slots;
    const struct dr_sampling *p = &s->sampling[g->slot];
    const struct dr_slot *slot = &s->slot[g->slot];
    size_t counts = (size_t)g->slot * (size_t)s->n_vocab, biases = (size_t)g->slot * DR_BIAS_MAX;
    return (struct dr_sample_row){
        .temperature =
            p->temperature > 0 && p->temperature < 1e-5f ? 1e-5f : p->temperature, /* logits stay finite */
        .repetition = p->repetition,
        .frequency = p->frequency,
        .presence = p->presence,
        .count_prompt = slot->counts ? s->count_prompt + counts : NULL,
        .count_output = slot->counts ? s->count_output + counts : NULL,
        .bias_id = s->bias_id + biases,
        .bias = s->bias + biases,
        .n_bias = slot->n_bias,
        .seed = p->seed,
        .position = (uint64_t)(g->first + g->n_rows),
    };
}

static struct dr_sample_want wish(const struct dr_worker *w, const struct out_row *o) {
    const struct dr_segment *g = &w->plan->segment[o->segment];
    const struct dr_shape_segment *shape = &w->segment[o->segment];
    const struct dr_sampling *p = &w->slots.sampling[g->slot];
    struct dr_sample_want want = {.draw = shape->sample, .target = UINT32_MAX, .n_top = shape->n_top};
    if (want.draw) {
        want.row = adjustment(w, g);
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

/* Draws or scores the batch's rows and writes their result rows; rows that only give logits get an empty one.
 */
static dr_status sample(struct dr_worker *w, const struct out_batch *b, const float *logits) {
    struct dr_sample_want want[DR_OUT_BATCH];
    struct dr_sample_got got[DR_OUT_BATCH] = {{0}};
    struct dr_top *top = dr_worker_buffer(w, DR_BUF_RESULT_TOP);
    struct dr_result_row *result = dr_worker_buffer(w, DR_BUF_RESULT);
    for (int32_t i = 0; i < b->n; i++) {
        if (b->out[i].place >= b->n_sampled) continue;
        want[b->out[i].place] = wish(w, &b->out[i]);
        got[b->out[i].place].top = top + (size_t)(w->n_result + i) * DR_TOP_MAX;
    }
    if (b->n_sampled > 0) DR_TRY(dr_sampler_run(w->sampler, b->index, want, b->n_sampled, logits, got));
    for (int32_t i = 0; i < b->n; i++) {
        const struct dr_segment *g = &w->plan->segment[b->out[i].segment];
        struct dr_result_row *r = &result[w->n_result + i];
        *r = (struct dr_result_row){.slot = g->slot, .position = g->first + b->out[i].row};
        if (b->out[i].place >= b->n_sampled) continue;
        const struct dr_sample_got *o = &got[b->out[i].place];
        r->fault = o->bad ? DR_FAULT_NUMERIC : DR_FAULT_NONE;
        if (o->bad) continue;
        r->n_ids = o->id != UINT32_MAX;
        r->ids[0] = r->n_ids ? o->id : 0;
        r->logprob[0] = o->logprob;
        r->n_top = o->n_top;
        r->top = o->top;
        if (g->output == DR_OUTPUT_SAMPLE) dr_slots_count(&w->slots, g->slot, o->id);
    }
    w->n_result += b->n;
    return dr_ok();
}

static dr_status send_logits(struct dr_worker *w, const struct out_batch *b, const float *logits) {
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

/* Names the slots whose rows are not all finite, output rows or not: their cache pages must not be used. All
 * ranks of the stage have the same rows; the one that sends results looks. */
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
    for (int32_t i = 0; i < w->plan->n_segment; i++) {
        const struct dr_segment *g = &w->plan->segment[i];
        if (memchr(bad + w->run[i].first_row, 1, (size_t)g->n_rows)) slot[w->n_bad++] = g->slot;
    }
    return dr_ok();
}

dr_status dr_head(struct dr_worker *w) {
    float *logits = dr_worker_floats(w, DR_BUF_LOGITS);
    struct out_batch b = {0};
    DR_TRY(find_bad(w));
    for (; next_batch(w, &b); b.index++) {
        DR_TRY(logits_of(w, &b, logits));
        dr_parts_enter(&w->parts, DR_PART_SAMPLER);
        DR_TRY(sample(w, &b, logits));
        dr_parts_enter(&w->parts, DR_PART_HEAD);
        DR_TRY(send_logits(w, &b, logits));
    }
    return dr_ok();
}
