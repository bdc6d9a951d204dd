/* pool.h - the records of all open requests and the memory of their tokens.
 * In:   how many requests may be open, the context length.      Out: request records.
 * Owns: the records; a stripe of `context` ids, one of DR_BIAS_MAX biases and one of page names for each.
 * Why:  nothing is allocated after the start, and a request that was accepted always has room for its tokens.
 *
 * Stripes are address space (4 B x context x requests: 200 MiB for 320 requests of 160 k): memory is used
 * only where tokens are, and long stripes are given back when their request ends. */
#pragma once

#include "coordinator/queue/request.h"

struct dr_pool {
    struct dr_request *request; /* [n] owned */
    int32_t *spare;             /* [n] owned: stack of free records */
    int32_t n, n_spare;
    int32_t context, names;
    uint32_t *ids;          /* [n * context] owned mapping */
    struct dr_bias *bias;   /* [n * DR_BIAS_MAX] owned mapping */
    struct dr_digest *name; /* [n * names] owned mapping */
};

/* Fails: EFULL when the system refuses the memory or the address space. */
DR_FALLIBLE dr_pool_init(struct dr_pool *p, int32_t n, int32_t context, int32_t page_tokens);
void dr_pool_fini(struct dr_pool *p);

/* A record with its stripes and nothing else set, or NULL when all are in use. */
struct dr_request *dr_pool_acquire(struct dr_pool *p);
void dr_pool_release(struct dr_pool *p, struct dr_request *r);

/* The open request with this number, or NULL. */
struct dr_request *dr_pool_find(struct dr_pool *p, uint64_t id);
