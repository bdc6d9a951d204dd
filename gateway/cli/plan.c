/* plan.c - which layouts of a model fit some machines, and how much context each of them holds.
 * In:   MODEL (its config; headers of the checkpoint where there are some), hosts, memory.      Out: a table,
 * or JSON. Owns: the rows. Why:  the same functions size the workers: what is printed here is what they will
 * take, and nothing was loaded. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "gateway/cli/command.h"
#include "gateway/cluster/launch.h"
#include "gateway/cluster/resolve.h"
#include "model/wish.h"

enum { WHY_BYTES = 256 };

struct row { /* one layout */
    struct dr_layout layout;
    struct dr_footprint most; /* of the rank that holds most, with `pages` pages */
    int32_t pages;            /* that fit on every rank */
    int64_t tokens;           /* in all sequences together */
    bool fits;
    char why[WHY_BYTES]; /* when it does not */
};

struct plan {
    struct dr_options *options;
    struct dr_config config;
    struct dr_tensors *tensors; /* NULL: usual types are taken */
    int32_t n_host, ranks;      /* ranks a host */
    size_t memory, budget;      /* of a host; of a rank */
    struct row *row;            /* [n_row] owned */
    int32_t n_row;
};

/* ---- what there is ---- */

static dr_status read_model(struct plan *p) {
    const char *path = dr_option_text(p->options, DR_OPTION_MODEL), *end = strrchr(path, '.');
    struct dr_text text = {0};
    if (end && !strcmp(end, ".json")) {
        DR_TRY(dr_input_read(path, 1 << 20, &text));
        dr_status st = dr_config_parse(text.at, text.n, NULL, 0, &p->config);
        dr_text_fini(&text);
        return st;
    }
    DR_TRY(dr_config_load(path, &p->config));
    dr_status st = dr_tensors_open(path, &p->config, &p->tensors);
    if (st.code == DR_ENOENT) { /* a config alone is enough to plan with */
        p->tensors = NULL;
        return dr_ok();
    }
    return st;
}

static dr_status read_machines(struct plan *p) {
    const struct dr_options *o = p->options;
    const char *hosts = dr_option_text(o, DR_OPTION_HOSTS);
    const bool number = *hosts && strspn(hosts, "0123456789") == strlen(hosts) && strlen(hosts) < 5;
    if (number)
        p->n_host = (int32_t)strtol(hosts, NULL, 10);
    else
        DR_TRY(dr_launch_hosts(o, &p->n_host));
    p->n_host = dr_max_i32(p->n_host, 1);
    p->ranks = (int32_t)dr_option_int(o, DR_OPTION_RANKS);
    p->memory = (size_t)dr_option_int(o, DR_OPTION_MEMORY);
    if (p->memory == 0) {
        struct dr_machine m;
        DR_TRY(dr_machine_read(&m));
        p->memory = m.free_bytes;
    }
    p->budget =
        (p->memory - p->memory / 20) / (size_t)p->ranks; /* 5 % for everything else, as the gateway leaves */
    if (p->n_host * p->ranks > DR_RANKS_MAX)
        return dr_fail(DR_EUSAGE, "%d hosts with %d ranks each: at most %d ranks can be planned", p->n_host,
                       p->ranks, DR_RANKS_MAX);
    return dr_ok();
}

/* ---- one layout ---- */

/* The largest line of a rank that cannot hold even one page. */
static void say_line(const struct plan *p, const struct dr_footprint *f, int32_t rank, struct row *r) {
    char have[32], line[32], all[32];
    const size_t others = f->total - f->cache;
    const char *const names[] = {"weights", "workspace", "collectives"};
    const size_t bytes[] = {f->weights, f->workspace, f->collective};
    int most = 0;
    for (int i = 1; i < 3; i++)
        if (bytes[i] > bytes[most]) most = i;
    snprintf(r->why, sizeof r->why, "rank %d: %s take %s, without the cache all take %s, a rank has %s", rank,
             names[most], dr_bytes_text(bytes[most], line), dr_bytes_text(others, all),
             dr_bytes_text(p->budget, have));
}

static void fill(const struct plan *p, struct row *r) {
    const struct dr_layout *l = &r->layout;
    r->pages = DR_PAGES_MAX;
    for (int32_t k = 0; k < l->n_rank; k++) {
        const int32_t pages = dr_footprint_pages_within(&p->config, p->tensors, l, k, p->budget);
        if (pages < r->pages) r->pages = pages;
        if (pages == 0) {
            const struct dr_footprint f = dr_footprint_rank(&p->config, p->tensors, l, k);
            say_line(p, &f, k, r);
            return;
        }
    }
    r->layout.n_page = r->pages;
    r->tokens = (int64_t)r->pages * l->page_tokens;
    for (int32_t k = 0; k < l->n_rank; k++) {
        const struct dr_footprint f = dr_footprint_rank(&p->config, p->tensors, &r->layout, k);
        if (f.total > r->most.total) r->most = f;
    }
    r->fits = r->tokens >= l->context;
    if (!r->fits)
        snprintf(r->why, sizeof r->why,
                 "the cache holds %lld tokens, one sequence of %d does not fit: --context %lld",
                 (long long)r->tokens, l->context, (long long)r->tokens);
}

static void try(const struct plan *p, int32_t tp, int32_t pp, struct row *r) {
    struct dr_layout_wish w = dr_wish_of(p->options, &p->config);
    w.tp = tp;
    w.pp = pp;
    w.pages = 0;
    w.cache_bytes = 0;
    *r = (struct row){.fits = false};
    dr_status st = dr_layout_make(&p->config, &w, &r->layout);
    if (st.code == DR_OK) {
        fill(p, r);
        return;
    }
    r->layout = (struct dr_layout){.tp = tp, .pp = pp, .c = w.cache_width ? w.cache_width : tp};
    snprintf(r->why, sizeof r->why, "%s", dr_error_text());
}

static int better(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    if (x->fits != y->fits) return x->fits ? -1 : 1;
    if (x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
    return x->layout.pp - y->layout.pp;
}

static dr_status try_all(struct plan *p) {
    const int32_t n = p->n_host * p->ranks, tp = (int32_t)dr_option_int(p->options, DR_OPTION_TP);
    const bool fixed_pp = p->options->value[DR_OPTION_PP].set;
    p->row = calloc((size_t)n, sizeof *p->row);
    if (!p->row) return dr_fail(DR_EFULL, "no memory for %d layouts", n);
    for (int32_t pp = 1; pp <= n; pp++) {
        if (n % pp != 0 || (tp > 0 && n / pp != tp)) continue;
        if (fixed_pp && pp != (int32_t)dr_option_int(p->options, DR_OPTION_PP)) continue;
        try(p, n / pp, pp, &p->row[p->n_row++]);
    }
    if (p->n_row == 0)
        return dr_fail(DR_EUSAGE,
                       "%d hosts with %d ranks each make %d ranks; --tp and --pp ask for another number",
                       p->n_host, p->ranks, n);
    qsort(p->row, (size_t)p->n_row, sizeof *p->row, better);
    return dr_ok();
}

/* ---- the report ---- */

static int64_t sequences(const struct row *r) { /* of --context tokens each */
    return r->pages / dr_ceil_div(r->layout.context, r->layout.page_tokens);
}

static int64_t longest(const struct plan *p, const struct row *r) { /* one sequence alone */
    return r->tokens < p->config.n_position ? r->tokens : p->config.n_position;
}

static void print_table(const struct plan *p) {
    char text[4][32];
    const struct row *best = &p->row[0];
    printf("model     %s, %d layers, context %d\n", p->config.model_type, p->config.n_layer,
           p->config.n_position);
    printf("machines  %d x %s, %d rank%s each, %s a rank\n", p->n_host, dr_bytes_text(p->memory, text[0]),
           p->ranks, p->ranks == 1 ? "" : "s", dr_bytes_text(p->budget, text[1]));
    if (best->fits)
        printf("cache     %s, %zu bytes a token of the whole model\n",
               dr_cache_type_name(best->layout.cache_type),
               dr_footprint_token_bytes(&p->config, &best->layout));
    printf("\n%-4s %-4s %-4s %-12s %-12s %-12s %-12s %12s %12s %10s\n", "tp", "pp", "c", "weights",
           "workspace", "collective", "cache", "tokens", "longest", "sequences");
    for (int32_t i = 0; i < p->n_row; i++) {
        const struct row *r = &p->row[i];
        printf("%-4d %-4d %-4d ", r->layout.tp, r->layout.pp, r->layout.c);
        if (!r->fits) {
            printf("does not fit: %s\n", r->why);
            continue;
        }
        printf("%-12s %-12s %-12s %-12s %12lld %12lld %10lld\n", dr_bytes_text(r->most.weights, text[0]),
               dr_bytes_text(r->most.workspace, text[1]), dr_bytes_text(r->most.collective, text[2]),
               dr_bytes_text(r->most.cache, text[3]), (long long)r->tokens, (long long)longest(p, r),
               (long long)sequences(r));
    }
    if (best->fits)
        printf("\nBytes are those of the fullest rank. tokens: in all sequences together; longest: one "
               "sequence alone;\n"
               "sequences: of %d tokens at the same time (--context).\n",
               best->layout.context);
}

static dr_status print_json(const struct plan *p) {
    json_t *rows = json_array();
    for (int32_t i = 0; i < p->n_row; i++) {
        const struct row *r = &p->row[i];
        json_t *row = json_pack("{s:i,s:i,s:i,s:b}", "tp", r->layout.tp, "pp", r->layout.pp, "c", r->layout.c,
                                "fits", r->fits);
        json_t *more =
            r->fits
                ? json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "weights_bytes", (json_int_t)r->most.weights,
                            "workspace_bytes", (json_int_t)r->most.workspace, "collective_bytes",
                            (json_int_t)r->most.collective, "cache_bytes", (json_int_t)r->most.cache, "pages",
                            (json_int_t)r->pages, "tokens", (json_int_t)r->tokens, "longest_context",
                            (json_int_t)longest(p, r), "sequences", (json_int_t)sequences(r))
                : json_pack("{s:s}", "reason", r->why);
        const bool added = row && more && json_object_update(row, more) == 0;
        json_decref(more);
        if (!added || json_array_append_new(rows, row) != 0) {
            json_decref(rows);
            return dr_fail(DR_EFULL, "no memory for the report");
        }
    }
    return dr_output_json(json_pack("{s:s,s:i,s:i,s:I,s:I,s:o}", "family", p->config.model_type, "hosts",
                                    p->n_host, "ranks_per_host", p->ranks, "memory_bytes",
                                    (json_int_t)p->memory, "rank_bytes", (json_int_t)p->budget, "layouts",
                                    rows));
}

static dr_status run(struct plan *p) {
    DR_TRY(read_machines(p));
    DR_TRY(read_model(p));
    DR_TRY(try_all(p));
    if (dr_option_int(p->options, DR_OPTION_JSON))
        DR_TRY(print_json(p));
    else
        print_table(p);
    if (fflush(stdout) != 0) return dr_fail(DR_ECANCEL, "%s", "");
    return p->row[0].fits ? dr_ok()
                          : dr_fail(DR_EMODEL, "no layout fits; tp %d, pp %d: %s", p->row[0].layout.tp,
                                    p->row[0].layout.pp, p->row[0].why);
}

dr_status dr_plan_command(struct dr_options *o, struct dr_interrupt *i) {
    (void)i;
    if (!dr_option_present(o, DR_OPTION_MODEL)) return dr_fail(DR_EUSAGE, "no model: deeprack plan MODEL");
    struct plan *p = calloc(1, sizeof *p);
    if (!p) return dr_fail(DR_EFULL, "no memory");
    p->options = o;
    dr_status st = run(p);
    if (p->tensors) dr_tensors_destroy(p->tensors);
    free(p->row);
    free(p);
    return st;
}
