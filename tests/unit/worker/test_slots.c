/* test_slots.c - plans that a worker must refuse.
 * In:   one damage a row.      Out: EPROTO with a text that names it.
 * Owns: nothing.
 * Why:  a plan is checked against this rank before any index is used. */

#include <stdio.h>
#include <string.h>

#include "tests/support/runner.h"
#include "worker/slots.h"

enum { SLOTS = 3, VOCAB = 100, FIRST = 40, COLS = 30, SLOT_PAGES = 4, PAGES = 9 };

struct room {
    struct dr_slots s;
    struct dr_slot slot[SLOTS];
    struct dr_sampling sampling[SLOTS];
    uint16_t prompt[SLOTS * COLS], output[SLOTS * COLS];
    uint32_t bias_id[SLOTS * DR_BIAS_MAX], entry[SLOTS * SLOT_PAGES];
    float bias[SLOTS * DR_BIAS_MAX];
};

static void init(struct room *m) {
    memset(m, 0, sizeof *m);
    m->s = (struct dr_slots){
        .n = SLOTS,
        .vocab_first = FIRST,
        .n_vocab = COLS,
        .last = true,
        .vocab = VOCAB,
        .context = 200,
        .step_tokens = 16,
        .slot = m->slot,
        .sampling = m->sampling,
        .count_prompt = m->prompt,
        .count_output = m->output,
        .bias_id = m->bias_id,
        .bias = m->bias,
        .pages = {.entry = m->entry,
                  .n_slot = SLOTS,
                  .slot_pages = SLOT_PAGES,
                  .n_page = PAGES,
                  .page_tokens = 64,
                  .page_rows = 64,
                  .c = 1},
    };
    for (int32_t i = 0; i < SLOTS; i++) dr_pages_clear(&m->s.pages, i);
}

static const uint32_t ids[32] = {1, 2, 3, 99};
static const uint32_t page[2] = {8, 0};
static const struct dr_sampling plain = {.top_p = 1, .repetition = 1, .n_top = -1};

/* A good plan: opens slot 1 with two pages and runs four rows. */
struct draft {
    struct dr_open open[2];
    struct dr_pages pages[2];
    struct dr_segment segment[2];
    int32_t drop[2];
    struct dr_bias bias[1];
    struct dr_step_plan plan;
    bool mtp;
};

static void good(struct draft *d) {
    *d = (struct draft){
        .open = {{.slot = 1, .n_prompt = 4, .sampling = plain}},
        .pages = {{.slot = 1, .n = 2, .page = page}},
        .segment = {{.slot = 1, .n_rows = 4, .ids = ids, .output = DR_OUTPUT_SAMPLE}},
    };
    d->plan = (struct dr_step_plan){.n_open = 1,
                                    .n_pages = 1,
                                    .n_segment = 1,
                                    .open = d->open,
                                    .pages = d->pages,
                                    .segment = d->segment,
                                    .drop = d->drop};
}

static dr_status take(struct room *m, const struct draft *d) {
    m->s.mtp = d->mtp;
    DR_TRY(dr_slots_apply(&m->s, &d->plan));
    return dr_slots_check(&m->s, &d->plan);
}

static void twice_open(struct draft *d) {
    d->open[1] = d->open[0];
    d->plan.n_open = 2;
}
static void open_range(struct draft *d) {
    d->open[0].slot = SLOTS;
}
static void bias_id(struct draft *d) {
    d->bias[0].id = VOCAB;
    d->open[0].bias = d->bias;
    d->open[0].n_bias = 1;
}
static void bias_many(struct draft *d) {
    d->open[0].n_bias = DR_BIAS_MAX + 1;
}
static void top_many(struct draft *d) {
    d->open[0].sampling.n_top = DR_TOP_MAX + 1;
}
static void drop_range(struct draft *d) {
    d->drop[0] = -1;
    d->plan.n_drop = 1;
}
static void page_range(struct draft *d) {
    static const uint32_t beyond[2] = {0, PAGES};
    d->pages[0].page = beyond;
}
static void no_pages(struct draft *d) {
    d->plan.n_pages = 0;
}
static void slot_range(struct draft *d) {
    d->segment[0].slot = SLOTS;
}
static void not_open(struct draft *d) {
    d->segment[0].slot = 2;
}
static void carry(struct draft *d) {
    d->segment[0].source = DR_SOURCE_CARRY;
}
static void no_layer(struct draft *d) {
    d->segment[0].n_draft = 1;
}
static void many_drafts(struct draft *d) {
    d->mtp = true;
    d->segment[0].n_draft = DR_DRAFTS_MAX + 1;
}
static void no_next(struct draft *d) {
    d->mtp = true;
    d->segment[0].n_draft = 1;
    d->segment[0].output = DR_OUTPUT_SCORE;
}
static void no_answer(struct draft *d) {
    d->mtp = d->segment[0].has_next = true;
    d->segment[0].n_draft = 1;
    d->segment[0].output = DR_OUTPUT_NONE;
}
static void all_drafts(struct draft *d) {
    d->segment[0].n_verify = 4;
}
static void scored_drafts(struct draft *d) {
    d->segment[0].n_verify = 1;
    d->segment[0].output = DR_OUTPUT_SCORE;
}
static void drafts_known(struct draft *d) {
    d->segment[0].n_verify = 1;
    d->segment[0].has_next = true;
}
static void past_drafts(struct draft *d) { /* the rows end at position 126, the drafts at 128 */
    d->mtp = true;
    d->segment[0].first = 123;
    d->segment[0].n_draft = 2;
}
static void no_rows(struct draft *d) {
    d->segment[0].n_rows = 0;
}
static void before_start(struct draft *d) {
    d->segment[0].first = -1;
}
static void past_context(struct draft *d) {
    d->segment[0].first = 197;
}
static void past_pages(struct draft *d) {
    d->segment[0].first = 126;
}
static void far_id(struct draft *d) {
    static const uint32_t beyond[4] = {0, 1, VOCAB, 0};
    d->segment[0].ids = beyond;
}
static void far_next(struct draft *d) {
    d->segment[0].has_next = true;
    d->segment[0].next_id = VOCAB;
}
static void score_many(struct draft *d) {
    d->segment[0].output = DR_OUTPUT_SCORE;
    d->segment[0].score_top = DR_TOP_MAX + 1;
}
static void many_rows(struct draft *d) {
    d->segment[0].n_rows = 17;
}
static void many_segments(struct draft *d) {
    d->plan.n_segment = DR_SEGMENTS_MAX + 1;
}

static const struct {
    void (*damage)(struct draft *d);
    const char *word;
} rows[] = {
    {twice_open, "open already"},
    {open_range, "open: slot 3"},
    {bias_id, "bias of id 100"},
    {bias_many, "1025 biases"},
    {top_many, "21 alternatives"},
    {drop_range, "drop: slot -1"},
    {page_range, "page 9"},
    {no_pages, "never sent"},
    {slot_range, "segment: slot 3"},
    {not_open, "slot 2 is not open"},
    {carry, "CARRY"},
    {no_layer, "1 drafts are wanted"},
    {many_drafts, "9 drafts are wanted"},
    {no_next, "1 drafts are wanted"},
    {no_answer, "1 drafts are wanted"},
    {all_drafts, "4 of 4 ids are drafts"},
    {scored_drafts, "1 of 4 ids are drafts"},
    {drafts_known, "1 of 4 ids are drafts"},
    {past_drafts, "entry 2"},
    {no_rows, "at least one"},
    {before_start, "context of 200"},
    {past_context, "context of 200"},
    {past_pages, "entry 2"},
    {far_id, "id 100 at position 2"},
    {far_next, "next id 100"},
    {score_many, "21 alternatives"},
    {many_rows, "17 rows"},
    {many_segments, "2049 segments"},
};

static void refused(void) {
    static struct room m;
    struct draft d;
    init(&m);
    good(&d);
    CU_ASSERT(take(&m, &d).code == DR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        init(&m);
        good(&d);
        rows[i].damage(&d);
        dr_status st = take(&m, &d);
        CU_ASSERT(st.code == DR_EPROTO && strstr(dr_error_text(), rows[i].word) != NULL);
        if (st.code != DR_EPROTO || !strstr(dr_error_text(), rows[i].word))
            printf("row %zu: %s\n", i, dr_error_text());
    }
}

static void counts(void) {
    static struct room m;
    static const uint32_t seen[3] = {40, 69, 70};
    static const struct dr_count output[2] = {{.id = 41, .count = 70000}, {.id = 3, .count = 2}};
    struct draft d;
    init(&m);
    good(&d);
    d.open[0].sampling.presence = 0.5F;
    d.open[0].seen_prompt = seen;
    d.open[0].n_seen_prompt = 3;
    d.open[0].seen_output = output;
    d.open[0].n_seen_output = 2;
    CU_ASSERT(take(&m, &d).code == DR_OK);
    CU_ASSERT(m.prompt[COLS] == 1 && m.prompt[COLS + 29] == 1 && m.output[COLS + 1] == UINT16_MAX);
    dr_slots_count(&m.s, 1, 40);
    dr_slots_count(&m.s, 1, 41); /* stays at the top */
    dr_slots_count(&m.s, 1, 39); /* another rank's */
    CU_ASSERT(m.output[COLS] == 1 && m.output[COLS + 1] == UINT16_MAX);
    int32_t sum = 0;
    for (int32_t i = 0; i < SLOTS * COLS; i++) sum += m.prompt[i] + (m.output[i] != 0);
    CU_ASSERT(sum == 4);
    /* a new sequence in the slot starts from nothing */
    d.drop[0] = 1;
    d.plan.n_drop = 1;
    d.open[0].n_seen_prompt = d.open[0].n_seen_output = 0;
    CU_ASSERT(take(&m, &d).code == DR_OK);
    for (int32_t i = 0; i < SLOTS * COLS; i++) CU_ASSERT(m.prompt[i] == 0 && m.output[i] == 0);
}

static void reopened(void) {
    static struct room m;
    struct draft d;
    init(&m);
    good(&d);
    CU_ASSERT(take(&m, &d).code == DR_OK);
    d.drop[0] = 1;
    d.plan.n_drop = 1;
    d.plan.n_pages = 0;
    CU_ASSERT(take(&m, &d).code == DR_EPROTO); /* the old sequence's pages are not the new one's */
}

static CU_TestInfo tests[] = {
    {"each damage of a plan is refused by name", refused},
    {"penalty counts hold the own columns, saturate, and end with the slot", counts},
    {"a slot that opens again has no pages", reopened},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_slots = {.pName = "worker/slots", .pTests = tests};
