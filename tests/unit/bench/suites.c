/* suites.c - the suites of the bench programs.
 * In:   names of suites, or none for all.      Out: exit status.
 * Owns: nothing.
 * Why:  one list. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_values, suite_maker, suite_maker_refusals;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_values, suite_maker, suite_maker_refusals, CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
