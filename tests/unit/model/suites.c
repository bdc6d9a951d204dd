/* suites.c - the suites of unit-model.
 * In:   names of suites.      Out: exit status.
 * Owns: nothing.
 * Why:  one list. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_config, suite_rope, suite_roles, suite_tensors, suite_bad_config, suite_bad_header,
    suite_bad_index, suite_bad_files, suite_layout, suite_footprint, suite_cost;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_config,     suite_rope,       suite_roles,     suite_tensors,
                             suite_bad_config, suite_bad_header, suite_bad_index, suite_bad_files,
                             suite_layout,     suite_footprint,  suite_cost,      CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
