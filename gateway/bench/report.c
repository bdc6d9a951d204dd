/* report.c - what both forms of a report share.
 * In:   /proc, rows.      Out: machine, names, rates.
 * Owns: nothing.
 * Why:  see report.h. */
#include "gateway/bench/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/topology.h"

/* The text behind "name : " of the first line of a file that begins so; "" without. */
static void line_of(const char *path, const char *name, char *out, size_t room) {
    FILE *f = fopen(path, "re");
    char line[256];
    out[0] = 0;
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!colon || strncmp(line, name, strlen(name)) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, room, "%s", colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (f) fclose(f);
}

struct dr_bench_machine dr_bench_machine_read(void) {
    struct dr_bench_machine m = {.cores = 0};
    struct dr_cpu list[DR_CPUS_MAX];
    const int32_t n = dr_topology_list("/sys", list, DR_CPUS_MAX);
    char kib[64];
    struct utsname u;
    m.cores = dr_topology_cores(list, n);
    m.nodes = dr_topology_nodes(list, n);
    line_of("/proc/cpuinfo", "model name", m.cpu, sizeof m.cpu);
    line_of("/proc/meminfo", "MemTotal", kib, sizeof kib);
    m.memory_bytes = strtoull(kib, NULL, 10) << 10;
    if (uname(&u) == 0) snprintf(m.system, sizeof m.system, "%.20s %.60s", u.sysname, u.release);
    return m;
}

static void cluster_fini(struct dr_bench_cluster *c) {
    for (int32_t i = 0; i < c->n_row; i++) dr_bench_tally_fini(&c->row[i].tally);
    free(c->row);
    free(c->facts);
    free(c->plan_bytes);
    free(c->peak_bytes);
}

void dr_bench_report_fini(struct dr_bench_report *r) {
    for (int32_t i = 0; i < r->n; i++) cluster_fini(&r->cluster[i]);
    free(r->cluster);
    *r = (struct dr_bench_report){.n = 0};
}

const char *dr_bench_commit(void) {
    return DR_COMMIT;
}

const char *dr_bench_version(void) {
    return DR_COMMIT[0] ? DR_VERSION " (" DR_COMMIT ")" : DR_VERSION;
}

const char *dr_bench_layout_name(const struct dr_bench_cluster *c, char out[96]) {
    const struct dr_layout *l = &c->layout;
    int n = snprintf(out, 96, "tp=%d pp=%d", l->tp, l->pp);
    if (l->c != l->tp) n += snprintf(out + n, 96 - (size_t)n, " c=%d", l->c);
    if (l->experts == DR_EXPERTS_WHOLE) n += snprintf(out + n, 96 - (size_t)n, " whole");
    if (l->cache_type != DR_CACHE_BF16)
        n += snprintf(out + n, 96 - (size_t)n, " %s", dr_cache_type_name(l->cache_type));
    snprintf(out + n, 96 - (size_t)n, " x %d", c->threads);
    return out;
}

static double per_second(const struct dr_bench_row *row, double a_step) {
    const struct dr_bench_tally *t = &row->tally;
    return t->n > 0 ? a_step / row->bound.tokens * t->rate[t->middle] : 0;
}

double dr_bench_row_bytes_s(const struct dr_bench_row *row) {
    return per_second(row, row->bound.weight_bytes + row->bound.cache_bytes);
}

double dr_bench_row_flop_s(const struct dr_bench_row *row) {
    return per_second(row, row->bound.linear_flop + row->bound.attention_flop);
}
