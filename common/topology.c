/* topology.c - see topology.h.
 * In:   /sys/devices/system/{cpu,node}.      Out: lists.
 * Owns: nothing.
 * Why:  see topology.h. */
#include "common/topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { NODES_MAX = 256, PATH_ROOM = 512 };

/* Calls mark for every number of a list such as "0-3,8,10-11". */
static void read_list(const char *path, void (*mark)(void *arg, int32_t id), void *arg) {
    FILE *f = fopen(path, "re");
    int from, to, c = ',';
    if (!f) return;
    while (c == ',' && fscanf(f, "%d", &from) == 1) {
        to = from;
        c = fgetc(f);
        if (c == '-' && fscanf(f, "%d", &to) != 1) break;
        if (c == '-') c = fgetc(f);
        for (int i = from; i <= to && i >= 0 && i < DR_CPUS_MAX; i++) mark(arg, i);
    }
    (void)fclose(f);
}

static void mark_true(void *arg, int32_t id) {
    ((bool *)arg)[id] = true;
}

static void keep_least(void *arg, int32_t id) {
    int32_t *least = arg;
    if (*least < 0 || id < *least) *least = id;
}

static int32_t node_of(const char *root, int32_t id, int32_t n_node) {
    char path[PATH_ROOM];
    for (int32_t node = 0; node < n_node; node++) {
        (void)snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/node%d", root, id, node);
        FILE *f = fopen(path, "re"); /* a folder, or a file in tests */
        if (!f) continue;
        (void)fclose(f);
        return node;
    }
    return 0;
}

static bool first_of_core(const char *root, int32_t id) {
    char path[PATH_ROOM];
    int32_t least = -1;
    (void)snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, id);
    read_list(path, keep_least, &least);
    return least < 0 || least == id;
}

static int order(const void *a, const void *b) {
    const struct dr_cpu *x = a, *y = b;
    if (x->first != y->first) return x->first ? -1 : 1;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

int32_t dr_topology_list(const char *root, struct dr_cpu *out, int32_t room) {
    cpu_set_t set;
    bool online[DR_CPUS_MAX] = {false};
    char path[PATH_ROOM];
    int32_t n = 0, n_node = 0;
    (void)snprintf(path, sizeof path, "%s/devices/system/node/online", root);
    read_list(path, mark_true, online);
    for (int32_t i = 0; i < NODES_MAX; i++)
        if (online[i]) n_node = i + 1;
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
    for (int32_t id = 0; id < DR_CPUS_MAX && id < CPU_SETSIZE && n < room; id++)
        if (CPU_ISSET(id, &set))
            out[n++] = (struct dr_cpu){
                .id = id, .node = node_of(root, id, n_node), .first = first_of_core(root, id)};
    qsort(out, (size_t)n, sizeof *out, order);
    return n;
}

int32_t dr_topology_cores(const struct dr_cpu *list, int32_t n) {
    int32_t cores = 0;
    for (int32_t i = 0; i < n; i++) cores += list[i].first;
    return cores;
}

int32_t dr_topology_nodes(const struct dr_cpu *list, int32_t n) {
    int32_t nodes = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t j = 0;
        while (j < i && list[j].node != list[i].node) j++;
        nodes += j == i;
    }
    return nodes;
}

bool dr_topology_share(const struct dr_cpu *list, int32_t n, int32_t local, int32_t n_local, int32_t n_thread,
                       int32_t *cpu) {
    int32_t cores = dr_topology_cores(list, n);
    if (local < 0 || local >= n_local || n_thread > cores / n_local) return false;
    int32_t begin = (int32_t)((int64_t)cores * local / n_local);
    for (int32_t i = 0; i < n_thread; i++) cpu[i] = list[begin + i].id;
    return true;
}
