/* main.c - make-checkpoint: a random checkpoint of any config that deeprack reads.
 * In:   flags.      Out: a folder in Hugging Face form; one line of figures on stdout.
 * Owns: nothing.
 * Why:  benches need true dimensions, not true weights. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/checkpoint/maker.h"

static const char help[] =
    "make-checkpoint --config FILE.json --dtype fp8|bf16 --out DIR [OPTIONS]\n"
    "\n"
    "Writes a checkpoint of random weights in Hugging Face form: config.json, safetensors\n"
    "and their index. Equal seed, config and dtype give equal bytes. There is no tokenizer\n"
    "in the folder: prompts are token ids (deeprack bench, generate --prompt-ids, serve);\n"
    "deeprack chat needs one.\n"
    "\n"
    "  --config FILE      a config.json of the DeepSeek-V2/V3 family\n"
    "  --dtype fp8|bf16   type of the linear weights; fp8 has 128 x 128 block scales\n"
    "  --out DIR          absent or empty folder\n"
    "  --seed N           default 1\n"
    "  --shard-bytes N    data of one file, at most; K, M, G, T are powers of 1024 (default 4G)\n"
    "  --threads N        default: all processors\n";

static dr_status number_of(const char *flag, const char *text, uint64_t least, uint64_t most, bool suffix,
                           uint64_t *out) {
    static const char suffixes[] = "KMGT";
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    bool good = errno == 0 && text[0] >= '0' && text[0] <= '9';
    const char *unit = suffix && *end ? strchr(suffixes, *end) : NULL;
    uint64_t factor = 1;
    if (unit) {
        factor <<= 10 * (unit - suffixes + 1);
        end++;
    }
    uint64_t value = 0;
    good = good && *end == 0 && !__builtin_mul_overflow((uint64_t)v, factor, &value) && value >= least &&
           value <= most;
    if (!good)
        return dr_fail(DR_EUSAGE, "--%s: expected a whole number from %llu to %llu, found \"%.40s\"", flag,
                       (unsigned long long)least, (unsigned long long)most, text);
    *out = value;
    return dr_ok();
}

static dr_status dtype_of(const char *text, enum dr_dtype *out) {
    if (strcmp(text, "fp8") == 0)
        *out = DR_DTYPE_F8_E4M3;
    else if (strcmp(text, "bf16") == 0)
        *out = DR_DTYPE_BF16;
    else
        return dr_fail(DR_EUSAGE, "--dtype: expected fp8 or bf16, found \"%.40s\"", text);
    return dr_ok();
}

static dr_status set(struct dr_maker_wish *w, int flag, const char *text) {
    uint64_t n = 0;
    switch (flag) {
    case 'c':
        w->config = text;
        return dr_ok();
    case 'd':
        return dtype_of(text, &w->dtype);
    case 'o':
        w->dir = text;
        return dr_ok();
    case 's':
        return number_of("seed", text, 0, UINT64_MAX, false, &w->seed);
    case 'b':
        return number_of("shard-bytes", text, 1, (uint64_t)1 << 60, true, &w->shard_bytes);
    case 't':
        DR_TRY(number_of("threads", text, 1, 1024, false, &n));
        w->n_thread = (int32_t)n;
        return dr_ok();
    default:
        return dr_fail(DR_EUSAGE, "see make-checkpoint --help");
    }
}

static dr_status parse(int argc, char **argv, struct dr_maker_wish *w, bool *asked) {
    static const struct option flags[] = {{.name = "config", .has_arg = 1, .val = 'c'},
                                          {.name = "dtype", .has_arg = 1, .val = 'd'},
                                          {.name = "out", .has_arg = 1, .val = 'o'},
                                          {.name = "seed", .has_arg = 1, .val = 's'},
                                          {.name = "shard-bytes", .has_arg = 1, .val = 'b'},
                                          {.name = "threads", .has_arg = 1, .val = 't'},
                                          {.name = "help", .val = 'h'},
                                          {.name = NULL}};
    int flag;
    while ((flag = getopt_long(argc, argv, "h", flags, NULL)) != -1) {
        *asked = flag == 'h';
        if (*asked) return dr_ok();
        DR_TRY(set(w, flag, optarg));
    }
    if (optind < argc) return dr_fail(DR_EUSAGE, "expected flags only, found \"%.80s\"", argv[optind]);
    if (!w->config || !w->dir || w->dtype == DR_DTYPE_COUNT)
        return dr_fail(DR_EUSAGE, "expected --config, --dtype and --out: see make-checkpoint --help");
    return dr_ok();
}

int main(int argc, char **argv) {
    struct dr_maker_wish wish = {.seed = 1, .shard_bytes = (uint64_t)4 << 30, .dtype = DR_DTYPE_COUNT};
    struct dr_maker_report r;
    bool asked = false;
    dr_status st = parse(argc, argv, &wish, &asked);
    if (st.code == DR_OK && asked) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (st.code == DR_OK) st = dr_maker_run(&wish, &r);
    if (st.code != DR_OK) {
        fprintf(stderr, "make-checkpoint: %s\n", dr_error_text());
        return dr_code_exit(st.code);
    }
    double gb = (double)r.bytes * 1e-9, write_s = (double)r.write_ns * 1e-9,
           sync_s = (double)r.sync_ns * 1e-9;
    printf("%s: %llu parameters, %d tensors, %d files, %.2f GB; written in %.1f s by %d threads (%.2f GB/s, "
           "%.2f GB a processor second), synced in %.1f s more (%.2f GB/s in all)\n",
           wish.dir, (unsigned long long)r.n_param, r.n_tensor, r.n_file, gb, write_s, r.n_thread,
           gb / write_s, gb / ((double)r.processor_ns * 1e-9), sync_s, gb / (write_s + sync_s));
    return 0;
}
