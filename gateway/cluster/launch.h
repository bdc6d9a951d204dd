/* launch.h - the command line that starts a cluster, and the folder it runs in.
 * In:   resolved options, where the programs are.      Out: argv and environment for mpirun; RUN.
 * Owns: nothing but what struct dr_words and the RUN folder hold.
 * Why:  the exact words were measured (proto and gateway READMEs); one file holds them and a test pins them.
 */
#pragma once

#include "common/option.h"

enum { DR_PATH_MAX = 4096, DR_WORDS_MAX = 4096, DR_TOKEN_BYTES = 32 };

struct dr_launch {
    char mpirun[DR_PATH_MAX]; /* found in PATH unless it has a slash */
    char coordinator[DR_PATH_MAX], worker[DR_PATH_MAX];
    char run[DR_PATH_MAX];  /* RUN: absolute */
    char link[DR_PATH_MAX]; /* RUN/link */
    int32_t n_worker;
    int32_t n_host; /* 0: all workers on this machine */
    bool as_root;
};

struct dr_words { /* a NULL-terminated vector of owned strings */
    char *word[DR_WORDS_MAX + 1];
    int32_t n;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Finds the two programs beside the running one, and fills mpirun and as_root. Fails: ENOENT naming the
 * program. */
DR_FALLIBLE dr_launch_find(struct dr_launch *l);

/* Counts the hosts of --hosts or --hostfile into *n_host (0: neither is given). Fails: EUSAGE (both, an empty
 * or malformed name), ENOENT, EIO. */
DR_FALLIBLE dr_launch_hosts(const struct dr_options *o, int32_t *n_host);

/* mpirun ... coordinator ... : ... worker ... Fails: EFULL. */
DR_FALLIBLE dr_launch_words(const struct dr_launch *l, const struct dr_options *o, uint64_t epoch,
                            struct dr_words *out);

/* This process's environment with the link's token put in (and an older one taken out). The strings of `out`
 * are owned. Fails: EFULL. */
DR_FALLIBLE dr_launch_environment(const uint8_t token[DR_TOKEN_BYTES], char ***out);
void dr_launch_environment_fini(char **environment);

void dr_words_fini(struct dr_words *w);

/* Makes RUN (mode 0700) in `base` and fills run and link. Fails: EIO, EUSAGE when the path is too long for a
 * socket. */
DR_FALLIBLE dr_run_create(const char *base, struct dr_launch *l);

/* Removes a folder and all in it, never following links. Quiet when it is gone. */
void dr_run_remove(const char *path);

#ifdef __cplusplus
}
#endif
