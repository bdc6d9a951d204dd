/* suites.c - the suites of unit-proto.
 * In:   names of suites.      Out: exit status.
 * Owns: nothing.
 * Why:  a suite that is not in this list does not run. */
#include "tests/support/runner.h"

extern CU_SuiteInfo suite_codec, suite_limits, suite_channel, suite_link;

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {suite_codec, suite_limits, suite_channel, suite_link, CU_SUITE_INFO_NULL};
    return dr_run_suites(suites, argc, argv);
}
