/* option.h - every option of every program: one row each.
 * In:   command line, environment DEEPRACK_<NAME>, file given by --config (`name = value` lines).
 * Out:  checked values; flag wins over environment, environment over file, file over default.
 * Owns: the strings inside struct dr_options until dr_options_fini.
 * Why:  nobody can list the behaviours of a program whose switches are spread over its sources.
 *
 * The gateway resolves all options once and hands the cluster options to coordinator and workers as flags. */
#pragma once

#include "common/status.h"

/* bits of a row's command mask */
enum dr_command {
    DR_CMD_SERVE = 1,
    DR_CMD_GENERATE = 2,
    DR_CMD_CHAT = 4,
    DR_CMD_SCORE = 8,
    DR_CMD_TOKENIZE = 16,
    DR_CMD_INSPECT = 32,
    DR_CMD_COORDINATOR = 64,
    DR_CMD_WORKER = 128,
    DR_CMD_BENCH = 256,
    DR_CMD_PLAN = 512,
    DR_CMD_ALL = 1023,
    DR_CMD_ONE_CLUSTER =
        DR_CMD_SERVE | DR_CMD_GENERATE | DR_CMD_CHAT | DR_CMD_SCORE, /* start one cluster; bench several */
    DR_CMD_RUNS = DR_CMD_ONE_CLUSTER | DR_CMD_BENCH,                 /* those that start clusters */
    DR_CMD_RANKS = DR_CMD_COORDINATOR | DR_CMD_WORKER,
    DR_CMD_CLUSTER = DR_CMD_RUNS | DR_CMD_RANKS,
    DR_CMD_FIGURES = DR_CMD_INSPECT | DR_CMD_PLAN, /* those that reckon and start nothing */
    DR_CMD_LAYOUT = DR_CMD_CLUSTER | DR_CMD_FIGURES,
    DR_CMD_SAMPLE = DR_CMD_GENERATE | DR_CMD_CHAT,
};

enum dr_option_type { DR_OPT_BOOL, DR_OPT_INT, DR_OPT_FLOAT, DR_OPT_BYTES, DR_OPT_STRING, DR_OPT_ENUM };

/* clang-format off */
/* One row an option: id, name, type, least, most (ENUM and STRING: 0, 0), default as text ("" = unset), commands, word in the help or
 * the choices "a|b", help. BYTES take K, M, G, T (powers of 1024). */
#define DR_OPTIONS(X)                                                                                                   \
    X(MODEL, "model", STRING, 0, 0, "", DR_CMD_LAYOUT | DR_CMD_TOKENIZE, "DIR", "folder with config.json and safetensors")           \
    X(TP, "tp", INT, 0, 64, "0", DR_CMD_LAYOUT, "N", "ranks a stage, tensor parallelism (0: one a NUMA node)")           \
    X(PP, "pp", INT, 1, 64, "1", DR_CMD_LAYOUT, "N", "stages (pipeline parallelism)")                                  \
    X(CACHE_WIDTH, "cache-width", INT, 0, 64, "0", DR_CMD_LAYOUT, "C", "ranks over which a sequence's cache is cut; divides tp (0: tp)")   \
    X(EXPERTS, "experts", ENUM, 0, 0, "columns", DR_CMD_LAYOUT, "columns|whole", "cut every expert, or give whole experts to ranks")    \
    X(CACHE_TYPE, "cache-type", ENUM, 0, 0, "bf16", DR_CMD_LAYOUT, "f32|bf16|fp8", "type of the latent cache")          \
    X(EXCHANGE, "exchange", ENUM, 0, 0, "auto", DR_CMD_LAYOUT, "auto|latent|value", "what ranks exchange in attention")  \
    X(LINK_GBIT, "link-gbit", FLOAT, 0.001, 100000, "10", DR_CMD_RUNS, "X", "speed of the network between hosts, Gbit/s: what --exchange=auto reckons with") \
    X(COLLECTIVES, "collectives", ENUM, 0, 0, "auto", DR_CMD_CLUSTER, "auto|shm|mpi", "how ranks exchange tensors (auto: shared memory within a host, MPI between hosts)") \
    X(CONTEXT, "context", INT, 0, 16777216, "0", DR_CMD_LAYOUT, "TOKENS", "longest prompt + answer (0: the model's)")   \
    X(SEQS_MAX, "seqs-max", INT, 1, 1024, "64", DR_CMD_LAYOUT, "N", "sequences that run at the same time")              \
    X(STEP_TOKENS, "step-tokens", INT, 1, 8192, "512", DR_CMD_LAYOUT, "N", "tokens of one step, at most")               \
    X(PAGES, "pages", INT, 0, 100000000, "0", DR_CMD_LAYOUT, "N", "cache pages (0: what memory allows and seqs-max x context can use)") \
    X(CACHE_MEMORY, "cache-memory", BYTES, 0, 1e15, "0", DR_CMD_LAYOUT, "BYTES", "cache of one rank, at most (0: half of the free memory)") \
    X(THREADS, "threads", INT, 0, 1024, "0", DR_CMD_CLUSTER, "N", "threads a worker (0: the host's cores shared among its workers)")     \
    X(HOSTS, "hosts", STRING, 0, 0, "", DR_CMD_RUNS | DR_CMD_PLAN, "A,B,...", "hosts of the workers, through mpirun (default: this machine); plan: or how many")      \
    X(MEMORY, "memory", BYTES, 0, 1e15, "0", DR_CMD_PLAN, "BYTES", "memory of a host (0: what is free on this one)")    \
    X(RANKS, "ranks", INT, 1, 64, "1", DR_CMD_PLAN, "N", "ranks a host: NUMA nodes, or devices")                        \
    X(HOSTFILE, "hostfile", STRING, 0, 0, "", DR_CMD_RUNS | DR_CMD_PLAN, "FILE", "the same as an Open MPI hostfile")                  \
    X(PRECISION, "precision", ENUM, 0, 0, "fast", DR_CMD_CLUSTER, "f32|fast", "fast: inputs of products may be rounded")  \
    X(WEIGHTS, "weights", ENUM, 0, 0, "native", DR_CMD_ONE_CLUSTER | DR_CMD_RANKS | DR_CMD_PLAN, "native|int8", "native keeps the checkpoint's values exactly")           \
    X(ISA, "isa", ENUM, 0, 0, "auto", DR_CMD_CLUSTER, "auto|avx2|avx512|vnni|bf16", "instruction set of the kernels")   \
    X(DRAFTS, "drafts", ENUM, 0, 0, "off", DR_CMD_CLUSTER | DR_CMD_PLAN, "off|auto|1|2|3|4|5|6|7|8", "draft so many tokens with the model's MTP layer; auto: as many as save time") \
    X(REUSE, "reuse", ENUM, 0, 0, "any", DR_CMD_ONE_CLUSTER | DR_CMD_RANKS, "any|exact|off", "reuse cached pages of equal prefixes (exact: answers are the same bit for bit)") \
    X(STEP_MS, "step-ms", INT, 0, 3600000, "2000", DR_CMD_CLUSTER, "MS", "a step that generates takes about this long at most; one of prompts alone, four times (0: no limit)") \
    X(DEADLINE_SCALE, "deadline-scale", FLOAT, 0.1, 1000, "1", DR_CMD_CLUSTER, "X", "multiplies every deadline of a step")       \
    X(TEMPLATE, "template", ENUM, 0, 0, "auto", DR_CMD_RUNS | DR_CMD_TOKENIZE, "auto|v2|v3|r1|v3.1|v31|kimi-k2|lexi", "chat layout (auto: by the model's own files)") \
    X(SAMPLING_DEFAULTS, "sampling-defaults", ENUM, 0, 0, "model", DR_CMD_RUNS, "model|openai", "what fields left out of a request mean")  \
    X(HOST, "host", STRING, 0, 0, "127.0.0.1", DR_CMD_SERVE, "ADDRESS", "address to listen on")                        \
    X(PORT, "port", INT, 0, 65535, "8000", DR_CMD_SERVE, "N", "port to listen on (0: any; the log names it)")           \
    X(API_KEY_FILE, "api-key-file", STRING, 0, 0, "", DR_CMD_SERVE, "FILE", "accepted keys, one a line; needed for any address but loopback") \
    X(INSECURE, "insecure", BOOL, 0, 0, "false", DR_CMD_SERVE, "", "listen on any address without a key")               \
    X(SERVED_MODEL_NAME, "served-model-name", STRING, 0, 0, "", DR_CMD_SERVE, "NAME", "name in the API (default: the folder's)")       \
    X(METRICS_LISTEN, "metrics-listen", STRING, 0, 0, "", DR_CMD_SERVE, "ADDRESS:PORT", "own listener for /metrics, without a key")  \
    X(DRAIN_SECONDS, "drain-seconds", INT, 0, 86400, "60", DR_CMD_SERVE, "S", "how long open requests may finish after SIGTERM")     \
    X(PROMPT, "prompt", STRING, 0, 0, "", DR_CMD_GENERATE, "TEXT", "the prompt as text")                               \
    X(PROMPT_FILE, "prompt-file", STRING, 0, 0, "", DR_CMD_GENERATE, "FILE", "the prompt from a file (-: stdin)")       \
    X(PROMPT_IDS, "prompt-ids", STRING, 0, 0, "", DR_CMD_GENERATE, "5,17,9", "the prompt as token ids, taken as they are")   \
    X(CHAT, "chat", BOOL, 0, 0, "false", DR_CMD_GENERATE, "", "wrap the prompt in the model's chat layout as one user message")     \
    X(SYSTEM, "system", STRING, 0, 0, "", DR_CMD_SAMPLE, "TEXT", "system message of the chat")                          \
    X(MAX_TOKENS, "max-tokens", INT, 1, 16777216, "512", DR_CMD_SAMPLE, "N", "new tokens, at most")                     \
    X(MIN_TOKENS, "min-tokens", INT, 0, 16777216, "0", DR_CMD_SAMPLE, "N", "new tokens before an end token may stop")   \
    X(TEMPERATURE, "temperature", FLOAT, 0, 100, "", DR_CMD_SAMPLE, "T", "0: greedy (default: the model's)")            \
    X(TOP_P, "top-p", FLOAT, 0, 1, "", DR_CMD_SAMPLE, "P", "smallest set of tokens with this mass")                     \
    X(TOP_K, "top-k", INT, -1, 1048576, "", DR_CMD_SAMPLE, "K", "the K likeliest tokens (0, -1: all)")                  \
    X(MIN_P, "min-p", FLOAT, 0, 1, "", DR_CMD_SAMPLE, "P", "tokens at least P times as likely as the likeliest")        \
    X(SEED, "seed", INT, 0, 9.2e18, "", DR_CMD_SAMPLE | DR_CMD_BENCH, "N", "seed of the draws (default: the system's); bench: of the ids (default: 0)") \
    X(REPETITION_PENALTY, "repetition-penalty", FLOAT, 0.01, 100, "", DR_CMD_SAMPLE, "X", "divides logits of tokens seen (1: off)")      \
    X(FREQUENCY_PENALTY, "frequency-penalty", FLOAT, -10, 10, "", DR_CMD_SAMPLE, "X", "subtracts X per occurrence in the answer")   \
    X(PRESENCE_PENALTY, "presence-penalty", FLOAT, -10, 10, "", DR_CMD_SAMPLE, "X", "subtracts X once for tokens of the answer")    \
    X(LOGIT_BIAS, "logit-bias", STRING, 0, 0, "", DR_CMD_SAMPLE, "ID:X,...", "adds X to the logits of these ids")       \
    X(LOGPROBS, "logprobs", INT, 0, 20, "", DR_CMD_GENERATE, "K", "log-probabilities, with K alternatives a token")     \
    X(STOP, "stop", STRING, 0, 0, "", DR_CMD_SAMPLE, "TEXT", "stop before this text")                                  \
    X(IGNORE_EOS, "ignore-eos", BOOL, 0, 0, "false", DR_CMD_GENERATE, "", "end tokens do not stop")                     \
    X(FACTS, "facts", BOOL, 0, 0, "false", DR_CMD_GENERATE | DR_CMD_CHAT, "", "a line of facts on stderr after the answer (on a terminal: always)") \
    X(JSON, "json", BOOL, 0, 0, "false", DR_CMD_GENERATE | DR_CMD_FIGURES, "", "one JSON object instead of text")       \
    X(TEXT, "text", STRING, 0, 0, "", DR_CMD_SCORE, "FILE", "text to score (-: stdin)")                                 \
    X(IDS, "ids", STRING, 0, 0, "", DR_CMD_SCORE, "5,17,9", "token ids to score")                                       \
    X(LOGITS, "logits", STRING, 0, 0, "", DR_CMD_SCORE, "FILE", "write all logits as safetensors: logits [n, vocab] f32") \
    X(LAYOUTS, "layouts", STRING, 0, 0, "", DR_CMD_BENCH, "A=X,B=Y;...", "clusters to measure one after the other, each by its own cluster options: \"tp=1;tp=2;tp=2,pp=2\"") \
    X(BENCH_WEIGHTS, "weights", STRING, 0, 0, "native", DR_CMD_BENCH, "native,int8", "weights types to measure; native keeps the checkpoint's values exactly") \
    X(PROMPT_LENGTHS, "prompt-lengths", STRING, 0, 0, "512", DR_CMD_BENCH, "N,...", "prompt tokens to measure prefill with (0: none)") \
    X(GEN_LENGTHS, "gen-lengths", STRING, 0, 0, "128", DR_CMD_BENCH, "N,...", "tokens to generate in a measurement (0: none)") \
    X(DEPTHS, "depths", STRING, 0, 0, "0", DR_CMD_BENCH, "N,...", "tokens that are in the cache before a measurement begins; for prefill multiples of step-tokens") \
    X(BATCH, "batch", STRING, 0, 0, "1", DR_CMD_BENCH, "N,...", "sequences at the same time; prefill at a depth is measured with one") \
    X(REPS, "reps", INT, 1, 1000, "5", DR_CMD_BENCH, "N", "repetitions of each measurement")                            \
    X(WARMUP, "warmup", INT, 0, 100, "1", DR_CMD_BENCH, "N", "runs before the repetitions that are not counted")         \
    X(FORMAT, "format", ENUM, 0, 0, "table", DR_CMD_BENCH, "table|json|markdown", "how the report is printed")           \
    X(ROOFLINE, "roofline", BOOL, 0, 0, "false", DR_CMD_BENCH, "", "print the time that bytes and operations predict beside the measured one") \
    X(TRACE, "trace", STRING, 0, 0, "", DR_CMD_BENCH, "FILE", "write the measured steps of all ranks for chrome://tracing or Perfetto") \
    X(TOKENIZER, "tokenizer", STRING, 0, 0, "", DR_CMD_TOKENIZE, "FILE", "tokenizer.json, when there is no model")      \
    X(JSONL, "jsonl", BOOL, 0, 0, "false", DR_CMD_TOKENIZE, "", "a JSON object a line on stdin and stdout")             \
    X(LINK, "link", STRING, 0, 0, "", DR_CMD_COORDINATOR, "PATH", "socket of the gateway (set by the gateway)")         \
    X(LINK_TOKEN, "link-token", STRING, 0, 0, "", DR_CMD_COORDINATOR, "HEX", "secret of the link (environment only)")   \
    X(EPOCH, "epoch", STRING, 0, 0, "", DR_CMD_RANKS, "HEX", "identity of this launch (set by the gateway)")            \
    X(RUN_DIR, "run-dir", STRING, 0, 0, "/tmp", DR_CMD_RUNS, "DIR", "where the folder of a run is made (default: TMPDIR, else /tmp)") \
    X(CONFIG, "config", STRING, 0, 0, "", DR_CMD_RUNS | DR_CMD_FIGURES, "FILE", "read options from a file of `name = value` lines") \
    X(LOG_LEVEL, "log-level", ENUM, 0, 0, "info", DR_CMD_ALL, "debug|info|warn|error", "least level that is logged")    \
    X(LOG_FORMAT, "log-format", ENUM, 0, 0, "auto", DR_CMD_ALL, "auto|text|json", "auto: text on a terminal, else JSON lines")
/* clang-format on */

#define DR_X_(id, ...) DR_OPTION_##id,
enum dr_option { DR_OPTIONS(DR_X_) DR_OPTION_COUNT };
#undef DR_X_

struct dr_option_value {
    bool set;       /* by flag, environment or file; false: the default (which may be "unset") */
    bool present;   /* set or has a default */
    int64_t number; /* INT, BYTES, BOOL 0/1, ENUM index among the choices */
    double real;    /* FLOAT */
    char *text;     /* STRING and ENUM: owned; of several --stop the last; all are in `stop` */
};

enum { DR_STOPS_MAX = 16 };

struct dr_options {
    enum dr_command command;
    struct dr_option_value value[DR_OPTION_COUNT];
    char *stop[DR_STOPS_MAX]; /* --stop may be given several times */
    int32_t n_stop;
    char **rest; /* arguments that are no options, owned copies; at most 1 (inspect MODEL) */
    int32_t n_rest;
};

#ifdef __cplusplus
extern "C" {
#endif

/* argv: after the command word. Fails: EUSAGE naming the flag, the expected range or choices, what was found,
 * and the nearest known name for an unknown one. --name VALUE and --name=VALUE; BOOL: --name, --no-name,
 * --name=true|false. */
DR_FALLIBLE dr_options_parse(enum dr_command command, int argc, char **argv, struct dr_options *out);
void dr_options_fini(struct dr_options *o);

static inline bool dr_option_present(const struct dr_options *o, enum dr_option id) {
    return o->value[id].present;
}
static inline int64_t dr_option_int(const struct dr_options *o,
                                    enum dr_option id) { /* INT, BYTES, BOOL, ENUM */
    return o->value[id].number;
}
static inline double dr_option_float(const struct dr_options *o, enum dr_option id) {
    return o->value[id].real;
}
static inline const char *dr_option_text(const struct dr_options *o, enum dr_option id) { /* "" when unset */
    return o->value[id].text ? o->value[id].text : "";
}

const char *dr_option_name(enum dr_option id); /* "cache-width" */

/* --epoch of a rank: 16 hexadecimal digits. Fails: EUSAGE. */
DR_FALLIBLE dr_option_epoch(const struct dr_options *o, uint64_t *out);

/* A copy with strings of its own. Fails: EFULL. */
DR_FALLIBLE dr_options_copy(const struct dr_options *from, struct dr_options *out);

/* The option that `command` knows by this name; DR_OPTION_COUNT: none. */
enum dr_option dr_option_find(enum dr_command command, const char *name, size_t bytes);

/* Sets a value as a flag would (the gateway resolves --pages, --context, --threads this way). Same failures
 * as parse. */
DR_FALLIBLE dr_option_set(struct dr_options *o, enum dr_option id, const char *text);

/* Flags "--name=value" of all present options that `command` takes, for an exec: count, each malloc'd into
 * out[]; room rows. */
int32_t dr_options_flags(const struct dr_options *o, enum dr_command command, char **out, int32_t room);

/* The help of one command, wrapped to 80 columns: option, word, range or choices, default, text. To stdout.
 */
void dr_options_help(enum dr_command command);

#ifdef __cplusplus
}
#endif
