/* test_option.c - flags, environment, file and defaults; every text of a refusal.
 * In:   command lines.      Out: values or exact texts.
 * Owns: environment variables for the length of a test.
 * Why:  these texts are what a person sees first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/option.h"
#include "tests/support/runner.h"

enum { WORDS_MAX = 40 };

/* Parses words separated by single spaces. */
static dr_status parse(enum dr_command command, const char *line, struct dr_options *out) {
    char copy[4096], *argv[WORDS_MAX];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = strtok(copy, " "); p && argc < WORDS_MAX; p = strtok(NULL, " ")) argv[argc++] = p;
    return dr_options_parse(command, argc, argv, out);
}

/* ---- refusals ---- */

static const struct {
    enum dr_command command;
    const char *line, *text;
} refusals[] = {
    {DR_CMD_GENERATE, "--tpp 2", "--tpp: no such option of generate; did you mean --tp?"},
    {DR_CMD_GENERATE, "--cache-wdith=3",
     "--cache-wdith: no such option of generate; did you mean --cache-width?"},
    {DR_CMD_GENERATE, "--tempreature 1",
     "--tempreature: no such option of generate; did you mean --temperature?"},
    {DR_CMD_SERVE, "--frobnicate", "--frobnicate: no such option of serve; --help lists them"},
    {DR_CMD_SERVE, "--no-frobnicate", "--no-frobnicate: no such option of serve; --help lists them"},
    {DR_CMD_SERVE, "--no-port", "--no-port: no such option of serve; --help lists them"},
    {DR_CMD_GENERATE, "--port 80", "--port: not an option of generate; it belongs to serve"},
    {DR_CMD_TOKENIZE, "--tp 2",
     "--tp: not an option of tokenize; it belongs to serve, generate, chat, score, inspect, plan, bench, "
     "coordinator, worker"},
    {DR_CMD_BENCH, "--reps 0", "--reps: expected a whole number from 1 to 1000, found '0'"},
    {DR_CMD_SERVE, "--reps 2", "--reps: not an option of serve; it belongs to bench"},
    {DR_CMD_GENERATE, "--weights native,int8",
     "--weights: expected one of native, int8, found 'native,int8'"},
    {DR_CMD_SERVE, "--link x", "--link: not an option of serve; it belongs to coordinator"},
    {DR_CMD_COORDINATOR, "--link-token 00", "--link-token: taken from the environment only"},
    {DR_CMD_GENERATE, "--tp", "--tp: a value is missing; expected a whole number from 0 to 64"},
    {DR_CMD_GENERATE, "--model", "--model: a value is missing; expected DIR"},
    {DR_CMD_GENERATE, "--cache-type", "--cache-type: a value is missing; expected one of f32, bf16, fp8"},
    {DR_CMD_GENERATE, "--tp -1", "--tp: expected a whole number from 0 to 64, found '-1'"},
    {DR_CMD_GENERATE, "--tp 65", "--tp: expected a whole number from 0 to 64, found '65'"},
    {DR_CMD_GENERATE, "--tp two", "--tp: expected a whole number from 0 to 64, found 'two'"},
    {DR_CMD_GENERATE, "--tp 2x", "--tp: expected a whole number from 0 to 64, found '2x'"},
    {DR_CMD_GENERATE, "--tp 1.5", "--tp: expected a whole number from 0 to 64, found '1.5'"},
    {DR_CMD_GENERATE, "--tp=", "--tp: expected a whole number from 0 to 64, found ''"},
    {DR_CMD_GENERATE, "--tp +2", "--tp: expected a whole number from 0 to 64, found '+2'"},
    {DR_CMD_GENERATE, "--tp 99999999999999999999",
     "--tp: expected a whole number from 0 to 64, found '99999999999999999999'"},
    {DR_CMD_GENERATE, "--top-k -2", "--top-k: expected a whole number from -1 to 1048576, found '-2'"},
    {DR_CMD_SERVE, "--port 65536", "--port: expected a whole number from 0 to 65535, found '65536'"},
    {DR_CMD_GENERATE, "--temperature nan", "--temperature: expected a number from 0 to 100, found 'nan'"},
    {DR_CMD_GENERATE, "--temperature inf", "--temperature: expected a number from 0 to 100, found 'inf'"},
    {DR_CMD_GENERATE, "--temperature -0.1", "--temperature: expected a number from 0 to 100, found '-0.1'"},
    {DR_CMD_GENERATE, "--temperature 0x1p3", "--temperature: expected a number from 0 to 100, found '0x1p3'"},
    {DR_CMD_GENERATE, "--top-p 1.01", "--top-p: expected a number from 0 to 1, found '1.01'"},
    {DR_CMD_GENERATE, "--top-p=", "--top-p: expected a number from 0 to 1, found ''"},
    {DR_CMD_GENERATE, "--deadline-scale 0",
     "--deadline-scale: expected a number from 0.1 to 1000, found '0'"},
    {DR_CMD_GENERATE, "--cache-type int4", "--cache-type: expected one of f32, bf16, fp8, found 'int4'"},
    {DR_CMD_GENERATE, "--cache-type bf", "--cache-type: expected one of f32, bf16, fp8, found 'bf'"},
    {DR_CMD_GENERATE, "--cache-type=", "--cache-type: expected one of f32, bf16, fp8, found ''"},
    {DR_CMD_GENERATE, "--experts whole|columns",
     "--experts: expected one of columns, whole, found 'whole|columns'"},
    {DR_CMD_GENERATE, "--cache-memory 12Q",
     "--cache-memory: expected a number of bytes such as 512M or 24G, at most 1000T, found '12Q'"},
    {DR_CMD_GENERATE, "--cache-memory -1G",
     "--cache-memory: expected a number of bytes such as 512M or 24G, at most 1000T, found '-1G'"},
    {DR_CMD_GENERATE, "--cache-memory 9999999T",
     "--cache-memory: expected a number of bytes such as 512M or 24G, at most 1000T, found '9999999T'"},
    {DR_CMD_GENERATE, "--json=maybe", "--json: expected true or false, found 'maybe'"},
    {DR_CMD_GENERATE, "--stop=", "--stop: expected a text of 1 to 256 bytes, found 0 bytes"},
    {DR_CMD_GENERATE, "hello", "'hello': generate takes options only; was a -- meant in front?"},
    {DR_CMD_GENERATE, "-- --tp", "'--tp': generate takes options only; was a -- meant in front?"},
    {DR_CMD_INSPECT, "one two", "'two': only one MODEL can be given"},
    {DR_CMD_GENERATE, "-t 2", "'-t': options begin with two dashes; --help lists them"},
};

static void refuses_by_name(void) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct dr_options o = {.n_rest = 7};
        dr_status st = parse(refusals[i].command, refusals[i].line, &o);
        const bool same = st.code == DR_EUSAGE && !strcmp(dr_error_text(), refusals[i].text);
        if (!same)
            printf("  %s\n    expected: %s\n    found:    %s\n", refusals[i].line, refusals[i].text,
                   dr_error_text());
        CU_ASSERT_TRUE(same);
        CU_ASSERT_EQUAL(o.n_rest, 7); /* untouched */
    }
}

static void refuses_too_many_stops(void) {
    struct dr_options o;
    char line[512] = "";
    for (int i = 0; i < 9; i++) strcat(line, "--stop=a --stop b ");
    CU_ASSERT_EQUAL(parse(DR_CMD_GENERATE, line, &o).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "--stop: at most 16 texts can stop an answer, found one more");
}

static void hides_control_bytes(void) {
    struct dr_options o;
    char word[200] = "--tp=\x1b[2J\n";
    char *argv[] = {word};
    memset(word + 10, 'x', 100);
    CU_ASSERT_EQUAL(dr_options_parse(DR_CMD_GENERATE, 1, argv, &o).code, DR_EUSAGE);
    CU_ASSERT_PTR_NULL(strchr(dr_error_text(), '\x1b'));
    CU_ASSERT_PTR_NULL(strchr(dr_error_text(), '\n'));
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "found '?[2J?xxx"));
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "xxx...'"));
}

/* ---- values ---- */

static void takes_defaults(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, "", &o).code, DR_OK);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TP), 0);
    CU_ASSERT_FALSE(o.value[DR_OPTION_TP].set);
    CU_ASSERT_TRUE(dr_option_present(&o, DR_OPTION_TP));
    CU_ASSERT_FALSE(dr_option_present(&o, DR_OPTION_TEMPERATURE));
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_MODEL), "");
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_CACHE_TYPE), "bf16");
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CACHE_TYPE), 1);
    CU_ASSERT_DOUBLE_EQUAL(dr_option_float(&o, DR_OPTION_DEADLINE_SCALE), 1.0, 0);
    dr_options_fini(&o);
}

static void takes_each_type(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE,
                                "--tp 3 --pp=2 --cache-memory 24G --temperature 0.25 --top-k -1 --seed "
                                "9000000000000000000 --json "
                                "--no-chat --ignore-eos=false --experts whole --model=a=b --stop x --stop=y",
                                &o)
                              .code,
                          DR_OK);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TP), 3);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_PP), 2);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CACHE_MEMORY), 24ll << 30);
    CU_ASSERT_DOUBLE_EQUAL(dr_option_float(&o, DR_OPTION_TEMPERATURE), 0.25, 0);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TOP_K), -1);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_SEED), 9000000000000000000ll);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_JSON), 1);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CHAT), 0);
    CU_ASSERT_TRUE(o.value[DR_OPTION_CHAT].set);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_IGNORE_EOS), 0);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_EXPERTS), 1);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_MODEL), "a=b");
    CU_ASSERT_EQUAL_FATAL(o.n_stop, 2);
    CU_ASSERT_STRING_EQUAL(o.stop[0], "x");
    CU_ASSERT_STRING_EQUAL(o.stop[1], "y");
    dr_options_fini(&o);
}

static void takes_byte_suffixes(void) {
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"0", 0},          {"17", 17},        {"2K", 2048},    {"3m", 3 << 20},
                 {"1GiB", 1 << 30}, {"2T", 2ll << 40}, {"5MB", 5 << 20}};
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_INSPECT, "", &o).code, DR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_CACHE_MEMORY, cases[i].text).code, DR_OK);
        CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CACHE_MEMORY), cases[i].bytes);
    }
    dr_options_fini(&o);
}

static void last_flag_wins(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, "--tp 2 --tp 4", &o).code, DR_OK);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TP), 4);
    dr_options_fini(&o);
}

static void value_may_look_like_a_flag(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, "--prompt --tp", &o).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_PROMPT), "--tp");
    dr_options_fini(&o);
}

static void takes_a_model_without_flag(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_INSPECT, "folder --tp 2", &o).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(o.n_rest, 1);
    CU_ASSERT_STRING_EQUAL(o.rest[0], "folder");
    dr_options_fini(&o);
}

/* bench takes a list under the name that elsewhere means one type; workers get the one that is set for them.
 */
static void one_name_may_be_two_options(void) {
    struct dr_options o;
    char *flag[DR_OPTION_COUNT];
    CU_ASSERT_FATAL(parse(DR_CMD_BENCH, "--weights native,int8", &o).code == DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_BENCH_WEIGHTS), "native,int8");
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_WEIGHTS), "native");
    CU_ASSERT(dr_option_set(&o, DR_OPTION_WEIGHTS, "int8").code == DR_OK);
    int32_t n = dr_options_flags(&o, DR_CMD_WORKER, flag, DR_OPTION_COUNT), weights = 0;
    for (int32_t i = 0; i < n; i++) {
        weights += !strncmp(flag[i], "--weights", 9);
        CU_ASSERT(strncmp(flag[i], "--weights", 9) != 0 || !strcmp(flag[i], "--weights=int8"));
        free(flag[i]);
    }
    CU_ASSERT_EQUAL(weights, 1);
    dr_options_fini(&o);
    CU_ASSERT(dr_option_find(DR_CMD_BENCH, "weights", 7) == DR_OPTION_BENCH_WEIGHTS);
    CU_ASSERT(dr_option_find(DR_CMD_WORKER, "weights", 7) == DR_OPTION_WEIGHTS);
    CU_ASSERT(dr_option_find(DR_CMD_TOKENIZE, "weights", 7) == DR_OPTION_COUNT);
    CU_ASSERT(dr_option_find(DR_CMD_BENCH, "weight", 6) == DR_OPTION_COUNT);
}

static void a_copy_has_its_own_strings(void) {
    struct dr_options o, copy;
    CU_ASSERT_FATAL(parse(DR_CMD_GENERATE, "--model a --tp 3 --stop x --stop y", &o).code == DR_OK);
    CU_ASSERT_FATAL(dr_options_copy(&o, &copy).code == DR_OK);
    CU_ASSERT(dr_option_set(&copy, DR_OPTION_MODEL, "b").code == DR_OK);
    CU_ASSERT(dr_option_set(&copy, DR_OPTION_TP, "4").code == DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_MODEL), "a");
    CU_ASSERT(dr_option_int(&o, DR_OPTION_TP) == 3 && dr_option_int(&copy, DR_OPTION_TP) == 4);
    dr_options_fini(&o);
    CU_ASSERT(copy.n_stop == 2 && !strcmp(copy.stop[0], "x") && !strcmp(copy.stop[1], "y"));
    CU_ASSERT_STRING_EQUAL(dr_option_text(&copy, DR_OPTION_MODEL), "b");
    dr_options_fini(&copy);
}

static void a_bad_set_leaves_the_old_value(void) {
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, "--tp 2", &o).code, DR_OK);
    CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_TP, "100").code, DR_EUSAGE);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TP), 2);
    dr_options_fini(&o);
}

/* ---- places ---- */

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    fputs(text, f);
    fclose(f);
}

static void flag_beats_environment_beats_file_beats_default(void) {
    char path[] = "/tmp/dr-option-XXXXXX", line[128];
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    close(fd);
    write_file(path, "# a comment\n\n  tp = 2  \npp=3\ncontext = 100\nport = 9\nstop = from file\n");
    snprintf(line, sizeof line, "--tp 4 --config %s", path);
    setenv("DEEPRACK_TP", "8", 1);
    setenv("DEEPRACK_PP", "5", 1);
    struct dr_options o;
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, line, &o).code, DR_OK);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_TP), 4);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_PP), 5);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CONTEXT), 100);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_SEQS_MAX), 64);
    CU_ASSERT_EQUAL_FATAL(o.n_stop, 1);
    CU_ASSERT_STRING_EQUAL(o.stop[0], "from file");
    CU_ASSERT_FALSE(o.value[DR_OPTION_PORT].set); /* the file may hold options of other commands */
    dr_options_fini(&o);
    snprintf(line, sizeof line, "--stop flag --config=%s", path);
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_GENERATE, line, &o).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(o.n_stop, 1); /* a stronger place replaces the list */
    CU_ASSERT_STRING_EQUAL(o.stop[0], "flag");
    dr_options_fini(&o);
    unsetenv("DEEPRACK_TP");
    unsetenv("DEEPRACK_PP");
    unlink(path);
}

static void environment_names_the_file_and_is_refused_by_name(void) {
    struct dr_options o;
    setenv("DEEPRACK_CONFIG", "/nowhere/deeprack.conf", 1);
    CU_ASSERT_EQUAL(parse(DR_CMD_GENERATE, "", &o).code, DR_ENOENT);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "--config /nowhere/deeprack.conf: cannot be opened: No such file or directory");
    unsetenv("DEEPRACK_CONFIG");
    setenv("DEEPRACK_CACHE_TYPE", "int4", 1);
    CU_ASSERT_EQUAL(parse(DR_CMD_GENERATE, "", &o).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "environment DEEPRACK_CACHE_TYPE: --cache-type: expected one of f32, bf16, fp8, found 'int4'");
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_TOKENIZE, "", &o).code, DR_OK); /* not its option */
    dr_options_fini(&o);
    unsetenv("DEEPRACK_CACHE_TYPE");
}

static void file_is_refused_by_line(void) {
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"tp = 2\nhello\n", ":2: expected `name = value`"},
        {"\ntpp = 2\n", ":2: --tpp: no such option of generate; did you mean --tp?"},
        {"tp = 2\ntp = 3\n", ":2: --tp: given twice in this file"},
        {"tp = x", ":1: --tp: expected a whole number from 0 to 64, found 'x'"},
        {"config = other\n", ":1: --config: a file cannot name another file"},
        {"link-token = 00\n", ":1: --link-token: taken from the environment only"},
    };
    char path[] = "/tmp/dr-option-XXXXXX", line[128];
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    close(fd);
    snprintf(line, sizeof line, "--config %s", path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dr_options o;
        char expected[256];
        write_file(path, cases[i].body);
        snprintf(expected, sizeof expected, "%s%s", path, cases[i].text);
        CU_ASSERT_EQUAL(parse(DR_CMD_GENERATE, line, &o).code, DR_EUSAGE);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
    }
    unlink(path);
}

static void the_token_comes_from_the_environment(void) {
    struct dr_options o;
    setenv("DEEPRACK_LINK_TOKEN", "abcd", 1);
    CU_ASSERT_EQUAL_FATAL(parse(DR_CMD_COORDINATOR, "", &o).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_LINK_TOKEN), "abcd");
    char *flag[DR_OPTION_COUNT];
    int32_t n = dr_options_flags(&o, DR_CMD_COORDINATOR, flag, DR_OPTION_COUNT);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT_PTR_NULL(strstr(flag[i], "abcd")); /* argv is readable by everyone on the machine */
        free(flag[i]);
    }
    dr_options_fini(&o);
    unsetenv("DEEPRACK_LINK_TOKEN");
}

/* ---- for an exec ---- */

static void flags_parse_to_the_same_values(void) {
    struct dr_options a, b;
    CU_ASSERT_EQUAL_FATAL(
        parse(DR_CMD_GENERATE,
              "--model m --tp 2 --cache-memory 3G --deadline-scale 1.1 --cache-type f32 --prompt x", &a)
            .code,
        DR_OK);
    char *flag[DR_OPTION_COUNT];
    int32_t n = dr_options_flags(&a, DR_CMD_WORKER, flag, DR_OPTION_COUNT);
    CU_ASSERT_TRUE(n > 10);
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_WORKER, n, flag, &b).code, DR_OK);
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        if (!b.value[i].set) continue;
        CU_ASSERT_EQUAL(a.value[i].number, b.value[i].number);
        CU_ASSERT_EQUAL(a.value[i].real, b.value[i].real);
        CU_ASSERT_STRING_EQUAL(dr_option_text(&a, (enum dr_option)i), dr_option_text(&b, (enum dr_option)i));
    }
    CU_ASSERT_FALSE(dr_option_present(&b, DR_OPTION_PROMPT));
    CU_ASSERT_STRING_EQUAL(dr_option_text(&b, DR_OPTION_MODEL), "m");
    CU_ASSERT_DOUBLE_EQUAL(dr_option_float(&b, DR_OPTION_DEADLINE_SCALE), 1.1, 0);
    for (int32_t i = 0; i < n; i++) free(flag[i]);
    dr_options_fini(&a);
    dr_options_fini(&b);
}

static void every_default_is_legal_for_every_command(void) {
    for (int bit = 0; bit < 8; bit++) {
        struct dr_options o;
        CU_ASSERT_EQUAL_FATAL(parse((enum dr_command)(1 << bit), "", &o).code, DR_OK);
        dr_options_fini(&o);
    }
}

static CU_TestInfo cases[] = {
    {"each bad flag is refused with its text", refuses_by_name},
    {"more than 16 stop texts are refused", refuses_too_many_stops},
    {"a refusal shows no control bytes and cuts long values", hides_control_bytes},
    {"defaults are present and not set", takes_defaults},
    {"each type of value is read", takes_each_type},
    {"bytes take suffixes", takes_byte_suffixes},
    {"the last of two equal flags wins", last_flag_wins},
    {"the word behind a flag is its value whatever it looks like", value_may_look_like_a_flag},
    {"a model may come without its flag", takes_a_model_without_flag},
    {"one name may be two options of different commands", one_name_may_be_two_options},
    {"a copy has its own strings", a_copy_has_its_own_strings},
    {"a refused set leaves the old value", a_bad_set_leaves_the_old_value},
    {"flag beats environment beats file beats default", flag_beats_environment_beats_file_beats_default},
    {"the environment is refused by its name", environment_names_the_file_and_is_refused_by_name},
    {"a file is refused by its line", file_is_refused_by_line},
    {"the link's token is read from the environment and never becomes a flag",
     the_token_comes_from_the_environment},
    {"flags for an exec parse to the same values", flags_parse_to_the_same_values},
    {"every default is legal", every_default_is_legal_for_every_command},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_option = {.pName = "common/option", .pTests = cases};
