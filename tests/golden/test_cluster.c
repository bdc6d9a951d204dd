/* test_cluster.c - coordinator and workers together, under random schedules.
 * In:   golden prompts among random neighbours; layouts with the cache cut in 1 to 4, both exchanges, stages.
 * Out:  greedy tokens equal to the golden ones, whatever else happened.
 * Owns: rigs, cores.
 * Why:  prefix hits, chunks of 1 to 512 rows, preemption, cancelled neighbours, drafts and steps under way
 * may change when a row is computed and where it lies, but not what it is.
 *
 * DEEPRACK_TEST_SCHEDULES=N plays N schedules in all instead of 2,000; seeds go on from 1. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "coordinator/core.h"
#include "tests/golden/stage.h"
#include "tests/golden/tables.h"
#include "tests/support/runner.h"
#include "tests/support/splitmix.h"

enum { STARS_MAX = 16, NEIGHBOURS = 16, IDS_MAX = 1024, FLIGHTS_MAX = 5, SCHEDULES = 2000 };

struct star { /* a prompt whose answer is known from outside */
    uint32_t ids[IDS_MAX], greedy[64];
    int32_t n, n_greedy;
};

struct scene { /* one model on one layout */
    struct rig rig;
    struct star star[STARS_MAX];
    int32_t n_star, context;
    char label[96];
};

struct told {
    uint32_t ids[64];
    int32_t n;
    bool star, done, stopped; /* stopped: cancelled by the test */
    const struct star *of;
    enum dr_finish finish;
};

struct flight {
    struct dr_step_result result;
    struct dr_result_row row[NEIGHBOURS + STARS_MAX];
};

struct show { /* one schedule */
    struct scene *s;
    struct dr_core *core;
    uint64_t dice, now;
    struct told told[NEIGHBOURS + STARS_MAX];
    int32_t n_told, n_open, n_flight;
    bool slot_open[DR_SEQS_MAX];
    struct flight flight[FLIGHTS_MAX];
    uint64_t found, preempted, steps;
};

static struct tally { /* what all schedules have met */
    uint64_t schedules, found, preempted, cancelled, overlapped, steps, accepted, wrong;
} tally;

static int32_t roll(struct show *h, int32_t n) { /* 0 .. n - 1 */
    const uint64_t x = splitmix(h->dice);
    h->dice += SPLITMIX_STEP;
    return (int32_t)(x % (uint64_t)n);
}

/* ---- scenes ---- */

static bool open_case(struct scene *s, const char *name, const struct dr_layout_wish *wish) {
    char path[512];
    struct safetensors golden;
    (void)snprintf(path, sizeof path, "%s/golden/%s", DR_TESTS_DIR, name);
    dr_status st = rig_init(&s->rig, path, wish);
    CU_ASSERT(st.code == DR_OK);
    if (st.code != DR_OK) {
        printf("%s: %s\n", s->label, dr_error_text());
        return false;
    }
    (void)snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", DR_TESTS_DIR, name);
    safetensors_init(&golden, path);
    s->n_star = STAGE_PROMPTS;
    for (int32_t i = 0; i < STAGE_PROMPTS; i++) {
        int64_t n, n_greedy;
        (void)snprintf(path, sizeof path, "p%d.input_ids", i);
        const int32_t *ids = safetensors_i32(&golden, path, &n);
        (void)snprintf(path, sizeof path, "p%d.greedy_ids", i);
        const int32_t *greedy = safetensors_i32(&golden, path, &n_greedy);
        s->star[i].n = (int32_t)n;
        s->star[i].n_greedy = (int32_t)n_greedy;
        for (int64_t k = 0; k < n; k++) s->star[i].ids[k] = (uint32_t)ids[k];
        for (int64_t k = 0; k < n_greedy; k++) s->star[i].greedy[k] = (uint32_t)greedy[k];
    }
    safetensors_fini(&golden);
    return true;
}

static int32_t take_ids(const json_t *list, uint32_t *out) {
    size_t i;
    const json_t *id;
    json_array_foreach(list, i, id) out[i] = (uint32_t)json_integer_value(id);
    return (int32_t)json_array_size(list);
}

static bool open_lexi(struct scene *s, const struct dr_layout_wish *wish) {
    json_t *golden = json_load_file(DR_SOURCE_DIR "/deploy/models/lexi-15m-golden.json", 0, NULL);
    const json_t *cases = json_object_get(golden, "cases"), *one;
    dr_status st = rig_init(&s->rig, DR_SOURCE_DIR "/deploy/models/lexi-15m", wish);
    size_t i;
    CU_ASSERT(golden != NULL && st.code == DR_OK);
    json_array_foreach(cases, i, one) {
        struct star *k = &s->star[s->n_star];
        if (json_array_size(json_object_get(one, "prompt_ids")) > 300 || s->n_star == 4)
            continue; /* CI has its hours */
        k->n = take_ids(json_object_get(one, "prompt_ids"), k->ids);
        k->n_greedy = take_ids(json_object_get(one, "greedy_ids"), k->greedy);
        s->n_star++;
    }
    json_decref(golden);
    return st.code == DR_OK && s->n_star > 0;
}

/* ---- a schedule ---- */

static void take_event(struct show *h, const struct dr_core_event *e) {
    struct told *t = NULL;
    switch ((int)e->type) {
    case DR_MSG_TOKENS:
        for (int32_t i = 0; i < e->tokens.n; i++) {
            t = &h->told[e->tokens.news[i].request];
            for (int32_t k = 0; k < e->tokens.news[i].n && t->n < 64; k++)
                t->ids[t->n++] = e->tokens.news[i].ids[k];
        }
        break;
    case DR_MSG_DONE:
        t = &h->told[e->done.request];
        t->done = true;
        t->finish = e->done.finish;
        h->found += (uint64_t)e->done.n_cached;
        for (int32_t k = 0; k < DR_DRAFTS_MAX; k++) {
            tally.accepted += (uint64_t)e->done.accepted[k];
            tally.wrong += (uint64_t)(e->done.drafted[k] - e->done.accepted[k]);
        }
        h->n_open--;
        break;
    case DR_MSG_ACCEPTED:
        h->n_open++;
        break;
    default:
        CU_FAIL("a request was refused");
    }
}

static void drain(struct show *h) {
    struct dr_core_event e;
    while (dr_core_event(h->core, &e)) take_event(h, &e);
}

/* A golden prompt, or one that begins as a golden one and goes on at random: most of it and a short answer,
 * or little of it and a long one. */
static void submit(struct show *h) {
    uint32_t ids[IDS_MAX];
    const struct star *k = &h->s->star[roll(h, h->s->n_star)];
    struct told *t = &h->told[h->n_told];
    const int32_t vocab = h->s->rig.config.vocab, context = h->s->context;
    int32_t n = k->n, most = k->n_greedy;
    *t = (struct told){.star = roll(h, 3) == 0 || h->n_told == 0, .of = k};
    memcpy(ids, k->ids, (size_t)n * sizeof *ids);
    if (!t->star) {
        const bool grows = roll(h, 2);
        const int32_t same = grows ? roll(h, dr_min_i32(n, 30)) : n - roll(h, dr_min_i32(n, 30));
        n = dr_min_i32(same + 1 + roll(h, grows ? 8 : 60), context - 30);
        for (int32_t i = dr_min_i32(same, n); i < n; i++) ids[i] = (uint32_t)roll(h, vocab);
        most = grows ? 80 + roll(h, 120)
                     : 1 + roll(h, 24); /* some find pages, some grow until somebody must go */
    }
    const struct dr_submit s = {
        .request = (uint64_t)h->n_told++,
        .n_ids = n,
        .ids = ids,
        .max_tokens = most,
        .ignore_eos = true,
        .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
        .prompt_top = -1,
    };
    dr_core_submit(h->core, h->now, &s);
    drain(h);
}

static void cancel_somebody(struct show *h) {
    const int32_t i = h->n_told ? roll(h, h->n_told) : 0;
    struct told *t = &h->told[i];
    if (h->n_told == 0 || t->star || t->done) return;
    t->stopped = true;
    tally.cancelled++;
    dr_core_cancel(h->core, h->now, (uint64_t)i);
    drain(h);
}

static bool step(struct show *h) {
    const struct dr_step_plan *p = dr_core_plan(h->core, h->now);
    if (!p) return false;
    for (int32_t i = 0; i < p->n_drop; i++) h->slot_open[p->drop[i]] = false;
    for (int32_t i = 0; i < p->n_open; i++) h->slot_open[p->open[i].slot] = true;
    dr_status st = rig_step_as_is(&h->s->rig, p);
    CU_ASSERT_FATAL(st.code == DR_OK && h->n_flight < FLIGHTS_MAX);
    struct flight *f = &h->flight[h->n_flight++];
    f->result = *rig_result(&h->s->rig);
    CU_ASSERT_FATAL(f->result.n_row <= NEIGHBOURS + STARS_MAX && f->result.n_bad == 0);
    memcpy(f->row, f->result.row, (size_t)f->result.n_row * sizeof *f->row);
    f->result.row = f->row;
    h->steps++;
    drain(h);
    return true;
}

static void finish(struct show *h) {
    CU_ASSERT_FATAL(h->n_flight > 0);
    h->flight[0].result.row = h->flight[0].row;
    CU_ASSERT_FATAL(dr_core_result(h->core, h->now, &h->flight[0].result).code == DR_OK);
    memmove(&h->flight[0], &h->flight[1], sizeof h->flight - sizeof h->flight[0]);
    h->n_flight--;
    drain(h);
}

/* The workers' slots that the core has left open: the next schedule begins with none. */
static void close_slots(struct show *h) {
    int32_t drop[DR_SEQS_MAX], n = 0;
    for (int32_t i = 0; i < h->s->rig.layout.seqs_max; i++)
        if (h->slot_open[i]) drop[n++] = i;
    struct dr_step_plan p = {.n_drop = n, .drop = drop};
    CU_ASSERT(rig_step(&h->s->rig, &p).code == DR_OK);
}

static void judge(const struct show *h, uint64_t seed) {
    for (int32_t i = 0; i < h->n_told; i++) {
        const struct told *t = &h->told[i];
        bool good = t->done && (t->stopped || t->finish == DR_FINISH_LENGTH);
        if (t->star)
            good = good && t->n == t->of->n_greedy &&
                   memcmp(t->ids, t->of->greedy, (size_t)t->n * sizeof *t->ids) == 0;
        CU_ASSERT(good);
        if (!good)
            printf("%s, schedule %llu: request %d has %d tokens\n", h->s->label, (unsigned long long)seed, i,
                   t->n);
    }
}

static void play(struct scene *s, uint64_t seed) {
    struct show *h = calloc(1, sizeof *h);
    CU_ASSERT_FATAL(h != NULL);
    h->s = s;
    h->dice = seed * 0x100000001B3U;
    static const int32_t steps[] = {1, 2, 7, 16, 33, 64, 100, 160, 512},
                         drafts[] = {0, 1, 2, 3, DR_DRAFTS_MAX, DR_DRAFTS_AUTO};
    struct dr_layout l = s->rig.layout;
    const int32_t one = dr_ceil_div(l.context, l.page_tokens);
    l.step_tokens = dr_min_i32(l.step_tokens, steps[1 + roll(h, 8)]);
    if (roll(h, 25) == 0) l.step_tokens = 1;
    l.seqs_max = 1 + roll(h, l.seqs_max);
    l.n_page = dr_min_i32(l.n_page, one + roll(h, 3));
    const struct dr_core_setup setup = {.config = &s->rig.config,
                                        .layout = &l,
                                        .epoch = 7,
                                        .deadline_scale = 1,
                                        .reuse = (enum dr_reuse)roll(h, 3),
                                        .step_ns = roll(h, 2) ? 2000000 : 0,
                                        .drafts = l.mtp ? drafts[roll(h, 6)] : 0};
    const int32_t wanted = 2 + roll(h, 8);
    CU_ASSERT_FATAL(dr_core_create(&setup, &h->core).code == DR_OK);
    for (int32_t turn = 0; h->n_told < wanted || h->n_open > 0; turn++) {
        CU_ASSERT_FATAL(turn < 20000);
        while (h->n_told < wanted && roll(h, 3) < (h->n_told < 5 ? 2 : 1)) submit(h);
        if (roll(h, 60) == 0) cancel_somebody(h);
        if (roll(h, 60) == 0) dr_core_reset_prefix(h->core);
        const bool more = step(h);
        if (h->n_flight > 1) tally.overlapped++;
        if (roll(h, 80) == 0) cancel_somebody(h);
        h->now += 1000000 + (uint64_t)roll(h, 1000000);
        if (h->n_flight > 0 && (!more || roll(h, 2))) finish(h);
    }
    while (h->n_flight > 0) finish(h);
    struct dr_stats st;
    dr_core_stats(h->core, h->now, &st);
    CU_ASSERT(st.pages_used == 0 && dr_book_check(dr_core_book(h->core)).code == DR_OK);
    judge(h, seed);
    close_slots(h);
    tally.schedules++;
    tally.found += h->found;
    tally.preempted += st.preempted;
    tally.steps += h->steps;
    dr_core_destroy(h->core);
    free(h);
}

/* ---- all of it ---- */

struct form {
    int32_t tp, pp, c;
    enum dr_exchange exchange;
};
static const struct form forms[] = {
    {1, 1, 1, DR_EXCHANGE_LATENT}, {2, 1, 2, DR_EXCHANGE_LATENT}, {2, 1, 2, DR_EXCHANGE_VALUE},
    {3, 1, 3, DR_EXCHANGE_LATENT}, {3, 1, 3, DR_EXCHANGE_VALUE},  {4, 1, 4, DR_EXCHANGE_LATENT},
    {4, 1, 4, DR_EXCHANGE_VALUE},  {1, 2, 1, DR_EXCHANGE_LATENT}, {2, 2, 2, DR_EXCHANGE_VALUE},
};
static const char *const models[] = {"v3-bf16", "v3-fp8",    "dense-fp8", "v2-lite", "v2-group",
                                     "kimi-k2", "moonlight", "v3-rope2",  "v3-mtp",  "lexi-15m"};
enum { FORMS = (int)(sizeof forms / sizeof *forms), MODELS = (int)(sizeof models / sizeof *models) };

static int32_t wanted_schedules(void) {
    const char *text = getenv("DEEPRACK_TEST_SCHEDULES");
    const long n = text ? strtol(text, NULL, 10) : SCHEDULES;
    return n > 0 && n < 100000000 ? (int32_t)n : SCHEDULES;
}

static void play_form(const char *model, const struct form *f, uint64_t seed, int32_t n) {
    struct scene *s = calloc(1, sizeof *s);
    CU_ASSERT_FATAL(s != NULL);
    struct dr_layout_wish wish = rig_wish(f->tp, f->pp, f->c, DR_EXPERTS_COLUMNS);
    const bool lexi = !strcmp(model, "lexi-15m");
    wish.exchange = f->exchange;
    wish.mtp = lexi || !strcmp(model, "v3-mtp");
    wish.seqs_max = NEIGHBOURS;
    wish.context = lexi ? 512 : 256;
    wish.step_tokens = 512;
    s->context = wish.context;
    (void)snprintf(s->label, sizeof s->label, "%s tp %d pp %d c %d %s", model, f->tp, f->pp, f->c,
                   dr_exchange_name(f->exchange));
    rig_kernels = (struct rig_kernels){.ops = table_here(DR_PRECISION_F32)};
    const bool ready = lexi ? open_lexi(s, &wish) : open_case(s, model, &wish);
    rig_kernels = (struct rig_kernels){0};
    for (int32_t i = 0; ready && i < n; i++) play(s, seed + (uint64_t)i);
    rig_fini(&s->rig);
    free(s);
}

static void schedules(void) {
    const int32_t all = wanted_schedules(), cells = FORMS * MODELS;
    uint64_t seed = 1;
    for (int32_t cell = 0; cell < cells; cell++) {
        const int32_t n = (int32_t)((int64_t)all * (cell + 1) / cells - (int64_t)all * cell / cells);
        if (n > 0) play_form(models[cell % MODELS], &forms[cell / MODELS], seed, n);
        seed += (uint64_t)n;
    }
    printf("%llu schedules, %llu steps (%llu beside others), %llu tokens found in the cache, %llu "
           "preemptions, %llu cancelled, %llu drafts true and %llu wrong\n",
           (unsigned long long)tally.schedules, (unsigned long long)tally.steps,
           (unsigned long long)tally.overlapped, (unsigned long long)tally.found,
           (unsigned long long)tally.preempted, (unsigned long long)tally.cancelled,
           (unsigned long long)tally.accepted, (unsigned long long)tally.wrong);
    CU_ASSERT_EQUAL(tally.schedules, (uint64_t)all);
    if (all < 500) return; /* too few to have met everything */
    CU_ASSERT(tally.found > 10 * (uint64_t)all && tally.preempted > (uint64_t)all / 10 &&
              tally.cancelled > (uint64_t)all / 4 && tally.overlapped > (uint64_t)all &&
              tally.accepted > (uint64_t)all && tally.wrong > (uint64_t)all);
}

static CU_TestInfo tests[] = {
    {"golden tokens under random schedules, on every cut of the cache and both exchanges", schedules},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cluster = {.pName = "golden/cluster", .pTests = tests};
