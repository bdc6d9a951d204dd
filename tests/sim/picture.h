/* picture.h - queue, pages and batch over time, as one SVG.
 * In:   a sample a step.      Out: a file.
 * Owns: at most PICTURE_POINTS samples: when they are full, every second one goes and later ones come half as
 * often. Why:  a wrong decision of a scheduler is easier to see than to find in a table. */
#pragma once

#include "common/status.h"

enum { PICTURE_POINTS = 2048 };

struct picture_point {
    double at_s;
    int32_t waiting, running, pages_used, pages_idle, rows;
};

struct picture {
    struct picture_point point[PICTURE_POINTS];
    int32_t n;
    uint64_t every, seen; /* of `seen` samples every `every`-th was kept */
};

void picture_add(struct picture *p, const struct picture_point *at);

/* Fails: EIO. */
DR_FALLIBLE picture_write(const struct picture *p, const char *path, const char *title, int32_t n_page);
