/* pieces.c - see pieces.h.
 * In:   recipe.      Out: bytes in a file.
 * Owns: see pieces.h.
 * Why:  see pieces.h. */
#include "tests/bench/checkpoint/pieces.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20, THREADS_MAX = 1024 }; /* 1 MiB stays in the second-level cache */

struct crew {
    const struct dr_pieces *p;
    pthread_mutex_t lock; /* guards the rest */
    int32_t tensor;       /* next to be taken: tensor and offset in it */
    uint64_t offset;
    int error; /* errno of the first failure; ends the work of all */
};

struct piece {
    const struct dr_recipe_tensor *tensor; /* NULL: nothing is left */
    uint64_t offset;
    size_t bytes;
};

static struct piece take(struct crew *c) {
    const struct dr_recipe *r = c->p->recipe;
    const struct dr_recipe_file *file = &r->file[c->p->file];
    struct piece piece = {0};
    pthread_mutex_lock(&c->lock);
    if (c->error == 0 && c->tensor < file->first + file->n_tensor) {
        piece.tensor = &r->tensor[c->tensor];
        piece.offset = c->offset;
        uint64_t left = piece.tensor->bytes - c->offset;
        piece.bytes = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        c->offset += piece.bytes;
        if (c->offset == piece.tensor->bytes) {
            c->tensor++;
            c->offset = 0;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return piece;
}

static void fail(struct crew *c, int error) {
    pthread_mutex_lock(&c->lock);
    if (c->error == 0) c->error = error;
    pthread_mutex_unlock(&c->lock);
}

static int write_at(int fd, const uint8_t *from, size_t bytes, uint64_t at) {
    while (bytes > 0) {
        ssize_t n = pwrite(fd, from, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        from += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static void *work(void *arg) {
    struct crew *c = arg;
    const struct dr_pieces *p = c->p;
    uint8_t *buffer = malloc(PIECE_BYTES);
    struct dr_values_lane *lane = calloc(1, sizeof *lane);
    if (!buffer || !lane) fail(c, ENOMEM);
    for (;;) {
        struct piece piece = take(c);
        if (!piece.tensor) break;
        struct dr_values v = dr_recipe_values(p->recipe, piece.tensor, p->seed);
        dr_values_fill(p->tables, lane, &v, piece.offset, piece.bytes, buffer);
        int error = write_at(p->fd, buffer, piece.bytes, p->data_begin + piece.tensor->begin + piece.offset);
        if (error) fail(c, error);
    }
    free(buffer);
    free(lane);
    return NULL;
}

dr_status dr_pieces_write(const struct dr_pieces *p) {
    struct crew c = {.p = p, .tensor = p->recipe->file[p->file].first};
    pthread_t helper[THREADS_MAX];
    int32_t n = 0, most = p->n_thread < THREADS_MAX ? p->n_thread : THREADS_MAX;
    pthread_mutex_init(&c.lock, NULL);
    while (n + 1 < most && pthread_create(&helper[n], NULL, work, &c) == 0) n++; /* fewer will do */
    (void)work(&c);
    for (int32_t i = 0; i < n; i++) pthread_join(helper[i], NULL);
    pthread_mutex_destroy(&c.lock);
    if (c.error == ENOMEM) return dr_fail(DR_EFULL, "no memory for a buffer of 1 MiB a thread");
    return c.error == 0 ? dr_ok() : dr_fail(DR_EIO, "write: %s", strerror(c.error));
}
