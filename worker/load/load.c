/* load.c - see load.h.
 * In:   holdings.      Out: packed weights.
 * Owns: threads, bounce buffers, the queue of pieces.
 * Why:  a piece is a run of rows of one holding, or the scales of one. Readers take the next few megabytes of
 * pieces until none is left: readers that fill the same huge page would all clear it, and only one would win.
 */

#include "worker/load/load.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/size.h"
#include "kernels/weight.h"
#include "worker/load/piece.h"

enum { READERS_MAX = 64, READERS_DEFAULT = 4, RUN_BYTES = 4 << 20 };

/* Pieces of one holding, as many as a reader takes at once. */
struct run {
    const struct dr_holding *holding;
    int32_t row, end; /* row -1: the holding's scales come first */
};

struct loader {
    const struct dr_load_params *p;
    pthread_mutex_t lock; /* everything below */
    pthread_cond_t news;
    int32_t holding, row; /* next piece; row -1: the holding's scales */
    uint64_t done_bytes;
    int32_t running;
    dr_status st; /* first failure */
    char text[1024];
};

/* Next run, or false when none is left or a reader has failed. */
static bool take(struct loader *l, struct run *out) {
    (void)pthread_mutex_lock(&l->lock);
    bool more = l->st.code == DR_OK && l->holding < l->p->n;
    if (more) {
        const struct dr_holding *h = &l->p->list[l->holding];
        *out = (struct run){.holding = h, .row = l->row};
        for (uint64_t bytes = 0; bytes < RUN_BYTES && l->row < h->rows;) {
            struct dr_piece p = dr_piece_at(l->p->tensors, h, l->row);
            bytes += dr_piece_bytes(&p);
            l->row = l->row < 0 ? 0 : l->row + p.n_rows;
        }
        out->end = l->row;
        if (l->row >= h->rows) {
            l->holding++;
            l->row = l->holding < l->p->n ? dr_piece_first_row(&l->p->list[l->holding]) : 0;
        }
    }
    (void)pthread_mutex_unlock(&l->lock);
    return more;
}

static void note(struct loader *l, dr_status st, uint64_t bytes) {
    (void)pthread_mutex_lock(&l->lock);
    l->done_bytes += bytes;
    if (st.code != DR_OK && l->st.code == DR_OK) {
        l->st = st;
        (void)snprintf(l->text, sizeof l->text, "%s", dr_error_text());
        (void)pthread_cond_signal(&l->news);
    }
    (void)pthread_mutex_unlock(&l->lock);
}

static void *reader(void *arg) {
    struct loader *l = arg;
    size_t room = 0;
    for (int32_t i = 0; i < l->p->n; i++) {
        size_t need = dr_piece_buffer_bytes(l->p->tensors, &l->p->list[i]);
        room = need > room ? need : room;
    }
    uint8_t *buffer = malloc(room ? room : 1);
    struct run run;
    if (!buffer) note(l, dr_fail(DR_EFULL, "no memory for a read buffer of %zu bytes", room), 0);
    while (buffer && take(l, &run)) {
        dr_status st = dr_ok();
        for (uint64_t bytes = 0; st.code == DR_OK && run.row < run.end; note(l, st, bytes)) {
            struct dr_piece piece = dr_piece_at(l->p->tensors, run.holding, run.row);
            st = dr_piece_load(&piece, buffer, room, l->p->block);
            bytes = dr_piece_bytes(&piece);
            run.row = run.row < 0 ? 0 : run.row + piece.n_rows;
        }
    }
    free(buffer);
    (void)pthread_mutex_lock(&l->lock);
    l->running--;
    (void)pthread_cond_signal(&l->news);
    (void)pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Tells the progress once a second until all readers have ended. */
static void watch(struct loader *l, uint64_t total) {
    (void)pthread_mutex_lock(&l->lock);
    while (l->running > 0) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        int rc = pthread_cond_timedwait(&l->news, &l->lock, &until);
        uint64_t done = l->done_bytes;
        if (rc != ETIMEDOUT || !l->p->progress) continue;
        (void)pthread_mutex_unlock(&l->lock);
        l->p->progress(l->p->arg, done, total);
        (void)pthread_mutex_lock(&l->lock);
    }
    (void)pthread_mutex_unlock(&l->lock);
}

static int32_t start(struct loader *l, pthread_t *thread, int32_t wanted) {
    int32_t n = 0;
    l->running = wanted;
    while (n < wanted && pthread_create(&thread[n], NULL, reader, l) == 0) n++;
    if (n < wanted) {
        (void)pthread_mutex_lock(&l->lock);
        l->running -= wanted - n;
        (void)pthread_mutex_unlock(&l->lock);
        note(l, dr_fail(DR_EFULL, "only %d of %d reader threads could be started", n, wanted), 0);
    }
    return n;
}

dr_status dr_load(const struct dr_load_params *p) {
    struct loader l = {.p = p, .row = p->n > 0 ? dr_piece_first_row(&p->list[0]) : 0};
    pthread_t thread[READERS_MAX];
    pthread_condattr_t attr;
    uint64_t total = dr_load_bytes(p->tensors, p->list, p->n);
    int32_t wanted = p->n_reader > 0 ? dr_min_i32(p->n_reader, READERS_MAX) : READERS_DEFAULT;
    (void)pthread_mutex_init(&l.lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&l.news, &attr);
    int32_t n = start(&l, thread, wanted);
    watch(&l, total);
    for (int32_t i = 0; i < n; i++) (void)pthread_join(thread[i], NULL);
    (void)pthread_cond_destroy(&l.news);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_destroy(&l.lock);
    if (l.st.code != DR_OK) return dr_fail(l.st.code, "%s", l.text);
    if (p->progress) p->progress(p->arg, total, total);
    return dr_ok();
}

uint64_t dr_load_bytes(const struct dr_tensors *t, const struct dr_holding *list, int32_t n) {
    uint64_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct dr_tensor *x = dr_tensors_get(t, list[i].role, list[i].layer, list[i].expert);
        sum += (uint64_t)list[i].rows * (uint64_t)list[i].cols * dr_dtype_bytes(x->dtype);
    }
    return sum;
}
