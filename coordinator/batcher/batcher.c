/* batcher.c - see batcher.h.
 * In:   book.      Out: draft.
 * Owns: the draft's items.
 * Why:  see batcher.h. */
#include "coordinator/batcher/batcher.h"

#include <stdlib.h>

#include "common/size.h"

dr_status dr_batcher_init(struct dr_batcher *b, struct dr_book *book, int32_t vocab) {
    struct dr_batcher out = {.book = book, .step_tokens = book->layout->step_tokens, .vocab = vocab};
    out.draft.item = calloc((size_t)book->layout->seqs_max, sizeof *out.draft.item);
    if (!out.draft.item)
        return dr_fail(DR_EFULL, "coordinator: no memory for a draft of %d", book->layout->seqs_max);
    *b = out;
    return dr_ok();
}

void dr_batcher_fini(struct dr_batcher *b) {
    free(b->draft.item);
    *b = (struct dr_batcher){0};
}

int32_t dr_batcher_chunk(const struct dr_batcher *b, int32_t first) {
    (void)first;
    return b->step_tokens;
}

size_t dr_batcher_open_bytes(const struct dr_request *r, int32_t vocab) {
    size_t bytes = 96 + (size_t)r->n_bias * (4 + 4); /* fixed fields; an id of at most 2^20 takes 3 bytes */
    if (!dr_request_penalised(r)) return bytes;
    size_t prompt = (size_t)dr_min_i32(r->n_prompt, vocab);
    size_t output = (size_t)dr_min_i32(r->n_ids - r->n_prompt, vocab);
    return bytes + prompt * 3 + output * (3 + 3);
}

static size_t
result_row_bytes(int32_t n_top) { /* tags, slot, position, id, logprob; id and value an alternative */
    return 48 + (size_t)dr_max_i32(n_top, 0) * (4 + 4);
}

static void add(struct dr_draft *d, struct dr_request *r, struct dr_draft_item item) {
    item.request = r;
    r->draft = 1;
    d->item[d->n++] = item;
    d->n_rows += item.n_rows;
    if (item.output == DR_OUTPUT_SAMPLE) d->result_bytes += result_row_bytes(r->sampling.n_top);
    if (item.output == DR_OUTPUT_SCORE)
        d->result_bytes += (size_t)item.n_rows * result_row_bytes(r->prompt_top);
    if (item.output == DR_OUTPUT_LOGITS) {
        d->result_bytes += (size_t)item.n_rows * result_row_bytes(0);
        d->has_logits = true;
    }
}

/* The youngest running request that is not in the draft; NULL when there is none. */
static struct dr_request *youngest(const struct dr_book *book) {
    for (int32_t i = book->n_running - 1; i >= 0; i--)
        if (!book->running[i]->draft) return book->running[i];
    return NULL;
}

/* Makes room for one more position of r, preempting younger ones. False when r itself had to go, or when one
 * is stuck. */
static bool make_room(struct dr_batcher *b, struct dr_request *r) {
    struct dr_book *book = b->book;
    while (dr_ledger_lacks(&book->ledger, r->slot, r->n_ids) > book->ledger.n_free) {
        struct dr_request *victim = youngest(book);
        DR_ASSERT(victim != NULL); /* r is one */
        if (dr_batcher_open_bytes(victim, b->vocab) > DR_OPEN_BYTES_MAX) {
            b->draft.stuck = victim;
            return false;
        }
        dr_book_preempt(book, victim);
        if (victim == r) return false;
    }
    dr_status st = dr_ledger_reserve(&book->ledger, r->slot, r->n_ids);
    DR_ASSERT(st.code == DR_OK);
    return true;
}

/* Decodes: every running request whose newest token is all that is left. When they exceed the budget, the
 * start rotates. Preempting removes entries behind or at the cursor's request only by value, so the list is
 * read again after each. */
static void draft_decodes(struct dr_batcher *b, int32_t budget) {
    struct dr_book *book = b->book;
    struct dr_draft *d = &b->draft;
    int32_t n_decode = 0;
    for (int32_t i = 0; i < book->n_running; i++) n_decode += dr_request_decodes(book->running[i]);
    int32_t skip = n_decode > budget ? b->turn % n_decode : 0;
    for (int32_t round = 0; round < 2; round++) { /* from `skip` to the end, then the first `skip` */
        int32_t seen = 0;
        for (int32_t i = 0; i < book->n_running && d->n_rows < budget; i++) {
            struct dr_request *r = book->running[i];
            if (!dr_request_decodes(r) || r->draft) continue;
            if (round == 0 && seen++ < skip) continue;
            if (!make_room(b, r)) {
                if (d->stuck) return;
                i = -1; /* the list has changed; entries in the draft are passed over */
                seen = 0;
                skip = 0;
                continue;
            }
            add(d, r,
                (struct dr_draft_item){.first = r->n_done,
                                       .n_rows = 1,
                                       .role = DR_TOKENS_GENERATED,
                                       .output = DR_OUTPUT_SAMPLE});
        }
        if (skip == 0) break;
    }
    b->turn = n_decode > budget ? (b->turn + d->n) % n_decode : 0;
}

static int32_t logits_rows(const struct dr_batcher *b) {
    int32_t rows = (int32_t)(DR_LOGITS_BYTES_MAX / ((int64_t)b->vocab * 4));
    return dr_max_i32(1, dr_min_i32(rows, DR_LOGITS_ROWS_MAX));
}

/* Rows of a scored prompt: outputs of rows told before (preemption) are not repeated; the last row is sampled
 * on its own. */
static int32_t limit_prompt_rows(const struct dr_batcher *b, const struct dr_request *r, int32_t rows,
                                 enum dr_output *output) {
    int32_t first = r->n_done, end = r->n_prompt;
    bool draws = r->max_new > 0 && r->n_ids == r->n_prompt;
    if (!r->logits && !dr_request_scores(r)) return rows;
    if (first < r->n_told) return dr_min_i32(rows, r->n_told - first);
    if (r->logits) {
        if (b->draft.has_logits) return 0; /* one request's a step: bounds what waits on the link */
        *output = DR_OUTPUT_LOGITS;
        return dr_min_i32(rows, logits_rows(b));
    }
    if (draws || r->n_ids > r->n_prompt) end--;
    if (first >= end) return rows; /* the last row */
    int64_t room = ((int64_t)DR_RESULT_BYTES_MAX - (int64_t)b->draft.result_bytes) /
                   (int64_t)result_row_bytes(r->prompt_top);
    *output = DR_OUTPUT_SCORE;
    rows = dr_min_i32(rows, end - first);
    return (int32_t)(room < rows ? (room < 0 ? 0 : room) : rows);
}

/* The next chunk of r's known rows, at most `budget` of them; false when none may run now. */
static bool next_chunk(const struct dr_batcher *b, const struct dr_request *r, int32_t budget,
                       struct dr_draft_item *out) {
    struct dr_draft_item item = {.first = r->n_done, .role = DR_TOKENS_GENERATED, .output = DR_OUTPUT_NONE};
    int32_t rows = dr_min_i32(budget, dr_batcher_chunk(b, item.first));
    if (item.first < r->n_prompt) {
        item.role = DR_TOKENS_PROMPT;
        rows = dr_min_i32(rows, r->n_prompt - item.first);
        rows = limit_prompt_rows(b, r, rows, &item.output);
    } else {
        rows = dr_min_i32(rows, r->n_ids - item.first);
    }
    item.n_rows = rows;
    bool last = item.first + rows == r->n_ids;
    if (last && item.output == DR_OUTPUT_NONE && r->max_new > 0) item.output = DR_OUTPUT_SAMPLE;
    *out = item;
    return rows > 0;
}

static void draft_prefill(struct dr_batcher *b) {
    struct dr_book *book = b->book;
    struct dr_draft_item item;
    for (int32_t i = 0; i < book->n_running && b->draft.n_rows < b->step_tokens; i++) {
        struct dr_request *r = book->running[i];
        if (r->draft || dr_request_decodes(r)) continue;
        if (next_chunk(b, r, b->step_tokens - b->draft.n_rows, &item)) add(&b->draft, r, item);
    }
}

/* Whoever starts takes part at once, so that its Open is counted here, in the plan that carries it. */
static void draft_admissions(struct dr_batcher *b) {
    struct dr_book *book = b->book;
    struct dr_draft *d = &b->draft;
    struct dr_request *r = NULL;
    struct dr_draft_item item;
    while (d->n_rows < b->step_tokens && (r = dr_queue_head(&book->queue)) && dr_book_fits(book, r)) {
        size_t bytes = dr_batcher_open_bytes(r, b->vocab);
        if (d->open_bytes + bytes > DR_OPEN_BYTES_MAX) return;
        if (!next_chunk(b, r, b->step_tokens - d->n_rows, &item)) return;
        d->open_bytes += bytes;
        dr_book_start(book, r);
        add(d, r, item);
    }
}

/* Decodes leave an eighth of the rows, at least one, to prefill when somebody waits for it: a full house of
 * decodes must not hold a prompt up. A step of one row is the exception: there a decode goes on to its end.
 * With prefill_first decodes wait for prompts instead. */
static int32_t decode_budget(const struct dr_batcher *b) {
    const struct dr_book *book = b->book;
    const struct dr_request *head = dr_queue_head(&book->queue);
    bool prefill = head && dr_book_fits(book, head);
    for (int32_t i = 0; i < book->n_running && !prefill; i++) prefill = !dr_request_decodes(book->running[i]);
    if (prefill && b->prefill_first) return 0;
    if (!prefill || b->step_tokens == 1) return b->step_tokens;
    return b->step_tokens - dr_max_i32(1, b->step_tokens / 8);
}

const struct dr_draft *dr_batcher_draft(struct dr_batcher *b) {
    struct dr_draft *d = &b->draft;
    *d = (struct dr_draft){.item = d->item};
    for (int32_t i = 0; i < b->book->n_running; i++) b->book->running[i]->draft = 0;
    draft_decodes(b, decode_budget(b));
    if (d->stuck) {
        d->n = 0;
        return d;
    }
    draft_prefill(b);
    draft_admissions(b);
    if (d->n == 0 && b->prefill_first)
        draft_decodes(b, b->step_tokens); /* the prompt that they waited for cannot run */
    if (d->stuck) d->n = 0;
    return d;
}
