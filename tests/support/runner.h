/* runner.h - runs the CUnit suites of one test program.
 * In:   an array of suites that ends in CU_SUITE_INFO_NULL; names of suites on the command line choose some.
 * Out:  a line a failed check, a line a suite, a total; exit status 0 only if every check passed and some
 * ran. Owns: the CUnit registry. Why:  every program reports in the same words, and a program that ran
 * nothing fails. */
#pragma once

#include <CUnit/CUnit.h>

/* 1 in a build with sanitizers, whose allocators and clocks are others. */
#ifndef __has_feature /* clang's question; gcc defines macros */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||     \
    __has_feature(thread_sanitizer)
#define DR_SANITIZED 1
#else
#define DR_SANITIZED 0
#endif

int dr_run_suites(CU_SuiteInfo *suites, int argc, char **argv);
