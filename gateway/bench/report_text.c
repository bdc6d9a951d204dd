/* report_text.c - a report for people: an aligned table, or Markdown.
 * In:   struct dr_bench_report.      Out: stdout.
 * Owns: the text until it is written.
 * Why:  one list of columns serves both forms. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/bench/report.h"
#include "gateway/cli/command.h"
#include "gateway/cluster/resolve.h"

enum { CELL = 112, COLUMNS_MAX = 24 };

/* ---- columns ---- */

static void number(char out[CELL], double v) { /* three digits that count */
    snprintf(out, CELL, "%.*f", v >= 1000 ? 0 : v >= 100 ? 1 : v >= 1 ? 2 : 3, v);
}

static void share(char out[CELL], double part, double whole) {
    if (whole > 0)
        snprintf(out, CELL, "%.0f%%", 100 * part / whole);
    else
        snprintf(out, CELL, "-");
}

struct cell {
    const struct dr_bench_cluster *c;
    const struct dr_bench_row *row;
};

static double part(const struct cell *x, enum dr_step_part a, enum dr_step_part b) {
    const struct dr_bench_tally *t = &x->row->tally;
    return dr_bench_tally_part_ms(t, a) + (b == a ? 0 : dr_bench_tally_part_ms(t, b));
}

static void layout(const struct cell *x, char out[CELL]) {
    dr_bench_layout_name(x->c, out);
}
static void weights(const struct cell *x, char out[CELL]) {
    snprintf(out, CELL, "%s", dr_weights_name(x->c->layout.weights));
}
static void test(const struct cell *x, char out[CELL]) {
    char name[64];
    snprintf(out, CELL, "%s", dr_bench_case_name(&x->row->c, name));
}
static void rate(const struct cell *x, char out[CELL]) {
    number(out, x->row->tally.median);
}
static void range(const struct cell *x, char out[CELL]) {
    char a[CELL], b[CELL];
    number(a, x->row->tally.least);
    number(b, x->row->tally.most);
    snprintf(out, CELL, "%.40s-%.40s", a, b);
}
static void step_ms(const struct cell *x, char out[CELL]) {
    number(out, dr_bench_tally_step_ms(&x->row->tally));
}
static void attention(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_PROJECT, DR_PART_ATTENTION));
}
static void experts(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_EXPERTS, DR_PART_ROUTER));
}
static void collectives(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_COLLECTIVE, DR_PART_COLLECTIVE));
}
static void waiting(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_WAIT, DR_PART_WAIT));
}
static void head(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_HEAD, DR_PART_SAMPLER));
}
static void other(const struct cell *x, char out[CELL]) {
    number(out, part(x, DR_PART_EMBED, DR_PART_REST) + dr_bench_tally_between_ms(&x->row->tally));
}
static void bytes_s(const struct cell *x, char out[CELL]) {
    number(out, dr_bench_row_bytes_s(x->row) / 1e9);
}
static void bytes_share(const struct cell *x, char out[CELL]) {
    share(out, dr_bench_row_bytes_s(x->row), x->c->peaks.read_bytes_s);
}
static void flop_s(const struct cell *x, char out[CELL]) {
    number(out, dr_bench_row_flop_s(x->row) / 1e9);
}
static void flop_share(const struct cell *x, char out[CELL]) {
    share(out, dr_bench_row_flop_s(x->row), x->c->peaks.linear_op_s);
}
static void predicted(const struct cell *x, char out[CELL]) {
    number(out, dr_bench_bound_rate(&x->row->bound));
}
static void of_predicted(const struct cell *x, char out[CELL]) {
    share(out, x->row->tally.median, dr_bench_bound_rate(&x->row->bound));
}
static void bound(const struct cell *x, char out[CELL]) {
    const struct dr_bench_bound *b = &x->row->bound;
    snprintf(out, CELL, "%s", b->memory_seconds > b->seconds / 2 ? "memory" : "arithmetic");
}
static void digest(const struct cell *x, char out[CELL]) {
    snprintf(out, CELL, "%016llx", (unsigned long long)x->row->tally.digest);
}

static const struct column {
    const char *head;
    void (*cell)(const struct cell *x, char out[CELL]);
    bool left, roofline;
} columns[] = {
    {"layout", layout, true, false},
    {"weights", weights, true, false},
    {"test", test, true, false},
    {"tokens/s", rate, false, false},
    {"range", range, false, false},
    {"ms/step", step_ms, false, false},
    {"attention", attention, false, false},
    {"experts", experts, false, false},
    {"collectives", collectives, false, false},
    {"waiting", waiting, false, false},
    {"head", head, false, false},
    {"other", other, false, false},
    {"GB/s", bytes_s, false, false},
    {"of read", bytes_share, false, false},
    {"GFLOP/s", flop_s, false, false},
    {"of peak", flop_share, false, false},
    {"predicted", predicted, false, true},
    {"of predicted", of_predicted, false, true},
    {"bound", bound, true, true},
    {"digest of ids", digest, true, false},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* ---- text ---- */

struct page {
    struct dr_text text;
    dr_status st;
};

__attribute__((format(printf, 2, 3))) static void say(struct page *p, const char *fmt, ...) {
    char line[1024];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    const size_t bytes = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    if (p->st.code == DR_OK) p->st = dr_text_push(&p->text, line, bytes);
}

/* widths[i] is enough for heads and cells of the columns shown. */
static void measure(const struct dr_bench_report *r, int widths[COLUMNS]) {
    for (int i = 0; i < COLUMNS; i++) {
        char text[CELL];
        widths[i] = (int)strlen(columns[i].head);
        for (int32_t c = 0; c < r->n; c++)
            for (int32_t k = 0; k < r->cluster[c].n_row; k++) {
                const struct cell x = {.c = &r->cluster[c], .row = &r->cluster[c].row[k]};
                columns[i].cell(&x, text);
                if ((int)strlen(text) > widths[i]) widths[i] = (int)strlen(text);
            }
    }
}

static void say_row(struct page *p, const struct dr_bench_report *r, const int widths[COLUMNS], bool markdown,
                    const struct cell *x) {
    for (int i = 0; i < COLUMNS; i++) {
        char text[CELL];
        if (columns[i].roofline && !r->roofline) continue;
        if (x)
            columns[i].cell(x, text);
        else
            snprintf(text, sizeof text, "%s", columns[i].head);
        say(p, "%s%*s%s", markdown ? "| " : "", columns[i].left ? -widths[i] : widths[i], text,
            markdown ? " " : "  ");
    }
    say(p, "%s\n", markdown ? "|" : "");
}

static void say_rule(struct page *p, const struct dr_bench_report *r) {
    for (int i = 0; i < COLUMNS; i++)
        if (!columns[i].roofline || r->roofline) say(p, columns[i].left ? "|---" : "|---:");
    say(p, "|\n");
}

static void say_machine(struct page *p, const struct dr_bench_report *r) {
    char memory[32];
    const struct dr_bench_machine *m = &r->machine;
    say(p, "deeprack %s, model %s, %d repetitions after %d warm-up, seed %llu\n", dr_bench_version(),
        r->model, r->reps, r->warmup, (unsigned long long)r->seed);
    say(p, "%s, %d cores, %d NUMA nodes, %s, %s\n", m->cpu, m->cores, m->nodes,
        dr_bytes_text(m->memory_bytes, memory), m->system);
}

static void say_cluster(struct page *p, const struct dr_bench_cluster *c) {
    char name[96], peak[32], plan[32];
    const struct dr_arithmetic *a = &c->facts->rank[0].arithmetic;
    const struct dr_probe *b = &c->probe;
    uint64_t worst = 0, load = 0;
    double over = 0;
    for (int32_t i = 0; i < c->layout.n_rank; i++) {
        const double ratio_ = c->plan_bytes[i] ? (double)c->peak_bytes[i] / (double)c->plan_bytes[i] : 0;
        if (ratio_ >= over) over = ratio_, worst = (uint64_t)i;
        if (c->facts->rank[i].load_ns > load) load = c->facts->rank[i].load_ns;
    }
    say(p,
        "%s, %s weights: kernels %s, --precision %s (inputs %s), cache %zu bytes a token, loaded in %.1f s\n",
        dr_bench_layout_name(c, name), dr_weights_name(c->layout.weights), a->isa, c->precision, a->inputs,
        c->token_bytes, (double)load / 1e9);
    say(p, "  memory: peak %s of planned %s (%.2f) on rank %d, the fullest of %d\n",
        dr_bytes_text(c->peak_bytes[worst], peak), dr_bytes_text(c->plan_bytes[worst], plan), over,
        (int)worst, c->layout.n_rank);
    say(p,
        "  measured on the gateway's machine, %d threads: reads %.1f GB/s%s, f32 %.0f GFLOP/s, int8 %.0f "
        "GOP/s",
        b->n_thread, b->read_bytes_s / 1e9, b->huge_pages ? " (2 MiB pages)" : "", b->f32_flop_s / 1e9,
        b->int8_op_s / 1e9);
    if (b->bf16_flop_s > 0) say(p, ", BF16 %.0f GFLOP/s", b->bf16_flop_s / 1e9);
    say(p, "\n");
}

dr_status dr_bench_report_text(const struct dr_bench_report *r, bool markdown) {
    struct page p = {.st = dr_ok()};
    int widths[COLUMNS];
    measure(r, widths);
    say_machine(&p, r);
    for (int32_t i = 0; i < r->n; i++) say_cluster(&p, &r->cluster[i]);
    say(&p, "\n");
    say_row(&p, r, widths, markdown, NULL);
    if (markdown) say_rule(&p, r);
    for (int32_t i = 0; i < r->n; i++)
        for (int32_t k = 0; k < r->cluster[i].n_row; k++) {
            const struct cell x = {.c = &r->cluster[i], .row = &r->cluster[i].row[k]};
            say_row(&p, r, widths, markdown, &x);
        }
    if (p.st.code == DR_OK) p.st = dr_output_write(p.text.at, p.text.n);
    dr_text_fini(&p.text);
    return p.st;
}
