/* collector.c - see collector.h.
 * In:   results.      Out: news.
 * Owns: what collector.h says.
 * Why:  see collector.h. */
#include "coordinator/collector.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

dr_status dr_collector_init(struct dr_collector *c, const struct dr_config *config, struct dr_book *book,
                            int32_t room) {
    const struct dr_layout *l = book->layout;
    struct dr_collector out = {.config = config, .book = book, .room = room};
    size_t seqs = (size_t)l->seqs_max, rows = (size_t)l->step_tokens;
    struct dr_flight_item *item = calloc((size_t)room * seqs, sizeof *item);
    out.flight = calloc((size_t)room, sizeof *out.flight);
    out.ended = calloc(seqs, sizeof *out.ended);
    out.news = calloc(seqs, sizeof *out.news);
    out.ids = calloc(rows, sizeof *out.ids);
    out.logprob = calloc(rows, sizeof *out.logprob);
    out.top = calloc(rows * DR_TOP_MAX, sizeof *out.top);
    if (out.flight)
        out.flight[0].item = item; /* one block, which the first one names */
    else
        free(item);
    if (!out.flight || !item || !out.ended || !out.news || !out.ids || !out.logprob || !out.top) {
        dr_collector_fini(&out);
        return dr_fail(DR_EFULL, "coordinator: no memory for the results of %d rows", l->step_tokens);
    }
    for (int32_t i = 1; i < room; i++) out.flight[i].item = item + (size_t)i * seqs;
    *c = out;
    return dr_ok();
}

void dr_collector_fini(struct dr_collector *c) {
    if (c->flight) free(c->flight[0].item);
    free(c->flight);
    free(c->ended);
    free(c->news);
    free(c->ids);
    free(c->logprob);
    free(c->top);
    *c = (struct dr_collector){0};
}

static int32_t out_rows(const struct dr_flight_item *i) { /* result rows */
    return i->output == DR_OUTPUT_NONE ? 0 : i->output == DR_OUTPUT_SAMPLE ? 1 : i->n_rows;
}

struct dr_flight *dr_collector_begin(struct dr_collector *c, const struct dr_draft *d, uint64_t step) {
    DR_ASSERT(dr_collector_free(c));
    struct dr_flight *f = &c->flight[(c->at + c->n_flight++) % c->room];
    *f = (struct dr_flight){
        .step = step,
        .n = d->n,
        .n_decode = d->n_decode,
        .n_verify = d->n_verify,
        .wanted = d->wanted,
        .decode_work = d->decode_work,
        .item = f->item,
    };
    for (int32_t i = 0; i < d->n; i++) {
        const struct dr_draft_item *from = &d->item[i];
        f->item[i] = (struct dr_flight_item){
            .request = from->request,
            .slot = from->request->slot,
            .first = from->first,
            .n_rows = from->n_rows,
            .n_verify = from->n_verify,
            .n_draft = from->n_draft,
            .output = from->output,
        };
        from->request->n_flight++;
        from->request->n_sched += from->n_rows - from->n_verify;
        f->n_row += out_rows(&f->item[i]);
        *(from->role == DR_TOKENS_PROMPT ? &f->prompt_rows : &f->generated_rows) += from->n_rows;
        if (from->output == DR_OUTPUT_LOGITS) f->logits_left += (int64_t)from->n_rows * c->config->vocab;
    }
    return f;
}

void dr_collector_forget(struct dr_collector *c, struct dr_request *r) {
    for (int32_t k = 0; k < c->n_flight && r->n_flight > 0; k++) {
        struct dr_flight *f = &c->flight[(c->at + k) % c->room];
        for (int32_t i = 0; i < f->n; i++) {
            if (f->item[i].request != r) continue;
            f->item[i].request = NULL;
            r->n_flight--;
        }
    }
    DR_ASSERT(r->n_flight == 0);
    for (int32_t i = 0; i < c->n_ended; i++)
        if (c->ended[i].request == r) c->ended[i].request = NULL;
}

void dr_collector_end(struct dr_collector *c) {
    struct dr_flight *f = dr_collector_oldest(c);
    for (int32_t i = 0; i < f->n; i++)
        if (f->item[i].request) f->item[i].request->n_flight--;
    c->at = (c->at + 1) % c->room;
    c->n_flight--;
}

static void note_end(struct dr_collector *c, struct dr_request *r, enum dr_finish finish, uint32_t stop_id) {
    c->ended[c->n_ended++] = (struct dr_ended){.request = r, .finish = finish, .stop_id = stop_id};
}

/* Appends the first n of a row's ids, with log-probabilities and alternatives, to the news arrays. */
static void keep_row(struct dr_collector *c, const struct dr_result_row *row, int32_t n) {
    const int64_t n_top = (int64_t)n * row->n_top;
    memcpy(&c->ids[c->n_news_row], row->ids, (size_t)n * sizeof *c->ids);
    memcpy(&c->logprob[c->n_news_row], row->logprob, (size_t)n * sizeof *c->logprob);
    c->n_news_row += n;
    if (n_top > 0) memcpy(&c->top[c->n_news_top], row->top, (size_t)n_top * sizeof *c->top);
    c->n_news_top += n_top;
}

static unsigned long long step_of(const struct dr_collector *c) {
    return (unsigned long long)dr_collector_oldest(c)->step;
}

static dr_status check_row(const struct dr_collector *c, const struct dr_flight_item *item, int32_t at,
                           const struct dr_result_row *row) {
    const bool draws = item->output == DR_OUTPUT_SAMPLE;
    const int32_t position = item->first + (draws ? item->n_rows - 1 - item->n_verify : at);
    if (row->slot != item->slot || row->position != position)
        return dr_fail(DR_EPROTO,
                       "result of step %llu: row of slot %d position %d, expected slot %d position %d",
                       step_of(c), row->slot, row->position, item->slot, position);
    if (row->n_ids < 0 || row->n_ids > 1 + item->n_verify || row->n_top < 0 || row->n_top > DR_TOP_MAX)
        return dr_fail(DR_EPROTO,
                       "result of step %llu, slot %d: %d ids and %d alternatives, expected at most %d and %d",
                       step_of(c), row->slot, row->n_ids, row->n_top, 1 + item->n_verify, DR_TOP_MAX);
    if (row->n_draft < 0 || row->n_draft > item->n_draft)
        return dr_fail(DR_EPROTO, "result of step %llu, slot %d: %d drafts, expected at most %d", step_of(c),
                       row->slot, row->n_draft, item->n_draft);
    for (int32_t i = 0; i < row->n_ids + row->n_draft; i++) {
        const uint32_t id = i < row->n_ids ? row->ids[i] : row->draft[i - row->n_ids];
        if (id >= (uint32_t)c->config->vocab)
            return dr_fail(DR_EPROTO, "result of step %llu, slot %d: token %u, the vocabulary has %d",
                           step_of(c), row->slot, id, c->config->vocab);
    }
    return dr_ok();
}

static bool ends_at(const struct dr_request *r, uint32_t id) {
    if (r->ignore_eos || dr_request_output(r) < r->min_new)
        return false; /* below the minimum it is a token like others */
    for (int32_t i = 0; i < r->n_end; i++)
        if (r->end_ids[i] == id) return true;
    return false;
}

/* A token was drawn; true when it is the last one. */
static bool take_token(struct dr_collector *c, struct dr_request *r, uint32_t id) {
    r->ids[r->n_ids++] = id;
    c->n_drawn++;
    if (ends_at(r, id))
        note_end(c, r, DR_FINISH_STOP, id);
    else if (dr_request_output(r) >= r->max_new)
        note_end(c, r, DR_FINISH_LENGTH, UINT32_MAX);
    else
        return false;
    return true;
}

/* What came of the drafts that went along, of which n tokens were taken; and the new ones. */
static void take_drafts(struct dr_request *r, const struct dr_flight_item *item,
                        const struct dr_result_row *row, int32_t n) {
    const int32_t left = r->max_new - dr_request_output(r);
    for (int32_t i = 0; i < item->n_verify; i++) {
        r->drafted[i]++;
        r->accepted[i] += i < row->n_accepted && i < n;
    }
    r->n_guess = dr_max_i32(0, dr_min_i32(row->n_draft, left - 1));
    memcpy(&r->ids[r->n_ids], row->draft, (size_t)r->n_guess * sizeof *r->ids);
}

/* *n: tokens taken; those behind an end are not. */
static dr_status take_sample(struct dr_collector *c, struct dr_request *r, const struct dr_flight_item *item,
                             const struct dr_result_row *row, uint64_t now_ns, int32_t *n) {
    const int32_t expected = row->n_accepted + (row->fault == DR_FAULT_NONE);
    if (row->n_ids != expected || row->n_accepted > item->n_verify ||
        (row->n_ids > 0 && row->n_top != dr_max_i32(0, r->sampling.n_top)))
        return dr_fail(
            DR_EPROTO,
            "result of step %llu, slot %d: %d tokens with %d alternatives, %d of %d drafts accepted; "
            "expected one token more than accepted drafts, with %d",
            step_of(c), row->slot, row->n_ids, row->n_top, row->n_accepted, item->n_verify,
            r->sampling.n_top);
    for (int32_t i = 0; i < row->n_accepted; i++)
        if (row->ids[i] != r->ids[r->n_ids + i])
            return dr_fail(DR_EPROTO,
                           "result of step %llu, slot %d: draft %d accepted as token %u, it was %u",
                           step_of(c), row->slot, i, row->ids[i], r->ids[r->n_ids + i]);
    bool logprobs = r->sampling.n_top >= 0, over = false;
    struct dr_token_news *news = &c->news[c->n_news++];
    *news = (struct dr_token_news){
        .request = r->id,
        .position = r->n_ids,
        .ids = &c->ids[c->n_news_row],
        .logprob = logprobs ? &c->logprob[c->n_news_row] : NULL,
        .n_top = row->n_top,
        .top = row->n_top > 0 ? &c->top[c->n_news_top] : NULL,
    };
    while (!over && news->n < row->n_ids) over = take_token(c, r, row->ids[news->n++]);
    keep_row(c, row, news->n);
    take_drafts(r, item, row, news->n);
    if (r->first_ns == 0) r->first_ns = now_ns;
    r->last_ns = now_ns;
    *n = news->n;
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
                           step_of(c), item->slot, item->first + i, row[i].n_ids, row[i].n_top, n_ids,
                           r->prompt_top);
        if (n_ids == 0) continue;
        keep_row(c, &row[i], 1);
        news.n++;
    }
    if (news.n > 0) c->news[c->n_news++] = news;
    return dr_ok();
}

/* Whether the slot's rows of this step are not all finite. */
static bool is_bad(const struct dr_step_result *result, int32_t slot) {
    for (int32_t i = 0; i < result->n_bad; i++)
        if (result->bad[i] == slot) return true;
    return false;
}

static dr_status take_item(struct dr_collector *c, const struct dr_flight_item *item,
                           const struct dr_step_result *result, const struct dr_result_row *row,
                           uint64_t now_ns) {
    struct dr_request *r = item->request;
    int32_t n = out_rows(item), drawn = 0;
    bool bad = is_bad(result, item->slot);
    for (int32_t i = 0; i < n; i++) {
        DR_TRY(check_row(c, item, i, &row[i]));
        bad = bad || row[i].fault != DR_FAULT_NONE;
    }
    if (!r) return dr_ok();
    if (bad) { /* tokens drawn before the fault are good */
        const int32_t ended = c->n_ended;
        dr_book_disown(c->book, r);
        if (item->output == DR_OUTPUT_SAMPLE && row->fault != DR_FAULT_NONE && row->n_ids > 0)
            DR_TRY(take_sample(c, r, item, row, now_ns, &drawn));
        if (c->n_ended == ended) note_end(c, r, DR_FINISH_NUMERIC, UINT32_MAX);
        return dr_ok();
    }
    if (item->output == DR_OUTPUT_SAMPLE) DR_TRY(take_sample(c, r, item, row, now_ns, &drawn));
    if (item->output == DR_OUTPUT_SCORE) DR_TRY(take_scores(c, r, item, row));
    /* Of the rows of drafts those are there whose token was drawn, too. */
    const int32_t accepted = item->n_verify > 0 ? drawn - 1 : 0;
    r->n_sched += accepted;
    dr_book_advance(c->book, r, item->n_rows - item->n_verify + accepted);
    if (item->output != DR_OUTPUT_NONE && item->output != DR_OUTPUT_SAMPLE) r->n_told = r->n_done;
    if (r->n_done == r->n_ids && r->max_new == 0) note_end(c, r, DR_FINISH_LENGTH, UINT32_MAX);
    return dr_ok();
}

dr_status dr_collector_result(struct dr_collector *c, const struct dr_step_result *result, uint64_t now_ns) {
    struct dr_flight *f = dr_collector_oldest(c);
    c->n_ended = c->n_news = c->n_news_row = 0;
    c->n_news_top = 0;
    if (!f || f->has_result || result->step != f->step)
        return dr_fail(DR_EPROTO, "result of step %llu, expected %s %llu", (unsigned long long)result->step,
                       f && !f->has_result ? "that of step"
                                           : "none: no step waits for one; the oldest under way is",
                       f ? (unsigned long long)f->step : 0);
    if (result->n_row != f->n_row)
        return dr_fail(DR_EPROTO, "result of step %llu has %d rows, expected %d", (unsigned long long)f->step,
                       result->n_row, f->n_row);
    const struct dr_result_row *row = result->row;
    for (int32_t i = 0; i < f->n; i++) {
        const uint64_t before = c->n_drawn;
        DR_TRY(take_item(c, &f->item[i], result, row, now_ns));
        if (i < f->n_decode) f->n_drawn += (int32_t)(c->n_drawn - before);
        row += out_rows(&f->item[i]);
    }
    f->has_result = true;
    return dr_ok();
}

dr_status dr_collector_logits(struct dr_collector *c, const struct dr_logits *l,
                              const struct dr_request **request) {
    struct dr_flight *f = dr_collector_oldest(c);
    const struct dr_flight_item *item = NULL;
    for (int32_t i = 0; f && i < f->n && l->step == f->step; i++)
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
    f->logits_left -= l->n;
    *request = item->request;
    return dr_ok();
}
