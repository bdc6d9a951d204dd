/* launch.c - see launch.h.
 * In:   options, paths.      Out: words of a command line.
 * Owns: nothing.
 * Why:  see launch.h. */
#include "gateway/cluster/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/size.h"

extern char **environ;

enum { HOST_RANKS_MAX = 4096 };

/* ---- where the programs are ---- */

static dr_status beside(const char *folder, const char *name, char *out, size_t room) {
    int n = snprintf(out, room, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= room)
        return dr_fail(DR_EUSAGE, "%s: the path of this program is too long", name);
    if (access(out, X_OK) != 0)
        return dr_fail(
            DR_ENOENT,
            "%s: expected beside the running program, not there (%s); install all three programs together",
            out, strerror(errno));
    return dr_ok();
}

dr_status dr_launch_find(struct dr_launch *l) {
    char folder[DR_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (n <= 0)
        return dr_fail(DR_EIO, "/proc/self/exe: cannot be read: %s; is /proc mounted?", strerror(errno));
    folder[n] = 0;
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    DR_TRY(beside(folder, "deeprack-coordinator", l->coordinator, sizeof l->coordinator));
    DR_TRY(beside(folder, "deeprack-worker", l->worker, sizeof l->worker));
    snprintf(l->mpirun, sizeof l->mpirun, "mpirun");
    l->as_root = geteuid() == 0;
    return dr_ok();
}

/* ---- hosts ---- */

static bool host_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == ':';
}

/* NAME or NAME:RANKS. */
static dr_status check_ranks(const char *entry, size_t bytes, int32_t number) {
    const char *colon = memchr(entry, ':', bytes);
    char *end = NULL;
    if (!colon) return dr_ok();
    long ranks = strtol(colon + 1, &end, 10);
    if (colon > entry && end == entry + bytes && ranks >= 1 && ranks <= HOST_RANKS_MAX) return dr_ok();
    return dr_fail(DR_EUSAGE, "--hosts: entry %d: expected NAME or NAME:RANKS with 1..%d ranks", number,
                   HOST_RANKS_MAX);
}

static dr_status count_list(const char *list, int32_t *n_host) {
    int32_t n = 0;
    for (const char *p = list;;) {
        size_t bytes = strcspn(p, ",");
        if (bytes == 0)
            return dr_fail(DR_EUSAGE,
                           "--hosts: expected names with commas between them, found an empty name");
        for (size_t i = 0; i < bytes; i++)
            if (!host_char(p[i]) || (i == 0 && p[i] == '-'))
                return dr_fail(DR_EUSAGE, "--hosts: name %d holds a character that no host name has", n + 1);
        n++;
        DR_TRY(check_ranks(p, bytes, n));
        if (!p[bytes]) break;
        p += bytes + 1;
    }
    *n_host = n;
    return dr_ok();
}

static dr_status count_file(const char *path, int32_t *n_host) {
    FILE *f = fopen(path, "re");
    if (!f)
        return dr_fail(errno == ENOENT ? DR_ENOENT : DR_EIO, "--hostfile %s: cannot be opened: %s", path,
                       strerror(errno));
    char line[1024];
    int32_t n = 0;
    while (fgets(line, sizeof line, f)) {
        const char *p = line + strspn(line, " \t\r\n");
        if (*p && *p != '#') n++;
    }
    bool bad = ferror(f);
    fclose(f);
    if (bad) return dr_fail(DR_EIO, "--hostfile %s: cannot be read", path);
    if (n == 0) return dr_fail(DR_EUSAGE, "--hostfile %s: expected a host a line, found none", path);
    *n_host = n;
    return dr_ok();
}

dr_status dr_launch_hosts(const struct dr_options *o, int32_t *n_host) {
    const char *list = dr_option_text(o, DR_OPTION_HOSTS), *file = dr_option_text(o, DR_OPTION_HOSTFILE);
    *n_host = 0;
    if (*list && *file) return dr_fail(DR_EUSAGE, "--hosts and --hostfile: give one of them");
    if (*list) return count_list(list, n_host);
    if (*file) return count_file(file, n_host);
    return dr_ok();
}

/* ---- words ---- */

void dr_words_fini(struct dr_words *w) {
    for (int32_t i = 0; i < w->n; i++) free(w->word[i]);
    *w = (struct dr_words){.n = 0};
}

__attribute__((format(printf, 2, 3))) static bool add(struct dr_words *w, const char *fmt, ...) {
    if (w->n == DR_WORDS_MAX) return false;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&w->word[w->n], fmt, args);
    va_end(args);
    if (n < 0) {
        w->word[w->n] = NULL;
        return false;
    }
    w->n++;
    return true;
}

/* Open MPI notices a dead node after minutes and leaves shared memory in /dev/shm after a kill unless told
 * otherwise. */
static bool add_mpirun(struct dr_words *w, const struct dr_launch *l) {
    bool good = add(w, "%s", l->mpirun);
    const char *const plain[][2] = {
        {"oob_tcp_keepalive_time", "3"},      {"oob_tcp_keepalive_intvl", "1"},
        {"oob_tcp_keepalive_probes", "3"},    {"btl_vader_backing_directory", l->run},
        {"osc_sm_backing_directory", l->run}, {"orte_tmpdir_base", l->run},
        {"mpi_yield_when_idle", "1"},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        good = good && add(w, "--mca") && add(w, "%s", plain[i][0]) && add(w, "%s", plain[i][1]);
    good = good && add(w, "--oversubscribe") && add(w, "--bind-to") && add(w, "none");
    return good && (!l->as_root || add(w, "--allow-run-as-root"));
}

static bool add_flags(struct dr_words *w, const struct dr_options *o, enum dr_command command) {
    char *flag[DR_OPTION_COUNT];
    int32_t n = dr_options_flags(o, command, flag, DR_OPTION_COUNT);
    bool good = true;
    for (int32_t i = 0; i < n; i++) {
        good = good && add(w, "%s", flag[i]);
        free(flag[i]);
    }
    return good;
}

/* One part of mpirun's command line: n workers, on `host` if that is given. */
static bool add_workers(struct dr_words *w, const struct dr_launch *l, const struct dr_options *o,
                        uint64_t epoch, int32_t n, int host_bytes, const char *host) {
    bool good = add(w, ":");
    if (host_bytes > 0) good = good && add(w, "-host") && add(w, "%.*s:%d", host_bytes, host, n);
    good = good && add(w, "-np") && add(w, "%d", n) && add(w, "%s", l->worker);
    return good && add_flags(w, o, DR_CMD_WORKER) && add(w, "--epoch=%016" PRIx64, epoch);
}

/* Ranks that an entry NAME or NAME:RANKS of --hosts asks for; *name_bytes: of NAME. */
static int32_t entry_ranks(const char *entry, size_t bytes, int32_t otherwise, int *name_bytes) {
    const char *colon = memchr(entry, ':', bytes);
    *name_bytes = (int)(colon ? (size_t)(colon - entry) : bytes);
    return colon ? (int32_t)strtol(colon + 1, NULL, 10) : otherwise;
}

/* Hosts in order, each a part of its own with its share of the ranks, so that neighbouring ranks share a
 * host. One part for all of them would not do: mpirun takes the coordinator's place off its host and gives
 * the surplus to another. What the entries leave over goes to the last host. */
static bool add_hosts(struct dr_words *w, const struct dr_launch *l, const struct dr_options *o,
                      uint64_t epoch) {
    const char *list = dr_option_text(o, DR_OPTION_HOSTS);
    const int32_t share = strchr(list, ':') ? 1 : dr_ceil_div(l->n_worker, l->n_host);
    int32_t left = l->n_worker;
    bool good = true;
    for (const char *p = list; *p && left > 0 && good;) {
        size_t bytes = strcspn(p, ",");
        int name_bytes = 0;
        int32_t n = dr_min_i32(entry_ranks(p, bytes, share, &name_bytes), left);
        if (!p[bytes]) n = left;
        good = add_workers(w, l, o, epoch, n, name_bytes, p);
        left -= n;
        p += bytes + (p[bytes] == ',');
    }
    return good;
}

/* A hostfile speaks of places itself. */
static bool add_all_workers(struct dr_words *w, const struct dr_launch *l, const struct dr_options *o,
                            uint64_t epoch) {
    const char *file = dr_option_text(o, DR_OPTION_HOSTFILE);
    if (*dr_option_text(o, DR_OPTION_HOSTS)) return add_hosts(w, l, o, epoch);
    if (!*file) return add_workers(w, l, o, epoch, l->n_worker, 0, NULL);
    return add(w, ":") && add(w, "-hostfile") && add(w, "%s", file) && add(w, "-np") &&
           add(w, "%d", l->n_worker) && add(w, "%s", l->worker) && add_flags(w, o, DR_CMD_WORKER) &&
           add(w, "--epoch=%016" PRIx64, epoch);
}

dr_status dr_launch_words(const struct dr_launch *l, const struct dr_options *o, uint64_t epoch,
                          struct dr_words *out) {
    struct dr_words w = {.n = 0};
    bool good = add_mpirun(&w, l);
    good = good && add(&w, "-host") && add(&w, "localhost") && add(&w, "-np") && add(&w, "1") &&
           add(&w, "%s", l->coordinator);
    good = good && add_flags(&w, o, DR_CMD_COORDINATOR) && add(&w, "--link=%s", l->link) &&
           add(&w, "--epoch=%016" PRIx64, epoch);
    good = good && add_all_workers(&w, l, o, epoch);
    if (!good) {
        dr_words_fini(&w);
        return dr_fail(DR_EFULL,
                       "the command line of the cluster has more than %d words or no memory is left",
                       DR_WORDS_MAX);
    }
    *out = w;
    return dr_ok();
}

/* ---- environment ---- */

dr_status dr_launch_environment(const uint8_t token[DR_TOKEN_BYTES], char ***out) {
    static const char name[] = "DEEPRACK_LINK_TOKEN=";
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **copy = calloc(n + 2, sizeof *copy), *own = malloc(sizeof name + 2 * DR_TOKEN_BYTES);
    bool good = copy && own;
    for (size_t i = 0; good && i < n; i++) {
        if (!strncmp(environ[i], name, sizeof name - 1)) continue;
        copy[kept] = strdup(environ[i]);
        good = copy[kept] != NULL;
        kept += good;
    }
    if (!good) {
        free(own);
        dr_launch_environment_fini(copy);
        return dr_fail(DR_EFULL, "no memory for the environment of the cluster");
    }
    strcpy(own, name);
    for (int i = 0; i < DR_TOKEN_BYTES; i++) snprintf(own + sizeof name - 1 + 2 * i, 3, "%02x", token[i]);
    copy[kept] = own;
    *out = copy;
    return dr_ok();
}

void dr_launch_environment_fini(char **environment) {
    if (!environment) return;
    for (char **p = environment; *p; p++) free(*p);
    free(environment);
}

/* ---- RUN ---- */

dr_status dr_run_create(const char *base, struct dr_launch *l) {
    char path[DR_PATH_MAX], full[PATH_MAX];
    if (!realpath(base, full)) return dr_fail(DR_EIO, "--run-dir %s: %s", base, strerror(errno));
    int n = snprintf(path, sizeof path, "%s/deeprack-XXXXXX", full);
    const size_t longest = sizeof((struct sockaddr_un *)0)->sun_path - sizeof "/link";
    if (n < 0 || (size_t)n > longest)
        return dr_fail(DR_EUSAGE,
                       "--run-dir %s: the path of a socket has at most %zu bytes; choose a shorter folder",
                       base, longest);
    if (!mkdtemp(path))
        return dr_fail(DR_EIO, "--run-dir %s: no folder can be made there: %s", base, strerror(errno));
    snprintf(l->run, sizeof l->run, "%s", path);
    snprintf(l->link, sizeof l->link, "%.107s/link", path);
    return dr_ok();
}

/* fd: an open folder, taken over. Depth is bounded so that a hostile tree cannot use up the stack. */
static void empty(int fd, int depth) {
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0) continue;
        int sub =
            depth > 0 ? openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (sub < 0) continue;
        empty(sub, depth - 1);
        unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

void dr_run_remove(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    empty(fd, 16);
    rmdir(path);
}
