/* metrics.c - counters, histograms and their text.
 * In:   events.      Out: a page for Prometheus.
 * Owns: struct dr_metrics behind one mutex; an event is a few additions under it.
 * Why:  see metrics.h. */
#include "gateway/api/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* vLLM's buckets, seconds; each list ends in 0 */
static const double FIRST_S[] = {.001, .005, .01, .02, .04, .06, .08, .1,  .25, .5,   .75, 1,
                                 2.5,  5,    7.5, 10,  20,  40,  80,  160, 640, 2560, 0};
static const double GAP_S[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                               .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80, 0};
static const double LATENCY_S[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,   20,
                                   30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680, 0};
static const double TOKENS[] = {1,   2,   5,   10,  20,  50,  100, 200, 500, 1e3,
                                2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 0};
static const double CHOICES[] = {1, 2, 5, 10, 0};

enum { BUCKETS_MAX = 24, STATUS_MAX = 32 };

/* id, name, help, bounds */
#define HISTOGRAMS(X)                                                                                        \
    X(TTFT, "vllm:time_to_first_token_seconds", "Time from the request to its first token.", FIRST_S)        \
    X(ITL, "vllm:inter_token_latency_seconds", "Time between two tokens of a sequence.", GAP_S)              \
    X(TPOT, "vllm:request_time_per_output_token_seconds", "Mean time a token after the first, by sequence.", \
      GAP_S)                                                                                                 \
    X(E2E, "vllm:e2e_request_latency_seconds", "Time from the request to its end.", LATENCY_S)               \
    X(QUEUE, "vllm:request_queue_time_seconds", "Time before the first plan.", LATENCY_S)                    \
    X(PREFILL, "vllm:request_prefill_time_seconds", "First plan to first token.", LATENCY_S)                 \
    X(DECODE, "vllm:request_decode_time_seconds", "First token to last token.", LATENCY_S)                   \
    X(INFERENCE, "vllm:request_inference_time_seconds", "First plan to last token.", LATENCY_S)              \
    X(PROMPT, "vllm:request_prompt_tokens", "Prompt tokens of a sequence.", TOKENS)                          \
    X(OUTPUT, "vllm:request_generation_tokens", "New tokens of a sequence.", TOKENS)                         \
    X(MAX_TOKENS, "vllm:request_params_max_tokens", "New tokens that a sequence may have.", TOKENS)          \
    X(N, "vllm:request_params_n", "Choices a request asks for.", CHOICES)

#define DR_X_(id, name, help, bounds) H_##id,
enum histogram_id { HISTOGRAMS(DR_X_) H_COUNT };
#undef DR_X_

static const struct {
    const char *name, *help;
    const double *bound;
} histograms[H_COUNT] = {
#define DR_X_(id, n, h, b) [H_##id] = {.name = (n), .help = (h), .bound = (b)},
    HISTOGRAMS(DR_X_)
#undef DR_X_
};

static const char *const finish_names[DR_METRICS_FINISH_COUNT] = {"stop", "length", "abort", "error"};
static const char *const state_names[] = {"starting", "ready",   "relaunching",
                                          "draining", "latched", "stopped"};
static const char *const bytes_names[DR_BYTES_KIND_COUNT] = {"allreduce", "exchange", "gather", "boundary",
                                                             "sampler"};

struct dr_metrics {
    pthread_mutex_t lock; /* everything below; no other lock is taken under it */
    struct {
        uint64_t bucket[BUCKETS_MAX]; /* not cumulative; the last one holds what is above all bounds */
        double sum;
    } histogram[H_COUNT];
    uint64_t finish[DR_METRICS_FINISH_COUNT];
    uint64_t lost, refused_full, refused_down;
    uint64_t prompt_tokens, output_tokens, cached_tokens;
    uint64_t drafted[DR_DRAFTS_MAX], accepted[DR_DRAFTS_MAX]; /* by place */
    struct {
        int status;
        uint64_t n;
    } response[STATUS_MAX];
    int n_response;
};

dr_status dr_metrics_create(struct dr_metrics **out) {
    struct dr_metrics *m = calloc(1, sizeof *m);
    if (!m) return dr_fail(DR_EFULL, "no memory for metrics");
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return dr_ok();
}

void dr_metrics_destroy(struct dr_metrics *m) {
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void observe(struct dr_metrics *m, enum histogram_id id, double value) {
    const double *bound = histograms[id].bound;
    int i = 0;
    while (bound[i] > 0 && value > bound[i]) i++;
    m->histogram[id].bucket[i]++;
    m->histogram[id].sum += value;
}

static double seconds(uint64_t ns) {
    return (double)ns * 1e-9;
}

void dr_metrics_first(struct dr_metrics *m, uint64_t ns) {
    pthread_mutex_lock(&m->lock);
    observe(m, H_TTFT, seconds(ns));
    pthread_mutex_unlock(&m->lock);
}

void dr_metrics_gap(struct dr_metrics *m, uint64_t ns) {
    pthread_mutex_lock(&m->lock);
    observe(m, H_ITL, seconds(ns));
    pthread_mutex_unlock(&m->lock);
}

void dr_metrics_sequence(struct dr_metrics *m, const struct dr_metrics_end *e) {
    pthread_mutex_lock(&m->lock);
    m->finish[e->finish]++;
    m->lost += e->lost;
    m->prompt_tokens += (uint64_t)e->n_prompt;
    m->output_tokens += (uint64_t)e->n_output;
    m->cached_tokens += (uint64_t)e->done.n_cached;
    for (int i = 0; i < DR_DRAFTS_MAX; i++) {
        m->drafted[i] += (uint64_t)e->done.drafted[i];
        m->accepted[i] += (uint64_t)e->done.accepted[i];
    }
    observe(m, H_E2E, seconds(e->total_ns));
    observe(m, H_PROMPT, e->n_prompt);
    observe(m, H_OUTPUT, e->n_output);
    observe(m, H_MAX_TOKENS, e->max_tokens);
    if (e->first_ns) { /* times of what never ran would only blur the others */
        observe(m, H_QUEUE, seconds(e->done.queue_ns));
        observe(m, H_PREFILL, seconds(e->done.prefill_ns));
        observe(m, H_DECODE, seconds(e->done.decode_ns));
        observe(m, H_INFERENCE, seconds(e->done.prefill_ns + e->done.decode_ns));
        if (e->n_output > 1) observe(m, H_TPOT, seconds(e->total_ns - e->first_ns) / (e->n_output - 1));
    }
    pthread_mutex_unlock(&m->lock);
}

void dr_metrics_request(struct dr_metrics *m, int32_t n) {
    pthread_mutex_lock(&m->lock);
    observe(m, H_N, n);
    pthread_mutex_unlock(&m->lock);
}

void dr_metrics_refused(struct dr_metrics *m, bool full) {
    pthread_mutex_lock(&m->lock);
    if (full)
        m->refused_full++;
    else
        m->refused_down++;
    pthread_mutex_unlock(&m->lock);
}

void dr_metrics_response(struct dr_metrics *m, int status) {
    pthread_mutex_lock(&m->lock);
    int i = 0;
    while (i < m->n_response && m->response[i].status != status) i++;
    if (i == m->n_response && i < STATUS_MAX) m->response[m->n_response++].status = status;
    if (i < STATUS_MAX) m->response[i].n++;
    pthread_mutex_unlock(&m->lock);
}

/* ---- the page ---- */

struct page {
    struct dr_json_out *out;
    struct dr_json_out label; /* model_name="...",engine="0" */
};

/* A label's value between quotes: backslash, quote and line feed are escaped, as the format wants. */
static void quote_label(struct dr_json_out *o, const char *text) {
    for (; *text; text++) {
        if (*text == '\n')
            dr_json_raw(o, "\\n");
        else {
            if (*text == '"' || *text == '\\') dr_json_raw(o, "\\");
            dr_json_bytes(o, text, 1);
        }
    }
}

static void head(struct page *p, const char *name, const char *type, const char *help) {
    dr_json_format(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* One sample; more: further labels without a comma in front, or "" */
static void sample(struct page *p, const char *name, const char *more, double value) {
    dr_json_format(p->out, "%s{", name);
    dr_json_bytes(p->out, p->label.text.at, p->label.text.n);
    dr_json_format(p->out, "%s%s} %.17g\n", *more ? "," : "", more, value);
}

static void single(struct page *p, const char *name, const char *type, const char *help, double value) {
    head(p, name, type, help);
    sample(p, name, "", value);
}

static void write_histogram(struct page *p, const struct dr_metrics *m, int id) {
    char name[96], le[32];
    const double *bound = histograms[id].bound;
    head(p, histograms[id].name, "histogram", histograms[id].help);
    snprintf(name, sizeof name, "%s_bucket", histograms[id].name);
    uint64_t below = 0;
    for (int i = 0;; i++) {
        below += m->histogram[id].bucket[i];
        if (bound[i] > 0)
            snprintf(le, sizeof le, "le=\"%g\"", bound[i]);
        else
            snprintf(le, sizeof le, "le=\"+Inf\"");
        sample(p, name, le, (double)below);
        if (!(bound[i] > 0)) break;
    }
    snprintf(name, sizeof name, "%s_sum", histograms[id].name);
    sample(p, name, "", m->histogram[id].sum);
    snprintf(name, sizeof name, "%s_count", histograms[id].name);
    sample(p, name, "", (double)below);
}

/* Each verification has a first draft, so the first place counts verifications. */
static void write_drafts(struct page *p, const struct dr_metrics *m) {
    char more[32];
    uint64_t drafted = 0, accepted = 0;
    for (int i = 0; i < DR_DRAFTS_MAX; i++) {
        drafted += m->drafted[i];
        accepted += m->accepted[i];
    }
    single(p, "vllm:spec_decode_num_drafts_total", "counter", "Verifications of one or more drafts.",
           (double)m->drafted[0]);
    single(p, "vllm:spec_decode_num_draft_tokens_total", "counter", "Drafts verified.", (double)drafted);
    single(p, "vllm:spec_decode_num_accepted_tokens_total", "counter", "Drafts that came true.",
           (double)accepted);
    head(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
         "Drafts that came true, by place after a token.");
    for (int i = 0; i < DR_DRAFTS_MAX; i++) {
        snprintf(more, sizeof more, "position=\"%d\"", i);
        sample(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", more, (double)m->accepted[i]);
    }
}

static void write_counters(struct page *p, const struct dr_metrics *m) {
    char more[64];
    head(p, "vllm:request_success_total", "counter", "Sequences that ended, by reason.");
    for (int i = 0; i < DR_METRICS_FINISH_COUNT; i++) {
        snprintf(more, sizeof more, "finished_reason=\"%s\"", finish_names[i]);
        sample(p, "vllm:request_success_total", more, (double)m->finish[i]);
    }
    single(p, "vllm:prompt_tokens_total", "counter", "Prompt tokens of ended sequences.",
           (double)m->prompt_tokens);
    single(p, "vllm:generation_tokens_total", "counter", "New tokens of ended sequences.",
           (double)m->output_tokens);
    single(p, "vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.",
           (double)m->prompt_tokens);
    single(p, "vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.",
           (double)m->cached_tokens);
    write_drafts(p, m);
    head(p, "vllm:admission_rejections_total", "counter", "Requests that never started, by reason.");
    sample(p, "vllm:admission_rejections_total", "reason=\"queue_full\"", (double)m->refused_full);
    sample(p, "vllm:admission_rejections_total", "reason=\"not_ready\"", (double)m->refused_down);
    single(p, "deeprack_requests_cancelled_total", "counter", "Sequences whose client went away.",
           (double)m->finish[DR_METRICS_ABORT]);
    single(p, "deeprack_requests_lost_total", "counter", "Sequences that died with an epoch.",
           (double)m->lost);
    head(p, "deeprack_http_responses_total", "counter", "HTTP responses by status.");
    for (int i = 0; i < m->n_response; i++) {
        snprintf(more, sizeof more, "status=\"%d\"", m->response[i].status);
        sample(p, "deeprack_http_responses_total", more, (double)m->response[i].n);
    }
}

static void write_engine(struct page *p, const struct dr_engine_facts *f) {
    const struct dr_stats *s = &f->stats;
    char more[160];
    single(p, "vllm:num_requests_running", "gauge", "Sequences in the running batch.", s->running);
    single(p, "vllm:num_requests_waiting", "gauge", "Sequences in the queue.", s->waiting);
    single(p, "vllm:kv_cache_usage_perc", "gauge", "Used share of the cache pages, 0 to 1.",
           s->pages_total ? (double)s->pages_used / s->pages_total : 0);
    single(p, "vllm:num_preemptions_total", "counter", "Preempted sequences of this epoch.",
           (double)s->preempted);
    single(p, "deeprack_requests_open", "gauge", "Sequences the gateway waits for.", f->open_requests);
    single(p, "deeprack_relaunches_total", "counter", "Epochs started after the first.", f->relaunches);
    head(p, "deeprack_state", "gauge", "1 for the state the cluster is in.");
    for (int i = 0; i <= DR_ENGINE_STOPPED; i++) {
        snprintf(more, sizeof more, "state=\"%s\"", state_names[i]);
        sample(p, "deeprack_state", more, f->state == (enum dr_engine_state)i);
    }
    single(p, "deeprack_steps_total", "counter", "Steps of this epoch.", (double)s->steps);
    single(p, "deeprack_last_step_seconds", "gauge", "Time of the last step.", seconds(s->last_step_ns));
    single(p, "deeprack_last_step_age_seconds", "gauge", "Time since the last step ended.",
           seconds(s->last_step_age_ns));
    single(p, "deeprack_step_wait_seconds_total", "counter",
           "Time that ranks waited in collectives, this epoch.", seconds(s->step_wait_ns));
    single(p, "deeprack_heartbeat_age_seconds", "gauge", "Time since the coordinator was heard.",
           seconds(f->rank_beat_age_ns));
    single(p, "deeprack_pages_used", "gauge", "Cache pages of running requests.", s->pages_used);
    single(p, "deeprack_pages_idle", "gauge", "Cache pages kept for prompts that begin alike.",
           s->pages_idle);
    single(p, "deeprack_prompt_tokens_computed_total", "counter", "Prompt rows computed, this epoch.",
           (double)s->prompt_tokens);
    single(p, "deeprack_pages", "gauge", "Cache pages.", s->pages_total);
    single(p, "deeprack_waiting_tokens", "gauge", "Prompt tokens in the queue.", s->waiting_tokens);
    head(p, "deeprack_collective_bytes_total", "counter", "Bytes of collectives by kind, this epoch.");
    for (int i = 0; i < DR_BYTES_KIND_COUNT; i++) {
        snprintf(more, sizeof more, "kind=\"%s\"", bytes_names[i]);
        sample(p, "deeprack_collective_bytes_total", more, (double)s->bytes[i]);
    }
    head(p, "deeprack_rank_memory_bytes", "gauge", "Memory of a rank by use.");
    for (int32_t i = 0; i < f->n_rank && i < DR_RANKS_MAX; i++) {
        const struct dr_rank_state *r = &f->rank[i];
        const char *const kinds[] = {"weights", "cache", "workspace", "resident"};
        const uint64_t bytes[] = {r->weights_bytes, r->cache_bytes, r->workspace_bytes, r->resident_bytes};
        for (int k = 0; k < 4; k++) {
            snprintf(more, sizeof more, "rank=\"%d\",kind=\"%s\"", r->rank, kinds[k]);
            sample(p, "deeprack_rank_memory_bytes", more, (double)bytes[k]);
        }
    }
    head(p, "deeprack_info", "gauge", "1; version and layout as labels.");
    snprintf(more, sizeof more, "version=\"%s\",tp=\"%d\",pp=\"%d\",cache_width=\"%d\",epoch=\"%016llx\"",
             DR_VERSION, f->layout.tp, f->layout.pp, f->layout.c, (unsigned long long)f->epoch);
    sample(p, "deeprack_info", more, 1);
}

void dr_metrics_write(struct dr_metrics *m, const struct dr_kit *kit, const struct dr_engine_facts *facts,
                      struct dr_json_out *out) {
    struct page page = {.out = out};
    dr_json_raw(&page.label, "model_name=\"");
    quote_label(&page.label, kit->name);
    dr_json_raw(&page.label, "\",engine=\"0\"");
    pthread_mutex_lock(&m->lock);
    write_counters(&page, m);
    for (int i = 0; i < H_COUNT; i++) write_histogram(&page, m, i);
    pthread_mutex_unlock(&m->lock);
    if (facts) write_engine(&page, facts);
    if (page.label.failed) out->failed = true;
    dr_json_out_fini(&page.label);
}
