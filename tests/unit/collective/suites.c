/* suites.c - the suites of unit-collective.
 * In:   names of suites.      Out: exit status.
 * Owns: nothing.
 * Why:  a suite that is not in this list does not run. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_group;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_group, CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
