/* plan.c - see plan.h.
 * In:   texts.      Out: lists.
 * Owns: nothing.
 * Why:  see plan.h. */
#include "gateway/bench/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "common/size.h"
#include "proto/limits.h"

struct list {
    int32_t n, at[DR_BENCH_LIST_MAX];
};

static dr_status read_list(const struct dr_options *o, enum dr_option id, int32_t least, int32_t most,
                           struct list *out) {
    const char *name = dr_option_name(id);
    out->n = 0;
    for (const char *p = dr_option_text(o, id);;) {
        char *end;
        errno = 0;
        const long v = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : -1;
        if (v < least || v > most || errno || (*end && *end != ','))
            return dr_fail(
                DR_EUSAGE,
                "--%s: expected whole numbers from %d to %d with commas between them; entry %d is not one",
                name, least, most, out->n + 1);
        if (out->n == DR_BENCH_LIST_MAX)
            return dr_fail(DR_EUSAGE, "--%s: at most %d numbers are taken", name, DR_BENCH_LIST_MAX);
        out->at[out->n++] = (int32_t)v;
        if (!*end) return dr_ok();
        p = end + 1;
    }
}

static int ascending(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void sort_once(struct list *l) {
    int32_t n = 0;
    qsort(l->at, (size_t)l->n, sizeof *l->at, ascending);
    for (int32_t i = 0; i < l->n; i++)
        if (i == 0 || l->at[i] != l->at[i - 1]) l->at[n++] = l->at[i];
    l->n = n;
}

/* ---- clusters ---- */

/* What --layouts may set: it changes how ranks share the work, and nothing that a case is made of. */
static bool of_layout(enum dr_option id) {
    static const enum dr_option ids[] = {
        DR_OPTION_TP,         DR_OPTION_PP,       DR_OPTION_CACHE_WIDTH, DR_OPTION_EXPERTS,
        DR_OPTION_CACHE_TYPE, DR_OPTION_EXCHANGE, DR_OPTION_COLLECTIVES, DR_OPTION_THREADS,
        DR_OPTION_PRECISION,  DR_OPTION_ISA,
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] == id) return true;
    return false;
}

static dr_status read_set(const char *text, size_t bytes, struct dr_bench_layout *l) {
    const char *equals = memchr(text, '=', bytes);
    const size_t name = equals ? (size_t)(equals - text) : bytes, value = equals ? bytes - name - 1 : 0;
    const enum dr_option id = dr_option_find(DR_CMD_BENCH, text, name);
    if (!equals || value == 0 || id == DR_OPTION_COUNT || !of_layout(id))
        return dr_fail(DR_EUSAGE,
                       "--layouts: expected tp=N, pp=N, cache-width, experts, cache-type, exchange, "
                       "collectives, threads, precision or isa, found '%.*s'",
                       (int)(bytes < 40 ? bytes : 40), text);
    if (l->n_set == DR_BENCH_SETS_MAX)
        return dr_fail(DR_EUSAGE, "--layouts: at most %d options a layout", DR_BENCH_SETS_MAX);
    struct dr_bench_set *s = &l->set[l->n_set++];
    s->id = id;
    memcpy(s->value, equals + 1, value);
    s->value[value] = 0;
    return dr_ok();
}

static dr_status read_layout(const char *text, size_t bytes, struct dr_bench_layout *l) {
    *l = (struct dr_bench_layout){.n_set = 0};
    if (bytes == 0 || bytes >= sizeof l->text)
        return dr_fail(DR_EUSAGE, "--layouts: a layout has 1 to %zu bytes, found %zu", sizeof l->text - 1,
                       bytes);
    memcpy(l->text, text, bytes);
    for (size_t at = 0; at < bytes;) {
        const char *comma = memchr(text + at, ',', bytes - at);
        const size_t end = comma ? (size_t)(comma - text) : bytes;
        DR_TRY(read_set(text + at, end - at, l));
        at = end + 1;
    }
    return text[bytes - 1] == ',' ? dr_fail(DR_EUSAGE, "--layouts: '%.60s' ends in a comma", l->text)
                                  : dr_ok();
}

static dr_status read_layouts(const struct dr_options *o, struct dr_bench_plan *p) {
    const char *text = dr_option_text(o, DR_OPTION_LAYOUTS);
    p->n_layout = 0;
    if (!*text) {
        p->layout[p->n_layout++] = (struct dr_bench_layout){.n_set = 0};
        return dr_ok();
    }
    for (const char *at = text;;) {
        const size_t bytes = strcspn(at, ";");
        if (p->n_layout == DR_BENCH_LAYOUTS_MAX)
            return dr_fail(DR_EUSAGE, "--layouts: at most %d layouts", DR_BENCH_LAYOUTS_MAX);
        DR_TRY(read_layout(at, bytes, &p->layout[p->n_layout++]));
        if (!at[bytes]) return dr_ok();
        at += bytes + 1;
    }
}

static dr_status read_weights(const struct dr_options *o, struct dr_bench_plan *p) {
    static const char *const names[] = {[DR_WEIGHTS_NATIVE] = "native", [DR_WEIGHTS_INT8] = "int8"};
    const char *text = dr_option_text(o, DR_OPTION_BENCH_WEIGHTS);
    p->n_weights = 0;
    for (const char *at = text;;) {
        const size_t bytes = strcspn(at, ",");
        int found = -1;
        for (int i = 0; i < 2; i++)
            if (strlen(names[i]) == bytes && !memcmp(names[i], at, bytes)) found = i;
        for (int32_t i = 0; i < p->n_weights; i++)
            if ((int)p->weights[i] == found) found = -1;
        if (found < 0)
            return dr_fail(DR_EUSAGE, "--weights: expected native, int8 or native,int8, found '%.40s'", text);
        p->weights[p->n_weights++] = (enum dr_weights)found;
        if (!at[bytes]) return dr_ok();
        at += bytes + 1;
    }
}

/* ---- cases ---- */

int32_t dr_bench_case_prompt(const struct dr_bench_case *c) {
    return c->prompt > 0 ? c->depth + c->prompt : dr_max_i32(1, c->depth);
}

/* The first token of a generation comes from its prompt and is not timed. */
int32_t dr_bench_case_draws(const struct dr_bench_case *c) {
    return c->prompt > 0 ? 1 : c->gen + 1;
}

static void add(struct dr_bench_plan *p, struct dr_bench_case c) {
    p->cases[p->n_case++] = c;
    p->context = dr_max_i32(p->context, dr_bench_case_prompt(&c) + dr_bench_case_draws(&c));
    p->batch_most = dr_max_i32(p->batch_most, c.batch);
}

static dr_status make_cases(const struct dr_options *o, struct dr_bench_plan *p) {
    struct list prompt, gen, depth, batch;
    const int32_t longest = DR_PROMPT_IDS_MAX / 2, step = (int32_t)dr_option_int(o, DR_OPTION_STEP_TOKENS);
    DR_TRY(read_list(o, DR_OPTION_PROMPT_LENGTHS, 0, longest, &prompt));
    DR_TRY(read_list(o, DR_OPTION_GEN_LENGTHS, 0, longest, &gen));
    DR_TRY(read_list(o, DR_OPTION_DEPTHS, 0, longest, &depth));
    DR_TRY(read_list(o, DR_OPTION_BATCH, 1, DR_SEQS_MAX, &batch));
    sort_once(&batch);
    p->cases = calloc((size_t)depth.n * (size_t)(prompt.n + gen.n) * (size_t)batch.n, sizeof *p->cases);
    if (!p->cases) return dr_fail(DR_EFULL, "no memory for the list of cases");
    for (int32_t d = 0; d < depth.n; d++) {
        for (int32_t i = 0; i < prompt.n; i++) {
            if (prompt.at[i] == 0) continue;
            if (depth.at[d] % step != 0)
                return dr_fail(DR_EUSAGE,
                               "--depths: %d: prefill at a depth begins with a step, so the depth must be a "
                               "multiple of --step-tokens (%d); or give --prompt-lengths 0",
                               depth.at[d], step);
            for (int32_t b = 0; b < (depth.at[d] ? 1 : batch.n); b++)
                add(p, (struct dr_bench_case){.prompt = prompt.at[i],
                                              .depth = depth.at[d],
                                              .batch = depth.at[d] ? 1 : batch.at[b]});
        }
        for (int32_t i = 0; i < gen.n; i++)
            for (int32_t b = 0; gen.at[i] && b < batch.n; b++)
                add(p, (struct dr_bench_case){.gen = gen.at[i], .depth = depth.at[d], .batch = batch.at[b]});
    }
    if (p->n_case == 0)
        return dr_fail(DR_EUSAGE, "--prompt-lengths and --gen-lengths are 0: there is nothing to measure");
    return dr_ok();
}

/* A context or a number of sequences that was given must be enough. */
static dr_status check_given(const struct dr_options *o, const struct dr_bench_plan *p) {
    const int64_t context = dr_option_int(o, DR_OPTION_CONTEXT), seqs = dr_option_int(o, DR_OPTION_SEQS_MAX);
    if (context > 0 && context < p->context)
        return dr_fail(DR_EUSAGE, "--context: %" PRId64 ", the longest case needs %d", context, p->context);
    if (o->value[DR_OPTION_SEQS_MAX].set && seqs < p->batch_most)
        return dr_fail(DR_EUSAGE, "--seqs-max: %" PRId64 ", the largest batch is %d", seqs, p->batch_most);
    if (p->batch_most > dr_option_int(o, DR_OPTION_STEP_TOKENS))
        return dr_fail(DR_EUSAGE, "--batch: %d sequences need as many --step-tokens, which are %" PRId64,
                       p->batch_most, dr_option_int(o, DR_OPTION_STEP_TOKENS));
    return dr_ok();
}

dr_status dr_bench_plan_make(const struct dr_options *o, struct dr_bench_plan *out) {
    *out = (struct dr_bench_plan){
        .reps = (int32_t)dr_option_int(o, DR_OPTION_REPS),
        .warmup = (int32_t)dr_option_int(o, DR_OPTION_WARMUP),
        .seed = dr_option_present(o, DR_OPTION_SEED) ? (uint64_t)dr_option_int(o, DR_OPTION_SEED) : 0,
    };
    dr_status st = read_layouts(o, out);
    if (st.code == DR_OK) st = read_weights(o, out);
    if (st.code == DR_OK) st = make_cases(o, out);
    if (st.code == DR_OK) st = check_given(o, out);
    if (st.code != DR_OK) dr_bench_plan_fini(out);
    return st;
}

void dr_bench_plan_fini(struct dr_bench_plan *p) {
    free(p->cases);
    *p = (struct dr_bench_plan){.n_case = 0};
}

static dr_status set_number(struct dr_options *o, enum dr_option id, int64_t v) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, v);
    return dr_option_set(o, id, text);
}

dr_status dr_bench_plan_options(const struct dr_bench_plan *p, const struct dr_options *o, int32_t layout,
                                enum dr_weights weights, struct dr_options *out) {
    const struct dr_bench_layout *l = &p->layout[layout];
    struct dr_options copy;
    DR_TRY(dr_options_copy(o, &copy));
    dr_status st = dr_option_set(&copy, DR_OPTION_WEIGHTS, weights == DR_WEIGHTS_INT8 ? "int8" : "native");
    for (int32_t i = 0; st.code == DR_OK && i < l->n_set; i++)
        st = dr_option_set(&copy, l->set[i].id, l->set[i].value);
    if (st.code == DR_OK && dr_option_int(o, DR_OPTION_CONTEXT) == 0)
        st = set_number(&copy, DR_OPTION_CONTEXT, p->context);
    if (st.code == DR_OK) /* the bits of no reuse; the runner's salts say what may be found */
        st = dr_option_set(&copy, DR_OPTION_REUSE, "exact");
    if (st.code == DR_OK && !o->value[DR_OPTION_STEP_MS].set) /* the same steps however fast the machine */
        st = set_number(&copy, DR_OPTION_STEP_MS, 0);
    if (st.code == DR_OK && !o->value[DR_OPTION_SEQS_MAX].set)
        st = set_number(&copy, DR_OPTION_SEQS_MAX, p->batch_most);
    if (st.code != DR_OK) {
        dr_options_fini(&copy);
        return l->n_set ? dr_fail_within(st, "--layouts '%s': ", l->text) : st;
    }
    *out = copy;
    return st;
}

dr_status dr_bench_plan_fits(const struct dr_bench_plan *p, const struct dr_layout *l) {
    for (int32_t i = 0; i < p->n_case; i++) {
        const struct dr_bench_case *c = &p->cases[i];
        const int64_t pages =
            dr_ceil_div(dr_bench_case_prompt(c) + dr_bench_case_draws(c), l->page_tokens) * (int64_t)c->batch;
        char name[64];
        if (pages > l->n_page)
            return dr_fail(DR_EMODEL,
                           "%s: needs %" PRId64 " cache pages at once, the cluster has %d; give more "
                           "--cache-memory, or smaller cases",
                           dr_bench_case_name(c, name), pages, l->n_page);
    }
    return dr_ok();
}

uint32_t dr_bench_id(uint64_t seed, int32_t sequence, int32_t position, int32_t vocab) {
    return (uint32_t)(dr_rng_u64(dr_rng_derive(seed, (uint64_t)sequence), (uint64_t)position, 0) %
                      (uint64_t)vocab);
}

const char *dr_bench_case_name(const struct dr_bench_case *c, char out[64]) {
    int n = snprintf(out, 64, "%s%d", c->prompt ? "pp" : "tg", c->prompt ? c->prompt : c->gen);
    if (c->depth) n += snprintf(out + n, 64 - (size_t)n, " @ %d", c->depth);
    if (c->batch > 1) snprintf(out + n, 64 - (size_t)n, ", %d sequences", c->batch);
    return out;
}
