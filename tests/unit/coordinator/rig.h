/* rig.h - a core, a fake cluster and a book of who was told what.
 * In:   submits, cancels, steps.      Out: what each request received.
 * Owns: core, fake, records.
 * Why:  tests state what must have arrived; the rig checks what must hold after every call. */
#pragma once

#include "fake.h"

enum { RIG_REQUESTS_MAX = 512, RIG_TOKENS_MAX = 700, RIG_FLIGHTS_MAX = 8 };

struct rig_flight { /* a result on its way */
    struct dr_step_result result;
    struct dr_result_row *row; /* owned, as top and bad */
    struct dr_top *top;
    int32_t *bad;
};

struct told {
    bool accepted, refused, done;
    enum dr_refusal reason;
    uint32_t retry_ms;
    char text[256];
    int32_t n, n_scored, n_logits;
    uint32_t ids[RIG_TOKENS_MAX];
    float logprob[RIG_TOKENS_MAX], score[RIG_TOKENS_MAX];
    struct dr_done end;
    uint64_t done_step; /* step number at the time */
};

struct rig {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_core *core;
    struct fake fake;
    uint64_t now, trace;             /* trace: hash of all plans and events */
    struct told *told;               /* [RIG_REQUESTS_MAX] by request number */
    const struct dr_step_plan *plan; /* of the last rig_begin */
    struct rig_flight flight[RIG_FLIGHTS_MAX];
    int32_t n_flight, n_flight_most;
    uint64_t n_step, n_prompt_row, n_generated_row;
    int32_t n_open;
};

void rig_init(struct rig *g, struct fake_wish w);
void rig_fini(struct rig *g);
void rig_submit(struct rig *g, const struct dr_submit *s);
void rig_cancel(struct rig *g, uint64_t request);

/* Asks for a plan and lets the fake compute it; false when there is none. rig_finish hands the oldest result
 * in. */
bool rig_begin(struct rig *g);
void rig_finish(struct rig *g);
bool rig_step(struct rig *g); /* plans as many as may be under way, then hands one in */

/* Steps until no request is open; fails the test after `most` steps. */
void rig_run(struct rig *g, int32_t most);

/* The request got exactly what it gets alone. */
void rig_expect_answer(const struct rig *g, const struct dr_submit *s);
