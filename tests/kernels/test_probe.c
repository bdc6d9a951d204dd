/* test_probe.c - the measured peaks.
 * In:   a small buffer.      Out: CUnit results.
 * Owns: nothing.
 * Why:  values depend on the machine; what must hold everywhere is which rates there are, and that nothing of
 * the measurement stays behind. */
#include <sched.h>

#include "kernels/ops.h"
#include "kernels/probe.h"
#include "tests/support/runner.h"

static void rates(void) {
    struct dr_probe p;
    cpu_set_t before, after;
    CU_ASSERT_FATAL(sched_getaffinity(0, sizeof before, &before) == 0);
    CU_ASSERT_EQUAL_FATAL(dr_probe_run(2, (4u << 20) + 5, &p).code, DR_OK);
    CU_ASSERT(p.n_thread == 2 && p.buffer_bytes == 4u << 20);
    CU_ASSERT(p.read_bytes_s > 1e6 && p.f32_flop_s > 1e6 && p.int8_op_s > 1e6);
    CU_ASSERT((p.bf16_flop_s > 0) == (dr_isa_here() == DR_ISA_BF16));
    CU_ASSERT(sched_getaffinity(0, sizeof after, &after) == 0 && CPU_EQUAL(&before, &after));
}

static CU_TestInfo tests[] = {
    {"a rate for everything that the processor has; the caller's processors are as before", rates},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_probe = {.pName = "kernels/probe", .pTests = tests};
