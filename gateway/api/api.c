/* api.c - endpoints that answer at once, and what all share.
 * In:   kit and engine.      Out: replies.
 * Owns: metrics.
 * Why:  see api.h. Fields and their meaning are in README.md. */
#include "gateway/api/api.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

static const char JSON_TYPE[] = "application/json";

dr_status dr_api_init(struct dr_api *api, const struct dr_kit *kit, struct dr_engine *engine) {
    *api = (struct dr_api){.kit = kit, .engine = engine, .started_s = dr_clock_wall_s()};
    DR_TRY(dr_metrics_create(&api->metrics));
    pthread_mutex_init(&api->names.lock, NULL);
    return dr_ok();
}

void dr_api_fini(struct dr_api *api) {
    if (!api->metrics) return;
    dr_metrics_destroy(api->metrics);
    pthread_mutex_destroy(&api->names.lock);
    api->metrics = NULL;
}

void dr_reply_problem(struct dr_reply *r, const struct dr_problem *p) {
    r->status = p->status;
    r->type = JSON_TYPE;
    r->retry_s = p->retry_s;
    dr_text_reset(&r->body.text);
    dr_problem_write(p, &r->body);
}

void dr_reply_fini(struct dr_reply *r) {
    dr_json_out_fini(&r->body);
    *r = (struct dr_reply){0};
}

bool dr_api_full(struct dr_api *api, struct dr_problem *why) {
    struct dr_refused refused;
    if (!dr_engine_full(api->engine, &refused)) return false;
    dr_metrics_refused(api->metrics, true);
    dr_ignore(dr_problem_full(why, refused.retry_ms, refused.text), "kept in *why");
    return true;
}

/* ---- state ---- */

static const char *state_word(const struct dr_engine_facts *f, bool draining) {
    static const char *const words[] = {
        [DR_ENGINE_STARTING] = "starting",       [DR_ENGINE_READY] = "ok",
        [DR_ENGINE_RELAUNCHING] = "relaunching", [DR_ENGINE_DRAINING] = "draining",
        [DR_ENGINE_LATCHED] = "latched",         [DR_ENGINE_STOPPED] = "stopped"};
    return draining ? "draining" : words[f->state];
}

/* The snapshot is about 150 KiB: too much for the stack of a thread. NULL: no memory, told in r. */
static struct dr_engine_facts *take_facts(struct dr_api *api, struct dr_reply *r) {
    struct dr_engine_facts *f = malloc(sizeof *f);
    if (f)
        dr_engine_facts(api->engine, f);
    else {
        struct dr_problem p = {0};
        dr_ignore(dr_problem_from(&p, dr_fail(DR_EFULL, "no memory for facts"), NULL), "sent to the client");
        dr_reply_problem(r, &p);
    }
    return f;
}

static void set_ready(struct dr_reply *r, const struct dr_engine_facts *f, bool draining) {
    bool ready = f->state == DR_ENGINE_READY && !draining;
    r->status = ready ? 200 : 503;
    r->retry_s = ready ? 0 : 2;
}

void dr_api_health(struct dr_api *api, bool draining, struct dr_reply *r) {
    struct dr_engine_facts *f = take_facts(api, r);
    if (f) set_ready(r, f, draining);
    free(f);
}

void dr_api_ready(struct dr_api *api, bool draining, struct dr_reply *r) {
    struct dr_engine_facts *f = take_facts(api, r);
    if (!f) return;
    struct dr_json_out *o = &r->body;
    set_ready(r, f, draining);
    r->type = JSON_TYPE;
    dr_json_format(o, "{\"ready\":%s,\"state\":\"%s\",\"reason\":", r->status == 200 ? "true" : "false",
                   state_word(f, draining));
    if (f->reason[0] && r->status != 200)
        dr_json_quote(o, f->reason, strlen(f->reason));
    else
        dr_json_raw(o, "null");
    dr_json_format(
        o, ",\"epoch\":\"%016llx\",\"relaunches\":%u,\"layout\":{\"tp\":%d,\"pp\":%d,\"c\":%d},\"ranks\":[",
        (unsigned long long)f->epoch, f->relaunches, f->layout.tp, f->layout.pp, f->layout.c);
    for (int32_t i = 0; i < f->n_rank && i < DR_RANKS_MAX; i++) {
        const struct dr_rank_state *k = &f->rank[i];
        dr_json_format(o, "%s{\"rank\":%d,\"host\":", i ? "," : "", k->rank);
        dr_json_quote(o, k->host, strnlen(k->host, sizeof k->host));
        dr_json_format(o, ",\"pid\":%d,\"weights_bytes\":%llu,\"cache_bytes\":%llu,\"resident_bytes\":%llu}",
                       k->pid, (unsigned long long)k->weights_bytes, (unsigned long long)k->cache_bytes,
                       (unsigned long long)k->resident_bytes);
    }
    dr_json_raw(o, "]}");
    free(f);
}

/* Stalled: something runs, and no step has ended for 10 s. */
static const uint64_t STALL_NS = 10000000000u;

void dr_api_progress(struct dr_api *api, bool draining, struct dr_reply *r) {
    struct dr_engine_facts *f = take_facts(api, r);
    if (!f) return;
    const struct dr_stats *s = &f->stats;
    const char *word = state_word(f, draining);
    if (strcmp(word, "ok") == 0 && s->running + s->waiting == 0)
        word = "idle";
    else if (strcmp(word, "ok") == 0 && s->last_step_age_ns > STALL_NS)
        word = "stalled";
    r->status = 200;
    r->type = JSON_TYPE;
    dr_json_format(&r->body,
                   "{\"state\":\"%s\",\"epoch\":\"%016llx\",\"running\":%d,\"waiting\":%d,\"steps\":%llu,"
                   "\"last_step_age_ms\":%llu,\"ranks\":%d}",
                   word, (unsigned long long)f->epoch, s->running, s->waiting, (unsigned long long)s->steps,
                   (unsigned long long)(s->last_step_age_ns / 1000000u), f->n_rank);
    free(f);
}

void dr_api_metrics(struct dr_api *api, struct dr_reply *r) {
    struct dr_engine_facts *f = take_facts(api, r);
    if (!f) return;
    r->status = 200;
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    dr_metrics_write(api->metrics, api->kit, f, &r->body);
    free(f);
}

/* ---- models ---- */

/* Probes of other servers ask for the models to learn whether they are loaded. */
static bool loaded(struct dr_api *api, bool draining, struct dr_reply *r) {
    struct dr_engine_facts *f = take_facts(api, r);
    if (!f) return false;
    bool ready = (f->state == DR_ENGINE_READY || f->state == DR_ENGINE_RELAUNCHING) && !draining;
    if (!ready) {
        struct dr_problem p = {0};
        const struct dr_problem_kind kind = {
            .status = 503, .type = "server_error", .code = "not_ready", .retry_s = 2};
        dr_ignore(dr_problem_fail(&p, kind, NULL, "the model is not served now: %s", state_word(f, draining)),
                  "sent to the client");
        dr_reply_problem(r, &p);
    }
    free(f);
    return ready;
}

static void write_model(const struct dr_api *api, struct dr_json_out *o) {
    size_t n = strlen(api->kit->name);
    dr_json_raw(o, "{\"id\":");
    dr_json_quote(o, api->kit->name, n);
    dr_json_format(o, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"deeprack\",\"root\":",
                   (long long)api->started_s);
    dr_json_quote(o, api->kit->name, n);
    dr_json_format(o, ",\"parent\":null,\"max_model_len\":%d,\"permission\":[]}", api->kit->context);
}

void dr_api_models(struct dr_api *api, bool draining, struct dr_reply *r) {
    if (!loaded(api, draining, r)) return;
    r->status = 200;
    r->type = JSON_TYPE;
    dr_json_raw(&r->body, "{\"object\":\"list\",\"data\":[");
    write_model(api, &r->body);
    dr_json_raw(&r->body, "]}");
}

void dr_api_model(struct dr_api *api, bool draining, const char *id, struct dr_reply *r) {
    if (strcmp(id, api->kit->name) != 0) {
        struct dr_problem p = {0};
        const struct dr_problem_kind kind = {
            .status = 404, .type = "invalid_request_error", .code = "model_not_found"};
        dr_ignore(dr_problem_fail(&p, kind, "model", "model: this server has \"%s\" only", api->kit->name),
                  "sent to the client");
        dr_reply_problem(r, &p);
        return;
    }
    if (!loaded(api, draining, r)) return;
    r->status = 200;
    r->type = JSON_TYPE;
    write_model(api, &r->body);
}

void dr_api_reset_prefix(struct dr_api *api, struct dr_reply *r) {
    if (!loaded(api, false, r)) return;
    dr_engine_reset_prefix(api->engine);
    r->status = 200;
}

void dr_api_version(struct dr_api *api, struct dr_reply *r) {
    (void)api;
    r->status = 200;
    r->type = JSON_TYPE;
    dr_json_raw(&r->body, "{\"version\":\"" DR_VERSION "\"}");
}
