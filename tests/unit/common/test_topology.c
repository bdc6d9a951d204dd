/* test_topology.c - processors, cores, nodes.
 * In:   a made-up /sys, the real one.      Out: checks.
 * Owns: a temporary folder.
 * Why:  two ranks on the same cores run at half their speed, and nothing else would show it. */
#include "common/topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/runner.h"

static void shares_are_cores_in_order(void) {
    /* two nodes of four cores with two threads each, as the list has them: first threads by node, then the
     * others */
    struct dr_cpu list[16];
    int32_t cpu[8];
    for (int32_t i = 0; i < 8; i++) list[i] = (struct dr_cpu){.id = i, .node = i / 4, .first = true};
    for (int32_t i = 8; i < 16; i++) list[i] = (struct dr_cpu){.id = i, .node = (i - 8) / 4};
    CU_ASSERT_EQUAL(dr_topology_cores(list, 16), 8);
    CU_ASSERT_EQUAL(dr_topology_nodes(list, 16), 2);
    CU_ASSERT_TRUE(dr_topology_share(list, 16, 1, 2, 4, cpu));
    for (int32_t i = 0; i < 4; i++) CU_ASSERT_EQUAL(cpu[i], 4 + i); /* the second rank has the second node */
    CU_ASSERT_TRUE(dr_topology_share(list, 16, 2, 3, 2, cpu));
    CU_ASSERT_EQUAL(cpu[0], 5);
    CU_ASSERT_FALSE(dr_topology_share(list, 16, 0, 2, 5, cpu)); /* more threads than cores */
    CU_ASSERT_FALSE(dr_topology_share(list, 16, 0, 9, 1, cpu)); /* more ranks than cores */
    CU_ASSERT_FALSE(dr_topology_share(list, 16, 2, 2, 1, cpu));
    CU_ASSERT_EQUAL(dr_topology_nodes(list, 0), 0);
}

static void put(const char *root, const char *path, const char *text) {
    char full[1024];
    (void)snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        (void)mkdir(full, 0700);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

/* Processor 0 is what every machine has; as a second thread of core 1 it is no core of its own. */
static void a_sibling_is_no_core(void) {
    char root[] = "/tmp/deeprack-topology-XXXXXX", command[128];
    struct dr_cpu list[DR_CPUS_MAX];
    cpu_set_t before, one;
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(root));
    CU_ASSERT_EQUAL_FATAL(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    if (!CPU_ISSET(0, &before) || sched_setaffinity(0, sizeof one, &one) != 0) return;
    CU_ASSERT_EQUAL(dr_topology_list(root, list, DR_CPUS_MAX), 1); /* nothing said: a core of node 0 */
    CU_ASSERT_TRUE(list[0].id == 0 && list[0].node == 0 && list[0].first);
    put(root, "/devices/system/node/online", "0-2\n");
    put(root, "/devices/system/cpu/cpu0/node2", "");
    put(root, "/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,4\n");
    CU_ASSERT_EQUAL(dr_topology_list(root, list, DR_CPUS_MAX), 1);
    CU_ASSERT_TRUE(list[0].node == 2 && list[0].first);
    CU_ASSERT_EQUAL(dr_topology_list(root, list, 0), 0);
    CU_ASSERT_EQUAL(sched_setaffinity(0, sizeof before, &before), 0);
    (void)snprintf(command, sizeof command, "rm -r %s", root);
    CU_ASSERT_EQUAL(system(command), 0);
}

static void this_machine_has_cores(void) {
    struct dr_cpu list[DR_CPUS_MAX];
    int32_t n = dr_topology_list("/sys", list, DR_CPUS_MAX), cores = dr_topology_cores(list, n);
    CU_ASSERT_TRUE(n >= 1 && cores >= 1 && cores <= n);
    for (int32_t i = 1; i < cores; i++) CU_ASSERT_TRUE(list[i].first && list[i].node >= list[i - 1].node);
}

static CU_TestInfo cases[] = {
    {"shares are whole cores, node by node", shares_are_cores_in_order},
    {"what the system says of a processor is read", a_sibling_is_no_core},
    {"this machine has cores", this_machine_has_cores},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_topology = {.pName = "common/topology", .pTests = cases};
