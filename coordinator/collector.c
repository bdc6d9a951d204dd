/* collector.c - see collector.h.
 * In:   results.      Out: news.
 * Owns: what collector.h says.
 * Why:  see collector.h. */
#include "coordinator/collector.h"

#include <stdlib.h>
#include <string.h>

dr_status dr_collector_init(struct dr_collector *c, const struct dr_config *config,
                            const struct dr_layout *l) {
    struct dr_collector out = {.config = config};
    size_t seqs = (size_t)l->seqs_max, rows = (size_t)l->step_tokens;
    out.flight.item = calloc(seqs, sizeof *out.flight.item);
    out.ended = calloc(seqs, sizeof *out.ended);
    out.news = calloc(seqs, sizeof *out.news);
    out.ids = calloc(rows, sizeof *out.ids);
    out.logprob = calloc(rows, sizeof *out.logprob);
    out.top = calloc(rows * DR_TOP_MAX, sizeof *out.top);
    if (!out.flight.item || !out.ended || !out.news || !out.ids || !out.logprob || !out.top) {
        dr_collector_fini(&out);
        return dr_fail(DR_EFULL, "coordinator: no memory for the results of %d rows", l->step_tokens);
    }
    *c = out;
    return dr_ok();
}

void dr_collector_fini(struct dr_collector *c) {
    free(c->flight.item);
    free(c->ended);
    free(c->news);
    free(c->ids);
    free(c->logprob);
    free(c->top);
    *c = (struct dr_collector){0};
}

static int32_t out_rows(const struct dr_flight_item *i) {
    return i->output == DR_OUTPUT_NONE ? 0 : i->output == DR_OUTPUT_SAMPLE ? 1 : i->n_rows;
}

void dr_collector_begin(struct dr_collector *c, const struct dr_draft *d, uint64_t step) {
    DR_ASSERT(!c->flight.busy);
    struct dr_flight *f = &c->flight;
    *f = (struct dr_flight){.busy = true, .step = step, .n = d->n, .item = f->item};
    c->n_ended = c->n_news = c->n_news_row = 0;
    c->n_news_top = 0;
    for (int32_t i = 0; i < d->n; i++) {
        const struct dr_draft_item *from = &d->item[i];
        f->item[i] = (struct dr_flight_item){
            .request = from->request,
            .slot = from->request->slot,
            .first = from->first,
            .n_rows = from->n_rows,
            .output = from->output,
        };
        from->request->flight = i;
        f->n_row += out_rows(&f->item[i]);
        *(from->role == DR_TOKENS_PROMPT ? &f->prompt_rows : &f->generated_rows) += from->n_rows;
        if (from->output == DR_OUTPUT_LOGITS) f->logits_left += (int64_t)from->n_rows * c->config->vocab;
    }
}

void dr_collector_forget(struct dr_collector *c, struct dr_request *r) {
    if (r->flight < 0) return;
    c->flight.item[r->flight].request = NULL;
    for (int32_t i = 0; i < c->n_ended; i++)
        if (c->ended[i].request == r) c->ended[i].request = NULL;
    r->flight = -1;
}

void dr_collector_end(struct dr_collector *c) {
    for (int32_t i = 0; i < c->flight.n; i++)
        if (c->flight.item[i].request) c->flight.item[i].request->flight = -1;
    c->flight.busy = false;
}

static void note_end(struct dr_collector *c, struct dr_request *r, enum dr_finish finish, uint32_t stop_id) {
    c->ended[c->n_ended++] = (struct dr_ended){.request = r, .finish = finish, .stop_id = stop_id};
}

/* Appends a row's id, log-probability and alternatives to the news arrays. */
static void keep_row(struct dr_collector *c, const struct dr_result_row *row) {
    c->ids[c->n_news_row] = row->ids[0];
    c->logprob[c->n_news_row] = row->logprob[0];
    c->n_news_row++;
    if (row->n_top > 0) memcpy(&c->top[c->n_news_top], row->top, (size_t)row->n_top * sizeof *c->top);
    c->n_news_top += row->n_top;
}

static dr_status check_row(const struct dr_collector *c, const struct dr_flight_item *item, int32_t at,
                           const struct dr_result_row *row) {
    int32_t position = item->output == DR_OUTPUT_SAMPLE ? item->first + item->n_rows - 1 : item->first + at;
    if (row->slot != item->slot || row->position != position)
        return dr_fail(DR_EPROTO,
                       "result of step %llu: row of slot %d position %d, expected slot %d position %d",
                       (unsigned long long)c->flight.step, row->slot, row->position, item->slot, position);
    if (row->n_ids < 0 || row->n_ids > 1 || row->n_top < 0 || row->n_top > DR_TOP_MAX)
        return dr_fail(DR_EPROTO,
                       "result of step %llu, slot %d: %d ids and %d alternatives, expected at most 1 and %d",
                       (unsigned long long)c->flight.step, row->slot, row->n_ids, row->n_top, DR_TOP_MAX);
    if (row->n_ids == 1 && row->ids[0] >= (uint32_t)c->config->vocab)
        return dr_fail(DR_EPROTO, "result of step %llu, slot %d: token %u, the vocabulary has %d",
                       (unsigned long long)c->flight.step, row->slot, row->ids[0], c->config->vocab);
    return dr_ok();
}

static bool ends_at(const struct dr_request *r, uint32_t id) {
    if (r->ignore_eos || dr_request_output(r) < r->min_new)
        return false; /* below the minimum it is a token like others */
    for (int32_t i = 0; i < r->n_end; i++)
        if (r->end_ids[i] == id) return true;
    return false;
}

static dr_status take_sample(struct dr_collector *c, struct dr_request *r, const struct dr_result_row *row,
                             uint64_t now_ns) {
    if (row->n_ids != 1 || row->n_top != (r->sampling.n_top > 0 ? r->sampling.n_top : 0))
        return dr_fail(
            DR_EPROTO, "result of step %llu, slot %d: %d tokens with %d alternatives, expected 1 with %d",
            (unsigned long long)c->flight.step, row->slot, row->n_ids, row->n_top, r->sampling.n_top);
    bool logprobs = r->sampling.n_top >= 0;
    c->news[c->n_news++] = (struct dr_token_news){
        .request = r->id,
        .position = r->n_ids,
        .n = 1,
        .ids = &c->ids[c->n_news_row],
        .logprob = logprobs ? &c->logprob[c->n_news_row] : NULL,
        .n_top = row->n_top,
        .top = row->n_top > 0 ? &c->top[c->n_news_top] : NULL,
    };
    keep_row(c, row);
    uint32_t id = row->ids[0];
    r->ids[r->n_ids++] = id;
    c->n_drawn++;
    if (r->first_ns == 0) r->first_ns = now_ns;
    r->last_ns = now_ns;
    if (ends_at(r, id))
        note_end(c, r, DR_FINISH_STOP, id);
    else if (dr_request_output(r) >= r->max_new)
        note_end(c, r, DR_FINISH_LENGTH, UINT32_MAX);
    return dr_ok();
}

/* Log-probabilities of prompt tokens: the target of the row at position p is token p + 1; the prompt's very
 * last row may have none. */
static dr_status take_scores(struct dr_collector *c, struct dr_request *r, const struct dr_flight_item *item,
                             const struct dr_result_row *row) {
    struct dr_token_news news = {
        .request = r->id,
        .prompt = true,
        .position = item->first,
        .ids = &c->ids[c->n_news_row],
        .logprob = &c->logprob[c->n_news_row],
        .n_top = r->prompt_top,
        .top = r->prompt_top > 0 ? &c->top[c->n_news_top] : NULL,
    };
    for (int32_t i = 0; i < item->n_rows; i++) {
        int32_t target = item->first + i + 1;
        int32_t n_ids = target < r->n_ids ? 1 : 0;
        if (row[i].n_ids != n_ids ||
            (n_ids == 1 && (row[i].ids[0] != r->ids[target] || row[i].n_top != r->prompt_top)))
            return dr_fail(DR_EPROTO,
                           "result of step %llu, slot %d position %d: the score of %d ids with %d "
                           "alternatives, expected %d with %d",
                           (unsigned long long)c->flight.step, item->slot, item->first + i, row[i].n_ids,
                           row[i].n_top, n_ids, r->prompt_top);
        if (n_ids == 0) continue;
        keep_row(c, &row[i]);
        news.n++;
    }
    if (news.n > 0) c->news[c->n_news++] = news;
    return dr_ok();
}

static dr_status take_item(struct dr_collector *c, const struct dr_flight_item *item,
                           const struct dr_result_row *row, uint64_t now_ns) {
    struct dr_request *r = item->request;
    int32_t n = out_rows(item);
    for (int32_t i = 0; i < n; i++) DR_TRY(check_row(c, item, i, &row[i]));
    if (!r) return dr_ok();
    for (int32_t i = 0; i < n; i++) {
        if (row[i].fault == DR_FAULT_NONE) continue;
        note_end(c, r, DR_FINISH_NUMERIC, UINT32_MAX);
        return dr_ok();
    }
    r->n_done += item->n_rows;
    if (item->output == DR_OUTPUT_SAMPLE) return take_sample(c, r, row, now_ns);
    if (item->output == DR_OUTPUT_SCORE) DR_TRY(take_scores(c, r, item, row));
    if (item->output != DR_OUTPUT_NONE) r->n_told = r->n_done;
    if (r->n_done == r->n_ids && r->max_new == 0) note_end(c, r, DR_FINISH_LENGTH, UINT32_MAX);
    return dr_ok();
}

dr_status dr_collector_result(struct dr_collector *c, const struct dr_step_result *result, uint64_t now_ns) {
    struct dr_flight *f = &c->flight;
    if (!f->busy || f->has_result || result->step != f->step)
        return dr_fail(DR_EPROTO, "result of step %llu, expected %s %llu", (unsigned long long)result->step,
                       f->busy && !f->has_result ? "that of step" : "none: the last step was",
                       (unsigned long long)f->step);
    if (result->n_row != f->n_row)
        return dr_fail(DR_EPROTO, "result of step %llu has %d rows, expected %d", (unsigned long long)f->step,
                       result->n_row, f->n_row);
    const struct dr_result_row *row = result->row;
    for (int32_t i = 0; i < f->n; i++) {
        DR_TRY(take_item(c, &f->item[i], row, now_ns));
        row += out_rows(&f->item[i]);
    }
    f->has_result = true;
    return dr_ok();
}

dr_status dr_collector_logits(struct dr_collector *c, const struct dr_logits *l,
                              const struct dr_request **request) {
    const struct dr_flight *f = &c->flight;
    const struct dr_flight_item *item = NULL;
    for (int32_t i = 0; i < f->n && f->busy && l->step == f->step; i++)
        if (f->item[i].output == DR_OUTPUT_LOGITS && f->item[i].slot == l->slot) item = &f->item[i];
    if (!item || l->position < item->first || l->position >= item->first + item->n_rows)
        return dr_fail(DR_EPROTO, "logits of step %llu slot %d position %d were not asked for",
                       (unsigned long long)l->step, l->slot, l->position);
    if (l->n < 1 || l->first < 0 || l->first > c->config->vocab - l->n || l->n > f->logits_left)
        return dr_fail(DR_EPROTO,
                       "logits of slot %d position %d: columns [%d, %d + %d), the vocabulary has %d, %lld "
                       "values were missing",
                       l->slot, l->position, l->first, l->first, l->n, c->config->vocab,
                       (long long)f->logits_left);
    c->flight.logits_left -= l->n;
    *request = item->request;
    return dr_ok();
}
