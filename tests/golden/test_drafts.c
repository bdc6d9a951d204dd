/* test_drafts.c - the MTP layer: its cache rows and logits, chained drafts, drafts that are verified.
 * In:   tests/golden/v3-mtp and the values that transformers' MtpModel gives for it; the sample model and its
 * golden drafts. Out:  rows and logits within the case's tolerance, drafts equal; what is drawn is the same
 * with right drafts, wrong ones and none, and has the distribution of the model. Owns: nothing. Why:  drafts
 * may only save steps, so every way to be wrong must end in the same tokens. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "tests/golden/stage.h"
#include "tests/golden/tables.h"
#include "tests/support/runner.h"

enum { IDS_MAX = 256, PAGES_MAX = 8, CHAIN = 3, TAPS = 3, ROWS_MAX = 192, TAPES_MAX = 4 };
static const double tolerance = 2e-5; /* as in test_cases.c */

struct form {
    int32_t tp, pp, c;
    enum dr_exchange exchange;
};
static const struct form forms[] = {
    {1, 1, 1, DR_EXCHANGE_LATENT}, {2, 1, 2, DR_EXCHANGE_LATENT}, {3, 1, 3, DR_EXCHANGE_VALUE},
    {1, 2, 1, DR_EXCHANGE_LATENT}, {2, 2, 2, DR_EXCHANGE_VALUE},  {4, 1, 2, DR_EXCHANGE_LATENT},
    {4, 1, 4, DR_EXCHANGE_VALUE},
};
static const struct dr_sampling greedy_sampling = {.top_p = 1, .repetition = 1, .n_top = -1};

struct tape { /* a sequence in a slot */
    struct stage *s;
    int32_t prompt, slot, n_prompt, n_full, n_kept, shared; /* shared: pages of slot 0 at its beginning */
    uint32_t ids[IDS_MAX];                                  /* prompt and its greedy continuation */
    struct dr_sampling sampling;
    const struct dr_bias *bias;
    int32_t n_bias;
    bool open, absorbed; /* absorbed: prompt rows, too */
};

static void begin(struct tape *t, struct stage *s, int32_t prompt, int32_t slot) {
    char name[32];
    int64_t n;
    *t = (struct tape){.s = s, .prompt = prompt, .slot = slot, .sampling = greedy_sampling};
    (void)snprintf(name, sizeof name, "p%d.greedy_ids", prompt);
    const int32_t *more = safetensors_i32(&s->golden, name, &n);
    t->n_prompt = s->play[prompt].n_prompt;
    t->n_full = t->n_prompt + (int32_t)n;
    for (int32_t i = 0; i < t->n_full; i++)
        t->ids[i] = (uint32_t)(i < t->n_prompt ? s->play[prompt].prompt[i] : more[i - t->n_prompt]);
}

/* A segment of the tape as it goes into a plan: slot, role, form and source are filled in, ids are the tape's
 * unless given. */
static struct dr_segment of_tape(const struct tape *t, struct dr_segment g) {
    g.slot = t->slot;
    if (!g.ids) g.ids = t->ids + g.first;
    g.role = g.first < t->n_prompt ? DR_TOKENS_PROMPT : DR_TOKENS_GENERATED;
    g.form = g.role == DR_TOKENS_PROMPT && !t->absorbed ? DR_FORM_EXPANDED : DR_FORM_ABSORBED;
    return g;
}

/* Runs segments of several tapes in one step, after opening those that are not open. Returns the last result
 * row of the last one; rows of all with rig_result. */
static const struct dr_result_row *run_all(struct tape *t, const struct dr_segment *wanted, int32_t n) {
    struct stage *s = t->s;
    const struct dr_layout *l = &s->rig.layout;
    const int32_t per_slot = dr_min_i32(l->n_page / l->seqs_max, PAGES_MAX);
    uint32_t page[TAPES_MAX][PAGES_MAX];
    struct dr_open open[TAPES_MAX];
    struct dr_pages pages[TAPES_MAX];
    struct dr_segment g[TAPES_MAX];
    int32_t drop[TAPES_MAX];
    struct dr_step_plan plan = {.segment = g, .n_segment = n, .open = open, .pages = pages, .drop = drop};
    for (int32_t i = 0; i < n; i++) {
        g[i] = of_tape(&t[i], wanted[i]);
        if (t[i].open) continue;
        t[i].open = true;
        for (int32_t k = 0; k < per_slot; k++)
            page[i][k] = (uint32_t)((k < t[i].shared ? 0 : t[i].slot) + k * l->seqs_max);
        open[plan.n_open++] = (struct dr_open){.slot = t[i].slot,
                                               .n_prompt = t[i].n_prompt,
                                               .n_kept = t[i].n_kept,
                                               .sampling = t[i].sampling,
                                               .n_bias = t[i].n_bias,
                                               .bias = t[i].bias};
        pages[plan.n_pages++] = (struct dr_pages){.slot = t[i].slot, .n = per_slot, .page = page[i]};
        drop[plan.n_drop++] = t[i].slot;
    }
    dr_status st = rig_step(&s->rig, &plan);
    stage_judge(st.code == DR_OK, s, dr_error_text(), t->prompt, g[0].first);
    CU_ASSERT_FATAL(st.code == DR_OK);
    const struct dr_step_result *r = rig_result(&s->rig);
    stage_judge(r->n_bad == 0, s, "bad rows", t->prompt, g[0].first);
    return r->n_row > 0 ? &r->row[r->n_row - 1] : NULL;
}

static const struct dr_result_row *run(struct tape *t, struct dr_segment g) {
    return run_all(t, &g, 1);
}

/* The drafts behind greedy token s, but for those behind a near tie, whose order is the arithmetic's. */
static void check_chain(const struct tape *t, int32_t s, const struct dr_result_row *row, int32_t *seen) {
    char name[48];
    int64_t n;
    (void)snprintf(name, sizeof name, "p%d.mtp_chain", t->prompt);
    const int32_t *chain = safetensors_i32(&t->s->golden, name, &n);
    (void)snprintf(name, sizeof name, "p%d.mtp_chain_lead", t->prompt);
    const float *lead = safetensors_f32(&t->s->golden, name);
    (void)snprintf(name, sizeof name, "p%d.mtp_chain_route_gap", t->prompt);
    const float *gap = safetensors_f32(&t->s->golden, name);
    if (s * CHAIN >= n) return;
    for (int32_t d = 0; d < row->n_draft; d++) {
        if (lead[s * CHAIN + d] < 1e-3f || gap[s * CHAIN + d] < 1e-4f) return;
        stage_judge(row->draft[d] == (uint32_t)chain[s * CHAIN + d], t->s, "draft", t->prompt, s + d / 10.0);
        ++*seen;
    }
}

/* ---- rows and logits ---- */

static void arm(struct stage *s, struct dr_tap *tap, int32_t slot, int32_t cols) {
    const struct dr_config *c = &s->rig.config;
    const struct dr_tap made[TAPS] = {
        {.kind = DR_TAP_CKV, .layer = c->n_layer, .slot = slot, .width = c->kv_lora},
        {.kind = DR_TAP_KPE, .layer = c->n_layer, .slot = slot, .width = c->rope_dim},
        {.kind = DR_TAP_MTP_LOGITS, .slot = slot, .width = cols},
    };
    for (int32_t i = 0; i < TAPS; i++) {
        tap[i] = made[i];
        tap[i].room = ROWS_MAX;
        tap[i].row = calloc(ROWS_MAX * (size_t)tap[i].width, 4);
        tap[i].position = calloc(ROWS_MAX, sizeof(int32_t));
    }
    dr_worker_set_taps(s->rig.rank[s->rig.layout.n_rank - 1].worker, tap, TAPS);
}

static void check_cache(const struct tape *t, const struct dr_tap *tap, const char *what) {
    const struct safetensors_entry *e = safetensors_find(&t->s->golden, "p%d.mtp.%s", t->prompt, what);
    if (!e) return;
    stage_judge(tap->n == t->n_prompt && e->shape[0] == t->n_prompt, t->s, what, t->prompt, tap->n);
    for (int32_t i = 0; i < t->n_prompt; i++)
        stage_judge(tap->position[i] == i + 1, t->s, "position of an MTP row", t->prompt, i);
    double rms = relative_rms(tap->row, e->data, (size_t)t->n_prompt * (size_t)tap->width);
    stage_judge(rms <= tolerance, t->s, what, t->prompt, rms);
}

static void check_logits(const struct tape *t, const struct dr_tap *tap, struct dr_range cols) {
    char name[48];
    int64_t n;
    (void)snprintf(name, sizeof name, "p%d.positions", t->prompt);
    const int32_t *at = safetensors_i32(&t->s->golden, name, &n);
    (void)snprintf(name, sizeof name, "p%d.mtp_logits", t->prompt);
    const float *expected = safetensors_f32(&t->s->golden, name);
    const size_t width = (size_t)tap->width, vocab = (size_t)t->s->rig.config.vocab;
    stage_judge(tap->n == t->n_prompt, t->s, "rows of draft logits", t->prompt, tap->n);
    for (int64_t i = 0; i < n; i++) {
        double rms = relative_rms((const float *)tap->row + (size_t)at[i] * width,
                                  expected + (size_t)i * vocab + cols.begin, width);
        stage_judge(rms <= tolerance, t->s, "draft logits", t->prompt, rms);
    }
}

/* Every prompt row with the token after it, known beforehand: in chunks of 1 a draft behind each. */
static void check_rows(struct stage *s, int32_t prompt, int32_t chunk) {
    struct tape t;
    struct dr_tap tap[TAPS];
    begin(&t, s, prompt, 0);
    const struct dr_range cols =
        dr_layout_shard(&s->rig.config, &s->rig.layout, s->rig.layout.n_rank - 1).vocab;
    arm(s, tap, 0, dr_range_len(cols));
    for (int32_t at = 0; at < t.n_prompt; at += chunk) {
        const int32_t n = dr_min_i32(chunk, t.n_prompt - at);
        (void)run(&t, (struct dr_segment){.first = at,
                                          .n_rows = n,
                                          .has_next = true,
                                          .next_id = t.ids[at + n],
                                          .output = DR_OUTPUT_SCORE,
                                          .n_draft = chunk == 1});
    }
    dr_worker_set_taps(s->rig.rank[s->rig.layout.n_rank - 1].worker, NULL, 0);
    check_cache(&t, &tap[0], "ckv");
    check_cache(&t, &tap[1], "kpe");
    if (chunk == 1) check_logits(&t, &tap[2], cols);
    for (int32_t i = 0; i < TAPS; i++) {
        free(tap[i].row);
        free(tap[i].position);
    }
}

/* ---- drafts ---- */

static void check_token(const struct tape *t, int32_t at, const struct dr_result_row *row, int32_t accepted) {
    bool good =
        row && row->fault == DR_FAULT_NONE && row->n_accepted == accepted && row->n_ids == accepted + 1;
    for (int32_t i = 0; good && i <= accepted; i++) good = row->ids[i] == t->ids[at + i];
    stage_judge(good, t->s, "drawn tokens", t->prompt, at);
}

/* The prompt, then greedy tokens one at a time, drafts behind each. */
static void check_drafts(struct stage *s, int32_t prompt, int32_t *seen) {
    struct tape t;
    begin(&t, s, prompt, 1);
    struct dr_segment g = {.n_rows = t.n_prompt, .output = DR_OUTPUT_SAMPLE, .n_draft = CHAIN};
    for (int32_t at = t.n_prompt; at < t.n_full; at++) {
        const struct dr_result_row *row = run(&t, g);
        check_token(&t, at, row, 0);
        stage_judge(row->n_draft == CHAIN, s, "drafts", prompt, row->n_draft);
        check_chain(&t, at - t.n_prompt, row, seen);
        g.first = at;
        g.n_rows = 1;
    }
}

/* Verified guesses: the true continuation, wrong from some place on. Whatever comes true, the tokens are the
 * greedy ones, and the next drafts are those that follow them. */
static void check_verified(struct stage *s, int32_t prompt, int32_t *seen) {
    struct tape t;
    uint32_t ids[1 + DR_DRAFTS_MAX];
    begin(&t, s, prompt, 2);
    int32_t at = t.n_prompt, turn = 0; /* `at`: position of the next token to be drawn */
    (void)run(&t, (struct dr_segment){.n_rows = t.n_prompt, .output = DR_OUTPUT_SAMPLE});
    for (at++; at + 5 < t.n_full; turn++) {
        const int32_t n = 1 + turn % 5, right = (turn * 7 + 3) % (n + 1);
        for (int32_t i = 0; i <= n; i++) ids[i] = t.ids[at - 1 + i];
        for (int32_t i = 1 + right; i <= n; i++) ids[i] = (ids[i] + 1) % 512;
        const struct dr_result_row *row = run(&t, (struct dr_segment){.first = at - 1,
                                                                      .n_rows = 1 + n,
                                                                      .ids = ids,
                                                                      .output = DR_OUTPUT_SAMPLE,
                                                                      .n_verify = n,
                                                                      .n_draft = CHAIN});
        check_token(&t, at, row, right);
        check_chain(&t, at - t.n_prompt + right, row, seen);
        at += 1 + right;
    }
}

/* Pages of another slot, found as a prefix: the row before the first new one runs again for its state, and is
 * not stored. */
static void check_shared(struct stage *s, int32_t *seen) {
    struct tape own, t;
    begin(&own, s, 2, 0);
    begin(&t, s, 2, 3);
    own.sampling.n_top = 0;
    (void)run(&own, (struct dr_segment){.n_rows = own.n_prompt, .output = DR_OUTPUT_SAMPLE});
    const struct dr_segment decode = {
        .first = own.n_prompt, .n_rows = 1, .output = DR_OUTPUT_SAMPLE, .n_draft = CHAIN};
    const float before = run(&own, decode)->logprob[0];
    t.shared = 2;
    t.absorbed = true; /* a row computed so differs in its last bits: stored, it would show */
    t.n_kept = 2 * s->rig.layout.page_tokens;
    CU_ASSERT_FATAL(t.n_kept < t.n_prompt);
    const struct dr_result_row *row = run(&t, (struct dr_segment){.first = t.n_kept - 1,
                                                                  .n_rows = t.n_prompt - t.n_kept + 1,
                                                                  .output = DR_OUTPUT_SAMPLE,
                                                                  .n_draft = CHAIN});
    check_token(&t, t.n_prompt, row, 0);
    check_chain(&t, 0, row, seen);
    row = run(&own, decode);
    stage_judge(memcmp(&row->logprob[0], &before, sizeof before) == 0, s, "shared pages changed", 2, 0);
    check_token(&own, own.n_prompt + 1, row, 0);
    check_chain(&own, 1, row, seen);
}

/* The three prompts side by side, each wanting another number of drafts: every pass has other rows. */
static void check_together(struct stage *s, int32_t *seen) {
    static const int32_t wanted[STAGE_PROMPTS] = {1, 3, 2};
    struct tape t[STAGE_PROMPTS];
    struct dr_segment g[STAGE_PROMPTS];
    const int32_t order[STAGE_PROMPTS] = {2, 0, 1};
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        begin(&t[i], s, order[i], i);
        g[i] = (struct dr_segment){.n_rows = t[i].n_prompt, .output = DR_OUTPUT_SAMPLE, .n_draft = wanted[i]};
    }
    for (int32_t step = 0; step < 8; step++) {
        (void)run_all(t, g, STAGE_PROMPTS);
        for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
            const struct dr_result_row *row = &rig_result(&s->rig)->row[i];
            check_token(&t[i], t[i].n_prompt + step, row, 0);
            stage_judge(row->n_draft == wanted[(i + step) % STAGE_PROMPTS], s, "drafts", i, row->n_draft);
            check_chain(&t[i], step, row, seen);
            g[i].first = t[i].n_prompt + step;
            g[i].n_rows = 1;
            g[i].n_draft = wanted[(i + step + 1) % STAGE_PROMPTS];
        }
    }
}

static void layouts(void) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct stage *s = calloc(1, sizeof *s);
        struct dr_layout_wish wish = rig_wish(forms[i].tp, forms[i].pp, forms[i].c, DR_EXPERTS_COLUMNS);
        int32_t seen = 0;
        wish.exchange = forms[i].exchange;
        wish.mtp = true;
        if (stage_init(s, "v3-mtp", &wish, table_here(DR_PRECISION_F32))) {
            for (int32_t prompt = 0; prompt < STAGE_PROMPTS; prompt++) {
                check_rows(s, prompt, 1);
                check_rows(s, prompt, 7);
                check_rows(s, prompt, 64);
                check_drafts(s, prompt, &seen);
                check_verified(s, prompt, &seen);
            }
            check_shared(s, &seen);
            check_together(s, &seen);
            stage_judge(seen > 250, s, "drafts compared", -1, seen);
            stage_fini(s);
        }
        free(s);
    }
}

/* ---- drawn tokens ---- */

static const struct dr_sampling wishes[] = {
    {.temperature = 0.9f, .top_p = 1, .repetition = 1, .seed = 77, .n_top = 3},
    {.temperature = 1.3f,
     .top_p = 0.9f,
     .top_k = 40,
     .min_p = 0.01f,
     .repetition = 1,
     .seed = 5,
     .n_top = -1},
    {.temperature = 1,
     .top_p = 1,
     .repetition = 1.2f,
     .frequency = 0.4f,
     .presence = 0.3f,
     .seed = 9,
     .n_top = 2},
    {.top_p = 1, .repetition = 1.5f, .frequency = 1.5f, .presence = 0.5f, .n_top = 0},
};
enum { DRAWN = 40 };

static void keep(const struct dr_result_row *row, int32_t at, uint32_t *ids, float *logprob,
                 struct dr_top (*top)[DR_TOP_MAX]) {
    for (int32_t i = 0; i < row->n_ids && at + i < DRAWN; i++) {
        ids[at + i] = row->ids[i];
        logprob[at + i] = row->logprob[i];
        for (int32_t k = 0; k < row->n_top; k++) top[at + i][k] = row->top[i * row->n_top + k];
    }
}

/* DRAWN tokens behind the prompt. guesses: NULL: no drafts; else what is verified, wrong at some places. */
static void draw(struct tape *t, const uint32_t *guesses, uint32_t *ids, float *logprob,
                 struct dr_top (*top)[DR_TOP_MAX], int32_t *accepted) {
    uint32_t fed[1 + DR_DRAFTS_MAX];
    int32_t n = 1;
    keep(run(t, (struct dr_segment){.n_rows = t->n_prompt, .output = DR_OUTPUT_SAMPLE}), 0, ids, logprob,
         top);
    for (int32_t turn = 0; n < DRAWN; turn++) {
        const int32_t v = guesses ? dr_min_i32(turn % 4, DRAWN - n) : 0;
        fed[0] = ids[n - 1];
        for (int32_t i = 0; i < v; i++) fed[1 + i] = (guesses[n + i] + (turn % 5 == 4 && i == 1)) % 512;
        const struct dr_result_row *row = run(t, (struct dr_segment){.first = t->n_prompt + n - 1,
                                                                     .n_rows = 1 + v,
                                                                     .ids = fed,
                                                                     .output = DR_OUTPUT_SAMPLE,
                                                                     .n_verify = v});
        CU_ASSERT_FATAL(row && row->n_ids >= 1);
        keep(row, n, ids, logprob, top);
        n += row->n_ids;
        *accepted += row->n_accepted;
    }
}

static void sampled(void) {
    static struct dr_top top[2][DRAWN][DR_TOP_MAX];
    static struct dr_bias bias[500]; /* leaves few ids, so that penalties matter */
    for (int32_t i = 0; i < 500; i++) bias[i] = (struct dr_bias){.id = (uint32_t)i, .value = -100};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i += 2) {
        struct stage *s = calloc(1, sizeof *s);
        struct dr_layout_wish wish = rig_wish(forms[i].tp, forms[i].pp, forms[i].c, DR_EXPERTS_COLUMNS);
        wish.exchange = forms[i].exchange;
        wish.mtp = true;
        if (stage_init(s, "v3-mtp", &wish, table_here(DR_PRECISION_F32))) {
            for (size_t w = 0; w < sizeof wishes / sizeof *wishes; w++) {
                uint32_t ids[2][DRAWN] = {{0}};
                float logprob[2][DRAWN] = {{0}};
                int32_t accepted = 0;
                memset(top, 0, sizeof top);
                for (int k = 0; k < 2; k++) {
                    struct tape t;
                    begin(&t, s, 1, k);
                    t.sampling = wishes[w];
                    t.bias = bias;
                    t.n_bias = w < 2 ? 0 : 500;
                    draw(&t, k ? ids[0] : NULL, ids[k], logprob[k], top[k], &accepted);
                }
                stage_judge(memcmp(ids[0], ids[1], sizeof *ids) == 0, s, "tokens with drafts", -1, (double)w);
                stage_judge(memcmp(logprob[0], logprob[1], sizeof *logprob) == 0, s, "log-probabilities", -1,
                            (double)w);
                stage_judge(memcmp(top[0], top[1], sizeof *top) == 0, s, "alternatives", -1, (double)w);
                stage_judge(accepted > DRAWN / 3, s, "accepted", -1, accepted);
            }
            stage_fini(s);
        }
        free(s);
    }
}

/* ---- the sample model's own drafts ---- */

/* Greedy with the drafts that it makes itself: the golden tokens, and of each chain as many come true as
 * there. */
static void follow(struct stage *s, const json_t *one, int32_t *steps, int32_t *tokens) {
    const json_t *prompt = json_object_get(one, "prompt_ids"), *greedy = json_object_get(one, "greedy_ids"),
                 *hits = json_object_get(one, "mtp_chain_accepted");
    const int32_t n = (int32_t)json_array_size(prompt), more = (int32_t)json_array_size(greedy);
    struct tape t = {.s = s, .slot = 0, .n_prompt = n, .n_full = n + more, .sampling = greedy_sampling};
    uint32_t ids[1 + CHAIN];
    for (int32_t i = 0; i < n; i++)
        t.ids[i] = (uint32_t)json_integer_value(json_array_get(prompt, (size_t)i));
    for (int32_t i = 0; i < more; i++)
        t.ids[n + i] = (uint32_t)json_integer_value(json_array_get(greedy, (size_t)i));
    const struct dr_result_row *row =
        run(&t, (struct dr_segment){.n_rows = n, .output = DR_OUTPUT_SAMPLE, .n_draft = CHAIN});
    check_token(&t, n, row, 0);
    for (int32_t at = n + 1; at < t.n_full;) { /* the token at `at - 1` is the newest one */
        const int32_t v = dr_min_i32(row->n_draft, t.n_full - at - 1),
                      come = dr_min_i32(
                          v, (int32_t)json_integer_value(json_array_get(hits, (size_t)(at - 1 - n))));
        ids[0] = t.ids[at - 1];
        for (int32_t i = 0; i < v; i++) ids[1 + i] = row->draft[i];
        row = run(&t, (struct dr_segment){.first = at - 1,
                                          .n_rows = 1 + v,
                                          .ids = ids,
                                          .output = DR_OUTPUT_SAMPLE,
                                          .n_verify = v,
                                          .n_draft = CHAIN});
        check_token(&t, at, row, come);
        at += 1 + row->n_accepted;
        ++*steps;
        *tokens += 1 + row->n_accepted;
    }
}

static void sample_model(void) {
    json_t *golden = json_load_file(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json", 0, NULL);
    const json_t *one;
    CU_ASSERT_FATAL(golden != NULL);
    for (size_t i = 0; i < 5; i += 2) {
        struct stage *s = calloc(1, sizeof *s);
        struct dr_layout_wish wish = rig_wish(forms[i].tp, forms[i].pp, forms[i].c, DR_EXPERTS_COLUMNS);
        int32_t steps = 0, tokens = 0, played = 0;
        size_t k;
        wish.exchange = forms[i].exchange;
        wish.mtp = true;
        (void)snprintf(s->label, sizeof s->label, "lexi-15m tp %d pp %d", wish.tp, wish.pp);
        rig_kernels = (struct rig_kernels){.ops = table_here(DR_PRECISION_F32)};
        CU_ASSERT_FATAL(rig_init(&s->rig, DR_SOURCE_DIR "/deploy/models/lexi-15m", &wish).code == DR_OK);
        rig_kernels = (struct rig_kernels){0};
        json_array_foreach(json_object_get(golden, "cases"), k, one) {
            if (json_array_size(json_object_get(one, "prompt_ids")) > 160) continue;
            follow(s, one, &steps, &tokens);
            played++;
        }
        stage_judge(played >= 8 && tokens > 2 * steps, s, "tokens a step", -1, (double)tokens / steps);
        rig_fini(&s->rig);
        free(s);
    }
    json_decref(golden);
}

/* ---- distribution ---- */

enum { DRAWS = 100352, SLOTS = 64, FEW = 8, AT = 6, TEMPERATURE = 3 }; /* draws: a multiple of the slots */
static const uint32_t few[FEW] = {17, 40, 88, 140, 233, 301, 402, 480};

static int32_t few_of(uint32_t id) {
    for (int32_t i = 0; i < FEW; i++)
        if (few[i] == id) return i;
    return -1;
}

static double chi_square(const int64_t *count, const double *p, int64_t n) {
    double sum = 0;
    for (int32_t i = 0; i < FEW; i++)
        sum += ((double)count[i] - n * p[i]) * ((double)count[i] - n * p[i]) / (n * p[i]);
    return sum;
}

/* Probability of a larger sum by chance (Wilson and Hilferty's approximation). */
static double by_chance(double sum, int32_t freedom) {
    const double v = 2.0 / (9.0 * freedom), z = (cbrt(sum / freedom) - (1 - v)) / sqrt(v);
    return erfc(z / sqrt(2)) / 2;
}

struct crowd { /* one step of all slots */
    struct dr_open open[SLOTS];
    struct dr_pages pages[SLOTS];
    struct dr_segment segment[SLOTS];
    uint32_t page[SLOTS], ids[SLOTS][4];
    int32_t drop[SLOTS];
    struct dr_bias bias[512];
    float logits[1 + FEW][512];
};

static dr_status take_logits(void *arg, const struct dr_logits *chunk) {
    struct crowd *k = arg;
    if (chunk->position >= AT + 1 && chunk->slot <= FEW)
        memcpy(&k->logits[chunk->slot][chunk->first], chunk->value, (size_t)chunk->n * sizeof(float));
    return dr_ok();
}

/* Softmax of a row over the few ids, flat enough that all of them come. */
static void probabilities(const float *row, double *p) {
    double sum = 0;
    for (int32_t i = 0; i < FEW; i++) sum += p[i] = exp((double)row[few[i]] / TEMPERATURE);
    for (int32_t i = 0; i < FEW; i++) p[i] /= sum;
}

/* Opens all slots, each with its own page, in which the prompt's rows are from the first time on. */
static struct dr_step_plan crowd_opened(struct crowd *k, uint64_t seed) {
    for (int32_t i = 0; i < SLOTS; i++) {
        k->drop[i] = i;
        k->page[i] = (uint32_t)i;
        k->pages[i] = (struct dr_pages){.slot = i, .n = 1, .page = &k->page[i]};
        k->open[i] = (struct dr_open){
            .slot = i,
            .n_prompt = AT + 2,
            .sampling = {.temperature = TEMPERATURE,
                         .top_p = 1,
                         .repetition = 1,
                         .n_top = -1,
                         .seed = seed + (uint64_t)i},
            .n_bias = 512 - FEW,
            .bias = k->bias,
        };
    }
    return (struct dr_step_plan){.open = k->open,
                                 .n_open = SLOTS,
                                 .pages = k->pages,
                                 .n_pages = SLOTS,
                                 .segment = k->segment,
                                 .n_segment = SLOTS,
                                 .drop = k->drop,
                                 .n_drop = SLOTS};
}

/* Draws behind the same tokens, with other seeds, of which two drafts are verified each time: the first token
 * drawn, and the second one behind each draft that came true, have the model's probabilities. */
static void distribution(void) {
    struct crowd *k = calloc(1, sizeof *k);
    struct stage *s = calloc(1, sizeof *s);
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    wish.mtp = true;
    wish.seqs_max = SLOTS;
    wish.context = 64;
    wish.step_tokens = SLOTS * (AT + 2);
    CU_ASSERT_FATAL(k != NULL && s != NULL && stage_init(s, "v3-mtp", &wish, table_here(DR_PRECISION_F32)));
    for (int32_t i = 0, n = 0; i < 512; i++)
        if (few_of((uint32_t)i) < 0) k->bias[n++] = (struct dr_bias){.id = (uint32_t)i, .value = -100};
    uint32_t prompt[AT + 3];
    for (int32_t i = 0; i < AT + 1; i++) prompt[i] = (uint32_t)s->play[1].prompt[i];
    prompt[AT + 1] = 99;
    /* the prompt into every slot; logits behind its last token, and behind that and each of the few */
    struct dr_step_plan plan = crowd_opened(k, 0);
    s->rig.sink = take_logits;
    s->rig.sink_arg = k;
    static uint32_t fed[SLOTS][AT + 3];
    for (int32_t i = 0; i < SLOTS; i++) {
        memcpy(fed[i], prompt, sizeof prompt);
        fed[i][AT + 2] = few[(i + FEW - 1) % FEW]; /* in slots 1 to 8: few[0] to few[7] */
        k->segment[i] = (struct dr_segment){.slot = i,
                                            .n_rows = AT + 2,
                                            .ids = fed[i],
                                            .role = DR_TOKENS_PROMPT,
                                            .form = DR_FORM_ABSORBED,
                                            .output = DR_OUTPUT_NONE};
    }
    CU_ASSERT_FATAL(rig_step(&s->rig, &plan).code == DR_OK);
    for (int32_t i = 0; i <= FEW; i++)
        k->segment[i] = (struct dr_segment){.slot = i,
                                            .first = i == 0 ? AT + 1 : AT + 2,
                                            .n_rows = 1,
                                            .ids = &fed[i][i == 0 ? AT + 1 : AT + 2],
                                            .role = DR_TOKENS_GENERATED,
                                            .form = DR_FORM_ABSORBED,
                                            .output = DR_OUTPUT_LOGITS};
    plan = (struct dr_step_plan){.segment = k->segment, .n_segment = 1 + FEW};
    CU_ASSERT_FATAL(rig_step(&s->rig, &plan).code == DR_OK);
    double p[1 + FEW][FEW];
    for (int32_t i = 0; i <= FEW; i++) probabilities(k->logits[i], p[i]);
    int64_t first[FEW] = {0}, second[FEW][FEW] = {{0}}, behind[FEW] = {0}, accepted = 0;
    for (uint64_t seed = 1; seed <= DRAWS; seed += SLOTS) {
        plan = crowd_opened(k, seed * 7919);
        for (int32_t i = 0; i < SLOTS; i++)
            k->segment[i] = (struct dr_segment){.slot = i,
                                                .first = AT,
                                                .n_rows = 1,
                                                .ids = &prompt[AT],
                                                .has_next = true,
                                                .next_id = prompt[AT + 1],
                                                .form = DR_FORM_ABSORBED,
                                                .output = DR_OUTPUT_SAMPLE,
                                                .n_draft = 2};
        CU_ASSERT_FATAL(rig_step(&s->rig, &plan).code == DR_OK);
        const struct dr_result_row *row = rig_result(&s->rig)->row;
        for (int32_t i = 0; i < SLOTS; i++) {
            CU_ASSERT_FATAL(row[i].n_draft == 2);
            k->ids[i][0] = prompt[AT + 1];
            memcpy(&k->ids[i][1], row[i].draft, 2 * sizeof(uint32_t));
            k->segment[i] = (struct dr_segment){.slot = i,
                                                .first = AT + 1,
                                                .n_rows = 3,
                                                .ids = k->ids[i],
                                                .role = DR_TOKENS_GENERATED,
                                                .form = DR_FORM_ABSORBED,
                                                .output = DR_OUTPUT_SAMPLE,
                                                .n_verify = 2};
        }
        plan = (struct dr_step_plan){.segment = k->segment, .n_segment = SLOTS};
        CU_ASSERT_FATAL(rig_step(&s->rig, &plan).code == DR_OK);
        row = rig_result(&s->rig)->row;
        for (int32_t i = 0; i < SLOTS; i++) {
            const int32_t a = few_of(row[i].ids[0]), b = row[i].n_accepted ? few_of(row[i].ids[1]) : -1;
            CU_ASSERT_FATAL(a >= 0 && (b >= 0) == (row[i].n_accepted > 0));
            first[a]++;
            accepted += b >= 0;
            if (b < 0) continue;
            behind[a]++;
            second[a][b]++;
        }
    }
    double sum = 0, chance = by_chance(chi_square(first, p[0], DRAWS), FEW - 1);
    int32_t classes = 0;
    stage_judge(chance > 0.001, s, "the first token drawn", -1, chance);
    for (int32_t i = 0; i < FEW; i++) {
        if (behind[i] < 1000) continue;
        sum += chi_square(second[i], p[1 + i], behind[i]);
        classes++;
    }
    chance = by_chance(sum, classes * (FEW - 1));
    stage_judge(classes >= 4 && chance > 0.001, s, "the token behind a draft that came true", -1, chance);
    printf("%d draws, %.3f of the first drafts came true; by chance %.3f\n", DRAWS, (double)accepted / DRAWS,
           chance);
    stage_fini(s);
    free(s);
    free(k);
}

static CU_TestInfo tests[] = {
    {"rows, logits and chained drafts of the MTP layer on every cut of the cache", layouts},
    {"drafts change nothing that is drawn: penalties, limits, alternatives", sampled},
    {"the sample model's drafts come true as often as they do elsewhere", sample_model},
    {"what is drawn with drafts has the model's distribution", distribution},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_drafts = {.pName = "golden/drafts", .pTests = tests};
