/* suites.c - the suites of unit-worker.
 * In:   names of suites on the command line.      Out: exit status.
 * Owns: nothing.
 * Why:  see tests/support/runner.h. */

#include "tests/support/runner.h"

extern CU_SuiteInfo suite_pages, suite_schedule, suite_ledger, suite_sampler, suite_slots, suite_load,
    suite_step, suite_service;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_pages, suite_schedule, suite_ledger,  suite_sampler,     suite_slots,
                             suite_load,  suite_step,     suite_service, CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
