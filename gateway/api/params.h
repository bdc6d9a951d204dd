/* params.h - what chat and completions have in common: how to draw, when to stop, what to send.
 * In:   a body's fields.      Out: struct dr_params, every value inside its range.
 * Owns: biases, stop ids and stop strings until _fini.
 * Why:  the two endpoints must not differ in what a field means. */
#pragma once

#include "gateway/api/body.h"
#include "gateway/api/generation.h"
#include "gateway/text/stop.h"

struct dr_params {
    bool stream, include_usage, continuous_usage;
    int32_t n;          /* choices a prompt */
    int32_t max_tokens; /* -1: as many as the context holds */
    int32_t min_tokens;
    bool ignore_eos, include_stop, skip_special;
    struct dr_sampling sampling; /* seed: the request's, or one from the system; n_top set */
    struct dr_bias *bias;        /* owned */
    int32_t n_bias;
    struct dr_ids stop_ids;          /* owned */
    char *stop[DR_STOP_STRINGS_MAX]; /* owned */
    int32_t n_stop;
    int32_t prompt_top; /* prompt_logprobs; -1: none */
    int32_t priority;
    char salt[DR_SALT_MAX + 1];   /* cache_salt; once the key is known, what stands for both */
    char tenant[DR_SALT_MAX + 1]; /* what stands for the key; "": none is asked for */
    bool return_ids, ids_as_tokens;
};

#ifdef __cplusplus
extern "C" {
#endif

/* The defaults of a request that leaves everything out. */
void dr_params_init(struct dr_params *p, const struct dr_kit *kit);

/* Reads all common fields, logprobs apart (chat and completions spell it differently). p: as _init left it.
 * Fails: EREQUEST (404 for another model's name, else 400), EFULL; _fini is legal then. */
DR_FALLIBLE dr_params_read(struct dr_params *p, const struct dr_kit *kit, const struct dr_body *b);
void dr_params_fini(struct dr_params *p);

/* `model`, if given, is the served name. Fails: 404. */
DR_FALLIBLE dr_params_model(const struct dr_kit *kit, const struct dr_body *b);

/* A prompt of n_ids fits the context with one new token at least. Fails: 400 with limit and count. */
DR_FALLIBLE dr_params_fit(const struct dr_kit *kit, size_t n_ids, const char *param, struct dr_problem *why);

#ifdef __cplusplus
}
#endif
