/* test_generation.c - tokens to pieces, ends and failures.
 * In:   a fake engine.      Out: text, tokens, reasons.
 * Owns: nothing.
 * Why:  every answer of every command and endpoint is made here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api/generation.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

static const uint64_t LONG_NS = 10000000000u;

struct outcome {
    char text[1024];
    size_t bytes;
    uint32_t id[FAKE_SCRIPT_MAX];
    int32_t n, n_prompt_rows;
    struct dr_piece end;
    char error[256], stop_text[64];
};

static const uint32_t prompt[] = {0, 35, 36, 37, 38, 39};

static struct dr_generation_wish wish(void) {
    return (struct dr_generation_wish){
        .ids = prompt,
        .n_ids = 6,
        .max_tokens = 20,
        .skip_special = true,
        .sampling = {.temperature = 0, .top_p = 1, .repetition = 1, .n_top = -1},
        .prompt_top = -1,
        .tenant = "",
        .salt = ""};
}

static void collect(struct dr_generation *g, struct outcome *o) {
    struct dr_piece p = {.end = false};
    memset(o, 0, sizeof *o);
    while (!p.end) {
        if (!dr_generation_wait(g, LONG_NS)) break;
        CU_ASSERT_TRUE_FATAL(dr_generation_next(g, &p)); /* what wait promised */
        CU_ASSERT_TRUE_FATAL(o->bytes + p.text_bytes < sizeof o->text);
        memcpy(o->text + o->bytes, p.text, p.text_bytes + 1);
        o->bytes += p.text_bytes;
        for (int32_t i = 0; i < p.n_token; i++) {
            if (p.token[i].prompt)
                o->n_prompt_rows++;
            else
                o->id[o->n++] = p.token[i].id;
        }
    }
    CU_ASSERT_TRUE(p.end);
    o->end = p;
    snprintf(o->error, sizeof o->error, "%s", p.error ? p.error : "");
    snprintf(o->stop_text, sizeof o->stop_text, "%s", p.stop_text ? p.stop_text : "");
    CU_ASSERT_FALSE(dr_generation_next(g, &p)); /* nothing after the end */
    CU_ASSERT_FALSE(dr_generation_wait(g, 0));
}

static struct outcome run(struct dr_engine *e, const struct dr_generation_wish *w) {
    struct outcome o = {.n = 0};
    struct dr_generation *g = NULL;
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), w, &g).code, DR_OK);
    collect(g, &o);
    dr_generation_destroy(g);
    return o;
}

static void say(struct dr_engine *e, const char *text, int64_t then) {
    struct rig r = {.engine = e};
    rig_say(&r, text, false);
    uint32_t ids[FAKE_SCRIPT_MAX];
    int32_t n = rig_ids(text, ids, FAKE_SCRIPT_MAX - 1);
    if (then >= 0) ids[n++] = (uint32_t)then;
    fake_set(e, FAKE_NORMAL, ids, n);
}

static void end_token(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    say(e, "Hello there.", 1);
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "Hello there.");
    CU_ASSERT_STRING_EQUAL(o.end.finish, "stop");
    CU_ASSERT_EQUAL(o.end.stop_id, 1);
    CU_ASSERT_EQUAL(o.id[o.n - 1], 1); /* ids and counts include the end token, the text does not */
    CU_ASSERT_EQUAL(o.end.done.n_output, o.n);
    CU_ASSERT_EQUAL(o.end.done.n_prompt, 6);
    CU_ASSERT_EQUAL(e->last.n_bias, 8192 - rig_kit()->n_vocab_named);
    w.skip_special = false;
    o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "Hello there."); /* not even when special tokens are shown */
    dr_engine_destroy(e);
}

static void ignored_end_token(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    say(e, "Hello", 1);
    w.ignore_eos = true;
    w.max_tokens = 4;
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.end.finish, "length");
    CU_ASSERT_EQUAL(o.n, 4);
    CU_ASSERT_TRUE(e->last.ignore_eos && e->last.n_end == 0);
    dr_engine_destroy(e);
}

static void stop_ids(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    uint32_t comma[2];
    CU_ASSERT_EQUAL_FATAL(rig_ids(",", comma, 2), 1);
    say(e, "one, two, three", -1);
    w.stop_ids = comma;
    w.n_stop_ids = 1;
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "one");
    CU_ASSERT_EQUAL(o.end.stop_id, comma[0]);
    w.include_stop = true;
    o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "one,");
    dr_engine_destroy(e);
}

/* An end token that min_tokens passes over is text like any other. */
static void held_token_that_does_not_stop(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    uint32_t comma[2];
    CU_ASSERT_EQUAL_FATAL(rig_ids(",", comma, 2), 1);
    say(e, "a, b, c", -1);
    w.max_tokens = 2; /* LENGTH comes with the comma */
    fake_set(e, FAKE_NORMAL, NULL, 0);
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "a,");
    dr_engine_destroy(e);
}

static void stop_strings(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    const char *const stops[] = {"ree", " two"};
    say(e, "one two three four five", -1);
    w.stop = stops;
    w.n_stop = 2;
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "one");
    CU_ASSERT_STRING_EQUAL(o.end.finish, "stop");
    CU_ASSERT_STRING_EQUAL(o.stop_text, " two");
    CU_ASSERT_EQUAL(o.end.stop_id, -1);
    CU_ASSERT_EQUAL(o.end.done.n_output, o.n); /* tokens after the stop do not count */
    CU_ASSERT_TRUE(o.n < 20);
    w.include_stop = true;
    o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "one two");
    dr_engine_destroy(e);
}

static void held_text_comes_at_the_end(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    const char *const stops[] = {"there!"};
    say(e, "Hello there", 1);
    w.stop = stops;
    w.n_stop = 1;
    struct outcome o = run(e, &w);
    CU_ASSERT_STRING_EQUAL(o.text, "Hello there");
    CU_ASSERT_STRING_EQUAL(o.stop_text, "");
    CU_ASSERT_EQUAL(o.end.stop_id, 1);
    dr_engine_destroy(e);
}

static void logprobs_arrive(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    struct dr_generation *g = NULL;
    struct dr_piece p = {.end = false};
    say(e, "Hello", 1);
    w.sampling.n_top = 2;
    w.prompt_top = 1;
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_OK);
    int prompt_rows = 0, rows = 0;
    while (!p.end && dr_generation_wait(g, LONG_NS) && dr_generation_next(g, &p))
        for (int32_t i = 0; i < p.n_token; i++) {
            const struct dr_piece_token *t = &p.token[i];
            CU_ASSERT_EQUAL(t->n_top, t->prompt ? 1 : 2);
            if (t->prompt) CU_ASSERT_EQUAL(t->id, prompt[++prompt_rows]);
            if (!t->prompt) CU_ASSERT_EQUAL(t->logprob, -(float)++rows / 8);
        }
    CU_ASSERT_EQUAL(prompt_rows, 5);
    dr_generation_destroy(g);
    dr_engine_destroy(e);
}

static void failures(void) {
    static const struct {
        enum fake_mode mode;
        bool refused, lost;
        const char *finish, *error;
    } rows[] = {
        {FAKE_FULL, true, false, "error", "the queue holds 256 requests; try again"},
        {FAKE_DRAINING, true, false, "error", "draining"},
        {FAKE_LOST_EARLY, false, true, "error",
         "the cluster was lost under this request and is being started again; try again"},
        {FAKE_LOST, false, true, "error",
         "the cluster was lost under this request and is being started again; try again"},
        {FAKE_NUMERIC, false, false, "error", "the model's output for this request was not a number"},
        {FAKE_CANCELLED, false, false, "cancelled", ""},
    };
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        say(e, "one two three four", -1);
        fake_set(e, rows[i].mode, NULL, 0);
        struct outcome o = run(e, &w);
        CU_ASSERT_STRING_EQUAL(o.end.finish, rows[i].finish);
        CU_ASSERT_STRING_EQUAL(o.error, rows[i].error);
        CU_ASSERT_EQUAL(o.end.refused, rows[i].refused);
        CU_ASSERT_EQUAL(o.end.lost, rows[i].lost);
    }
    fake_set(e, FAKE_FULL, NULL, 0);
    struct outcome o = run(e, &w);
    CU_ASSERT_TRUE(o.end.refusal == DR_REFUSE_FULL && o.end.retry_ms == 1500);
    dr_engine_destroy(e);
}

static void cancelling(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    struct dr_generation *g = NULL;
    struct outcome o = {.n = 0};
    fake_set(e, FAKE_HANG, NULL, 0);
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_OK);
    CU_ASSERT_FALSE(dr_generation_wait(g, 20000000)); /* accepted is no news */
    CU_ASSERT_EQUAL(dr_generation_stage(g), DR_GENERATION_RUNNING);
    dr_generation_cancel(g);
    collect(g, &o);
    CU_ASSERT_STRING_EQUAL(o.end.finish, "cancelled");
    dr_generation_destroy(g);
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_OK);
    dr_generation_destroy(g); /* cancels */
    CU_ASSERT_TRUE(rig_until(e, fake_cancelled, 2));
    dr_engine_destroy(e);
}

static void stages(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    struct dr_generation *g = NULL;
    fake_set(e, FAKE_SILENT, NULL, 0);
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_OK);
    CU_ASSERT_EQUAL(dr_generation_stage(g), DR_GENERATION_WAITING);
    fake_set(e, FAKE_FULL, NULL, 0);
    CU_ASSERT_TRUE(dr_generation_wait(g, LONG_NS));
    CU_ASSERT_EQUAL(dr_generation_stage(g), DR_GENERATION_REFUSED);
    dr_generation_destroy(g);
    dr_engine_destroy(e);
}

static void bad_wishes(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation *g = NULL;
    uint32_t ids[2048] = {0};
    const char *const stops[] = {""};
    struct dr_generation_wish w = wish();
    w.n_ids = 0;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    w.ids = ids;
    w.n_ids = 2048;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "prompt: 2048 tokens; the context holds 2048, one of them new");
    w.n_ids = 2;
    ids[1] = 8192;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "prompt: token id 8192 at position 1; the vocabulary has 8192");
    w = wish();
    w.n_stop_ids = 49;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    w = wish();
    w.n_bias = DR_BIAS_MAX + 1;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    w = wish();
    w.stop = stops;
    w.n_stop = 1;
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EINVAL);
    w = wish();
    fake_set(e, FAKE_DOWN, NULL, 0);
    CU_ASSERT_EQUAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_EPEER);
    CU_ASSERT_PTR_NULL(g);
    dr_engine_destroy(e);
}

static void limits(void) {
    struct dr_engine *e = fake_create();
    struct dr_generation_wish w = wish();
    struct dr_generation *g = NULL;
    fake_set(e, FAKE_HANG, NULL, 0);
    w.max_tokens = INT32_MAX;
    w.tenant = "t";
    w.salt = "s";
    w.priority = -2;
    CU_ASSERT_EQUAL_FATAL(dr_generation_start(e, rig_kit(), &w, &g).code, DR_OK);
    CU_ASSERT_EQUAL(e->last.max_tokens, 2048 - 6); /* clipped to the context */
    CU_ASSERT_STRING_EQUAL(e->last.tenant, "t");
    CU_ASSERT_STRING_EQUAL(e->last.salt, "s");
    CU_ASSERT_EQUAL(e->last.priority, -2);
    dr_generation_destroy(g);
    dr_engine_destroy(e);
}

static CU_TestInfo cases[] = {
    {"an end token counts but is no text", end_token},
    {"with ignore_eos the end token runs on to the limit", ignored_end_token},
    {"a stop id ends before or after its text", stop_ids},
    {"a token that could have stopped but did not is text", held_token_that_does_not_stop},
    {"a stop string across tokens cuts text and work", stop_strings},
    {"what might have been a stop string comes at the end", held_text_comes_at_the_end},
    {"log-probabilities of prompt and answer arrive in order", logprobs_arrive},
    {"each way to fail has its words", failures},
    {"cancel and destroy end the work", cancelling},
    {"a stage says what the queue said", stages},
    {"wishes that cannot be are refused by field", bad_wishes},
    {"an answer's length is clipped to the context", limits},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_generation = {.pName = "http/generation", .pTests = cases};
