/* test_cli.c - flags that hold lists, the file of logits, and commands that are refused before a cluster is
 * started. In:   texts, folders.      Out: values, exact texts. Owns: temporary files. Why:  what can be
 * refused early is refused early, in one sentence. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/cli/command.h"
#include "gateway/cli/logits_file.h"
#include "tests/support/runner.h"

static const char lexi[] = "--model=" DR_SOURCE_DIR "/deploy/models/lexi-15m";
static const char v3[] = "--model=" DR_TESTS_DIR "/golden/v3-bf16";

static void ids_are_read(void) {
    static const char *const bad[] = {
        "", ",", "1,", ",1", "1,,2", "a", "-1", "1 2", "4294967295", "99999999999999999999", "1,2x"};
    static const int entry[] = {1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2};
    struct dr_ids ids = {.n = 0};
    CU_ASSERT_EQUAL_FATAL(dr_ids_parse("ids", "5,17,0,4294967294", &ids).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(ids.n, 4);
    CU_ASSERT_EQUAL(ids.at[1], 17);
    CU_ASSERT_EQUAL(ids.at[3], 4294967294u);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        ids.n = 0;
        snprintf(text, sizeof text,
                 "--ids: expected ids with commas between them, such as 5,17,9; entry %d is none", entry[i]);
        CU_ASSERT_EQUAL(dr_ids_parse("ids", bad[i], &ids).code, DR_EUSAGE);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), text);
    }
    dr_ids_fini(&ids);
}

static void biases_are_read(void) {
    static const char *const bad[] = {"5",     "5:",    ":1",   "5:x",  "x:1",
                                      "5:nan", "5:101", "5:1 ", "-5:1", "5: 1"};
    struct dr_options o;
    struct dr_bias *bias = calloc(DR_BIAS_MAX, sizeof *bias);
    int32_t n = 0;
    CU_ASSERT_PTR_NOT_NULL_FATAL(bias);
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_GENERATE, 0, NULL, &o).code, DR_OK);
    CU_ASSERT_EQUAL(dr_flags_bias(&o, bias, &n).code, DR_OK);
    CU_ASSERT_EQUAL(n, 0);
    CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_LOGIT_BIAS, "5:-100,17:0.5").code, DR_OK);
    CU_ASSERT_EQUAL(dr_flags_bias(&o, bias, &n).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(n, 2);
    CU_ASSERT_EQUAL(bias[0].id, 5);
    CU_ASSERT_DOUBLE_EQUAL((double)bias[0].value, -100, 0);
    CU_ASSERT_DOUBLE_EQUAL((double)bias[1].value, 0.5, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_LOGIT_BIAS, bad[i]).code, DR_OK);
        CU_ASSERT_EQUAL(dr_flags_bias(&o, bias, &n).code, DR_EUSAGE);
        CU_ASSERT_STRING_EQUAL(dr_error_text(),
                               "--logit-bias: expected ID:X,... with X from -100 to 100; entry 1 is not");
    }
    CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_LOGIT_BIAS, "5:1,").code, DR_OK);
    CU_ASSERT_EQUAL(dr_flags_bias(&o, bias, &n).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "--logit-bias: ends in a comma; expected ID:X,...");
    char *many = malloc(8 * (DR_BIAS_MAX + 1));
    CU_ASSERT_PTR_NOT_NULL_FATAL(many);
    many[0] = 0;
    for (int i = 0; i <= DR_BIAS_MAX; i++) strcat(many, i ? ",1:1" : "1:1");
    CU_ASSERT_EQUAL(dr_option_set(&o, DR_OPTION_LOGIT_BIAS, many).code, DR_OK);
    CU_ASSERT_EQUAL(dr_flags_bias(&o, bias, &n).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "--logit-bias: at most 1024 entries, found one more");
    free(many);
    free(bias);
    dr_options_fini(&o);
}

static void input_is_bounded(void) {
    struct dr_text text = {.n = 0};
    CU_ASSERT_EQUAL(dr_input_read("/nowhere/x", 10, &text).code, DR_ENOENT);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "/nowhere/x: cannot be opened: No such file or directory");
    CU_ASSERT_EQUAL(dr_input_read("/dev/zero", 100000, &text).code, DR_EUSAGE);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "/dev/zero: more than 100000 bytes; give less text");
    CU_ASSERT_EQUAL(dr_input_read("/tmp", 10, &text).code, DR_EIO);
    dr_text_fini(&text);
}

/* ---- the file of logits ---- */

static void logits_go_to_their_place(void) {
    struct dr_logits_file f;
    char path[] = "/tmp/dr-logits-XXXXXX", text[512];
    const float a[] = {1, 2}, b[] = {3}, c[] = {4, 5, 6};
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
    char file[64], part[96];
    snprintf(file, sizeof file, "%s/l", path);
    CU_ASSERT_EQUAL_FATAL(dr_logits_file_begin(&f, file, 2, 3).code, DR_OK);
    snprintf(part, sizeof part, "%s", f.temporary);
    CU_ASSERT_NOT_EQUAL(access(file, F_OK), 0); /* nobody sees half a file */
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, 1, 0, 3, c).code, DR_OK);
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, 0, 2, 1, b).code, DR_OK);
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, 0, 0, 2, a).code, DR_OK);
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, 2, 0, 1, a).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, 0, 2, 2, a).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_logits_file_put(&f, -1, 0, 1, a).code, DR_EINVAL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "logits: row -1, columns 0 + 1 are outside [2, 3]");
    CU_ASSERT_EQUAL(dr_logits_file_end(&f).code, DR_OK);
    CU_ASSERT_NOT_EQUAL(access(part, F_OK), 0);
    FILE *in = fopen(file, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(in);
    const size_t n = fread(text, 1, sizeof text, in);
    fclose(in);
    uint64_t length = 0;
    float value[6];
    memcpy(&length, text, 8);
    CU_ASSERT_EQUAL(length % 8, 0);
    CU_ASSERT_EQUAL_FATAL(n, 8 + length + sizeof value);
    CU_ASSERT_EQUAL(
        memcmp(text + 8, "{\"logits\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 62), 0);
    memcpy(value, text + 8 + length, sizeof value);
    for (int i = 0; i < 6; i++) CU_ASSERT_DOUBLE_EQUAL((double)value[i], i + 1, 0);
    unlink(file);
    rmdir(path);
}

static void logits_leave_nothing_behind(void) {
    struct dr_logits_file f = {.fd = -1};
    char path[] = "/tmp/dr-logits-XXXXXX", file[64];
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
    snprintf(file, sizeof file, "%s/l", path);
    CU_ASSERT_EQUAL_FATAL(dr_logits_file_begin(&f, file, 2, 3).code, DR_OK);
    dr_logits_file_abort(&f);
    dr_logits_file_abort(&f); /* again: nothing */
    CU_ASSERT_EQUAL(rmdir(path), 0);
    CU_ASSERT_EQUAL(dr_logits_file_begin(&f, "/nowhere/l", 1, 1).code, DR_EIO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "--logits /nowhere/l: cannot be created: No such file or directory");
}

/* ---- commands that are refused ---- */

typedef dr_status command(struct dr_options *o, struct dr_interrupt *i);

static const struct {
    command *run;
    enum dr_command command;
    const char *flags[6];
    enum dr_code code;
    const char *text;
} refusals[] = {
    {dr_generate, DR_CMD_GENERATE, {"--prompt=x"}, DR_EUSAGE, "no model: give --model DIR"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi},
     DR_EUSAGE,
     "expected one of --prompt, --prompt-file and --prompt-ids, found none"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi, "--prompt=x", "--prompt-ids=1"},
     DR_EUSAGE,
     "expected one of --prompt, --prompt-file and --prompt-ids, found several"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi, "--chat", "--prompt-ids=1"},
     DR_EUSAGE,
     "--prompt-ids are taken as they are; --chat does not go with them"},
    {dr_generate, DR_CMD_GENERATE, {lexi, "--system=x", "--prompt=y"}, DR_EUSAGE, "--system: needs --chat"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi, "--prompt-file=/nowhere/p"},
     DR_ENOENT,
     "/nowhere/p: cannot be opened: No such file or directory"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi, "--prompt-ids=1,x"},
     DR_EUSAGE,
     "--prompt-ids: expected ids with commas between them, such as 5,17,9; entry 2 is none"},
    {dr_generate,
     DR_CMD_GENERATE,
     {lexi, "--prompt=x", "--logit-bias=z"},
     DR_EUSAGE,
     "--logit-bias: expected ID:X,... with X from -100 to 100; entry 1 is not"},
    {dr_generate,
     DR_CMD_GENERATE,
     {v3, "--prompt=x"},
     DR_EUSAGE,
     "the model's folder has no tokenizer.json; give --prompt-ids"},
    {dr_chat_command,
     DR_CMD_CHAT,
     {v3},
     DR_EUSAGE,
     "the model's files name no chat layout; give --template, or use deeprack generate"},
    {dr_score, DR_CMD_SCORE, {lexi}, DR_EUSAGE, "expected either --text or --ids, found none"},
    {dr_score,
     DR_CMD_SCORE,
     {lexi, "--text=x", "--ids=1"},
     DR_EUSAGE,
     "expected either --text or --ids, found both"},
    {dr_score,
     DR_CMD_SCORE,
     {lexi, "--ids=1"},
     DR_EUSAGE,
     "at least two tokens are needed for a prediction, found 1"},
    {dr_score,
     DR_CMD_SCORE,
     {lexi, "--ids=1,8192"},
     DR_EUSAGE,
     "id 2: expected less than the vocabulary's 8192, found 8192"},
    {dr_score,
     DR_CMD_SCORE,
     {lexi, "--ids=1,2,3", "--context=2"},
     DR_EUSAGE,
     "the text has 3 tokens, the context 2; give less text or a larger --context"},
    {dr_score,
     DR_CMD_SCORE,
     {v3, "--text=/dev/null"},
     DR_EUSAGE,
     "the model's folder has no tokenizer.json; give --ids"},
    {dr_inspect, DR_CMD_INSPECT, {NULL}, DR_EUSAGE, "no model: deeprack inspect MODEL"},
    {dr_inspect, DR_CMD_INSPECT, {lexi, "--tp=9"}, DR_EMODEL, NULL},
    {dr_inspect, DR_CMD_INSPECT, {"--model=/nowhere"}, DR_ENOENT, NULL},
    {dr_bench, DR_CMD_BENCH, {NULL}, DR_EUSAGE, "no model: give --model DIR"},
    {dr_bench, DR_CMD_BENCH, {"--model=/nowhere"}, DR_ENOENT, NULL},
    {dr_bench,
     DR_CMD_BENCH,
     {lexi, "--prompt-lengths=16", "--batch=0"},
     DR_EUSAGE,
     "--batch: expected whole numbers from 1 to 1024 with commas between them; entry 1 is not one"},
    {dr_bench,
     DR_CMD_BENCH,
     {lexi, "--prompt-lengths=0", "--gen-lengths=8", "--layouts=tp=1;tp=9"},
     DR_EMODEL,
     "--layouts 'tp=9': layout: tp 9: the model has only 8 heads, so a rank would hold none; use tp of at "
     "most 8"},
    {dr_bench, DR_CMD_BENCH, {lexi, "--prompt-lengths=100000", "--gen-lengths=0"}, DR_EMODEL, NULL},
    {dr_bench,
     DR_CMD_BENCH,
     {lexi, "--prompt-lengths=16", "--gen-lengths=100", "--batch=8", "--pages=15"},
     DR_EMODEL,
     "tg100, 8 sequences: needs 16 cache pages at once, the cluster has 15; give more --cache-memory, or "
     "smaller cases"},
};

static void commands_are_refused_early(void) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct dr_options o;
        struct dr_interrupt interrupt = {.fd = -1};
        char *argv[6];
        int argc = 0;
        while (argc < 6 && refusals[i].flags[argc]) {
            argv[argc] = (char *)refusals[i].flags[argc];
            argc++;
        }
        CU_ASSERT_EQUAL_FATAL(dr_options_parse(refusals[i].command, argc, argv, &o).code, DR_OK);
        const dr_status st = refusals[i].run(&o, &interrupt);
        const bool same =
            st.code == refusals[i].code && (!refusals[i].text || !strcmp(dr_error_text(), refusals[i].text));
        if (!same)
            printf("  case %zu\n    expected: %s\n    found:    %s\n", i, refusals[i].text, dr_error_text());
        CU_ASSERT_TRUE(same);
        CU_ASSERT_EQUAL(interrupt.fd, -1); /* nothing was started */
        dr_options_fini(&o);
    }
}

static CU_TestInfo cases[] = {
    {"lists of ids are read or refused by entry", ids_are_read},
    {"lists of biases are read or refused by entry", biases_are_read},
    {"input is bounded and refused by name", input_is_bounded},
    {"logits go to their place in any order", logits_go_to_their_place},
    {"an abandoned file of logits leaves nothing behind", logits_leave_nothing_behind},
    {"a command that cannot run is refused before a cluster is started", commands_are_refused_early},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_cli = {.pName = "gateway/cli", .pTests = cases};
