/* bench_coordinator.c - what a step costs the coordinator, and whether it takes memory.
 * In:   config.json, how many sequences run, steps.      Out: a line: microseconds a step; exit 1 when a step
 * allocated. Owns: a core and the frames that a loop would send and receive. Why:  the time between a result
 * and the next plan is time in which every rank of the cluster waits. Counted: taking the result's frame and
 * every rank's report, the core's work, the plan's frame and the frame of tokens for the gateway; not the
 * pipes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/size.h"
#include "coordinator/core.h"
#include "proto/codec.h"
#include "tests/support/config_file.h"

enum { ROOM = DR_FRAME_HEADER + DR_MPI_FRAME_MAX, ARENA = 8 << 20, PROMPT = 100, TP = 8 };

/* Every allocation of the process, the libraries' too, passes here. */
static uint64_t n_alloc;
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n) {
    n_alloc++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    n_alloc++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    n_alloc++;
    return __libc_realloc(p, n);
}

struct bench {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_core *core;
    struct dr_arena arena;
    uint8_t *plan, *result, *report, *tokens; /* frames */
    struct dr_result_row *row;
    uint64_t now, ns;
};

static dr_status make(struct bench *b, const char *config, int32_t seqs) {
    DR_TRY(config_file_read(config, &b->config));
    const struct dr_layout_wish wish = {
        .tp = TP, .pp = 1, .context = 65536, .seqs_max = seqs, .step_tokens = 2048, .pages = 65536};
    DR_TRY(dr_layout_make(&b->config, &wish, &b->layout));
    const struct dr_core_setup setup = {.config = &b->config,
                                        .layout = &b->layout,
                                        .epoch = 1,
                                        .deadline_scale = 1,
                                        .reuse = DR_REUSE_ANY,
                                        .step_ns = 1000000000};
    DR_TRY(dr_core_create(&setup, &b->core));
    DR_TRY(dr_arena_init(&b->arena, ARENA));
    b->plan = malloc(ROOM);
    b->result = malloc(ROOM);
    b->report = malloc(ROOM);
    b->tokens = malloc(ROOM);
    b->row = calloc((size_t)seqs, sizeof *b->row);
    return b->plan && b->result && b->report && b->tokens && b->row ? dr_ok()
                                                                    : dr_fail(DR_EFULL, "no memory");
}

/* Takes the events; tokens become a frame. */
static dr_status drain(struct bench *b) {
    struct dr_core_event e;
    size_t bytes = 0;
    while (dr_core_event(b->core, &e))
        if (e.type == DR_MSG_TOKENS)
            DR_TRY(dr_encode_tokens(&e.tokens, 1, &b->arena, b->tokens, ROOM, &bytes));
    return dr_ok();
}

static dr_status submit_all(struct bench *b, int32_t seqs) {
    uint32_t ids[PROMPT];
    for (int32_t i = 0; i < seqs; i++) {
        for (int32_t k = 0; k < PROMPT; k++) ids[k] = (uint32_t)((i * 7919 + k * 31) % b->config.vocab);
        const struct dr_submit s = {.request = (uint64_t)i,
                                    .n_ids = PROMPT,
                                    .ids = ids,
                                    .max_tokens = 60000,
                                    .ignore_eos = true,
                                    .sampling = {.top_p = 1, .repetition = 1, .n_top = -1},
                                    .prompt_top = -1};
        dr_core_submit(b->core, b->now, &s);
        DR_TRY(drain(b));
    }
    return dr_ok();
}

/* What the workers send for a plan: a token a row that has an output, and TP reports. */
static dr_status answer(struct bench *b, const struct dr_step_plan *p, size_t *result_bytes,
                        size_t *report_bytes) {
    int32_t n = 0;
    for (int32_t i = 0; i < p->n_segment; i++) {
        const struct dr_segment *g = &p->segment[i];
        if (g->output != DR_OUTPUT_SAMPLE) continue;
        b->row[n++] = (struct dr_result_row){.slot = g->slot,
                                             .position = g->first + g->n_rows - 1,
                                             .n_ids = 1,
                                             .ids = {(uint32_t)(g->first * 17 + g->slot) % 1000}};
    }
    const struct dr_step_result r = {.epoch = 1, .step = p->step, .n_row = n, .row = b->row};
    const struct dr_step_report report = {.epoch = 1, .step = p->step};
    DR_TRY(dr_encode_step_result(&r, 1, &b->arena, b->result, ROOM, result_bytes));
    return dr_encode_step_report(&report, 1, &b->arena, b->report, ROOM, report_bytes);
}

static dr_status step(struct bench *b) {
    size_t bytes = 0, result_bytes = 0, report_bytes = 0;
    struct dr_step_result result;
    struct dr_step_report report;
    const uint64_t t0 = dr_clock_ns();
    const struct dr_step_plan *p = dr_core_plan(b->core, b->now);
    if (!p) return dr_fail(DR_EINTERNAL, "no plan is due");
    dr_arena_rewind(&b->arena, 0);
    DR_TRY(dr_encode_step_plan(p, 1, &b->arena, b->plan, ROOM, &bytes));
    DR_TRY(drain(b));
    const uint64_t t1 = dr_clock_ns();
    dr_arena_rewind(&b->arena, 0);
    DR_TRY(answer(b, p, &result_bytes, &report_bytes));
    b->now += 20000000;
    const uint64_t t2 = dr_clock_ns();
    dr_arena_rewind(&b->arena, 0);
    DR_TRY(dr_decode_step_result(b->result + DR_FRAME_HEADER, result_bytes - DR_FRAME_HEADER, &b->arena,
                                 &result));
    DR_TRY(dr_core_result(b->core, b->now, &result));
    DR_TRY(drain(b));
    for (int32_t i = 0; i < TP; i++) {
        dr_arena_rewind(&b->arena, 0);
        DR_TRY(dr_decode_step_report(b->report + DR_FRAME_HEADER, report_bytes - DR_FRAME_HEADER, &b->arena,
                                     &report));
        DR_TRY(dr_core_report(b->core, &report));
    }
    b->ns = dr_clock_ns() - t2 + (t1 - t0);
    return dr_ok();
}

static int ascending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static dr_status run(struct bench *b, const char *config, int32_t seqs, int32_t steps, bool *allocated) {
    uint64_t *ns = malloc((size_t)steps * sizeof *ns);
    dr_status st = ns ? make(b, config, seqs) : dr_fail(DR_EFULL, "no memory");
    if (st.code == DR_OK) st = submit_all(b, seqs);
    for (int32_t i = 0; st.code == DR_OK && i < 100 + seqs / 8; i++)
        st = step(b); /* prompts, and first pages */
    const uint64_t before = n_alloc;
    for (int32_t i = 0; st.code == DR_OK && i < steps; i++) {
        st = step(b);
        ns[i] = b->ns;
    }
    const uint64_t taken = n_alloc - before;
    *allocated = taken != 0;
    if (st.code == DR_OK) {
        qsort(ns, (size_t)steps, sizeof *ns, ascending);
        printf("%d sequences, %d steps: median %.1f us, 99 %% %.1f us, %" PRIu64 " allocations\n", seqs,
               steps, (double)ns[steps / 2] / 1e3, (double)ns[steps * 99 / 100] / 1e3, taken);
    }
    free(ns);
    return st;
}

int main(int argc, char **argv) {
    struct bench b = {.now = 1};
    bool allocated = false;
    const int32_t seqs = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 256,
                  steps = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 5000;
    if (argc < 2 || seqs < 1 || seqs > DR_WAITING_MAX || steps < 1 || steps > 50000) {
        fputs("usage: bench-coordinator CONFIG.json [SEQUENCES [STEPS]]\n", stderr);
        return 64;
    }
    dr_status st = run(&b, argv[1], seqs, steps, &allocated);
    if (st.code != DR_OK) fprintf(stderr, "bench-coordinator: %s\n", dr_error_text());
    dr_core_destroy(b.core);
    dr_arena_fini(&b.arena);
    free(b.plan);
    free(b.result);
    free(b.report);
    free(b.tokens);
    free(b.row);
    return st.code == DR_OK && !allocated ? 0 : 1;
}
