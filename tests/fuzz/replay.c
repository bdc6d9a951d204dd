/* replay.c - runs a fuzz target without libFuzzer: its saved corpus, then blind mutations of it.
 * In:   [--seconds S] files and folders.      Out: the number of inputs; a crash is a failure.
 * Owns: nothing.
 * Why:  every input that once broke a parser is a plain regression test under gcc, too. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS_MAX = 4096, GROWTH = 64 };

static struct {
    uint8_t *data;
    size_t size;
} seed[SEEDS_MAX];
static size_t n_seed;

static int load(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) {
        fprintf(stderr, "%s: not found\n", path);
        return 1;
    }
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        int bad = d == NULL;
        for (struct dirent *e; d && (e = readdir(d));) {
            if (e->d_name[0] == '.') continue;
            char sub[4096];
            snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
            bad |= load(sub);
        }
        if (d) closedir(d);
        return bad;
    }
    if (n_seed == SEEDS_MAX) return 1;
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc((size_t)st.st_size + 1);
    if (!f || !data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        if (f) fclose(f);
        free(data);
        return 1;
    }
    fclose(f);
    seed[n_seed].data = data;
    seed[n_seed++].size = (size_t)st.st_size;
    return 0;
}

static uint64_t next(uint64_t *state) { /* xorshift64 */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* A few byte changes, deletions, copies and insertions; the input is an exact allocation so that ASan and
 * valgrind see overreads. */
static void mutate(uint64_t *state) {
    size_t pick = next(state) % n_seed, size = seed[pick].size;
    uint8_t *work = malloc(size + GROWTH + 1);
    if (!work) return;
    if (size) memcpy(work, seed[pick].data, size);
    for (size_t n = 1 + next(state) % 4, room = size + GROWTH; n > 0; n--) {
        size_t at = size ? next(state) % size : 0, len = 1 + next(state) % 8;
        switch (next(state) % 5) {
        case 0:
            if (size) work[at] = (uint8_t)next(state);
            break;
        case 1:
            if (size) work[at] ^= (uint8_t)(1u << next(state) % 8);
            break;
        case 2:
            if (at + len <= size) {
                memmove(work + at, work + at + len, size - at - len);
                size -= len;
            }
            break;
        case 3:
            if (size + len <= room) {
                memmove(work + at + len, work + at, size - at);
                for (size_t i = 0; i < len; i++)
                    work[at + i] = (uint8_t) "0123456789-{}[]\",:eE\\u\xff\x00"[next(state) % 25];
                size += len;
            }
            break;
        default:
            if (size) size = next(state) % size;
        }
    }
    uint8_t *exact = malloc(size ? size : 1);
    if (exact) {
        if (size) memcpy(exact, work, size);
        LLVMFuzzerTestOneInput(exact, size);
    }
    free(exact);
    free(work);
}

int main(int argc, char **argv) {
    int bad = 0;
    double seconds = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else
            bad |= load(argv[i]);
    }
    for (size_t i = 0; i < n_seed; i++) LLVMFuzzerTestOneInput(seed[i].data, seed[i].size);
    size_t mutated = 0;
    uint64_t state = 88172645463325252u;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    while (n_seed && seconds > 0) {
        mutate(&state);
        mutated++;
        clock_gettime(CLOCK_MONOTONIC, &b);
        if ((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9 >= seconds) break;
    }
    printf("%s: %zu inputs, %zu mutations\n", argv[0], n_seed, mutated);
    int ok = n_seed > 0 && !bad;
    while (n_seed) free(seed[--n_seed].data);
    return !ok;
}
