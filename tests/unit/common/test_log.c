/* test_log.c - log lines.
 * In:   events, with file descriptor 2 sent to a pipe.      Out: checks of the lines.
 * Owns: nothing.
 * Why:  collectors parse these lines; hostile bytes in them must not break one. */
#include "common/log.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/runner.h"

static char lines[8192];

/* What one call writes. */
#define CAPTURE(call)                                                                                        \
    do {                                                                                                     \
        int to[2], saved = dup(2);                                                                           \
        ssize_t n = -1;                                                                                      \
        if (pipe(to) == 0) {                                                                                 \
            dup2(to[1], 2);                                                                                  \
            close(to[1]);                                                                                    \
            call;                                                                                            \
            dup2(saved, 2);                                                                                  \
            n = read(to[0], lines, sizeof lines - 1);                                                        \
            close(to[0]);                                                                                    \
        }                                                                                                    \
        close(saved);                                                                                        \
        lines[n > 0 ? n : 0] = 0;                                                                            \
    } while (0)

static void back_to_default(void) {
    dr_log_init(DR_LOG_INFO, DR_LOG_TEXT, "deeprack", -1);
}

static void log_text_line(void) {
    dr_log_init(DR_LOG_INFO, DR_LOG_TEXT, "worker", 3);
    CAPTURE(dr_log(DR_LOG_WARN, "kv_full", "pages=%d free=%d", 16, 0));
    /* 12:04:31.207 WARN  worker rank=3 kv_full pages=16 free=0 */
    CU_ASSERT_TRUE(strlen(lines) > 14 && lines[2] == ':' && lines[5] == ':' && lines[8] == '.');
    CU_ASSERT_STRING_EQUAL(lines + 12, " WARN  worker rank=3 kv_full pages=16 free=0\n");
    back_to_default();
}

static void log_json_line(void) {
    dr_log_init(DR_LOG_DEBUG, DR_LOG_JSON, "gateway", -1);
    CAPTURE(dr_log(DR_LOG_DEBUG, "odd", "%s", "quote \" slash \\ newline \n byte \x01 high \xc3\xa9"));
    CU_ASSERT_PTR_EQUAL(strchr(lines, '\n'), lines + strlen(lines) - 1); /* one line */
    json_error_t error;
    json_t *o = json_loads(lines, 0, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(o);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "level")), "DEBUG");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "comp")), "gateway");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "event")), "odd");
    CU_ASSERT_PTR_NULL(json_object_get(o, "rank"));
    const char *msg = json_string_value(json_object_get(o, "msg"));
    CU_ASSERT_TRUE(msg && strncmp(msg, "quote \" slash \\ newline \n byte \x01 high ", 38) == 0);
    json_decref(o);
    dr_log_init(DR_LOG_DEBUG, DR_LOG_JSON, "worker", 7);
    CAPTURE(dr_log(DR_LOG_ERROR, "x", "y"));
    o = json_loads(lines, 0, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(o);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(o, "rank")), 7);
    json_decref(o);
    back_to_default();
}

static void log_long_lines_stay_whole(void) {
    char wide[5000], bad[5000];
    memset(wide, 'w', sizeof wide);
    memset(bad, 1, sizeof bad); /* six bytes each once escaped */
    wide[sizeof wide - 1] = bad[sizeof bad - 1] = 0;
    dr_log_init(DR_LOG_INFO, DR_LOG_TEXT, "worker", 1);
    CAPTURE(dr_log(DR_LOG_INFO, "wide", "%s", wide));
    CU_ASSERT_TRUE(strlen(lines) <= 2047 && lines[strlen(lines) - 1] == '\n');
    dr_log_init(DR_LOG_INFO, DR_LOG_JSON, "worker", 1);
    for (int i = 0; i < 2; i++) {
        CAPTURE(dr_log(DR_LOG_INFO, "wide", "%s", i ? bad : wide));
        CU_ASSERT_TRUE(strlen(lines) <= 2047 && lines[strlen(lines) - 1] == '\n');
        json_error_t error;
        json_t *o = json_loads(lines, 0, &error);
        CU_ASSERT_PTR_NOT_NULL(o);
        json_decref(o);
    }
    back_to_default();
}

static void log_levels(void) {
    dr_log_init(DR_LOG_WARN, DR_LOG_TEXT, "worker", -1);
    CAPTURE(dr_log(DR_LOG_INFO, "a", "b"); dr_log(DR_LOG_DEBUG, "a", "b"); dr_log(DR_LOG_ERROR, "c", "d"));
    CU_ASSERT_STRING_EQUAL(lines + 12, " ERROR worker c d\n");
    back_to_default();
}

static CU_TestInfo cases[] = {
    {"a text line has time, level, component, rank, event and words", log_text_line},
    {"a JSON line parses whatever bytes the words hold", log_json_line},
    {"long words are cut and the line stays whole", log_long_lines_stay_whole},
    {"events below the level are dropped", log_levels},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_log = {.pName = "common/log", .pTests = cases};
