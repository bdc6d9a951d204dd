/* service.c - see service.h.
 * In:   frames.      Out: frames.
 * Owns: see service.h.
 * Why:  see service.h. */

#include "worker/service.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/beat.h"
#include "worker/host.h"

enum {
    ROOM = DR_FRAME_HEADER + DR_MPI_FRAME_MAX,
    ARENA_BYTES = 8 << 20, /* proto/README.md, "Limits" */
    LAST_WORDS_BYTES = 64 << 10,
    READERS_LEAST = 4, /* threads that load: a disk wants several reads at a time, packing wants all cores */
};

static const uint64_t HOUR_NS = 3600000000000u, LAST_WORDS_NS = 50000000u;

struct dr_service {
    struct dr_service_setup setup;
    int32_t rank;
    struct dr_worker *worker;
    struct dr_beater *beater;
    struct dr_arena arena; /* the decoded plan, and above it what an encoder needs: 5.4 and 2.4 MiB at most */
    uint8_t *in, *out;     /* [ROOM] */
    uint64_t step;         /* of the last plan */
};

static dr_status send_frame(struct dr_service *s, size_t bytes) {
    return dr_channel_send(s->setup.channel, 0, s->out, bytes);
}

/* The next frame of the coordinator, whenever it comes; its body is at s->in + DR_FRAME_HEADER. */
static dr_status receive(struct dr_service *s, struct dr_frame *f) {
    size_t bytes = 0;
    int32_t from = -1;
    while (bytes == 0)
        DR_TRY(dr_channel_recv(s->setup.channel, s->in, ROOM, dr_clock_ns() + HOUR_NS, &from, &bytes));
    if (bytes < DR_FRAME_HEADER)
        return dr_fail(DR_EPROTO, "rank %d: a frame of %zu bytes, expected at least %d", s->rank, bytes,
                       DR_FRAME_HEADER);
    DR_TRY(dr_frame_read(s->in, DR_MPI_FRAME_MAX, f));
    if (from != 0 || bytes != DR_FRAME_HEADER + (size_t)f->bytes || f->epoch != s->setup.epoch)
        return dr_fail(DR_EPROTO,
                       "rank %d: %s from end %d with %zu bytes, epoch %016" PRIx64
                       "; expected end 0, %zu bytes, epoch %016" PRIx64,
                       s->rank, dr_msg_name(f->type), from, bytes, f->epoch,
                       DR_FRAME_HEADER + (size_t)f->bytes, s->setup.epoch);
    return dr_ok();
}

dr_status dr_service_create(const struct dr_service_setup *setup, struct dr_service **out) {
    const struct dr_channel *ch = setup->channel;
    if (ch->n_end != setup->layout->n_rank + 1 || ch->end < 1)
        return dr_fail(DR_EMODEL, "the layout has %d ranks (tp %d x pp %d), the job started %d workers",
                       setup->layout->n_rank, setup->layout->tp, setup->layout->pp, ch->n_end - 1);
    struct dr_service *s = calloc(1, sizeof *s);
    if (!s) return dr_fail(DR_EFULL, "no memory for the worker's service");
    s->setup = *setup;
    s->rank = ch->end - 1;
    s->in = malloc(ROOM);
    s->out = malloc(ROOM);
    dr_status st = s->in && s->out ? dr_ok() : dr_fail(DR_EFULL, "no memory for frames");
    if (st.code == DR_OK) st = dr_arena_init(&s->arena, ARENA_BYTES);
    if (st.code != DR_OK) {
        dr_service_destroy(s);
        return st;
    }
    *out = s;
    return dr_ok();
}

void dr_service_destroy(struct dr_service *s) {
    if (!s) return;
    dr_beater_destroy(s->beater);
    dr_worker_destroy(s->worker);
    dr_arena_fini(&s->arena);
    free(s->in);
    free(s->out);
    free(s);
}

static dr_status say_hello(struct dr_service *s) {
    struct dr_hello hello = {
        .protocol = DR_PROTOCOL,
        .build = DR_VERSION,
        .rank = s->rank,
        .pid = (int32_t)getpid(),
        .tensors_hash = dr_tensors_hash(s->setup.tensors),
        .layout_hash = dr_layout_hash(s->setup.config, s->setup.layout),
        .memory_bytes = dr_host_free_bytes(),
    };
    size_t bytes = 0;
    dr_host_name(hello.host, sizeof hello.host);
    const struct dr_ops *ops = s->setup.ops;
    bool int8 = s->setup.layout->weights == DR_WEIGHTS_INT8;
    (void)snprintf(hello.arithmetic.isa, sizeof hello.arithmetic.isa, "%s", ops->name);
    (void)snprintf(hello.arithmetic.inputs, sizeof hello.arithmetic.inputs, "%s",
                   int8 ? ops->int8_inputs : ops->native_inputs);
    DR_TRY(dr_encode_hello(&hello, s->setup.epoch, &s->arena, s->out, ROOM, &bytes));
    return send_frame(s, bytes);
}

dr_status dr_service_join(struct dr_service *s, bool *go, int32_t *place, int32_t *peers) {
    struct dr_frame f;
    struct dr_start start;
    *go = false;
    DR_TRY(say_hello(s));
    DR_TRY(dr_beater_create(s->setup.channel, s->rank, s->setup.epoch, &s->beater));
    DR_TRY(receive(s, &f));
    if (f.type == DR_MSG_STOP) return dr_ok();
    if (f.type != DR_MSG_START)
        return dr_fail(DR_EPROTO, "rank %d: %s before the start, expected START", s->rank,
                       dr_msg_name(f.type));
    dr_arena_rewind(&s->arena, 0);
    DR_TRY(dr_decode_start(s->in + DR_FRAME_HEADER, f.bytes, &s->arena, &start));
    if (start.n_rank != s->setup.layout->n_rank)
        return dr_fail(DR_EMODEL, "rank %d: the coordinator starts %d ranks, this layout has %d", s->rank,
                       start.n_rank, s->setup.layout->n_rank);
    *place = start.place[s->rank];
    *peers = start.peers[s->rank];
    *go = true;
    return dr_ok();
}

static void tell_progress(void *arg, uint64_t done, uint64_t total) {
    struct dr_service *s = arg;
    struct dr_progress progress = {.rank = s->rank, .done_bytes = done, .total_bytes = total};
    size_t bytes = 0;
    dr_status st = dr_encode_progress(&progress, s->setup.epoch, &s->arena, s->out, ROOM, &bytes);
    if (st.code == DR_OK) st = send_frame(s, bytes);
    dr_ignore(st, "progress is for people; a lost coordinator shows at READY");
}

dr_status dr_service_load(struct dr_service *s, const struct dr_service_groups *groups) {
    uint64_t begin = dr_clock_ns();
    struct dr_worker_params params = {
        .config = s->setup.config,
        .tensors = s->setup.tensors,
        .layout = s->setup.layout,
        .rank = s->rank,
        .ops = s->setup.ops,
        .stream = s->setup.stream,
        .stage = groups->stage,
        .cache = groups->cache,
        .pipe = groups->pipe,
        .n_reader = dr_max_i32(READERS_LEAST, dr_team_size(s->setup.stream->team)),
    };
    DR_TRY(dr_worker_create(&params, &s->worker));
    DR_TRY(dr_worker_load(s->worker, tell_progress, s));
    dr_beater_watch(s->beater, s->worker);
    struct dr_footprint plan = dr_worker_footprint(s->worker);
    struct dr_ready ready = {
        .rank = s->rank,
        .weights_bytes = plan.weights,
        .cache_bytes = plan.cache,
        .workspace_bytes = plan.workspace + plan.collective,
        .resident_bytes = dr_host_resident_bytes(),
        .load_ns = dr_clock_ns() - begin,
    };
    size_t bytes = 0;
    dr_log(DR_LOG_INFO, "loaded",
           "weights_bytes=%zu cache_bytes=%zu workspace_bytes=%zu collective_bytes=%zu ms=%" PRIu64,
           plan.weights, plan.cache, plan.workspace, plan.collective, ready.load_ns / 1000000u);
    DR_TRY(dr_encode_ready(&ready, s->setup.epoch, &s->arena, s->out, ROOM, &bytes));
    return send_frame(s, bytes);
}

/* How long a step may take before this rank gives up waiting: 5 s, and eight times what the rows would cost
 * at 2 G multiply-adds a second through all stages. The coordinator, which measures, gives up earlier; this
 * bound is for a lost one. */
static uint64_t allowed_ns(const struct dr_service *s, const struct dr_step_plan *plan) {
    const struct dr_config *c = s->setup.config;
    double row = (double)dr_worker_footprint(s->worker).weights,
           work = 0; /* at most one multiply-add a byte of weights and row */
    double past = (double)c->n_layer * c->n_head * (2.0 * c->kv_lora + c->rope_dim);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        const struct dr_segment *g = &plan->segment[i];
        work += g->n_rows * (row * s->setup.layout->pp + past * (g->first + g->n_rows));
    }
    double ns = 5e9 + 8 * work / 2.0;
    return (uint64_t)((ns < 1e15 ? ns : 1e15) * s->setup.deadline_scale);
}

static dr_status send_logits(void *arg, const struct dr_logits *chunk) {
    struct dr_service *s = arg;
    size_t bytes = 0;
    DR_TRY(dr_encode_logits(chunk, s->setup.epoch, &s->arena, s->out, ROOM, &bytes));
    return send_frame(s, bytes);
}

static dr_status answer(struct dr_service *s, const struct dr_step_out *out) {
    size_t bytes = 0;
    if (out->has_result && out->report.code == DR_OK) {
        DR_TRY(dr_encode_step_result(&out->result, s->setup.epoch, &s->arena, s->out, ROOM, &bytes));
        DR_TRY(send_frame(s, bytes));
    }
    DR_TRY(dr_encode_step_report(&out->report, s->setup.epoch, &s->arena, s->out, ROOM, &bytes));
    return send_frame(s, bytes);
}

/* Restores a failure's text, which a later failure of this thread has replaced. */
static dr_status failed(dr_status st, const struct dr_step_report *r) {
    return dr_fail(st.code, "%s", r->text);
}

static dr_status run_plan(struct dr_service *s, const struct dr_frame *f) {
    struct dr_step_plan plan;
    struct dr_step_out out;
    dr_arena_rewind(&s->arena, 0);
    DR_TRY(dr_decode_step_plan(s->in + DR_FRAME_HEADER, f->bytes, &s->arena, &plan));
    if (plan.epoch != s->setup.epoch || plan.step != s->step + 1)
        return dr_fail(DR_EPROTO,
                       "rank %d: plan of epoch %016" PRIx64 ", step %" PRIu64 "; expected epoch %016" PRIx64
                       ", step %" PRIu64,
                       s->rank, plan.epoch, plan.step, s->setup.epoch, s->step + 1);
    s->step = plan.step;
    dr_status st =
        dr_worker_step(s->worker, &plan, dr_clock_ns() + allowed_ns(s, &plan), send_logits, s, &out);
    dr_status told = answer(s, &out);
    if (st.code != DR_OK) return failed(st, &out.report);
    return told;
}

dr_status dr_service_serve(struct dr_service *s) {
    struct dr_frame f;
    for (;;) {
        DR_TRY(receive(s, &f));
        if (f.type == DR_MSG_STOP) return dr_ok();
        if (f.type != DR_MSG_STEP_PLAN)
            return dr_fail(DR_EPROTO, "rank %d: %s from the coordinator, expected STEP_PLAN or STOP", s->rank,
                           dr_msg_name(f.type));
        DR_TRY(run_plan(s, &f));
    }
}

void dr_service_tell(struct dr_channel *channel, uint64_t epoch, dr_status st) {
    struct dr_fault_note note = {.rank = channel->end - 1, .code = (int32_t)st.code};
    struct dr_arena scratch = {0};
    uint8_t frame[DR_FRAME_HEADER + 4 * DR_TEXT_MAX], heard[DR_FRAME_HEADER];
    size_t bytes = 0;
    int32_t from = 0;
    (void)snprintf(note.text, sizeof note.text, "%s", dr_error_text());
    dr_status told = dr_arena_init(&scratch, LAST_WORDS_BYTES);
    if (told.code == DR_OK) told = dr_encode_fault_note(&note, epoch, &scratch, frame, sizeof frame, &bytes);
    if (told.code == DR_OK) told = dr_channel_send(channel, 0, frame, bytes);
    if (told.code == DR_OK) /* gives the frame time to leave */
        told = dr_channel_recv(channel, heard, sizeof heard, dr_clock_ns() + LAST_WORDS_NS, &from, &bytes);
    dr_arena_fini(&scratch);
    dr_ignore(told, "the coordinator may be what failed");
    dr_ignore(dr_fail(st.code, "%s", note.text), "restores the text for the caller");
}
