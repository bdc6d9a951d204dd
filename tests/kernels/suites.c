/* suites.c - all suites of the kernel tests.
 * In:   names of suites, or nothing.      Out: exit status.
 * Owns: nothing.
 * Why:  one program, one list. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_team, suite_exp, suite_weight, suite_linear, suite_pointwise, suite_route,
    suite_moe;

int main(int argc, char **argv) {
    CU_SuiteInfo all[] = {suite_team,      suite_exp,   suite_weight, suite_linear,
                          suite_pointwise, suite_route, suite_moe,    CU_SUITE_INFO_NULL};
    return dr_run_suites(all, argc, argv);
}
