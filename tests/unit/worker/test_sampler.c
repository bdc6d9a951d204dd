/* test_sampler.c - equal logits on 1 to 8 shards.
 * In:   random logits and wishes.      Out: the same tokens for every cut, and those that a plain sort gives.
 * Owns: threads of a loop group.
 * Why:  the promise is exact: a cut of the vocabulary may change nothing, not even a bit of a
 * log-probability. */

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/rng.h"
#include "tests/support/runner.h"
#include "tests/unit/worker/fixture.h"
#include "worker/sampler/sampler.h"

enum { ROWS = DR_OUT_BATCH, VOCAB = 1003, SHARDS = 8 };

struct input {
    struct dr_sample_want want[ROWS];
    int32_t n;
    float logits[ROWS][VOCAB];
    uint16_t prompt[ROWS][VOCAB], output[ROWS][VOCAB];
    bool counted[ROWS];
};

struct output {
    struct dr_sample_got got[ROWS];
    struct dr_top top[ROWS][DR_TOP_MAX];
};

struct shard {
    const struct input *in;
    struct dr_config config;
    struct dr_layout layout;
    struct dr_group *group;
    int32_t rank;
    struct output out;
    dr_status st;
};

/* Moves the ledger to the sampler's first call. */
static void skip_layers(struct dr_ledger *g) {
    struct dr_schedule before = g->schedule;
    struct dr_call call;
    while (dr_schedule_next(&g->schedule, &call) && call.what < DR_WHAT_SAMPLE_MAX) before = g->schedule;
    g->schedule = before;
}

static dr_status run(struct shard *s) {
    const struct dr_ops *ops;
    struct dr_team *team;
    struct dr_shape_segment segment[ROWS];
    struct dr_sample_want want[ROWS];
    struct dr_step_shape shape = {.n_segment = s->in->n, .n_rows = s->in->n, .segment = segment};
    struct dr_ledger ledger = {.rank = s->rank, .group = {[DR_GROUP_STAGE] = s->group}};
    struct dr_range cols = dr_layout_shard(&s->config, &s->layout, s->rank).vocab;
    size_t n = (size_t)dr_range_len(cols), exchange = (size_t)ROWS * DR_SAMPLE_BINS_BYTES;
    DR_TRY(dr_ops_cpu(&ops));
    DR_TRY(dr_team_create(1, &team));
    struct dr_stream stream = {.team = team};
    float *logits = calloc(ROWS * n, sizeof *logits), *adjusted = calloc(ROWS * n, sizeof *adjusted);
    uint8_t *in = malloc(exchange), *sum = malloc(exchange), *all = malloc(exchange * SHARDS);
    CU_ASSERT_FATAL(logits && adjusted && in && sum && all);
    for (int32_t i = 0; i < s->in->n; i++) {
        const struct dr_sample_want *w = &s->in->want[i];
        want[i] = *w;
        want[i].row.count_prompt = s->in->counted[i] ? s->in->prompt[i] + cols.begin : NULL;
        want[i].row.count_output = s->in->counted[i] ? s->in->output[i] + cols.begin : NULL;
        memcpy(logits + (size_t)i * n, s->in->logits[i] + cols.begin, n * sizeof *logits);
        segment[i] = (struct dr_shape_segment){.first = 3,
                                               .n_rows = 1,
                                               .absorbed = true,
                                               .n_out_rows = 1,
                                               .sample = w->draw,
                                               .top_k = w->top_k_on,
                                               .top_p = w->top_p_on,
                                               .n_top = w->n_top};
        s->out.got[i].top = s->out.top[i];
    }
    struct dr_sampler sampler = {.ops = ops,
                                 .stream = &stream,
                                 .ledger = &ledger,
                                 .first = cols.begin,
                                 .n_col = (int32_t)n,
                                 .adjusted = adjusted,
                                 .in = in,
                                 .sum = sum,
                                 .all = all};
    dr_ledger_begin(&ledger, &s->config, &s->layout, &shape, 1, dr_clock_ns() + 20000000000u);
    skip_layers(&ledger);
    dr_status st = dr_sampler_run(&sampler, 0, want, s->in->n, logits, s->out.got);
    if (st.code == DR_OK) st = dr_ledger_end(&ledger);
    free(logits), free(adjusted), free(in), free(sum), free(all);
    dr_team_destroy(team);
    return st;
}

static void *thread(void *arg) {
    struct shard *s = arg;
    s->st = run(s);
    if (s->st.code != DR_OK && s->group) dr_group_loop_break(s->group);
    return NULL;
}

/* Runs on n shards; all of them must agree. Output of shard 0. */
static void sample(const struct input *in, int32_t n, struct output *out) {
    static struct shard shard[SHARDS];
    struct dr_group *group[SHARDS] = {NULL};
    pthread_t id[SHARDS];
    memset(shard, 0, sizeof shard);
    if (n > 1) CU_ASSERT_FATAL(dr_group_loop_create(n, 1 << 20, group).code == DR_OK);
    for (int32_t i = 0; i < n; i++) {
        shard[i].in = in;
        shard[i].config = fixture_config();
        shard[i].layout = fixture_layout(&shard[i].config, n, 1, 1);
        shard[i].group = group[i];
        shard[i].rank = i;
        CU_ASSERT_FATAL(pthread_create(&id[i], NULL, thread, &shard[i]) == 0);
    }
    for (int32_t i = 0; i < n; i++) (void)pthread_join(id[i], NULL);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT(shard[i].st.code == DR_OK);
        dr_group_destroy(group[i]);
        for (int32_t r = 0; r < in->n; r++) {
            const struct dr_sample_got *a = &shard[0].out.got[r], *b = &shard[i].out.got[r];
            CU_ASSERT(a->bad == b->bad && a->id == b->id &&
                      memcmp(&a->logprob, &b->logprob, sizeof a->logprob) == 0);
            CU_ASSERT(a->n_top == b->n_top && memcmp(a->top, b->top, (size_t)a->n_top * sizeof *a->top) == 0);
        }
    }
    *out = shard[0].out;
}

/* Every mixture of wishes. */
static void fill(struct input *in, uint64_t seed) {
    uint64_t state = seed * 1000003;
    memset(in, 0, sizeof *in);
    in->n = ROWS - 3;
    for (int32_t r = 0; r < in->n; r++) {
        struct dr_sample_want *w = &in->want[r];
        float spread = 0.5F + (float)fixture_random(&state, 60) / 10;
        for (int32_t i = 0; i < VOCAB; i++)
            in->logits[r][i] = spread * ((float)fixture_random(&state, 4096) / 2048 - 1) * 2;
        w->draw = fixture_random(&state, 5) != 0;
        w->n_top = (int32_t)fixture_random(&state, 4) - 1;
        w->target = UINT32_MAX;
        if (!w->draw) {
            w->n_top = w->n_top < 0 ? 0 : w->n_top;
            w->target = fixture_random(&state, 4) ? fixture_random(&state, VOCAB) : UINT32_MAX;
            continue;
        }
        w->row = (struct dr_sample_row){.temperature = (float)fixture_random(&state, 4) / 2,
                                        .repetition = 1,
                                        .seed = fixture_random(&state, 1000),
                                        .position = (uint64_t)r + 77};
        w->top_k = 1 + (int32_t)fixture_random(&state, 40);
        w->top_p = (float)(1 + fixture_random(&state, 99)) / 100;
        w->min_p = fixture_random(&state, 3) ? 0 : (float)fixture_random(&state, 50) / 200;
        w->top_k_on = w->row.temperature > 0 && fixture_random(&state, 2);
        w->top_p_on = w->row.temperature > 0 && fixture_random(&state, 2);
        in->counted[r] = fixture_random(&state, 2);
        if (!in->counted[r]) continue;
        w->row.repetition = 1.5F;
        w->row.frequency = 0.25F;
        w->row.presence = 0.5F;
        for (int32_t i = 0; i < 300; i++) in->prompt[r][fixture_random(&state, VOCAB)]++;
        for (int32_t i = 0; i < 300; i++) in->output[r][fixture_random(&state, VOCAB)]++;
    }
}

static void equal_cuts(void) {
    static struct input in;
    static struct output one, other;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        fill(&in, seed);
        sample(&in, 1, &one);
        for (int32_t n = 2; n <= SHARDS; n++) {
            sample(&in, n, &other);
            for (int32_t r = 0; r < in.n; r++) {
                const struct dr_sample_got *a = &one.got[r], *b = &other.got[r];
                CU_ASSERT(!a->bad && !b->bad);
                CU_ASSERT(a->id == b->id && memcmp(&a->logprob, &b->logprob, sizeof a->logprob) == 0);
                CU_ASSERT(a->n_top == b->n_top &&
                          memcmp(one.top[r], other.top[r], (size_t)a->n_top * sizeof **one.top) == 0);
            }
        }
    }
}

struct candidate {
    float x;
    uint32_t id;
};

static int descending(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return x->x < y->x ? 1 : x->x > y->x ? -1 : x->id < y->id ? -1 : 1;
}

/* The token by sorting, in double precision. */
static uint32_t by_sort(const struct input *in, int32_t r) {
    static struct candidate c[VOCAB];
    const struct dr_sample_want *w = &in->want[r];
    int32_t n = VOCAB;
    for (int32_t i = 0; i < VOCAB; i++) {
        float x = in->logits[r][i];
        if (in->counted[r] && (in->prompt[r][i] || in->output[r][i]))
            x = x > 0 ? x / w->row.repetition : x * w->row.repetition;
        if (in->counted[r]) x -= w->row.frequency * (float)in->output[r][i];
        if (in->counted[r] && in->output[r][i]) x -= w->row.presence;
        c[i] =
            (struct candidate){.x = w->row.temperature > 0 ? x / w->row.temperature : x, .id = (uint32_t)i};
    }
    qsort(c, VOCAB, sizeof *c, descending);
    if (w->row.temperature == 0) return c[0].id;
    while (w->min_p > 0 && exp((double)c[n - 1].x - (double)c[0].x) < (double)w->min_p) n--;
    if (w->top_k_on && w->top_k < n)
        for (n = w->top_k; n < VOCAB && c[n].x == c[n - 1].x;) n++;
    if (w->top_p_on) {
        double sum = 0, part = 0;
        int32_t keep = 0;
        for (int32_t i = 0; i < n; i++) sum += exp((double)c[i].x - (double)c[0].x);
        while (part < (double)w->top_p * sum) part += exp((double)c[keep++].x - (double)c[0].x);
        while (keep < n && c[keep].x == c[keep - 1].x) keep++;
        n = keep;
    }
    uint32_t best = 0;
    float score = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        float s = c[i].x + dr_rng_gumbel(w->row.seed, w->row.position, c[i].id);
        if (s > score || (s == score && c[i].id < best)) {
            best = c[i].id;
            score = s;
        }
    }
    return best;
}

static double log_probability(const struct input *in, int32_t r, uint32_t id) {
    double max = -DBL_MAX, sum = 0;
    for (int32_t i = 0; i < VOCAB; i++) max = fmax(max, (double)in->logits[r][i]);
    for (int32_t i = 0; i < VOCAB; i++) sum += exp((double)in->logits[r][i] - max);
    return (double)in->logits[r][id] - max - log(sum);
}

static void same_as_sort(void) {
    static struct input in;
    static struct output out;
    int32_t limited = 0;
    for (uint64_t seed = 11; seed <= 16; seed++) {
        fill(&in, seed);
        sample(&in, 3, &out);
        for (int32_t r = 0; r < in.n; r++) {
            const struct dr_sample_want *w = &in.want[r];
            uint32_t expected = w->draw ? by_sort(&in, r) : w->target;
            limited += w->top_k_on || w->top_p_on;
            CU_ASSERT(out.got[r].id == expected);
            if (w->n_top < 0 || expected == UINT32_MAX) continue;
            CU_ASSERT(fabs((double)out.got[r].logprob - log_probability(&in, r, expected)) < 1e-5);
            CU_ASSERT(out.got[r].n_top == w->n_top);
            for (int32_t k = 0; k < w->n_top; k++) {
                CU_ASSERT(fabs((double)out.top[r][k].logprob - log_probability(&in, r, out.top[r][k].id)) <
                          1e-5);
                CU_ASSERT(k == 0 || out.top[r][k - 1].logprob >= out.top[r][k].logprob);
            }
        }
    }
    CU_ASSERT(limited > 100);
}

static struct dr_sample_want greedy(void) {
    return (struct dr_sample_want){.draw = true, .row = {.repetition = 1}, .n_top = 2, .target = UINT32_MAX};
}

static void ties(void) {
    static struct input in;
    static struct output out;
    memset(&in, 0, sizeof in);
    in.n = 2;
    in.want[0] = greedy();
    in.logits[0][900] = in.logits[0][260] = in.logits[0][261] = 4; /* on three of five shards */
    in.want[1] = greedy();                                         /* all equal, and one candidate only */
    in.want[1].row.temperature = 1;
    in.want[1].top_k_on = true;
    in.want[1].top_k = 1;
    for (int32_t i = 0; i < VOCAB; i++) in.logits[1][i] = i == 700 ? 1 : 0;
    sample(&in, 5, &out);
    CU_ASSERT(out.got[0].id == 260 && out.top[0][0].id == 260 && out.top[0][1].id == 261);
    CU_ASSERT(out.got[1].id == 700);
}

/* What is no number on one shard is a fault on all; the rows beside it are not touched. */
static void faults(void) {
    static struct input in;
    static struct output clean, out;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int32_t kind = 0; kind < 3; kind++) {
        fill(&in, 5);
        sample(&in, 4, &clean);
        for (int32_t r = 1; r < in.n; r += 2)
            for (int32_t i = 0; i < VOCAB; i++)
                if (kind == 2 || i == 1000) in.logits[r][i] = bad[kind];
        sample(&in, 4, &out);
        for (int32_t r = 0; r < in.n; r++) {
            CU_ASSERT(out.got[r].bad == (r % 2 == 1));
            if (r % 2 == 1) continue;
            CU_ASSERT(out.got[r].id == clean.got[r].id && out.got[r].n_top == clean.got[r].n_top);
        }
    }
}

static void biased(void) {
    static struct input in;
    static struct output out;
    static const uint32_t id[2] = {17, 990};
    static const float bias[2] = {-50, 60};
    memset(&in, 0, sizeof in);
    in.n = 1;
    in.want[0] = greedy();
    in.want[0].row.bias_id = id;
    in.want[0].row.bias = bias;
    in.want[0].row.n_bias = 2;
    in.logits[0][17] = 30;
    sample(&in, 6, &out);
    CU_ASSERT(out.got[0].id == 990);
    /* log-probabilities are of the raw logits */
    CU_ASSERT(out.top[0][0].id == 17 &&
              fabs((double)out.got[0].logprob - log_probability(&in, 0, 990)) < 1e-4);
}

static CU_TestInfo tests[] = {
    {"1 to 8 shards give the same tokens, bits of log-probabilities, alternatives", equal_cuts},
    {"the token is the one that sorting and Gumbel numbers give", same_as_sort},
    {"arg-max and alternatives take the lowest id of equals", ties},
    {"NaN, infinity and nothing left are faults of their own row", faults},
    {"a bias moves the draw, not the log-probabilities", biased},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_sampler = {.pName = "worker/sampler", .pTests = tests};
