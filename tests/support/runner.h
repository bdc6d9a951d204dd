/* runner.h - runs the CUnit suites of one test program.
 * In:   an array of suites that ends in CU_SUITE_INFO_NULL; names of suites on the command line choose some.
 * Out:  a line a failed check, a line a suite, a total; exit status 0 only if every check passed and some
 * ran. Owns: the CUnit registry. Why:  every program reports in the same words, and a program that ran
 * nothing fails. */
#pragma once

#include <CUnit/CUnit.h>

int dr_run_suites(CU_SuiteInfo *suites, int argc, char **argv);
