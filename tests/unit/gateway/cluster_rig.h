/* cluster_rig.h - an engine whose job is a shell script and whose coordinator is the test itself.
 * In:   what the engine writes into the script's arguments and environment.      Out: a link on which the
 * test speaks frames. Owns: a temporary folder, the engine. Why:  epochs, loss, latch and drain can be
 * provoked one by one; only mpirun and the ranks are missing. */
#pragma once

#include "gateway/cluster/state.h"

struct rig {
    char dir[64]; /* holds mpirun, launch, pid */
    struct dr_options options;
    struct dr_config config;
    struct dr_engine_setup setup;
    struct dr_engine *engine;
    struct dr_link *link;
    uint64_t epoch;
    struct dr_arena arena;
};

/* What a sink was told, as text: "A" accepted, "T5,6" tokens, "L3" logits of row 3, "D:stop", "R:text". */
struct told {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char text[1024];
    bool ended;
};

/* body: shell commands of the fake mpirun after it has written its notes; NULL: sleep for ever. */
void rig_prepare(struct rig *r, const char *body);
void rig_start(struct rig *r); /* prepare was called; asserts that the engine starts */
void rig_stop(struct rig *r);  /* destroys the engine, removes the folder */

void rig_connect(struct rig *r);            /* waits for the next launch and connects with its token */
void rig_ready(struct rig *r, int32_t pid); /* CLUSTER_READY; pid: of rank 0 on this machine, or 0 */
void rig_up(struct rig *r);                 /* start, connect, ready, wait */
void rig_hang_up(struct rig *r);            /* closes the link as a dead coordinator does */
void rig_word(struct rig *r, enum dr_msg type, uint64_t value);
void rig_tokens(struct rig *r, uint64_t request, int32_t position, const uint32_t *ids, int32_t n);
void rig_done(struct rig *r, uint64_t request, enum dr_finish finish);
void rig_step(struct rig *r, const struct dr_step_news *news);
void rig_report(struct rig *r, const struct dr_step_report *report);
void rig_refused(struct rig *r, const struct dr_refused *refused);
void rig_stats(struct rig *r, const struct dr_stats *stats);
void rig_fault(struct rig *r, enum dr_code code, const char *text);
bool rig_expect(struct rig *r, enum dr_msg type, const uint8_t **body,
                size_t *bytes);                        /* the next frame is of this type */
int32_t rig_read_pid(struct rig *r, const char *name); /* of a file that the script writes; waits */
bool rig_pid_ends(int32_t pid);

dr_status rig_submit(struct rig *r, struct told *t, uint64_t *request); /* ids 1, 2, 3 */
void told_init(struct told *t);
bool told_ends(struct told *t); /* waits */
bool rig_state_becomes(struct rig *r, enum dr_engine_state state);
