/* book.c - see book.h.
 * In:   moves.      Out: lists that agree.
 * Owns: what book.h says.
 * Why:  see book.h. */
#include "coordinator/book.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

static dr_status init_parts(struct dr_book *b, const struct dr_layout *l) {
    int32_t n_request =
        DR_WAITING_MAX + l->seqs_max; /* a preempted request comes back to a queue that may be full */
    DR_TRY(dr_pool_init(&b->pool, n_request, l->context));
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

dr_status dr_book_init(struct dr_book *b, const struct dr_layout *l) {
    struct dr_book out = {.layout = l, .n_spare = l->seqs_max};
    dr_status st = init_parts(&out, l);
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

void dr_book_accept(struct dr_book *b, struct dr_request *r) {
    dr_queue_push(&b->queue, r);
}

bool dr_book_fits(const struct dr_book *b, const struct dr_request *r) {
    if (b->n_spare == 0) return false;
    int32_t known = dr_ledger_pages(&b->ledger, r->n_ids);
    int32_t most = dr_ledger_pages(&b->ledger, r->n_given + r->max_new);
    return dr_min_i32(known + 1, most) <= b->ledger.n_free;
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

void dr_book_start(struct dr_book *b, struct dr_request *r) {
    DR_ASSERT(r->state == DR_REQUEST_WAITING && b->n_spare > 0);
    dr_queue_remove(&b->queue, r);
    r->state = DR_REQUEST_RUNNING;
    r->slot = b->spare[--b->n_spare];
    b->by_slot[r->slot] = r;
    r->n_done = 0;
    r->n_page_sent = 0;
    r->open_sent = false;
    insert_running(b, r);
    dr_status st = dr_ledger_reserve(&b->ledger, r->slot, r->n_ids);
    DR_ASSERT(st.code == DR_OK);
}

static void stop_running(struct dr_book *b, struct dr_request *r) {
    dr_ledger_release(&b->ledger, r->slot);
    remove_running(b, r);
    if (r->open_sent) b->drop[b->n_drop++] = r->slot;
    b->by_slot[r->slot] = NULL;
    b->spare[b->n_spare++] = r->slot;
    r->slot = -1;
    r->state = DR_REQUEST_FREE;
}

void dr_book_preempt(struct dr_book *b, struct dr_request *r) {
    DR_ASSERT(r->state == DR_REQUEST_RUNNING && r->flight < 0);
    stop_running(b, r);
    r->n_done = 0;
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
        if (dr_ledger_lacks(&b->ledger, r->slot, r->n_done) > 0)
            return dr_fail(DR_EINTERNAL, "book: slot %d has rows beyond its pages", r->slot);
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
