/* batcher.c - see batcher.h.
 * In:   book.      Out: draft.
 * Owns: the draft's items.
 * Why:  see batcher.h. */
#include "coordinator/batcher/batcher.h"

#include <math.h>
#include <stdlib.h>

#include "common/size.h"

enum {
    PROMPT_FACTOR = 4, /* steps without decodes may take this many times longer: nobody waits for a token */
};

dr_status dr_batcher_init(struct dr_batcher *b, struct dr_book *book, const struct dr_pace *pace,
                          const struct dr_drafts *drafts, uint64_t step_ns) {
    struct dr_batcher out = {
        .book = book,
        .pace = pace,
        .drafts = drafts,
        .step_ns = step_ns,
        .step_tokens = book->layout->step_tokens,
        .vocab = book->config->vocab,
        .n_cohort = book->layout->pp,
    };
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

size_t dr_batcher_open_bytes(const struct dr_request *r, int32_t vocab) {
    size_t bytes = 96 + (size_t)r->n_bias * (4 + 4); /* fixed fields; an id of at most 2^20 takes 3 bytes */
    if (!dr_request_penalised(r)) return bytes;
    size_t prompt = (size_t)dr_min_i32(r->n_prompt, vocab);
    size_t output = (size_t)dr_min_i32(r->n_ids - r->n_prompt, vocab);
    return bytes + prompt * 3 + output * (3 + 3);
}

/* Of one id: tags, slot, position, id, log-probability; id and value an alternative. A draft has no more than
 * that. */
static size_t result_row_bytes(int32_t n_top) {
    return 48 + (size_t)dr_max_i32(n_top, 0) * (4 + 4);
}

static bool absorbed(const struct dr_request *r, enum dr_tokens_role role) {
    return role == DR_TOKENS_GENERATED || r->form == DR_FORM_ABSORBED;
}

static void add(struct dr_batcher *b, struct dr_request *r, struct dr_draft_item item) {
    struct dr_draft *d = &b->draft;
    item.request = r;
    r->taken = true;
    d->item[d->n++] = item;
    d->n_rows += item.n_rows;
    d->work += dr_pace_segment(b->pace, absorbed(r, item.role), item.first, item.n_rows);
    if (item.output == DR_OUTPUT_SAMPLE)
        d->result_bytes += (size_t)(1 + item.n_verify) * result_row_bytes(r->sampling.n_top) +
                           (size_t)item.n_draft * sizeof *r->ids;
    if (item.output == DR_OUTPUT_SCORE)
        d->result_bytes += (size_t)item.n_rows * result_row_bytes(r->prompt_top);
    if (item.output == DR_OUTPUT_LOGITS) {
        d->result_bytes += (size_t)item.n_rows * result_row_bytes(0);
        d->has_logits = true;
    }
}

/* The youngest running request that is neither in the draft nor in a step under way; NULL when there is none.
 */
static struct dr_request *youngest(const struct dr_book *book) {
    for (int32_t i = book->n_running - 1; i >= 0; i--)
        if (!book->running[i]->taken && book->running[i]->n_flight == 0) return book->running[i];
    return NULL;
}

enum room { ROOM_YES, ROOM_LATER, ROOM_CHANGED }; /* CHANGED: somebody had to go, or is stuck */

/* Drafts for a segment of r that draws: how many of those it has go along, how many new ones are asked for.
 * No more than can still become output; none when pages are short, or the result's frame half full. rows:
 * that the drafts may add. */
static void add_drafts(struct dr_batcher *b, const struct dr_request *r, int32_t rows,
                       struct dr_draft_item *item) {
    struct dr_ledger *ledger = &b->book->ledger;
    const int32_t left = r->max_new - dr_request_output(r);
    const int32_t n_verify = dr_max_i32(0, dr_min_i32(dr_min_i32(r->n_guess, rows), left - 1));
    const int32_t n_draft = dr_max_i32(0, dr_min_i32(b->draft.wanted, dr_min_i32(left - 2, left - n_verify)));
    const int32_t end = dr_book_positions(b->book, r, n_verify, n_draft);
    if (n_verify + n_draft == 0 || b->draft.result_bytes > DR_RESULT_BYTES_MAX / 2 ||
        dr_ledger_lacks(ledger, r->slot, end) > dr_ledger_room(ledger))
        return;
    dr_status st = dr_ledger_reserve(ledger, r->slot, end);
    DR_ASSERT(st.code == DR_OK);
    item->n_rows += n_verify;
    item->n_verify = n_verify;
    item->n_draft = n_draft;
}

/* Makes room for one more position of r, preempting younger ones. When only older ones are left, r itself
 * goes; but while steps are under way it waits instead, for a younger one may be in them. rows: for drafts.
 */
static enum room make_room(struct dr_batcher *b, struct dr_request *r, int32_t rows) {
    struct dr_book *book = b->book;
    const int32_t end = dr_book_positions(book, r, 0, 0);
    struct dr_draft_item item = {
        .first = r->n_sched, .n_rows = 1, .role = DR_TOKENS_GENERATED, .output = DR_OUTPUT_SAMPLE};
    bool changed = false;
    while (dr_ledger_lacks(&book->ledger, r->slot, end) > dr_ledger_room(&book->ledger)) {
        struct dr_request *victim = youngest(book);
        DR_ASSERT(victim != NULL); /* r is one */
        if (victim == r && b->under_way > 0) return changed ? ROOM_CHANGED : ROOM_LATER;
        if (dr_batcher_open_bytes(victim, b->vocab) > DR_OPEN_BYTES_MAX) {
            b->draft.stuck = victim;
            return ROOM_CHANGED;
        }
        dr_book_preempt(book, victim);
        if (victim == r) return ROOM_CHANGED;
        changed = true;
    }
    dr_status st = dr_ledger_reserve(&book->ledger, r->slot, end);
    DR_ASSERT(st.code == DR_OK);
    add_drafts(b, r, rows, &item);
    add(b, r, item);
    b->draft.decode_work = b->draft.work;
    b->draft.n_decode++;
    b->draft.n_verify += item.n_verify;
    return changed ? ROOM_CHANGED : ROOM_YES;
}

/* Decodes: every running request whose newest token is all that is left, a P-th of those that generate at
 * most. Rows that are left are for their drafts. When they exceed the budget, the start rotates. After
 * preempting, the list is read again from its start; entries in the draft are passed over. */
static void draft_decodes(struct dr_batcher *b, int32_t budget) {
    struct dr_book *book = b->book;
    struct dr_draft *d = &b->draft;
    int32_t n_decode = 0, generating = 0;
    for (int32_t i = 0; i < book->n_running; i++) {
        n_decode += dr_request_decodes(book->running[i]);
        generating += dr_request_generates(book->running[i]);
    }
    const int32_t most = dr_min_i32(budget, dr_ceil_div(generating, b->n_cohort));
    const int32_t taking = dr_min_i32(n_decode, most);
    const int32_t drafts = budget / dr_max_i32(1, taking) - 1; /* rows for each one's */
    int32_t skip = n_decode > most ? b->turn % n_decode : 0;
    d->wanted = b->book->layout->mtp ? dr_drafts_wanted(b->drafts, taking) : 0;
    for (int32_t round = 0; round < 2; round++) { /* from `skip` to the end, then the first `skip` */
        int32_t seen = 0;
        for (int32_t i = 0; i < book->n_running && d->n < most; i++) {
            struct dr_request *r = book->running[i];
            if (!dr_request_decodes(r) || r->taken) continue;
            if (round == 0 && seen++ < skip) continue;
            if (make_room(b, r, drafts) != ROOM_CHANGED) continue;
            if (d->stuck) return;
            i = -1;
            seen = 0;
            skip = 0;
        }
        if (skip == 0) break;
    }
    b->turn = n_decode > most ? (b->turn + d->n) % n_decode : 0;
}

static int32_t logits_rows(const struct dr_batcher *b) {
    int32_t rows = (int32_t)(DR_LOGITS_BYTES_MAX / ((int64_t)b->vocab * 4));
    return dr_max_i32(1, dr_min_i32(rows, DR_LOGITS_ROWS_MAX));
}

/* Rows of a scored prompt: outputs of rows told before (preemption) are not repeated; the last row is sampled
 * on its own. */
static int32_t limit_prompt_rows(const struct dr_batcher *b, const struct dr_request *r, int32_t rows,
                                 enum dr_output *output) {
    int32_t first = r->n_sched, end = r->n_prompt;
    bool draws = r->max_new > 0 && r->n_ids == r->n_prompt;
    if (!r->logits && !dr_request_scores(r)) return rows;
    if (first < r->n_told) return dr_min_i32(rows, r->n_told - first);
    if (r->logits) {
        if (b->draft.has_logits || b->under_way > 0) return 0; /* alone: bounds what waits on the link */
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

/* Rows below which a chunk is wasteful: a step's fixed work, or expanding what is before the chunk, outweighs
 * it. While somebody waits for a token half of a step may be such work, else a quarter. */
static int32_t chunk_least(const struct dr_batcher *b, bool absorbed, int32_t first, bool decodes) {
    const double even = absorbed ? 0 : dr_pace_even_rows(b->pace, first) * (decodes ? 1 : 3);
    return dr_max_i32(DR_CHUNK_LEAST, even < DR_STEP_TOKENS_MAX ? (int32_t)even : DR_STEP_TOKENS_MAX);
}

/* Rows of a chunk that starts at `first`, at most: what the layout allows, and what the step's wanted time
 * leaves; of the first one in a step never fewer than make sense. */
static int32_t chunk_rows(const struct dr_batcher *b, bool absorbed, int32_t first) {
    const struct dr_draft *d = &b->draft;
    const int32_t most = dr_layout_chunk(b->book->layout);
    if (b->step_ns == 0) return most;
    const bool decodes = d->n > 0 && d->item[0].role == DR_TOKENS_GENERATED;
    const double within = dr_pace_within(b->pace, b->step_ns * (decodes ? 1 : PROMPT_FACTOR)),
                 left = within - dr_pace_fixed(b->pace) - d->work;
    const int32_t fits = isinf(left) ? most : dr_pace_rows(b->pace, absorbed, first, left),
                  least = chunk_least(b, absorbed, first, decodes);
    if (fits >= least) return dr_min_i32(fits, most);
    return d->has_chunk ? 0 : dr_min_i32(least, most);
}

/* The next chunk of r's known rows, at most `budget` of them; false when none may run now. */
static bool next_chunk(const struct dr_batcher *b, const struct dr_request *r, int32_t budget,
                       struct dr_draft_item *out) {
    struct dr_draft_item item = {.first = r->n_sched, .role = DR_TOKENS_GENERATED, .output = DR_OUTPUT_NONE};
    if (item.first < r->n_prompt) item.role = DR_TOKENS_PROMPT;
    int32_t rows = dr_min_i32(budget, chunk_rows(b, absorbed(r, item.role), item.first));
    if (item.role == DR_TOKENS_PROMPT) {
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

static void add_chunk(struct dr_batcher *b, struct dr_request *r, struct dr_draft_item item) {
    if (item.output == DR_OUTPUT_SAMPLE) add_drafts(b, r, 0, &item);
    add(b, r, item);
    b->draft.has_chunk = true;
}

static void draft_prefill(struct dr_batcher *b) {
    struct dr_book *book = b->book;
    struct dr_draft_item item;
    for (int32_t i = 0; i < book->n_running && b->draft.n_rows < b->step_tokens; i++) {
        struct dr_request *r = book->running[i];
        if (r->taken || dr_request_decodes(r) || dr_request_left(r) == 0) continue;
        if (next_chunk(b, r, b->step_tokens - b->draft.n_rows, &item)) add_chunk(b, r, item);
    }
}

/* The waiting request that may start now, or NULL. Parks whoever will find its prefix in the cache soon. */
static struct dr_request *startable(struct dr_batcher *b) {
    for (;;) {
        struct dr_request *r = dr_queue_head(&b->book->queue);
        if (!r) return NULL;
        switch (dr_book_ready(b->book, r)) {
        case DR_READY_YES:
            return r;
        case DR_READY_LACKS:
            return NULL;
        case DR_READY_PARK:
            r->parked = true;
        }
    }
}

/* Whoever starts takes part at once, so that its Open is counted here, in the plan that carries it. */
static void draft_admissions(struct dr_batcher *b) {
    struct dr_book *book = b->book;
    struct dr_draft *d = &b->draft;
    struct dr_request *r = NULL;
    struct dr_draft_item item;
    while (d->n_rows < b->step_tokens && (r = startable(b))) {
        size_t bytes = dr_batcher_open_bytes(r, b->vocab);
        if (d->open_bytes + bytes > DR_OPEN_BYTES_MAX) return;
        if (!next_chunk(b, r, b->step_tokens - d->n_rows, &item)) return;
        d->open_bytes += bytes;
        dr_book_start(book, r);
        add_chunk(b, r, item);
    }
}

/* Decodes leave an eighth of the rows, at least one, to prefill when somebody waits for it: a full house of
 * decodes must not hold a prompt up. A step of one row is the exception: there a decode goes on to its end.
 * With prefill_first decodes wait for prompts instead. */
static int32_t decode_budget(struct dr_batcher *b) {
    const struct dr_book *book = b->book;
    bool prefill = startable(b) != NULL, first_tokens = false;
    for (int32_t i = 0; i < book->n_running; i++) {
        const struct dr_request *r = book->running[i];
        prefill = prefill || (dr_request_left(r) > 0 && !dr_request_decodes(r));
        first_tokens = first_tokens || !dr_request_generates(r);
    }
    if ((prefill || first_tokens) && b->prefill_first) return 0;
    if (!prefill || b->step_tokens == 1) return b->step_tokens;
    return b->step_tokens - dr_max_i32(1, b->step_tokens / 8);
}

const struct dr_draft *dr_batcher_draft(struct dr_batcher *b, int32_t under_way) {
    struct dr_draft *d = &b->draft;
    *d = (struct dr_draft){.item = d->item};
    b->under_way = under_way;
    for (int32_t i = 0; i < b->book->n_running; i++) b->book->running[i]->taken = false;
    dr_queue_unpark(&b->book->queue);
    draft_decodes(b, decode_budget(b));
    if (d->stuck) {
        d->n = 0;
        return d;
    }
    draft_prefill(b);
    draft_admissions(b);
    if (d->n == 0 && b->prefill_first && b->under_way == 0)
        draft_decodes(b, b->step_tokens); /* the prompt that they waited for cannot run */
    if (d->stuck) d->n = 0;
    return d;
}
