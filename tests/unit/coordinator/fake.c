/* fake.c - see fake.h.
 * In:   plans.      Out: results.
 * Owns: what fake.h says.
 * Why:  see fake.h. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

#include <CUnit/CUnit.h>

struct dr_config fake_config(void) {
    return (struct dr_config){
        .model_type = "deepseek_v3",
        .vocab = FAKE_VOCAB,
        .dim = 32,
        .n_layer = 3,
        .n_dense_layer = 3,
        .moe_freq = 1,
        .n_head = 4,
        .kv_lora = 16,
        .nope_dim = 8,
        .rope_dim = 4,
        .v_dim = 8,
        .mlp_dim = 32,
        .n_group = 1,
        .n_group_active = 1,
        .n_position = 1 << 20,
    };
}

struct dr_layout fake_layout(struct fake_wish w) {
    const int32_t pp = w.pp ? w.pp : 1;
    struct dr_layout l = {
        .tp = 1,
        .pp = pp,
        .c = 1,
        .n_rank = pp,
        .page_tokens = w.page_tokens,
        .page_rows = w.page_tokens,
        .context = w.context,
        .seqs_max = w.seqs_max,
        .step_tokens = w.step_tokens,
        .n_page = w.n_page,
    };
    for (int32_t s = 0; s <= pp; s++) l.layer_begin[s] = 3 * s / pp;
    return l;
}

struct dr_submit fake_submit(uint64_t request, const uint32_t *ids, int32_t n, int32_t max_tokens) {
    return (struct dr_submit){
        .request = request,
        .n_ids = n,
        .ids = ids,
        .max_tokens = max_tokens,
        .sampling = {.temperature = 1, .top_p = 1, .repetition = 1, .seed = request, .n_top = -1},
        .prompt_top = -1,
    };
}

void fake_init(struct fake *f, const struct dr_layout *l) {
    *f = (struct fake){.layout = l};
    f->cache = calloc((size_t)l->n_page * (size_t)l->page_tokens, sizeof *f->cache);
    f->slot = calloc((size_t)l->seqs_max, sizeof *f->slot);
    f->row = calloc((size_t)l->step_tokens, sizeof *f->row);
    f->top = calloc((size_t)l->step_tokens * DR_TOP_MAX, sizeof *f->top);
    f->logits = calloc((size_t)l->step_tokens * 2, sizeof *f->logits);
    f->bad = calloc((size_t)l->seqs_max, sizeof *f->bad);
    if (!f->bad || !f->cache || !f->slot || !f->row || !f->top || !f->logits) abort();
}

void fake_fini(struct fake *f) {
    free(f->cache);
    free(f->slot);
    free(f->row);
    free(f->top);
    free(f->logits);
    free(f->bad);
}

/* What a row leaves in the cache. */
static uint64_t content(const struct fake *f, uint32_t id, int32_t position, enum dr_tokens_role role) {
    bool generated = role == DR_TOKENS_GENERATED && f->reuse != DR_REUSE_ANY;
    return splitmix(((uint64_t)id << 32) ^ ((uint64_t)(uint32_t)position << 1) ^ generated);
}

static bool bad_row(const struct fake *f, uint64_t content_) {
    return f->faults && content_ % 2048 == 3;
}

static uint64_t fold(uint64_t chain, uint64_t x) {
    return splitmix(chain ^ x);
}

static uint64_t state_hash(uint64_t chain, const struct dr_sampling *s, uint64_t seen_prompt,
                           uint64_t seen_output) {
    bool penalised = s->repetition != 1.0F || s->frequency != 0.0F || s->presence != 0.0F;
    uint64_t seen = penalised ? splitmix(seen_prompt) ^ splitmix(seen_output * 3) : 0;
    return splitmix(chain ^ splitmix(s->seed) ^ seen);
}

static float logprob_of(uint64_t h, uint32_t id) {
    return -(float)(splitmix(h ^ id) % 1000) / 100.0F;
}

static bool faulty(const struct fake *f, uint64_t h) {
    return f->faults && h % 512 == 7;
}

static uint64_t chain_through_pages(const struct fake *f, const struct fake_slot *s, int32_t n) {
    uint64_t chain = 0;
    for (int32_t p = 0; p < n; p++) {
        uint32_t page = s->page[p / f->layout->page_tokens];
        chain =
            fold(chain,
                 f->cache[page * (uint32_t)f->layout->page_tokens + (uint32_t)(p % f->layout->page_tokens)]);
    }
    return chain;
}

static void open_slot(struct fake *f, const struct dr_open *o) {
    CU_ASSERT_FATAL(o->slot >= 0 && o->slot < f->layout->seqs_max);
    struct fake_slot *s = &f->slot[o->slot];
    CU_ASSERT(!s->open);
    *s = (struct fake_slot){.open = true, .facts = *o, .n_done = -1};
    uint8_t once[FAKE_VOCAB] = {0};
    for (int32_t i = 0; i < o->n_seen_prompt; i++) {
        CU_ASSERT(once[o->seen_prompt[i]]++ == 0);
        s->seen_prompt += splitmix(o->seen_prompt[i]);
    }
    for (int32_t i = 0; i < o->n_seen_output; i++)
        s->seen_output += splitmix(o->seen_output[i].id) * o->seen_output[i].count;
}

static void apply_state(struct fake *f, const struct dr_step_plan *plan) {
    CU_ASSERT(plan->step == f->step + 1);
    f->step = plan->step;
    for (int32_t i = 0; i < plan->n_drop; i++) {
        CU_ASSERT(f->slot[plan->drop[i]].open);
        f->slot[plan->drop[i]].open = false;
    }
    for (int32_t i = 0; i < plan->n_open; i++) open_slot(f, &plan->open[i]);
    for (int32_t i = 0; i < plan->n_pages; i++) {
        const struct dr_pages *p = &plan->pages[i];
        struct fake_slot *s = &f->slot[p->slot];
        CU_ASSERT(s->open && p->first == s->n_page);
        for (int32_t k = 0; k < p->n; k++) {
            CU_ASSERT_FATAL(p->page[k] < (uint32_t)f->layout->n_page);
            s->page[s->n_page++] = p->page[k];
        }
    }
}

static void write_rows(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    bool prompt = g->first < s->facts.n_prompt, bad = false;
    if (s->n_done < 0) { /* the first rows of this slot: what is before them was found in the cache */
        CU_ASSERT(g->first % f->layout->page_tokens == 0 && (g->first == 0 || f->reuse != DR_REUSE_OFF));
        s->n_done = g->first;
        s->form = g->form;
    }
    CU_ASSERT(s->open && g->source == DR_SOURCE_IDS && g->n_rows > 0 && g->first == s->n_done);
    CU_ASSERT(g->role == (prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED));
    CU_ASSERT(prompt || g->form == DR_FORM_ABSORBED);
    CU_ASSERT(!prompt || (g->form == s->form && (f->reuse == DR_REUSE_ANY || g->form == DR_FORM_EXPANDED)));
    CU_ASSERT(!prompt || g->first + g->n_rows <= s->facts.n_prompt);
    CU_ASSERT_FATAL(g->first + g->n_rows <= s->n_page * f->layout->page_tokens);
    CU_ASSERT(g->first + g->n_rows <= f->layout->context);
    for (int32_t i = 0; i < g->n_rows; i++) {
        int32_t p = g->first + i;
        uint32_t page = s->page[p / f->layout->page_tokens];
        uint64_t row = content(f, g->ids[i], p, g->role);
        f->cache[page * (uint32_t)f->layout->page_tokens + (uint32_t)(p % f->layout->page_tokens)] = row;
        bad = bad || bad_row(f, row);
    }
    s->n_done += g->n_rows;
    if (bad) f->bad[f->n_bad++] = g->slot;
}

static struct dr_result_row *new_row(struct fake *f, const struct dr_segment *g, int32_t position,
                                     uint32_t id, uint64_t h, int32_t n_top) {
    struct dr_result_row *r = &f->row[f->n_row];
    struct dr_top *top = &f->top[f->n_row * DR_TOP_MAX];
    f->n_row++;
    *r = (struct dr_result_row){
        .slot = g->slot, .position = position, .n_ids = 1, .ids = {id}, .logprob = {logprob_of(h, id)}};
    for (int32_t i = 0; i < n_top; i++)
        top[i] = (struct dr_top){.id = (uint32_t)i, .logprob = logprob_of(h, (uint32_t)i)};
    r->n_top = n_top > 0 ? n_top : 0;
    r->top = top;
    return r;
}

static void add_logits(struct fake *f, const struct dr_segment *g, int32_t position) {
    for (int32_t first = 0; first < FAKE_VOCAB; first += FAKE_LOGITS_PIECE) {
        int32_t n = FAKE_VOCAB - first < FAKE_LOGITS_PIECE ? FAKE_VOCAB - first : FAKE_LOGITS_PIECE;
        f->logits[f->n_logits++] = (struct dr_logits){.epoch = 0,
                                                      .step = f->step,
                                                      .slot = g->slot,
                                                      .position = position,
                                                      .first = first,
                                                      .n = n,
                                                      .value = f->value};
    }
}

static void output_rows(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    int32_t last = g->first + g->n_rows - 1;
    if (g->output == DR_OUTPUT_NONE) return;
    if (g->output == DR_OUTPUT_SAMPLE) {
        uint64_t h = state_hash(chain_through_pages(f, s, last + 1), &s->facts.sampling, s->seen_prompt,
                                s->seen_output);
        uint32_t id = (uint32_t)(h % FAKE_VOCAB);
        struct dr_result_row *r = new_row(f, g, last, id, h, s->facts.sampling.n_top);
        if (faulty(f, h)) r->fault = DR_FAULT_NUMERIC, r->n_ids = 0, r->n_top = 0;
        s->seen_output += splitmix(id);
        return;
    }
    for (int32_t p = g->first; p <= last; p++) {
        bool more = p < last || g->has_next;
        uint32_t id = p < last ? g->ids[p - g->first + 1] : g->next_id;
        uint64_t h = chain_through_pages(f, s, p + 1);
        struct dr_result_row *r = new_row(f, g, p, id, h, g->output == DR_OUTPUT_SCORE ? g->score_top : 0);
        if (g->output == DR_OUTPUT_LOGITS)
            r->n_ids = 0, add_logits(f, g, p);
        else if (!more)
            r->n_ids = 0;
    }
}

struct dr_step_result fake_step(struct fake *f, const struct dr_step_plan *plan) {
    int32_t rows = 0;
    apply_state(f, plan);
    f->n_row = f->n_logits = f->n_bad = 0;
    CU_ASSERT(plan->n_segment > 0 && plan->n_segment <= f->layout->seqs_max);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        for (int32_t k = 0; k < i; k++) CU_ASSERT(plan->segment[k].slot != plan->segment[i].slot);
        write_rows(f, &plan->segment[i]);
        rows += plan->segment[i].n_rows;
    }
    CU_ASSERT(rows <= f->layout->step_tokens);
    for (int32_t i = 0; i < plan->n_segment; i++) output_rows(f, &plan->segment[i]);
    return (struct dr_step_result){.epoch = plan->epoch,
                                   .step = plan->step,
                                   .n_row = f->n_row,
                                   .row = f->row,
                                   .n_bad = f->n_bad,
                                   .bad = f->bad};
}

static bool is_end(const struct dr_submit *s, uint32_t id, int32_t n) {
    if (s->ignore_eos || n < s->min_tokens) return false;
    for (int32_t i = 0; i < s->n_end; i++)
        if (s->end_ids[i] == id) return true;
    return false;
}

void fake_answer(const struct fake *f, const struct dr_submit *s, struct answer *out) {
    uint64_t chain = 0, seen_prompt = 0, seen_output = 0;
    uint8_t once[FAKE_VOCAB] = {0};
    bool bad = false;
    int32_t n_prompt = s->n_ids - s->n_delivered;
    int32_t most =
        s->max_tokens < f->layout->context - s->n_ids ? s->max_tokens : f->layout->context - s->n_ids;
    memset(out, 0, sizeof *out);
    out->finish = DR_FINISH_LENGTH;
    out->stop_id = UINT32_MAX;
    for (int32_t p = 0; p < s->n_ids; p++) {
        bool prompt = p < n_prompt;
        uint64_t row = content(f, s->ids[p], p, prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED);
        chain = fold(chain, row);
        bad = bad || bad_row(f, row);
        if (s->prompt_top >= 0 && p + 1 < n_prompt)
            out->score[out->n_scored++] = logprob_of(chain, s->ids[p + 1]);
        if (!prompt)
            seen_output += splitmix(s->ids[p]);
        else if (once[s->ids[p]]++ == 0)
            seen_prompt += splitmix(s->ids[p]);
    }
    if (bad) {
        out->finish = DR_FINISH_NUMERIC;
        return;
    }
    for (int32_t p = s->n_ids; out->n < most; p++) {
        uint64_t h = state_hash(chain, &s->sampling, seen_prompt, seen_output);
        uint32_t id = (uint32_t)(h % FAKE_VOCAB);
        if (faulty(f, h) || bad) {
            out->finish = DR_FINISH_NUMERIC;
            return;
        }
        out->logprob[out->n] = logprob_of(h, id);
        out->ids[out->n++] = id;
        if (is_end(s, id, out->n)) {
            out->finish = DR_FINISH_STOP;
            out->stop_id = id;
            return;
        }
        seen_output += splitmix(id);
        uint64_t row = content(f, id, p, DR_TOKENS_GENERATED);
        chain = fold(chain, row);
        bad = bad_row(f, row);
    }
}
