/* codec_sampling.c - sampling settings and the pairs (id, number) that several messages hold.
 * In:   plain structs or generated ones.      Out: the other.
 * Owns: nothing; arrays live in the given arena.
 * Why:  Open and Submit must not differ in what they accept. Pairs travel as two packed arrays: an embedded
 * message a pair would cost a hundred bytes of arena for four bytes of wire. */
#include "proto/codec_wire.h"
#include "v1/common.pb-c.h"

static const struct dr_wire_rule sampling_at[] = {
    [1] = {.least = 0, .most = 100},          /* temperature */
    [2] = {.least = 0, .most = 1},            /* top_p */
    [3] = {.least = 0, .most = 1},            /* min_p */
    [4] = {.least = 0, .most = DR_VOCAB_MAX}, /* top_k */
    [5] = {.least = 0, .most = 100},          /* repetition; 0 is refused below */
    [6] = {.least = -100, .most = 100},       /* frequency */
    [7] = {.least = -100, .most = 100},       /* presence */
    [8] = DR_RULE_ANY,                        /* seed */
    [9] = {.least = -1, .most = DR_TOP_MAX},  /* n_top */
};
const struct dr_wire_rules dr_wire_sampling_rules = DR_WIRE_RULES(sampling_at);

static dr_status repetition(float v) {
    if (v > 0) return dr_ok();
    return dr_fail(DR_EPROTO, "Sampling.repetition: found %g, expected more than 0", (double)v);
}

dr_status dr_wire_sampling_put(const struct dr_sampling *in, struct Dr__V1__Sampling *out) {
    DR_TRY(repetition(in->repetition));
    dr__v1__sampling__init(out);
    dr_wire_present(&out->base);
    out->temperature = in->temperature;
    out->top_p = in->top_p;
    out->min_p = in->min_p;
    out->top_k = in->top_k;
    out->repetition = in->repetition;
    out->frequency = in->frequency;
    out->presence = in->presence;
    out->seed = in->seed;
    out->n_top = in->n_top;
    return dr_ok();
}

dr_status dr_wire_sampling_get(const struct Dr__V1__Sampling *in, struct dr_sampling *out) {
    DR_TRY(repetition(in->repetition));
    *out = (struct dr_sampling){
        .temperature = in->temperature,
        .top_p = in->top_p,
        .min_p = in->min_p,
        .top_k = in->top_k,
        .repetition = in->repetition,
        .frequency = in->frequency,
        .presence = in->presence,
        .seed = in->seed,
        .n_top = in->n_top,
    };
    return dr_ok();
}

dr_status dr_wire_bias_put(const struct dr_bias *in, int32_t n, struct dr_arena *scratch, uint32_t **id,
                           float **value) {
    void *ids = NULL, *values = NULL;
    DR_TRY(dr_wire_take(scratch, (size_t)n, sizeof(uint32_t), DR_EFULL, "bias_id", &ids));
    DR_TRY(dr_wire_take(scratch, (size_t)n, sizeof(float), DR_EFULL, "bias_value", &values));
    *id = ids;
    *value = values;
    for (int32_t i = 0; i < n; i++) {
        (*id)[i] = in[i].id;
        (*value)[i] = in[i].value;
    }
    return dr_ok();
}

dr_status dr_wire_bias_get(const char *message, const uint32_t *id, size_t n_id, const float *value,
                           size_t n_value, struct dr_arena *arena, const struct dr_bias **out, int32_t *n) {
    void *pairs = NULL;
    DR_TRY(dr_wire_same(message, "bias_value", n_value, n_id));
    DR_TRY(dr_wire_take(arena, n_id, sizeof(struct dr_bias), DR_EPROTO, message, &pairs));
    struct dr_bias *to = pairs;
    for (size_t i = 0; i < n_id; i++) to[i] = (struct dr_bias){.id = id[i], .value = value[i]};
    *out = to;
    *n = (int32_t)n_id;
    return dr_ok();
}

dr_status dr_wire_top_put(const struct dr_top *in, size_t n, struct dr_arena *scratch, uint32_t **id,
                          float **logprob) {
    void *ids = NULL, *values = NULL;
    DR_TRY(dr_wire_take(scratch, n, sizeof(uint32_t), DR_EFULL, "top_id", &ids));
    DR_TRY(dr_wire_take(scratch, n, sizeof(float), DR_EFULL, "top_logprob", &values));
    *id = ids;
    *logprob = values;
    for (size_t i = 0; i < n; i++) {
        (*id)[i] = in[i].id;
        (*logprob)[i] = in[i].logprob;
    }
    return dr_ok();
}

dr_status dr_wire_top_get(const char *message, const uint32_t *id, size_t n_id, const float *logprob,
                          size_t n_logprob, struct dr_arena *arena, const struct dr_top **out) {
    void *pairs = NULL;
    DR_TRY(dr_wire_same(message, "top_logprob", n_logprob, n_id));
    DR_TRY(dr_wire_take(arena, n_id, sizeof(struct dr_top), DR_EPROTO, message, &pairs));
    struct dr_top *to = pairs;
    for (size_t i = 0; i < n_id; i++) to[i] = (struct dr_top){.id = id[i], .logprob = logprob[i]};
    *out = to;
    return dr_ok();
}
