/* book.c - see book.h.
 * In:   moves.      Out: lists that agree.
 * Owns: what book.h says.
 * Why:  see book.h. */
#include "coordinator/book.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

static dr_status init_parts(struct dr_book *b) {
    const struct dr_layout *l = b->layout;
    int32_t n_request =
        DR_WAITING_MAX + l->seqs_max; /* a preempted request comes back to a queue that may be full */
    DR_TRY(dr_pool_init(&b->pool, n_request, l->context, l->page_tokens));
    DR_TRY(dr_queue_init(&b->queue, n_request));
    struct dr_ledger_setup setup = {
        .n_page = l->n_page,
        .page_tokens = l->page_tokens,
        .n_slot = l->seqs_max,
        .context = l->context,
    };
    DR_TRY(dr_ledger_init(&b->ledger, &setup));
    b->running = calloc((size_t)l->seqs_max, sizeof *b->running);
    b->by_slot = calloc((size_t)l->seqs_max, sizeof *b->by_slot);
    b->spare = calloc((size_t)l->seqs_max, sizeof *b->spare);
    b->drop = calloc((size_t)l->seqs_max, sizeof *b->drop);
    if (!b->running || !b->by_slot || !b->spare || !b->drop)
        return dr_fail(DR_EFULL, "coordinator: no memory for %d slots", l->seqs_max);
    return dr_ok();
}

dr_status dr_book_init(struct dr_book *b, const struct dr_config *c, const struct dr_layout *l,
                       enum dr_reuse reuse) {
    struct dr_book out = {.config = c, .layout = l, .reuse = reuse, .n_spare = l->seqs_max};
    dr_status st = init_parts(&out);
    if (st.code != DR_OK) {
        dr_book_fini(&out);
        return st;
    }
    for (int32_t i = 0; i < l->seqs_max; i++) out.spare[i] = l->seqs_max - 1 - i;
    *b = out;
    return dr_ok();
}

void dr_book_fini(struct dr_book *b) {
    dr_pool_fini(&b->pool);
    dr_queue_fini(&b->queue);
    dr_ledger_fini(&b->ledger);
    free(b->running);
    free(b->by_slot);
    free(b->spare);
    free(b->drop);
    *b = (struct dr_book){0};
}

struct dr_request *dr_book_open(struct dr_book *b) {
    struct dr_request *r = dr_pool_acquire(&b->pool);
    if (r) r->arrival = b->n_arrival++;
    return r;
}

/* Names the whole pages of all known tokens. With --reuse=exact rows of both roles differ, so a name says how
 * many of the page's rows are prompt. */
static void name_pages(const struct dr_book *b, struct dr_request *r) {
    const int32_t per = b->ledger.page_tokens;
    if (b->reuse == DR_REUSE_OFF) return;
    for (; (r->n_name + 1) * per <= r->n_ids; r->n_name++) {
        const int32_t first = r->n_name * per, prompt = dr_max_i32(0, dr_min_i32(r->n_prompt - first, per));
        dr_prefix_next(&r->name[r->n_name], r->ids + first, per,
                       b->reuse == DR_REUSE_EXACT ? (uint32_t)prompt : 0, &r->name[r->n_name + 1]);
    }
}

void dr_book_accept(struct dr_book *b, struct dr_request *r, const char *salt) {
    dr_prefix_root(salt, &r->name[0]);
    name_pages(b, r);
    dr_queue_push(&b->queue, r);
}

/* Pages at r's beginning that it need not compute, at most: the last token must pass through the model. */
static int32_t most_shared(const struct dr_book *b, const struct dr_request *r) {
    if (b->reuse == DR_REUSE_OFF || dr_request_scores(r) || r->logits) return 0;
    return (r->n_ids - 1) / b->ledger.page_tokens;
}

/* Looks for r's pages; true when the next one is being computed. What was found once stays found until some
 * page is forgotten. */
static bool look(const struct dr_book *b, struct dr_request *r) {
    const struct dr_prefix *p = &b->ledger.prefix;
    const int32_t most = most_shared(b, r);
    if (r->found_at != p->n_forgotten) r->n_found = 0;
    r->found_at = p->n_forgotten;
    for (; r->n_found < most; r->n_found++) {
        const int32_t page = dr_prefix_find(p, &r->name[r->n_found + 1]);
        if (page < 0) return false;
        if (p->state[page] == DR_PAGE_PENDING) return true;
    }
    return false;
}

/* Idle pages among those found: sharing them takes from the room. */
static int32_t found_idle(const struct dr_book *b, const struct dr_request *r) {
    int32_t n = 0;
    for (int32_t i = 0; i < r->n_found; i++)
        n += b->ledger.ref[dr_prefix_find(&b->ledger.prefix, &r->name[i + 1])] == 0;
    return n;
}

/* What r would start with. The MTP layer's first new row joins its token with the state before it, which is
 * not in the cache: the last row that was found is computed again. */
static enum dr_readiness ready(const struct dr_book *b, struct dr_request *r) {
    r->n_done = r->n_sched = r->n_found * b->ledger.page_tokens - (b->layout->mtp && r->n_found > 0);
    r->form = dr_form_of(b->config, b->reuse == DR_REUSE_EXACT ? 0 : r->n_done,
                         dr_min_i32(r->n_prompt - r->n_done, b->layout->step_tokens));
    return DR_READY_YES;
}

int32_t dr_book_positions(const struct dr_book *b, const struct dr_request *r, int32_t n_verify,
                          int32_t n_draft) {
    if (!b->layout->mtp || dr_request_output(r) >= r->max_new) return r->n_ids;
    return r->n_ids + n_verify + dr_max_i32(1, n_draft);
}

enum dr_readiness dr_book_ready(const struct dr_book *b, struct dr_request *r) {
    if (look(b, r)) return DR_READY_PARK;
    const int32_t known = dr_ledger_pages(&b->ledger, r->n_ids),
                  most = dr_ledger_pages(&b->ledger, r->n_given + r->max_new),
                  own = dr_min_i32(known + 1, most) - r->n_found, room = dr_ledger_room(&b->ledger);
    if (b->n_spare == 0 || own > room) return DR_READY_LACKS;
    if (own + r->n_found <= room || own + found_idle(b, r) <= room) return ready(b, r);
    return DR_READY_LACKS;
}

static void insert_running(struct dr_book *b, struct dr_request *r) {
    int32_t i = b->n_running;
    while (i > 0 && dr_request_before(r, b->running[i - 1])) i--;
    memmove(&b->running[i + 1], &b->running[i], (size_t)(b->n_running - i) * sizeof *b->running);
    b->running[i] = r;
    b->n_running++;
}

static void remove_running(struct dr_book *b, struct dr_request *r) {
    int32_t i = 0;
    while (i < b->n_running && b->running[i] != r) i++;
    DR_ASSERT(i < b->n_running);
    memmove(&b->running[i], &b->running[i + 1], (size_t)(b->n_running - i - 1) * sizeof *b->running);
    b->n_running--;
}

/* Gives r's page i its name, unless the cache has a page of this name already. */
static void name_own(struct dr_book *b, const struct dr_request *r, int32_t i) {
    struct dr_prefix *p = &b->ledger.prefix;
    if (!r->secret && dr_prefix_find(p, &r->name[i + 1]) < 0)
        dr_prefix_name(p, (int32_t)dr_ledger_table(&b->ledger, r->slot)[i], &r->name[i + 1]);
}

/* Shares what was found, reserves the rest, and lets others know what will be computed. */
static void take_pages(struct dr_book *b, struct dr_request *r) {
    struct dr_ledger *l = &b->ledger;
    r->n_shared = r->n_filled = r->n_found;
    for (int32_t i = 0; i < r->n_shared; i++)
        dr_ledger_share(l, r->slot, dr_prefix_find(&l->prefix, &r->name[i + 1]));
    dr_status st = dr_ledger_reserve(l, r->slot, dr_book_positions(b, r, 0, 0));
    DR_ASSERT(st.code == DR_OK);
    for (int32_t i = r->n_shared; i < r->n_name; i++) name_own(b, r, i);
}

void dr_book_start(struct dr_book *b, struct dr_request *r) {
    DR_ASSERT(r->state == DR_REQUEST_WAITING && b->n_spare > 0);
    dr_queue_remove(&b->queue, r);
    r->state = DR_REQUEST_RUNNING;
    r->slot = b->spare[--b->n_spare];
    b->by_slot[r->slot] = r;
    r->n_page_sent = 0;
    r->open_sent = false;
    insert_running(b, r);
    take_pages(b, r);
    if (r->preempted) return;
    r->n_cached = dr_min_i32(r->n_done, r->n_prompt);
    b->n_cached += (uint64_t)r->n_cached;
}

void dr_book_advance(struct dr_book *b, struct dr_request *r, int32_t n) {
    struct dr_prefix *p = &b->ledger.prefix;
    r->n_done += n;
    name_pages(b, r);
    for (; r->n_filled < dr_min_i32(r->n_done / b->ledger.page_tokens, r->n_name); r->n_filled++) {
        const int32_t page = (int32_t)dr_ledger_table(&b->ledger, r->slot)[r->n_filled];
        if (p->state[page] == DR_PAGE_UNNAMED) name_own(b, r, r->n_filled);
        if (p->state[page] == DR_PAGE_PENDING) dr_prefix_fill(p, page);
    }
}

void dr_book_disown(struct dr_book *b, struct dr_request *r) {
    for (int32_t i = r->n_shared; i < b->ledger.n[r->slot]; i++)
        dr_prefix_forget(&b->ledger.prefix, (int32_t)dr_ledger_table(&b->ledger, r->slot)[i]);
    r->secret = true;
}

void dr_book_reset(struct dr_book *b) {
    dr_ledger_reset(&b->ledger);
    for (int32_t i = 0; i < b->n_running; i++) b->running[i]->secret = true;
}

static void stop_running(struct dr_book *b, struct dr_request *r) {
    dr_ledger_release(&b->ledger, r->slot);
    remove_running(b, r);
    if (r->open_sent) b->drop[b->n_drop++] = r->slot;
    b->by_slot[r->slot] = NULL;
    b->spare[b->n_spare++] = r->slot;
    r->slot = -1;
    r->state = DR_REQUEST_FREE;
    r->n_found = 0;
}

void dr_book_preempt(struct dr_book *b, struct dr_request *r) {
    DR_ASSERT(r->state == DR_REQUEST_RUNNING && r->n_flight == 0);
    stop_running(b, r);
    r->n_done = r->n_sched = r->n_guess = 0;
    r->preempted = true;
    b->n_preempted++;
    dr_queue_push(&b->queue, r);
}

void dr_book_end(struct dr_book *b, struct dr_request *r) {
    if (r->state == DR_REQUEST_RUNNING) stop_running(b, r);
    if (r->state == DR_REQUEST_WAITING) dr_queue_remove(&b->queue, r);
    dr_pool_release(&b->pool, r);
}

static dr_status check_running(const struct dr_book *b) {
    for (int32_t i = 0; i < b->n_running; i++) {
        const struct dr_request *r = b->running[i];
        if (r->state != DR_REQUEST_RUNNING || r->slot < 0 || b->by_slot[r->slot] != r)
            return dr_fail(DR_EINTERNAL, "book: running request %d does not own slot %d", i, r->slot);
        if (i > 0 && !dr_request_before(b->running[i - 1], r))
            return dr_fail(DR_EINTERNAL, "book: running request %d is out of order", i);
        if (dr_ledger_lacks(&b->ledger, r->slot, r->n_sched) > 0 || r->n_done > r->n_sched)
            return dr_fail(DR_EINTERNAL, "book: slot %d has rows beyond its pages or its steps", r->slot);
        for (int32_t k = 0; k < b->ledger.n[r->slot]; k++) {
            const uint32_t page = dr_ledger_table(&b->ledger, r->slot)[k];
            if (k >= r->n_filled && b->ledger.ref[page] != 1)
                return dr_fail(DR_EINTERNAL, "book: page %u of slot %d is shared before its rows are there",
                               page, r->slot);
            if (k >= r->n_filled && b->ledger.prefix.state[page] == DR_PAGE_FILLED)
                return dr_fail(DR_EINTERNAL, "book: page %u of slot %d is offered before its rows are there",
                               page, r->slot);
        }
    }
    return dr_ok();
}

dr_status dr_book_check(const struct dr_book *b) {
    const struct dr_layout *l = b->layout;
    DR_TRY(dr_ledger_check(&b->ledger));
    DR_TRY(check_running(b));
    int64_t tokens = 0;
    for (int32_t i = 0; i < b->queue.n; i++) {
        const struct dr_request *r = b->queue.item[i];
        if (r->state != DR_REQUEST_WAITING || r->slot != -1)
            return dr_fail(DR_EINTERNAL, "book: waiting request %d has slot %d", i, r->slot);
        tokens += r->n_ids;
    }
    if (tokens != b->queue.n_tokens)
        return dr_fail(DR_EINTERNAL, "book: %lld ids wait, counted %lld", (long long)tokens,
                       (long long)b->queue.n_tokens);
    if (b->n_running + b->n_spare != l->seqs_max)
        return dr_fail(DR_EINTERNAL, "book: %d running and %d free slots, expected %d", b->n_running,
                       b->n_spare, l->seqs_max);
    for (int32_t i = 0; i < l->seqs_max; i++)
        if (!b->by_slot[i] && b->ledger.n[i] != 0)
            return dr_fail(DR_EINTERNAL, "book: free slot %d holds %d pages", i, b->ledger.n[i]);
    if (dr_book_open_count(b) + b->pool.n_spare != b->pool.n)
        return dr_fail(DR_EINTERNAL, "book: %d open and %d free records of %d", dr_book_open_count(b),
                       b->pool.n_spare, b->pool.n);
    return dr_ok();
}
