/* picture.c - see picture.h.
 * In:   samples.      Out: an SVG.
 * Owns: nothing.
 * Why:  see picture.h. */
#include "tests/sim/picture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"

enum { WIDTH = 1000, LEFT = 70, RIGHT = 20, PANEL = 150, GAP = 45, TOP = 50 };

void picture_add(struct picture *p, const struct picture_point *at) {
    if (p->every == 0) p->every = 1;
    if (p->seen++ % p->every != 0) return;
    if (p->n == PICTURE_POINTS) {
        for (int32_t i = 0; i < PICTURE_POINTS / 2; i++) p->point[i] = p->point[2 * i];
        p->n = PICTURE_POINTS / 2;
        p->every *= 2;
        if ((p->seen - 1) % p->every != 0) return;
    }
    p->point[p->n++] = *at;
}

struct line {
    const char *name, *color;
    size_t field; /* offset in struct picture_point */
    size_t below; /* added to it; its own offset: nothing */
};

struct panel {
    const char *name;
    struct line line[2];
    int32_t n_line;
};

#define FIELD(name) offsetof(struct picture_point, name)
static const struct panel panels[] = {
    {"waiting requests", {{"waiting", "#b4432f", FIELD(waiting), FIELD(waiting)}}, 1},
    {"cache pages",
     {{"used", "#27548a", FIELD(pages_used), FIELD(pages_used)},
      {"used + idle (prefixes)", "#8fb3d9", FIELD(pages_idle), FIELD(pages_used)}},
     2},
    {"running requests", {{"running", "#3d7a3d", FIELD(running), FIELD(running)}}, 1},
    {"rows of a step", {{"rows", "#6a4c93", FIELD(rows), FIELD(rows)}}, 1},
};
enum { PANELS = (int)(sizeof panels / sizeof *panels) };

static int32_t value(const struct picture_point *p, const struct line *l) {
    int32_t a, b = 0;
    memcpy(&a, (const char *)p + l->field, sizeof a);
    if (l->below != l->field) memcpy(&b, (const char *)p + l->below, sizeof b);
    return a + b;
}

static void draw_panel(FILE *f, const struct picture *p, const struct panel *k, int32_t top, int32_t most) {
    const double end = p->n ? p->point[p->n - 1].at_s : 1;
    for (int32_t i = 0; i < k->n_line; i++)
        for (int32_t j = 0; j < p->n; j++) most = dr_max_i32(most, value(&p->point[j], &k->line[i]));
    if (most == 0) most = 1;
    fprintf(f, "<text x='%d' y='%d' font-weight='bold'>%s</text>\n", LEFT, top - 8, k->name);
    for (int32_t i = 0; i < k->n_line; i++)
        fprintf(f, "<text x='%d' y='%d' fill='%s'>%s</text>\n", LEFT + 180 + 140 * i, top - 8,
                k->line[i].color, k->line[i].name);
    for (int i = 0; i <= 2; i++) {
        const double y = top + PANEL - PANEL * i / 2.0;
        fprintf(f, "<path d='M%d %.1fH%d' stroke='#ddd'/><text x='%d' y='%.1f' text-anchor='end'>%d</text>\n",
                LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4, most * i / 2);
    }
    for (int32_t i = 0; i < k->n_line; i++) {
        fprintf(f, "<polyline fill='none' stroke='%s' stroke-width='1' points='", k->line[i].color);
        for (int32_t j = 0; j < p->n; j++)
            fprintf(f, "%.1f,%.1f ", LEFT + (WIDTH - LEFT - RIGHT) * p->point[j].at_s / (end > 0 ? end : 1),
                    top + PANEL - PANEL * (double)value(&p->point[j], &k->line[i]) / most);
        fprintf(f, "'/>\n");
    }
}

dr_status picture_write(const struct picture *p, const char *path, const char *title, int32_t n_page) {
    FILE *f = fopen(path, "w");
    if (!f) return dr_fail(DR_EIO, "%s: %s", path, strerror(errno));
    const int32_t height = TOP + PANELS * (PANEL + GAP) + 10;
    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' viewBox='0 0 %d %d' "
            "font-family='sans-serif' font-size='12'>\n<rect width='100%%' height='100%%' fill='white'/>\n"
            "<text x='%d' y='22' font-size='15'>%s</text>\n",
            WIDTH, height, WIDTH, height, LEFT, title);
    for (int i = 0; i < PANELS; i++)
        draw_panel(f, p, &panels[i], TOP + i * (PANEL + GAP) + 10, i == 1 ? n_page : 0);
    const double end = p->n ? p->point[p->n - 1].at_s : 0;
    for (int i = 0; i <= 4; i++)
        fprintf(f, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f s</text>\n",
                LEFT + (WIDTH - LEFT - RIGHT) * i / 4.0, height - 12, end * i / 4);
    fprintf(f, "</svg>\n");
    const bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) return dr_fail(DR_EIO, "%s: cannot write", path);
    return dr_ok();
}
