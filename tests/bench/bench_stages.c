/* bench_stages.c - how long the stages of a pipeline stand idle.
 * In:   a model's folder, stages, drafts, sequences, tokens of each, time of a layer.      Out: for each
 * stage: layers, busy and idle share of the time between the first and the last step in which all sequences
 * decoded. Owns: the coordinator's core, workers as threads. Why:  whether cohorts keep all stages busy is a
 * matter of plans and their order, but on few cores stages take the processor from each other. So here a
 * layer's feed-forward sleeps for as long as it would take elsewhere: plans, frames, workers and the messages
 * between stages are the real ones.
 *
 *     bench-stages MODEL STAGES DRAFTS SEQUENCES TOKENS [LAYER_US [ROW_US]] */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/clock.h"
#include "coordinator/core.h"
#include "proto/codec.h"
#include "tests/support/worker_rig.h"

enum {
    FRAMES = DR_PP_MAX + 2,
    ROOM = DR_FRAME_HEADER + DR_MPI_FRAME_MAX,
    ARENA = 8 << 20,
    REPORTS_MAX = 1 << 20
};

static uint64_t layer_ns, row_ns;
static const struct dr_ops *real;

static dr_status slow_moe(const struct dr_moe *op, struct dr_stream *s) {
    const uint64_t ns = layer_ns + row_ns * (uint64_t)op->n_tok;
    const struct timespec nap = {.tv_sec = (time_t)(ns / 1000000000U), .tv_nsec = (long)(ns % 1000000000U)};
    DR_TRY(real->moe(op, s));
    (void)nanosleep(&nap, NULL);
    return dr_ok();
}

struct stage { /* a worker and the plans that wait for it */
    struct bench *b;
    struct dr_worker *worker;
    pthread_t thread;
    uint8_t *frame[FRAMES];
    size_t bytes[FRAMES];
    int32_t n, at;
    struct dr_step_report *report; /* [n_report] */
    int32_t n_report;
};

struct bench {
    struct rig rig;
    struct stage stage[DR_PP_MAX];
    pthread_mutex_t lock;
    pthread_cond_t news;
    uint8_t *result[FRAMES]; /* of the last stage, encoded */
    size_t result_bytes[FRAMES];
    int32_t n_result, result_at;
    bool over, failed;
    uint64_t first, last; /* steps in which all sequences decoded */
};

static void fail(struct bench *b, dr_status st) {
    if (st.code != DR_OK) fprintf(stderr, "bench-stages: %s\n", dr_error_text());
    (void)pthread_mutex_lock(&b->lock);
    b->failed = true;
    (void)pthread_cond_broadcast(&b->news);
    (void)pthread_mutex_unlock(&b->lock);
}

static dr_status run_frame(struct stage *s, const uint8_t *frame, size_t bytes, struct dr_arena *arena,
                           struct dr_arena *scratch) {
    struct bench *b = s->b;
    struct dr_step_plan plan;
    struct dr_step_out out;
    dr_arena_rewind(arena, 0);
    DR_TRY(dr_decode_step_plan(frame + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, arena, &plan));
    DR_TRY(dr_worker_step(s->worker, &plan, dr_clock_ns() + 60000000000U, NULL, NULL, &out));
    (void)pthread_mutex_lock(&b->lock);
    dr_status st = dr_ok();
    if (s->n_report < REPORTS_MAX) s->report[s->n_report++] = out.report;
    if (out.has_result) {
        const int32_t at = (b->result_at + b->n_result++) % FRAMES;
        st = dr_encode_step_result(&out.result, plan.epoch, scratch, b->result[at], ROOM,
                                   &b->result_bytes[at]);
        (void)pthread_cond_broadcast(&b->news);
    }
    (void)pthread_mutex_unlock(&b->lock);
    return st;
}

static void *work(void *arg) {
    struct stage *s = arg;
    struct bench *b = s->b;
    struct dr_arena arena, scratch;
    (void)prctl(PR_SET_TIMERSLACK, 1);
    if (dr_arena_init(&arena, ARENA).code != DR_OK || dr_arena_init(&scratch, ARENA).code != DR_OK) {
        fail(b, dr_ok());
        return NULL;
    }
    for (;;) {
        (void)pthread_mutex_lock(&b->lock);
        while (s->n == 0 && !b->over && !b->failed) (void)pthread_cond_wait(&b->news, &b->lock);
        const bool leave = s->n == 0 || b->failed;
        (void)pthread_mutex_unlock(&b->lock);
        if (leave) break;
        dr_status st = run_frame(s, s->frame[s->at], s->bytes[s->at], &arena, &scratch);
        if (st.code != DR_OK) fail(b, st);
        (void)pthread_mutex_lock(&b->lock);
        s->at = (s->at + 1) % FRAMES;
        s->n--;
        (void)pthread_mutex_unlock(&b->lock);
    }
    dr_arena_fini(&arena);
    dr_arena_fini(&scratch);
    return NULL;
}

static dr_status send(struct bench *b, const struct dr_step_plan *plan, struct dr_arena *scratch) {
    for (int32_t i = 0; i < b->rig.layout.pp; i++) {
        struct stage *s = &b->stage[i];
        (void)pthread_mutex_lock(&b->lock);
        const int32_t at = (s->at + s->n) % FRAMES;
        dr_status st = dr_encode_step_plan(plan, plan->epoch, scratch, s->frame[at], ROOM, &s->bytes[at]);
        s->n += st.code == DR_OK;
        (void)pthread_cond_broadcast(&b->news);
        (void)pthread_mutex_unlock(&b->lock);
        DR_TRY(st);
    }
    return dr_ok();
}

static dr_status take(struct bench *b, struct dr_core *core, struct dr_arena *arena) {
    struct dr_step_result result;
    (void)pthread_mutex_lock(&b->lock);
    while (b->n_result == 0 && !b->failed) (void)pthread_cond_wait(&b->news, &b->lock);
    const bool failed = b->failed;
    (void)pthread_mutex_unlock(&b->lock);
    if (failed) return dr_fail(DR_EPEER, "a stage has failed");
    dr_arena_rewind(arena, 0);
    DR_TRY(dr_decode_step_result(b->result[b->result_at] + DR_FRAME_HEADER,
                                 b->result_bytes[b->result_at] - DR_FRAME_HEADER, arena, &result));
    DR_TRY(dr_core_result(core, dr_clock_ns(), &result));
    (void)pthread_mutex_lock(&b->lock);
    b->result_at = (b->result_at + 1) % FRAMES;
    b->n_result--;
    (void)pthread_mutex_unlock(&b->lock);
    return dr_ok();
}

/* Whoever listens is not part of this. */
static void drain(struct dr_core *core) {
    struct dr_core_event e;
    while (dr_core_event(core, &e))
        if (e.type == DR_MSG_REFUSED) fprintf(stderr, "bench-stages: refused: %s\n", e.refused->text);
}

static dr_status serve(struct bench *b, struct dr_core *core, int32_t sequences, int32_t tokens) {
    struct dr_arena arena, scratch;
    DR_TRY(dr_arena_init(&arena, ARENA));
    DR_TRY(dr_arena_init(&scratch, ARENA));
    for (int32_t i = 0; i < sequences; i++) {
        const uint32_t prompt[] = {1, 2, 3, 4, (uint32_t)i};
        const struct dr_submit s = {.request = (uint64_t)i,
                                    .n_ids = 5,
                                    .ids = prompt,
                                    .max_tokens = tokens,
                                    .ignore_eos = true,
                                    .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
                                    .prompt_top = -1};
        dr_core_submit(core, dr_clock_ns(), &s);
        drain(core);
    }
    while (!dr_core_idle(core)) {
        const struct dr_step_plan *p;
        while ((p = dr_core_plan(core, dr_clock_ns())) != NULL) {
            DR_TRY(send(b, p, &scratch));
            drain(core);
        }
        const uint64_t step = dr_core_step(core);
        DR_TRY(take(b, core, &arena));
        const struct dr_step_news news = dr_core_last(core);
        drain(core);
        if (news.n_decode < sequences / b->rig.layout.pp) continue;
        if (b->first == 0) b->first = step;
        b->last = step;
    }
    dr_arena_fini(&arena);
    dr_arena_fini(&scratch);
    return dr_ok();
}

/* A stage that has less to do than the busiest one must wait for it; what is beyond that is the plans' fault.
 */
static void report(const struct bench *b) {
    const struct dr_layout *l = &b->rig.layout;
    double busy[DR_PP_MAX], most = 0;
    for (int32_t s = 0; s < l->pp; s++) {
        const struct stage *k = &b->stage[s];
        uint64_t begin = 0, end = 0, sum = 0;
        for (int32_t i = 0; i < k->n_report; i++) {
            const struct dr_step_report *r = &k->report[i];
            if (r->step == b->first) begin = r->end_ns;
            if (r->step > b->first && r->step <= b->last) sum += r->end_ns - r->begin_ns - r->wait_ns;
            if (r->step == b->last) end = r->end_ns;
        }
        busy[s] = (double)sum / (double)(end - begin);
        if (busy[s] > most) most = busy[s];
    }
    printf("| stage | layers | idle | of it by imbalance | beyond |\n|---|---|---|---|---|\n");
    for (int32_t s = 0; s < l->pp; s++) {
        const int32_t layers = l->layer_begin[s + 1] - l->layer_begin[s] + (l->mtp && s == l->pp - 1);
        printf("| %d | %d | %.3f | %.3f | %.3f |\n", s, layers, 1 - busy[s], 1 - busy[s] / most,
               busy[s] / most - busy[s]);
    }
    printf("steps %" PRIu64 " to %" PRIu64 "\n", b->first, b->last);
}

static bool get_memory(struct bench *b) {
    bool ok = true;
    for (int i = 0; i < FRAMES; i++) ok = (b->result[i] = malloc(ROOM)) != NULL && ok;
    for (int32_t s = 0; s < DR_PP_MAX && s < b->rig.layout.pp; s++) {
        for (int i = 0; i < FRAMES; i++) ok = (b->stage[s].frame[i] = malloc(ROOM)) != NULL && ok;
        ok = (b->stage[s].report = calloc(REPORTS_MAX, sizeof *b->stage[s].report)) != NULL && ok;
    }
    return ok;
}

static dr_status run(struct bench *b, const char *model, int32_t pp, int32_t drafts, int32_t sequences,
                     int32_t tokens) {
    static struct dr_ops slow;
    struct dr_layout_wish wish = rig_wish(1, pp, 1, DR_EXPERTS_COLUMNS);
    struct dr_core *core = NULL;
    DR_TRY(dr_ops_cpu(&real));
    slow = *real;
    slow.moe = slow_moe;
    wish.mtp = drafts != 0;
    wish.seqs_max = sequences;
    wish.context = tokens + 8;
    rig_kernels.ops = &slow;
    DR_TRY(rig_init(&b->rig, model, &wish));
    if (!get_memory(b)) return dr_fail(DR_EFULL, "no memory");
    const struct dr_core_setup setup = {.config = &b->rig.config,
                                        .layout = &b->rig.layout,
                                        .epoch = 1,
                                        .deadline_scale = 1,
                                        .drafts = drafts};
    DR_TRY(dr_core_create(&setup, &core));
    (void)pthread_mutex_init(&b->lock, NULL);
    (void)pthread_cond_init(&b->news, NULL);
    for (int32_t s = 0; s < pp; s++) {
        b->stage[s].b = b;
        b->stage[s].worker = b->rig.rank[s].worker;
        if (pthread_create(&b->stage[s].thread, NULL, work, &b->stage[s]) != 0)
            return dr_fail(DR_EFULL, "no thread");
    }
    dr_status st = serve(b, core, sequences, tokens);
    (void)pthread_mutex_lock(&b->lock);
    b->over = true;
    (void)pthread_cond_broadcast(&b->news);
    (void)pthread_mutex_unlock(&b->lock);
    for (int32_t s = 0; s < pp; s++) (void)pthread_join(b->stage[s].thread, NULL);
    if (st.code == DR_OK) report(b);
    dr_core_destroy(core);
    return st;
}

int main(int argc, char **argv) {
    struct bench *b = calloc(1, sizeof *b);
    if (!b || argc < 6) {
        fputs("usage: bench-stages MODEL STAGES DRAFTS SEQUENCES TOKENS [LAYER_US [ROW_US]]\n", stderr);
        return 64;
    }
    layer_ns = (argc > 6 ? strtoull(argv[6], NULL, 10) : 2000) * 1000;
    row_ns = (argc > 7 ? strtoull(argv[7], NULL, 10) : 50) * 1000;
    dr_status st = run(b, argv[1], (int32_t)strtol(argv[2], NULL, 10), (int32_t)strtol(argv[3], NULL, 10),
                       (int32_t)strtol(argv[4], NULL, 10), (int32_t)strtol(argv[5], NULL, 10));
    if (st.code != DR_OK) fprintf(stderr, "bench-stages: %s\n", dr_error_text());
    return st.code == DR_OK ? 0 : dr_code_exit(st.code);
}
