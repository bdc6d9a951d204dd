/* fake_engine.h - an engine without a cluster: answers from a script.
 * In:   submitted requests, a script set by the test.      Out: the callbacks of gateway/cluster/engine.h.
 * Owns: one thread and copies of what was submitted.
 * Why:  the HTTP surface is tested in one process, with failures that a real cluster cannot be asked for.
 *
 * This file's functions take the place of gateway/cluster in this test program: the linker finds them first.
 */
#pragma once

#include <pthread.h>

#include "gateway/cluster/engine.h"

enum fake_mode {
    FAKE_NORMAL,     /* the script, then its last id for ever */
    FAKE_HANG,       /* accepted, then nothing until cancelled */
    FAKE_SILENT,     /* not even accepted */
    FAKE_FULL,       /* refused: queue full, retry in 1,500 ms */
    FAKE_TOO_LONG,   /* refused */
    FAKE_DRAINING,   /* refused */
    FAKE_DOWN,       /* submit fails */
    FAKE_LOST_EARLY, /* LOST before it is accepted */
    FAKE_LOST,       /* LOST after two tokens */
    FAKE_NUMERIC,    /* NUMERIC after two tokens */
    FAKE_CANCELLED,  /* the engine cancels by itself after two tokens */
};

enum { FAKE_OPEN_MAX = 300, FAKE_SCRIPT_MAX = 64 };

struct fake_open {
    bool used, accepted, cancelled;
    uint64_t request;
    struct dr_engine_sink sink;
    int32_t n_prompt, n_end, n_done, max_tokens, n_top, prompt_top;
    uint32_t end_id[DR_STOP_IDS_MAX];
    uint32_t *prompt; /* owned */
};

struct dr_engine {
    pthread_mutex_t lock;
    pthread_t thread;
    bool stopping;
    enum fake_mode mode;
    enum dr_engine_state state;
    uint32_t script[FAKE_SCRIPT_MAX];
    int32_t n_script;
    uint64_t step_ns;
    int32_t n_open;
    uint64_t next_id;
    int64_t n_submitted, n_cancelled, n_reset;
    bool full; /* what dr_engine_full says */
    struct fake_open open[FAKE_OPEN_MAX];
    struct dr_submit last;    /* arrays are not valid */
    uint64_t seed[8];         /* of the last 8 submits, by n_submitted % 8 */
    struct dr_bias last_bias; /* the first one */
};

struct dr_engine *fake_create(void);
/* Under the lock: mode and script for what is submitted from now on. */
void fake_set(struct dr_engine *e, enum fake_mode mode, const uint32_t *script, int32_t n);
/* Under the lock: time between two tokens. */
void fake_set_pace(struct dr_engine *e, uint64_t step_ns);
void fake_state(struct dr_engine *e, enum dr_engine_state state);
void fake_full(struct dr_engine *e, bool full);
int64_t fake_submitted(struct dr_engine *e);
int64_t fake_cancelled(struct dr_engine *e);
int32_t fake_open(struct dr_engine *e);
