/* test_launch.c - the words of mpirun's command line, hosts, environment, RUN.
 * In:   options.      Out: words.
 * Owns: nothing.
 * Why:  the words were measured; a change of one of them must be meant. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/cluster/launch.h"
#include "gateway/cluster/supervisor.h"
#include "tests/support/runner.h"

extern char **environ;

static void options(struct dr_options *o, int argc, char **argv) {
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_SERVE, argc, argv, o).code, DR_OK);
}

static struct dr_launch launch_of(int32_t n_worker, int32_t n_host) {
    return (struct dr_launch){.mpirun = "mpirun",
                              .coordinator = "/bin/c",
                              .worker = "/bin/w",
                              .run = "/r",
                              .link = "/r/link",
                              .n_worker = n_worker,
                              .n_host = n_host};
}

/* All words but the flags of the option table, joined by spaces. */
static void joined(const struct dr_words *w, char *out, size_t room) {
    size_t n = 0;
    out[0] = 0;
    for (int32_t i = 0; i < w->n; i++) {
        const bool ours = strchr(w->word[i], '=') && strncmp(w->word[i], "--link", 6) != 0 &&
                          strncmp(w->word[i], "--epoch", 7) != 0;
        if (!ours) n += (size_t)snprintf(out + n, room - n, "%s%s", n ? " " : "", w->word[i]);
    }
}

static bool has(const struct dr_words *w, const char *word) {
    for (int32_t i = 0; i < w->n; i++)
        if (!strcmp(w->word[i], word)) return true;
    return false;
}

static const char head[] =
    "mpirun --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3 "
    "--mca btl_vader_backing_directory /r --mca osc_sm_backing_directory /r --mca orte_tmpdir_base /r "
    "--mca mpi_yield_when_idle 1 "
    "--oversubscribe "
    "--bind-to none ";

static void local_command_line(void) {
    struct dr_options o;
    struct dr_words w;
    char text[4096], expected[4096];
    char *argv[] = {"--model=/m", "--tp", "2", "--api-key-file=/secret"};
    options(&o, 4, argv);
    const struct dr_launch l = launch_of(2, 0);
    CU_ASSERT_EQUAL_FATAL(dr_launch_words(&l, &o, 0x1234, &w).code, DR_OK);
    joined(&w, text, sizeof text);
    snprintf(expected, sizeof expected, "%s%s", head,
             "-host localhost -np 1 /bin/c --link=/r/link --epoch=0000000000001234 : -np 2 /bin/w "
             "--epoch=0000000000001234");
    CU_ASSERT_STRING_EQUAL(text, expected);
    CU_ASSERT_TRUE(has(&w, "--model=/m"));
    CU_ASSERT_TRUE(has(&w, "--tp=2"));
    CU_ASSERT_FALSE(has(&w, "--api-key-file=/secret"));
    CU_ASSERT_PTR_NULL(w.word[w.n]);
    dr_words_fini(&w);
    dr_options_fini(&o);
}

static void on_hosts(const char *hosts, const char *workers) {
    struct dr_options o;
    struct dr_words w;
    char text[4096], expected[4096];
    char *argv[] = {(char *)hosts, "--tp=5"};
    int32_t n_host = 0;
    options(&o, 2, argv);
    CU_ASSERT_EQUAL_FATAL(dr_launch_hosts(&o, &n_host).code, DR_OK);
    struct dr_launch l = launch_of(5, n_host);
    l.as_root = true;
    CU_ASSERT_EQUAL_FATAL(dr_launch_words(&l, &o, 1, &w).code, DR_OK);
    joined(&w, text, sizeof text);
    snprintf(expected, sizeof expected, "%s%s%s", head,
             "--allow-run-as-root -host localhost -np 1 /bin/c --link=/r/link --epoch=0000000000000001",
             workers);
    CU_ASSERT_STRING_EQUAL(text, expected);
    dr_words_fini(&w);
    dr_options_fini(&o);
}

/* Five ranks. */
static void command_line_as_root_on_hosts(void) {
    on_hosts("--hosts=a,b", " : -host a:3 -np 3 /bin/w --epoch=0000000000000001"
                            " : -host b:2 -np 2 /bin/w --epoch=0000000000000001");
    on_hosts("--hosts=a:1,b:4", " : -host a:1 -np 1 /bin/w --epoch=0000000000000001"
                                " : -host b:4 -np 4 /bin/w --epoch=0000000000000001");
    on_hosts("--hosts=a:2,b",
             " : -host a:2 -np 2 /bin/w --epoch=0000000000000001" /* the last takes what is left */
             " : -host b:3 -np 3 /bin/w --epoch=0000000000000001");
    on_hosts("--hosts=a:9,b,c", " : -host a:5 -np 5 /bin/w --epoch=0000000000000001");
}

static void hosts_are_checked(void) {
    static const struct {
        const char *a, *b;
        enum dr_code code;
        const char *text;
    } cases[] = {
        {"--hosts=a,,b", NULL, DR_EUSAGE,
         "--hosts: expected names with commas between them, found an empty name"},
        {"--hosts=a,", NULL, DR_EUSAGE,
         "--hosts: expected names with commas between them, found an empty name"},
        {"--hosts=a,b;rm", NULL, DR_EUSAGE, "--hosts: name 2 holds a character that no host name has"},
        {"--hosts=a:0", NULL, DR_EUSAGE, "--hosts: entry 1: expected NAME or NAME:RANKS with 1..4096 ranks"},
        {"--hosts=a,b:2x", NULL, DR_EUSAGE,
         "--hosts: entry 2: expected NAME or NAME:RANKS with 1..4096 ranks"},
        {"--hosts=:2", NULL, DR_EUSAGE, "--hosts: entry 1: expected NAME or NAME:RANKS with 1..4096 ranks"},
        {"--hosts=-x", NULL, DR_EUSAGE, "--hosts: name 1 holds a character that no host name has"},
        {"--hosts=a", "--hostfile=/x", DR_EUSAGE, "--hosts and --hostfile: give one of them"},
        {"--hostfile=/nowhere/f", NULL, DR_ENOENT,
         "--hostfile /nowhere/f: cannot be opened: No such file or directory"},
        {"--hostfile=/dev/null", NULL, DR_EUSAGE, "--hostfile /dev/null: expected a host a line, found none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dr_options o;
        int32_t n = 0;
        char *argv[] = {(char *)cases[i].a, (char *)cases[i].b};
        options(&o, cases[i].b ? 2 : 1, argv);
        CU_ASSERT_EQUAL(dr_launch_hosts(&o, &n).code, cases[i].code);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), cases[i].text);
        dr_options_fini(&o);
    }
}

static void a_hostfile_is_counted_and_passed_on(void) {
    char path[] = "/tmp/dr-hosts-XXXXXX", flag[64], word[64];
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    CU_ASSERT_TRUE(write(fd, "# rack\n\n a slots=2\nb\n", 22) == 22);
    close(fd);
    struct dr_options o;
    struct dr_words w;
    int32_t n = 0;
    snprintf(flag, sizeof flag, "--hostfile=%s", path);
    char *argv[] = {flag};
    options(&o, 1, argv);
    CU_ASSERT_EQUAL_FATAL(dr_launch_hosts(&o, &n).code, DR_OK);
    CU_ASSERT_EQUAL(n, 2);
    const struct dr_launch l = launch_of(4, n);
    CU_ASSERT_EQUAL_FATAL(dr_launch_words(&l, &o, 1, &w).code, DR_OK);
    snprintf(word, sizeof word, "%s", path);
    CU_ASSERT_TRUE(has(&w, "-hostfile") && has(&w, word));
    dr_words_fini(&w);
    dr_options_fini(&o);
    unlink(path);
}

static void the_token_is_in_the_environment_once(void) {
    uint8_t token[DR_TOKEN_BYTES];
    char **environment = NULL, expected[128] = "DEEPRACK_LINK_TOKEN=";
    int found = 0, n = 0, ours = 0;
    for (int i = 0; i < DR_TOKEN_BYTES; i++) {
        token[i] = (uint8_t)(i * 8);
        snprintf(expected + strlen(expected), 3, "%02x", token[i]);
    }
    setenv("DEEPRACK_LINK_TOKEN", "stale", 1);
    CU_ASSERT_EQUAL_FATAL(dr_launch_environment(token, &environment).code, DR_OK);
    for (char **p = environment; *p; p++, n++) {
        found += !strcmp(*p, expected);
        CU_ASSERT_PTR_NULL(strstr(*p, "stale"));
    }
    for (char **p = environ; *p; p++) ours++;
    CU_ASSERT_EQUAL(found, 1);
    CU_ASSERT_EQUAL(n, ours);
    dr_launch_environment_fini(environment);
    unsetenv("DEEPRACK_LINK_TOKEN");
}

static void run_is_private_and_removed_whole(void) {
    struct dr_launch l = {.n_worker = 1};
    struct stat st;
    char path[512], outside[] = "/tmp/dr-outside-XXXXXX";
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(outside));
    CU_ASSERT_EQUAL_FATAL(dr_run_create("/tmp", &l).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(stat(l.run, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0700);
    snprintf(path, sizeof path, "%.200s/link", l.run);
    CU_ASSERT_STRING_EQUAL(l.link, path);
    snprintf(path, sizeof path, "%.200s/a", l.run);
    CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%.200s/a/b", l.run);
    CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%.200s/a/b/out", l.run);
    CU_ASSERT_EQUAL(symlink(outside, path), 0);
    dr_run_remove(l.run);
    CU_ASSERT_NOT_EQUAL(stat(l.run, &st), 0);
    CU_ASSERT_EQUAL(stat(outside, &st), 0); /* links are not followed */
    dr_run_remove(l.run);                   /* gone already: quiet */
    rmdir(outside);
}

static void run_needs_a_short_path(void) {
    struct dr_launch l = {.n_worker = 1};
    char base[160] = "/tmp/";
    memset(base + 5, 'd', 90);
    base[95] = 0;
    CU_ASSERT_EQUAL_FATAL(mkdir(base, 0700), 0);
    CU_ASSERT_EQUAL(dr_run_create(base, &l).code, DR_EUSAGE);
    CU_ASSERT_PTR_NOT_NULL(
        strstr(dr_error_text(), "the path of a socket has at most 102 bytes; choose a shorter folder"));
    rmdir(base);
    CU_ASSERT_EQUAL(dr_run_create("/nowhere/at/all", &l).code, DR_EIO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "--run-dir /nowhere/at/all: No such file or directory");
}

static void missing_programs_are_named(void) {
    struct dr_launch l = {.n_worker = 1};
    dr_status st = dr_launch_find(&l); /* beside this test: they may have been built */
    CU_ASSERT_TRUE(st.code == DR_OK || st.code == DR_ENOENT);
    if (st.code == DR_ENOENT)
        CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "expected beside the running program, not there"));
    if (st.code == DR_OK) CU_ASSERT_PTR_NOT_NULL(strstr(l.worker, "/deeprack-worker"));
}

static void supervisor_reports_the_status(void) {
    char *good[] = {"/bin/sh", "-c", "exit 7", NULL}, *killed[] = {"/bin/sh", "-c", "kill -9 $$", NULL};
    char *missing[] = {"/nowhere/x", NULL}, *long_one[] = {"/bin/sleep", "1000", NULL};
    struct dr_supervisor s = {.pid = 0};
    int status = 0;
    CU_ASSERT_EQUAL_FATAL(dr_supervisor_start(good, environ, "/nowhere", false, &s).code, DR_OK);
    CU_ASSERT_TRUE_FATAL(dr_supervisor_ended(&s, 20000, &status));
    CU_ASSERT_EQUAL(status, 7 << 8);
    CU_ASSERT_EQUAL(s.pid, 0);
    CU_ASSERT_EQUAL_FATAL(dr_supervisor_start(killed, environ, "/nowhere", false, &s).code, DR_OK);
    CU_ASSERT_TRUE_FATAL(dr_supervisor_ended(&s, 20000, &status));
    CU_ASSERT_EQUAL(status, (128 + 9) << 8);
    CU_ASSERT_EQUAL(dr_supervisor_start(missing, environ, "/nowhere", false, &s).code, DR_ENOENT);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "/nowhere/x cannot be started: No such file or directory; is Open MPI installed and in PATH?");
    CU_ASSERT_EQUAL_FATAL(dr_supervisor_start(long_one, environ, "/nowhere", false, &s).code, DR_OK);
    CU_ASSERT_FALSE(dr_supervisor_ended(&s, 10, &status));
    dr_supervisor_stop(&s);
    CU_ASSERT_TRUE_FATAL(dr_supervisor_ended(&s, 20000, &status));
    CU_ASSERT_EQUAL(status, (128 + 15) << 8);
    CU_ASSERT_EQUAL_FATAL(dr_supervisor_start(long_one, environ, "/nowhere", false, &s).code, DR_OK);
    dr_supervisor_kill(&s);
    CU_ASSERT_EQUAL(s.pid, 0);
    CU_ASSERT_TRUE(dr_supervisor_ended(&s, 0, &status)); /* the empty object has ended */
}

/* Not in the gateway's process group, so that Ctrl-C passes by; in its session, unless ssh is to be kept from
 * the terminal. The job says what it is by its status. */
static void the_job_has_a_group_of_its_own(void) {
    char say[160];
    char *job[] = {"/bin/sh", "-c", say, NULL};
    snprintf(say, sizeof say, "set -- $(cat /proc/$$/stat); test $5 != %d || exit 2; test $6 = %d || exit 1",
             (int)getpgrp(), (int)getsid(0));
    for (int apart = 0; apart < 2; apart++) {
        struct dr_supervisor s = {.pid = 0};
        int status = 0;
        CU_ASSERT_EQUAL_FATAL(dr_supervisor_start(job, environ, "/nowhere", apart, &s).code, DR_OK);
        CU_ASSERT_TRUE_FATAL(dr_supervisor_ended(&s, 20000, &status));
        CU_ASSERT_EQUAL(status, apart << 8);
    }
}

static CU_TestInfo cases[] = {
    {"a local command line is word for word as measured", local_command_line},
    {"hosts get equal places and root is allowed", command_line_as_root_on_hosts},
    {"bad hosts are refused by name", hosts_are_checked},
    {"a hostfile is counted and passed on", a_hostfile_is_counted_and_passed_on},
    {"the token is in the environment once", the_token_is_in_the_environment_once},
    {"RUN is private and removed whole without following links", run_is_private_and_removed_whole},
    {"RUN needs a short path that exists", run_needs_a_short_path},
    {"programs that are not there are named", missing_programs_are_named},
    {"the job has a process group of its own, and a session on other hosts", the_job_has_a_group_of_its_own},
    {"the supervisor reports the job's status and ends it when asked", supervisor_reports_the_status},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_launch = {.pName = "gateway/launch", .pTests = cases};
