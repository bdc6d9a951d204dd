/* test_answers.c - whole answers over HTTP, plain and streamed.
 * In:   bodies, a scripted engine.      Out: JSON that OpenAI's clients read.
 * Owns: a rig a test.
 * Why:  order of chunks, usage and failures are what client libraries rely on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static json_t *ask(struct rig *r, const char *path, const char *body, int status) {
    struct reply p = rig_ask(r->port, "POST", path, "", body);
    if (p.status != status) printf("%s\n%s\n", p.head, p.body ? p.body : "");
    CU_ASSERT_EQUAL(p.status, status);
    json_t *j = reply_json(&p);
    CU_ASSERT_PTR_NOT_NULL_FATAL(j);
    reply_fini(&p);
    return j;
}

static const json_t *at(const json_t *j, const char *path) { /* "choices/0/message/content" */
    char words[128];
    snprintf(words, sizeof words, "%s", path);
    char *rest = words;
    for (char *w; j && (w = strsep(&rest, "/"));)
        j = json_is_array(j) ? json_array_get(j, (size_t)atoi(w)) : json_object_get(j, w);
    return j;
}

static const char *text_at(const json_t *j, const char *path) {
    const char *s = json_string_value(at(j, path));
    return s ? s : "(none)";
}

static long long int_at(const json_t *j, const char *path) {
    const json_t *v = at(j, path);
    return json_is_integer(v) ? json_integer_value(v) : -999;
}

static void chat_plain(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "A lighthouse is a tower.", true);
    json_t *j = ask(&r, "/v1/chat/completions", "{" M ",\"temperature\":0}", 200);
    uint32_t ids[64];
    int32_t n = rig_ids("A lighthouse is a tower.", ids, 64);
    CU_ASSERT_STRING_EQUAL(text_at(j, "object"), "chat.completion");
    CU_ASSERT_TRUE(strncmp(text_at(j, "id"), "chatcmpl-", 9) == 0);
    CU_ASSERT_STRING_EQUAL(text_at(j, "model"), "lexi-15m");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/message/role"), "assistant");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/message/content"), "A lighthouse is a tower.");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/finish_reason"), "stop");
    CU_ASSERT_TRUE(json_is_null(at(j, "choices/0/stop_reason")) && json_is_null(at(j, "choices/0/logprobs")));
    CU_ASSERT_EQUAL(int_at(j, "usage/completion_tokens"), n + 1); /* with the end token */
    CU_ASSERT_EQUAL(int_at(j, "usage/prompt_tokens"), r.engine->last.n_ids);
    CU_ASSERT_EQUAL(int_at(j, "usage/total_tokens"), r.engine->last.n_ids + n + 1);
    CU_ASSERT_TRUE(int_at(j, "created") > 1700000000);
    json_decref(j);
    rig_end(&r);
}

static void chat_stream(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Hello there.", true);
    struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "",
                             "{" M ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    char room[96], text[256] = "";
    CU_ASSERT_EQUAL_FATAL(p.status, 200);
    CU_ASSERT_STRING_EQUAL(reply_header(&p, "Content-Type", room, sizeof room),
                           "text/event-stream; charset=utf-8");
    CU_ASSERT_STRING_EQUAL(reply_header(&p, "Cache-Control", room, sizeof room), "no-cache");
    int n = stream_count(p.body);
    CU_ASSERT_TRUE_FATAL(n >= 5);
    CU_ASSERT_TRUE(p.n > 14 && strcmp(p.body + p.n - 14, "data: [DONE]\n\n") == 0);
    json_t *first = stream_event(p.body, 0), *finish = stream_event(p.body, n - 3),
           *usage = stream_event(p.body, n - 2);
    CU_ASSERT_STRING_EQUAL(text_at(first, "object"), "chat.completion.chunk");
    CU_ASSERT_STRING_EQUAL(text_at(first, "choices/0/delta/role"), "assistant");
    CU_ASSERT_STRING_EQUAL(text_at(first, "choices/0/delta/content"), "");
    CU_ASSERT_TRUE(json_is_null(at(first, "usage")) && json_is_null(at(first, "choices/0/finish_reason")));
    for (int i = 1; i < n - 3; i++) {
        json_t *e = stream_event(p.body, i);
        CU_ASSERT_PTR_NULL(at(e, "choices/0/delta/role"));
        CU_ASSERT_STRING_EQUAL(text_at(e, "id"), text_at(first, "id"));
        strncat(text, text_at(e, "choices/0/delta/content"), sizeof text - strlen(text) - 1);
        json_decref(e);
    }
    CU_ASSERT_STRING_EQUAL(text, "Hello there.");
    CU_ASSERT_EQUAL(json_object_size(at(finish, "choices/0/delta")), 0);
    CU_ASSERT_STRING_EQUAL(text_at(finish, "choices/0/finish_reason"), "stop");
    CU_ASSERT_EQUAL(json_array_size(at(usage, "choices")), 0);
    CU_ASSERT_TRUE(int_at(usage, "usage/completion_tokens") > 2);
    CU_ASSERT_EQUAL(int_at(usage, "usage/prompt_tokens_details/cached_tokens"),
                    r.engine->last.n_ids > 4 ? 4 : 0);
    const json_t *details = at(usage, "usage/completion_tokens_details");
    CU_ASSERT_EQUAL(int_at(details, "accepted_prediction_tokens"), 5);
    CU_ASSERT_EQUAL(int_at(details, "rejected_prediction_tokens"), 4);
    CU_ASSERT_EQUAL(json_array_size(at(details, "drafted_by_position")), 2);
    CU_ASSERT_EQUAL(int_at(details, "drafted_by_position/1"), 4);
    CU_ASSERT_EQUAL(int_at(details, "accepted_by_position/0"), 4);
    CU_ASSERT_EQUAL(int_at(details, "accepted_by_position/1"), 1);
    json_decref(first);
    json_decref(finish);
    json_decref(usage);
    reply_fini(&p);
    rig_end(&r);
}

static void stream_without_usage(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Hello", true);
    struct reply p = rig_ask(r.port, "POST", "/v1/completions", "", "{\"prompt\":\"x\",\"stream\":true}");
    int n = stream_count(p.body);
    json_t *first = stream_event(p.body, 0), *last = stream_event(p.body, n - 2);
    CU_ASSERT_STRING_EQUAL(text_at(first, "object"), "text_completion");
    CU_ASSERT_STRING_EQUAL(text_at(first, "choices/0/text"), "Hello");
    CU_ASSERT_PTR_NULL(at(first, "usage"));
    CU_ASSERT_STRING_EQUAL(text_at(last, "choices/0/finish_reason"), "stop");
    CU_ASSERT_STRING_EQUAL(text_at(last, "choices/0/text"), "");
    json_decref(first);
    json_decref(last);
    reply_fini(&p);
    rig_end(&r);
}

static void choices(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Hello", true);
    json_t *j = ask(&r, "/v1/chat/completions", "{" M ",\"n\":3,\"seed\":7}", 200);
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices")), 3);
    for (int i = 0; i < 3; i++) {
        const json_t *c = json_array_get(at(j, "choices"), (size_t)i);
        CU_ASSERT_EQUAL(int_at(c, "index"), i);
        CU_ASSERT_STRING_EQUAL(text_at(c, "message/content"), "Hello");
        CU_ASSERT_EQUAL(r.engine->seed[i], dr_rng_derive(7, (uint64_t)i));
    }
    CU_ASSERT_EQUAL(int_at(j, "usage/completion_tokens"), 6);
    CU_ASSERT_EQUAL(int_at(j, "usage/prompt_tokens"), r.engine->last.n_ids); /* once, not three times */
    json_decref(j);
    j = ask(&r, "/v1/chat/completions", "{" M ",\"seed\":7}", 200);
    CU_ASSERT_EQUAL(r.engine->seed[3], 7);
    json_decref(j);
    struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "", "{" M ",\"n\":2,\"stream\":true}");
    int roles = 0, ends[2] = {0};
    for (int i = 0; i + 1 < stream_count(p.body); i++) {
        json_t *e = stream_event(p.body, i);
        roles += at(e, "choices/0/delta/role") != NULL;
        long long index = int_at(e, "choices/0/index");
        CU_ASSERT_TRUE_FATAL(index == 0 || index == 1);
        CU_ASSERT_EQUAL(ends[index], 0); /* nothing after a choice's end */
        if (json_is_string(at(e, "choices/0/finish_reason"))) ends[index]++;
        json_decref(e);
    }
    CU_ASSERT_TRUE(roles == 2 && ends[0] == 1 && ends[1] == 1);
    reply_fini(&p);
    rig_end(&r);
}

static void logprobs(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Hello", true);
    json_t *j = ask(&r, "/v1/chat/completions", "{" M ",\"logprobs\":true,\"top_logprobs\":2}", 200);
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/logprobs/content")), 2);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/logprobs/content/0/token"), "Hello");
    CU_ASSERT_EQUAL(json_real_value(at(j, "choices/0/logprobs/content/0/logprob")), -0.125);
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/logprobs/content/0/top_logprobs")), 2);
    json_decref(j);
    j = ask(&r, "/v1/completions",
            "{\"prompt\":[35,36,37],\"echo\":true,\"logprobs\":1,\"max_tokens\":1,\"prompt_logprobs\":1,"
            "\"return_token_ids\":true}",
            200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/text"), "ABCHello");
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/logprobs/tokens")), 4);
    CU_ASSERT_TRUE(json_is_null(at(j, "choices/0/logprobs/token_logprobs/0")));
    CU_ASSERT_EQUAL(json_real_value(at(j, "choices/0/logprobs/token_logprobs/1")), -0.25);
    CU_ASSERT_EQUAL(int_at(j, "choices/0/logprobs/text_offset/3"), 3);
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/prompt_logprobs")), 3);
    CU_ASSERT_TRUE(json_is_null(at(j, "choices/0/prompt_logprobs/0")));
    CU_ASSERT_EQUAL(int_at(j, "choices/0/prompt_logprobs/1/36/rank"), 1);
    CU_ASSERT_EQUAL(int_at(j, "choices/0/prompt_token_ids/2"), 37);
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/token_ids")), 1);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/finish_reason"), "length");
    json_decref(j);
    j = ask(&r, "/v1/completions", "{\"prompt\":[35,36,37],\"echo\":true,\"logprobs\":1,\"max_tokens\":0}",
            200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/text"), "ABC");
    CU_ASSERT_EQUAL(json_array_size(at(j, "choices/0/logprobs/tokens")), 3);
    CU_ASSERT_EQUAL(int_at(j, "usage/completion_tokens"), 0);
    json_decref(j);
    rig_end(&r);
}

static void stops(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "one two three four five six seven eight", false);
    json_t *j = ask(&r, "/v1/completions", "{\"prompt\":\"x\",\"stop\":[\"ee f\"],\"max_tokens\":50}", 200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/text"), "one two thr");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/finish_reason"), "stop");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/stop_reason"), "ee f");
    CU_ASSERT_TRUE(int_at(j, "usage/completion_tokens") < 8);
    json_decref(j);
    char body[128];
    uint32_t two[2];
    CU_ASSERT_EQUAL_FATAL(rig_ids(" two", two, 2), 1);
    snprintf(body, sizeof body, "{\"prompt\":\"x\",\"stop_token_ids\":[%u]}", two[0]);
    j = ask(&r, "/v1/completions", body, 200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/text"), "one");
    CU_ASSERT_EQUAL(int_at(j, "choices/0/stop_reason"), two[0]);
    json_decref(j);
    rig_end(&r);
}

static void several_prompts(void) {
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "Yes", true);
    json_t *j = ask(&r, "/v1/completions", "{\"prompt\":[\"a\",[35,36]],\"n\":2,\"echo\":true}", 200);
    CU_ASSERT_EQUAL_FATAL(json_array_size(at(j, "choices")), 4);
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/0/text"), "aYes");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/1/text"), "aYes");
    CU_ASSERT_STRING_EQUAL(text_at(j, "choices/3/text"), "ABYes");
    CU_ASSERT_EQUAL(int_at(j, "usage/prompt_tokens"), 2 + 2); /* begin token and a; A and B */
    json_decref(j);
    rig_end(&r);
}

static void failures_with_status(void) {
    static const struct {
        enum fake_mode mode;
        int status;
        const char *type, *code, *retry;
    } rows[] = {
        {FAKE_FULL, 429, "rate_limit_error", "queue_full", "2"},
        {FAKE_TOO_LONG, 400, "invalid_request_error", "context_length_exceeded", ""},
        {FAKE_DRAINING, 503, "server_error", "not_ready", "3"},
        {FAKE_DOWN, 503, "server_error", "not_ready", "2"},
        {FAKE_LOST_EARLY, 503, "server_error", "epoch_lost", "1"},
    };
    struct rig r;
    char room[32];
    rig_begin(&r, NULL);
    rig_say(&r, "one two three four", false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int stream = 0; stream < 2;
             stream++) { /* a stream that did not begin fails with a status, too */
            fake_set(r.engine, rows[i].mode, NULL, 0);
            struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "",
                                     stream ? "{" M ",\"n\":2,\"stream\":true}" : "{" M "}");
            json_t *j = reply_json(&p);
            CU_ASSERT_EQUAL(p.status, rows[i].status);
            CU_ASSERT_STRING_EQUAL(text_at(j, "error/type"), rows[i].type);
            CU_ASSERT_STRING_EQUAL(text_at(j, "error/code"), rows[i].code);
            CU_ASSERT_STRING_EQUAL(reply_header(&p, "Retry-After", room, sizeof room), rows[i].retry);
            json_decref(j);
            reply_fini(&p);
        }
    rig_end(&r);
}

static void failures_on_the_way(void) {
    static const struct {
        enum fake_mode mode;
        int status;
        const char *code;
    } rows[] = {{FAKE_LOST, 503, "epoch_lost"},
                {FAKE_NUMERIC, 500, "numerical_error"},
                {FAKE_CANCELLED, 503, "shutting_down"}};
    struct rig r;
    rig_begin(&r, NULL);
    rig_say(&r, "one two three four", false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fake_set(r.engine, rows[i].mode, NULL, 0);
        json_t *j = ask(&r, "/v1/chat/completions", "{" M "}", rows[i].status);
        CU_ASSERT_STRING_EQUAL(text_at(j, "error/code"), rows[i].code);
        json_decref(j);
        struct reply p = rig_ask(r.port, "POST", "/v1/chat/completions", "", "{" M ",\"stream\":true}");
        CU_ASSERT_EQUAL(p.status, 200);
        json_t *last = stream_event(p.body, stream_count(p.body) - 1);
        CU_ASSERT_STRING_EQUAL(text_at(last, "error/code"), rows[i].code);
        CU_ASSERT_STRING_EQUAL(text_at(last, "error/type"), "server_error");
        CU_ASSERT_PTR_NULL(strstr(p.body, "[DONE]"));
        json_decref(last);
        reply_fini(&p);
    }
    rig_end(&r);
}

static void tokens(void) {
    struct rig r;
    rig_begin(&r, NULL);
    json_t *j = ask(&r, "/tokenize", "{\"prompt\":\"A B\",\"return_token_strs\":true}", 200);
    size_t n = json_array_size(at(j, "tokens"));
    CU_ASSERT_EQUAL(int_at(j, "count"), (long long)n);
    CU_ASSERT_EQUAL(int_at(j, "max_model_len"), 2048);
    CU_ASSERT_EQUAL(int_at(j, "tokens/0"), 0);
    CU_ASSERT_STRING_EQUAL(text_at(j, "token_strs/1"), "A");
    json_decref(j);
    j = ask(&r, "/tokenize", "{\"prompt\":\"A B\",\"add_special_tokens\":false}", 200);
    CU_ASSERT_EQUAL(json_array_size(at(j, "tokens")), n - 1);
    char *ids = json_dumps(at(j, "tokens"), JSON_COMPACT), body[128];
    snprintf(body, sizeof body, "{\"tokens\":%s}", ids);
    json_decref(j);
    free(ids);
    j = ask(&r, "/detokenize", body, 200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "prompt"), "A B");
    json_decref(j);
    j = ask(&r, "/tokenize", "{" M "}", 200);
    CU_ASSERT_EQUAL(int_at(j, "tokens/0"), 0);
    CU_ASSERT_EQUAL(int_at(j, "tokens/1"), 8181); /* <｜User｜> */
    json_decref(j);
    j = ask(&r, "/detokenize", "{\"tokens\":[]}", 200);
    CU_ASSERT_STRING_EQUAL(text_at(j, "prompt"), "");
    json_decref(j);
    rig_end(&r);
}

static CU_TestInfo cases[] = {
    {"a chat answer has message, reason and usage", chat_plain},
    {"a chat stream begins with the role and ends with usage and [DONE]", chat_stream},
    {"a completion stream without usage has no such field", stream_without_usage},
    {"n choices have their own seeds and indexes", choices},
    {"log-probabilities and echo line up with the tokens", logprobs},
    {"stop strings and stop ids say what stopped", stops},
    {"several prompts answer in order", several_prompts},
    {"what fails before it begins has a status", failures_with_status},
    {"what fails on the way ends a stream with an error event", failures_on_the_way},
    {"texts become tokens and back", tokens},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_answers = {.pName = "http/answers", .pTests = cases};
