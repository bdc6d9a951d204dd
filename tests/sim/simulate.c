/* simulate.c - the coordinator's core under a trace of requests, in virtual time.
 * In:   a profile or a Mooncake trace, a model's config, a layout.      Out: a table, a picture; exit 1 when
 * a promise was broken. Owns: core, shadow, trace, picture. Why:  what serves is what is tested: queue,
 * ledger, batcher, plan and collector are the real ones; only workers are replaced, by a shadow that checks
 * every plan and a model of what steps cost.
 *
 * Time: a plan passes the stages one after the other, each as long as its share of the layers takes; a stage
 * starts when it is free and the one before is done. Nothing reads a clock, so the same arguments give the
 * same decisions. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/size.h"
#include "coordinator/core.h"
#include "coordinator/plan/pace.h"
#include "tests/sim/picture.h"
#include "tests/sim/shadow.h"
#include "tests/sim/trace.h"
#include "tests/support/config_file.h"
#include "tests/support/splitmix.h"

enum { CHECK_STEPS = 1000, IDLE_STEPS_MAX = 2000, FLIGHTS_MAX = DR_PP_MAX + 1 };
static const uint64_t RESULT_NS = 100000; /* from the last stage to the core */

struct options {
    const char *config, *trace, *picture;
    enum sim_profile profile;
    int64_t requests;
    uint64_t seed;
    double load, tokens_s;
    int32_t pp, context, seqs, step_tokens, pages, step_ms, drafts, twice;
    enum dr_reuse reuse;
};

struct record {    /* what a request has got */
    uint64_t told; /* hash of its tokens */
    int32_t n_told;
    bool accepted, ended;
};

struct flight {
    uint64_t done_ns;
    struct dr_step_result result;
    struct dr_result_row *row; /* [seqs_max] */
};

struct sim {
    const struct options *o;
    const struct sim_trace *trace;
    struct dr_config config;
    struct dr_layout layout;
    struct dr_pace pace;
    double ns_madd; /* of one stage that would do all */
    struct dr_core *core;
    struct shadow shadow;
    struct record *record;  /* [trace.n] */
    uint32_t *ids;          /* [context] */
    uint64_t *planned_step; /* [seqs_max] of each slot */
    struct flight flight[FLIGHTS_MAX];
    int32_t n_flight;
    uint64_t stage_free_ns[DR_PP_MAX];
    uint64_t now, decisions; /* hash over plans and events */
    struct picture picture;
    /* results */
    double *ttft_ms;
    int64_t n_done, n_refused;
    uint64_t n_output, n_row, n_segment, n_drafted, n_accepted, core_ns, busy_ns;
    uint64_t longest_wait_ns;
};

#define BROKEN(...) dr_fail(DR_EINTERNAL, __VA_ARGS__)

static void decide(struct sim *s, uint64_t x) {
    s->decisions = splitmix(s->decisions ^ x);
}

/* ---- what the gateway would see ---- */

/* The tokens that request i gets alone. */
static uint64_t expected(struct sim *s, int64_t i, int32_t n_output) {
    const struct sim_request *r = &s->trace->request[i];
    sim_trace_ids(s->trace, r, s->config.vocab, s->ids);
    uint64_t hash = shadow_fold(0, s->ids, r->n_prompt), told = 0;
    for (int32_t k = 0; k < n_output; k++) {
        const uint32_t id = shadow_next(hash, s->config.vocab);
        told = shadow_fold(told, &id, 1);
        hash = shadow_fold(hash, &id, 1);
    }
    return told;
}

static dr_status take_done(struct sim *s, const struct dr_done *d) {
    const int64_t i = (int64_t)d->request;
    struct record *k = &s->record[i];
    if (!k->accepted || k->ended) return BROKEN("request %lld ended, but was not open", (long long)i);
    k->ended = true;
    if (d->finish != DR_FINISH_LENGTH || d->n_output != s->trace->request[i].n_output ||
        d->n_output != k->n_told)
        return BROKEN("request %lld ended with %d tokens (%d told), expected %d", (long long)i, d->n_output,
                      k->n_told, s->trace->request[i].n_output);
    if (k->told != expected(s, i, d->n_output))
        return BROKEN("request %lld got other tokens than it gets alone", (long long)i);
    s->ttft_ms[s->n_done++] = (double)(d->queue_ns + d->prefill_ns) / 1e6;
    if (d->queue_ns > s->longest_wait_ns) s->longest_wait_ns = d->queue_ns;
    s->n_output += (uint64_t)d->n_output;
    for (int32_t j = 0; j < DR_DRAFTS_MAX; j++) {
        s->n_drafted += (uint64_t)d->drafted[j];
        s->n_accepted += (uint64_t)d->accepted[j];
    }
    return dr_ok();
}

static dr_status drain(struct sim *s) {
    struct dr_core_event e;
    dr_status st = dr_ok();
    while (dr_core_event(s->core, &e)) {
        decide(s, e.type);
        if (e.type == DR_MSG_ACCEPTED) s->record[e.request].accepted = true;
        if (e.type == DR_MSG_REFUSED) s->n_refused++;
        for (int32_t i = 0; e.type == DR_MSG_TOKENS && i < e.tokens.n; i++) {
            const struct dr_token_news *n = &e.tokens.news[i];
            struct record *k = &s->record[n->request];
            k->told = shadow_fold(k->told, n->ids, n->n);
            k->n_told += n->n;
        }
        if (e.type == DR_MSG_DONE && st.code == DR_OK) st = take_done(s, &e.done);
    }
    return st;
}

static dr_status arrive(struct sim *s, int64_t i) {
    const struct sim_request *r = &s->trace->request[i];
    sim_trace_ids(s->trace, r, s->config.vocab, s->ids);
    struct dr_submit submit = {
        .request = (uint64_t)i,
        .n_ids = r->n_prompt,
        .ids = s->ids,
        .max_tokens = r->n_output,
        .ignore_eos = true,
        .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
        .prompt_top = -1,
        .priority = r->priority,
    };
    snprintf(submit.tenant, sizeof submit.tenant, "tenant %d", r->tenant);
    const uint64_t begin = dr_clock_ns();
    dr_core_submit(s->core, s->now, &submit);
    s->core_ns += dr_clock_ns() - begin;
    return drain(s);
}

/* ---- steps ---- */

/* A request that starts goes before no older one of its tenant and priority, except one that waits for a
 * prefix. */
static dr_status check_start(const struct sim *s, const struct dr_request *r) {
    const struct dr_queue *q = &dr_core_book(s->core)->queue;
    for (int32_t i = 0; i < q->n; i++) {
        const struct dr_request *o = q->item[i];
        if (o->tenant == r->tenant && o->priority == r->priority && o->arrival < r->arrival && !o->parked &&
            !r->preempted)
            return BROKEN("request %" PRIu64 " starts before %" PRIu64 ", which is older", r->id, o->id);
    }
    return dr_ok();
}

/* Everybody who runs takes part in a step now and then. */
static dr_status check_progress(const struct sim *s, uint64_t step) {
    const struct dr_book *b = dr_core_book(s->core);
    DR_TRY(dr_book_check(b));
    for (int32_t i = 0; i < b->n_running; i++)
        if (b->running[i]->n_flight == 0 && step > s->planned_step[b->running[i]->slot] + IDLE_STEPS_MAX)
            return BROKEN("request %" PRIu64 " runs, but was in no step of the last %d", b->running[i]->id,
                          IDLE_STEPS_MAX);
    return dr_ok();
}

static double work_of(const struct sim *s, const struct dr_step_plan *plan) {
    double work = dr_pace_fixed(&s->pace);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        const struct dr_segment *g = &plan->segment[i];
        work += dr_pace_segment(&s->pace, g->form == DR_FORM_ABSORBED, g->first, g->n_rows);
    }
    return work;
}

/* When the last stage will be done with it. */
static uint64_t pass_stages(struct sim *s, double work) {
    const uint64_t each = (uint64_t)(work * s->ns_madd / s->layout.pp);
    uint64_t at = s->now;
    for (int32_t p = 0; p < s->layout.pp; p++) {
        at = (at > s->stage_free_ns[p] ? at : s->stage_free_ns[p]) + each;
        s->stage_free_ns[p] = at;
    }
    s->busy_ns += each * (uint64_t)s->layout.pp;
    return at + RESULT_NS;
}

static void note_decisions(struct sim *s, const struct dr_step_plan *plan) {
    decide(s, plan->schedule_hash);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        const struct dr_segment *g = &plan->segment[i];
        decide(s, (uint64_t)g->slot << 48 ^ (uint64_t)g->first << 20 ^ (uint64_t)g->n_rows);
        s->planned_step[g->slot] = plan->step;
        s->n_row += (uint64_t)g->n_rows;
    }
    s->n_segment += (uint64_t)plan->n_segment;
}

static void note_picture(struct sim *s, const struct dr_step_plan *plan) {
    struct dr_stats st;
    int32_t rows = 0;
    for (int32_t i = 0; i < plan->n_segment; i++) rows += plan->segment[i].n_rows;
    dr_core_stats(s->core, s->now, &st);
    const struct picture_point at = {.at_s = (double)s->now / 1e9,
                                     .waiting = st.waiting,
                                     .running = st.running,
                                     .pages_used = st.pages_used,
                                     .pages_idle = st.pages_idle,
                                     .rows = rows};
    picture_add(&s->picture, &at);
}

static dr_status plan(struct sim *s) {
    for (;;) {
        const uint64_t begin = dr_clock_ns();
        const struct dr_step_plan *p = dr_core_plan(s->core, s->now);
        s->core_ns += dr_clock_ns() - begin;
        DR_TRY(drain(s));
        if (!p) return dr_ok();
        if (s->n_flight > s->layout.pp)
            return BROKEN("%d steps under way on %d stages", s->n_flight + 1, s->layout.pp);
        for (int32_t i = 0; i < p->n_open; i++)
            DR_TRY(check_start(s, dr_core_book(s->core)->by_slot[p->open[i].slot]));
        struct flight *f = &s->flight[s->n_flight++];
        DR_TRY(shadow_step(&s->shadow, p, f->row, &f->result));
        f->done_ns = pass_stages(s, work_of(s, p));
        note_decisions(s, p);
        note_picture(s, p);
        if (p->step % CHECK_STEPS == 0) DR_TRY(check_progress(s, p->step));
    }
}

static dr_status finish_step(struct sim *s) {
    struct flight f = s->flight[0];
    const uint64_t begin = dr_clock_ns();
    DR_TRY(dr_core_result(s->core, s->now, &f.result));
    s->core_ns += dr_clock_ns() - begin;
    s->n_flight--;
    memmove(&s->flight[0], &s->flight[1], sizeof s->flight - sizeof s->flight[0]);
    s->flight[FLIGHTS_MAX - 1] = f; /* its rows are used again */
    return drain(s);
}

static dr_status run(struct sim *s) {
    for (int64_t next = 0; next < s->trace->n || s->n_flight > 0 || !dr_core_idle(s->core);) {
        const uint64_t arrival = next < s->trace->n ? s->trace->request[next].at_ns : UINT64_MAX;
        const uint64_t result = s->n_flight > 0 ? s->flight[0].done_ns : UINT64_MAX;
        if (arrival == UINT64_MAX && result == UINT64_MAX)
            return BROKEN("requests are open, but no step is under way and none is due");
        s->now = arrival < result ? arrival : result;
        DR_TRY(arrival < result ? arrive(s, next) : finish_step(s));
        next += arrival < result;
        DR_TRY(plan(s));
    }
    struct dr_stats st;
    dr_core_stats(s->core, s->now, &st);
    if (st.pages_used != 0) return BROKEN("%d pages are in use, but no request is open", st.pages_used);
    return dr_book_check(dr_core_book(s->core));
}

/* ---- setting up ---- */

static dr_status make(struct sim *s) {
    const struct options *o = s->o;
    struct dr_layout_wish wish = {.tp = 1,
                                  .pp = o->pp,
                                  .context = o->context,
                                  .seqs_max = o->seqs,
                                  .step_tokens = o->step_tokens,
                                  .pages = o->pages,
                                  .mtp = o->drafts != 0};
    DR_TRY(config_file_read(o->config, &s->config));
    DR_TRY(dr_layout_make(&s->config, &wish, &s->layout));
    dr_pace_init(&s->pace, &s->config, &s->layout);
    s->ns_madd = 1e9 / (o->tokens_s * s->pace.row_work);
    struct dr_core_setup setup = {.config = &s->config,
                                  .layout = &s->layout,
                                  .epoch = 1,
                                  .deadline_scale = 1,
                                  .reuse = o->reuse,
                                  .step_ns = (uint64_t)o->step_ms * 1000000U,
                                  .drafts = o->drafts};
    DR_TRY(dr_core_create(&setup, &s->core));
    DR_TRY(shadow_init(&s->shadow, dr_core_book(s->core), s->config.vocab));
    const size_t n = (size_t)s->trace->n, seqs = (size_t)s->layout.seqs_max;
    s->record = calloc(n, sizeof *s->record);
    s->ttft_ms = calloc(n, sizeof *s->ttft_ms);
    s->ids = calloc((size_t)s->layout.context, sizeof *s->ids);
    s->planned_step = calloc(seqs, sizeof *s->planned_step);
    bool ok = s->record && s->ttft_ms && s->ids && s->planned_step;
    for (int i = 0; i < FLIGHTS_MAX && ok; i++)
        ok = (s->flight[i].row = calloc(seqs, sizeof *s->flight[i].row)) != NULL;
    return ok ? dr_ok() : dr_fail(DR_EFULL, "no memory for %zu requests", n);
}

static void unmake(struct sim *s) {
    for (int i = 0; i < FLIGHTS_MAX; i++) free(s->flight[i].row);
    free(s->planned_step);
    free(s->ids);
    free(s->ttft_ms);
    free(s->record);
    shadow_fini(&s->shadow);
    dr_core_destroy(s->core);
}

/* ---- the report ---- */

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, int64_t n, double q) {
    return n ? sorted[(int64_t)(q * (double)(n - 1))] : 0;
}

static void report(struct sim *s, double wall_s) {
    struct dr_stats st;
    const double end_s = (double)s->now / 1e9, steps = (double)s->shadow.step;
    dr_core_stats(s->core, s->now, &st);
    qsort(s->ttft_ms, (size_t)s->n_done, sizeof *s->ttft_ms, ascending);
    printf("requests      %" PRId64 ": %" PRId64 " done, %" PRId64
           " refused; %.0f s of virtual time in %.1f s\n",
           s->trace->n, s->n_done, s->n_refused, end_s, wall_s);
    printf("steps         %.0f: %.1f requests and %.1f rows each, stages busy %.1f %%\n", steps,
           (double)s->n_segment / steps, (double)s->n_row / steps,
           100 * (double)s->busy_ns / 1e9 / (end_s * s->layout.pp));
    printf("rows          %" PRIu64 " computed (%" PRIu64 " of prompts), %" PRIu64
           " prompt tokens found in the cache\n",
           s->n_row, st.prompt_tokens, st.cached_tokens);
    printf("preemptions   %" PRIu64 "\n", st.preempted);
    if (s->o->drafts)
        printf("drafts        %" PRIu64 " verified, %.3f of them true, %.2f tokens a request and step\n",
               s->n_drafted, (double)s->n_accepted / (double)(s->n_drafted + !s->n_drafted),
               (double)s->n_output / (double)(s->n_output - s->n_accepted));
    printf("first token   median %.0f ms, 99 %% %.0f ms, longest wait for a start %.0f ms\n",
           quantile(s->ttft_ms, s->n_done, 0.5), quantile(s->ttft_ms, s->n_done, 0.99),
           (double)s->longest_wait_ns / 1e6);
    printf("coordinator   %.1f us a step\n", (double)s->core_ns / 1e3 / steps);
    printf("decisions     %016" PRIx64 "\n", s->decisions);
}

static dr_status simulate(const struct options *o, const struct sim_trace *t, uint64_t *decisions) {
    struct sim *s = calloc(1, sizeof *s);
    if (!s) return dr_fail(DR_EFULL, "no memory for a simulation");
    s->o = o;
    s->trace = t;
    dr_status st = make(s);
    const uint64_t begin = dr_clock_ns();
    if (st.code == DR_OK) st = run(s);
    if (st.code == DR_OK) {
        report(s, (double)(dr_clock_ns() - begin) / 1e9);
        if (o->picture) {
            char title[160];
            snprintf(title, sizeof title, "%" PRId64 " requests, %d stages, %d slots, %d pages", t->n,
                     s->layout.pp, s->layout.seqs_max, s->layout.n_page);
            st = picture_write(&s->picture, o->picture, title, s->layout.n_page);
        }
    } else if (s->core) {
        st = dr_fail_within(st, "step %" PRIu64 ", %.6f s: ", s->shadow.step, (double)s->now / 1e9);
    }
    *decisions = s->decisions;
    unmake(s);
    free(s);
    return st;
}

static const char usage[] =
    "usage: simulate --config FILE [options]\n"
    "  --config FILE        config.json of the model\n"
    "  --profile WORD       steady, bursty, heavy or prefix [steady]\n"
    "  --trace FILE         a Mooncake trace (JSON lines) instead of a profile\n"
    "  --requests N         how many [10000]\n"
    "  --seed N             of the profile [1]\n"
    "  --load X             tokens that arrive, as a part of what the cluster computes [0.7]\n"
    "  --tokens-s X         prompt tokens a second that the hosts of one stage compute [20000]\n"
    "  --pp N               stages [1]\n"
    "  --context N          [32768]\n"
    "  --seqs N             slots [256]\n"
    "  --step-tokens N      [2048]\n"
    "  --pages N            cache pages; 0: as many as all slots can use [8192]\n"
    "  --step-ms N          [0]\n"
    "  --reuse WORD         any, exact or off [any]\n"
    "  --drafts N           after each token; -1: as many as pay [0]\n"
    "  --twice              run again and compare all decisions\n"
    "  --picture FILE       queue, pages and batch over time, as SVG\n";

static bool word_of(const char *text, const char *const *words, int n, int *out) {
    for (int i = 0; i < n; i++)
        if (!strcmp(text, words[i])) {
            *out = i;
            return true;
        }
    return false;
}

static bool parse(int argc, char **argv, struct options *o) {
    enum {
        CONFIG = 1,
        PROFILE,
        TRACE,
        REQUESTS,
        SEED,
        LOAD,
        TOKENS_S,
        PP,
        CONTEXT,
        SEQS,
        STEP_TOKENS,
        PAGES,
        STEP_MS,
        REUSE,
        DRAFTS,
        TWICE,
        PICTURE
    };
    static const struct option flags[] = {{"config", 1, 0, CONFIG},
                                          {"profile", 1, 0, PROFILE},
                                          {"trace", 1, 0, TRACE},
                                          {"requests", 1, 0, REQUESTS},
                                          {"seed", 1, 0, SEED},
                                          {"load", 1, 0, LOAD},
                                          {"tokens-s", 1, 0, TOKENS_S},
                                          {"pp", 1, 0, PP},
                                          {"context", 1, 0, CONTEXT},
                                          {"seqs", 1, 0, SEQS},
                                          {"step-tokens", 1, 0, STEP_TOKENS},
                                          {"pages", 1, 0, PAGES},
                                          {"step-ms", 1, 0, STEP_MS},
                                          {"reuse", 1, 0, REUSE},
                                          {"drafts", 1, 0, DRAFTS},
                                          {"twice", 0, 0, TWICE},
                                          {"picture", 1, 0, PICTURE},
                                          {0}};
#define DR_X_(name, text) text,
    static const char *const profiles[] = {SIM_PROFILES(DR_X_)};
#undef DR_X_
    static const char *const reuses[] = {"off", "any", "exact"};
    int flag, word = 0;
    bool ok = true;
    while (ok && (flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        int32_t *number = flag == PP        ? &o->pp
                          : flag == CONTEXT ? &o->context
                          : flag == SEQS    ? &o->seqs
                          : flag == PAGES   ? &o->pages
                          : flag == STEP_MS ? &o->step_ms
                          : flag == DRAFTS  ? &o->drafts
                                            : &o->step_tokens;
        switch (flag) {
        case CONFIG:
            o->config = optarg;
            break;
        case TRACE:
            o->trace = optarg;
            break;
        case PICTURE:
            o->picture = optarg;
            break;
        case TWICE:
            o->twice = 1;
            break;
        case REQUESTS:
            o->requests = strtoll(optarg, NULL, 10);
            break;
        case SEED:
            o->seed = strtoull(optarg, NULL, 10);
            break;
        case LOAD:
            o->load = strtod(optarg, NULL);
            break;
        case TOKENS_S:
            o->tokens_s = strtod(optarg, NULL);
            break;
        case PROFILE:
            ok = word_of(optarg, profiles, SIM_PROFILE_COUNT, &word);
            o->profile = (enum sim_profile)word;
            break;
        case REUSE:
            ok = word_of(optarg, reuses, 3, &word);
            o->reuse = (enum dr_reuse)word;
            break;
        case '?':
            ok = false;
            break;
        default:
            *number = (int32_t)strtol(optarg, NULL, 10);
        }
    }
    return ok && optind == argc && o->config && o->requests > 0 && o->load > 0 && o->tokens_s > 0 &&
           o->drafts >= DR_DRAFTS_AUTO && o->drafts <= DR_DRAFTS_MAX;
}

int main(int argc, char **argv) {
    struct options o = {.requests = 10000,
                        .seed = 1,
                        .load = 0.7,
                        .tokens_s = 20000,
                        .pp = 1,
                        .context = 32768,
                        .seqs = 256,
                        .step_tokens = 2048,
                        .pages = 8192,
                        .reuse = DR_REUSE_ANY};
    struct sim_trace t = {0};
    uint64_t first = 0, second = 0;
    if (!parse(argc, argv, &o)) {
        fputs(usage, stderr);
        return 64;
    }
    dr_status st =
        o.trace ? sim_trace_read(&t, o.trace, o.requests, o.context)
                : sim_trace_make(&t, o.profile, o.requests, o.seed, o.load * o.tokens_s * o.pp, o.context);
    if (st.code == DR_OK) st = simulate(&o, &t, &first);
    if (st.code == DR_OK && o.twice) {
        st = simulate(&o, &t, &second);
        if (st.code == DR_OK && first != second) st = BROKEN("the second run decided differently");
    }
    sim_trace_fini(&t);
    if (st.code != DR_OK) fprintf(stderr, "simulate: %s\n", dr_error_text());
    return st.code == DR_OK ? 0 : st.code == DR_EINTERNAL ? 1 : dr_code_exit(st.code);
}
