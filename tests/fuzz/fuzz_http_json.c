/* fuzz_http_json.c - bodies of the four endpoints that read JSON.
 * In:   first byte: endpoint; the rest: a body.      Out: nothing; a crash, a leak or a broken promise is the
 * finding. Owns: a kit without tokenizer. Why:  this is the first parser that a stranger's bytes meet. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gateway/api/ask.h"
#include "gateway/api/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ask(const struct dr_ask *a, const struct dr_kit *kit) {
    const struct dr_params *p = &a->params;
    DR_ASSERT(p->n >= 1 && p->n <= DR_CHOICES_MAX);
    DR_ASSERT(a->n_prompt >= 1 && a->n_prompt <= DR_ASK_PROMPTS_MAX &&
              a->n_prompt * p->n <= DR_ASK_SEQUENCES_MAX);
    DR_ASSERT(p->max_tokens >= -1 && p->min_tokens >= 0);
    DR_ASSERT(p->sampling.temperature >= 0 && p->sampling.top_p > 0 && p->sampling.top_p <= 1 &&
              p->sampling.top_k >= 0);
    DR_ASSERT(p->sampling.n_top >= -1 && p->sampling.n_top <= DR_TOP_MAX && p->prompt_top <= DR_TOP_MAX);
    DR_ASSERT(p->n_bias <= DR_BIAS_MAX && p->n_stop <= DR_STOP_STRINGS_MAX &&
              p->stop_ids.n <= DR_STOP_IDS_MAX - DR_END_IDS_MAX);
    DR_ASSERT(strlen(p->salt) <= DR_SALT_MAX);
    for (int32_t i = 0; i < p->n_bias; i++) DR_ASSERT(p->bias[i].id < (uint32_t)kit->config.vocab);
    for (int32_t i = 0; i < a->n_prompt; i++)
        for (size_t k = 0; k < a->prompt[i].ids.n; k++)
            DR_ASSERT(a->prompt[i].ids.at[k] < (uint32_t)kit->config.vocab);
}

static void check_problem(const struct dr_problem *why) {
    struct dr_json_out out = {0};
    json_t *tree = NULL;
    DR_ASSERT(why->status == 400 || why->status == 404 || why->status == 413);
    DR_ASSERT(why->message[0] && why->type);
    dr_problem_write(why, &out);
    DR_ASSERT(!out.failed);
    tree = json_loadb(out.text.at, out.text.n, JSON_REJECT_DUPLICATES,
                      NULL); /* whatever came in, JSON goes out */
    DR_ASSERT(tree);
    json_decref(tree);
    dr_json_out_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct dr_kit kit = {
        .config = {.vocab = 8192, .gen_temperature = -1, .gen_top_p = -1, .gen_top_k = -1},
        .chat = {.layout = DR_CHAT_V3},
        .name = "m",
        .context = 64};
    struct dr_problem why = {0};
    if (size == 0) return 0;
    const char *body = (const char *)data + 1;
    dr_status st;
    if (data[0] & 2) {
        struct dr_tokens_ask ask = {0};
        st = dr_tokens_read(&ask, data[0] & 1, &kit, body, size - 1, NULL, &why);
        dr_tokens_fini(&ask);
    } else {
        struct dr_ask ask = {0};
        st = dr_ask_read(&ask, data[0] & 1, &kit, body, size - 1, NULL, &why);
        if (st.code == DR_OK) check_ask(&ask, &kit);
        dr_ask_fini(&ask);
    }
    if (st.code != DR_OK) check_problem(&why);
    return 0;
}
