/* plan.c - see plan.h.
 * In:   draft, book.      Out: plan.
 * Owns: the plan's arrays.
 * Why:  see plan.h. */
#include "coordinator/plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "proto/plan_shape.h"

static dr_status init_parts(struct dr_planner *p, int32_t n) {
    size_t k = (size_t)n;
    p->open = calloc(k, sizeof *p->open);
    p->pages = calloc(k, sizeof *p->pages);
    p->segment = calloc(k, sizeof *p->segment);
    p->shape = calloc(k, sizeof *p->shape);
    p->sampling = calloc(k, sizeof *p->sampling);
    p->drop = calloc(k, sizeof *p->drop);
    p->count = calloc((size_t)p->config->vocab, sizeof *p->count);
    if (!p->open || !p->pages || !p->segment || !p->shape || !p->sampling || !p->drop || !p->count)
        return dr_fail(DR_EFULL, "coordinator: no memory for plans of %d slots", n);
    /* an id seen takes 4 bytes as prompt and 8 as output in memory, at least 3 and 6 in the estimate of the
     * batcher */
    return dr_arena_init(&p->arena, (size_t)DR_OPEN_BYTES_MAX * 3 / 2 + k * 16);
}

dr_status dr_planner_init(struct dr_planner *p, const struct dr_config *config, struct dr_book *book) {
    struct dr_planner out = {.config = config, .book = book};
    dr_status st = init_parts(&out, book->layout->seqs_max);
    if (st.code != DR_OK) {
        dr_planner_fini(&out);
        return st;
    }
    *p = out;
    return dr_ok();
}

void dr_planner_fini(struct dr_planner *p) {
    free(p->open);
    free(p->pages);
    free(p->segment);
    free(p->shape);
    free(p->sampling);
    free(p->drop);
    free(p->count);
    dr_arena_fini(&p->arena);
    *p = (struct dr_planner){0};
}

/* Counts ids[0 .. n); returns how many are distinct. */
static int32_t count_ids(struct dr_planner *p, const uint32_t *ids, int32_t n) {
    int32_t distinct = 0;
    for (int32_t i = 0; i < n; i++) distinct += p->count[ids[i]]++ == 0;
    return distinct;
}

/* Distinct prompt ids and output counts, each in order of first appearance. */
static void fill_seen(struct dr_planner *p, const struct dr_request *r, struct dr_open *o) {
    o->n_seen_prompt = count_ids(p, r->ids, r->n_prompt);
    uint32_t *prompt = dr_arena_take(&p->arena, (size_t)o->n_seen_prompt * sizeof *prompt, 4);
    int32_t at = 0;
    for (int32_t i = 0; i < r->n_prompt; i++) {
        uint32_t id = r->ids[i];
        if (p->count[id] == 0) continue;
        prompt[at++] = id;
        p->count[id] = 0;
    }
    const uint32_t *drawn = r->ids + r->n_prompt;
    int32_t n_drawn = r->n_ids - r->n_prompt;
    o->n_seen_output = count_ids(p, drawn, n_drawn);
    struct dr_count *output = dr_arena_take(&p->arena, (size_t)o->n_seen_output * sizeof *output, 4);
    at = 0;
    for (int32_t i = 0; i < n_drawn; i++) {
        uint32_t id = drawn[i];
        if (p->count[id] == 0) continue;
        output[at++] = (struct dr_count){.id = id, .count = p->count[id]};
        p->count[id] = 0;
    }
    o->seen_prompt = prompt;
    o->seen_output = output;
}

static struct dr_open open_of(struct dr_planner *p, const struct dr_request *r) {
    struct dr_open o = {
        .slot = r->slot,
        .n_prompt = r->n_prompt,
        .n_kept = r->n_shared * p->book->ledger.page_tokens,
        .sampling = r->sampling,
        .n_bias = r->n_bias,
        .bias = r->bias,
    };
    if (dr_request_penalised(r)) fill_seen(p, r, &o);
    return o;
}

static struct dr_segment segment_of(const struct dr_draft_item *item) {
    const struct dr_request *r = item->request;
    int32_t end = item->first + item->n_rows; /* past the drafts, whose ids lie behind the known ones */
    return (struct dr_segment){
        .slot = r->slot,
        .first = item->first,
        .n_rows = item->n_rows,
        .source = DR_SOURCE_IDS,
        .ids = r->ids + item->first,
        .has_next = end < r->n_ids,
        .next_id = end < r->n_ids ? r->ids[end] : 0,
        .role = item->role,
        .form = item->role == DR_TOKENS_PROMPT ? r->form : DR_FORM_ABSORBED,
        .output = item->output,
        .score_top = item->output == DR_OUTPUT_SCORE ? r->prompt_top : 0,
        .n_verify = item->n_verify,
        .n_draft = item->n_draft,
    };
}

static void add_item(struct dr_planner *p, const struct dr_draft_item *item) {
    struct dr_step_plan *plan = &p->plan;
    struct dr_request *r = item->request;
    if (!r->open_sent) {
        p->open[plan->n_open++] = open_of(p, r);
        p->sampling[r->slot] = r->sampling;
        r->open_sent = true;
    }
    const struct dr_segment segment = segment_of(item);
    int32_t covered = dr_ledger_pages(&p->book->ledger, dr_segment_end(&segment, p->book->layout->mtp));
    if (covered > r->n_page_sent) {
        p->pages[plan->n_pages++] = (struct dr_pages){
            .slot = r->slot,
            .first = r->n_page_sent,
            .n = covered - r->n_page_sent,
            .page = dr_ledger_table(&p->book->ledger, r->slot) + r->n_page_sent,
        };
        r->n_page_sent = covered;
    }
    p->segment[plan->n_segment++] = segment;
}

const struct dr_step_plan *dr_planner_build(struct dr_planner *p, const struct dr_draft *d, uint64_t epoch,
                                            uint64_t step) {
    DR_ASSERT(d->n > 0 && !d->stuck);
    struct dr_book *book = p->book;
    dr_arena_rewind(&p->arena, 0);
    p->plan = (struct dr_step_plan){
        .epoch = epoch,
        .step = step,
        .n_drop = book->n_drop,
        .open = p->open,
        .pages = p->pages,
        .segment = p->segment,
        .drop = p->drop,
    };
    memcpy(p->drop, book->drop, (size_t)book->n_drop * sizeof *p->drop);
    book->n_drop = 0;
    for (int32_t i = 0; i < d->n; i++) add_item(p, &d->item[i]);
    dr_plan_shape(&p->plan, p->sampling, p->shape, &p->step_shape);
    p->plan.schedule_hash = dr_schedule_hash(p->config, book->layout, &p->step_shape);
    return &p->plan;
}
