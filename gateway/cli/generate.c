/* generate.c - one prompt, one answer.
 * In:   --prompt, --prompt-file or --prompt-ids, sampling flags.      Out: streamed text, or one JSON object.
 * Owns: nothing.
 * Why:  the shortest way through the whole system; scripts and golden runs use it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/cli/command.h"

enum { PROMPT_BYTES_MAX = 8 << 20 };

struct answer { /* collected for --json */
    struct dr_text text;
    json_t *ids, *logprobs;
};

/* ---- prompt ---- */

static dr_status check_prompt_flags(const struct dr_options *o) {
    static const enum dr_option ways[] = {DR_OPTION_PROMPT, DR_OPTION_PROMPT_FILE, DR_OPTION_PROMPT_IDS};
    int given = 0;
    for (size_t i = 0; i < 3; i++) given += dr_option_present(o, ways[i]);
    if (given != 1)
        return dr_fail(DR_EUSAGE, "expected one of --prompt, --prompt-file and --prompt-ids, found %s",
                       given ? "several" : "none");
    const bool chat = dr_option_int(o, DR_OPTION_CHAT) != 0;
    if (chat && dr_option_present(o, DR_OPTION_PROMPT_IDS))
        return dr_fail(DR_EUSAGE, "--prompt-ids are taken as they are; --chat does not go with them");
    if (!chat && dr_option_present(o, DR_OPTION_SYSTEM)) return dr_fail(DR_EUSAGE, "--system: needs --chat");
    return dr_ok();
}

static dr_status render(const struct dr_session *s, const struct dr_text *text, struct dr_ids *out) {
    const char *system = dr_option_text(s->options, DR_OPTION_SYSTEM);
    if (s->kit->chat.layout == DR_CHAT_NONE)
        return dr_fail(DR_EUSAGE,
                       "--chat: the model's files name no chat layout; give --template, or leave --chat out");
    struct dr_chat_message m[2];
    size_t n = 0;
    memset(m, 0, sizeof m);
    if (*system)
        m[n++] =
            (struct dr_chat_message){.role = DR_CHAT_SYSTEM, .content = {.at = system, .n = strlen(system)}};
    m[n++] = (struct dr_chat_message){.role = DR_CHAT_USER,
                                      .content = {.at = text->at ? text->at : "", .n = text->n}};
    struct dr_chat_prompt prompt = {.ids = {.n = 0}};
    dr_status st =
        dr_chat_render(&s->kit->chat, m, n, (struct dr_chat_options){.add_generation_prompt = true}, &prompt);
    if (st.code == DR_OK) {
        *out = prompt.ids;
        prompt.ids = (struct dr_ids){.n = 0};
    }
    dr_chat_prompt_fini(&prompt);
    return st;
}

static dr_status read_prompt(const struct dr_session *s, struct dr_ids *out) {
    const struct dr_options *o = s->options;
    if (dr_option_present(o, DR_OPTION_PROMPT_IDS))
        return dr_ids_parse("prompt-ids", dr_option_text(o, DR_OPTION_PROMPT_IDS), out);
    struct dr_text text = {.n = 0};
    const char *prompt = dr_option_text(o, DR_OPTION_PROMPT);
    dr_status st = dr_option_present(o, DR_OPTION_PROMPT)
                       ? dr_text_push(&text, prompt, strlen(prompt))
                       : dr_input_read(dr_option_text(o, DR_OPTION_PROMPT_FILE), PROMPT_BYTES_MAX, &text);
    if (st.code == DR_OK && !s->kit->tokenizer)
        st = dr_fail(DR_EUSAGE, "the model's folder has no tokenizer.json; give --prompt-ids");
    if (st.code == DR_OK)
        st = dr_option_int(o, DR_OPTION_CHAT)
                 ? render(s, &text, out)
                 : dr_kit_encode_prompt(s->kit, text.at ? text.at : "", text.n, out);
    dr_text_fini(&text);
    return st;
}

/* ---- answer ---- */

static dr_status note_token(struct answer *a, const struct dr_piece_token *t) {
    if (t->prompt) return dr_ok();
    bool good = json_array_append_new(a->ids, json_integer(t->id)) == 0;
    if (a->logprobs) {
        json_t *top = json_array();
        for (int32_t i = 0; i < t->n_top; i++)
            good = good && json_array_append_new(top, json_pack("[I,f]", (json_int_t)t->top[i].id,
                                                                (double)t->top[i].logprob)) == 0;
        good = good &&
               json_array_append_new(a->logprobs, json_pack("{s:I,s:f,s:o}", "id", (json_int_t)t->id,
                                                            "logprob", (double)t->logprob, "top", top)) == 0;
    }
    return good ? dr_ok() : dr_fail(DR_EFULL, "no memory for the answer");
}

static dr_status take_piece(const struct dr_session *s, struct answer *a, const struct dr_piece *piece) {
    if (!dr_option_int(s->options, DR_OPTION_JSON)) return dr_output_write(piece->text, piece->text_bytes);
    DR_TRY(dr_text_push(&a->text, piece->text, piece->text_bytes));
    for (int32_t i = 0; i < piece->n_token; i++) DR_TRY(note_token(a, &piece->token[i]));
    return dr_ok();
}

static json_t *layout_json(struct dr_session *s) {
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    if (!facts) return json_null();
    dr_engine_facts(s->engine, facts);
    json_t *out =
        json_pack("{s:i,s:i,s:i}", "tp", facts->layout.tp, "pp", facts->layout.pp, "c", facts->layout.c);
    free(facts);
    return out;
}

/* How the ranks computed: kernels, what inputs of products were rounded to, what became of the weights. */
static json_t *arithmetic_json(struct dr_session *s) {
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    if (!facts) return json_null();
    dr_engine_facts(s->engine, facts);
    const struct dr_arithmetic *a = &facts->rank[0].arithmetic;
    json_t *out = json_pack("{s:s,s:s,s:s}", "isa", a->isa, "inputs", a->inputs, "weights",
                            dr_weights_name(facts->layout.weights));
    free(facts);
    return out;
}

static dr_status print_json(struct dr_session *s, struct answer *a, const struct dr_piece *last,
                            const struct dr_answer_facts *f) {
    const struct dr_done *d = &last->done;
    const char *finish =
        !strcmp(last->finish, "stop") || !strcmp(last->finish, "length") ? last->finish : "error";
    int32_t drafted = 0, accepted = 0;
    for (int i = 0; i < DR_DRAFTS_MAX; i++) {
        drafted += d->drafted[i];
        accepted += d->accepted[i];
    }
    json_t *usage = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i}", "prompt_tokens", d->n_prompt, "completion_tokens",
                              f->n_token, "total_tokens", d->n_prompt + f->n_token, "cached_tokens",
                              d->n_cached, "drafted_tokens", drafted, "accepted_tokens", accepted);
    json_t *timings = json_pack("{s:f,s:f,s:f,s:f}", "queue_ms", (double)d->queue_ns / 1e6, "ttft_ms",
                                (double)f->first_ns / 1e6, "total_ms", (double)f->total_ns / 1e6,
                                "tokens_per_s", f->tokens_per_s);
    json_t *out = json_object();
    json_t *text = json_stringn(a->text.at ? a->text.at : "", a->text.n);
    bool good = json_object_set(out, "ids", a->ids) == 0;
    good = good && json_object_set_new(out, "text", text) == 0;
    good = good && json_object_set_new(out, "finish_reason", json_string(finish)) == 0;
    good = good &&
           json_object_set_new(out, "logprobs", a->logprobs ? json_incref(a->logprobs) : json_null()) == 0;
    good = good && json_object_set_new(out, "usage", usage) == 0 &&
           json_object_set_new(out, "timings", timings) == 0;
    good = good && json_object_set_new(out, "layout", layout_json(s)) == 0 &&
           json_object_set_new(out, "arithmetic", arithmetic_json(s)) == 0;
    if (!good) {
        json_decref(out);
        out = NULL;
    }
    return dr_output_json(out);
}

/* Takes pieces to the end. The first Ctrl-C cancels; what was produced until then stays. */
static dr_status collect(struct dr_session *s, struct dr_generation *g, uint64_t begin_ns) {
    struct answer a = {.ids = json_array(),
                       .logprobs = dr_option_present(s->options, DR_OPTION_LOGPROBS) ? json_array() : NULL};
    struct dr_piece piece = {.end = false};
    uint64_t first_ns = 0;
    int32_t n_token = 0;
    bool cancelled = false;
    dr_status st = dr_ok();
    while (st.code == DR_OK && !piece.end) {
        if (!cancelled && dr_interrupt_poll(s->interrupt, 0) > 0) {
            dr_generation_cancel(g);
            cancelled = true;
        }
        if (!dr_generation_next(g, &piece)) {
            piece.end = false;
            dr_generation_wait(g, 100000000u);
            continue;
        }
        for (int32_t i = 0; i < piece.n_token; i++) n_token += !piece.token[i].prompt;
        if (n_token > 0 && !first_ns) first_ns = dr_clock_ns();
        st = take_piece(s, &a, &piece);
    }
    if (st.code == DR_OK) {
        const struct dr_answer_facts f =
            dr_answer_facts_of(&piece.done, begin_ns, first_ns, dr_clock_ns(), n_token);
        const bool json = dr_option_int(s->options, DR_OPTION_JSON) != 0;
        st = json ? print_json(s, &a, &piece, &f) : dr_output_write("\n", 1);
        if (st.code == DR_OK) st = dr_piece_status(&piece);
        if (st.code == DR_OK && cancelled) st = dr_fail(DR_ECANCEL, "interrupted");
        if (st.code == DR_OK) dr_facts_print(s, &f);
    }
    json_decref(a.ids);
    json_decref(a.logprobs);
    dr_text_fini(&a.text);
    return st;
}

static dr_status answer(struct dr_session *s, const struct dr_ids *prompt, const struct dr_bias *bias,
                        int32_t n_bias) {
    const struct dr_options *o = s->options;
    const struct dr_generation_wish wish = dr_flags_wish(o, s->kit, prompt, bias, n_bias);
    struct dr_generation *g = NULL;
    const uint64_t begin_ns = dr_clock_ns();
    DR_TRY(dr_generation_start(s->engine, s->kit, &wish, &g));
    dr_status st = collect(s, g, begin_ns);
    dr_generation_destroy(g);
    return st;
}

dr_status dr_generate(struct dr_options *o, struct dr_interrupt *i) {
    struct dr_session s = {.engine = NULL};
    struct dr_ids prompt = {.n = 0};
    struct dr_bias *bias = calloc(DR_BIAS_MAX, sizeof *bias);
    int32_t n_bias = 0;
    /* Whatever can be refused is refused before a cluster is started. */
    dr_status st = bias ? check_prompt_flags(o) : dr_fail(DR_EFULL, "no memory for the request");
    if (st.code == DR_OK) st = dr_flags_bias(o, bias, &n_bias);
    if (st.code == DR_OK) st = dr_session_begin(&s, o, i);
    if (st.code == DR_OK) st = read_prompt(&s, &prompt);
    if (st.code == DR_OK && prompt.n > DR_PROMPT_IDS_MAX)
        st = dr_fail(DR_EUSAGE, "the prompt has %zu tokens; at most %d are taken", prompt.n,
                     DR_PROMPT_IDS_MAX);
    if (st.code == DR_OK) st = dr_session_start(&s);
    if (st.code == DR_OK) st = answer(&s, &prompt, bias, n_bias);
    free(bias);
    dr_ids_fini(&prompt);
    dr_session_end(&s);
    return st;
}
