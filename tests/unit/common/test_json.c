/* test_json.c - strict JSON.
 * In:   good and hostile texts.      Out: checks.
 * Owns: nothing.
 * Why:  every JSON from outside passes here. */
#include "common/json.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/runner.h"

static enum dr_code parse(const char *text, struct dr_json_limits limits) {
    json_t *v = NULL;
    dr_status st = dr_json_parse(text, strlen(text), limits, &v);
    CU_ASSERT_EQUAL(v != NULL, st.code == DR_OK); /* nothing is given on failure */
    json_decref(v);
    return st.code;
}

static void json_accepts(void) {
    static const char *const good[] = {"{}",
                                       "[]",
                                       " {\"a\": [1, 2.5, null, true, \"x\\n\\u00e9\"]} ",
                                       "7",
                                       "\"s\"",
                                       "null",
                                       "{\"a\":{\"b\":1},\"c\":{\"b\":1}}",
                                       "[\"[[[[,,,,::::\"]"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CU_ASSERT_EQUAL(parse(good[i], (struct dr_json_limits){0}), DR_OK);
}

static void json_refuses(void) {
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{\"a\":1,\"a\":2}",
                                      "{} {}",
                                      "[1] x",
                                      "nul",
                                      "{a:1}",
                                      "'x'",
                                      "[NaN]",
                                      "[Infinity]",
                                      "[01]",
                                      "[1e999]",
                                      "\"\\u0000\"",
                                      "\"\xff\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\\ud800\"",
                                      "[1]\x01",
                                      "\"tab\tinside\"",
                                      "// c\n{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CU_ASSERT_EQUAL(parse(bad[i], (struct dr_json_limits){0}), DR_EINVAL);
        CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "line"));
    }
    json_t *v = NULL; /* a NUL byte in the middle */
    CU_ASSERT_EQUAL(dr_json_parse("[1]\0[2]", 7, (struct dr_json_limits){0}, &v).code, DR_EINVAL);
    CU_ASSERT_PTR_NULL(v);
}

static void json_zero_where_asked_for(void) {
    json_t *v = NULL;
    struct dr_json_limits limits = {.nul_allowed = true};
    CU_ASSERT_EQUAL_FATAL(dr_json_parse("[\"a\\u0000b\"]", 12, limits, &v).code, DR_OK);
    CU_ASSERT_EQUAL(json_string_length(json_array_get(v, 0)), 3);
    json_decref(v);
}

static void json_says_where_not_what(void) {
    CU_ASSERT_EQUAL(parse("{\"ok\": 1,\n \"password\" hunter2}", (struct dr_json_limits){0}), DR_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "line 2"));
    CU_ASSERT_PTR_NULL(strstr(dr_error_text(), "hunter2"));
    CU_ASSERT_PTR_NULL(strstr(dr_error_text(), "password"));
    CU_ASSERT_EQUAL(parse("{\"secretkey\":1,\"secretkey\":2}", (struct dr_json_limits){0}), DR_EINVAL);
    CU_ASSERT_PTR_NULL(strstr(dr_error_text(), "secretkey"));
}

static void json_limits(void) {
    char deep[400] = "";
    for (int i = 0; i < DR_JSON_DEPTH_MAX; i++) deep[i] = '[', deep[2 * DR_JSON_DEPTH_MAX - 1 - i] = ']';
    CU_ASSERT_EQUAL(parse(deep, (struct dr_json_limits){0}), DR_OK);
    memset(deep, 0, sizeof deep);
    for (int i = 0; i <= DR_JSON_DEPTH_MAX; i++) deep[i] = '[', deep[2 * DR_JSON_DEPTH_MAX + 1 - i] = ']';
    CU_ASSERT_EQUAL(parse(deep, (struct dr_json_limits){0}), DR_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "64"));
    CU_ASSERT_EQUAL(parse("[1,2,3]", (struct dr_json_limits){.bytes_max = 7}), DR_OK);
    CU_ASSERT_EQUAL(parse("[1,2,3]", (struct dr_json_limits){.bytes_max = 6}), DR_EINVAL);
    CU_ASSERT_EQUAL(parse("[1,2,3]", (struct dr_json_limits){.nodes_max = 3}), DR_OK);
    CU_ASSERT_EQUAL(parse("[1,2,3]", (struct dr_json_limits){.nodes_max = 2}), DR_EINVAL);
    size_t n = 2 * DR_JSON_NODES_MAX + 10;
    char *many = malloc(n);
    CU_ASSERT_PTR_NOT_NULL_FATAL(many);
    for (size_t i = 0; i < n; i++) many[i] = i % 2 ? '1' : ',';
    many[0] = '[';
    many[n - 2] = ']';
    many[n - 1] = 0;
    CU_ASSERT_EQUAL(parse(many, (struct dr_json_limits){0}), DR_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "100000"));
    CU_ASSERT_EQUAL(parse(many, (struct dr_json_limits){.nodes_max = 1000000}), DR_OK);
    free(many);
}

static void json_files(void) {
    char path[] = "/tmp/deeprack-test-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(write(fd, "{\"a\": 5}", 8), 8);
    json_t *v = NULL;
    CU_ASSERT_EQUAL(dr_json_read(path, (struct dr_json_limits){0}, &v).code, DR_OK);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(v, "a")), 5);
    json_decref(v);
    v = NULL;
    CU_ASSERT_EQUAL(dr_json_read(path, (struct dr_json_limits){.bytes_max = 7}, &v).code, DR_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), path));
    CU_ASSERT_EQUAL(write(fd, "]", 1), 1);
    CU_ASSERT_EQUAL(dr_json_read(path, (struct dr_json_limits){0}, &v).code, DR_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), path));
    close(fd);
    unlink(path);
    CU_ASSERT_EQUAL(dr_json_read(path, (struct dr_json_limits){0}, &v).code, DR_ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), path));
    CU_ASSERT_EQUAL(dr_json_read("/", (struct dr_json_limits){0}, &v).code, DR_EIO); /* a folder */
    CU_ASSERT_PTR_NULL(v);
}

static CU_TestInfo cases[] = {
    {"valid documents of every kind are read", json_accepts},
    {"invalid documents are refused with their line", json_refuses},
    {"U+0000 is read only where asked for", json_zero_where_asked_for},
    {"a refusal says where, never what", json_says_where_not_what},
    {"depth, bytes and values are limited", json_limits},
    {"files are read whole, and refusals name them", json_files},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_json = {.pName = "common/json", .pTests = cases};
