/* runner.c - see runner.h.
 * In:   suites.      Out: results on stdout.
 * Owns: the CUnit registry.
 * Why:  CUnit's own console reports neither which checks failed as they fail nor an exit status. */

#include "tests/support/runner.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool chosen(const char *name, int argc, char **argv) {
    if (argc < 2) return true;
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return false;
}

static void on_test_done(const CU_pTest test, const CU_pSuite suite, const CU_pFailureRecord failure) {
    for (CU_pFailureRecord f = failure; f; f = f->pNext)
        printf("FAIL %s: %s: %s:%u: %s\n", suite->pName, test->pName, f->strFileName, f->uiLineNumber,
               f->strCondition);
    fflush(stdout);
}

int dr_run_suites(CU_SuiteInfo *suites, int argc, char **argv) {
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    for (CU_SuiteInfo *s = suites; s->pName; s++) {
        CU_SuiteInfo one[2] = {{0}, {0}};
        if (!chosen(s->pName, argc, argv)) continue;
        one[0] = *s;
        if (CU_register_suites(one) != CUE_SUCCESS) {
            printf("FAIL %s: %s\n", s->pName, CU_get_error_msg());
            return 2;
        }
    }
    CU_set_test_complete_handler(on_test_done);
    CU_set_error_action(CUEA_IGNORE);
    CU_run_all_tests();
    unsigned ran = CU_get_number_of_tests_run(), asserts = CU_get_number_of_asserts();
    unsigned bad = CU_get_number_of_failures() + CU_get_number_of_suites_failed();
    printf("%s: %u suites, %u tests, %u checks, %u failed\n", argv[0], CU_get_number_of_suites_run(), ran,
           asserts, bad);
    CU_cleanup_registry();
    return bad == 0 && ran > 0 && asserts > 0 ? 0 : 1;
}
