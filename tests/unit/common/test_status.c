/* test_status.c - codes, texts, the thread's last failure.
 * In:   failures.      Out: checks.
 * Owns: nothing.
 * Why:  the text is the only thing a person sees of a failure. */
#include "common/status.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/runner.h"

static void status_text(void) {
    dr_status st = dr_fail(DR_EMODEL, "tensor %s: expected %d rows, found %d", "a.weight", 4, 5);
    CU_ASSERT_EQUAL(st.code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "tensor a.weight: expected 4 rows, found 5");
    st = dr_fail_within(st, "shard %d: ", 7);
    CU_ASSERT_EQUAL(st.code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "shard 7: tensor a.weight: expected 4 rows, found 5");
    st = dr_fail(DR_EIO, "again (%s)", dr_error_text()); /* an argument may be the old text */
    CU_ASSERT_EQUAL(st.code, DR_EIO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "again (shard 7: tensor a.weight: expected 4 rows, found 5)");
    CU_ASSERT_EQUAL(dr_ok().code, DR_OK);
}

static void status_long_text_is_cut(void) {
    char wide[3000];
    memset(wide, 'x', sizeof wide);
    wide[sizeof wide - 1] = 0;
    dr_ignore(dr_fail(DR_EINVAL, "%s", wide), "only its text counts");
    CU_ASSERT_EQUAL(strlen(dr_error_text()), 1023);
    dr_ignore(dr_fail_within(dr_fail(DR_EINVAL, "end"), "%s", wide), "only its text counts");
    CU_ASSERT_EQUAL(strlen(dr_error_text()), 1023);
    CU_ASSERT_EQUAL(dr_error_text()[1022], 'x');
}

static void *fail_elsewhere(void *arg) {
    bool *empty = arg;
    *empty = dr_error_text()[0] == 0;
    dr_ignore(dr_fail(DR_ETIME, "of the other thread"), "only its text counts");
    return NULL;
}

static void status_text_belongs_to_the_thread(void) {
    pthread_t other;
    bool empty = false;
    dr_ignore(dr_fail(DR_EIO, "mine"), "only its text counts");
    CU_ASSERT_EQUAL_FATAL(pthread_create(&other, NULL, fail_elsewhere, &empty), 0);
    pthread_join(other, NULL);
    CU_ASSERT_TRUE(empty);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "mine");
}

static void status_codes(void) {
    CU_ASSERT_STRING_EQUAL(dr_code_name(DR_EMODEL), "EMODEL");
    CU_ASSERT_STRING_EQUAL(dr_code_text(DR_EFULL), "no room");
    CU_ASSERT_STRING_EQUAL(dr_code_name(DR_CODE_COUNT), "?");
    CU_ASSERT_STRING_EQUAL(dr_code_text(DR_CODE_COUNT), "unknown code");
    static const struct {
        enum dr_code code;
        int exit;
    } want[] = {{DR_OK, 0},      {DR_EREQUEST, 1}, {DR_EUSAGE, 64},  {DR_ENOENT, 66},    {DR_EPEER, 69},
                {DR_EPROTO, 70}, {DR_EIO, 74},     {DR_EMODEL, 78},  {DR_EINTERNAL, 70}, {DR_EINVAL, 64},
                {DR_ETIME, 70},  {DR_ECANCEL, 1},  {DR_EDEVICE, 70}, {DR_CODE_COUNT, 70}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        CU_ASSERT_EQUAL(dr_code_exit(want[i].code), want[i].exit);
}

static int steps;

static dr_status step(enum dr_code code) {
    steps++;
    return code == DR_OK ? dr_ok() : dr_fail(code, "step %d", steps);
}

static dr_status three_steps(enum dr_code second) {
    DR_TRY(step(DR_OK));
    DR_TRY(step(second));
    DR_TRY(step(DR_OK));
    return dr_ok();
}

static void status_try(void) {
    steps = 0;
    CU_ASSERT_EQUAL(three_steps(DR_OK).code, DR_OK);
    CU_ASSERT_EQUAL(steps, 3);
    steps = 0;
    CU_ASSERT_EQUAL(three_steps(DR_EPEER).code, DR_EPEER);
    CU_ASSERT_EQUAL(steps, 2);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "step 2");
}

static void status_assert_aborts(void) {
    int out[2];
    CU_ASSERT_EQUAL_FATAL(pipe(out), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 2);
        DR_ASSERT(1 + 1 == 2);
        DR_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(out[1]);
    char text[512] = "";
    ssize_t n = read(out[0], text, sizeof text - 1);
    close(out[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CU_ASSERT_TRUE(n > 0 && strstr(text, "1 + 1 == 3") && strstr(text, "test_status.c"));
}

static CU_TestInfo cases[] = {
    {"a failure keeps its code and text, and words go in front", status_text},
    {"a text of 3,000 bytes is cut at 1,023", status_long_text_is_cut},
    {"each thread has its own last text", status_text_belongs_to_the_thread},
    {"codes have names, texts and exit codes", status_codes},
    {"DR_TRY stops at the first failure", status_try},
    {"a false assertion aborts and names condition and file", status_assert_aborts},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_status = {.pName = "common/status", .pTests = cases};
