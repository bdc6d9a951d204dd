/* answer.c - moves an answer from its generations to its reader.
 * In:   pieces.      Out: text handed to answer_write.c, counts handed to metrics.
 * Owns: struct dr_answer.
 * Why:  see answer.h. */
#include "gateway/api/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/rng.h"
#include "common/size.h"
#include "gateway/api/answer_parts.h"

/* ---- start ---- */

static dr_status echo_prompt(const struct dr_answer *a, struct dr_choice *c) {
    const struct dr_ask_prompt *p = c->prompt;
    const struct dr_kit *kit = a->api->kit;
    if (a->ask.top >= 0) { /* nothing precedes the first token, so nothing predicted it */
        const struct dr_piece_token first = {.id = p->ids.at[0], .prompt = true};
        dr_logprobs_add(&c->logprobs, kit, &first, a->ask.top, false);
    }
    if (p->text) return dr_text_push(&c->text, p->text, p->bytes);
    for (size_t i = 0; kit->tokenizer && i < p->ids.n; i++)
        if (!dr_tokenizer_has(kit->tokenizer, p->ids.at[i])) return dr_ok(); /* such a prompt has no text */
    return kit->tokenizer ? dr_tokenizer_decode(kit->tokenizer, p->ids.at, p->ids.n,
                                                a->ask.params.skip_special, &c->text)
                          : dr_ok();
}

static dr_status start_choice(struct dr_answer *a, struct dr_choice *c, void (*notify)(void *arg),
                              void *arg) {
    const struct dr_params *p = &a->ask.params;
    int32_t room = a->api->kit->context - (int32_t)c->prompt->ids.n;
    struct dr_generation_wish wish = {
        .ids = c->prompt->ids.at,
        .n_ids = (int32_t)c->prompt->ids.n,
        .max_tokens = p->max_tokens < 0 ? room : dr_min_i32(p->max_tokens, room),
        .min_tokens = p->min_tokens,
        .ignore_eos = p->ignore_eos,
        .include_stop = p->include_stop,
        .skip_special = p->skip_special,
        .sampling = p->sampling,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .stop_ids = p->stop_ids.at,
        .n_stop_ids = (int32_t)p->stop_ids.n,
        .stop = (const char *const *)p->stop,
        .n_stop = p->n_stop,
        .prompt_top = a->ask.echo ? dr_max_i32(p->prompt_top, a->ask.top) : p->prompt_top,
        .priority = p->priority,
        .tenant = p->tenant,
        .salt = p->salt,
        .notify = notify,
        .notify_arg = arg,
    };
    if (p->n > 1) wish.sampling.seed = dr_rng_derive(p->sampling.seed, (uint64_t)(c->index % p->n));
    if (a->ask.echo) DR_TRY(echo_prompt(a, c));
    DR_TRY(dr_text_push(&c->text, "", 0)); /* so that an empty answer has a text */
    return dr_generation_start(a->api->engine, a->api->kit, &wish, &c->generation);
}

dr_status dr_answer_create(struct dr_api *api, struct dr_ask *ask, void (*notify)(void *arg), void *arg,
                           struct dr_answer **out, struct dr_problem *why) {
    struct dr_answer *a = calloc(1, sizeof *a);
    int32_t n = ask->n_prompt * ask->params.n;
    if (a) a->choice = calloc((size_t)n, sizeof *a->choice);
    if (!a || !a->choice) {
        free(a);
        dr_ask_fini(ask);
        return dr_problem_from(why, dr_fail(DR_EFULL, "no memory for an answer"), NULL);
    }
    a->api = api;
    a->ask = *ask;
    *ask = (struct dr_ask){0};
    a->start_ns = dr_clock_ns();
    a->created_s = dr_clock_wall_s();
    snprintf(a->id, sizeof a->id, "%s-%016llx%016llx", a->ask.chat ? "chatcmpl" : "cmpl",
             (unsigned long long)dr_rng_system(), (unsigned long long)dr_rng_system());
    dr_status st = dr_ok();
    for (int32_t i = 0; i < n && st.code == DR_OK; i++) {
        struct dr_choice *c = &a->choice[i];
        a->n_choice++;
        *c = (struct dr_choice){.index = i,
                                .prompt = &a->ask.prompt[i / a->ask.params.n],
                                .stop_id = -1,
                                .logprobs = {.chat = a->ask.chat,
                                             .ids_as_tokens = a->ask.params.ids_as_tokens,
                                             .skip_special = a->ask.params.skip_special}};
        st = start_choice(a, c, notify, arg);
    }
    if (st.code != DR_OK) {
        st = dr_problem_from(why, st, a->ask.chat ? "messages" : "prompt");
        if (why->status == 503) dr_metrics_refused(api->metrics, false);
        dr_answer_destroy(a);
        return st;
    }
    dr_metrics_request(api->metrics, a->ask.params.n);
    *out = a;
    return dr_ok();
}

/* ---- ends ---- */

static void count_end(struct dr_answer *a, struct dr_choice *c, enum dr_metrics_finish finish, bool lost) {
    int32_t room = a->api->kit->context - (int32_t)c->prompt->ids.n;
    const struct dr_metrics_end end = {
        .finish = finish,
        .lost = lost,
        .done = c->done,
        .n_prompt = (int32_t)c->prompt->ids.n,
        .n_output = c->n_output,
        .max_tokens = a->ask.params.max_tokens < 0 ? room : dr_min_i32(a->ask.params.max_tokens, room),
        .total_ns = dr_clock_ns() - a->start_ns,
        .first_ns = c->first_ns ? c->first_ns - a->start_ns : 0,
    };
    dr_metrics_sequence(a->api->metrics, &end);
}

static void drop_generations(struct dr_answer *a) {
    for (int32_t i = 0; i < a->n_choice; i++) {
        struct dr_choice *c = &a->choice[i];
        if (c->generation && !c->ended) count_end(a, c, DR_METRICS_ABORT, false);
        dr_generation_destroy(c->generation);
        c->generation = NULL;
    }
}

void dr_answer_destroy(struct dr_answer *a) {
    if (!a) return;
    drop_generations(a);
    for (int32_t i = 0; i < a->n_choice; i++) {
        struct dr_choice *c = &a->choice[i];
        dr_text_fini(&c->text);
        dr_logprobs_fini(&c->logprobs);
        dr_json_out_fini(&c->prompt_logprobs);
        dr_json_out_fini(&c->ids);
    }
    free(a->choice);
    dr_json_out_fini(&a->event);
    dr_ask_fini(&a->ask);
    free(a);
}

static void explain_refusal(struct dr_answer *a, const struct dr_piece *p) {
    const char *param = a->ask.chat ? "messages" : "prompt",
               *text = p->error[0] ? p->error : "the request was refused";
    struct dr_problem_kind kind = {.status = 400, .type = "invalid_request_error"};
    const bool full = p->refusal == DR_REFUSE_FULL, draining = p->refusal == DR_REFUSE_DRAINING;
    if (full || draining) dr_metrics_refused(a->api->metrics, full);
    if (full) {
        dr_ignore(dr_problem_full(&a->problem, p->retry_ms, text), "kept in the answer");
        return;
    }
    if (draining)
        kind = (struct dr_problem_kind){.status = 503,
                                        .type = "server_error",
                                        .code = "not_ready",
                                        .retry_s = dr_problem_retry_s(p->retry_ms)};
    else if (p->refusal == DR_REFUSE_TOO_LONG)
        kind.code = "context_length_exceeded";
    dr_ignore(dr_problem_fail(&a->problem, kind, draining ? NULL : param, "%s", text), "kept in the answer");
}

/* Why a sequence ended without an answer. */
static void explain(struct dr_answer *a, const struct dr_piece *p) {
    struct dr_problem_kind kind = {.status = 500, .type = "server_error", .code = "internal_error"};
    const char *text = p->error;
    if (p->refused) {
        explain_refusal(a, p);
        return;
    }
    if (p->lost)
        kind = (struct dr_problem_kind){
            .status = 503, .type = "server_error", .code = "epoch_lost", .retry_s = 1};
    else if (strcmp(p->finish, "cancelled") == 0) {
        kind = (struct dr_problem_kind){
            .status = 503, .type = "server_error", .code = "shutting_down", .retry_s = 5};
        text = "the server shuts down and ended this request; try again";
    } else if (p->done.finish == DR_FINISH_NUMERIC)
        kind.code = "numerical_error";
    else if (p->done.finish == DR_FINISH_DEADLINE)
        kind.code = "deadline_exceeded";
    dr_ignore(dr_problem_fail(&a->problem, kind, NULL, "%s", text), "kept in the answer");
}

/* ---- pieces ---- */

static void count_tokens(struct dr_answer *a, struct dr_choice *c, int32_t n) {
    if (n == 0) return;
    uint64_t now = dr_clock_ns();
    c->n_output += n;
    if (!c->first_ns) {
        c->first_ns = now;
        dr_metrics_first(a->api->metrics, now - a->start_ns);
        n--;
    }
    for (int32_t i = 0; i < n; i++)
        dr_metrics_gap(a->api->metrics, (now - (c->last_ns ? c->last_ns : now)) / (uint64_t)n);
    c->last_ns = now;
}

static void take_tokens(struct dr_answer *a, struct dr_choice *c, const struct dr_piece *p) {
    int32_t fresh = 0;
    for (int32_t i = 0; i < p->n_token; i++) {
        const struct dr_piece_token *t = &p->token[i];
        bool listed = a->ask.top >= 0 && (!t->prompt || a->ask.echo);
        if (listed) dr_logprobs_add(&c->logprobs, a->api->kit, t, a->ask.top, true);
        if (t->prompt && a->ask.params.prompt_top >= 0) {
            dr_json_raw(&c->prompt_logprobs, ",");
            dr_logprobs_prompt(&c->prompt_logprobs, a->api->kit, t, a->ask.params.prompt_top);
        }
        if (t->prompt) continue;
        fresh++;
        if (a->ask.params.return_ids) dr_json_format(&c->ids, c->ids.text.n ? ",%u" : "%u", t->id);
    }
    count_tokens(a, c, fresh);
}

/* The last piece: false when the whole answer has failed because of it. */
static bool take_end(struct dr_answer *a, struct dr_choice *c, const struct dr_piece *p) {
    bool stop = strcmp(p->finish, "stop") == 0, length = strcmp(p->finish, "length") == 0;
    c->ended = true;
    c->done = p->done;
    if (!p->refused)
        count_end(a, c,
                  stop                                  ? DR_METRICS_STOP
                  : length                              ? DR_METRICS_LENGTH
                  : strcmp(p->finish, "cancelled") == 0 ? DR_METRICS_ABORT
                                                        : DR_METRICS_ERROR,
                  p->lost);
    if (!stop && !length) {
        explain(a, p);
        return false;
    }
    c->finish = stop ? "stop" : "length";
    c->stopped_by_text = p->stop_text != NULL;
    if (p->stop_text) snprintf(c->stop_text, sizeof c->stop_text, "%.*s", DR_STOP_BYTES_MAX, p->stop_text);
    for (size_t i = 0; i < a->ask.params.stop_ids.n; i++)
        if (p->stop_id == (int64_t)a->ask.params.stop_ids.at[i]) c->stop_id = p->stop_id;
    return true;
}

/* Takes everything one choice has. false: the answer has failed. */
static bool move_choice(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out) {
    struct dr_piece p;
    while (!c->ended && dr_generation_next(c->generation, &p)) {
        take_tokens(a, c, &p);
        if (dr_text_push(&c->text, p.text, p.text_bytes).code != DR_OK) out->failed = true;
        bool good = !p.end || take_end(a, c, &p);
        if (a->ask.params.stream) dr_answer_write_delta(a, c, out);
        if (!good) return false;
        if (p.end && a->ask.params.stream) dr_answer_write_finish(a, c, out);
    }
    return true;
}

/* A stream begins when every sequence is in the queue: until then a refusal can still be a status. */
static bool all_running(struct dr_answer *a) {
    for (int32_t i = 0; i < a->n_choice; i++)
        if (dr_generation_stage(a->choice[i].generation) != DR_GENERATION_RUNNING) return false;
    return true;
}

static bool any_refused(struct dr_answer *a) {
    struct dr_piece p;
    for (int32_t i = 0; i < a->n_choice; i++) {
        struct dr_choice *c = &a->choice[i];
        if (dr_generation_stage(c->generation) == DR_GENERATION_REFUSED &&
            dr_generation_next(c->generation, &p))
            return !take_end(a, c, &p);
    }
    return false;
}

static enum dr_answer_state fail(struct dr_answer *a, struct dr_json_out *out) {
    bool begun = a->state == DR_ANSWER_STREAMING;
    if (begun) dr_answer_write_error(a, out);
    drop_generations(a);
    return begun ? DR_ANSWER_ENDED : DR_ANSWER_FAILED;
}

static enum dr_answer_state move(struct dr_answer *a, struct dr_json_out *out) {
    bool stream = a->ask.params.stream, all = true;
    if (stream && a->state == DR_ANSWER_WAITING) {
        if (!all_running(a)) return any_refused(a) ? fail(a, out) : DR_ANSWER_WAITING;
        a->state = DR_ANSWER_STREAMING;
        for (int32_t i = 0; i < a->n_choice; i++) dr_answer_write_first(a, &a->choice[i], out);
    }
    for (int32_t i = 0; i < a->n_choice; i++) {
        if (!move_choice(a, &a->choice[i], out)) return fail(a, out);
        all = all && a->choice[i].ended;
    }
    if (!all) return a->state;
    if (stream)
        dr_answer_write_done(a, out);
    else
        dr_answer_write_body(a, out);
    return DR_ANSWER_ENDED;
}

enum dr_answer_state dr_answer_turn(struct dr_answer *a, struct dr_json_out *out) {
    if (a->state == DR_ANSWER_ENDED || a->state == DR_ANSWER_FAILED) return a->state;
    enum dr_answer_state next = move(a, out);
    if (out->failed &&
        next != DR_ANSWER_FAILED) { /* what was written has a hole: it must not look complete */
        dr_ignore(dr_problem_from(&a->problem, dr_fail(DR_EFULL, "no memory for an answer"), NULL),
                  "kept in the answer");
        drop_generations(a);
        next = DR_ANSWER_FAILED;
    }
    a->state = next;
    return next;
}

bool dr_answer_streams(const struct dr_answer *a) {
    return a->ask.params.stream;
}

const struct dr_problem *dr_answer_problem(const struct dr_answer *a) {
    return &a->problem;
}
