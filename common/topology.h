/* topology.h - the processors that this process may use.
 * In:   the affinity mask, /sys.      Out: a list in the order in which threads should take them.
 * Owns: nothing.
 * Why:  ranks on one host must not share cores or cross NUMA nodes, and two hardware threads of one core are
 * one core for the kernels. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { DR_CPUS_MAX = 1024 };

struct dr_cpu {
    int32_t id, node;
    bool first; /* of its core's hardware threads */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Lists at most `room` processors of the affinity mask: first hardware threads of all cores, node by node,
 * then the others in the same order. root: "/sys" ("" counts as a system that says nothing: one node, each
 * processor a core). Returns how many. */
int32_t dr_topology_list(const char *root, struct dr_cpu *out, int32_t room);

/* Of such a list. */
int32_t dr_topology_cores(const struct dr_cpu *list, int32_t n);
int32_t dr_topology_nodes(const struct dr_cpu *list, int32_t n);

/* Processors for the n_thread threads of process `local` of n_local on this host: equal shares of the cores
 * in the list's order, so that few processes lie in few nodes. False when there are fewer cores than threads
 * in all, and threads must float. */
bool dr_topology_share(const struct dr_cpu *list, int32_t n, int32_t local, int32_t n_local, int32_t n_thread,
                       int32_t *cpu);

#ifdef __cplusplus
}
#endif
