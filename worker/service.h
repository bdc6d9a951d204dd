/* service.h - a worker's life as the coordinator sees it: hello, load, steps, stop.
 * In:   frames of the coordinator.      Out: frames to it; a beat each second from a thread of its own.
 * Owns: the worker, the beat thread, frame buffers. Groups and channel are the caller's.
 * Why:  knows the messages but not MPI, so that tests run it over the loop channel in a thread.
 *
 * One thread calls all of it, in this order: create, join, load, serve; destroy at any point. */
#pragma once

#include "proto/channel.h"
#include "worker/step.h"

struct dr_service;

struct dr_service_setup { /* all borrowed for the service's life */
    const struct dr_config *config;
    const struct dr_tensors *tensors;
    const struct dr_layout *layout;
    struct dr_channel *channel; /* end 1 + rank */
    const struct dr_ops *ops;
    struct dr_stream *stream;
    uint64_t epoch;
    double deadline_scale;
};

struct dr_service_groups { /* as in struct dr_worker_params */
    struct dr_group *stage, *cache, *pipe;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fails: EMODEL when the channel's ends are not the layout's ranks, EFULL. */
DR_FALLIBLE dr_service_create(const struct dr_service_setup *setup, struct dr_service **out);
void dr_service_destroy(struct dr_service *s);

/* Says hello and waits for the start; beats from then on. *go is false when the coordinator said stop
 * instead. place, peers: this rank's number among the ranks of its host, and how many these are. Fails:
 * EPEER, EPROTO. */
DR_FALLIBLE dr_service_join(struct dr_service *s, bool *go, int32_t *place, int32_t *peers);

/* Makes the worker, loads with a progress message a second, says ready. Fails: as dr_worker_create and
 * _load. */
DR_FALLIBLE dr_service_load(struct dr_service *s, const struct dr_service_groups *groups);

/* Runs plans until the coordinator says stop (OK). Fails: EPEER, EPROTO, ETIME, EDEVICE; a failed step was
 * reported. */
DR_FALLIBLE dr_service_serve(struct dr_service *s);

/* Last words: code and text of a failure, before the process ends. */
void dr_service_tell(struct dr_channel *channel, uint64_t epoch, dr_status st);

#ifdef __cplusplus
}
#endif
