/* suites.c - the golden tests of this program.
 * In:   names of suites on the command line.      Out: exit status.
 * Owns: nothing.
 * Why:  see tests/support/runner.h. */

#include "tests/support/runner.h"

extern CU_SuiteInfo suite_cases, suite_lexi, suite_weights, suite_precision, suite_cluster, suite_drafts;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_cases,     suite_lexi,    suite_weights,     suite_drafts,
                             suite_precision, suite_cluster, CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
