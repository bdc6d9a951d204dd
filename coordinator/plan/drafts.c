/* drafts.c - see drafts.h.
 * In:   times.      Out: numbers.
 * Owns: nothing.
 * Why:  see drafts.h. */
#include "coordinator/plan/drafts.h"

#include "common/size.h"

static const double FADE = 31.0 / 32; /* of what was measured, with each step: some two trials count */
static const double STALE = 0.25; /* of it when a trial begins: the text or the machine may have changed */

void dr_drafts_init(struct dr_drafts *d, int32_t wish) {
    *d = (struct dr_drafts){.wish = wish};
    for (int32_t i = 0; i < DR_DRAFTS_CLASSES; i++) d->of[i].left = DR_DRAFTS_TRIAL;
}

static int32_t class_of(int32_t n) {
    int32_t i = 0;
    while (i < DR_DRAFTS_CLASSES - 1 && n >> (i + 1) > 0) i++;
    return i;
}

int32_t dr_drafts_wanted(const struct dr_drafts *d, int32_t n) {
    return d->wish == DR_DRAFTS_AUTO ? d->of[class_of(n)].now : d->wish;
}

static bool tried(const struct dr_drafts_class *c, int32_t k) {
    return c->tokens[k] > 0;
}

static double pace(const struct dr_drafts_class *c, int32_t k) { /* ns a token */
    return c->ns[k] / c->tokens[k];
}

static int32_t best(const struct dr_drafts_class *c) {
    int32_t k = 0;
    for (int32_t i = 1; i <= DR_DRAFTS_AUTO_MOST; i++)
        if (tried(c, i) && pace(c, i) < pace(c, k)) k = i;
    return k;
}

static void try_out(struct dr_drafts_class *c, int32_t k) {
    c->now = k;
    c->left = DR_DRAFTS_TRIAL;
    c->ns[k] *= STALE;
    c->tokens[k] *= STALE;
}

/* At first one more each time until that is slower; then the best, and its neighbours in turn. */
static void think(struct dr_drafts_class *c) {
    const int32_t k = best(c);
    if (c->now != k) { /* a trial is over */
        c->now = k;
        c->left = DR_DRAFTS_STAY;
    } else if (k < DR_DRAFTS_AUTO_MOST && !tried(c, k + 1)) {
        try_out(c, k + 1);
    } else {
        c->upwards = k == 0 || (k < DR_DRAFTS_AUTO_MOST && !c->upwards);
        try_out(c, k + (c->upwards ? 1 : -1));
    }
}

void dr_drafts_measured(struct dr_drafts *d, int32_t n, double ns, int32_t tokens) {
    struct dr_drafts_class *c = &d->of[class_of(n)];
    if (d->wish != DR_DRAFTS_AUTO || tokens < 1) return;
    c->ns[c->now] = c->ns[c->now] * FADE + ns;
    c->tokens[c->now] = c->tokens[c->now] * FADE + tokens;
    if (--c->left <= 0) think(c);
}
