/* sampler.c - see sampler.h.
 * In:   logits.      Out: tokens.
 * Owns: nothing.
 * Why:  see sampler.h. */

#include "worker/sampler/sampler.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/exp.h"
#include "worker/sampler/limits.h"

struct max_entry {
    float raw, adjusted;
    int32_t bad;
};
struct pick_entry {
    float score;
    uint32_t id;
    float raw; /* raw logit of id */
};
static_assert(sizeof(struct max_entry) == DR_SAMPLE_MAX_BYTES &&
                  sizeof(struct pick_entry) == DR_SAMPLE_PICK_BYTES &&
                  sizeof(struct dr_top) == DR_SAMPLE_TOP_BYTES,
              "model/schedule counts these bytes");

dr_status dr_sampler_share(struct dr_sampler *s, enum dr_call_what what, int32_t index, int32_t rows,
                           size_t row_bytes) {
    size_t bytes[DR_GROUP_MEMBERS_MAX], at[DR_GROUP_MEMBERS_MAX];
    struct dr_call_name name = {.what = what, .layer = -1, .index = index};
    if (rows == 0) return dr_ok();
    for (int32_t m = 0; m < dr_ledger_members(s->ledger, DR_GROUP_STAGE); m++) {
        bytes[m] = (size_t)rows * row_bytes;
        at[m] = (size_t)m * bytes[m];
    }
    return dr_ledger_allgatherv(s->ledger, DR_GROUP_STAGE, name, s->in, s->all, bytes, at);
}

static int32_t members(const struct dr_sampler *s) {
    return dr_ledger_members(s->ledger, DR_GROUP_STAGE);
}

/* Length of the run of rows from `from` on for which an op is called: rows that draw (or that are scored), or
 * any rows. */
static int32_t run_of_draws(const struct dr_sampler *s, int32_t from) {
    int32_t n = 0;
    while (from + n < s->n && s->want[from + n].draw) n++;
    return n;
}

static dr_status adjust(struct dr_sampler *s) {
    for (int32_t i = 0; i < s->n; i++) {
        int32_t n = run_of_draws(s, i);
        struct dr_logit_adjust op = {
            .adjusted = s->adjusted + (size_t)i * (size_t)s->n_col,
            .logits = s->logits + (size_t)i * (size_t)s->n_col,
            .rows = s->row + i,
            .n_row = n,
            .n = s->n_col,
            .first = s->first,
        };
        DR_TRY(s->ops->logit_adjust(&op, s->stream));
        i += n;
    }
    return dr_ok();
}

/* Largest raw and adjusted logit of the whole vocabulary; rows that are no numbers. */
static dr_status maxima(struct dr_sampler *s) {
    float raw[DR_OUT_BATCH], adjusted[DR_OUT_BATCH] = {0};
    int32_t raw_bad[DR_OUT_BATCH], adjusted_bad[DR_OUT_BATCH] = {0};
    struct dr_row_max op = {.max = raw, .bad = raw_bad, .x = s->logits, .n_row = s->n, .n = s->n_col};
    DR_TRY(s->ops->row_max(&op, s->stream));
    for (int32_t i = 0; i < s->n; i++) {
        int32_t n = run_of_draws(s, i);
        struct dr_row_max of_adjusted = {
            .max = adjusted + i,
            .bad = adjusted_bad + i,
            .x = s->adjusted + (size_t)i * (size_t)s->n_col,
            .n_row = n,
            .n = s->n_col,
        };
        DR_TRY(s->ops->row_max(&of_adjusted, s->stream));
        i += n;
    }
    for (int32_t i = 0; i < s->n; i++) {
        struct max_entry e = {.raw = raw[i], .adjusted = adjusted[i], .bad = raw_bad[i] || adjusted_bad[i]};
        memcpy(s->in + (size_t)i * sizeof e, &e, sizeof e);
    }
    DR_TRY(dr_sampler_share(s, DR_WHAT_SAMPLE_MAX, s->batch, s->n, sizeof(struct max_entry)));
    for (int32_t i = 0; i < s->n; i++) {
        s->raw_max[i] = s->max[i] = -INFINITY;
        s->bad[i] = false;
        for (int32_t m = 0; m < members(s); m++) {
            struct max_entry e;
            memcpy(&e, s->all + ((size_t)m * (size_t)s->n + (size_t)i) * sizeof e, sizeof e);
            if (e.raw > s->raw_max[i]) s->raw_max[i] = e.raw;
            if (e.adjusted > s->max[i]) s->max[i] = e.adjusted;
            s->bad[i] |= e.bad != 0;
        }
        s->bad[i] |= s->raw_max[i] == -INFINITY || (s->want[i].draw && s->max[i] == -INFINITY);
    }
    return dr_ok();
}

/* Mass of the raw logits of the rows that ask for log-probabilities. */
static dr_status masses(struct dr_sampler *s) {
    static const uint32_t none[DR_OUT_BATCH];
    int32_t asked[DR_OUT_BATCH], n = 0;
    uint64_t own;
    for (int32_t i = 0; i < s->n; i++)
        if (s->want[i].n_top >= 0) asked[n++] = i;
    memset(s->in, 0, (size_t)n * sizeof own);
    for (int32_t k = 0; k < n;) {
        int32_t run = 0, row = asked[k];
        while (k + run < n && asked[k + run] == row + run && !s->bad[row + run]) run++;
        struct dr_row_mass op = {
            .mass = s->mass + row,
            .x = s->logits + (size_t)row * (size_t)s->n_col,
            .max = s->raw_max + row,
            .least = none,
            .n_row = run,
            .n = s->n_col,
        };
        DR_TRY(s->ops->row_mass(&op, s->stream));
        memcpy(s->in + (size_t)k * sizeof own, s->mass + row, (size_t)run * sizeof own);
        k += run ? run : 1;
    }
    DR_TRY(dr_sampler_share(s, DR_WHAT_SAMPLE_MASS, s->batch, n, sizeof own));
    for (int32_t k = 0; k < n; k++) {
        s->mass[asked[k]] = 0;
        for (int32_t m = 0; m < members(s); m++) {
            memcpy(&own, s->all + ((size_t)m * (size_t)n + (size_t)k) * sizeof own, sizeof own);
            s->mass[asked[k]] += own;
        }
    }
    return dr_ok();
}

/* Threshold of min-p: a token stays when exp(x - max) >= min_p. */
static void min_p(struct dr_sampler *s) {
    for (int32_t i = 0; i < s->n; i++) {
        const struct dr_sample_want *w = &s->want[i];
        s->least[i] = 0;
        if (w->draw && w->row.temperature > 0 && w->min_p > 0 && !s->bad[i])
            s->least[i] = dr_float_key(s->max[i] + dr_ln(w->min_p));
    }
}

static float raw_at(const struct dr_sampler *s, int32_t row, uint32_t id) {
    return s->logits[(size_t)row * (size_t)s->n_col + (id - (uint32_t)s->first)];
}

/* This rank's candidates: the best drawn one, or the target if it is here. */
static dr_status candidates(struct dr_sampler *s, struct pick_entry *out) {
    float score[DR_OUT_BATCH];
    uint32_t id[DR_OUT_BATCH];
    for (int32_t i = 0; i < s->n; i++) {
        int32_t n = run_of_draws(s, i);
        struct dr_row_pick op = {
            .score = score + i,
            .id = id + i,
            .x = s->adjusted + (size_t)i * (size_t)s->n_col,
            .least = s->least + i,
            .rows = s->row + i,
            .n_row = n,
            .n = s->n_col,
            .first = s->first,
        };
        DR_TRY(s->ops->row_pick(&op, s->stream));
        i += n;
    }
    for (int32_t i = 0; i < s->n; i++) {
        uint32_t target = s->want[i].target;
        out[i] = (struct pick_entry){.score = -INFINITY, .id = UINT32_MAX};
        if (s->bad[i]) continue;
        if (s->want[i].draw && id[i] != UINT32_MAX && score[i] > -INFINITY)
            out[i] = (struct pick_entry){.score = score[i], .id = id[i], .raw = raw_at(s, i, id[i])};
        if (!s->want[i].draw && target >= (uint32_t)s->first &&
            target - (uint32_t)s->first < (uint32_t)s->n_col)
            out[i] = (struct pick_entry){.score = 0, .id = target, .raw = raw_at(s, i, target)};
    }
    return dr_ok();
}

/* x - max - ln(sum of exp), the sum in units of 2^-40. */
static float logprob(const struct dr_sampler *s, int32_t row, float x) {
    return x - s->raw_max[row] - dr_ln((float)((double)s->mass[row] * 0x1p-40));
}

static dr_status pick(struct dr_sampler *s, struct dr_sample_got *got) {
    struct pick_entry own[DR_OUT_BATCH];
    DR_TRY(candidates(s, own));
    memcpy(s->in, own, (size_t)s->n * sizeof *own);
    DR_TRY(dr_sampler_share(s, DR_WHAT_SAMPLE_PICK, s->batch, s->n, sizeof *own));
    for (int32_t i = 0; i < s->n; i++) {
        struct pick_entry best = {.score = -INFINITY, .id = UINT32_MAX}, e;
        for (int32_t m = 0; m < members(s); m++) {
            memcpy(&e, s->all + ((size_t)m * (size_t)s->n + (size_t)i) * sizeof e, sizeof e);
            if (e.id != UINT32_MAX &&
                (best.id == UINT32_MAX || e.score > best.score || (e.score == best.score && e.id < best.id)))
                best = e;
        }
        got[i].bad = s->bad[i] || (s->want[i].draw && best.id == UINT32_MAX);
        got[i].id = best.id;
        got[i].logprob = s->want[i].n_top >= 0 && best.id != UINT32_MAX ? logprob(s, i, best.raw) : 0;
    }
    return dr_ok();
}

static bool above(const struct dr_top *a, const struct dr_top *b) {
    return a->logprob > b->logprob || (a->logprob == b->logprob && a->id < b->id);
}

/* The k best of the members' lists, each of which is sorted. all: member m's list at m * stride bytes. */
static int32_t merge_top(const struct dr_sampler *s, int32_t row, const uint8_t *all, size_t stride,
                         int32_t k, struct dr_top *out) {
    int32_t at[DR_GROUP_MEMBERS_MAX] = {0}, n = 0;
    while (n < k) {
        int32_t from = -1;
        struct dr_top best = {.id = UINT32_MAX, .logprob = -INFINITY}, e;
        for (int32_t m = 0; m < members(s); m++) {
            if (at[m] == k) continue;
            memcpy(&e, all + (size_t)m * stride + (size_t)at[m] * sizeof e, sizeof e);
            if (e.id == UINT32_MAX || (from >= 0 && !above(&e, &best))) continue;
            best = e;
            from = m;
        }
        if (from < 0) break;
        at[from]++;
        out[n++] = (struct dr_top){.id = best.id, .logprob = logprob(s, row, best.logprob)};
    }
    return n;
}

/* The likeliest tokens of the rows that ask; entries travel with the raw logit in place of the
 * log-probability. */
static dr_status alternatives(struct dr_sampler *s, struct dr_sample_got *got) {
    struct dr_top *own = (struct dr_top *)(void *)s->in;
    int32_t sum = 0;
    for (int32_t i = 0; i < s->n; i++) {
        int32_t k = s->want[i].n_top;
        float value[DR_TOP_MAX];
        uint32_t id[DR_TOP_MAX];
        if (k <= 0) continue;
        struct dr_row_top op = {
            .value = value,
            .id = id,
            .x = s->logits + (size_t)i * (size_t)s->n_col,
            .n_row = 1,
            .n = s->n_col,
            .first = s->first,
            .k = k,
        };
        if (!s->bad[i]) DR_TRY(s->ops->row_top(&op, s->stream));
        for (int32_t j = 0; j < k; j++)
            own[sum + j] = s->bad[i] ? (struct dr_top){.id = UINT32_MAX}
                                     : (struct dr_top){.id = id[j], .logprob = value[j]};
        sum += k;
    }
    DR_TRY(dr_sampler_share(s, DR_WHAT_SAMPLE_TOP, s->batch, sum, sizeof *own));
    size_t stride = (size_t)sum * sizeof *own;
    sum = 0;
    for (int32_t i = 0; i < s->n; i++) {
        got[i].n_top = s->want[i].n_top > 0 ? merge_top(s, i, s->all + (size_t)sum * sizeof *own, stride,
                                                        s->want[i].n_top, got[i].top)
                                            : 0;
        sum += s->want[i].n_top > 0 ? s->want[i].n_top : 0;
    }
    return dr_ok();
}

dr_status dr_sampler_run(struct dr_sampler *s, int32_t batch, const struct dr_sample_want *want, int32_t n,
                         const float *logits, struct dr_sample_got *got) {
    DR_ASSERT(n >= 0 && n <= DR_OUT_BATCH);
    s->n = n;
    s->batch = batch;
    s->want = want;
    s->logits = logits;
    for (int32_t i = 0; i < n; i++) s->row[i] = want[i].row;
    DR_TRY(adjust(s));
    DR_TRY(maxima(s));
    DR_TRY(masses(s));
    min_p(s);
    DR_TRY(dr_sampler_limit(s));
    DR_TRY(pick(s, got));
    return alternatives(s, got);
}
