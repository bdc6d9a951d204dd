/* trace.c - see trace.h.
 * In:   a file or a profile.      Out: requests.
 * Owns: see trace.h.
 * Why:  see trace.h. */
#include "tests/sim/trace.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "tests/support/splitmix.h"

enum { BLOCK = 512, OWN_BLOCK = 64, SYSTEMS = 200, LINE_BYTES = 1 << 20 };

static double uniform(uint64_t *state) { /* (0, 1] */
    *state = splitmix(*state);
    return ((double)(*state >> 11) + 1) / 9007199254740992.0;
}

static int32_t within(double x, int32_t least, int32_t most) {
    return x < least ? least : x > most ? most : (int32_t)x;
}

/* Log-normal of this median; sigma of the logarithm. */
static double log_normal(uint64_t *s, double median, double sigma) {
    const double radius = sqrt(-2 * log(uniform(s)));
    return median * exp(sigma * radius * cos(6.283185307179586 * uniform(s)));
}

static void lengths(struct sim_request *r, enum sim_profile p, uint64_t *s, int32_t context) {
    double in = log_normal(s, 600, 0.9), out = log_normal(s, 120, 0.8);
    if (p == SIM_HEAVY) in = 200 * pow(uniform(s), -1 / 1.1); /* Pareto, alpha 1.1: no finite variance */
    r->n_prompt = within(in, 1, context / 2);
    r->n_output = within(out, 1, dr_min_i32(2000, context - r->n_prompt));
}

/* A system prompt of 1,024 to 3,072 ids, then a conversation: its own blocks, of which it shows more each
 * time. */
static void share(struct sim_request *r, uint64_t *s, int32_t context) {
    const int32_t system = (int32_t)(SYSTEMS * pow(uniform(s), 3)) % SYSTEMS;
    const int32_t talk = (int32_t)(uniform(s) * 4000), turn = (int32_t)(uniform(s) * 12);
    r->shared = 16 + system % 3 * 16;
    r->prefix = (uint32_t)system * 64;
    r->own = 0x10000U + ((uint32_t)system * 4096 + (uint32_t)talk) * 64;
    r->n_prompt = within((r->shared + turn) * OWN_BLOCK + 1 + uniform(s) * OWN_BLOCK, 1, context / 2);
}

static double tokens_of(const struct sim_request *r) {
    return (double)r->n_prompt + r->n_output;
}

dr_status sim_trace_make(struct sim_trace *t, enum sim_profile profile, int64_t n, uint64_t seed,
                         double tokens_s, int32_t context) {
    struct sim_trace out = {.n = n, .block = OWN_BLOCK, .request = calloc((size_t)n, sizeof *out.request)};
    uint64_t s = splitmix(seed);
    double now = 0, sum = 0;
    if (!out.request) return dr_fail(DR_EFULL, "no memory for %lld requests", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        struct sim_request *r = &out.request[i];
        *r = (struct sim_request){.first = -1, .own = (uint32_t)i * 4096 + 0x40000000U};
        lengths(r, profile, &s, context);
        if (profile == SIM_PREFIX) share(r, &s, context);
        r->tenant = (int32_t)(uniform(&s) * uniform(&s) * 8);
        r->priority = uniform(&s) < 0.02 ? -1 : uniform(&s) < 0.02 ? 1 : 0;
        sum += tokens_of(r);
    }
    const double each_s = sum / (double)n / tokens_s;
    for (int64_t i = 0; i < n; i++) {
        const bool burst = profile == SIM_BURSTY && fmod(now, 200 * each_s) < 20 * each_s;
        const double rate = profile != SIM_BURSTY ? 1 : burst ? 5.5 : 0.5;
        now += -log(uniform(&s)) * each_s / rate;
        out.request[i].at_ns = (uint64_t)(now * 1e9);
    }
    *t = out;
    return dr_ok();
}

/* ---- files ---- */

static dr_status grow(void **at, int64_t n, int64_t *room, size_t size) {
    if (n < *room) return dr_ok();
    const int64_t more = 2 * *room + 1024;
    void *p = realloc(*at, (size_t)more * size);
    if (!p) return dr_fail(DR_EFULL, "no memory for a trace of %lld entries", (long long)more);
    *at = p;
    *room = more;
    return dr_ok();
}

struct reader {
    struct sim_trace t;
    int64_t room, name_room;
    int32_t context;
};

static dr_status take_names(struct reader *d, const json_t *list, int64_t line) {
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return dr_fail(DR_EREQUEST, "line %lld: hash_ids[%zu]: expected a number of 0 or more",
                           (long long)line, i);
        DR_TRY(grow((void **)&d->t.name, d->t.n_name, &d->name_room, sizeof *d->t.name));
        d->t.name[d->t.n_name++] = (uint32_t)json_integer_value(v);
    }
    return dr_ok();
}

static dr_status take_line(struct reader *d, const char *text, int64_t line) {
    double at = 0;
    json_int_t in = 0, out = 0;
    json_t *names = NULL, *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    dr_status st = dr_ok();
    if (!root ||
        json_unpack(root, "{s:F, s:I, s:I, s:o}", "timestamp", &at, "input_length", &in, "output_length",
                    &out, "hash_ids", &names) != 0 ||
        !json_is_array(names) || at < 0 || at > 1e15 || in < 1 || in > INT32_MAX || out < 0 ||
        out > INT32_MAX || (json_int_t)json_array_size(names) * BLOCK < in)
        st = dr_fail(DR_EREQUEST,
                     "line %lld: expected {\"timestamp\": ms, \"input_length\": n, \"output_length\": n, "
                     "\"hash_ids\": "
                     "one for each %d tokens}",
                     (long long)line, BLOCK);
    if (st.code == DR_OK) st = grow((void **)&d->t.request, d->t.n, &d->room, sizeof *d->t.request);
    const int64_t first = d->t.n_name;
    if (st.code == DR_OK) st = take_names(d, names, line);
    if (st.code == DR_OK) {
        const int32_t n = within((double)in, 1, d->context - 2);
        d->t.request[d->t.n++] = (struct sim_request){
            .at_ns = (uint64_t)(at * 1e6),
            .n_prompt = n,
            .n_output = within((double)out, 1, d->context - n),
            .first = first,
        };
    }
    json_decref(root);
    return st;
}

static int by_arrival(const void *a, const void *b) {
    const struct sim_request *x = a, *y = b;
    return x->at_ns != y->at_ns  ? (x->at_ns < y->at_ns ? -1 : 1)
           : x->first < y->first ? -1
                                 : x->first > y->first;
}

dr_status sim_trace_read(struct sim_trace *t, const char *path, int64_t n, int32_t context) {
    struct reader d = {.t = {.block = BLOCK}, .context = context};
    FILE *f = fopen(path, "r");
    char *text = malloc(LINE_BYTES);
    if (!f || !text) {
        dr_status st =
            f ? dr_fail(DR_EFULL, "no memory for a line") : dr_fail(DR_EIO, "%s: %s", path, strerror(errno));
        if (f) fclose(f);
        free(text);
        return st;
    }
    dr_status st = dr_ok();
    for (int64_t line = 1; st.code == DR_OK && (n == 0 || d.t.n < n) && fgets(text, LINE_BYTES, f); line++)
        if (text[strspn(text, " \t\r\n")]) st = take_line(&d, text, line);
    fclose(f);
    free(text);
    if (st.code == DR_OK && d.t.n == 0) st = dr_fail(DR_EREQUEST, "%s: no requests", path);
    if (st.code != DR_OK) {
        sim_trace_fini(&d.t);
        return st;
    }
    qsort(d.t.request, (size_t)d.t.n, sizeof *d.t.request, by_arrival);
    *t = d.t;
    return st;
}

void sim_trace_fini(struct sim_trace *t) {
    free(t->request);
    free(t->name);
    *t = (struct sim_trace){0};
}

void sim_trace_ids(const struct sim_trace *t, const struct sim_request *r, int32_t vocab, uint32_t *ids) {
    for (int32_t b = 0, at = 0; at < r->n_prompt; b++) {
        const uint64_t name = r->first >= 0   ? t->name[r->first + b]
                              : b < r->shared ? r->prefix + (uint32_t)b
                                              : r->own + (uint32_t)(b - r->shared);
        uint64_t x = splitmix(name);
        for (int32_t k = 0; k < t->block && at < r->n_prompt;
             k++, x = x * 6364136223846793005U + 1442695040888963407U)
            ids[at++] = (uint32_t)((x >> 33) % (uint64_t)vocab);
    }
}
