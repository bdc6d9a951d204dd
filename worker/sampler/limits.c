/* limits.c - see limits.h.
 * In:   adjusted logits.      Out: thresholds.
 * Owns: nothing.
 * Why:  see limits.h. */

#include "worker/sampler/limits.h"

#include <math.h>
#include <string.h>

enum { BINS = 256 };

struct descent {
    bool by_mass;                 /* top-p; else top-k */
    int32_t n, row[DR_OUT_BATCH]; /* rows that ask, ascending */
    uint64_t left[DR_OUT_BATCH];  /* by place among them: count or mass still to be found in the chosen bin */
    bool all[DR_OUT_BATCH];       /* fewer values than asked for: nothing is cut */
};

/* Counts and masses of this rank's columns for each asking row: [n][BINS] u32, then [n][BINS] u64. */
static dr_status count_bins(struct dr_sampler *s, const struct descent *d, int32_t shift) {
    uint32_t *count = (uint32_t *)(void *)s->in;
    uint64_t *mass = (uint64_t *)(void *)(s->in + (size_t)d->n * BINS * sizeof *count);
    memset(s->in, 0, (size_t)d->n * DR_SAMPLE_BINS_BYTES);
    for (int32_t i = 0; i < d->n;) {
        int32_t run = 1, row = d->row[i];
        if (s->bad[row]) {
            i++;
            continue;
        }
        while (i + run < d->n && d->row[i + run] == row + run && !s->bad[row + run]) run++;
        struct dr_row_bins op = {
            .count = count + (size_t)i * BINS,
            .mass = mass + (size_t)i * BINS,
            .x = s->adjusted + (size_t)row * (size_t)s->n_col,
            .max = s->max + row,
            .prefix = s->prefix + row,
            .least = s->least + row,
            .n_row = run,
            .n = s->n_col,
            .shift = shift,
        };
        DR_TRY(s->ops->row_bins(&op, s->stream));
        i += run;
    }
    return dr_ok();
}

/* Sum over the ranks into s->sum, same form. */
static void add_bins(struct dr_sampler *s, const struct descent *d) {
    size_t cells = (size_t)d->n * BINS, bytes = (size_t)d->n * DR_SAMPLE_BINS_BYTES;
    uint32_t *count = (uint32_t *)(void *)s->sum;
    uint64_t *mass = (uint64_t *)(void *)(s->sum + cells * sizeof *count);
    memset(s->sum, 0, bytes);
    for (int32_t m = 0; m < dr_ledger_members(s->ledger, DR_GROUP_STAGE); m++) {
        const uint8_t *part = s->all + (size_t)m * bytes;
        for (size_t i = 0; i < cells; i++) {
            uint32_t c;
            uint64_t v;
            memcpy(&c, part + i * sizeof c, sizeof c);
            memcpy(&v, part + cells * sizeof c + i * sizeof v, sizeof v);
            count[i] += c;
            mass[i] += v;
        }
    }
}

/* How much must be kept: k values, or the share p of the mass that is left. */
static uint64_t wanted(const struct dr_sampler *s, const struct descent *d, int32_t i,
                       const uint64_t *value) {
    const struct dr_sample_want *want = &s->want[d->row[i]];
    uint64_t sum = 0;
    if (!d->by_mass) return (uint64_t)want->top_k;
    for (int b = 0; b < BINS; b++) sum += value[b];
    double share = ceil((double)want->top_p * (double)sum);
    return share < 1 ? 1 : share >= (double)sum ? sum : (uint64_t)share;
}

/* Chooses the bin, from the top, in which the wanted amount is reached. */
static void choose(struct dr_sampler *s, struct descent *d, int32_t i, int32_t round) {
    const uint32_t *count = (const uint32_t *)(const void *)s->sum + (size_t)i * BINS;
    const uint8_t *masses = s->sum + (size_t)d->n * BINS * sizeof *count;
    uint64_t value[BINS];
    for (size_t b = 0; b < BINS; b++) {
        if (d->by_mass)
            memcpy(&value[b], masses + ((size_t)i * BINS + b) * sizeof *value, sizeof *value);
        else
            value[b] = count[b];
    }
    if (round == 0) d->left[i] = wanted(s, d, i, value);
    uint64_t above = 0;
    int b = BINS - 1;
    while (b > 0 && above + value[b] < d->left[i]) above += value[b--];
    if (above + value[b] < d->left[i]) d->all[i] = true;
    d->left[i] -= above < d->left[i] ? above : d->left[i];
    s->prefix[d->row[i]] = s->prefix[d->row[i]] << 8 | (uint32_t)b;
}

static dr_status descend(struct dr_sampler *s, struct descent *d) {
    for (int32_t i = 0; i < d->n; i++) s->prefix[d->row[i]] = 0;
    for (int32_t round = 0; d->n > 0 && round < DR_SAMPLE_ROUNDS; round++) {
        int32_t index = (2 * s->batch + d->by_mass) * DR_SAMPLE_ROUNDS + round;
        DR_TRY(count_bins(s, d, 24 - 8 * round));
        DR_TRY(dr_sampler_share(s, DR_WHAT_SAMPLE_BINS, index, d->n, DR_SAMPLE_BINS_BYTES));
        add_bins(s, d);
        for (int32_t i = 0; i < d->n; i++) choose(s, d, i, round);
    }
    for (int32_t i = 0; i < d->n; i++) {
        int32_t row = d->row[i];
        if (!d->all[i] && s->prefix[row] > s->least[row]) s->least[row] = s->prefix[row];
    }
    return dr_ok();
}

dr_status dr_sampler_limit(struct dr_sampler *s) {
    struct descent k = {0}, p = {.by_mass = true};
    for (int32_t i = 0; i < s->n; i++) {
        if (s->want[i].draw && s->want[i].top_k_on) k.row[k.n++] = i;
        if (s->want[i].draw && s->want[i].top_p_on) p.row[p.n++] = i;
    }
    DR_TRY(descend(s, &k));
    return descend(s, &p);
}
