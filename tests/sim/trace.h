/* trace.h - the requests of a simulation: when they come, how long they are, with whom they begin alike.
 * In:   a Mooncake trace (JSON lines), or a profile and a seed.      Out: requests in order of arrival; their
 * ids. Owns: the requests, the block names of a file. Why:  prompts are made from names of blocks, so that a
 * million requests need no memory for their tokens.
 *
 * A prompt is a row of blocks of `block` ids each; equal names at the same place mean equal ids. */
#pragma once

#include "common/status.h"

/* steady: Poisson arrivals. bursty: ten times as many in a tenth of the time. heavy: lengths of a Pareto
 * tail. prefix: 200 system prompts, used as unevenly as words are, and conversations that come back with
 * more. */
/* clang-format off */
#define SIM_PROFILES(X) X(STEADY, "steady") X(BURSTY, "bursty") X(HEAVY, "heavy") X(PREFIX, "prefix")
/* clang-format on */
#define DR_X_(name, text) SIM_##name,
enum sim_profile { SIM_PROFILES(DR_X_) SIM_PROFILE_COUNT };
#undef DR_X_

struct sim_request {
    uint64_t at_ns;
    int32_t n_prompt, n_output;
    int32_t tenant, priority;
    /* names of the prompt's blocks: `shared` of them from the name `prefix` on, then from the name `own` on;
     * a file's requests have theirs at name[first] instead */
    int32_t shared;
    uint32_t prefix, own;
    int64_t first; /* -1: none */
};

struct sim_trace {
    struct sim_request *request; /* [n] owned, by arrival */
    int64_t n;
    uint32_t *name; /* owned */
    int64_t n_name;
    int32_t block;
};

/* Requests come so that `load` x tokens_s tokens (prompt and output) arrive a second. context: prompt and
 * output are shorter. Fails: EFULL. */
DR_FALLIBLE sim_trace_make(struct sim_trace *t, enum sim_profile profile, int64_t n, uint64_t seed,
                           double tokens_s, int32_t context);

/* Lines {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}, blocks of 512 ids. At
 * most n requests (0: all); longer ones than the context are cut. Fails: EIO, EREQUEST naming the line. */
DR_FALLIBLE sim_trace_read(struct sim_trace *t, const char *path, int64_t n, int32_t context);

void sim_trace_fini(struct sim_trace *t);

/* ids[0 .. n_prompt) of a request. */
void sim_trace_ids(const struct sim_trace *t, const struct sim_request *r, int32_t vocab, uint32_t *ids);
