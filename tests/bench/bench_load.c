/* bench_load.c - loading weights beside plain reading of the same files, in turns.
 * In:   a model's folder, the weights type, readers.      Out: a line a turn, best and medians.
 * Owns: nothing.
 * Why:  pages that a system or a host has taken back cost more than the reading; in one process, where each
 * turn gets the pages that the turn before gave back, both sides meet the same memory. Files should be in the
 * page cache: the first turn reads them and does not count. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/block.h"
#include "common/clock.h"
#include "kernels/ops.h"
#include "tests/support/worker_rig.h"
#include "worker/load/load.h"

enum { TURNS = 15, CHUNK = 8 << 20, THREADS_MAX = 64 };

struct plain { /* every tensor's range, one behind the other */
    const struct dr_tensors *tensors;
    const struct dr_holding *list;
    uint64_t *offset; /* [n + 1] */
    int32_t n;
    uint8_t *block;
    atomic_uint_fast64_t next;
};

static void *read_plain(void *arg) {
    struct plain *p = arg;
    uint64_t total = p->offset[p->n];
    int32_t i = 0;
    for (uint64_t at; (at = atomic_fetch_add(&p->next, CHUNK)) < total;)
        for (uint64_t end = at + CHUNK < total ? at + CHUNK : total; at < end;) {
            while (p->offset[i + 1] <= at) i++;
            const struct dr_holding *h = &p->list[i];
            const struct dr_tensor *t = dr_tensors_get(p->tensors, h->role, h->layer, h->expert);
            uint64_t most = (p->offset[i + 1] < end ? p->offset[i + 1] : end) - at;
            ssize_t n = pread(t->fd, p->block + at, most, (off_t)(t->offset + at - p->offset[i]));
            if (n <= 0) abort();
            at += (uint64_t)n;
        }
    return NULL;
}

static dr_status plain_seconds(struct plain *p, int32_t n_thread, double *out) {
    pthread_t thread[THREADS_MAX];
    int32_t n = 0;
    DR_TRY(dr_block_take(p->offset[p->n], &p->block));
    atomic_store(&p->next, 0);
    uint64_t begin = dr_clock_ns();
    while (n < n_thread && pthread_create(&thread[n], NULL, read_plain, p) == 0) n++;
    for (int32_t i = 0; i < n; i++) (void)pthread_join(thread[i], NULL);
    *out = (double)(dr_clock_ns() - begin) * 1e-9;
    dr_block_give(p->block, p->offset[p->n]);
    return n == n_thread ? dr_ok() : dr_fail(DR_EFULL, "no thread");
}

static dr_status load_seconds(struct dr_load_params *p, size_t bytes, double *out) {
    DR_TRY(dr_block_take(bytes, &p->block));
    uint64_t begin = dr_clock_ns();
    dr_status st = dr_load(p);
    *out = (double)(dr_clock_ns() - begin) * 1e-9;
    dr_block_give(p->block, bytes);
    return st;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dr_status run(const char *dir, enum dr_weights weights, int32_t readers) {
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    struct dr_config config;
    struct dr_layout layout;
    struct dr_tensors *tensors = NULL;
    double plain_s[TURNS], load_s[TURNS], unused;
    wish.weights = weights;
    DR_TRY(dr_config_load(dir, &config));
    DR_TRY(dr_tensors_open(dir, &config, &tensors));
    DR_TRY(dr_layout_make(&config, &wish, &layout));
    int32_t n = dr_footprint_list(&config, tensors, &layout, 0, NULL, 0);
    struct dr_holding *list = calloc((size_t)n, sizeof *list);
    struct plain plain = {.tensors = tensors, .list = list, .n = n, .offset = calloc((size_t)n + 1, 8)};
    if (!list || !plain.offset) return dr_fail(DR_EFULL, "no memory");
    (void)dr_footprint_list(&config, tensors, &layout, 0, list, n);
    struct dr_load_params load = {.tensors = tensors, .list = list, .n = n, .n_reader = readers};
    for (int32_t i = 0; i < n; i++)
        plain.offset[i + 1] = plain.offset[i] + dr_load_bytes(tensors, list + i, 1);
    size_t bytes = dr_footprint_rank(&config, tensors, &layout, 0).weights;
    double gb = (double)plain.offset[n] * 1e-9;
    DR_TRY(plain_seconds(&plain, readers, &unused));
    for (int t = 0; t < TURNS; t++) {
        DR_TRY(plain_seconds(&plain, readers, &plain_s[t]));
        DR_TRY(load_seconds(&load, bytes, &load_s[t]));
        printf("plain %.2f GB/s, load %.2f GB/s, ratio %.2f\n", gb / plain_s[t], gb / load_s[t],
               plain_s[t] / load_s[t]);
        (void)fflush(stdout);
    }
    qsort(plain_s, TURNS, sizeof *plain_s, by_value);
    qsort(load_s, TURNS, sizeof *load_s, by_value);
    for (int t = 0; t <= TURNS / 2; t += TURNS / 2)
        printf("%.2f GB, %d readers: plain %.2f GB/s, load %.2f GB/s (%s of %d), ratio %.2f\n", gb, readers,
               gb / plain_s[t], gb / load_s[t], t ? "medians" : "best", TURNS, plain_s[t] / load_s[t]);
    free(list);
    free(plain.offset);
    dr_tensors_destroy(tensors);
    return dr_ok();
}

int main(int argc, char **argv) {
    bool int8 = argc > 2 && strcmp(argv[2], "int8") == 0;
    int32_t readers = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 4;
    bool good = argc >= 2 && argc <= 4 && readers >= 1 && readers <= THREADS_MAX &&
                (argc == 2 || int8 || strcmp(argv[2], "native") == 0);
    dr_status st = good ? run(argv[1], int8 ? DR_WEIGHTS_INT8 : DR_WEIGHTS_NATIVE, readers)
                        : dr_fail(DR_EUSAGE, "usage: bench-load MODEL [native|int8 [READERS]]");
    if (st.code != DR_OK) fprintf(stderr, "bench-load: %s\n", dr_error_text());
    return st.code == DR_OK ? 0 : dr_code_exit(st.code);
}
