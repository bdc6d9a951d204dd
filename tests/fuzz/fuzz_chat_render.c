/* fuzz_chat_render.c - hostile messages through every layout.
 * In:   a byte (layout, options), then the JSON of messages.      Out: a crash, or ids that are not the text.
 * Owns: one tokenizer for the process.
 * Why:  contents are a stranger's; only the layout may put control ids into a prompt. */
#include "gateway/text/chat.h"
#include "tests/fuzz/tiny_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dr_tokenizer *tokenizer;

static void load(void) {
#define DR_X_(name, text) text,
    static const char *const controls[] = {DR_CHAT_CONTROLS(DR_X_)};
#undef DR_X_
    json_t *json = tiny_tokenizer();
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
        json_array_append_new(json_object_get(json, "added_tokens"),
                              json_pack("{s:i, s:s}", "id", (int)(300 + i), "content", controls[i]));
    char *text = json_dumps(json, 0);
    struct dr_tokenizer_source source = {.json = text, .json_bytes = strlen(text)};
    FUZZ_CHECK(dr_tokenizer_create_from(&source, &tokenizer).code == DR_OK);
    free(text);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tokenizer) load();
    if (size < 2) return 0;
    struct dr_chat_options options = {.add_generation_prompt = data[0] & 8,
                                      .thinking = data[0] & 16,
                                      .continue_final_message = data[0] & 32};
    struct dr_chat chat;
    struct dr_chat_talk talk = {0};
    struct dr_chat_prompt prompt = {.ids = {0}};
    FUZZ_CHECK(dr_chat_init(&chat, (enum dr_chat_layout)(1 + data[0] % 6), tokenizer).code == DR_OK);
    json_t *messages = json_loadb((const char *)data + 1, size - 1, JSON_DECODE_ANY, NULL);
    dr_status st = dr_chat_from_json(messages, &talk);
    if (st.code == DR_OK) st = dr_chat_render(&chat, talk.messages, talk.n, options, &prompt);
    if (st.code == DR_OK) {
        struct dr_text back = {0};
        FUZZ_CHECK(dr_tokenizer_decode(tokenizer, prompt.ids.at, prompt.ids.n, false, &back).code == DR_OK);
        FUZZ_CHECK(back.n == prompt.text.n && (back.n == 0 || memcmp(back.at, prompt.text.at, back.n) == 0));
        dr_text_fini(&back);
    } else {
        FUZZ_CHECK(st.code == DR_EINVAL);
    }
    dr_chat_talk_fini(&talk);
    dr_chat_prompt_fini(&prompt);
    json_decref(messages);
    return 0;
}
