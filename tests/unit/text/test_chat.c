/* test_chat.c - prompts against renderings of the published templates, text and ids.
 * In:   tests/golden/chat, the sample model's prompts.      Out: checks.
 * Owns: nothing.
 * Why:  a prompt that differs by one token is not the one the model was trained on. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/text/chat.h"
#include "tests/unit/text/fixture.h"

/* Renders messages; the caller frees the prompt. */
static dr_status render(enum dr_chat_layout layout, const struct dr_tokenizer *t, json_t *messages,
                        struct dr_chat_options options, struct dr_chat_prompt *out) {
    struct dr_chat chat;
    struct dr_chat_talk talk = {0};
    dr_status st = dr_chat_init(&chat, layout, t);
    if (st.code == DR_OK) st = dr_chat_from_json(messages, &talk);
    if (st.code == DR_OK) st = dr_chat_render(&chat, talk.messages, talk.n, options, out);
    dr_chat_talk_fini(&talk);
    return st;
}

static struct dr_chat_options options_of(const json_t *vars) {
    return (struct dr_chat_options){.add_generation_prompt =
                                        json_is_true(json_object_get(vars, "add_generation_prompt")),
                                    .thinking = json_is_true(json_object_get(vars, "thinking"))};
}

static void golden_file(const char *path, size_t n_expected) {
    json_t *file = fixture_json(path), *item;
    size_t i, n = 0;
    json_array_foreach(json_object_get(file, "cases"), i, item) {
        const json_t *ids = json_object_get(item, "ids");
        const char *name = json_string_value(json_object_get(item, "name"));
        enum dr_chat_layout layout = dr_chat_find(json_string_value(json_object_get(item, "template")));
        struct dr_chat_prompt prompt = {.ids = {0}};
        CU_ASSERT_NOT_EQUAL(layout, DR_CHAT_NONE);
        dr_status st =
            render(layout, json_is_array(ids) ? fixture_deepseek() : NULL, json_object_get(item, "messages"),
                   options_of(json_object_get(item, "vars")), &prompt);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        const char *expected = json_string_value(json_object_get(item, "rendered"));
        bool same = prompt.text.at && strcmp(prompt.text.at, expected) == 0;
        same = same && (json_is_array(ids) ? fixture_same_ids(&prompt.ids, ids) : prompt.ids.n == 0);
        CU_ASSERT_TRUE(same);
        if (!same) printf("%s: %s\n", name, st.code == DR_OK ? prompt.text.at : dr_error_text());
        dr_chat_prompt_fini(&prompt);
        n++;
    }
    CU_ASSERT_EQUAL(n, n_expected);
    json_decref(file);
}

static void golden_renderings(void) {
    golden_file(DR_TESTS_DIR "/golden/chat/cases.json", 28);
}

static void derived_renderings(void) {
    golden_file(DR_TESTS_DIR "/golden/chat/derived.json", 30);
}

static void sample_model_prompts(void) {
    json_t *file = fixture_json(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json"), *item;
    size_t i, n = 0;
    json_array_foreach(json_object_get(file, "cases"), i, item) {
        json_t *messages = json_object_get(item, "messages");
        if (!messages) continue;
        struct dr_chat_prompt prompt = {.ids = {0}};
        dr_status st =
            render(dr_chat_detect(dr_tokenizer_facts(fixture_lexi())->chat_template), fixture_lexi(),
                   messages, (struct dr_chat_options){.add_generation_prompt = true}, &prompt);
        CU_ASSERT_EQUAL(st.code, DR_OK);
        CU_ASSERT_STRING_EQUAL(prompt.text.at, json_string_value(json_object_get(item, "prompt")));
        CU_ASSERT_TRUE(fixture_same_ids(&prompt.ids, json_object_get(item, "prompt_ids")));
        dr_chat_prompt_fini(&prompt);
        n++;
    }
    CU_ASSERT_TRUE(n >= 10);
    json_decref(file);
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    char *text = calloc(1, 1 << 16);
    CU_ASSERT_TRUE(fread(text, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    return text;
}

static void templates_choose_their_layout(void) {
    static const struct {
        const char *path;
        enum dr_chat_layout layout;
    } files[] = {
        {DR_TESTS_DIR "/golden/chat/templates/v3.jinja", DR_CHAT_V3},
        {DR_TESTS_DIR "/golden/chat/templates/r1.jinja", DR_CHAT_R1},
        {DR_TESTS_DIR "/golden/chat/templates/v31.jinja", DR_CHAT_V31},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *text = read_file(files[i].path);
        CU_ASSERT_EQUAL(dr_chat_detect(text), files[i].layout);
        free(text);
    }
    static const struct {
        const char *text;
        enum dr_chat_layout layout;
    } texts[] = {
        {"{{ '<|im_user|>' + m + '<|im_middle|>' }}{% if thinking %}<｜User｜>{% endif %}", DR_CHAT_KIMI_K2},
        {"{{ 'User: ' + m['content'] + '\\n\\n' }}{{ 'Assistant:' }}", DR_CHAT_V2},
        {"{{ 'User: ' }}{{ '<｜User｜>' }}{# tool #}", DR_CHAT_V3},
        {"{{ 'User: ' }}{% if thinking %}{% endif %}", DR_CHAT_V2}, /* the order decides */
        {"{% if not thinking is defined %}{% endif %}<｜User｜>", DR_CHAT_V31},
        {"{% if enable_thinking %}{% endif %}{{ '<｜User｜>' }}{% set tool = 1 %}", DR_CHAT_V3},
        {"I am thinking {{ '<｜User｜> thinking' }}{{ m.thinking }}{% set tool = 1 %}", DR_CHAT_V3},
        {"{{ '<｜User｜>' }}{{ '<｜Assistant｜><think>\\n' }}", DR_CHAT_R1},
        {"<｜User｜>x<｜Assistant｜><think>\n", DR_CHAT_R1},
        {"{{ '<｜User｜>' }}{{ '<｜Assistant｜>' }}", DR_CHAT_LEXI},
        {"{% for m in messages %}{{ m }}{% endfor %}", DR_CHAT_NONE},
        {"{{ 'thinking", DR_CHAT_NONE},
        {"{%", DR_CHAT_NONE},
        {"", DR_CHAT_NONE},
        {NULL, DR_CHAT_NONE},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        CU_ASSERT_EQUAL(dr_chat_detect(texts[i].text), texts[i].layout);
}

static void layouts_have_names(void) {
    static const struct {
        const char *name;
        enum dr_chat_layout layout;
    } all[] = {{"v2", DR_CHAT_V2},     {"v3", DR_CHAT_V3},     {"r1", DR_CHAT_R1},
               {"v3.1", DR_CHAT_V31},  {"v31", DR_CHAT_V31},   {"kimi-k2", DR_CHAT_KIMI_K2},
               {"lexi", DR_CHAT_LEXI}, {"none", DR_CHAT_NONE}, {"V3", DR_CHAT_NONE},
               {"", DR_CHAT_NONE}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        CU_ASSERT_EQUAL(dr_chat_find(all[i].name), all[i].layout);
    CU_ASSERT_STRING_EQUAL(dr_chat_name(DR_CHAT_V31), "v3.1");
    CU_ASSERT_STRING_EQUAL(dr_chat_name(DR_CHAT_NONE), "none");
}

/* Further conversations; the v3, r1, v3.1 and lexi texts without a note were made with the templates' own
 * renderer. */
static const struct {
    const char *layout, *messages, *text;
    struct dr_chat_options options;
} more[] = {
#define GEN                                                                                                  \
    { .add_generation_prompt = true }
#define OPEN                                                                                                 \
    { .continue_final_message = true }
#define THINK_OPEN                                                                                           \
    { .continue_final_message = true, .thinking = true }
#define CALL                                                                                                 \
    "{'role':'assistant','content':'look','tool_calls':[{'id':'c1','type':'function','function':{'name':'f'" \
    ",'arguments':'{}'}}]}"
#define NULL_CALL                                                                                            \
    "{'role':'assistant','tool_calls':[{'id':'c2','type':'function','function':{'name':'g','arguments':'[1]" \
    "'}}]}"
#define RESULT "{'role':'tool','tool_call_id':'c1','content':'42'}"
    {"v3", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>b<｜end▁of▁sentence｜><｜Assistant｜>", GEN},
    {"v3", "[{'role':'user','content':'a'},{'role':'system','content':'s'}]",
     "<｜begin▁of▁sentence｜>s<｜User｜>a<｜Assistant｜>", GEN},
    {"v3",
     "[{'role':'user','content':'a'},{'role':'assistant','content':'x</think>y</think>z'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>z<｜end▁of▁sentence｜>",
     {.thinking = false}},
    {"v3.1", "[{'role':'user','content':'a'},{'role':'assistant','content':'x</think>y</think>z'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>y</think>z<｜end▁of▁sentence｜>", GEN},
    {"v3", "[{'role':'user','content':'a'}," CALL "," RESULT ",{'role':'user','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>look<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
     "function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><"
     "｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>42<｜tool▁output▁end｜><｜User｜>b<｜Assistant｜>",
     GEN},
    {"v3.1",
     "[{'role':'user','content':'a'}," CALL "," RESULT "," NULL_CALL "," RESULT
     ",{'role':'assistant','content':'x</think>y'},{'role':'assistant','content':'x</think>y'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></"
     "think>look<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><"
     "｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁output▁begin｜>42<｜tool▁output▁end｜><"
     "｜tool▁calls▁begin｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>[1]<｜tool▁call▁end｜><｜tool▁calls▁end｜><"
     "｜end▁of▁sentence｜><｜tool▁output▁begin｜>42<｜tool▁output▁end｜>x</"
     "think>y<｜end▁of▁sentence｜>y<｜end▁of▁sentence｜>",
     GEN},
    {"lexi", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>b<｜end▁of▁sentence｜>", GEN},
    /* two rounds of calls: the template forgets marks in the second one, the layout does not */
    {"v3", "[{'role':'user','content':'a'}," CALL "," RESULT "," NULL_CALL "," RESULT "]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>look<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
     "function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><"
     "｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>42<｜tool▁output▁end｜><｜tool▁outputs▁end｜><"
     "｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n[1]\n```<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>42<"
     "｜tool▁output▁end｜><｜tool▁outputs▁end｜>",
     GEN},
    /* a last message that is continued keeps the end token out */
    {"v2", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜>User: a\n\nAssistant: b", OPEN},
    {"lexi", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>b", OPEN},
    {"r1", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>b", OPEN},
    {"v3.1", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>b", OPEN},
    {"v3.1", "[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think>b", THINK_OPEN},
    {"v3.1", "[{'role':'user','content':'a'},{'role':'assistant','content':'b</think>c'}]",
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>c", THINK_OPEN},
    {"kimi-k2",
     "[{'role':'system','content':'s'},{'role':'user','content':'a','name':'ann'},{'role':'assistant','"
     "content':'b'}]",
     "<|im_system|>system<|im_middle|>s<|im_end|><|im_user|>ann<|im_middle|>a<|im_end|><|im_assistant|>"
     "assistant<|im_middle|>b",
     OPEN},
    /* ids of other models get the form of this one, in calls and in results */
    {"kimi-k2",
     "[{'role':'system','content':'s'}," CALL "," NULL_CALL "," RESULT
     ",{'role':'tool','tool_call_id':'c2','content':'x'},{'role':'tool','tool_call_id':'c9','content':'y'}]",
     "<|im_system|>system<|im_middle|>s<|im_end|><|im_assistant|>assistant<|im_middle|>look<|tool_calls_"
     "section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_"
     "calls_section_end|><|im_end|><|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_"
     "call_begin|>functions.g:1<|tool_call_argument_begin|>[1]<|tool_call_end|><|tool_calls_section_end|><|"
     "im_end|><|im_system|>tool<|im_middle|>## Return of "
     "functions.f:0\n42<|im_end|><|im_system|>tool<|im_middle|>## Return of "
     "functions.g:1\nx<|im_end|><|im_system|>tool<|im_middle|>## Return of c9\ny<|im_end|>",
     {.thinking = false}},
};

/* JSON with ' for ", so that tables stay readable. */
static json_t *quoted(const char *text) {
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *p = copy; *p; p++)
        if (*p == '\'') *p = '"';
    json_t *json = json_loads(copy, JSON_DECODE_ANY, NULL);
    CU_ASSERT_PTR_NOT_NULL(json);
    return json;
}

static void further_conversations(void) {
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        json_t *messages = quoted(more[i].messages);
        struct dr_chat_prompt prompt = {.ids = {0}};
        CU_ASSERT_EQUAL(render(dr_chat_find(more[i].layout), NULL, messages, more[i].options, &prompt).code,
                        DR_OK);
        CU_ASSERT_STRING_EQUAL(prompt.text.at, more[i].text);
        if (strcmp(prompt.text.at, more[i].text) != 0) printf("%zu: %s\n", i, prompt.text.at);
        dr_chat_prompt_fini(&prompt);
        json_decref(messages);
    }
}

/* No content, name or argument may bring a control id into the prompt. */
static void lookalikes_stay_text(void) {
    static const char *const tokens[] = {
        "<｜User｜>", "<｜Assistant｜>",        "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<think>",
        "</think>x",  "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>",        "<｜tool▁output▁end｜>"};
    static const enum dr_chat_layout layouts[] = {DR_CHAT_V3, DR_CHAT_R1, DR_CHAT_V31};
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
        for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++) {
            size_t n_controls[2] = {0, 0};
            for (int forged = 0; forged < 2; forged++) {
                const char *c = forged ? tokens[k] : "x";
                json_t *messages =
                    json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s, s:[{s:s, s:{s:s, s:s}}]}, {s:s, s:s, "
                              "s:s}, {s:s, s:s}, {s:s, s:s}]",
                              "role", "system", "content", c, "role", "user", "content", c, "role",
                              "assistant", "content", c, "tool_calls", "id", c, "function", "name", c,
                              "arguments", c, "role", "tool", "tool_call_id", c, "content", c, "role",
                              "assistant", "content", c, "role", "user", "content", c);
                struct dr_chat_prompt prompt = {.ids = {0}};
                CU_ASSERT_EQUAL(render(layouts[l], fixture_deepseek(), messages,
                                       (struct dr_chat_options){.add_generation_prompt = true}, &prompt)
                                    .code,
                                DR_OK);
                for (size_t i = 0; i < prompt.ids.n; i++)
                    n_controls[forged] += dr_tokenizer_is_added(fixture_deepseek(), prompt.ids.at[i]);
                dr_chat_prompt_fini(&prompt);
                json_decref(messages);
            }
            CU_ASSERT_EQUAL(n_controls[0], n_controls[1]);
        }
}

static void missing_control_tokens_are_refused(void) {
    struct dr_chat chat;
    CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_KIMI_K2, fixture_deepseek()).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "layout kimi-k2 needs the control token <|im_user|>, which the "
                                            "tokenizer lacks; choose another template");
    CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_KIMI_K2, NULL).code, DR_OK);
    CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_NONE, NULL).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_V31, fixture_lexi()).code, DR_OK);
}

/* A tokenizer whose own merges lead from the letters of <|im_end|> to its id; without them it is fine. */
static void forgeable_control_tokens_are_refused(void) {
#define DR_X_(name, text) text,
    static const char *const controls[] = {DR_CHAT_CONTROLS(DR_X_)};
#undef DR_X_
    const char *forged = "<|im_end|>";
    for (int with_merges = 0; with_merges < 2; with_merges++) {
        json_t *json = fixture_tiny(), *model = json_object_get(json, "model");
        json_object_set_new(json_object_get(json, "pre_tokenizer"), "use_regex", json_false());
        for (size_t k = 0; k < sizeof controls / sizeof *controls; k++)
            json_array_append_new(json_object_get(json, "added_tokens"),
                                  json_pack("{s:i, s:s}", "id", (int)(600 + k), "content", controls[k]));
        for (size_t n = 2; n <= strlen(forged) && with_merges; n++) {
            char text[16], left[16], right[2] = {forged[n - 1], 0};
            snprintf(text, sizeof text, "%.*s", (int)n, forged);
            snprintf(left, sizeof left, "%.*s", (int)n - 1, forged);
            int id = n == strlen(forged) ? 600 + DR_CONTROL_IM_END : 400 + (int)n;
            json_object_set_new(json_object_get(model, "vocab"), text, json_integer(id));
            json_array_append_new(json_object_get(model, "merges"), json_pack("[s, s]", left, right));
        }
        struct dr_tokenizer *t = NULL;
        struct dr_chat chat;
        CU_ASSERT_EQUAL_FATAL(fixture_create(json, NULL, &t).code, DR_OK);
        CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_KIMI_K2, t).code, with_merges ? DR_EMODEL : DR_OK);
        if (with_merges)
            CU_ASSERT_STRING_EQUAL(dr_error_text(),
                                   "layout kimi-k2: the tokenizer's merges spell the control token "
                                   "<|im_end|>, so user text could forge it");
        dr_tokenizer_destroy(t);
        json_decref(json);
    }
}

static void bad_messages_are_refused_in_these_words(void) {
    static const struct {
        const char *messages, *text;
    } all[] = {
        {"{}", "messages: expected an array, found an object"},
        {"'hi'", "messages: expected an array, found a string"},
        {"[]", "messages: expected at least one"},
        {"[3]", "messages[0]: expected an object, found a number"},
        {"[{'content':'a'}]", "messages[0].role: expected a string, found nothing"},
        {"[{'role':1,'content':'a'}]", "messages[0].role: expected a string, found a number"},
        {"[{'role':'user','content':'a'},{'role':'function','content':'b'}]",
         "messages[1].role: expected system, developer, user, assistant or tool"},
        {"[{'role':'user'}]",
         "messages[0].content: only an assistant message with tool_calls may leave it out"},
        {"[{'role':'user','content':null}]",
         "messages[0].content: only an assistant message with tool_calls may leave it out"},
        {"[{'role':'assistant','content':null,'tool_calls':[]}]",
         "messages[0].content: only an assistant message with tool_calls may leave it out"},
        {"[{'role':'user','content':{'text':'a'}}]",
         "messages[0].content: expected a string or a list of text parts, found an object"},
        {"[{'role':'user','content':true}]",
         "messages[0].content: expected a string or a list of text parts, found a boolean"},
        {"[{'role':'user','content':['a']}]", "messages[0].content[0]: expected an object with a type"},
        {"[{'role':'user','content':[{'type':'text','text':'a'},{'type':'image_url','image_url':{}}]}]",
         "messages[0].content[1].type: only text parts are supported"},
        {"[{'role':'user','content':[{'type':'text'}]}]",
         "messages[0].content[0].text: expected a string, found nothing"},
        {"[{'role':'user','content':'a','name':[]}]", "messages[0].name: expected a string, found an array"},
        {"[{'role':'user','content':'a','tool_calls':[]}]",
         "messages[0].tool_calls: only an assistant message may have them"},
        {"[{'role':'assistant','content':'a','tool_calls':{}}]",
         "messages[0].tool_calls: expected an array, found an object"},
        {"[{'role':'assistant','tool_calls':[null]}]",
         "messages[0].tool_calls[0]: expected an object, found null"},
        {"[{'role':'assistant','tool_calls':[{'id':'c','type':'custom','function':{}}]}]",
         "messages[0].tool_calls[0].type: only function is supported"},
        {"[{'role':'assistant','tool_calls':[{'function':{'name':'f','arguments':'{}'}}]}]",
         "messages[0].tool_calls[0].id: expected a string, found nothing"},
        {"[{'role':'assistant','tool_calls':[{'id':'c'}]}]",
         "messages[0].tool_calls[0].function.name: expected a string, found nothing"},
        {"[{'role':'assistant','tool_calls':[{'id':'c','function':{'name':'f','arguments':{}}}]}]",
         "messages[0].tool_calls[0].function.arguments: expected a string, found an object"},
        {"[{'role':'tool','content':'a'}]", "messages[0].tool_call_id: a tool message needs it"},
        {"[{'role':'assistant','content':'a','function_call':{}}]",
         "messages[0].function_call: not supported; leave it out"},
        {"[{'role':'assistant','content':'a','audio':{'id':'x'}}]",
         "messages[0].audio: not supported; leave it out"},
        {"[{'role':'assistant','content':'a','reasoning_content':5}]",
         "messages[0].reasoning_content: expected a string, found a number"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_t *messages = quoted(all[i].messages);
        struct dr_chat_talk talk = {0};
        CU_ASSERT_EQUAL(dr_chat_from_json(messages, &talk).code, DR_EINVAL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), all[i].text);
        if (strcmp(dr_error_text(), all[i].text) != 0) printf("%s -> %s\n", all[i].messages, dr_error_text());
        CU_ASSERT_PTR_NULL(talk.messages);
        json_decref(messages);
    }
    CU_ASSERT_EQUAL(dr_chat_from_json(NULL, &(struct dr_chat_talk){0}).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "messages: expected an array, found nothing");
}

static void impossible_conversations_are_refused(void) {
    static const struct {
        const char *layout, *messages, *text;
        struct dr_chat_options options;
    } all[] = {
        {"v2", "[{'role':'user','content':'a'}," CALL "]",
         "messages[1].tool_calls: layout v2 has no form for tool calls", GEN},
        {"v2", "[" RESULT "]", "messages[0]: layout v2 has no form for tool messages", GEN},
        {"lexi", "[" RESULT "]", "messages[0]: layout lexi has no form for tool messages", GEN},
        {"v3", "[{'role':'user','content':'a'}]",
         "messages[0]: continue_final_message needs an assistant message without tool_calls", OPEN},
        {"v3", "[{'role':'user','content':'a'}," CALL "]",
         "messages[1]: continue_final_message needs an assistant message without tool_calls", OPEN},
        {"v3",
         "[{'role':'assistant','content':'a'}]",
         "continue_final_message and add_generation_prompt exclude each other; set one of them",
         {.add_generation_prompt = true, .continue_final_message = true}},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_t *messages = quoted(all[i].messages);
        struct dr_chat_prompt prompt = {.ids = {0}};
        CU_ASSERT_EQUAL(render(dr_chat_find(all[i].layout), NULL, messages, all[i].options, &prompt).code,
                        DR_EINVAL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), all[i].text);
        dr_chat_prompt_fini(&prompt);
        json_decref(messages);
    }
    /* Messages made by hand are checked as well. */
    struct dr_chat chat;
    struct dr_chat_prompt prompt = {.ids = {0}};
    CU_ASSERT_EQUAL(dr_chat_init(&chat, DR_CHAT_V3, fixture_deepseek()).code, DR_OK);
    struct dr_chat_message m = {.role = DR_CHAT_USER};
    CU_ASSERT_EQUAL(dr_chat_render(&chat, &m, 0, (struct dr_chat_options)GEN, &prompt).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "messages: expected at least one");
    CU_ASSERT_EQUAL(dr_chat_render(&chat, &m, 1, (struct dr_chat_options)GEN, &prompt).code, DR_EINVAL);
    m.content = (struct dr_chat_string){.at = "\xFF", .n = 1};
    CU_ASSERT_EQUAL(dr_chat_render(&chat, &m, 1, (struct dr_chat_options)GEN, &prompt).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "text is not valid UTF-8 at byte 0");
    m = (struct dr_chat_message){.role = DR_CHAT_TOOL, .content = {.at = "a", .n = 1}};
    CU_ASSERT_EQUAL(dr_chat_render(&chat, &m, 1, (struct dr_chat_options)GEN, &prompt).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "messages[0].tool_call_id: a tool message needs it");
    dr_chat_prompt_fini(&prompt);
}

static CU_TestInfo cases[] = {
    {"28 renderings of the published templates, text and ids", golden_renderings},
    {"30 derived renderings, text and ids", derived_renderings},
    {"the sample model's conversations, by its own template", sample_model_prompts},
    {"templates choose their layout by the fixed order of markers", templates_choose_their_layout},
    {"layouts are found by name", layouts_have_names},
    {"further conversations render as the templates do, or as noted", further_conversations},
    {"texts of control tokens in contents, names and arguments stay text", lookalikes_stay_text},
    {"a missing control token is refused by name", missing_control_tokens_are_refused},
    {"a control token that merges could spell is refused", forgeable_control_tokens_are_refused},
    {"bad messages are refused in the words of the table", bad_messages_are_refused_in_these_words},
    {"conversations without a form are refused by place", impossible_conversations_are_refused},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_chat = {.pName = "text/chat", .pTests = cases};
