/* rows.c - the sampler ops that look along a row of logits.
 * In:   adjusted logits of the local columns.      Out: maxima, masses, bins, candidates.
 * Owns: nothing.
 * Why:  see ops.h; every answer joins over shards without rounding: maxima, integer sums, lowest ids. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "common/rng.h"
#include "kernels/exp.h"

static void max_rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_row_max *a = arg;
    (void)thread;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) {
        const float *x = a->x + r * (size_t)a->n;
        float most = -INFINITY;
        int32_t bad = 0;
        for (size_t i = 0; i < (size_t)a->n; i++) {
            most = x[i] > most ? x[i] : most;
            bad |= !(x[i] < INFINITY); /* true for NaN and for +inf */
        }
        a->max[r] = most;
        a->bad[r] = bad;
    }
}

dr_status dr_cpu_row_max(const struct dr_row_max *a, struct dr_stream *s) {
    struct dr_row_max args = *a;
    dr_team_for(s->team, a->n_row, 1, max_rows, &args);
    return dr_ok();
}

/* floor(2^40 e^(x - max)); 0 for NaN, which arises when max is infinite. At most 2^40 for x <= max. */
static inline uint64_t mass_of(float x, float max) {
    double e = (double)dr_exp(x - max) * 0x1p40;
    return e >= 0 ? (uint64_t)e : 0;
}

static void mass_rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_row_mass *a = arg;
    (void)thread;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) {
        const float *x = a->x + r * (size_t)a->n;
        uint64_t mass = 0;
        for (size_t i = 0; i < (size_t)a->n; i++)
            if (dr_float_key(x[i]) >= a->least[r]) mass += mass_of(x[i], a->max[r]);
        a->mass[r] = mass;
    }
}

dr_status dr_cpu_row_mass(const struct dr_row_mass *a, struct dr_stream *s) {
    struct dr_row_mass args = *a;
    dr_team_for(s->team, a->n_row, 1, mass_rows, &args);
    return dr_ok();
}

static void bins_rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    const struct dr_row_bins *a = arg;
    (void)thread;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) {
        const float *x = a->x + r * (size_t)a->n;
        uint32_t *count = a->count + r * 256;
        uint64_t *mass = a->mass + r * 256;
        memset(count, 0, 256 * sizeof *count);
        memset(mass, 0, 256 * sizeof *mass);
        for (size_t i = 0; i < (size_t)a->n; i++) {
            uint32_t key = dr_float_key(x[i]);
            if (key < a->least[r]) continue;
            if (a->shift < 24 && key >> (a->shift + 8) != a->prefix[r]) continue;
            uint32_t bin = key >> a->shift & 255;
            count[bin]++;
            mass[bin] += mass_of(x[i], a->max[r]);
        }
    }
}

dr_status dr_cpu_row_bins(const struct dr_row_bins *a, struct dr_stream *s) {
    struct dr_row_bins args = *a;
    DR_ASSERT(a->shift == 24 || a->shift == 16 || a->shift == 8 || a->shift == 0);
    dr_team_for(s->team, a->n_row, 1, bins_rows, &args);
    return dr_ok();
}

/* -inf is never picked, nor is NaN: neither is greater than the start. */
static void pick_row(const struct dr_row_pick *a, size_t r) {
    const struct dr_sample_row *w = a->rows + r;
    const float *x = a->x + r * (size_t)a->n;
    float best = -INFINITY;
    uint32_t id = UINT32_MAX;
    for (size_t i = 0; i < (size_t)a->n; i++) {
        if (dr_float_key(x[i]) < a->least[r] || x[i] == -INFINITY) continue;
        uint32_t absolute = (uint32_t)a->first + (uint32_t)i;
        float score = x[i];
        if (w->temperature > 0) /* only a Gumbel above best - x wins; before the first one everything may */
            score += dr_rng_gumbel_above(w->seed, w->position, absolute,
                                         best == -INFINITY ? 1 : dr_exp(x[i] - best));
        if (score > best) {
            best = score;
            id = absolute;
        }
    }
    a->score[r] = best;
    a->id[r] = id;
}

static void pick_rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    for (int64_t r = begin; r < end; r++) pick_row(arg, (size_t)r);
}

dr_status dr_cpu_row_pick(const struct dr_row_pick *a, struct dr_stream *s) {
    struct dr_row_pick args = *a;
    dr_team_for(s->team, a->n_row, 1, pick_rows, &args);
    return dr_ok();
}

/* Insertion into a sorted list; ids come in ascending order, so an equal value goes behind. */
static void top_row(const struct dr_row_top *a, size_t r) {
    const float *x = a->x + r * (size_t)a->n;
    size_t k = (size_t)a->k;
    float *value = a->value + r * k;
    uint32_t *id = a->id + r * k;
    for (size_t j = 0; j < k; j++) {
        value[j] = -INFINITY;
        id[j] = UINT32_MAX;
    }
    for (size_t i = 0; i < (size_t)a->n; i++) {
        if (!(x[i] > value[k - 1])) continue;
        size_t j = k - 1;
        for (; j > 0 && x[i] > value[j - 1]; j--) {
            value[j] = value[j - 1];
            id[j] = id[j - 1];
        }
        value[j] = x[i];
        id[j] = (uint32_t)a->first + (uint32_t)i;
    }
}

static void top_rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    for (int64_t r = begin; r < end; r++) top_row(arg, (size_t)r);
}

dr_status dr_cpu_row_top(const struct dr_row_top *a, struct dr_stream *s) {
    struct dr_row_top args = *a;
    if (a->k == 0) return dr_ok();
    dr_team_for(s->team, a->n_row, 1, top_rows, &args);
    return dr_ok();
}
