/* suites.c - all suites of the kernel tests.
 * In:   names of suites, or nothing.      Out: exit status.
 * Owns: nothing.
 * Why:  one program, one list. */
#include "tests/support/runner.h"

#define DR_SUITES(X)                                                                                         \
    X(team)                                                                                                  \
    X(probe)                                                                                                 \
    X(exp)                                                                                                   \
    X(weight)                                                                                                \
    X(linear)                                                                                                \
    X(fast) X(pointwise) X(route) X(moe) X(cache) X(attn_absorbed) X(attn_expanded) X(x86_attn) X(sampling)

#define DR_X_(name) extern CU_SuiteInfo suite_##name;
DR_SUITES(DR_X_)
#undef DR_X_

int main(int argc, char **argv) {
#define DR_X_(name) suite_##name,
    CU_SuiteInfo all[] = {DR_SUITES(DR_X_) CU_SUITE_INFO_NULL};
#undef DR_X_
    return dr_run_suites(all, argc, argv);
}
