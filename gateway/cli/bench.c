/* bench.c - how fast a cluster is, on this model, with these layouts.
 * In:   --layouts, --weights, lengths, depths, batches.      Out: a report on stdout; a trace when asked for.
 * Owns: report, trace, and one cluster at a time.
 * Why:  clusters come one after the other, each of them whole: what was measured is what `serve` would start.
 * Every run's ids are compared with the first run's, and a batch's first sequence with the same sequence
 * alone: a fast wrong answer ends the bench. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "gateway/bench/report.h"
#include "gateway/bench/trace.h"
#include "gateway/cli/command.h"
#include "gateway/cluster/resolve.h"

enum { BUFFER_MOST = 1 << 30 }; /* of the probe: beyond every cache */

struct bench {
    const struct dr_options *options;
    struct dr_interrupt *interrupt;
    struct dr_config config;
    struct dr_bench_plan plan;
    struct dr_bench_report report;
    struct dr_bench_trace *trace; /* NULL: none was asked for */
    struct dr_probe probe;        /* the last one; n_thread 0: none yet */
};

/* One cluster while it runs. */
struct run {
    struct bench *b;
    struct dr_bench_cluster *c;
    struct dr_options options;
    struct dr_resolved resolved;
    struct dr_tensors *tensors;
    struct dr_engine *engine;
    struct dr_bench_runner *runner;
    uint64_t *alone; /* [n_case] digest of the case's first sequence when it runs alone; 0: not known yet */
};

/* ---- runs ---- */

static void note_peaks(struct dr_bench_cluster *c, const struct dr_bench_run *run) {
    for (int32_t i = 0; i < run->n_step; i++)
        for (int32_t k = 0; k < run->n_rank; k++) {
            const uint64_t peak = run->report[(size_t)i * (size_t)run->n_rank + (size_t)k].peak_bytes;
            if (peak > c->peak_bytes[k]) c->peak_bytes[k] = peak;
        }
}

static dr_status run_once(struct run *r, const struct dr_bench_case *c, struct dr_bench_run *run) {
    char name[64];
    dr_status st = dr_bench_runner_run(r->runner, c, run);
    if (st.code == DR_OK) note_peaks(r->c, run);
    return st.code == DR_OK || st.code == DR_ECANCEL
               ? st
               : dr_fail_within(st, "%s: ", dr_bench_case_name(c, name));
}

static bool same_but_batch(const struct dr_bench_case *a, const struct dr_bench_case *b) {
    return a->prompt == b->prompt && a->gen == b->gen && a->depth == b->depth;
}

/* What the first sequence of case i says alone: from the case with one sequence, or a run for this purpose. A
 * case with one sequence learns it from its warm-up instead. */
static dr_status learn_alone(struct run *r, int32_t i) {
    const struct dr_bench_plan *p = &r->b->plan;
    struct dr_bench_case one = p->cases[i];
    struct dr_bench_run run;
    for (int32_t k = 0; k < i && !r->alone[i]; k++)
        if (same_but_batch(&p->cases[k], &p->cases[i])) r->alone[i] = r->alone[k];
    if (r->alone[i]) return dr_ok();
    one.batch = 1;
    DR_TRY(run_once(r, &one, &run));
    r->alone[i] = run.digest_one;
    return dr_ok();
}

static dr_status measure(struct run *r, int32_t i, struct dr_bench_row *row) {
    struct bench *b = r->b;
    const struct dr_bench_case *c = &b->plan.cases[i];
    struct dr_bench_run run;
    uint64_t first = 0;
    char layout[96], name[64];
    row->c = *c;
    DR_TRY(dr_bench_tally_init(&row->tally, r->c->layout.n_rank, b->plan.reps));
    if (c->batch > 1 || b->plan.warmup == 0) DR_TRY(learn_alone(r, i));
    for (int32_t k = 0; k < b->plan.warmup + b->plan.reps; k++) {
        DR_TRY(run_once(r, c, &run));
        if (!r->alone[i]) r->alone[i] = run.digest_one; /* the warm-up of one sequence */
        dr_status st = dr_bench_run_check(&run, r->alone[i], &first);
        if (st.code != DR_OK)
            return dr_fail_within(st, "%s, %s, %s: ", dr_bench_layout_name(r->c, layout),
                                  dr_weights_name(r->c->layout.weights), dr_bench_case_name(c, name));
        if (k < b->plan.warmup) continue;
        dr_bench_tally_add(&row->tally, &run);
        if (b->trace)
            DR_TRY(dr_bench_trace_add(b->trace, b->report.n - 1, dr_bench_layout_name(r->c, layout),
                                      dr_bench_case_name(c, name), r->c->facts->rank, &run));
    }
    if (isatty(2))
        fprintf(stderr, "%s, %s, %s: %.2f tokens/s\n", dr_bench_layout_name(r->c, layout),
                dr_weights_name(r->c->layout.weights), dr_bench_case_name(c, name), row->tally.median);
    return dr_ok();
}

/* ---- a cluster ---- */

/* Before the cluster starts, so that its memory is free again when ranks look for theirs. */
static dr_status probe(struct run *r) {
    struct bench *b = r->b;
    struct dr_machine m;
    const int32_t n = dr_min_i32(r->resolved.layout.tp, r->resolved.local_workers) * r->c->threads;
    DR_TRY(dr_machine_read(&m));
    const size_t most = m.free_bytes / 4;
    if (b->probe.n_thread != n) DR_TRY(dr_probe_run(n, most < BUFFER_MOST ? most : BUFFER_MOST, &b->probe));
    r->c->probe = b->probe;
    return dr_ok();
}

static dr_status plan_memory(struct run *r) {
    struct dr_bench_cluster *c = r->c;
    const struct dr_config *config = &r->b->config;
    const int32_t n = c->layout.n_rank, cases = r->b->plan.n_case;
    c->plan_bytes = calloc((size_t)n, sizeof *c->plan_bytes);
    c->peak_bytes = calloc((size_t)n, sizeof *c->peak_bytes);
    c->row = calloc((size_t)cases, sizeof *c->row);
    c->facts = calloc(1, sizeof *c->facts);
    r->alone = calloc((size_t)cases, sizeof *r->alone);
    if (!c->plan_bytes || !c->peak_bytes || !c->row || !c->facts || !r->alone)
        return dr_fail(DR_EFULL, "no memory for the report");
    for (int32_t i = 0; i < n; i++)
        c->plan_bytes[i] = dr_footprint_rank(config, r->tensors, &c->layout, i).total;
    c->token_bytes = dr_footprint_token_bytes(config, &c->layout);
    return dr_ok();
}

/* Options and layout of one cluster; the caller ends *o, also after a failure. */
static dr_status resolve(const struct bench *b, int32_t layout, enum dr_weights weights, struct dr_options *o,
                         struct dr_resolved *out) {
    DR_TRY(dr_bench_plan_options(&b->plan, b->options, layout, weights, o));
    dr_status st = dr_resolve(o, &b->config, out);
    if (st.code == DR_OK) st = dr_bench_plan_fits(&b->plan, &out->layout);
    const char *text = b->plan.layout[layout].text;
    return st.code == DR_OK || !*text ? st : dr_fail_within(st, "--layouts '%s': ", text);
}

static dr_status prepare(struct run *r, int32_t layout, enum dr_weights weights) {
    struct bench *b = r->b;
    struct dr_bench_cluster *c = r->c;
    DR_TRY(resolve(b, layout, weights, &r->options, &r->resolved));
    c->layout = r->resolved.layout;
    c->threads = (int32_t)dr_option_int(&r->options, DR_OPTION_THREADS);
    c->n_host = dr_max_i32(1, r->resolved.n_host);
    c->stage_hosts = dr_ceil_div(c->layout.tp, r->resolved.local_workers);
    snprintf(c->precision, sizeof c->precision, "%s", dr_option_text(&r->options, DR_OPTION_PRECISION));
    DR_TRY(dr_tensors_open(dr_option_text(&r->options, DR_OPTION_MODEL), &b->config, &r->tensors));
    DR_TRY(plan_memory(r));
    return probe(r);
}

static dr_status start(struct run *r) {
    const uint64_t slice = 100000000u;
    DR_TRY(dr_engine_create(&r->options, &r->b->config, &r->engine));
    for (;;) {
        dr_status st = dr_engine_wait(r->engine, slice);
        if (st.code == DR_OK) break;
        if (st.code != DR_ETIME) return st;
        if (dr_interrupt_poll(r->b->interrupt, 0) > 0)
            return dr_fail(DR_ECANCEL, "interrupted while the cluster was starting");
    }
    dr_engine_facts(r->engine, r->c->facts);
    r->c->peaks = dr_bench_peaks_of(&r->c->probe, r->c->facts->rank[0].arithmetic.inputs, r->c->stage_hosts);
    return dr_bench_runner_create(r->engine, r->b->interrupt, &r->c->layout, r->b->config.vocab,
                                  r->b->plan.seed, &r->runner);
}

static dr_status find_bounds(struct run *r) {
    const struct dr_bench_plan *p = &r->b->plan;
    struct dr_bench_bound *bound = calloc((size_t)p->n_case, sizeof *bound);
    if (!bound) return dr_fail(DR_EFULL, "no memory for the bounds");
    dr_status st = dr_bench_bound_make(&r->b->config, r->tensors, &r->c->layout, p->cases, p->n_case,
                                       &r->c->peaks, bound);
    for (int32_t i = 0; st.code == DR_OK && i < p->n_case; i++) r->c->row[i].bound = bound[i];
    free(bound);
    return st;
}

static void end_run(struct run *r) {
    char text[1024]; /* of the failure that led here: stopping a cluster may write others over it */
    snprintf(text, sizeof text, "%s", dr_error_text());
    dr_engine_destroy(r->engine);
    dr_bench_runner_destroy(r->runner); /* the engine's thread called it */
    dr_tensors_destroy(r->tensors);
    dr_options_fini(&r->options);
    free(r->alone);
    dr_ignore(dr_fail(DR_EINTERNAL, "%s", text), "puts the text back");
}

static dr_status run_cluster(struct bench *b, int32_t layout, enum dr_weights weights) {
    struct run r = {.b = b, .c = &b->report.cluster[b->report.n++]};
    dr_status st = prepare(&r, layout, weights);
    if (st.code == DR_OK) st = start(&r);
    if (st.code == DR_OK) st = find_bounds(&r);
    for (int32_t i = 0; st.code == DR_OK && i < b->plan.n_case; i++) {
        r.c->n_row = i + 1;
        st = measure(&r, i, &r.c->row[i]);
    }
    end_run(&r);
    return st;
}

/* ---- all of it ---- */

/* All clusters are looked at before the first one starts. */
static dr_status check_layouts(const struct bench *b) {
    dr_status st = dr_ok();
    for (int32_t l = 0; st.code == DR_OK && l < b->plan.n_layout; l++)
        for (int32_t w = 0; st.code == DR_OK && w < b->plan.n_weights; w++) {
            struct dr_options o = {.n_rest = 0};
            struct dr_resolved resolved;
            st = resolve(b, l, b->plan.weights[w], &o, &resolved);
            dr_options_fini(&o);
        }
    return st;
}

static dr_status begin(struct bench *b) {
    const struct dr_options *o = b->options;
    const char *trace = dr_option_text(o, DR_OPTION_TRACE), *model = dr_option_text(o, DR_OPTION_MODEL);
    if (!*model) return dr_fail(DR_EUSAGE, "no model: give --model DIR");
    DR_TRY(dr_bench_plan_make(o, &b->plan));
    DR_TRY(dr_config_load(model, &b->config));
    DR_TRY(check_layouts(b));
    DR_TRY(dr_interrupt_begin(b->interrupt));
    if (*trace) DR_TRY(dr_bench_trace_create(trace, &b->trace));
    const char *slash = strrchr(model, '/');
    b->report = (struct dr_bench_report){
        .machine = dr_bench_machine_read(),
        .model = slash && slash[1] ? slash + 1 : model,
        .reps = b->plan.reps,
        .warmup = b->plan.warmup,
        .seed = b->plan.seed,
        .roofline = dr_option_int(o, DR_OPTION_ROOFLINE) != 0,
        .cluster = calloc((size_t)b->plan.n_layout * (size_t)b->plan.n_weights, sizeof *b->report.cluster),
    };
    return b->report.cluster ? dr_ok() : dr_fail(DR_EFULL, "no memory for the report");
}

static dr_status print(const struct bench *b) {
    const char *format = dr_option_text(b->options, DR_OPTION_FORMAT);
    if (!strcmp(format, "json")) return dr_bench_report_json(&b->report);
    return dr_bench_report_text(&b->report, !strcmp(format, "markdown"));
}

dr_status dr_bench(struct dr_options *o, struct dr_interrupt *i) {
    struct bench *b = calloc(1, sizeof *b);
    if (!b) return dr_fail(DR_EFULL, "no memory for a bench");
    b->options = o;
    b->interrupt = i;
    dr_status st = begin(b);
    for (int32_t l = 0; st.code == DR_OK && l < b->plan.n_layout; l++)
        for (int32_t w = 0; st.code == DR_OK && w < b->plan.n_weights; w++)
            st = run_cluster(b, l, b->plan.weights[w]);
    if (st.code == DR_OK) st = print(b);
    if (st.code == DR_OK)
        st = dr_bench_trace_destroy(b->trace);
    else
        dr_ignore(dr_bench_trace_destroy(b->trace), "the first failure is the one to tell");
    dr_bench_report_fini(&b->report);
    dr_bench_plan_fini(&b->plan);
    free(b);
    return st;
}
