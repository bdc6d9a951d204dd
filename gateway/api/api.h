/* api.h - what the endpoints share.
 * In:   kit and engine.      Out: nothing by itself.
 * Owns: counters and the names of unknown fields that were logged.
 * Why:  an endpoint gets one pointer to everything it may use. */
#pragma once

#include "gateway/api/body.h"
#include "gateway/api/metrics.h"

struct dr_api {
    const struct dr_kit *kit;   /* borrowed */
    struct dr_engine *engine;   /* borrowed */
    struct dr_metrics *metrics; /* owned */
    struct dr_body_names names;
    int64_t started_s; /* wall clock: `created` of the model */
};

struct dr_reply { /* a complete answer that is not a stream; the zero object is empty */
    int status;
    const char *type;        /* Content-Type, static; NULL: no body */
    struct dr_json_out body; /* owned */
    uint32_t retry_s;        /* Retry-After; 0: none */
};

#ifdef __cplusplus
extern "C" {
#endif

DR_FALLIBLE dr_api_init(struct dr_api *api, const struct dr_kit *kit, struct dr_engine *engine);
void dr_api_fini(struct dr_api *api);

void dr_reply_problem(struct dr_reply *r, const struct dr_problem *p);
void dr_reply_fini(struct dr_reply *r);

/* Endpoints that answer at once. draining: of this server; they never block. */
void dr_api_models(struct dr_api *api, bool draining, struct dr_reply *r);
void dr_api_model(struct dr_api *api, bool draining, const char *id, struct dr_reply *r);
void dr_api_version(struct dr_api *api, struct dr_reply *r);
void dr_api_reset_prefix(struct dr_api *api, struct dr_reply *r);
void dr_api_health(struct dr_api *api, bool draining, struct dr_reply *r);
void dr_api_ready(struct dr_api *api, bool draining, struct dr_reply *r);
void dr_api_progress(struct dr_api *api, bool draining, struct dr_reply *r);
void dr_api_metrics(struct dr_api *api, struct dr_reply *r);

/* True: a new request would be refused for want of room, and *why says so. Never blocks: what is sure to be
 * refused costs neither a tokenizer nor a way to the coordinator and back. */
bool dr_api_full(struct dr_api *api, struct dr_problem *why);

/* Endpoints that tokenize: on a worker. */
void dr_api_tokenize(struct dr_api *api, const char *body, size_t n, struct dr_reply *r);
void dr_api_detokenize(struct dr_api *api, const char *body, size_t n, struct dr_reply *r);

#ifdef __cplusplus
}
#endif
