/* suites.c - all suites of the gateway's unit tests.
 * In:   names of suites, or nothing for all.      Out: exit status.
 * Owns: the list. A new suite is one declaration and one row.
 * Why:  see tests/support/runner.h. */
#include "common/log.h"
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_bench, suite_bench_run, suite_cli, suite_engine, suite_launch, suite_resolve;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {
        suite_launch, suite_resolve, suite_bench,        suite_bench_run,
        suite_cli,    suite_engine,  CU_SUITE_INFO_NULL,
    };
    dr_log_init(DR_LOG_LEVEL_COUNT, DR_LOG_TEXT, "test", -1); /* silent */
    return dr_run_suites(suites, argc, argv);
}
