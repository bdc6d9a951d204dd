/* answer.h - one request for answers on its way: all its sequences, and what the client is sent.
 * In:   struct dr_ask; pieces of its generations.      Out: a reply, or events of a stream.
 * Owns: the ask, one generation a choice; cancels what is not finished when destroyed.
 * Why:  order of chunks, usage, errors in mid-stream and the joining of n choices are decided here and
 * nowhere else. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/ask.h"

struct dr_answer;

enum dr_answer_state {
    DR_ANSWER_WAITING,   /* nothing to send yet; a status is still open */
    DR_ANSWER_STREAMING, /* status 200 is decided; `out` may have got events */
    DR_ANSWER_ENDED,     /* stream: the last event is in `out`; else: the body is */
    DR_ANSWER_FAILED,    /* nothing was sent: see dr_answer_problem */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Submits every sequence. Takes ask over (empty afterwards, also on failure). notify(arg): dr_answer_turn has
 * something to do; it runs on the engine thread and must not block. Fails: EREQUEST with *why. */
DR_FALLIBLE dr_answer_create(struct dr_api *api, struct dr_ask *ask, void (*notify)(void *arg), void *arg,
                             struct dr_answer **out, struct dr_problem *why);

/* Moves on with what has arrived; appends to out. One thread at a time; never blocks. */
enum dr_answer_state dr_answer_turn(struct dr_answer *a, struct dr_json_out *out);

bool dr_answer_streams(const struct dr_answer *a);
const struct dr_problem *dr_answer_problem(const struct dr_answer *a);

/* Not concurrently with a turn. Counts what had not ended as aborted. */
void dr_answer_destroy(struct dr_answer *a);

#ifdef __cplusplus
}
#endif
