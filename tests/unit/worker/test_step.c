/* test_step.c - steps of a whole layout: what they give and what they refuse.
 * In:   hand-made plans for v3-bf16.      Out: results, reports, failures.
 * Owns: rigs of workers.
 * Why:  values are judged by the golden tests; here the outputs, the bookkeeping and the failures are. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "model/schedule.h"
#include "tests/support/checkpoint.h"
#include "tests/support/runner.h"
#include "tests/support/worker_rig.h"

enum { VOCAB = 512, ROWS = 150 };

static const char *const model = DR_TESTS_DIR "/golden/v3-bf16";
static const struct dr_sampling greedy = {.top_p = 1, .repetition = 1, .n_top = -1};

struct sink {
    float logits[4][256][VOCAB]; /* by slot and position */
};

static dr_status take(void *arg, const struct dr_logits *chunk) {
    struct sink *s = arg;
    memcpy(&s->logits[chunk->slot][chunk->position][chunk->first], chunk->value,
           (size_t)chunk->n * sizeof(float));
    return dr_ok();
}

/* Opens `slot` with all its pages and runs rows [first, first + n) of ids; open: only the first time. */
static dr_status go(struct rig *r, bool open, const struct dr_sampling *sampling,
                    const struct dr_segment *segment) {
    uint32_t page[8];
    struct dr_open o = {.slot = segment->slot, .n_prompt = 1, .sampling = *sampling};
    struct dr_pages p = {.slot = segment->slot,
                         .n = (r->layout.context + r->layout.page_tokens - 1) / r->layout.page_tokens,
                         .page = page};
    struct dr_step_plan plan = {
        .n_open = open,
        .n_pages = open,
        .n_drop = open,
        .n_segment = 1,
        .open = &o,
        .pages = &p,
        .drop = &segment->slot,
        .segment = segment,
    };
    for (int32_t i = 0; i < p.n; i++) page[i] = (uint32_t)(segment->slot * p.n + i);
    return rig_step(r, &plan);
}

static struct rig *start_exchange(int32_t tp, int32_t pp, int32_t c, enum dr_exchange exchange) {
    struct rig *r = calloc(1, sizeof *r);
    struct dr_layout_wish wish = rig_wish(tp, pp, c, DR_EXPERTS_COLUMNS);
    wish.exchange = exchange;
    CU_ASSERT_FATAL(r && rig_init(r, model, &wish).code == DR_OK);
    return r;
}

static struct rig *start(int32_t tp, int32_t pp, int32_t c) {
    return start_exchange(tp, pp, c, DR_EXCHANGE_LATENT);
}

static void stop(struct rig *r) {
    rig_fini(r);
    free(r);
}

static void some_ids(uint32_t *ids) {
    for (uint32_t i = 0; i < ROWS; i++) ids[i] = (i * 37 + 11) % VOCAB;
}

/* 150 generated rows in one step (two exchanges a layer), in three steps, and as a prompt. */
static void absorbed(void) {
    static struct sink sink;
    static uint32_t ids[ROWS];
    struct rig *r = start(2, 1, 2);
    r->sink = take;
    r->sink_arg = &sink;
    some_ids(ids);
    struct dr_segment g = {.slot = 0,
                           .n_rows = ROWS,
                           .ids = ids,
                           .role = DR_TOKENS_GENERATED,
                           .form = DR_FORM_ABSORBED,
                           .output = DR_OUTPUT_LOGITS};
    CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
    g.slot = 1;
    g.n_rows = ROWS / 3;
    for (int32_t i = 0; i < 3; i++, g.first += ROWS / 3, g.ids += ROWS / 3)
        CU_ASSERT(go(r, i == 0, &greedy, &g).code == DR_OK);
    g = (struct dr_segment){.slot = 2, .n_rows = ROWS, .ids = ids, .output = DR_OUTPUT_LOGITS};
    CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
    CU_ASSERT(memcmp(sink.logits[0], sink.logits[1], ROWS * sizeof **sink.logits) == 0);
    double diff = 0, square = 0;
    for (int32_t i = 0; i < ROWS; i++)
        for (int32_t k = 0; k < VOCAB; k++) {
            double d = (double)sink.logits[0][i][k] - (double)sink.logits[2][i][k];
            diff += d * d;
            square += (double)sink.logits[2][i][k] * (double)sink.logits[2][i][k];
        }
    CU_ASSERT(sqrt(diff / square) < 2e-5);
    stop(r);
}

/* What a rank sends in the absorbed form, from the shapes: its own queries to each other member, and to each
 * member that one's part of the results with a log-sum-exp a head. */
static uint64_t exchanged(const struct rig *r, int32_t rank, int32_t rows) {
    const struct dr_config *c = &r->config;
    const struct dr_layout *l = &r->layout;
    const bool value = l->exchange == DR_EXCHANGE_VALUE;
    const int32_t query = value ? c->nope_dim + c->rope_dim : c->kv_lora + c->rope_dim;
    const int32_t result = (value ? c->v_dim : c->kv_lora) + 1;
    uint64_t sum = 0;
    for (int32_t m = 0; m < l->c; m++) {
        const int32_t other = rank - rank % l->c + m;
        if (other == rank) continue;
        sum += (uint64_t)dr_range_len(dr_layout_shard(c, l, rank).heads) * (uint64_t)query;
        sum += (uint64_t)dr_range_len(dr_layout_shard(c, l, other).heads) * (uint64_t)result;
    }
    return sum * (uint64_t)rows * 4 * (uint64_t)c->n_layer;
}

/* 150 generated rows on cuts of the cache in 2, 3 and 4 members of unlike heads: both exchanges give the
 * result of one rank, and send what the formula says; the value exchange sends less. */
static void exchanges(void) {
    static const int32_t cuts[][2] = {{2, 2}, {3, 3}, {4, 2}, {4, 4}};
    static struct sink sink[3];
    static uint32_t ids[ROWS];
    some_ids(ids);
    const struct dr_segment g = {.slot = 0,
                                 .n_rows = ROWS,
                                 .ids = ids,
                                 .role = DR_TOKENS_GENERATED,
                                 .form = DR_FORM_ABSORBED,
                                 .output = DR_OUTPUT_LOGITS};
    struct rig *one = start(1, 1, 1);
    one->sink = take;
    one->sink_arg = &sink[2];
    CU_ASSERT(go(one, true, &greedy, &g).code == DR_OK);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        uint64_t sent[2] = {0};
        for (int x = 0; x < 2; x++) {
            struct rig *r = start_exchange(cuts[i][0], 1, cuts[i][1], (enum dr_exchange)x);
            r->sink = take;
            r->sink_arg = &sink[x];
            CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
            for (int32_t k = 0; k < cuts[i][0]; k++) {
                CU_ASSERT_EQUAL(r->rank[k].out.report.bytes[DR_BYTES_EXCHANGE], exchanged(r, k, ROWS));
                sent[x] += r->rank[k].out.report.bytes[DR_BYTES_EXCHANGE];
            }
            double diff = 0, square = 0;
            for (int32_t k = 0; k < ROWS * VOCAB; k++) {
                double d = (double)sink[x].logits[0][k / VOCAB][k % VOCAB] -
                           (double)sink[2].logits[0][k / VOCAB][k % VOCAB];
                diff += d * d;
                square += (double)sink[2].logits[0][k / VOCAB][k % VOCAB] *
                          (double)sink[2].logits[0][k / VOCAB][k % VOCAB];
            }
            CU_ASSERT(sqrt(diff / square) < 2e-5);
            stop(r);
        }
        CU_ASSERT(sent[DR_EXCHANGE_VALUE] < sent[DR_EXCHANGE_LATENT] && sent[DR_EXCHANGE_VALUE] > 0);
    }
    stop(one);
}

static double log_probability(const float *row, uint32_t id) {
    double max = (double)row[0], sum = 0;
    for (int32_t i = 1; i < VOCAB; i++) max = fmax(max, (double)row[i]);
    for (int32_t i = 0; i < VOCAB; i++) sum += exp((double)row[i] - max);
    return (double)row[id] - max - log(sum);
}

/* Scores of 150 rows (three batches of output rows) against the raw logits. */
static void scores(void) {
    static struct sink sink;
    static uint32_t ids[ROWS];
    struct rig *r = start(2, 2, 2);
    r->sink = take;
    r->sink_arg = &sink;
    some_ids(ids);
    struct dr_segment g = {.slot = 0, .n_rows = ROWS, .ids = ids, .output = DR_OUTPUT_LOGITS};
    CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
    CU_ASSERT(rig_result(r)->n_row == ROWS && rig_result(r)->row[0].n_ids == 0);
    g.slot = 1;
    g.output = DR_OUTPUT_SCORE;
    g.score_top = 3;
    for (int32_t next = 0; next < 2; next++) {
        g.has_next = next;
        g.next_id = 321;
        CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
        const struct dr_step_result *out = rig_result(r);
        CU_ASSERT_FATAL(out->n_row == ROWS);
        for (int32_t i = 0; i < ROWS; i++) {
            const struct dr_result_row *row = &out->row[i];
            const float *logits = sink.logits[0][i];
            CU_ASSERT(row->slot == 1 && row->position == i && row->fault == DR_FAULT_NONE);
            CU_ASSERT(row->n_ids == (i + 1 < ROWS || next) && row->n_top == 3 * row->n_ids);
            uint32_t target = i + 1 < ROWS ? ids[i + 1] : 321;
            if (row->n_ids == 0) continue;
            CU_ASSERT(row->ids[0] == target &&
                      fabs((double)row->logprob[0] - log_probability(logits, target)) < 1e-5);
            for (int32_t k = 0; k < 3; k++)
                CU_ASSERT(fabs((double)row->top[k].logprob - log_probability(logits, row->top[k].id)) < 1e-5);
            CU_ASSERT(row->top[0].logprob >= row->top[1].logprob &&
                      row->top[1].logprob >= row->top[2].logprob);
        }
    }
    stop(r);
}

/* With a heavy frequency penalty no token comes twice: the workers count their own draws. */
static void counted(void) {
    struct dr_sampling once = {.top_p = 1, .repetition = 1, .frequency = 90, .n_top = -1};
    bool seen[VOCAB] = {false};
    uint32_t id = 5;
    struct rig *r = start(3, 1, 1);
    for (int32_t i = 0; i < 60; i++) {
        struct dr_segment g = {.slot = 3,
                               .first = i,
                               .n_rows = 1,
                               .ids = &id,
                               .role = DR_TOKENS_GENERATED,
                               .form = DR_FORM_ABSORBED,
                               .output = DR_OUTPUT_SAMPLE};
        CU_ASSERT_FATAL(go(r, i == 0, &once, &g).code == DR_OK);
        const struct dr_result_row *row = rig_result(r)->row;
        CU_ASSERT_FATAL(row->n_ids == 1 && row->ids[0] < VOCAB);
        CU_ASSERT(!seen[row->ids[0]]);
        seen[row->ids[0]] = true;
        id = 5; /* the same input again: without counting the same token would come */
    }
    stop(r);
}

/* Tokens drawn one at a time, and with the model's own drafts, every third of them spoilt: the same ones. */
static void drafts(void) {
    static const int32_t form[][3] = {{2, 2, 2}, {3, 1, 3}, {1, 1, 1}};
    enum { PROMPT = 70, DRAWN = 60 };
    static uint32_t ids[ROWS], drawn[2][DRAWN];
    const struct dr_sampling wish = {
        .temperature = 2, .top_p = 1, .repetition = 1.2f, .presence = 0.5f, .seed = 4, .n_top = -1};
    some_ids(ids);
    for (size_t f = 0; f < sizeof form / sizeof *form; f++) {
        struct rig *r = calloc(1, sizeof *r);
        struct dr_layout_wish layout = rig_wish(form[f][0], form[f][1], form[f][2], DR_EXPERTS_COLUMNS);
        layout.mtp = true;
        CU_ASSERT_FATAL(r && rig_init(r, DR_TESTS_DIR "/golden/v3-mtp", &layout).code == DR_OK);
        for (int32_t k = 0; k < 2; k++) {
            struct dr_segment g = {
                .slot = k, .n_rows = PROMPT, .ids = ids, .output = DR_OUTPUT_SAMPLE, .n_draft = 4 * k};
            uint32_t fed[1 + DR_DRAFTS_MAX];
            for (int32_t n = 0; n < DRAWN;) {
                CU_ASSERT_FATAL(go(r, n == 0, &wish, &g).code == DR_OK);
                const struct dr_result_row *row = rig_result(r)->row;
                CU_ASSERT_FATAL(rig_result(r)->n_row == 1 && row->n_ids == 1 + row->n_accepted &&
                                row->n_accepted <= g.n_verify && row->n_draft == 4 * k);
                for (int32_t i = 0; i < row->n_ids && n < DRAWN; i++) drawn[k][n++] = row->ids[i];
                fed[0] = drawn[k][n - 1];
                memcpy(fed + 1, row->draft, sizeof row->draft);
                if (k && n % 3 == 0) fed[2] = (fed[2] + 1) % VOCAB;
                g = (struct dr_segment){.slot = k,
                                        .first = PROMPT + n - 1,
                                        .n_rows = 1 + 4 * k,
                                        .ids = fed,
                                        .role = DR_TOKENS_GENERATED,
                                        .form = DR_FORM_ABSORBED,
                                        .output = DR_OUTPUT_SAMPLE,
                                        .n_verify = 4 * k,
                                        .n_draft = 4 * k};
            }
        }
        CU_ASSERT(memcmp(drawn[0], drawn[1], sizeof drawn[0]) == 0);
        stop(r);
    }
}

/* A prompt and then a generated row through two stages of two ranks. Times are not judged, only where they
 * are charged: the embedding is the first stage's, the head and the draw the last one's. */
static void parts_add_up(void) {
    static uint32_t ids[ROWS];
    struct rig *r = start(2, 2, 2);
    some_ids(ids);
    struct dr_segment g = {
        .slot = 1, .n_rows = 70, .ids = ids, .form = DR_FORM_EXPANDED, .output = DR_OUTPUT_SAMPLE};
    for (int32_t turn = 0; turn < 2; turn++) {
        CU_ASSERT(go(r, turn == 0, &greedy, &g).code == DR_OK);
        for (int32_t i = 0; i < 4; i++) {
            const struct dr_step_report *o = &r->rank[i].out.report;
            uint64_t sum = 0, waits = 0;
            for (int p = 0; p < DR_PART_COUNT; p++) sum += o->part_ns[p];
            for (int k = 0; k < DR_BYTES_KIND_COUNT; k++) waits += o->wait_kind_ns[k];
            CU_ASSERT_EQUAL(sum, o->end_ns - o->begin_ns);
            CU_ASSERT_EQUAL(waits, o->wait_ns);
            CU_ASSERT(o->part_ns[DR_PART_WAIT] <= o->wait_ns);
            CU_ASSERT(o->part_ns[DR_PART_PROJECT] > 0 && o->part_ns[DR_PART_ATTENTION] > 0);
            CU_ASSERT(o->part_ns[DR_PART_EXPERTS] > 0 && o->part_ns[DR_PART_COLLECTIVE] > 0);
            CU_ASSERT((o->part_ns[DR_PART_EMBED] > 0) == (i < 2));
            CU_ASSERT((o->part_ns[DR_PART_HEAD] > 0) == (i >= 2));
            CU_ASSERT((o->part_ns[DR_PART_SAMPLER] > 0) == (i >= 2));
            CU_ASSERT(o->peak_bytes > 1 << 20);
        }
        g = (struct dr_segment){.slot = 1,
                                .first = 70,
                                .n_rows = 1,
                                .ids = ids + 70,
                                .role = DR_TOKENS_GENERATED,
                                .form = DR_FORM_ABSORBED,
                                .output = DR_OUTPUT_SAMPLE};
    }
    stop(r);
}

static void reports(void) {
    uint32_t ids[3] = {1, 2, 3};
    struct rig *r = start(2, 2, 2);
    struct dr_segment g = {.slot = 0, .n_rows = 3, .ids = ids, .output = DR_OUTPUT_SAMPLE};
    CU_ASSERT(go(r, true, &greedy, &g).code == DR_OK);
    for (int32_t i = 0; i < 4; i++) {
        const struct dr_step_out *o = &r->rank[i].out;
        CU_ASSERT(o->report.rank == i && o->report.step == 1 && o->report.epoch == 7 &&
                  o->report.code == DR_OK);
        CU_ASSERT(o->report.end_ns >= o->report.begin_ns && o->has_result == (i == 2));
        CU_ASSERT(o->report.bytes[DR_BYTES_ALLREDUCE] > 0 && o->report.bytes[DR_BYTES_GATHER] > 0);
        CU_ASSERT(o->report.bytes[DR_BYTES_EXCHANGE] == 0 && o->report.bytes[DR_BYTES_BOUNDARY] > 0);
        CU_ASSERT((o->report.bytes[DR_BYTES_SAMPLER] > 0) == (i >= 2));
        CU_ASSERT(dr_worker_step_id(r->rank[i].worker) == 1 && dr_worker_op(r->rank[i].worker) > 0);
    }
    struct dr_step_plan ping = {.n_segment = 0};
    CU_ASSERT(rig_step(r, &ping).code == DR_OK);
    CU_ASSERT(rig_result(r)->n_row == 0 && rig_result(r)->step == 2 && dr_worker_op(r->rank[0].worker) == 0);
    stop(r);
}

static void hash(void) {
    uint32_t ids[1] = {1}, page[4] = {0, 1, 2, 3};
    struct dr_open open = {.slot = 0, .sampling = greedy};
    struct dr_pages pages = {.slot = 0, .n = 4, .page = page};
    struct dr_segment g = {.slot = 0, .n_rows = 1, .ids = ids, .output = DR_OUTPUT_SAMPLE};
    struct dr_step_plan plan = {.step = 1,
                                .n_open = 1,
                                .n_pages = 1,
                                .n_segment = 1,
                                .open = &open,
                                .pages = &pages,
                                .segment = &g,
                                .schedule_hash = 99};
    struct rig *r = start(2, 1, 1);
    CU_ASSERT(rig_step_as_is(r, &plan).code == DR_EPROTO);
    CU_ASSERT(strstr(dr_error_text(), "schedule hash is 0000000000000063") != NULL);
    for (int32_t i = 0; i < 2; i++) {
        CU_ASSERT(r->rank[i].out.report.code == DR_EPROTO && r->rank[i].out.result.n_row == 0);
        CU_ASSERT(strstr(r->rank[i].out.report.text, "schedule hash") != NULL);
    }
    stop(r);
}

static void no_sink(void) {
    uint32_t ids[1] = {1};
    struct rig *r = start(1, 1, 1);
    struct dr_segment g = {.slot = 0, .n_rows = 1, .ids = ids, .output = DR_OUTPUT_LOGITS};
    CU_ASSERT(go(r, true, &greedy, &g).code == DR_EPROTO);
    CU_ASSERT(strstr(dr_error_text(), "nobody takes them") != NULL);
    stop(r);
}

/* The other rank never steps. */
static void late(void) {
    uint32_t ids[1] = {1}, page[4] = {0, 1, 2, 3};
    struct dr_open open = {.slot = 0, .sampling = greedy};
    struct dr_pages pages = {.slot = 0, .n = 4, .page = page};
    struct dr_segment g = {.slot = 0, .n_rows = 1, .ids = ids};
    struct dr_shape_segment shape = {.n_rows = 1, .n_top = -1};
    struct dr_step_shape step = {.n_segment = 1, .n_rows = 1, .segment = &shape};
    struct dr_step_plan plan = {
        .step = 1, .n_open = 1, .n_pages = 1, .n_segment = 1, .open = &open, .pages = &pages, .segment = &g};
    struct dr_step_out out;
    struct rig *r = start(2, 1, 1);
    plan.schedule_hash = dr_schedule_hash(&r->config, &r->layout, &step);
    CU_ASSERT(dr_worker_step(r->rank[0].worker, &plan, dr_clock_ns() + 30000000u, NULL, NULL, &out).code ==
              DR_ETIME);
    CU_ASSERT(out.report.code == DR_ETIME &&
              strstr(out.report.text, "rank 0, step 1, call 1 (embed") != NULL);
    CU_ASSERT(dr_worker_op(r->rank[0].worker) == 1);
    stop(r);
}

/* A norm that is NaN makes every logit NaN: a fault of the row, not of the step. */
static void numeric(void) {
    struct checkpoint c;
    struct dr_layout_wish wish = rig_wish(2, 1, 1, DR_EXPERTS_COLUMNS);
    uint32_t ids[2] = {1, 2};
    struct rig *r = calloc(1, sizeof *r);
    uint16_t nan = 0x7fc0; /* BF16 */
    checkpoint_init(&c, model);
    memcpy(checkpoint_bytes(&c, "model.norm.weight"), &nan, sizeof nan);
    checkpoint_write(&c);
    CU_ASSERT_FATAL(r && rig_init(r, c.dir, &wish).code == DR_OK);
    struct dr_sampling all = {.temperature = 1, .top_k = 5, .top_p = 0.5F, .repetition = 1, .n_top = 3};
    struct dr_segment g = {.slot = 0, .n_rows = 2, .ids = ids, .output = DR_OUTPUT_SAMPLE};
    CU_ASSERT(go(r, true, &all, &g).code == DR_OK);
    const struct dr_result_row *row = rig_result(r)->row;
    CU_ASSERT(row->fault == DR_FAULT_NUMERIC && row->n_ids == 0 && row->n_top == 0 && row->position == 1);
    stop(r);
    checkpoint_fini(&c);
}

static void unfit(void) {
    struct rig *r = start(1, 1, 1);
    struct dr_worker_params p = {.config = &r->config,
                                 .tensors = r->tensors,
                                 .layout = &r->layout,
                                 .ops = r->ops,
                                 .stream = &r->rank[0].stream};
    struct dr_worker *w = NULL;
    struct dr_layout wide = r->layout;
    p.rank = 1;
    CU_ASSERT(dr_worker_create(&p, &w).code == DR_EINVAL && strstr(dr_error_text(), "rank 1") != NULL);
    p.rank = 0;
    wide.tp = 2;
    wide.n_rank = 2;
    p.layout = &wide;
    CU_ASSERT(dr_worker_create(&p, &w).code == DR_EINVAL && strstr(dr_error_text(), "group stage") != NULL);
    CU_ASSERT(w == NULL);
    stop(r);
}

static CU_TestInfo tests[] = {
    {"generated rows give the same bits 150 at once and 50 at once", absorbed},
    {"both exchanges give one rank's result and send what the formula says", exchanges},
    {"scores are those of the raw logits, over several batches", scores},
    {"workers count what they drew", counted},
    {"drafts change no token, whatever becomes of them", drafts},
    {"each rank reports its step, one rank has the result", reports},
    {"the parts of a step add up to it, on every rank", parts_add_up},
    {"a plan with another schedule hash is refused on every rank", hash},
    {"logits that nobody takes are refused", no_sink},
    {"a rank that does not come is named after the deadline", late},
    {"logits that are no numbers are a fault of their row", numeric},
    {"rank and groups that do not fit the layout are refused", unfit},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_step = {.pName = "worker/step", .pTests = tests};
