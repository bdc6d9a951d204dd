/* score.c - how likely a text is to the model.
 * In:   --text FILE or --ids.      Out: one JSON object; with --logits a file of all logits.
 * Owns: nothing.
 * Why:  perplexity and logits are how a layout, a precision or a checkpoint is judged.
 *
 * nll is the mean over the n - 1 predictions, perplexity its exponential. With --logits the log-probabilities
 * are computed here from the same values that go into the file. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/cli/command.h"
#include "gateway/cli/logits_file.h"

enum { TEXT_BYTES_MAX = 8 << 20 };

/* Filled on the engine thread, read by the main thread after the end. */
struct score {
    const uint32_t *ids;
    int32_t n, vocab;
    double *logprob; /* [n]: of token i given those before it; NAN: not told */
    double *peak, *mass,
        *target;      /* [n] with --logits: running maximum, sum of exp(l - peak), logit of the next token */
    int32_t *columns; /* [n]: columns that have come */
    struct dr_logits_file file;
    bool to_file;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool ended;
    enum dr_code code; /* why it failed; OK: it did not */
    char text[DR_TEXT_MAX + 1];
};

/* ---- engine thread ---- */

static void fail(struct score *s, enum dr_code code, const char *text) {
    pthread_mutex_lock(&s->lock);
    if (s->code == DR_OK) {
        s->code = code;
        snprintf(s->text, sizeof s->text, "%s", text);
    }
    pthread_mutex_unlock(&s->lock);
}

static void on_tokens(void *arg, const struct dr_token_news *news) {
    struct score *s = arg;
    if (!news->prompt || !news->logprob) return;
    for (int32_t i = 0; i < news->n; i++) {
        const int64_t at = (int64_t)news->position + i + 1;
        if (at > 0 && at < s->n && news->ids[i] == s->ids[at]) s->logprob[at] = (double)news->logprob[i];
    }
}

/* Joins columns of one row to its log-sum-exp; columns come in pieces, in any order. */
static void take_columns(struct score *s, int32_t row, int32_t first, int32_t n, const float *value) {
    double peak = s->peak[row];
    for (int32_t i = 0; i < n; i++)
        if ((double)value[i] > peak) peak = (double)value[i];
    double mass = s->columns[row] ? s->mass[row] * exp(s->peak[row] - peak) : 0;
    for (int32_t i = 0; i < n; i++) mass += exp((double)value[i] - peak);
    s->peak[row] = peak;
    s->mass[row] = mass;
    s->columns[row] += n;
    if (row + 1 < s->n) {
        const int64_t wanted = (int64_t)s->ids[row + 1] - first;
        if (wanted >= 0 && wanted < n) s->target[row] = (double)value[wanted];
        if (s->columns[row] == s->vocab) s->logprob[row + 1] = s->target[row] - peak - log(mass);
    }
}

static void on_logits(void *arg, const struct dr_logits *l) {
    struct score *s = arg;
    if (!s->to_file) return;
    dr_status st = dr_logits_file_put(&s->file, l->position, l->first, l->n, l->value);
    if (st.code != DR_OK)
        fail(s, st.code, dr_error_text());
    else
        take_columns(s, l->position, l->first, l->n, l->value);
}

static void end(struct score *s) {
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_done(void *arg, const struct dr_done *done) {
    struct score *s = arg;
    switch (done->finish) {
    case DR_FINISH_STOP:
    case DR_FINISH_LENGTH:
        break;
    case DR_FINISH_LOST:
        fail(s, DR_EPEER, "the cluster was lost");
        break;
    case DR_FINISH_CANCELLED:
        fail(s, DR_ECANCEL, "interrupted");
        break;
    default:
        fail(s, DR_EREQUEST, "the model gave numbers that are none (NaN or infinite)");
        break;
    }
    end(s);
}

static void on_refused(void *arg, const struct dr_refused *refused) {
    fail(arg, DR_EREQUEST, refused->text);
    end(arg);
}

/* ---- main thread ---- */

static dr_status read_ids(const struct dr_session *s, struct dr_ids *out) {
    const struct dr_options *o = s->options;
    const bool text = dr_option_present(o, DR_OPTION_TEXT), ids = dr_option_present(o, DR_OPTION_IDS);
    if (text == ids)
        return dr_fail(DR_EUSAGE, "expected either --text or --ids, found %s", text ? "both" : "none");
    if (ids)
        DR_TRY(dr_ids_parse("ids", dr_option_text(o, DR_OPTION_IDS), out));
    else if (!s->kit->tokenizer)
        return dr_fail(DR_EUSAGE, "the model's folder has no tokenizer.json; give --ids");
    else {
        struct dr_text bytes = {.n = 0};
        dr_status st = dr_input_read(dr_option_text(o, DR_OPTION_TEXT), TEXT_BYTES_MAX, &bytes);
        if (st.code == DR_OK) st = dr_kit_encode_prompt(s->kit, bytes.at ? bytes.at : "", bytes.n, out);
        dr_text_fini(&bytes);
        DR_TRY(st);
    }
    if (out->n < 2)
        return dr_fail(DR_EUSAGE, "at least two tokens are needed for a prediction, found %zu", out->n);
    if (out->n > (size_t)s->kit->context)
        return dr_fail(DR_EUSAGE,
                       "the text has %zu tokens, the context %d; give less text or a larger --context",
                       out->n, s->kit->context);
    for (size_t i = 0; i < out->n; i++)
        if (out->at[i] >= (uint32_t)s->kit->config.vocab)
            return dr_fail(DR_EUSAGE, "id %zu: expected less than the vocabulary's %d, found %u", i + 1,
                           s->kit->config.vocab, out->at[i]);
    return dr_ok();
}

static void score_fini(struct score *s) {
    if (s->to_file) dr_logits_file_abort(&s->file);
    free(s->logprob);
    free(s->peak);
    free(s->mass);
    free(s->target);
    free(s->columns);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

static dr_status score_init(struct score *s, const struct dr_session *session, const struct dr_ids *ids) {
    const char *path = dr_option_text(session->options, DR_OPTION_LOGITS);
    pthread_condattr_t attr;
    *s = (struct score){
        .ids = ids->at, .n = (int32_t)ids->n, .vocab = session->kit->config.vocab, .file = {.fd = -1}};
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    s->logprob = malloc(ids->n * sizeof *s->logprob);
    s->peak = malloc(ids->n * sizeof *s->peak);
    s->mass = malloc(ids->n * sizeof *s->mass);
    s->target = malloc(ids->n * sizeof *s->target);
    s->columns = calloc(ids->n, sizeof *s->columns);
    if (!s->logprob || !s->peak || !s->mass || !s->target || !s->columns)
        return dr_fail(DR_EFULL, "no memory for %zu tokens", ids->n);
    for (size_t i = 0; i < ids->n; i++)
        s->logprob[i] = (double)NAN, s->peak[i] = -INFINITY, s->mass[i] = 0, s->target[i] = (double)NAN;
    if (!*path) return dr_ok();
    DR_TRY(dr_logits_file_begin(&s->file, path, s->n, s->vocab));
    s->to_file = true;
    return dr_ok();
}

static dr_status wait_end(struct dr_session *session, struct score *s, uint64_t request) {
    bool cancelled = false;
    pthread_mutex_lock(&s->lock);
    while (!s->ended) {
        const uint64_t slice_end = dr_clock_ns() + 100000000u;
        const struct timespec t = {.tv_sec = (time_t)(slice_end / 1000000000u),
                                   .tv_nsec = (long)(slice_end % 1000000000u)};
        if (pthread_cond_timedwait(&s->changed, &s->lock, &t) == 0 || cancelled) continue;
        const bool failed = s->code != DR_OK;
        pthread_mutex_unlock(&s->lock);
        if (failed || dr_interrupt_poll(session->interrupt, 0) > 0) {
            dr_engine_cancel(session->engine, request);
            cancelled = true;
        }
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return s->code == DR_OK ? dr_ok() : dr_fail(s->code, "%s", s->text);
}

static dr_status run(struct dr_session *session, struct score *s) {
    struct dr_submit *submit = calloc(1, sizeof *submit);
    if (!submit) return dr_fail(DR_EFULL, "no memory for the request");
    *submit = (struct dr_submit){
        .request = dr_engine_next_id(session->engine),
        .n_ids = s->n,
        .ids = s->ids,
        .max_tokens = 0, /* nothing is drawn */
        .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
        .prompt_top = s->to_file ? -1 : 0,
        .logits = s->to_file,
    };
    const uint64_t request = submit->request;
    const struct dr_engine_sink sink = {.on_tokens = on_tokens,
                                        .on_logits = on_logits,
                                        .on_done = on_done,
                                        .on_refused = on_refused,
                                        .arg = s};
    dr_status st = dr_engine_submit(session->engine, submit, &sink);
    free(submit);
    return st.code == DR_OK ? wait_end(session, s, request) : st;
}

static dr_status print(const struct score *s) {
    double nll = 0;
    json_t *ids = json_array(), *logprobs = json_array();
    bool good = ids && logprobs;
    for (int32_t i = 0; good && i < s->n; i++) {
        if (i > 0 && isnan(s->logprob[i])) {
            json_decref(ids);
            json_decref(logprobs);
            return dr_fail(DR_EINTERNAL, "no log-probability came for token %d", i);
        }
        nll -= i > 0 ? s->logprob[i] : 0;
        good = json_array_append_new(ids, json_integer(s->ids[i])) == 0 &&
               json_array_append_new(logprobs, i > 0 ? json_real(s->logprob[i]) : json_null()) == 0;
    }
    nll /= s->n - 1;
    json_t *out = json_pack("{s:o,s:o,s:f,s:f,s:i}", "ids", ids, "logprobs", logprobs, "nll", nll,
                            "perplexity", exp(nll), "tokens", s->n);
    if (!good) {
        json_decref(out);
        out = NULL;
    }
    return dr_output_json(out);
}

dr_status dr_score(struct dr_options *o, struct dr_interrupt *i) {
    struct dr_session session = {.engine = NULL};
    struct dr_ids ids = {.n = 0};
    struct score s;
    dr_status st = dr_session_begin(&session, o, i);
    if (st.code == DR_OK) st = read_ids(&session, &ids);
    if (st.code == DR_OK) st = dr_session_start(&session);
    if (st.code == DR_OK) {
        st = score_init(&s, &session, &ids);
        if (st.code == DR_OK) st = run(&session, &s);
        if (st.code == DR_OK && s.to_file) {
            st = dr_logits_file_end(&s.file);
            s.to_file = false;
        }
        if (st.code == DR_OK) st = print(&s);
        score_fini(&s);
    }
    dr_ids_fini(&ids);
    dr_session_end(&session);
    return st;
}
