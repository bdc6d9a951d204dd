/* session.c - what generate, chat and score have in common: a model, a running cluster, input, output, flags.
 * In:   options, files, descriptors.      Out: see command.h.
 * Owns: nothing.
 * Why:  see command.h. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "gateway/cli/command.h"
#include "model/footprint.h"

/* ---- life ---- */

dr_status dr_session_begin(struct dr_session *s, struct dr_options *o, struct dr_interrupt *i) {
    *s = (struct dr_session){.options = o, .interrupt = i};
    if (!dr_option_present(o, DR_OPTION_MODEL)) return dr_fail(DR_EUSAGE, "no model: give --model DIR");
    if (o->command != DR_CMD_SERVE && !o->value[DR_OPTION_SEQS_MAX].set)
        DR_TRY(dr_option_set(o, DR_OPTION_SEQS_MAX, "1")); /* one answer at a time needs the cache of one */
    return dr_kit_create(o, &s->kit);
}

dr_status dr_session_start(struct dr_session *s) {
    const uint64_t slice = 100000000u;
    DR_TRY(dr_interrupt_begin(s->interrupt));
    DR_TRY(dr_engine_create(s->options, &s->kit->config, &s->engine));
    for (;;) {
        dr_status st = dr_engine_wait(s->engine, slice);
        if (st.code != DR_ETIME) return st;
        if (dr_interrupt_poll(s->interrupt, 0) > 0)
            return dr_fail(DR_ECANCEL, "interrupted while the cluster was starting");
    }
}

void dr_session_end(struct dr_session *s) {
    char text[1024]; /* of the failure that led here: stopping a cluster may write others over it */
    snprintf(text, sizeof text, "%s", dr_error_text());
    dr_engine_destroy(s->engine);
    if (s->kit) dr_kit_destroy(s->kit);
    *s = (struct dr_session){.engine = NULL};
    dr_ignore(dr_fail(DR_EINTERNAL, "%s", text), "puts the text back");
}

/* ---- input and output ---- */

dr_status dr_ids_parse(const char *flag, const char *text, struct dr_ids *out) {
    for (const char *p = text;;) {
        char *end;
        errno = 0;
        const bool digit = *p >= '0' && *p <= '9';
        const unsigned long long v = strtoull(p, &end, 10);
        if (!digit || errno || v > UINT32_MAX - 1 || (*end && *end != ','))
            return dr_fail(DR_EUSAGE,
                           "--%s: expected ids with commas between them, such as 5,17,9; entry %zu is none",
                           flag, out->n + 1);
        DR_TRY(dr_ids_push(out, (uint32_t)v));
        if (!*end) return dr_ok();
        p = end + 1;
    }
}

dr_status dr_input_read(const char *path, size_t bytes_max, struct dr_text *out) {
    const bool is_stdin = !strcmp(path, "-");
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dr_fail(errno == ENOENT ? DR_ENOENT : DR_EIO, "%s: cannot be opened: %s", path,
                       strerror(errno));
    char piece[65536];
    dr_status st = dr_ok();
    while (st.code == DR_OK) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) break;
        if (n < 0)
            st = dr_fail(DR_EIO, "%s: cannot be read: %s", path, strerror(errno));
        else if (out->n + (size_t)n > bytes_max)
            st = dr_fail(DR_EUSAGE, "%s: more than %zu bytes; give less text", path, bytes_max);
        else
            st = dr_text_push(out, piece, (size_t)n);
    }
    if (!is_stdin) close(fd);
    return st;
}

dr_status dr_output_write(const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(1, text, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EPIPE) return dr_fail(DR_ECANCEL, "%s", "");
        if (n < 0) return dr_fail(DR_EIO, "stdout cannot be written: %s", strerror(errno));
        text += n;
        bytes -= (size_t)n;
    }
    return dr_ok();
}

dr_status dr_output_json(json_t *value) {
    char *line = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    if (!line) return dr_fail(DR_EFULL, "no memory for the answer");
    dr_status st = dr_output_write(line, strlen(line));
    if (st.code == DR_OK) st = dr_output_write("\n", 1);
    free(line);
    return st;
}

/* ---- flags ---- */

struct dr_sampling dr_flags_sampling(const struct dr_options *o, const struct dr_kit *kit) {
    struct dr_sampling s = dr_kit_sampling(kit);
    const struct {
        enum dr_option id;
        float *to;
    } real[] = {
        {DR_OPTION_TEMPERATURE, &s.temperature},
        {DR_OPTION_TOP_P, &s.top_p},
        {DR_OPTION_MIN_P, &s.min_p},
        {DR_OPTION_REPETITION_PENALTY, &s.repetition},
        {DR_OPTION_FREQUENCY_PENALTY, &s.frequency},
        {DR_OPTION_PRESENCE_PENALTY, &s.presence},
    };
    for (size_t i = 0; i < sizeof real / sizeof *real; i++)
        if (dr_option_present(o, real[i].id)) *real[i].to = (float)dr_option_float(o, real[i].id);
    if (dr_option_present(o, DR_OPTION_TOP_K)) {
        const int64_t k = dr_option_int(o, DR_OPTION_TOP_K);
        s.top_k = k > 0 ? (int32_t)k : 0;
    }
    if (dr_option_present(o, DR_OPTION_SEED)) s.seed = (uint64_t)dr_option_int(o, DR_OPTION_SEED);
    s.n_top = dr_option_present(o, DR_OPTION_LOGPROBS) ? (int32_t)dr_option_int(o, DR_OPTION_LOGPROBS) : -1;
    return s;
}

struct dr_generation_wish dr_flags_wish(const struct dr_options *o, const struct dr_kit *kit,
                                        const struct dr_ids *prompt, const struct dr_bias *bias,
                                        int32_t n_bias) {
    return (struct dr_generation_wish){
        .ids = prompt->at,
        .n_ids = (int32_t)prompt->n,
        .max_tokens = (int32_t)dr_option_int(o, DR_OPTION_MAX_TOKENS),
        .min_tokens = (int32_t)dr_option_int(o, DR_OPTION_MIN_TOKENS),
        .ignore_eos = dr_option_int(o, DR_OPTION_IGNORE_EOS) != 0, /* chat has no such flag: its default */
        .skip_special = true,
        .sampling = dr_flags_sampling(o, kit),
        .bias = bias,
        .n_bias = n_bias,
        .stop = (const char *const *)o->stop,
        .n_stop = o->n_stop,
        .prompt_top = -1,
        .tenant = "",
        .salt = "",
    };
}

dr_status dr_flags_bias(const struct dr_options *o, struct dr_bias *out, int32_t *n) {
    const char *p = dr_option_text(o, DR_OPTION_LOGIT_BIAS);
    *n = 0;
    while (*p) {
        char *colon, *end;
        if (*n == DR_BIAS_MAX)
            return dr_fail(DR_EUSAGE, "--logit-bias: at most %d entries, found one more", DR_BIAS_MAX);
        errno = 0;
        const bool digit = *p >= '0' && *p <= '9';
        const unsigned long long id = strtoull(p, &colon, 10);
        const bool head =
            digit && !errno && id < UINT32_MAX && *colon == ':' && colon[1] && !strchr(" \t,", colon[1]);
        const double value = head ? strtod(colon + 1, &end) : 0;
        if (!head || end == colon + 1 || !isfinite(value) || fabs(value) > 100 || (*end && *end != ','))
            return dr_fail(DR_EUSAGE,
                           "--logit-bias: expected ID:X,... with X from -100 to 100; entry %d is not",
                           *n + 1);
        out[(*n)++] = (struct dr_bias){.id = (uint32_t)id, .value = (float)value};
        if (*end && !end[1]) return dr_fail(DR_EUSAGE, "--logit-bias: ends in a comma; expected ID:X,...");
        p = end + (*end == ',');
    }
    return dr_ok();
}

/* ---- how it went ---- */

struct dr_answer_facts dr_answer_facts_of(const struct dr_done *done, uint64_t begin_ns, uint64_t first_ns,
                                          uint64_t end_ns, int32_t n_token) {
    struct dr_answer_facts f = {.total_ns = end_ns - begin_ns, .n_token = n_token};
    if (first_ns) f.first_ns = first_ns - begin_ns;
    if (n_token > 1 && done->decode_ns > 0) f.tokens_per_s = (n_token - 1) / ((double)done->decode_ns / 1e9);
    return f;
}

void dr_facts_print(const struct dr_session *s, const struct dr_answer_facts *f) {
    const struct dr_option_value *v = &s->options->value[DR_OPTION_FACTS];
    if (v->set ? !v->number : !isatty(2)) return;
    struct dr_engine_facts *facts = malloc(sizeof *facts);
    if (!facts) return;
    dr_engine_facts(s->engine, facts);
    const struct dr_layout *l = &facts->layout;
    fprintf(stderr,
            "layout tp=%d pp=%d c=%d, %d tokens, %.1f tokens/s, first token after %.1f ms, cache %zu bytes a "
            "token\n",
            l->tp, l->pp, l->c, f->n_token, f->tokens_per_s, (double)f->first_ns / 1e6,
            dr_footprint_token_bytes(&s->kit->config, l));
    free(facts);
}

dr_status dr_piece_status(const struct dr_piece *last) {
    if (last->lost) return dr_fail(DR_EPEER, "%s", last->error[0] ? last->error : "the cluster was lost");
    if (last->refused || !strcmp(last->finish, "error"))
        return dr_fail(DR_EREQUEST, "%s", last->error[0] ? last->error : "the request failed");
    return dr_ok();
}
