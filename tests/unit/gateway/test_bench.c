/* test_bench.c - what a bench measures, and how its numbers are made.
 * In:   flags, made-up steps and reports.      Out: CUnit results.
 * Owns: a file in the temporary folder.
 * Why:  a bench that times the wrong steps, or adds up the wrong ones, lies quietly. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/bench/report.h"
#include "gateway/bench/trace.h"
#include "tests/support/runner.h"

/* ---- plan ---- */

static void parse(struct dr_options *o, const char *const *flags) {
    char *argv[8];
    int argc = 0;
    for (; argc < 8 && flags[argc]; argc++) argv[argc] = (char *)flags[argc];
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_BENCH, argc, argv, o).code, DR_OK);
}

static const struct {
    const char *flags[4], *text;
} refusals[] = {
    {{"--prompt-lengths=x"},
     "--prompt-lengths: expected whole numbers from 0 to 524288 with commas between them; entry 1 is not "
     "one"},
    {{"--gen-lengths=1,,2"},
     "--gen-lengths: expected whole numbers from 0 to 524288 with commas between them; entry 2 is not one"},
    {{"--depths=-1"},
     "--depths: expected whole numbers from 0 to 524288 with commas between them; entry 1 is not one"},
    {{"--batch=1,2,"},
     "--batch: expected whole numbers from 1 to 1024 with commas between them; entry 3 is not one"},
    {{"--batch=1,1025"},
     "--batch: expected whole numbers from 1 to 1024 with commas between them; entry 2 is not one"},
    {{"--batch=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"},
     "--batch: at most 32 numbers are taken"},
    {{"--prompt-lengths=0", "--gen-lengths=0"},
     "--prompt-lengths and --gen-lengths are 0: there is nothing to measure"},
    {{"--depths=100"},
     "--depths: 100: prefill at a depth begins with a step, so the depth must be a multiple of --step-tokens "
     "(512); or give --prompt-lengths 0"},
    {{"--context=100"}, "--context: 100, the longest case needs 513"},
    {{"--seqs-max=2", "--batch=4"}, "--seqs-max: 2, the largest batch is 4"},
    {{"--step-tokens=8", "--batch=9"}, "--batch: 9 sequences need as many --step-tokens, which are 8"},
    {{"--weights=native,int4"}, "--weights: expected native, int8 or native,int8, found 'native,int4'"},
    {{"--weights=int8,int8"}, "--weights: expected native, int8 or native,int8, found 'int8,int8'"},
    {{"--weights="}, "--weights: expected native, int8 or native,int8, found ''"},
    {{"--layouts=tp=1;"}, "--layouts: a layout has 1 to 127 bytes, found 0"},
    {{"--layouts=tp=1,"}, "--layouts: 'tp=1,' ends in a comma"},
    {{"--layouts=tp"},
     "--layouts: expected tp=N, pp=N, cache-width, experts, cache-type, exchange, collectives, threads, "
     "precision or isa, found 'tp'"},
    {{"--layouts=tp=1,step-tokens=4"},
     "--layouts: expected tp=N, pp=N, cache-width, experts, cache-type, exchange, collectives, threads, "
     "precision or isa, found 'step-tokens=4'"},
};

static void plans_are_refused_by_name(void) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct dr_options o;
        struct dr_bench_plan p;
        parse(&o, refusals[i].flags);
        const bool same =
            dr_bench_plan_make(&o, &p).code == DR_EUSAGE && !strcmp(dr_error_text(), refusals[i].text);
        if (!same) printf("  expected: %s\n  found:    %s\n", refusals[i].text, dr_error_text());
        CU_ASSERT_TRUE(same);
        dr_options_fini(&o);
    }
}

static void cases_are_all_combinations(void) {
    const char *flags[] = {"--prompt-lengths=16,0", "--gen-lengths=8", "--depths=0,512", "--batch=4,1,4",
                           NULL};
    static const struct dr_bench_case expected[] = {
        {.prompt = 16, .batch = 1},
        {.prompt = 16, .batch = 4},
        {.gen = 8, .batch = 1},
        {.gen = 8, .batch = 4},
        {.prompt = 16, .depth = 512, .batch = 1}, /* at a depth with one sequence */
        {.gen = 8, .depth = 512, .batch = 1},
        {.gen = 8, .depth = 512, .batch = 4},
    };
    struct dr_options o;
    struct dr_bench_plan p;
    char name[64];
    parse(&o, flags);
    CU_ASSERT_EQUAL_FATAL(dr_bench_plan_make(&o, &p).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(p.n_case, 7);
    CU_ASSERT(memcmp(p.cases, expected, sizeof expected) == 0);
    CU_ASSERT(p.context == 512 + 16 + 1 && p.batch_most == 4 && p.reps == 5 && p.warmup == 1 && p.seed == 0);
    CU_ASSERT(dr_bench_case_prompt(&p.cases[2]) == 1 && dr_bench_case_draws(&p.cases[2]) == 9);
    CU_ASSERT(dr_bench_case_prompt(&p.cases[4]) == 528 && dr_bench_case_draws(&p.cases[4]) == 1);
    CU_ASSERT_STRING_EQUAL(dr_bench_case_name(&p.cases[6], name), "tg8 @ 512, 4 sequences");
    CU_ASSERT_STRING_EQUAL(dr_bench_case_name(&p.cases[0], name), "pp16");
    dr_bench_plan_fini(&p);
    dr_options_fini(&o);
}

static void layouts_become_options(void) {
    const char *flags[] = {"--layouts=tp=1;tp=2,pp=2,cache-type=f32",
                           "--weights=int8,native",
                           "--threads=3",
                           "--gen-lengths=8",
                           "--prompt-lengths=0",
                           "--batch=2",
                           NULL};
    struct dr_options o, one;
    struct dr_bench_plan p;
    parse(&o, flags);
    CU_ASSERT_EQUAL_FATAL(dr_bench_plan_make(&o, &p).code, DR_OK);
    CU_ASSERT(p.n_layout == 2 && p.n_weights == 2 && p.weights[0] == DR_WEIGHTS_INT8);
    CU_ASSERT_EQUAL_FATAL(dr_bench_plan_options(&p, &o, 1, DR_WEIGHTS_INT8, &one).code, DR_OK);
    CU_ASSERT(dr_option_int(&one, DR_OPTION_TP) == 2 && dr_option_int(&one, DR_OPTION_PP) == 2);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&one, DR_OPTION_CACHE_TYPE), "f32");
    CU_ASSERT_STRING_EQUAL(dr_option_text(&one, DR_OPTION_WEIGHTS), "int8");
    CU_ASSERT(dr_option_int(&one, DR_OPTION_CONTEXT) == 10 && dr_option_int(&one, DR_OPTION_SEQS_MAX) == 2);
    CU_ASSERT(dr_option_int(&one, DR_OPTION_THREADS) == 3 && dr_option_int(&o, DR_OPTION_TP) == 0);
    dr_options_fini(&one);
    dr_bench_plan_fini(&p);
    const char *bad[] = {"--layouts=tp=1;tp=many", NULL};
    dr_options_fini(&o);
    parse(&o, bad);
    CU_ASSERT_EQUAL_FATAL(dr_bench_plan_make(&o, &p).code, DR_OK);
    CU_ASSERT_EQUAL(dr_bench_plan_options(&p, &o, 1, DR_WEIGHTS_NATIVE, &one).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "--layouts 'tp=many': --tp: expected a whole number from 0 to 64, "
                           "found 'many'");
    dr_bench_plan_fini(&p);
    dr_options_fini(&o);
}

static void ids_are_those_of_seed_and_place(void) {
    int32_t different = 0;
    for (int32_t i = 0; i < 100; i++) {
        CU_ASSERT(dr_bench_id(7, 1, i, 50) < 50);
        CU_ASSERT_EQUAL(dr_bench_id(7, 1, i, 50), dr_bench_id(7, 1, i, 50));
        different += dr_bench_id(7, 0, i, 50) != dr_bench_id(7, 1, i, 50);
        different += dr_bench_id(8, 1, i, 50) != dr_bench_id(7, 1, i, 50);
    }
    CU_ASSERT(different > 150);
}

/* ---- which steps are timed ---- */

struct steps {
    struct dr_bench_step step[12];
    struct dr_bench_run run;
};

/* Steps of 10 ns from 100 on, each sent 1 ns after the one before was done. */
static struct steps made(int32_t n, const int32_t (*rows)[2]) {
    struct steps s = {.run = {.n_step = n, .n_rank = 1}};
    for (int32_t i = 0; i < n; i++)
        s.step[i] = (struct dr_bench_step){.has_news = true,
                                           .n_report = 1,
                                           .news = {.step = 5 + (uint64_t)i,
                                                    .sent_ns = 101 + 10 * (uint64_t)i,
                                                    .done_ns = 110 + 10 * (uint64_t)i,
                                                    .prompt_rows = rows[i][0],
                                                    .generated_rows = rows[i][1],
                                                    .n_decode = rows[i][1],
                                                    .n_drawn = rows[i][1]}};
    s.run.step = s.step;
    return s;
}

static void a_prompt_is_timed_from_its_submission(void) {
    const struct dr_bench_case c = {.prompt = 20, .batch = 2};
    struct steps s = made(3, (const int32_t[][2]){{16, 0}, {16, 0}, {8, 0}});
    CU_ASSERT_EQUAL(dr_bench_run_time(&c, 90, s.step, &s.run).code, DR_OK);
    CU_ASSERT(s.run.begin_ns == 90 && s.run.end_ns == 130 && s.run.tokens == 40 && s.run.n_timed == 3);
}

static void a_depth_is_not_timed(void) {
    const struct dr_bench_case c = {.prompt = 20, .depth = 32, .batch = 1};
    struct steps s = made(4, (const int32_t[][2]){{16, 0}, {16, 0}, {16, 0}, {4, 0}});
    CU_ASSERT_EQUAL(dr_bench_run_time(&c, 90, s.step, &s.run).code, DR_OK);
    CU_ASSERT(s.run.begin_ns == 120 && s.run.end_ns == 140 && s.run.tokens == 20 && s.run.n_timed == 2);
    CU_ASSERT(!s.step[0].timed && !s.step[1].timed && s.step[2].timed && s.step[3].timed);
}

static void a_generation_is_timed_while_all_take_part(void) {
    const struct dr_bench_case c = {.gen = 4, .depth = 20, .batch = 3};
    struct steps s = made(
        9, (const int32_t[][2]){{16, 0}, {0, 1}, {16, 1}, {16, 0}, {12, 0}, {0, 3}, {0, 3}, {0, 3}, {0, 2}});
    CU_ASSERT_EQUAL(dr_bench_run_time(&c, 90, s.step, &s.run).code, DR_OK);
    CU_ASSERT(s.run.begin_ns == 150 && s.run.end_ns == 180 && s.run.tokens == 9 && s.run.n_timed == 3);
    CU_ASSERT(!s.step[1].timed && !s.step[8].timed && s.step[5].timed);
}

static void sequences_that_never_meet_are_no_measurement(void) {
    const struct dr_bench_case c = {.gen = 4, .batch = 2}, p = {.prompt = 20, .depth = 10, .batch = 1};
    struct steps s = made(4, (const int32_t[][2]){{1, 0}, {0, 1}, {1, 0}, {0, 1}});
    CU_ASSERT_EQUAL(dr_bench_run_time(&c, 90, s.step, &s.run).code, DR_EREQUEST);
    CU_ASSERT(strstr(dr_error_text(), "tg4, 2 sequences: the steps timed hold 0 tokens") != NULL);
    s = made(2, (const int32_t[][2]){{16, 0}, {14, 0}}); /* no step begins at the depth */
    CU_ASSERT_EQUAL(dr_bench_run_time(&p, 90, s.step, &s.run).code, DR_EREQUEST);
}

static void wrong_ids_are_told_by_their_digest(void) {
    struct dr_bench_run run = {.digest = 0xabc, .digest_one = 0x12};
    uint64_t first = 0;
    CU_ASSERT_EQUAL(dr_bench_run_check(&run, 0x13, &first).code, DR_EREQUEST);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "the first sequence gave ids with digest 0000000000000012 in its batch, "
                           "0000000000000013 alone: the answer depends on the batch");
    CU_ASSERT(first == 0 && dr_bench_run_check(&run, 0x12, &first).code == DR_OK && first == 0xabc);
    CU_ASSERT_EQUAL(dr_bench_run_check(&run, 0x12, &first).code, DR_OK);
    run.digest = 0xabd;
    CU_ASSERT_EQUAL(dr_bench_run_check(&run, 0x12, &first).code, DR_EREQUEST);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "a repetition gave ids with digest 0000000000000abd, the first run "
                           "0000000000000abc: the answer changes from run to run");
}

/* ---- numbers ---- */

static struct dr_bench_rank_step report(uint64_t begin, uint64_t wait, uint64_t head) {
    struct dr_bench_rank_step r = {.begin_ns = begin, .end_ns = begin + wait + head, .wait_ns = wait};
    r.part_ns[DR_PART_WAIT] = wait;
    r.part_ns[DR_PART_HEAD] = head;
    r.wait_kind_ns[DR_BYTES_EXCHANGE] = wait;
    r.bytes[DR_BYTES_EXCHANGE] = 100;
    return r;
}

/* Three repetitions of two steps on two ranks; one step before them is not timed. */
static void tallies_take_the_median_repetition(void) {
    static const uint64_t ms = 1000000, length[3] = {40, 10, 20}; /* of a repetition: 50, 200, 100 tokens/s */
    struct dr_bench_tally t;
    CU_ASSERT_EQUAL_FATAL(dr_bench_tally_init(&t, 2, 3).code, DR_OK);
    for (int i = 0; i < 3; i++) {
        struct dr_bench_step step[3] = {{.n_report = 2}, {.timed = true}, {.timed = true}};
        struct dr_bench_rank_step reports[6];
        for (int k = 0; k < 6; k++)
            reports[k] = report(0, (k % 2 ? 3 : 1) * ms, (k < 2 ? 99 : length[i] / 4) * ms);
        const struct dr_bench_run run = {.step = step,
                                         .report = reports,
                                         .n_step = 3,
                                         .n_rank = 2,
                                         .n_timed = 2,
                                         .tokens = 2,
                                         .begin_ns = 7,
                                         .end_ns = 7 + length[i] * ms,
                                         .digest = 5};
        dr_bench_tally_add(&t, &run);
    }
    CU_ASSERT_DOUBLE_EQUAL(t.median, 100, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(t.least, 50, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(t.most, 200, 1e-9);
    CU_ASSERT(t.middle == 2 && t.steps[2] == 2 && t.digest == 5);
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_tally_step_ms(&t), 10, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_tally_part_ms(&t, DR_PART_HEAD), 5, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_tally_part_ms(&t, DR_PART_WAIT), 2, 1e-9); /* 1 and 3 */
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_tally_part_ms(&t, DR_PART_EXPERTS), 0, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_tally_between_ms(&t), 3, 1e-9);
    CU_ASSERT_EQUAL(dr_bench_tally_rank(&t, 1)->wait_kind_ns[DR_BYTES_EXCHANGE], 2 * 3 * ms);
    CU_ASSERT_EQUAL(dr_bench_tally_rank(&t, 0)->bytes[DR_BYTES_EXCHANGE], 200);
    dr_bench_tally_fini(&t);
}

static void an_even_number_has_two_middles(void) {
    static const uint64_t ns[4] = {4000, 1000, 2000, 5000};
    struct dr_bench_tally t;
    struct dr_bench_step step = {.timed = true};
    struct dr_bench_rank_step r = report(0, 1, 1);
    CU_ASSERT_EQUAL_FATAL(dr_bench_tally_init(&t, 1, 4).code, DR_OK);
    for (int i = 0; i < 4; i++) {
        const struct dr_bench_run run = {.step = &step,
                                         .report = &r,
                                         .n_step = 1,
                                         .n_rank = 1,
                                         .n_timed = 1,
                                         .tokens = 1,
                                         .end_ns = ns[i]};
        dr_bench_tally_add(&t, &run);
    }
    CU_ASSERT_DOUBLE_EQUAL(t.median, (1e9 / 4000 + 1e9 / 2000) / 2, 1e-3);
    CU_ASSERT_EQUAL(t.middle, 0); /* the slower of the two */
    dr_bench_tally_fini(&t);
}

static void bounds_are_the_slower_of_memory_and_arithmetic(void) {
    struct dr_config c;
    CU_ASSERT_EQUAL_FATAL(dr_config_load(DR_SOURCE_DIR "/deploy/models/lexi-15m", &c).code, DR_OK);
    const struct dr_layout_wish wish = {
        .tp = 1, .pp = 1, .cache_type = DR_CACHE_BF16, .context = 300, .seqs_max = 4, .step_tokens = 64};
    struct dr_layout l;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &wish, &l).code, DR_OK);
    const struct dr_bench_case cases[] = {{.gen = 9, .depth = 95, .batch = 1}, {.prompt = 100, .batch = 2}};
    const struct dr_probe p = {.read_bytes_s = 1e9, .f32_flop_s = 1e12, .int8_op_s = 4e12};
    struct dr_bench_bound memory[2], work[2];
    struct dr_bench_peaks peaks = dr_bench_peaks_of(&p, "f32", 2);
    CU_ASSERT(peaks.read_bytes_s == 2e9 && peaks.linear_op_s == 2e12 && peaks.attention_op_s == 2e12);
    CU_ASSERT(dr_bench_peaks_of(&p, "int8", 1).linear_op_s == 4e12);
    CU_ASSERT(dr_bench_peaks_of(&p, "bf16", 1).linear_op_s == 1e12); /* no such unit was measured */
    CU_ASSERT_EQUAL_FATAL(dr_bench_bound_make(&c, NULL, &l, cases, 2, &peaks, memory).code, DR_OK);
    /* 9 tokens behind 95: the mean row sees 100 */
    CU_ASSERT_DOUBLE_EQUAL(memory[0].cache_bytes, 100.0 * (double)dr_footprint_token_bytes(&c, &l), 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(memory[0].seconds, (memory[0].weight_bytes + memory[0].cache_bytes) / 2e9, 1e-15);
    CU_ASSERT(memory[0].memory_seconds == memory[0].seconds && memory[0].tokens == 1);
    CU_ASSERT_DOUBLE_EQUAL(dr_bench_bound_rate(&memory[0]), 1 / memory[0].seconds, 1e-6);
    /* 200 prompt rows in four steps of 64: 64, 36 + 28, 64, 8 */
    CU_ASSERT_DOUBLE_EQUAL(memory[1].tokens, 50, 1e-12);
    const double madd = dr_cost_layers_madd(&c, 0, c.n_layer), expansion = dr_cost_expansion_flop(&c);
    const double again = 64 + 28 + 92; /* positions that later steps of the two prompts expand again */
    CU_ASSERT_DOUBLE_EQUAL(
        memory[1].linear_flop * 4 /
            (2 * 200 * madd + again * c.n_layer * expansion + 2 * 2 * dr_cost_head_madd(&c)),
        1, 1e-12);
    peaks.linear_op_s = peaks.attention_op_s = 1e6;
    CU_ASSERT_EQUAL_FATAL(dr_bench_bound_make(&c, NULL, &l, cases, 2, &peaks, work).code, DR_OK);
    CU_ASSERT_DOUBLE_EQUAL(work[1].seconds, (work[1].linear_flop + work[1].attention_flop) / 1e6, 1e-6);
    CU_ASSERT(work[1].memory_seconds == 0 && work[1].weight_bytes == memory[1].weight_bytes);
}

/* ---- trace ---- */

/* A rank whose clock is 1,000 ns ahead: sent at 100, begun at 120, ended at 150, heard at 160 of the
 * gateway's. */
static void offsets_are_bounded_by_every_step(void) {
    struct dr_bench_step step[2] = {{.news = {.sent_ns = 100}}, {.news = {.sent_ns = 200}}};
    struct dr_bench_rank_step r[2] = {{.begin_ns = 1120, .end_ns = 1150, .heard_ns = 160},
                                      {.begin_ns = 1202, .end_ns = 1290, .heard_ns = 330}};
    const struct dr_bench_run run = {.step = step, .report = r, .n_step = 2, .n_rank = 1};
    struct dr_bench_offset o = dr_bench_trace_offset(&run, 0, false);
    CU_ASSERT_DOUBLE_EQUAL(o.ns, (990 + 1002) / 2.0, 1e-9); /* at least 1150 - 160, at most 1202 - 200 */
    CU_ASSERT_DOUBLE_EQUAL(o.error_ns, 6, 1e-9);
    o = dr_bench_trace_offset(&run, 0, true);
    CU_ASSERT(o.ns == 0 && o.error_ns == 0);
}

static void a_trace_is_json_with_nested_spans(void) {
    char path[] = "/tmp/dr-trace-XXXXXX";
    const int fd = mkstemp(path);
    struct dr_bench_trace *t = NULL;
    CU_ASSERT_FATAL(fd >= 0);
    close(fd);
    CU_ASSERT_EQUAL(dr_bench_trace_create("/nowhere/t", &t).code, DR_EIO);
    CU_ASSERT_EQUAL_FATAL(dr_bench_trace_create(path, &t).code, DR_OK);
    struct dr_bench_step step[2] = {{.news = {.step = 1, .sent_ns = 900, .done_ns = 2000}},
                                    {.news = {.step = 2, .sent_ns = 2500, .done_ns = 9000}, .timed = true}};
    struct dr_bench_rank_step r[4] = {report(1000, 10, 20), report(1000, 10, 20), report(3000, 2000, 1000),
                                      report(3500, 0, 4000)};
    for (int i = 0; i < 4; i++) r[i].heard_ns = r[i].end_ns + 10;
    const struct dr_bench_run run = {.step = step, .report = r, .n_step = 2, .n_rank = 2, .n_timed = 1};
    struct dr_rank_state rank[2] = {{.rank = 0, .host = "far \"away\""}, {.rank = 1}};
    gethostname(rank[1].host, sizeof rank[1].host - 1);
    CU_ASSERT_EQUAL(dr_bench_trace_add(t, 0, "tp=2 pp=1", "tg8", rank, &run).code, DR_OK);
    CU_ASSERT_EQUAL(dr_bench_trace_destroy(t).code, DR_OK);
    json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(all);
    json_t *events = json_object_get(all, "traceEvents"), *e;
    size_t i;
    int spans = 0, nested = 0;
    double begin = 0, end = 0;
    json_array_foreach(events, i, e) {
        if (strcmp(json_string_value(json_object_get(e, "ph")), "X") != 0) continue;
        const double ts = json_number_value(json_object_get(e, "ts")),
                     dur = json_number_value(json_object_get(e, "dur"));
        const bool part = strstr(json_string_value(json_object_get(e, "name")), "(sum over layers)") != NULL;
        spans++;
        nested += part;
        if (part) CU_ASSERT(ts >= begin - 1e-6 && ts + dur <= end + 1e-6);
        if (!part) begin = ts, end = ts + dur;
    }
    CU_ASSERT(spans == 1 + 2 + 3 && nested == 3); /* coordinator, two ranks, parts that are not 0 */
    CU_ASSERT(json_is_number(json_object_get(json_object_get(all, "otherData"), "largest_offset_error_ns")));
    json_decref(all);
    unlink(path);
}

static CU_TestInfo cases[] = {
    {"plans are refused by name", plans_are_refused_by_name},
    {"cases are all combinations, batches ascending and once each", cases_are_all_combinations},
    {"layouts become options of their own cluster", layouts_become_options},
    {"ids follow from seed, sequence and position", ids_are_those_of_seed_and_place},
    {"a prompt is timed from its submission to its last step", a_prompt_is_timed_from_its_submission},
    {"filling a depth is not timed", a_depth_is_not_timed},
    {"a generation is timed while all sequences take part", a_generation_is_timed_while_all_take_part},
    {"sequences that never meet are no measurement", sequences_that_never_meet_are_no_measurement},
    {"wrong ids are told by their digest", wrong_ids_are_told_by_their_digest},
    {"a tally gives median, range, and the parts of the median repetition",
     tallies_take_the_median_repetition},
    {"an even number of repetitions has the mean of the middle two", an_even_number_has_two_middles},
    {"a bound is the slower of memory and arithmetic", bounds_are_the_slower_of_memory_and_arithmetic},
    {"a rank's clock is bounded by every step", offsets_are_bounded_by_every_step},
    {"a trace is JSON, its parts lie inside their step", a_trace_is_json_with_nested_spans},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bench = {.pName = "gateway/bench", .pTests = cases};
