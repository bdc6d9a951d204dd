/* metrics.h - what Prometheus is told.
 * In:   events of requests, facts of the engine.      Out: the text exposition format.
 * Owns: counters and histograms.
 * Why:  names and buckets are vLLM's where they mean the same, so dashboards port; the rest is deeprack_. */
#pragma once

#include "gateway/api/json_out.h"
#include "gateway/api/kit.h"
#include "gateway/cluster/engine.h"

enum dr_metrics_finish { /* label finished_reason */
                         DR_METRICS_STOP,
                         DR_METRICS_LENGTH,
                         DR_METRICS_ABORT, /* the client went away, or the server stopped */
                         DR_METRICS_ERROR,
                         DR_METRICS_FINISH_COUNT
};

struct dr_metrics;

struct dr_metrics_end { /* one sequence */
    enum dr_metrics_finish finish;
    bool lost; /* the epoch died under it */
    struct dr_done done;
    int32_t n_prompt, n_output;  /* as the client counts them */
    int32_t max_tokens;          /* granted */
    uint64_t total_ns, first_ns; /* from the request to the end, to the first token (0: none came) */
};

#ifdef __cplusplus
extern "C" {
#endif

DR_FALLIBLE dr_metrics_create(struct dr_metrics **out);
void dr_metrics_destroy(struct dr_metrics *m);

/* Any thread. */
void dr_metrics_first(struct dr_metrics *m, uint64_t ns); /* time to first token */
void dr_metrics_gap(struct dr_metrics *m, uint64_t ns);   /* between two tokens */
void dr_metrics_sequence(struct dr_metrics *m, const struct dr_metrics_end *end);
void dr_metrics_request(struct dr_metrics *m, int32_t n);   /* an accepted body with n choices a prompt */
void dr_metrics_refused(struct dr_metrics *m, bool full);   /* by the queue (full) or for want of a cluster */
void dr_metrics_response(struct dr_metrics *m, int status); /* an HTTP response has begun */

/* The whole page. facts may be NULL: the engine's lines are left out. */
void dr_metrics_write(struct dr_metrics *m, const struct dr_kit *kit, const struct dr_engine_facts *facts,
                      struct dr_json_out *out);

#ifdef __cplusplus
}
#endif
