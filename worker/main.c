/* main.c - the program deeprack-worker: one rank of the tensor world.
 * In:   options as flags (the gateway's, the same for all ranks).      Out: an exit status.
 * Owns: channel, groups, team; the service owns the rest.
 * Why:  a table of contents: options, MPI, model, join, load, serve, leave. */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/option.h"
#include "common/topology.h"
#include "model/wish.h"
#include "model/workspace.h"
#include "worker/service.h"

enum { LEAVE_SECONDS = 10, TAG_GROUPS = 1 };

static const uint64_t MEET_NS = 30000000000u; /* ranks that got START reach the groups within this */

struct program {
    struct dr_options options;
    struct dr_config config;
    struct dr_tensors *tensors;
    struct dr_layout layout;
    struct dr_team *team;
    struct dr_stream stream;
    struct dr_channel *channel;
    struct dr_service *service;
    struct dr_service_groups groups;
    const struct dr_ops *ops;
    uint64_t epoch;
};

/* The kernels; --precision and --isa stand in the order of their enums, --isa with "auto" first. */
static dr_status choose_ops(struct program *p) {
    int32_t isa = (int32_t)dr_option_int(&p->options, DR_OPTION_ISA);
    enum dr_precision precision = (enum dr_precision)dr_option_int(&p->options, DR_OPTION_PRECISION);
    return dr_ops_x86(isa == 0 ? DR_ISA_COUNT : (enum dr_isa)(isa - 1), precision, &p->ops);
}

static dr_status read_model(struct program *p) {
    const char *dir = dr_option_text(&p->options, DR_OPTION_MODEL);
    DR_TRY(choose_ops(p));
    DR_TRY(dr_config_load(dir, &p->config));
    struct dr_layout_wish wish = dr_wish_of(&p->options, &p->config);
    DR_TRY(dr_layout_make(&p->config, &wish, &p->layout));
    return dr_tensors_open_headers(dir, &p->config, &p->tensors);
}

/* n members, the first and every stride-th after it. */
static dr_status group(const struct program *p, enum dr_call_group which, int32_t first, int32_t stride,
                       int32_t n, struct dr_group **out) {
    int32_t member[DR_GROUP_MEMBERS_MAX];
    if (n == 1) return dr_ok();
    for (int32_t m = 0; m < n; m++) member[m] = first + m * stride;
    struct dr_group_room room = dr_workspace_group(&p->config, &p->layout, p->channel->end - 1, which);
    struct dr_group_spec spec = {
        .members = member,
        .n = n,
        .tag = TAG_GROUPS + (int32_t)which,
        .call_bytes = room.call_bytes,
        .message_bytes = room.message_bytes,
        .form = (enum dr_group_form)dr_option_int(&p->options, DR_OPTION_COLLECTIVES),
    };
    DR_TRY(dr_group_create(&spec, dr_clock_ns() + MEET_NS, out));
    dr_log(DR_LOG_DEBUG, "group", "kind=%d members=%d me=%d form=%s", (int)which, n, (*out)->me,
           (*out)->ops->name);
    return dr_ok();
}

static dr_status meet(struct program *p) {
    const struct dr_layout *l = &p->layout;
    int32_t rank = p->channel->end - 1;
    struct dr_shard s = dr_layout_shard(&p->config, l, rank);
    DR_TRY(group(p, DR_GROUP_STAGE, rank - s.t, 1, l->tp, &p->groups.stage));
    DR_TRY(group(p, DR_GROUP_CACHE, rank - s.member, 1, l->c, &p->groups.cache));
    return group(p, DR_GROUP_PIPE, s.t, l->tp, l->pp, &p->groups.pipe);
}

/* Gives the team its share of this host's cores, where there is one for every thread. */
static void bind_team(struct dr_team *team, int32_t place, int32_t peers) {
    struct dr_cpu list[DR_CPUS_MAX];
    int32_t n = dr_topology_list("/sys", list, DR_CPUS_MAX), size = dr_team_size(team), cpu[DR_CPUS_MAX];
    bool bound = size <= DR_CPUS_MAX && dr_topology_share(list, n, place, peers, size, cpu);
    dr_status st = bound ? dr_team_pin(team, cpu) : dr_ok();
    if (st.code != DR_OK) dr_log(DR_LOG_WARN, "not_bound", "reason=\"%s\"", dr_error_text());
    dr_log(DR_LOG_INFO, "threads", "n=%d bound=%d first_cpu=%d cores=%d nodes=%d place=%d peers=%d", size,
           bound && st.code == DR_OK, bound ? cpu[0] : -1, dr_topology_cores(list, n),
           dr_topology_nodes(list, n), place, peers);
}

static dr_status work(struct program *p) {
    struct dr_service_setup setup = {
        .config = &p->config,
        .tensors = p->tensors,
        .layout = &p->layout,
        .channel = p->channel,
        .ops = p->ops,
        .stream = &p->stream,
        .epoch = p->epoch,
        .deadline_scale = dr_option_float(&p->options, DR_OPTION_DEADLINE_SCALE),
    };
    bool go = false;
    int32_t place = 0, peers = 1;
    DR_TRY(dr_service_create(&setup, &p->service));
    DR_TRY(dr_service_join(p->service, &go, &place, &peers));
    if (!go) return dr_ok();
    DR_TRY(meet(p));
    DR_TRY(dr_team_create((int32_t)dr_option_int(&p->options, DR_OPTION_THREADS), &p->team));
    bind_team(p->team, place, peers);
    p->stream.team = p->team;
    DR_TRY(dr_service_load(p->service, &p->groups));
    return dr_service_serve(p->service);
}

static void leave(struct program *p) {
    alarm(
        LEAVE_SECONDS); /* ranks that do not reach finalize must not keep this one: the signal ends the job */
    dr_service_destroy(p->service);
    dr_group_destroy(p->groups.stage);
    dr_group_destroy(p->groups.cache);
    dr_group_destroy(p->groups.pipe);
    dr_channel_destroy(p->channel);
    dr_mpi_finalize();
    dr_team_destroy(p->team);
    dr_tensors_destroy(p->tensors);
    dr_options_fini(&p->options);
}

/* A wrong command line, a missing file and a refused model have exit codes of their own; all else is
 * internal. */
static int exit_code(enum dr_code code) {
    bool own = code == DR_EUSAGE || code == DR_ENOENT || code == DR_EIO || code == DR_EMODEL;
    return dr_code_exit(own ? code : DR_EINTERNAL);
}

/* Without MPI_Finalize, which waits for ranks that may be dead; mpirun ends the job. */
static _Noreturn void die(struct program *p, dr_status st) {
    if (p->channel) dr_service_tell(p->channel, p->epoch, st);
    dr_log(DR_LOG_ERROR, "rank_failed", "code=%s reason=\"%s\"", dr_code_name(st.code), dr_error_text());
    _exit(exit_code(st.code));
}

int main(int argc, char **argv) {
    struct program p = {.epoch = 0};
    dr_status st = dr_options_parse(DR_CMD_WORKER, argc - 1, argv + 1, &p.options);
    if (st.code == DR_OK) st = dr_option_epoch(&p.options, &p.epoch);
    if (st.code == DR_OK) st = dr_channel_mpi_create(&argc, &argv, &p.channel);
    dr_log_init((enum dr_log_level)dr_option_int(&p.options, DR_OPTION_LOG_LEVEL),
                (enum dr_log_format)dr_option_int(&p.options, DR_OPTION_LOG_FORMAT), "worker",
                p.channel ? p.channel->end - 1 : -1);
    signal(SIGPIPE, SIG_IGN);
    if (st.code == DR_OK) st = read_model(&p);
    if (st.code == DR_OK) st = work(&p);
    if (st.code != DR_OK) die(&p, st);
    leave(&p);
    return 0;
}
