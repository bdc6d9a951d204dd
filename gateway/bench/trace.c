/* trace.c - see trace.h.
 * In:   runs.      Out: events.
 * Owns: see trace.h.
 * Why:  see trace.h. */
#include "gateway/bench/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dr_bench_trace {
    FILE *f;
    char path[256], host[DR_HOST_MAX + 1]; /* the gateway's machine */
    bool first;                            /* no event yet */
    int32_t named;                         /* clusters whose ranks have names, so far */
    struct dr_bench_offset worst;          /* of all runs */
};

dr_status dr_bench_trace_create(const char *path, struct dr_bench_trace **out) {
    struct dr_bench_trace *t = calloc(1, sizeof *t);
    if (!t) return dr_fail(DR_EFULL, "no memory for a trace");
    t->f = fopen(path, "we");
    if (!t->f) {
        free(t);
        return dr_fail(DR_EIO, "--trace %s: cannot be written: %s", path, strerror(errno));
    }
    snprintf(t->path, sizeof t->path, "%s", path);
    gethostname(t->host, sizeof t->host - 1);
    t->first = true;
    fprintf(t->f, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    *out = t;
    return dr_ok();
}

dr_status dr_bench_trace_destroy(struct dr_bench_trace *t) {
    if (!t) return dr_ok();
    fprintf(t->f,
            "\n],\"otherData\":{\"clock\":\"monotonic clock of the gateway's machine\","
            "\"largest_offset_ns\":%.0f,\"largest_offset_error_ns\":%.0f,"
            "\"parts\":\"sums over layers, one after the other\"}}\n",
            t->worst.ns, t->worst.error_ns);
    const bool bad = ferror(t->f) != 0;
    const bool unclosed = fclose(t->f) != 0;
    dr_status st = dr_ok();
    if (bad || unclosed) st = dr_fail(DR_EIO, "--trace %s: cannot be written to its end", t->path);
    free(t);
    return st;
}

struct dr_bench_offset dr_bench_trace_offset(const struct dr_bench_run *run, int32_t k, bool same_host) {
    double least = 0, most = 0;
    bool any = false;
    if (same_host) return (struct dr_bench_offset){.ns = 0};
    for (int32_t i = 0; i < run->n_step; i++) {
        const struct dr_bench_rank_step *r = &run->report[(size_t)i * (size_t)run->n_rank + (size_t)k];
        /* as signed differences: two clocks may differ by years */
        const double low = (double)(int64_t)(r->end_ns - r->heard_ns),
                     high = (double)(int64_t)(r->begin_ns - run->step[i].news.sent_ns);
        if (!any || low > least) least = low;
        if (!any || high < most) most = high;
        any = true;
    }
    return (struct dr_bench_offset){.ns = (least + most) / 2, .error_ns = (most - least) / 2};
}

/* A name for JSON: what could end the string is left out. */
static const char *plain(const char *text, char out[128]) {
    size_t n = 0;
    for (; *text && n < 127; text++)
        if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\') out[n++] = *text;
    out[n] = 0;
    return out;
}

static void comma(struct dr_bench_trace *t) {
    fputs(t->first ? "\n" : ",\n", t->f);
    t->first = false;
}

static void span(struct dr_bench_trace *t, int32_t pid, int32_t tid, const char *name, double from_ns,
                 double ns) {
    comma(t);
    fprintf(t->f, "{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"ts\":%.3f,\"dur\":%.3f}", pid, tid,
            name, from_ns / 1e3, ns / 1e3);
}

static void label(struct dr_bench_trace *t, int32_t pid, int32_t tid, const char *what, const char *name) {
    char text[128];
    comma(t);
    fprintf(t->f, "{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}", pid, tid,
            what, plain(name, text));
}

/* Machines are numbered by the first rank on them; 0 is the gateway's. Clusters lie 10,000 apart. */
static int32_t machine_of(const struct dr_bench_trace *t, int32_t cluster, const struct dr_rank_state *rank,
                          int32_t k) {
    const int32_t base = cluster * 10000;
    if (!strcmp(rank[k].host, t->host)) return base;
    for (int32_t i = 0; i < k; i++)
        if (!strcmp(rank[i].host, rank[k].host)) return base + 1 + i;
    return base + 1 + k;
}

static void name_all(struct dr_bench_trace *t, int32_t cluster, const char *layout,
                     const struct dr_rank_state *rank, int32_t n) {
    char text[128];
    if (cluster < t->named) return;
    t->named = cluster + 1;
    snprintf(text, sizeof text, "%.60s, %.60s", layout, t->host);
    label(t, cluster * 10000, 0, "process_name", text);
    label(t, cluster * 10000, 0, "thread_name", "coordinator");
    for (int32_t k = 0; k < n; k++) {
        const int32_t pid = machine_of(t, cluster, rank, k);
        snprintf(text, sizeof text, "%.60s, %.60s", layout, rank[k].host);
        if (pid != cluster * 10000) label(t, pid, 0, "process_name", text);
        snprintf(text, sizeof text, "rank %d", k);
        label(t, pid, k + 1, "thread_name", text);
    }
}

static void rank_step(struct dr_bench_trace *t, int32_t pid, int32_t k, const char *name,
                      const struct dr_bench_rank_step *r, double offset_ns) {
    char text[64];
    double at = (double)r->begin_ns - offset_ns;
    span(t, pid, k + 1, name, at, (double)(r->end_ns - r->begin_ns));
    for (int p = 0; p < DR_PART_COUNT; p++) {
        if (r->part_ns[p] == 0) continue;
        snprintf(text, sizeof text, "%s (sum over layers)", dr_step_part_name(p));
        span(t, pid, k + 1, text, at, (double)r->part_ns[p]);
        at += (double)r->part_ns[p];
    }
}

static double absolute(double v) {
    return v < 0 ? -v : v;
}

dr_status dr_bench_trace_add(struct dr_bench_trace *t, int32_t cluster, const char *layout, const char *test,
                             const struct dr_rank_state *rank, const struct dr_bench_run *run) {
    char name[224], safe[128];
    name_all(t, cluster, layout, rank, run->n_rank);
    plain(test, safe);
    for (int32_t k = -1; k < run->n_rank; k++) {
        const bool here = k < 0 || !strcmp(rank[k].host, t->host);
        const struct dr_bench_offset o =
            k < 0 ? (struct dr_bench_offset){.ns = 0} : dr_bench_trace_offset(run, k, here);
        const int32_t pid = k < 0 ? cluster * 10000 : machine_of(t, cluster, rank, k);
        if (absolute(o.ns) > absolute(t->worst.ns)) t->worst.ns = o.ns;
        if (o.error_ns > t->worst.error_ns) t->worst.error_ns = o.error_ns;
        for (int32_t i = 0; i < run->n_step; i++) {
            const struct dr_bench_step *s = &run->step[i];
            if (!s->timed) continue;
            snprintf(name, sizeof name, "%s: step %" PRIu64 ", %d prompt rows, %d generated", safe,
                     s->news.step, s->news.prompt_rows, s->news.generated_rows);
            if (k < 0)
                span(t, pid, 0, name, (double)s->news.sent_ns, (double)(s->news.done_ns - s->news.sent_ns));
            else
                rank_step(t, pid, k, name, &run->report[(size_t)i * (size_t)run->n_rank + (size_t)k], o.ns);
        }
    }
    if (ferror(t->f)) return dr_fail(DR_EIO, "--trace %s: cannot be written: %s", t->path, strerror(errno));
    return dr_ok();
}
