/* test_reuse.c - prefixes: what is found, what is not, who waits for whom.
 * In:   submits that begin alike.      Out: checks.
 * Owns: nothing.
 * Why:  a page found wrongly is a wrong answer; a page not found is work done twice. The fake's tokens depend
 * on every row as read through the page tables, so each answer is compared with the one alone. */
#include <string.h>

#include "common/size.h"
#include "rig.h"

#include <CUnit/CUnit.h>

enum { PAGE = 8 };

static const struct fake_wish usual = {.context = 128,
                                       .seqs_max = 4,
                                       .step_tokens = 16,
                                       .n_page = 64,
                                       .page_tokens = PAGE,
                                       .reuse = DR_REUSE_ANY};

static const uint32_t *ids(void) {
    static uint32_t prompt[4096];
    for (uint32_t i = 0; i < 4096; i++) prompt[i] = (uint32_t)(splitmix(i + 7777) % FAKE_VOCAB);
    return prompt;
}

static void ask(struct rig *g, uint64_t request, int32_t n, int32_t max_tokens) {
    struct dr_submit s = fake_submit(request, ids(), n, max_tokens);
    rig_submit(g, &s);
}

static void expect(const struct rig *g, uint64_t request, int32_t n, int32_t max_tokens, int32_t cached) {
    struct dr_submit s = fake_submit(request, ids(), n, max_tokens);
    rig_expect_answer(g, &s);
    CU_ASSERT_EQUAL(g->told[request].end.n_cached, cached);
}

static void whole_pages_are_found_but_the_last_token_is_computed(void) {
    static const struct {
        int32_t n, cached;
    } rows[] = {{40, 0}, {40, 32}, {41, 40}, {47, 40}, {16, 8}, {17, 16}, {8, 0}, {9, 8}, {1, 0}};
    struct rig g;
    rig_init(&g, usual);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t before = g.n_prompt_row;
        ask(&g, i, rows[i].n, 3);
        rig_run(&g, 100);
        expect(&g, i, rows[i].n, 3, rows[i].cached);
        CU_ASSERT_EQUAL(g.n_prompt_row - before, (uint64_t)(rows[i].n - rows[i].cached));
    }
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT_EQUAL(st.cached_tokens, 32 + 40 + 40 + 8 + 16 + 8);
    CU_ASSERT(st.pages_used == 0 && st.pages_idle == 6); /* of 47 + 3 - 1 rows */
    rig_fini(&g);
}

static void who_begins_alike_waits_for_the_first(void) {
    struct rig g;
    rig_init(&g, usual);
    for (uint64_t i = 0; i < 3; i++) ask(&g, i, 40, 5);
    struct dr_submit other = fake_submit(3, ids() + 100, 20, 5);
    rig_submit(&g, &other);
    CU_ASSERT(rig_begin(&g));
    CU_ASSERT_EQUAL(g.plan->n_segment, 1); /* all 16 rows go to the first; nobody computes them again */
    rig_finish(&g);
    rig_run(&g, 100);
    expect(&g, 0, 40, 5, 0);
    expect(&g, 1, 40, 5, 32);
    expect(&g, 2, 40, 5, 32);
    rig_expect_answer(&g, &other);
    CU_ASSERT_EQUAL(g.n_prompt_row, 40 + 8 + 8 + 20);
    rig_fini(&g);
}

/* The request whose prefix is being computed is passed over; others with room go on. */
static void waiting_for_a_prefix_holds_nobody_else_up(void) {
    struct rig g;
    struct fake_wish w = usual;
    w.step_tokens = 8;
    rig_init(&g, w);
    struct dr_submit other = fake_submit(2, ids() + 100, 4, 2);
    ask(&g, 0, 44, 5);
    ask(&g, 1, 44, 5);
    CU_ASSERT(rig_step(&g));
    rig_submit(&g, &other);
    rig_run(&g, 100);
    CU_ASSERT(g.told[2].done_step < g.told[0].done_step && g.told[2].done_step < g.told[1].done_step);
    expect(&g, 1, 44, 5, 40);
    rig_fini(&g);
}

static void the_first_ends_and_the_next_goes_on(void) {
    struct rig g;
    rig_init(&g, usual);
    ask(&g, 0, 60, 5);
    ask(&g, 1, 60, 5);
    CU_ASSERT(rig_step(&g));
    CU_ASSERT(rig_begin(&g));
    rig_cancel(&g, 0); /* 16 rows are there; the 16 under way are dropped */
    rig_finish(&g);
    rig_run(&g, 100);
    expect(&g, 1, 60, 5, 16);
    rig_fini(&g);
}

static void salts_do_not_share(void) {
    struct rig g;
    rig_init(&g, usual);
    for (uint64_t i = 0; i < 4; i++) {
        struct dr_submit s = fake_submit(i, ids(), 40, 2);
        s.salt[0] = "abab"[i];
        rig_submit(&g, &s);
        rig_run(&g, 100);
        rig_expect_answer(&g, &s);
        CU_ASSERT_EQUAL(g.told[i].end.n_cached, i < 2 ? 0 : 32);
    }
    rig_fini(&g);
}

static void tenants_of_one_salt_share(void) {
    struct rig g;
    rig_init(&g, usual);
    for (uint64_t i = 0; i < 2; i++) {
        struct dr_submit s = fake_submit(i, ids(), 40, 2);
        s.tenant[0] = "xy"[i];
        rig_submit(&g, &s);
        rig_run(&g, 100);
        CU_ASSERT_EQUAL(g.told[i].end.n_cached, i == 0 ? 0 : 32);
    }
    rig_fini(&g);
}

/* Each of its rows must be scored, so it computes all; what it computed serves others. */
static void scores_find_nothing_but_give(void) {
    struct rig g;
    rig_init(&g, usual);
    for (uint64_t i = 0; i < 2; i++) {
        struct dr_submit s = fake_submit(i, ids(), 40, 2);
        s.prompt_top = 0;
        rig_submit(&g, &s);
        rig_run(&g, 100);
        rig_expect_answer(&g, &s);
        CU_ASSERT_EQUAL(g.told[i].end.n_cached, 0);
    }
    ask(&g, 2, 40, 2);
    rig_run(&g, 100);
    expect(&g, 2, 40, 2, 32);
    rig_fini(&g);
}

static void a_reset_forgets(void) {
    struct rig g;
    rig_init(&g, usual);
    ask(&g, 0, 40, 2);
    rig_run(&g, 100);
    dr_core_reset_prefix(g.core);
    ask(&g, 1, 40, 30);
    CU_ASSERT(rig_step(&g) && rig_step(&g) && rig_step(&g));
    dr_core_reset_prefix(g.core); /* what the running one has computed, too */
    ask(&g, 2, 40, 2);
    rig_run(&g, 100);
    expect(&g, 1, 40, 30, 0);
    expect(&g, 2, 40, 2, 0);
    rig_fini(&g);
}

/* The next turn of a conversation: prompt, answer, new words. */
static void play_turns(enum dr_reuse reuse, int32_t cached) {
    struct rig g;
    struct fake_wish w = usual;
    uint32_t turn[64];
    w.reuse = reuse;
    rig_init(&g, w);
    ask(&g, 0, 20, 15);
    rig_run(&g, 100);
    memcpy(turn, ids(), 20 * sizeof *turn);
    memcpy(turn + 20, g.told[0].ids, 15 * sizeof *turn);
    for (uint32_t i = 35; i < 50; i++) turn[i] = i;
    struct dr_submit s = fake_submit(1, turn, 50, 5);
    rig_submit(&g, &s);
    rig_run(&g, 100);
    rig_expect_answer(&g, &s);
    CU_ASSERT_EQUAL(g.told[1].end.n_cached, cached);
    rig_fini(&g);
}

static void answers_are_found_by_the_next_turn(void) {
    play_turns(DR_REUSE_ANY, 32);   /* of 34 rows: the last token drawn has none */
    play_turns(DR_REUSE_EXACT, 16); /* rows of the answer were absorbed; as a prompt they would be expanded */
    play_turns(DR_REUSE_OFF, 0);
}

static void a_failed_request_gives_nothing(void) {
    struct rig g;
    int32_t slot;
    rig_init(&g, usual);
    ask(&g, 0, 60, 5);
    ask(&g, 1, 60, 5);
    CU_ASSERT(rig_step(&g));
    CU_ASSERT(rig_begin(&g)); /* rows 16 to 31, without an output */
    slot = g.plan->segment[0].slot;
    CU_ASSERT_EQUAL(g.plan->segment[0].output, DR_OUTPUT_NONE);
    g.flight[0].result.n_bad = 1;
    g.flight[0].result.bad = &slot;
    rig_finish(&g);
    CU_ASSERT(g.told[0].done && g.told[0].end.finish == DR_FINISH_NUMERIC);
    rig_run(&g, 100);
    expect(&g, 1, 60, 5, 0); /* its first rows were finite, and still nobody uses them */
    rig_fini(&g);
}

static void idle_pages_give_way(void) {
    struct rig g;
    struct fake_wish w = usual;
    w.n_page = 16; /* one context */
    rig_init(&g, w);
    ask(&g, 0, 40, 1);
    rig_run(&g, 100);
    struct dr_submit large = fake_submit(1, ids() + 500, 100, 1);
    rig_submit(&g, &large); /* 12 whole pages and a part: two of the five idle ones go, the last ones first */
    rig_run(&g, 100);
    rig_expect_answer(&g, &large);
    ask(&g, 2, 40, 1);
    rig_run(&g, 100);
    expect(&g, 2, 40, 1, 24);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.pages_used == 0 && st.pages_idle <= 16);
    rig_fini(&g);
}

/* Two sequences grow until one must go; it comes back to what is left of its pages. */
static void who_was_preempted_finds_its_own_pages(void) {
    struct rig g;
    struct fake_wish w = usual;
    w.n_page = 20;
    rig_init(&g, w);
    struct dr_submit a = fake_submit(0, ids(), 30, 90), b = fake_submit(1, ids() + 300, 30, 90);
    rig_submit(&g, &a);
    rig_submit(&g, &b);
    rig_run(&g, 1000);
    rig_expect_answer(&g, &a);
    rig_expect_answer(&g, &b);
    struct dr_stats st;
    dr_core_stats(g.core, g.now, &st);
    CU_ASSERT(st.preempted >= 1);
    CU_ASSERT_EQUAL(st.cached_tokens,
                    0); /* what it finds again does not count as cached: each request counts once */
    CU_ASSERT(g.told[1].end.n_cached == 0);
    CU_ASSERT(g.n_prompt_row < 60 + 30); /* less than computing its prompt again */
    rig_fini(&g);
}

/* DeepSeek-V3: 33.55 M x hit against 0.197 M x n x (hit + n / 2). */
static void form_follows_the_cost(void) {
    struct dr_config v3 = {.n_head = 128, .kv_lora = 512, .nope_dim = 128, .rope_dim = 64, .v_dim = 128};
    CU_ASSERT_EQUAL(dr_form_of(&v3, 0, 1), DR_FORM_EXPANDED);
    CU_ASSERT_EQUAL(dr_form_of(&v3, 65536, 32), DR_FORM_ABSORBED);
    CU_ASSERT_EQUAL(dr_form_of(&v3, 65536, 170), DR_FORM_ABSORBED);
    CU_ASSERT_EQUAL(dr_form_of(&v3, 65536, 171), DR_FORM_EXPANDED);
    CU_ASSERT_EQUAL(dr_form_of(&v3, 64, 100), DR_FORM_EXPANDED); /* 2.1 G < 0.197 M x 100 x 114 = 2.2 G */
    CU_ASSERT_EQUAL(dr_form_of(&v3, 64, 90), DR_FORM_ABSORBED);
}

static CU_TestInfo cases[] = {
    {"whole pages are found; the last token is computed",
     whole_pages_are_found_but_the_last_token_is_computed},
    {"who begins alike waits for the first", who_begins_alike_waits_for_the_first},
    {"waiting for a prefix holds nobody else up", waiting_for_a_prefix_holds_nobody_else_up},
    {"when the first ends early, the next goes on from what is there", the_first_ends_and_the_next_goes_on},
    {"different salts share nothing", salts_do_not_share},
    {"tenants of one salt share", tenants_of_one_salt_share},
    {"scored prompts are computed whole and serve others", scores_find_nothing_but_give},
    {"after a reset nothing is found", a_reset_forgets},
    {"the next turn finds the answer, or with exact only the prompt", answers_are_found_by_the_next_turn},
    {"pages of a failed request are found by nobody", a_failed_request_gives_nothing},
    {"idle pages give way, later ones of a sequence first", idle_pages_give_way},
    {"a preempted request finds its own pages", who_was_preempted_finds_its_own_pages},
    {"the form of prompt rows follows the cost", form_follows_the_cost},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_reuse = {.pName = "coordinator/reuse", .pTests = cases};
