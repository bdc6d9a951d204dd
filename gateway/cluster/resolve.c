/* resolve.c - see resolve.h.
 * In:   options, headers of the checkpoint, /proc.      Out: layout and filled-in options.
 * Owns: nothing.
 * Why:  see resolve.h. */
#include "gateway/cluster/resolve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "common/topology.h"
#include "gateway/cluster/launch.h"
#include "model/cost.h"
#include "model/roles.h"
#include "model/wish.h"

const char *dr_bytes_text(uint64_t bytes, char out[32]) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
    return out;
}

/* ---- this machine ---- */

/* The first number of a file; false when there is none ("max"). */
static bool read_number(const char *path, uint64_t *out) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool good = fscanf(f, "%" SCNu64, out) == 1;
    fclose(f);
    return good;
}

dr_status dr_machine_read(struct dr_machine *out) {
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return dr_fail(DR_EIO, "/proc/meminfo: cannot be opened: %s", strerror(errno));
    char line[256];
    uint64_t kib = 0;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) found = sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1;
    fclose(f);
    if (!found)
        return dr_fail(DR_EIO,
                       "/proc/meminfo: expected a line MemAvailable, found none; give --cache-memory");
    uint64_t free_bytes = kib << 10, most, used;
    if (read_number("/sys/fs/cgroup/memory.max", &most) &&
        read_number("/sys/fs/cgroup/memory.current", &used)) {
        const uint64_t left =
            most > used ? most - used : 0; /* in a container its own limit is the smaller one */
        if (left < free_bytes) free_bytes = left;
    }
    struct dr_cpu list[DR_CPUS_MAX];
    int32_t n = dr_topology_list("/sys", list, DR_CPUS_MAX);
    *out = (struct dr_machine){.free_bytes = free_bytes,
                               .cores = dr_max_i32(1, dr_topology_cores(list, n)),
                               .nodes = dr_topology_nodes(list, n)};
    return dr_ok();
}

/* ---- memory ---- */

/* Largest sum of `line` over a machine's neighbouring ranks; cache lines are left out. */
static size_t machine_bytes(const struct dr_config *c, const struct dr_tensors *t, const struct dr_layout *l,
                            int32_t local, bool with_cache, struct dr_footprint *most) {
    size_t worst = 0;
    for (int32_t first = 0; first < l->n_rank; first += local) {
        size_t sum = 0;
        for (int32_t r = first; r < l->n_rank && r < first + local; r++) {
            const struct dr_footprint f = dr_footprint_rank(c, t, l, r);
            sum += with_cache ? f.total : f.total - f.cache;
            if (f.total > most->total) *most = f;
        }
        if (sum > worst) worst = sum;
    }
    return worst;
}

/* The cache of one rank when nobody gave a number: half of what is free, and never so much that weights and
 * workspace lack room. */
static dr_status cache_budget(const struct dr_machine *m, size_t others, int32_t local, size_t *out) {
    char need[32], have[32];
    const size_t usable = m->free_bytes - m->free_bytes / 20; /* 5 % for everything else on the machine */
    if (others >= usable)
        return dr_fail(DR_EMODEL,
                       "memory: weights and workspace of %d ranks need %s, free are %s; use more machines or "
                       "a smaller model",
                       local, dr_bytes_text(others, need), dr_bytes_text(m->free_bytes, have));
    const size_t half = m->free_bytes / 2, rest = usable - others;
    *out = (half < rest ? half : rest) / (size_t)local;
    return dr_ok();
}

static dr_status set_number(struct dr_options *o, enum dr_option id, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return dr_option_set(o, id, text);
}

static dr_status settle_memory(const struct dr_machine *m, const struct dr_options *o,
                               const struct dr_config *config, const struct dr_tensors *t,
                               struct dr_resolved *r) {
    struct dr_layout_wish wish = dr_wish_of(o, config);
    const bool own_bound = wish.cache_bytes > 0, own_pages = wish.pages > 0;
    wish.cache_bytes =
        0; /* first without a bound: failures that have nothing to do with memory speak for themselves */
    DR_TRY(dr_layout_make(config, &wish, &r->layout));
    r->most = (struct dr_footprint){.total = 0};
    const size_t others = machine_bytes(config, t, &r->layout, r->local_workers, false, &r->most);
    size_t budget = 0;
    DR_TRY(cache_budget(m, others, r->local_workers, &budget));
    wish.cache_bytes = own_bound ? (size_t)dr_option_int(o, DR_OPTION_CACHE_MEMORY) : own_pages ? 0 : budget;
    dr_status st = dr_layout_make(config, &wish, &r->layout);
    if (st.code != DR_OK) {
        char have[32];
        return dr_fail_within(
            st, "memory: a rank's cache may take %s (%s): ", dr_bytes_text(wish.cache_bytes, have),
            own_bound ? "--cache-memory" : "half of what is free, shared among the ranks");
    }
    r->most = (struct dr_footprint){.total = 0};
    const size_t all = machine_bytes(config, t, &r->layout, r->local_workers, true, &r->most);
    if (all > m->free_bytes) {
        char need[32], have[32];
        return dr_fail(DR_EMODEL,
                       "memory: %d ranks need %s with %d cache pages, free are %s; use fewer --pages or a "
                       "shorter --context",
                       r->local_workers, dr_bytes_text(all, need), r->layout.n_page,
                       dr_bytes_text(m->free_bytes, have));
    }
    return dr_ok();
}

/* ---- exchange ---- */

/* auto: values travel when a cache group spans hosts and the link is what a step waits for. Reckons with
 * steps of a quarter of the sequences, at most 16, and with memory that a rank reads at 20 GB/s. */
static dr_status settle_exchange(struct dr_options *o, const struct dr_config *c, int32_t local) {
    static const double read_bytes_s = 20e9;
    const int32_t tp = (int32_t)dr_option_int(o, DR_OPTION_TP),
                  width = (int32_t)dr_option_int(o, DR_OPTION_CACHE_WIDTH), cut = width ? width : tp;
    if (strcmp(dr_option_text(o, DR_OPTION_EXCHANGE), "auto") != 0) return dr_ok();
    const double rows = dr_max_i32(1, dr_min_i32(16, (int32_t)dr_option_int(o, DR_OPTION_SEQS_MAX) / 4)),
                 link = dr_option_float(o, DR_OPTION_LINK_GBIT) / 8 * 1e9;
    const bool within = local % cut == 0; /* every group's ranks share a host */
    const bool value =
        !within &&
        dr_cost_value_pays(c, rows, dr_dtype_bytes(dr_role_usual_dtype(c, DR_ROLE_KV_B)), link, read_bytes_s);
    return dr_option_set(o, DR_OPTION_EXCHANGE, value ? "value" : "latent");
}

/* ---- all of it ---- */

dr_status dr_resolve_tp(const struct dr_machine *m, struct dr_options *options, const struct dr_config *c,
                        int32_t n_host) {
    if (dr_option_int(options, DR_OPTION_TP) > 0) return dr_ok();
    int32_t nodes = dr_max_i32(1, m->nodes) * dr_max_i32(1, n_host);
    int32_t tp = dr_max_i32(1, nodes / (int32_t)dr_option_int(options, DR_OPTION_PP));
    return set_number(options, DR_OPTION_TP, dr_min_i32(tp, dr_min_i32(c->n_head, DR_TP_MAX)));
}

dr_status dr_resolve_on(const struct dr_machine *m, struct dr_options *options,
                        const struct dr_config *config, const struct dr_tensors *t, struct dr_resolved *out) {
    struct dr_resolved r = {.n_host = 0};
    if (options->command & DR_CMD_RUNS) DR_TRY(dr_launch_hosts(options, &r.n_host));
    DR_TRY(dr_resolve_tp(m, options, config, r.n_host));
    const int32_t n_rank =
        (int32_t)(dr_option_int(options, DR_OPTION_TP) * dr_option_int(options, DR_OPTION_PP));
    r.local_workers = r.n_host ? dr_ceil_div(n_rank, r.n_host) : n_rank;
    DR_TRY(settle_exchange(options, config, r.local_workers));
    DR_TRY(settle_memory(m, options, config, t, &r));
    r.tensors_hash = t ? dr_tensors_hash(t) : 0;
    DR_TRY(set_number(options, DR_OPTION_PAGES, r.layout.n_page));
    DR_TRY(set_number(options, DR_OPTION_CONTEXT, r.layout.context));
    if ((options->command & DR_CMD_RUNS) && dr_option_int(options, DR_OPTION_THREADS) == 0)
        DR_TRY(set_number(options, DR_OPTION_THREADS, dr_max_i32(1, m->cores / r.local_workers)));
    *out = r;
    return dr_ok();
}

/* Ranks on other machines start in the same folder at best; a full path is the same everywhere. */
static dr_status full_model_path(struct dr_options *options) {
    const char *dir = dr_option_text(options, DR_OPTION_MODEL);
    char here[DR_PATH_MAX], full[2 * DR_PATH_MAX];
    if (*dir == '/') return dr_ok();
    if (!getcwd(here, sizeof here))
        return dr_fail(DR_EIO, "the current folder has no name: %s", strerror(errno));
    int n = snprintf(full, sizeof full, "%s/%s", here, dir);
    if (n < 0 || (size_t)n >= sizeof full) return dr_fail(DR_EUSAGE, "--model: the path is too long");
    return dr_option_set(options, DR_OPTION_MODEL, full);
}

dr_status dr_resolve(struct dr_options *options, const struct dr_config *config, struct dr_resolved *out) {
    struct dr_machine machine;
    struct dr_tensors *t = NULL;
    DR_TRY(full_model_path(options));
    DR_TRY(dr_machine_read(&machine));
    DR_TRY(dr_tensors_open(dr_option_text(options, DR_OPTION_MODEL), config, &t));
    dr_status st = dr_resolve_on(&machine, options, config, t, out);
    dr_tensors_destroy(t);
    if (st.code != DR_OK) return st;
    if (!strcmp(dr_option_text(options, DR_OPTION_LOG_FORMAT),
                "auto")) /* mpirun's pipes hide the terminal from the ranks */
        st = dr_option_set(options, DR_OPTION_LOG_FORMAT, isatty(2) ? "text" : "json");
    return st;
}
