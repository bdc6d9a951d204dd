/* params.c - reads the fields that every answer shares.
 * In:   a JSON object.      Out: struct dr_params.
 * Owns: nothing beyond the struct.
 * Why:  see params.h. Ranges are OpenAI's where it has the field, vLLM's where only that has it. */
#include "gateway/api/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"

static const float TOP_P_LEAST = 1e-6f; /* top_p 0 is legal and means the likeliest token alone */

void dr_params_init(struct dr_params *p, const struct dr_kit *kit) {
    *p = (struct dr_params){.n = 1, .max_tokens = -1, .skip_special = true, .prompt_top = -1};
    p->sampling = dr_kit_sampling(kit);
    p->sampling.n_top = -1;
}

void dr_params_fini(struct dr_params *p) {
    free(p->bias);
    dr_ids_fini(&p->stop_ids);
    for (int32_t i = 0; i < p->n_stop; i++) free(p->stop[i]);
    p->bias = NULL;
    p->n_bias = p->n_stop = 0;
}

dr_status dr_params_model(const struct dr_kit *kit, const struct dr_body *b) {
    const char *model = NULL;
    DR_TRY(dr_body_text(b, "model", 512, &model));
    if (!model || !*model || strcmp(model, kit->name) == 0) return dr_ok();
    return dr_problem_fail(
        b->why,
        (struct dr_problem_kind){.status = 404, .type = "invalid_request_error", .code = "model_not_found"},
        "model", "model: this server has \"%s\" only", kit->name);
}

static dr_status read_sampling(struct dr_params *p, const struct dr_body *b) {
    struct dr_sampling *s = &p->sampling;
    int64_t seed = (int64_t)s->seed;
    DR_TRY(dr_body_float(b, "temperature", 0, 100, &s->temperature));
    DR_TRY(dr_body_float(b, "top_p", 0, 1, &s->top_p));
    if (s->top_p < TOP_P_LEAST) s->top_p = TOP_P_LEAST;
    DR_TRY(dr_body_float(b, "min_p", 0, 1, &s->min_p));
    DR_TRY(dr_body_int32(b, "top_k", -1, 1 << 20, &s->top_k));
    if (s->top_k < 0) s->top_k = 0;
    DR_TRY(dr_body_float(b, "frequency_penalty", -2, 2, &s->frequency));
    DR_TRY(dr_body_float(b, "presence_penalty", -2, 2, &s->presence));
    DR_TRY(dr_body_float(b, "repetition_penalty", 0.01, 100, &s->repetition));
    DR_TRY(dr_body_int(b, "seed", INT64_MIN, INT64_MAX, &seed));
    s->seed = (uint64_t)seed;
    return dr_ok();
}

static dr_status read_bias(struct dr_params *p, const struct dr_kit *kit, const struct dr_body *b) {
    json_t *map = json_object_get(b->object, "logit_bias");
    if (!map || json_is_null(map)) return dr_ok();
    char room[40];
    if (!json_is_object(map) || json_object_size(map) > DR_BIAS_MAX)
        return dr_problem_bad(b->why, "logit_bias",
                              "logit_bias: expected an object of at most %d token ids, found %s", DR_BIAS_MAX,
                              json_is_object(map) ? "more" : dr_body_found(map, room, sizeof room));
    if (json_object_size(map) == 0) return dr_ok();
    p->bias = calloc(json_object_size(map), sizeof *p->bias);
    if (!p->bias) return dr_fail(DR_EFULL, "no memory for biases");
    const char *key;
    json_t *v;
    json_object_foreach(map, key, v) {
        char *end = NULL;
        unsigned long id = key[0] >= '0' && key[0] <= '9' ? strtoul(key, &end, 10) : 0;
        if (!end || *end || id >= (unsigned long)kit->config.vocab)
            return dr_problem_bad(b->why, "logit_bias", "logit_bias: a name is no token id from 0 to %d",
                                  kit->config.vocab - 1);
        double x = json_number_value(v);
        if (!json_is_number(v) || !(x >= -100 && x <= 100))
            return dr_problem_bad(b->why, "logit_bias",
                                  "logit_bias.%lu: expected a number from -100 to 100, found %s", id,
                                  dr_body_found(v, room, sizeof room));
        for (int32_t i = 0; i < p->n_bias; i++)
            if (p->bias[i].id == id)
                return dr_problem_bad(b->why, "logit_bias", "logit_bias: token %lu is named twice", id);
        p->bias[p->n_bias++] = (struct dr_bias){.id = (uint32_t)id, .value = (float)x};
    }
    return dr_ok();
}

static dr_status add_stop(struct dr_params *p, const struct dr_body *b, const json_t *v) {
    char room[40];
    size_t n = json_string_length(v);
    if (!json_is_string(v) || n == 0 || n > DR_STOP_BYTES_MAX)
        return dr_problem_bad(b->why, "stop", "stop: expected strings of 1 to %d bytes, found %s",
                              DR_STOP_BYTES_MAX,
                              json_is_string(v) && n ? "a longer one" : dr_body_found(v, room, sizeof room));
    char *copy = strdup(json_string_value(v));
    if (!copy) return dr_fail(DR_EFULL, "no memory for stop strings");
    p->stop[p->n_stop++] = copy;
    return dr_ok();
}

static dr_status read_stop(struct dr_params *p, const struct dr_kit *kit, const struct dr_body *b) {
    const json_t *ids = json_object_get(b->object, "stop_token_ids");
    if (ids && !json_is_null(ids) && !(json_is_array(ids) && json_array_size(ids) == 0))
        DR_TRY(dr_body_ids(b, "stop_token_ids", ids, (uint32_t)kit->config.vocab,
                           DR_STOP_IDS_MAX - DR_END_IDS_MAX, &p->stop_ids));
    const json_t *stop = json_object_get(b->object, "stop");
    if (!stop || json_is_null(stop)) return dr_ok();
    if (!json_is_array(stop)) return add_stop(p, b, stop);
    if (json_array_size(stop) > DR_STOP_STRINGS_MAX)
        return dr_problem_bad(b->why, "stop", "stop: expected at most %d strings, found %zu",
                              DR_STOP_STRINGS_MAX, json_array_size(stop));
    for (size_t i = 0; i < json_array_size(stop); i++) DR_TRY(add_stop(p, b, json_array_get(stop, i)));
    return dr_ok();
}

static dr_status read_stream(struct dr_params *p, const struct dr_body *b) {
    DR_TRY(dr_body_bool(b, "stream", &p->stream));
    json_t *options = json_object_get(b->object, "stream_options");
    if (!options || json_is_null(options)) return dr_ok();
    char room[40];
    if (!json_is_object(options))
        return dr_problem_bad(b->why, "stream_options", "stream_options: expected an object, found %s",
                              dr_body_found(options, room, sizeof room));
    if (!p->stream)
        return dr_problem_bad(b->why, "stream_options", "stream_options: only allowed with \"stream\": true");
    const struct dr_body inner = {.object = options, .prefix = "stream_options.", .why = b->why};
    bool obfuscation = false; /* padding against traffic analysis: accepted, none is sent */
    DR_TRY(dr_body_bool(&inner, "include_obfuscation", &obfuscation));
    DR_TRY(dr_body_bool(&inner, "continuous_usage_stats", &p->continuous_usage));
    return dr_body_bool(&inner, "include_usage", &p->include_usage);
}

static dr_status read_format(const struct dr_body *b) {
    const json_t *format = json_object_get(b->object, "response_format");
    if (format && !json_is_null(format)) {
        const char *type = json_string_value(json_object_get(format, "type"));
        if (!type || strcmp(type, "text") != 0)
            return dr_problem_bad(b->why, "response_format",
                                  "response_format: only {\"type\":\"text\"} is supported");
    }
    const json_t *kinds = json_object_get(b->object, "modalities");
    if (kinds && !json_is_null(kinds)) {
        const char *kind = json_string_value(json_array_get(kinds, 0));
        if (json_array_size(kinds) != 1 || !kind || strcmp(kind, "text") != 0)
            return dr_problem_bad(b->why, "modalities", "modalities: only [\"text\"] is supported");
    }
    return dr_ok();
}

static dr_status read_salt(struct dr_params *p, const struct dr_body *b) {
    const char *salt = NULL;
    DR_TRY(dr_body_text(b, "cache_salt", DR_SALT_MAX, &salt));
    if (!salt) return dr_ok();
    if (strpbrk(salt, "@/\\"))
        return dr_problem_bad(b->why, "cache_salt", "cache_salt: expected a string without @, / and \\");
    snprintf(p->salt, sizeof p->salt, "%s", salt);
    return dr_ok();
}

dr_status dr_params_read(struct dr_params *p, const struct dr_kit *kit, const struct dr_body *b) {
    DR_TRY(dr_params_model(kit, b));
    DR_TRY(read_stream(p, b));
    DR_TRY(dr_body_int32(b, "n", 1, DR_CHOICES_MAX, &p->n));
    DR_TRY(dr_body_int32(b, "max_tokens", 0, INT32_MAX, &p->max_tokens));
    DR_TRY(dr_body_int32(b, "min_tokens", 0, INT32_MAX, &p->min_tokens));
    DR_TRY(read_sampling(p, b));
    DR_TRY(read_bias(p, kit, b));
    DR_TRY(read_stop(p, kit, b));
    DR_TRY(dr_body_bool(b, "ignore_eos", &p->ignore_eos));
    DR_TRY(dr_body_bool(b, "include_stop_str_in_output", &p->include_stop));
    DR_TRY(dr_body_bool(b, "skip_special_tokens", &p->skip_special));
    DR_TRY(dr_body_int32(b, "prompt_logprobs", 0, DR_TOP_MAX, &p->prompt_top));
    if (p->stream && p->prompt_top >= 0)
        return dr_problem_bad(b->why, "prompt_logprobs",
                              "prompt_logprobs: not available with \"stream\": true");
    DR_TRY(dr_body_bool(b, "return_token_ids", &p->return_ids));
    DR_TRY(dr_body_bool(b, "return_tokens_as_token_ids", &p->ids_as_tokens));
    DR_TRY(dr_body_int32(b, "priority", INT32_MIN, INT32_MAX, &p->priority));
    DR_TRY(read_salt(p, b));
    return read_format(b);
}

dr_status dr_params_fit(const struct dr_kit *kit, size_t n_ids, const char *param, struct dr_problem *why) {
    const struct dr_problem_kind kind = {
        .status = 400, .type = "invalid_request_error", .code = "context_length_exceeded"};
    if (n_ids < (size_t)kit->context) return dr_ok();
    return dr_problem_fail(why, kind, param,
                           "%s: the prompt has %zu tokens; this model's context holds %d, one of them new",
                           param, n_ids, kit->context);
}
