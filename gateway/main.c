/* main.c - the program: which command, its options, its end.
 * In:   argv.      Out: an exit status; one sentence on stderr when something failed.
 * Owns: the options.
 * Why:  a table of contents; every command is a file in cli/. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "gateway/cli/command.h"

static const struct {
    const char *name;
    enum dr_command command;
    dr_status (*run)(struct dr_options *o, struct dr_interrupt *i);
    const char *arguments, *help;
} commands[] = {
    {"serve", DR_CMD_SERVE, dr_serve, "--model DIR [options]",
     "answer over HTTP, as OpenAI's interface does"},
    {"generate", DR_CMD_GENERATE, dr_generate, "--model DIR --prompt TEXT [options]",
     "one prompt, one streamed answer"},
    {"chat", DR_CMD_CHAT, dr_chat_command, "--model DIR [options]", "talk to the model on the terminal"},
    {"score", DR_CMD_SCORE, dr_score, "--model DIR (--text FILE | --ids 5,17,9) [options]",
     "perplexity, log-probabilities, logits"},
    {"tokenize", DR_CMD_TOKENIZE, dr_tokenize, "(--model DIR | --tokenizer FILE) [--jsonl]",
     "text on stdin to token ids"},
    {"inspect", DR_CMD_INSPECT, dr_inspect, "MODEL [options]",
     "sizes, cache bytes a token, memory of each rank"},
    {"plan", DR_CMD_PLAN, dr_plan_command, "MODEL [--hosts N] [--memory BYTES] [options]",
     "which layouts fit these machines, and how much context"},
    {"bench", DR_CMD_BENCH, dr_bench, "--model DIR [options]",
     "tokens a second by length, depth, batch and layout"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_overview(void) {
    printf("deeprack %s - serves Multi-Head Latent Attention models on a cluster\n\nusage: deeprack COMMAND "
           "[options]\n\n",
           DR_VERSION);
    for (int i = 0; i < COMMANDS; i++) printf("  %-10s %s\n", commands[i].name, commands[i].help);
    printf("\ndeeprack COMMAND --help lists the options of a command. Each option can also be set by the\n"
           "environment (--cache-type is DEEPRACK_CACHE_TYPE) or in a file given by --config.\n"
           "exit status: 0 good, 1 request failed, 64 usage, 66 file missing, 69 cluster lost, 70 internal, "
           "74 I/O,\n"
           "78 model or layout refused\n");
}

static int unknown(const char *name) {
    char list[256];
    size_t n = 0;
    for (int i = 0; i < COMMANDS; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", commands[i].name);
    fprintf(stderr, "deeprack: no command '%.40s'; there are %s\n", name, list);
    return dr_code_exit(DR_EUSAGE);
}

static bool asks(int argc, char **argv, const char *flag) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], flag)) return true;
    return false;
}

/* MODEL without --model; quiet logs unless a server runs. */
static dr_status settle(struct dr_options *o) {
    if (o->n_rest == 1) {
        if (o->value[DR_OPTION_MODEL].set)
            return dr_fail(DR_EUSAGE, "the model is given twice: '%.64s' and --model", o->rest[0]);
        DR_TRY(dr_option_set(o, DR_OPTION_MODEL, o->rest[0]));
    }
    if (o->command != DR_CMD_SERVE && !o->value[DR_OPTION_LOG_LEVEL].set)
        DR_TRY(dr_option_set(o, DR_OPTION_LOG_LEVEL, "warn"));
    dr_log_init((enum dr_log_level)dr_option_int(o, DR_OPTION_LOG_LEVEL),
                (enum dr_log_format)dr_option_int(o, DR_OPTION_LOG_FORMAT), "gateway", -1);
    return dr_ok();
}

static int run(int which, int argc, char **argv) {
    struct dr_options o = {.n_rest = 0};
    struct dr_interrupt interrupt = {.fd = -1};
    dr_status st = dr_options_parse(commands[which].command, argc, argv, &o);
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is a failed write */
    if (st.code == DR_OK) st = settle(&o);
    if (st.code == DR_OK) st = commands[which].run(&o, &interrupt);
    dr_options_fini(&o);
    if (st.code == DR_OK) return 0;
    if (st.code == DR_ECANCEL && !dr_error_text()[0]) return 0; /* whoever read stdout has gone */
    fprintf(stderr, "deeprack: %s\n", dr_error_text());
    return dr_code_exit(st.code);
}

int main(int argc, char **argv) {
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        (!strcmp(argv[1], "help") && argc == 2)) {
        print_overview();
        return argc < 2 ? dr_code_exit(DR_EUSAGE) : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("deeprack %s\n", DR_VERSION);
        return 0;
    }
    const bool help = !strcmp(argv[1], "help");
    const char *name = help ? argv[2] : argv[1];
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0) continue;
        if (!help && !asks(argc - 2, argv + 2, "--help") && !asks(argc - 2, argv + 2, "-h"))
            return run(i, argc - 2, argv + 2);
        printf("usage: deeprack %s %s\n       %s\n\n", commands[i].name, commands[i].arguments,
               commands[i].help);
        dr_options_help(commands[i].command);
        return 0;
    }
    return unknown(name);
}
