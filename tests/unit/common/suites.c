/* suites.c - all suites of the tests of common/.
 * In:   names of suites, or nothing.      Out: exit status.
 * Owns: nothing.
 * Why:  one program, one list. A new file adds its name here. */
#include "tests/support/runner.h"

#define DR_SUITES(X) X(status) X(size) X(arena) X(rng) X(clock) X(log) X(json) X(option) X(topology)

#define DR_X_(name) extern CU_SuiteInfo suite_##name;
DR_SUITES(DR_X_)
#undef DR_X_

/* Impossible sizes give NULL under the sanitizers too, as they do without them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "allocator_may_return_null=1";
}

int main(int argc, char **argv) {
#define DR_X_(name) suite_##name,
    CU_SuiteInfo all[] = {DR_SUITES(DR_X_) CU_SUITE_INFO_NULL};
#undef DR_X_
    return dr_run_suites(all, argc, argv);
}
