/* test_text.c - JSON writer, event streams, log-probabilities, metrics, problems.
 * In:   values.      Out: exact texts.
 * Owns: nothing.
 * Why:  clients parse these bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api/logprobs.h"
#include "gateway/api/metrics.h"
#include "gateway/api/problem.h"
#include "gateway/api/sse.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

static bool wrote(struct dr_json_out *o, const char *want) {
    bool same = !o->failed && strcmp(o->text.at ? o->text.at : "", want) == 0;
    if (!same) printf("expected %s\nfound    %s\n", want, o->text.at ? o->text.at : "");
    dr_json_out_fini(o);
    return same;
}

static void quotes(void) {
    struct dr_json_out o = {0};
    dr_json_quote(&o, "a\"b\\c\n\t\x01\x7f/é\xff\xe2\x82", 15);
    CU_ASSERT_TRUE(wrote(&o, "\"a\\\"b\\\\c\\n\\u0009\\u0001\\u007f/é\xef\xbf\xbd\xef\xbf\xbd\""));
    dr_json_quote(&o, "", 0);
    CU_ASSERT_TRUE(wrote(&o, "\"\""));
    dr_json_quote(&o, NULL, 0);
    CU_ASSERT_TRUE(wrote(&o, "\"\""));
}

static void numbers(void) {
    struct dr_json_out o = {0};
    dr_json_logprob(&o, -0.125f);
    dr_json_raw(&o, " ");
    dr_json_logprob(&o, -INFINITY);
    dr_json_raw(&o, " ");
    dr_json_logprob(&o, NAN);
    dr_json_raw(&o, " ");
    dr_json_octets(&o, (const uint8_t *)"\x00\xff", 2);
    CU_ASSERT_TRUE(wrote(&o, "-0.125 -9999.0 -9999.0 [0,255]"));
}

static void events(void) {
    struct dr_json_out o = {0};
    dr_sse_event(&o, "{\"a\":1}", 7);
    dr_sse_comment(&o, "keepalive");
    dr_sse_event(&o, "", 0);
    dr_sse_done(&o);
    CU_ASSERT_TRUE(wrote(&o, "data: {\"a\":1}\n\n: keepalive\n\ndata: \n\ndata: [DONE]\n\n"));
}

static void events_with_breaks(void) {
    struct dr_json_out o = {0};
    dr_sse_event(&o, "a\nb\r\nc\rd\n", 9);
    CU_ASSERT_TRUE(wrote(&o, "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"));
}

static void problems(void) {
    struct dr_problem p = {0};
    struct dr_json_out o = {0};
    CU_ASSERT_EQUAL(dr_problem_bad(&p, "n", "n: \"%d\"", 3).code, DR_EREQUEST);
    dr_problem_write(&p, &o);
    CU_ASSERT_TRUE(wrote(&o,
                         "{\"error\":{\"message\":\"n: "
                         "\\\"3\\\"\",\"type\":\"invalid_request_error\",\"param\":\"n\",\"code\":null}}"));
    CU_ASSERT_EQUAL(
        dr_problem_fail(
            &p, (struct dr_problem_kind){.status = 503, .type = "server_error", .code = "x", .retry_s = 2},
            NULL, "later")
            .code,
        DR_EREQUEST);
    dr_problem_write(&p, &o);
    CU_ASSERT_TRUE(wrote(
        &o, "{\"error\":{\"message\":\"later\",\"type\":\"server_error\",\"param\":null,\"code\":\"x\"}}"));
}

static void problems_of_codes(void) {
    static const struct {
        enum dr_code code;
        int status;
        const char *message;
    } rows[] = {{DR_EINVAL, 400, "secret"},
                {DR_EPEER, 503, "secret"},
                {DR_EFULL, 503, "no memory for this request; try again"},
                {DR_EINTERNAL, 500, "the server failed; its log says why"},
                {DR_EIO, 500, "the server failed; its log says why"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct dr_problem p = {0};
        CU_ASSERT_EQUAL(dr_problem_from(&p, dr_fail(rows[i].code, "secret"), "prompt").code, DR_EREQUEST);
        CU_ASSERT_EQUAL(p.status, rows[i].status);
        CU_ASSERT_STRING_EQUAL(p.message, rows[i].message);
    }
    struct dr_problem kept = {0};
    dr_ignore(dr_problem_bad(&kept, "a", "first"), "test");
    dr_ignore(dr_problem_from(&kept, dr_fail(DR_EREQUEST, "second"), "b"), "test");
    CU_ASSERT_STRING_EQUAL(kept.message, "first");
}

static uint32_t one_id(const char *text) {
    uint32_t ids[8];
    CU_ASSERT_EQUAL_FATAL(rig_ids(text, ids, 8), 1);
    return ids[0];
}

static void chat_logprobs(void) {
    struct dr_logprobs l = {.chat = true};
    struct dr_json_out o = {0};
    uint32_t the = one_id(" the");
    const struct dr_piece_token t = {
        .id = the, .logprob = -0.5f, .n_top = 2, .top = {{the, -0.5f}, {1, -INFINITY}}};
    dr_logprobs_add(&l, rig_kit(), &t, 1, true);
    dr_logprobs_write(&l, &o);
    CU_ASSERT_TRUE(wrote(
        &o, "{\"content\":[{\"token\":\" the\",\"logprob\":-0.5,\"bytes\":[32,116,104,101],\"top_logprobs\":["
            "{\"token\":\" the\",\"logprob\":-0.5,\"bytes\":[32,116,104,101]}]}]}"));
    dr_logprobs_write(&l, &o);
    CU_ASSERT_TRUE(wrote(&o, "{\"content\":[]}"));
    dr_logprobs_fini(&l);
}

static void completion_logprobs(void) {
    struct dr_logprobs l = {.skip_special = true};
    struct dr_json_out o = {0};
    uint32_t the = one_id(" the"), comma = one_id(",");
    const struct dr_piece_token first = {.id = 0,
                                         .prompt = true}; /* the begin token: special, takes no place */
    const struct dr_piece_token second = {
        .id = the, .logprob = -1, .n_top = 3, .top = {{the, -1}, {the, -2}, {comma, -3}}};
    const struct dr_piece_token third = {.id = comma, .logprob = -2};
    dr_logprobs_add(&l, rig_kit(), &first, 2, false);
    dr_logprobs_add(&l, rig_kit(), &second, 3, true);
    dr_logprobs_add(&l, rig_kit(), &third, 0, true);
    dr_logprobs_write(&l, &o);
    CU_ASSERT_TRUE(
        wrote(&o, "{\"tokens\":[\"<｜begin▁of▁sentence｜>\",\" the\",\",\"],\"token_logprobs\":[null,-1,-2],"
                  "\"top_logprobs\":[null,{\" the\":-1,\",\":-3},null],\"text_offset\":[0,0,4]}"));
    l.ids_as_tokens = true;
    dr_logprobs_add(&l, rig_kit(), &third, 0, true);
    dr_logprobs_write(&l, &o);
    char want[128];
    snprintf(
        want, sizeof want,
        "{\"tokens\":[\"token_id:%u\"],\"token_logprobs\":[-2],\"top_logprobs\":[null],\"text_offset\":[5]}",
        comma);
    CU_ASSERT_TRUE(wrote(&o, want));
    dr_logprobs_fini(&l);
}

static void prompt_logprobs(void) {
    struct dr_json_out o = {0};
    const struct dr_piece_token t = {.id = 35, .logprob = -3, .n_top = 1, .top = {{36, -1}}};
    dr_logprobs_prompt(&o, rig_kit(), &t, 1);
    CU_ASSERT_TRUE(wrote(&o, "{\"35\":{\"logprob\":-3,\"rank\":null,\"decoded_token\":\"A\"},\"36\":{"
                             "\"logprob\":-1,\"rank\":1,\"decoded_"
                             "token\":\"B\"}}"));
}

static double sample(const char *page, const char *line) {
    const char *at = strstr(page, line);
    return at ? strtod(at + strlen(line), NULL) : -1;
}

static void metrics_page(void) {
    struct dr_metrics *m = NULL;
    struct dr_json_out o = {0};
    CU_ASSERT_EQUAL_FATAL(dr_metrics_create(&m).code, DR_OK);
    const struct dr_metrics_end end = {.finish = DR_METRICS_STOP,
                                       .n_prompt = 10,
                                       .n_output = 5,
                                       .max_tokens = 16,
                                       .done = {.n_cached = 4, .drafted = {3, 2}, .accepted = {2, 1}},
                                       .total_ns = 2000000000,
                                       .first_ns = 1000000000};
    const struct dr_metrics_end cut = {.finish = DR_METRICS_ABORT, .n_prompt = 3, .lost = true};
    dr_metrics_sequence(m, &end);
    dr_metrics_sequence(m, &cut);
    dr_metrics_first(m, 3000000); /* 3 ms: in the bucket up to 5 ms */
    dr_metrics_gap(m, 90000000000);
    dr_metrics_request(m, 2);
    dr_metrics_refused(m, true);
    dr_metrics_response(m, 200);
    dr_metrics_response(m, 200);
    dr_metrics_response(m, 429);
    dr_metrics_write(m, rig_kit(), NULL, &o);
    const char *page = o.text.at;
#define L "model_name=\"lexi-15m\",engine=\"0\""
    CU_ASSERT_EQUAL(sample(page, "vllm:request_success_total{" L ",finished_reason=\"stop\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:request_success_total{" L ",finished_reason=\"abort\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:prompt_tokens_total{" L "} "), 13);
    CU_ASSERT_EQUAL(sample(page, "vllm:generation_tokens_total{" L "} "), 5);
    CU_ASSERT_EQUAL(sample(page, "vllm:prefix_cache_hits_total{" L "} "), 4);
    CU_ASSERT_EQUAL(sample(page, "vllm:spec_decode_num_drafts_total{" L "} "), 3);
    CU_ASSERT_EQUAL(sample(page, "vllm:spec_decode_num_draft_tokens_total{" L "} "), 5);
    CU_ASSERT_EQUAL(sample(page, "vllm:spec_decode_num_accepted_tokens_total{" L "} "), 3);
    CU_ASSERT_EQUAL(sample(page, "vllm:spec_decode_num_accepted_tokens_per_pos_total{" L ",position=\"1\"} "),
                    1);
    CU_ASSERT_EQUAL(sample(page, "vllm:admission_rejections_total{" L ",reason=\"queue_full\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "deeprack_requests_lost_total{" L "} "), 1);
    CU_ASSERT_EQUAL(sample(page, "deeprack_requests_cancelled_total{" L "} "), 1);
    CU_ASSERT_EQUAL(sample(page, "deeprack_http_responses_total{" L ",status=\"200\"} "), 2);
    CU_ASSERT_EQUAL(sample(page, "deeprack_http_responses_total{" L ",status=\"429\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:time_to_first_token_seconds_bucket{" L ",le=\"0.001\"} "), 0);
    CU_ASSERT_EQUAL(sample(page, "vllm:time_to_first_token_seconds_bucket{" L ",le=\"0.005\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:time_to_first_token_seconds_bucket{" L ",le=\"+Inf\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:time_to_first_token_seconds_count{" L "} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:inter_token_latency_seconds_bucket{" L ",le=\"80\"} "), 0);
    CU_ASSERT_EQUAL(sample(page, "vllm:inter_token_latency_seconds_bucket{" L ",le=\"+Inf\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:inter_token_latency_seconds_sum{" L "} "), 90);
    CU_ASSERT_EQUAL(sample(page, "vllm:request_time_per_output_token_seconds_sum{" L "} "), 0.25);
    CU_ASSERT_EQUAL(sample(page, "vllm:request_prompt_tokens_bucket{" L ",le=\"5\"} "), 1);
    CU_ASSERT_EQUAL(sample(page, "vllm:request_prompt_tokens_bucket{" L ",le=\"10\"} "), 2);
    dr_json_out_fini(&o);
    dr_metrics_destroy(m);
}

/* Each line is a comment or `name{labels} number`; each name has its HELP and TYPE before it, once. */
static void metrics_form(void) {
    struct dr_metrics *m = NULL;
    struct dr_json_out o = {0};
    struct dr_kit kit = *rig_kit();
    snprintf(kit.name, sizeof kit.name, "a\"b\\c\nd");
    struct dr_engine *e = fake_create();
    struct dr_engine_facts *f = calloc(1, sizeof *f);
    CU_ASSERT_EQUAL_FATAL(dr_metrics_create(&m).code, DR_OK);
    dr_engine_facts(e, f);
    dr_metrics_write(m, &kit, f, &o);
    CU_ASSERT_PTR_NOT_NULL(strstr(o.text.at, "model_name=\"a\\\"b\\\\c\\nd\",engine"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(o.text.at, "vllm:kv_cache_usage_perc{model_name=\"a\\\"b\\\\c\\nd\",engine=\"0\"} 0.25\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(o.text.at, "epoch=\"0000000000abcdef\"} 1\n"));
    char type[128] = "";
    int samples = 0;
    for (char *line = o.text.at, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (strncmp(line, "# TYPE ", 7) == 0) sscanf(line, "# TYPE %127s", type);
        if (line[0] == '#') continue;
        char *brace = strchr(line, '{'), *close = strrchr(line, '}');
        CU_ASSERT_TRUE_FATAL(brace && close && close[1] == ' ');
        CU_ASSERT_TRUE(strncmp(line, type, strlen(type)) == 0);
        char *rest;
        strtod(close + 2, &rest);
        CU_ASSERT_TRUE(rest != close + 2 && *rest == 0);
        samples++;
    }
    CU_ASSERT_TRUE(samples > 150);
    free(f);
    dr_json_out_fini(&o);
    dr_metrics_destroy(m);
    dr_engine_destroy(e);
}

static CU_TestInfo cases[] = {
    {"strings are escaped and always UTF-8", quotes},
    {"numbers that JSON lacks have a stand-in", numbers},
    {"events, comments and the end mark have their lines", events},
    {"a line break inside a payload does not end the event", events_with_breaks},
    {"an error body has its four fields", problems},
    {"codes become statuses, and the inside stays inside", problems_of_codes},
    {"chat log-probabilities list objects", chat_logprobs},
    {"completion log-probabilities are four arrays", completion_logprobs},
    {"prompt log-probabilities name ids and ranks", prompt_logprobs},
    {"counters and buckets count", metrics_page},
    {"every line of the metrics page has the format's form", metrics_form},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_text = {.pName = "http/text", .pTests = cases};
