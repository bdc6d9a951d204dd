/* suites.c - the suites of the coordinator.
 * In:   names of suites, or none for all.      Out: exit status.
 * Owns: nothing.
 * Why:  one list. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_parts, suite_core, suite_reuse, suite_cohorts, suite_drafts, suite_random,
    suite_roster, suite_loop;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_parts,  suite_core,   suite_reuse, suite_cohorts,     suite_drafts,
                             suite_random, suite_roster, suite_loop,  CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
