/* test_bodies.c - what each bad body is told, word for word.
 * In:   bodies.      Out: status, field, message.
 * Owns: nothing.
 * Why:  client code and people act on these texts; a parser that takes everything would pass no line of this
 * table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api/ask.h"
#include "gateway/api/tokens.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

enum endpoint { CHAT, COMP, TOK, DETOK };

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define P "\"prompt\":\"hi\""

static const struct bad {
    enum endpoint endpoint;
    const char *body;
    int status;
    const char *param, *message;
} table[] = {
    /* the JSON itself */
    {CHAT, "", 400, "", "empty body: expected a JSON object"},
    {CHAT, "[]", 400, "", "expected a JSON object, found an empty array"},
    {CHAT, "\"x\"", 400, "", "expected a JSON object, found a string"},
    {CHAT, "{" M "} x", 400, "", "not valid JSON at line 1, column 47: end of file expected"},
    {CHAT, "{" M ",\"n\":1,\"n\":2}", 400, "", "not valid JSON at line 1, column 54: duplicate object key"},
    {CHAT, "{\"messages\":", 400, "",
     "not valid JSON at line 1, column 12: unexpected token near end of file"},
    {CHAT, "{\"a\":\"\xff\"}", 400, "", "not valid JSON at line 1, column 6: unable to decode byte 0xff"},
    {CHAT, "{\"a\":\"\\u0000\"}", 400, "",
     "not valid JSON at line 1, column 13: \\u0000 is not allowed without JSON_ALLOW_NUL"},
    {CHAT, "{\"a\":1e400}", 400, "", "not valid JSON at line 1, column 10: real number overflow"},
    {CHAT, "{\"seed\":99999999999999999999}", 400, "",
     "not valid JSON at line 1, column 28: too big integer"},
    {CHAT, "{\"a\":NaN}", 400, "", "not valid JSON at line 1, column 8: invalid token"},
    /* messages */
    {CHAT, "{}", 400, "messages", "messages: missing; expected a list of messages"},
    {CHAT, "{\"messages\":\"hi\"}", 400, "messages",
     "messages: expected a list of 1 to 2048 messages, found a string"},
    {CHAT, "{\"messages\":[]}", 400, "messages",
     "messages: expected a list of 1 to 2048 messages, found an empty array"},
    {CHAT, "{\"messages\":null}", 400, "messages",
     "messages: expected a list of 1 to 2048 messages, found null"},
    /* the model's name */
    {CHAT, "{" M ",\"model\":\"gpt-5\"}", 404, "model", "model: this server has \"lexi-15m\" only"},
    {CHAT, "{" M ",\"model\":7}", 400, "model", "model: expected a string of at most 512 bytes, found 7"},
    {COMP, "{" P ",\"model\":\"gpt-5\"}", 404, "model", "model: this server has \"lexi-15m\" only"},
    {TOK, "{" P ",\"model\":\"gpt-5\"}", 404, "model", "model: this server has \"lexi-15m\" only"},
    /* numbers */
    {CHAT, "{" M ",\"temperature\":-0.5}", 400, "temperature",
     "temperature: expected a number from 0 to 100, found -0.5"},
    {CHAT, "{" M ",\"temperature\":\"hot\"}", 400, "temperature",
     "temperature: expected a number from 0 to 100, found a string"},
    {CHAT, "{" M ",\"temperature\":true}", 400, "temperature",
     "temperature: expected a number from 0 to 100, found true"},
    {CHAT, "{" M ",\"top_p\":1.5}", 400, "top_p", "top_p: expected a number from 0 to 1, found 1.5"},
    {CHAT, "{" M ",\"top_k\":-2}", 400, "top_k", "top_k: expected an integer from -1 to 1048576, found -2"},
    {CHAT, "{" M ",\"top_k\":5.5}", 400, "top_k", "top_k: expected an integer from -1 to 1048576, found 5.5"},
    {CHAT, "{" M ",\"min_p\":2}", 400, "min_p", "min_p: expected a number from 0 to 1, found 2"},
    {CHAT, "{" M ",\"n\":0}", 400, "n", "n: expected an integer from 1 to 8, found 0"},
    {CHAT, "{" M ",\"n\":1000000}", 400, "n", "n: expected an integer from 1 to 8, found 1000000"},
    {CHAT, "{" M ",\"max_tokens\":-1}", 400, "max_tokens",
     "max_tokens: expected an integer from 0 to 2147483647, found -1"},
    {CHAT, "{" M ",\"max_tokens\":0}", 400, "max_tokens", "max_tokens: expected at least 1, found 0"},
    {CHAT, "{" M ",\"max_tokens\":16.0}", 400, "max_tokens",
     "max_tokens: expected an integer from 0 to 2147483647, found 16.0"},
    {CHAT, "{" M ",\"max_completion_tokens\":0}", 400, "max_completion_tokens",
     "max_completion_tokens: expected an integer from 1 to 2147483647, found 0"},
    {CHAT, "{" M ",\"max_tokens\":2147483648}", 400, "max_tokens",
     "max_tokens: expected an integer from 0 to 2147483647, found 2147483648"},
    {CHAT, "{" M ",\"min_tokens\":5,\"max_tokens\":4}", 400, "min_tokens",
     "min_tokens: 5 is more than the 4 tokens of the answer"},
    {CHAT, "{" M ",\"frequency_penalty\":3}", 400, "frequency_penalty",
     "frequency_penalty: expected a number from -2 to 2, found 3"},
    {CHAT, "{" M ",\"presence_penalty\":-2.5}", 400, "presence_penalty",
     "presence_penalty: expected a number from -2 to 2, found -2.5"},
    {CHAT, "{" M ",\"repetition_penalty\":0}", 400, "repetition_penalty",
     "repetition_penalty: expected a number from 0.01 to 100, found 0"},
    {CHAT, "{" M ",\"seed\":\"a\"}", 400, "seed",
     "seed: expected an integer from -9223372036854775808 to 9223372036854775807, found a string"},
    {CHAT, "{" M ",\"priority\":2147483648}", 400, "priority",
     "priority: expected an integer from -2147483648 to 2147483647, found 2147483648"},
    /* log-probabilities */
    {CHAT, "{" M ",\"logprobs\":3}", 400, "logprobs", "logprobs: expected true or false, found 3"},
    {CHAT, "{" M ",\"logprobs\":true,\"top_logprobs\":21}", 400, "top_logprobs",
     "top_logprobs: expected an integer from 0 to 20, found 21"},
    {CHAT, "{" M ",\"top_logprobs\":2}", 400, "top_logprobs",
     "top_logprobs: only allowed with \"logprobs\": true"},
    {COMP, "{" P ",\"logprobs\":true}", 400, "logprobs",
     "logprobs: expected an integer from 0 to 20, found true"},
    {COMP, "{" P ",\"stream\":true,\"prompt_logprobs\":1}", 400, "prompt_logprobs",
     "prompt_logprobs: not available with \"stream\": true"},
    /* stops and biases */
    {CHAT, "{" M ",\"stop\":\"\"}", 400, "stop",
     "stop: expected strings of 1 to 256 bytes, found an empty string"},
    {CHAT, "{" M ",\"stop\":[1]}", 400, "stop", "stop: expected strings of 1 to 256 bytes, found 1"},
    {CHAT,
     "{" M ",\"stop\":[\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
     "\"1\",\"1\",\"1\"]}",
     400, "stop", "stop: expected at most 16 strings, found 17"},
    {CHAT, "{" M ",\"stop_token_ids\":[8192]}", 400, "stop_token_ids",
     "stop_token_ids[0]: expected a token id from 0 to 8191, found 8192"},
    {CHAT, "{" M ",\"stop_token_ids\":\"x\"}", 400, "stop_token_ids",
     "stop_token_ids: expected a list of 1 to 48 token ids, found a string"},
    {CHAT, "{" M ",\"logit_bias\":[1]}", 400, "logit_bias",
     "logit_bias: expected an object of at most 1024 token ids, found an array"},
    {CHAT, "{" M ",\"logit_bias\":{\"x\":1}}", 400, "logit_bias",
     "logit_bias: a name is no token id from 0 to 8191"},
    {CHAT, "{" M ",\"logit_bias\":{\"-1\":1}}", 400, "logit_bias",
     "logit_bias: a name is no token id from 0 to 8191"},
    {CHAT, "{" M ",\"logit_bias\":{\"8192\":1}}", 400, "logit_bias",
     "logit_bias: a name is no token id from 0 to 8191"},
    {CHAT, "{" M ",\"logit_bias\":{\"5\":101}}", 400, "logit_bias",
     "logit_bias.5: expected a number from -100 to 100, found 101"},
    {CHAT, "{" M ",\"logit_bias\":{\"5\":1,\"05\":1}}", 400, "logit_bias",
     "logit_bias: token 5 is named twice"},
    {CHAT, "{" M ",\"cache_salt\":\"a/b\"}", 400, "cache_salt",
     "cache_salt: expected a string without @, / and \\"},
    /* streams */
    {CHAT, "{" M ",\"stream\":1}", 400, "stream", "stream: expected true or false, found 1"},
    {CHAT, "{" M ",\"stream_options\":{\"include_usage\":true}}", 400, "stream_options",
     "stream_options: only allowed with \"stream\": true"},
    {CHAT, "{" M ",\"stream\":true,\"stream_options\":[]}", 400, "stream_options",
     "stream_options: expected an object, found an empty array"},
    {CHAT, "{" M ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", 400,
     "stream_options.include_usage", "stream_options.include_usage: expected true or false, found 1"},
    /* known, not supported */
    {CHAT, "{" M ",\"tools\":[{\"type\":\"function\"}]}", 400, "tools",
     "tools: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"tool_choice\":\"auto\"}", 400, "tool_choice",
     "tool_choice: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"functions\":[{}]}", 400, "functions",
     "functions: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"response_format\":{\"type\":\"json_object\"}}", 400, "response_format",
     "response_format: only {\"type\":\"text\"} is supported"},
    {CHAT, "{" M ",\"structured_outputs\":{\"regex\":\"a\"}}", 400, "structured_outputs",
     "structured_outputs: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"guided_json\":{}}", 400, "guided_json",
     "guided_json: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"modalities\":[\"text\",\"audio\"]}", 400, "modalities",
     "modalities: only [\"text\"] is supported"},
    {CHAT, "{" M ",\"chat_template\":\"{{x}}\"}", 400, "chat_template",
     "chat_template: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"chat_template_kwargs\":{\"date\":1}}", 400, "chat_template_kwargs.date",
     "chat_template_kwargs.date: not supported; thinking (or enable_thinking) is"},
    {CHAT, "{" M ",\"chat_template_kwargs\":{\"thinking\":1}}", 400, "chat_template_kwargs.thinking",
     "chat_template_kwargs.thinking: expected true or false, found 1"},
    {CHAT, "{" M ",\"include_reasoning\":false}", 400, "include_reasoning",
     "include_reasoning: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"add_special_tokens\":true}", 400, "add_special_tokens",
     "add_special_tokens: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"continue_final_message\":true,\"add_generation_prompt\":true}", 400,
     "continue_final_message", "continue_final_message: excludes \"add_generation_prompt\": true"},
    {CHAT, "{" M ",\"bad_words\":[\"x\"]}", 400, "bad_words",
     "bad_words: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"use_beam_search\":true}", 400, "use_beam_search",
     "use_beam_search: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"length_penalty\":2}", 400, "length_penalty",
     "length_penalty: not supported with this value; leave it out"},
    {CHAT, "{" M ",\"truncate_prompt_tokens\":5}", 400, "truncate_prompt_tokens",
     "truncate_prompt_tokens: not supported with this value; leave it out"},
    {COMP, "{" P ",\"suffix\":\"x\"}", 400, "suffix", "suffix: not supported with this value; leave it out"},
    {COMP, "{" P ",\"best_of\":2}", 400, "best_of",
     "best_of: expected the value of n, 1, found 2; choosing among more is not supported"},
    /* prompts */
    {COMP, "{}", 400, "prompt", "prompt: expected a string, token ids, or a list of these, found nothing"},
    {COMP, "{\"prompt\":7}", 400, "prompt",
     "prompt: expected a string, token ids, or a list of these, found 7"},
    {COMP, "{\"prompt\":[]}", 400, "prompt",
     "prompt: expected a string, token ids, or a list of these, found an empty array"},
    {COMP, "{\"prompt\":\"\"}", 400, "prompt",
     "prompt: expected a string of at least 1 byte, found an empty string"},
    {COMP, "{\"prompt\":[8192]}", 400, "prompt", "prompt[0]: expected a token id from 0 to 8191, found 8192"},
    {COMP, "{\"prompt\":[3,-1]}", 400, "prompt", "prompt[1]: expected a token id from 0 to 8191, found -1"},
    {COMP, "{\"prompt\":[[1],7]}", 400, "prompt", "prompt[1]: expected a string or token ids, found 7"},
    {COMP, "{\"prompt\":[[]]}", 400, "prompt",
     "prompt: expected a list of 1 to 1048576 token ids, found an empty array"},
    {COMP, "{" P ",\"max_tokens\":0}", 400, "max_tokens",
     "max_tokens: expected at least 1 without \"echo\": true, found 0"},
    {COMP, "{" P ",\"echo\":\"yes\"}", 400, "echo", "echo: expected true or false, found a string"},
    /* tokenize, detokenize */
    {TOK, "{}", 400, "prompt", "prompt: missing; expected a string, or messages"},
    {TOK, "{\"prompt\":[1]}", 400, "prompt",
     "prompt: expected a string of at most 8388608 bytes, found an array"},
    {TOK, "{" P "," M "}", 400, "prompt", "prompt: excludes messages"},
    {TOK, "{" M ",\"add_special_tokens\":true}", 400, "add_special_tokens",
     "add_special_tokens: the chat layout has the begin token; leave it out with messages"},
    {TOK, "{" P ",\"return_token_strs\":2}", 400, "return_token_strs",
     "return_token_strs: expected true or false, found 2"},
    {DETOK, "{}", 400, "tokens", "tokens: missing; expected a list of token ids"},
    {DETOK, "{\"tokens\":\"x\"}", 400, "tokens",
     "tokens: expected a list of 1 to 1048576 token ids, found a string"},
    {DETOK, "{\"tokens\":[1.0]}", 400, "tokens", "tokens[0]: expected a token id from 0 to 8191, found 1.0"},
    {DETOK, "{\"tokens\":[99999]}", 400, "tokens",
     "tokens[0]: expected a token id from 0 to 8191, found 99999"},
};

static dr_status read_one(enum endpoint endpoint, const char *body, size_t n, struct dr_problem *why) {
    dr_status st;
    if (endpoint <= COMP) {
        struct dr_ask ask = {0};
        st = dr_ask_read(&ask, endpoint == CHAT, rig_kit(), body, n, NULL, why);
        dr_ask_fini(&ask);
    } else {
        struct dr_tokens_ask ask = {0};
        st = dr_tokens_read(&ask, endpoint == TOK, rig_kit(), body, n, NULL, why);
        dr_tokens_fini(&ask);
    }
    return st;
}

static void bad_bodies(void) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct bad *b = &table[i];
        struct dr_problem why = {0};
        dr_status st = read_one(b->endpoint, b->body, strlen(b->body), &why);
        bool same = st.code == DR_EREQUEST && why.status == b->status && strcmp(why.param, b->param) == 0 &&
                    strcmp(why.message, b->message) == 0;
        if (!same)
            printf("line %zu: %.80s\n  expected %d %s|%s\n  found    %d %s|%s\n", i, b->body, b->status,
                   b->param, b->message, why.status, why.param, why.message);
        CU_ASSERT_TRUE(same);
        CU_ASSERT_STRING_EQUAL(why.type ? why.type : "", "invalid_request_error");
    }
    CU_ASSERT_TRUE(sizeof table / sizeof *table >= 40);
}

static void big_bodies(void) {
    size_t n = DR_BODY_BYTES_MAX + 1;
    char *body = malloc(n);
    struct dr_problem why = {0};
    CU_ASSERT_PTR_NOT_NULL_FATAL(body);
    memset(body, ' ', n);
    CU_ASSERT_EQUAL(read_one(CHAT, body, n, &why).code, DR_EREQUEST);
    CU_ASSERT_EQUAL(why.status, 413);
    memset(body, '[', 100);
    why = (struct dr_problem){0};
    CU_ASSERT_EQUAL(read_one(CHAT, body, 100, &why).code, DR_EREQUEST);
    CU_ASSERT_EQUAL(why.status, 400);
    CU_ASSERT_STRING_EQUAL(why.message, "JSON is nested deeper than 64 levels at byte 64");
    memcpy(body, "{\"prompt\":[1", 12);
    for (size_t i = 12; i + 2 < n - 8; i += 2) memcpy(body + i, ",1", 2);
    why = (struct dr_problem){0};
    CU_ASSERT_EQUAL(read_one(COMP, body, n - 8, &why).code, DR_EREQUEST);
    CU_ASSERT_STRING_EQUAL(why.message, "JSON has more than 524288 values; send less at once");
    free(body);
}

static void good_chat(void) {
    static const char body[] =
        "{" M ",\"model\":\"lexi-15m\",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_"
        "obfuscation\":false},"
        "\"n\":3,\"max_tokens\":9,\"max_completion_tokens\":7,\"min_tokens\":2,\"temperature\":0,\"top_p\":0,"
        "\"top_k\":-1,"
        "\"min_p\":0.25,\"seed\":-5,\"stop\":[\"a\",\"bc\"],\"stop_token_ids\":[5,6],\"logit_bias\":{\"7\":-"
        "100,\"8\":1.5},"
        "\"frequency_penalty\":1,\"presence_penalty\":-1,\"repetition_penalty\":1.5,\"logprobs\":true,\"top_"
        "logprobs\":2,"
        "\"ignore_eos\":true,\"skip_special_tokens\":false,\"include_stop_str_in_output\":true,\"priority\":-"
        "3,"
        "\"cache_salt\":\"s\",\"return_token_ids\":true,\"chat_template_kwargs\":{\"thinking\":true},"
        "\"tools\":[],\"tool_choice\":\"none\",\"response_format\":{\"type\":\"text\"},\"user\":\"u\","
        "\"metadata\":{\"a\":\"b\"},"
        "\"parallel_tool_calls\":true,\"never_heard_of\":1,\"logprobs_mode\":null}";
    struct dr_ask a = {0};
    struct dr_problem why = {0};
    CU_ASSERT_EQUAL_FATAL(dr_ask_read(&a, true, rig_kit(), body, sizeof body - 1, NULL, &why).code, DR_OK);
    const struct dr_params *p = &a.params;
    CU_ASSERT_TRUE(p->stream && p->include_usage && !p->continuous_usage);
    CU_ASSERT_EQUAL(p->n, 3);
    CU_ASSERT_EQUAL(p->max_tokens, 7); /* the newer name wins */
    CU_ASSERT_EQUAL(p->min_tokens, 2);
    CU_ASSERT_EQUAL(p->sampling.temperature, 0);
    CU_ASSERT_TRUE(p->sampling.top_p > 0 && p->sampling.top_p < 1e-5);
    CU_ASSERT_EQUAL(p->sampling.top_k, 0);
    CU_ASSERT_EQUAL(p->sampling.min_p, 0.25);
    CU_ASSERT_EQUAL(p->sampling.seed, (uint64_t)-5);
    CU_ASSERT_EQUAL(p->sampling.n_top, 2);
    CU_ASSERT_EQUAL(p->sampling.repetition, 1.5);
    CU_ASSERT_EQUAL_FATAL(p->n_stop, 2);
    CU_ASSERT_STRING_EQUAL(p->stop[1], "bc");
    CU_ASSERT_EQUAL_FATAL(p->stop_ids.n, 2);
    CU_ASSERT_EQUAL_FATAL(p->n_bias, 2);
    CU_ASSERT_EQUAL(p->bias[0].id, 7);
    CU_ASSERT_EQUAL(p->bias[1].value, 1.5);
    CU_ASSERT_TRUE(p->ignore_eos && p->include_stop && !p->skip_special && p->return_ids);
    CU_ASSERT_EQUAL(p->priority, -3);
    CU_ASSERT_STRING_EQUAL(p->salt, "s");
    CU_ASSERT_TRUE(a.options.thinking && a.options.add_generation_prompt);
    CU_ASSERT_EQUAL(dr_ask_encode(&a, rig_kit(), &why).code, DR_OK);
    CU_ASSERT_TRUE(a.prompt[0].ids.n > 3);
    dr_ask_fini(&a);
}

static void defaults(void) {
    struct dr_ask a = {0};
    struct dr_problem why = {0};
    CU_ASSERT_EQUAL_FATAL(dr_ask_read(&a, false, rig_kit(), "{" P "}", strlen("{" P "}"), NULL, &why).code,
                          DR_OK);
    CU_ASSERT_EQUAL(a.params.max_tokens, 16);
    CU_ASSERT_EQUAL(a.params.n, 1);
    CU_ASSERT_EQUAL(a.params.sampling.n_top, -1);
    CU_ASSERT_EQUAL(a.params.prompt_top, -1);
    CU_ASSERT_TRUE(a.params.sampling.temperature > 0.29f &&
                   a.params.sampling.temperature < 0.31f); /* generation_config.json */
    CU_ASSERT_TRUE(a.params.sampling.top_p > 0.94f && a.params.sampling.top_p < 0.96f);
    CU_ASSERT_EQUAL(dr_ask_encode(&a, rig_kit(), &why).code, DR_OK);
    CU_ASSERT_EQUAL(a.prompt[0].ids.at[0], 0); /* the begin token in front of a text */
    dr_ask_fini(&a);
    CU_ASSERT_EQUAL_FATAL(dr_ask_read(&a, true, rig_kit(), "{" M "}", strlen("{" M "}"), NULL, &why).code,
                          DR_OK);
    CU_ASSERT_EQUAL(a.params.max_tokens, -1);
    dr_ask_fini(&a);
}

static void many_prompts(void) {
    static const char body[] =
        "{\"prompt\":[\"one\",[5,6,7],\"two\"],\"n\":2,\"echo\":true,\"max_tokens\":0,\"logprobs\":3,"
        "\"add_special_tokens\":false}";
    struct dr_ask a = {0};
    struct dr_problem why = {0};
    CU_ASSERT_EQUAL_FATAL(dr_ask_read(&a, false, rig_kit(), body, sizeof body - 1, NULL, &why).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(a.n_prompt, 3);
    CU_ASSERT_EQUAL(a.top, 3);
    CU_ASSERT_EQUAL(dr_ask_encode(&a, rig_kit(), &why).code, DR_OK);
    CU_ASSERT_EQUAL(a.prompt[1].ids.n, 3);
    CU_ASSERT_NOT_EQUAL(a.prompt[0].ids.at[0], 0); /* no begin token: add_special_tokens was false */
    dr_ask_fini(&a);
}

static void expect_prompts(int count, const char *tail, const char *message) {
    char body[1024] = "{\"prompt\":[";
    size_t n = strlen(body);
    for (int i = 0; i < count; i++) n += (size_t)snprintf(body + n, sizeof body - n, i ? ",\"a\"" : "\"a\"");
    snprintf(body + n, sizeof body - n, "]%s}", tail);
    struct dr_problem why = {0};
    CU_ASSERT_EQUAL(read_one(COMP, body, strlen(body), &why).code, message ? DR_EREQUEST : DR_OK);
    CU_ASSERT_STRING_EQUAL(why.message, message ? message : "");
}

static void too_many_prompts(void) {
    expect_prompts(129, "", "prompt: expected at most 128 prompts, found 129");
    expect_prompts(128, ",\"n\":8", "prompt: 128 prompts of n = 8 are more than 256 sequences");
    expect_prompts(32, ",\"n\":8", NULL);
}

static void long_prompts(void) {
    size_t n = 0, room = 1 << 16;
    char *body = malloc(room);
    CU_ASSERT_PTR_NOT_NULL_FATAL(body);
    for (int32_t count = 2047; count <= 2048; count++) { /* the context holds 2,048 */
        struct dr_ask a = {0};
        struct dr_problem why = {0};
        n = (size_t)snprintf(body, room, "{\"prompt\":[5");
        for (int32_t i = 1; i < count; i++) n += (size_t)snprintf(body + n, room - n, ",5");
        n += (size_t)snprintf(body + n, room - n, "]}");
        CU_ASSERT_EQUAL_FATAL(dr_ask_read(&a, false, rig_kit(), body, n, NULL, &why).code, DR_OK);
        dr_status st = dr_ask_encode(&a, rig_kit(), &why);
        if (count == 2047) CU_ASSERT_EQUAL(st.code, DR_OK);
        if (count == 2048) {
            CU_ASSERT_EQUAL(st.code, DR_EREQUEST);
            CU_ASSERT_EQUAL(why.status, 400);
            CU_ASSERT_STRING_EQUAL(why.param, "prompt");
            CU_ASSERT_STRING_EQUAL(why.code ? why.code : "", "context_length_exceeded");
            CU_ASSERT_STRING_EQUAL(
                why.message,
                "prompt: the prompt has 2048 tokens; this model's context holds 2048, one of them new");
        }
        dr_ask_fini(&a);
    }
    free(body);
}

static void unknown_names(void) {
    struct dr_body_names names = {.n = 0};
    pthread_mutex_init(&names.lock, NULL);
    const char *bodies[] = {"{" P ",\"zeta\":1,\"eta\":2}", "{" P ",\"zeta\":3}"};
    for (int i = 0; i < 2; i++) {
        struct dr_ask a = {0};
        struct dr_problem why = {0};
        CU_ASSERT_EQUAL(dr_ask_read(&a, false, rig_kit(), bodies[i], strlen(bodies[i]), &names, &why).code,
                        DR_OK);
        dr_ask_fini(&a);
    }
    CU_ASSERT_EQUAL(names.n, 2); /* zeta was logged once */
    pthread_mutex_destroy(&names.lock);
}

static void neutral_values(void) {
    static const char *const bodies[] = {
        "{" M ",\"tools\":null,\"functions\":[],\"function_call\":\"none\",\"audio\":null,\"documents\":[],"
        "\"bad_words\":[],"
        "\"use_beam_search\":false,\"length_penalty\":1.0,\"include_reasoning\":true,\"structured_outputs\":"
        "null,\"echo\":false}",
        "{" M ",\"temperature\":null,\"stop\":null,\"logit_bias\":null,\"seed\":null,\"stream_options\":null,"
        "\"n\":null,\"model\":null}",
        "{" M ",\"stop\":[],\"stop_token_ids\":[],\"logit_bias\":{},\"modalities\":[\"text\"]}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct dr_problem why = {0};
        CU_ASSERT_EQUAL(read_one(CHAT, bodies[i], strlen(bodies[i]), &why).code, DR_OK);
        if (why.status) printf("%s\n", why.message);
    }
    struct dr_problem why = {0};
    CU_ASSERT_EQUAL(read_one(COMP, "{" P ",\"suffix\":\"\",\"best_of\":1}",
                             strlen("{" P ",\"suffix\":\"\",\"best_of\":1}"), &why)
                        .code,
                    DR_OK);
}

static CU_TestInfo cases[] = {
    {"every bad body is told status, field and reason", bad_bodies},
    {"bodies beyond size, depth and count are refused", big_bodies},
    {"every field of a full chat request arrives", good_chat},
    {"fields left out take the model's values", defaults},
    {"completions take texts and ids, mixed", many_prompts},
    {"too many prompts are refused", too_many_prompts},
    {"a prompt fills the context up to one token", long_prompts},
    {"an unknown name is noted once", unknown_names},
    {"neutral values of unsupported fields are accepted", neutral_values},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bodies = {.pName = "http/bodies", .pTests = cases};
