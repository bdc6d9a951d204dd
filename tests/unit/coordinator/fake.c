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
        .n_mtp = 1,
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
        .mtp = w.drafts != 0,
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
    f->mtp = calloc((size_t)l->n_page * (size_t)l->page_tokens, sizeof *f->mtp);
    f->slot = calloc((size_t)l->seqs_max, sizeof *f->slot);
    f->row = calloc((size_t)l->step_tokens, sizeof *f->row);
    f->top = calloc((size_t)l->step_tokens * FAKE_TOP, sizeof *f->top);
    f->logits = calloc((size_t)l->step_tokens * 2, sizeof *f->logits);
    f->bad = calloc((size_t)l->seqs_max, sizeof *f->bad);
    if (!f->bad || !f->cache || !f->mtp || !f->slot || !f->row || !f->top || !f->logits) abort();
}

void fake_fini(struct fake *f) {
    free(f->cache);
    free(f->mtp);
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

/* Where a position lies, in either cache. */
static size_t place(const struct fake *f, const struct fake_slot *s, int32_t p) {
    const int32_t per = f->layout->page_tokens;
    CU_ASSERT_FATAL(p / per < s->n_page);
    return (size_t)s->page[p / per] * (size_t)per + (size_t)(p % per);
}

static uint64_t chain_through_pages(const struct fake *f, const struct fake_slot *s, int32_t n) {
    uint64_t chain = 0;
    for (int32_t p = 0; p < n; p++) chain = fold(chain, f->cache[place(f, s, p)]);
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

static enum dr_tokens_role role_at(const struct fake_slot *s, int32_t p) {
    return p < s->facts.n_prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED;
}

/* The first rows of a slot: what is before them was found in the cache. */
static void check_first(const struct fake *f, struct fake_slot *s, const struct dr_segment *g) {
    const int32_t kept = s->facts.n_kept;
    CU_ASSERT(kept % f->layout->page_tokens == 0 && (kept == 0 || f->reuse != DR_REUSE_OFF));
    CU_ASSERT(g->first == kept - (f->layout->mtp && kept > 0));
    s->n_done = g->first;
    s->form = g->form;
}

static void write_rows(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    const int32_t n_true = g->n_rows - g->n_verify;
    bool prompt = g->first < s->facts.n_prompt;
    if (s->n_done < 0) check_first(f, s, g);
    CU_ASSERT(s->open && g->source == DR_SOURCE_IDS && n_true > 0 && g->first == s->n_done);
    CU_ASSERT(g->role == (prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED));
    CU_ASSERT(prompt || g->form == DR_FORM_ABSORBED);
    CU_ASSERT(!prompt || (g->form == s->form && (f->reuse == DR_REUSE_ANY || g->form == DR_FORM_EXPANDED)));
    CU_ASSERT(!prompt || g->first + g->n_rows <= s->facts.n_prompt);
    CU_ASSERT(g->n_verify == 0 || (!prompt && g->output == DR_OUTPUT_SAMPLE && !g->has_next));
    CU_ASSERT(f->layout->mtp || (g->n_verify == 0 && g->n_draft == 0));
    CU_ASSERT(g->first + g->n_rows <= f->layout->context);
    for (int32_t i = 0; i < g->n_rows; i++) {
        int32_t p = g->first + i;
        uint64_t row = content(f, g->ids[i], p, g->role), *at = &f->cache[place(f, s, p)];
        CU_ASSERT(p >= s->facts.n_kept || *at == row); /* others have it */
        *at = row;
    }
}

static struct dr_result_row *new_row(struct fake *f, const struct dr_segment *g, int32_t position,
                                     uint32_t id, uint64_t h, int32_t n_top) {
    struct dr_result_row *r = &f->row[f->n_row];
    struct dr_top *top = &f->top[f->n_row * FAKE_TOP];
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

/* What is drawn behind the segment's last true token and behind each draft that comes true. Returns the rows
 * whose ids are true. */
static int32_t draw(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    const int32_t n_top = s->facts.sampling.n_top > 0 ? s->facts.sampling.n_top : 0;
    int32_t n_true = g->n_rows - g->n_verify;
    uint64_t h = state_hash(chain_through_pages(f, s, g->first + n_true), &s->facts.sampling, s->seen_prompt,
                            s->seen_output);
    struct dr_result_row *r = new_row(f, g, g->first + n_true - 1, 0, h, 0);
    r->n_ids = 0;
    for (;;) {
        uint32_t id = (uint32_t)(h % FAKE_VOCAB);
        if (faulty(f, h) || bad_row(f, f->cache[place(f, s, g->first + n_true - 1)])) {
            r->fault = DR_FAULT_NUMERIC;
            return n_true;
        }
        struct dr_top *top = &f->top[(f->n_row - 1) * FAKE_TOP + r->n_ids * n_top];
        for (int32_t i = 0; i < n_top; i++)
            top[i] = (struct dr_top){.id = (uint32_t)i, .logprob = logprob_of(h, (uint32_t)i)};
        r->n_top = n_top;
        r->logprob[r->n_ids] = logprob_of(h, id);
        r->ids[r->n_ids++] = id;
        s->seen_output += splitmix(id);
        if (n_true == g->n_rows || g->ids[n_true] != id) return n_true;
        n_true++;
        r->n_accepted++;
        h = state_hash(chain_through_pages(f, s, g->first + n_true), &s->facts.sampling, s->seen_prompt,
                       s->seen_output);
    }
}

static void score(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    int32_t last = g->first + g->n_rows - 1;
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

/* What the MTP layer keeps for a position: made from the rows before it and its own token. */
static uint64_t mtp_content(uint64_t chain_before, uint64_t row) {
    return splitmix(chain_before ^ (row * 3));
}

/* The MTP layer's rows of a segment; those behind wrong drafts are rubbish. id: of the token behind the
 * n_true true rows. */
static void write_mtp(struct fake *f, const struct dr_segment *g, int32_t n_true, uint32_t id) {
    struct fake_slot *s = &f->slot[g->slot];
    const bool next = g->has_next || g->output == DR_OUTPUT_SAMPLE;
    uint64_t chain = chain_through_pages(f, s, g->first);
    for (int32_t i = 0; i < g->n_rows; i++) {
        const int32_t p = g->first + i + 1;
        chain = fold(chain, f->cache[place(f, s, p - 1)]);
        if (i + 1 == g->n_rows && !next) return;
        const uint32_t token = i + 1 == n_true ? id : i + 1 < g->n_rows ? g->ids[i + 1] : 0;
        uint64_t row = mtp_content(chain, content(f, token, p, role_at(s, p))), *at = &f->mtp[place(f, s, p)];
        CU_ASSERT(p >= s->facts.n_kept || *at == row);
        *at = row;
    }
}

/* Drafts behind the newest token, which is at position `at`: the layer must have all its rows up to there. */
static void make_drafts(struct fake *f, const struct dr_segment *g, int32_t at, uint32_t id,
                        struct dr_result_row *r) {
    const struct fake_slot *s = &f->slot[g->slot];
    uint64_t chain = 0, seen = s->seen_output;
    for (int32_t p = 0; p <= at; p++) {
        uint64_t row = p < at ? f->cache[place(f, s, p)] : content(f, id, p, role_at(s, p));
        if (p > 0) CU_ASSERT(f->mtp[place(f, s, p)] == mtp_content(chain, row));
        chain = fold(chain, row);
    }
    for (int32_t k = 0; k < g->n_draft; k++) {
        uint64_t h = state_hash(chain, &s->facts.sampling, s->seen_prompt, seen);
        uint32_t token = (uint32_t)((h + (splitmix(h) % 3 == 0)) % FAKE_VOCAB);
        if (k > 0)
            f->mtp[place(f, s, at + k)] = splitmix(h); /* of the draft before: overwritten when it is known */
        r->draft[r->n_draft++] = token;
        chain = fold(chain, content(f, token, at + 1 + k, DR_TOKENS_GENERATED));
        seen += splitmix(token);
    }
}

static void run_segment(struct fake *f, const struct dr_segment *g) {
    struct fake_slot *s = &f->slot[g->slot];
    const int32_t first_row = f->n_row;
    int32_t n_true = g->n_rows;
    if (g->output == DR_OUTPUT_SAMPLE)
        n_true = draw(f, g);
    else if (g->output != DR_OUTPUT_NONE)
        score(f, g);
    bool bad = false;
    for (int32_t i = 0; i < n_true; i++) bad = bad || bad_row(f, f->cache[place(f, s, g->first + i)]);
    if (bad) f->bad[f->n_bad++] = g->slot;
    s->n_done = g->first + n_true;
    if (!f->layout->mtp) return;
    struct dr_result_row *r = f->n_row > first_row ? &f->row[f->n_row - 1] : NULL;
    const bool drawn = g->output == DR_OUTPUT_SAMPLE && r->n_ids > 0;
    const uint32_t id = g->has_next ? g->next_id : drawn ? r->ids[r->n_ids - 1] : 0;
    write_mtp(f, g, n_true, id);
    if (g->n_draft > 0 && drawn) make_drafts(f, g, g->first + n_true, id, r);
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
    for (int32_t i = 0; i < plan->n_segment; i++) run_segment(f, &plan->segment[i]);
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
