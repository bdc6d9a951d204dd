/* pace.c - see pace.h.
 * In:   shapes, times.      Out: nanoseconds.
 * Owns: nothing.
 * Why:  see pace.h. */
#include "coordinator/plan/pace.h"

#include <math.h>

#include "model/cost.h"

enum { FIXED_ROWS = 8 }; /* reading all active weights costs about as much as computing this many rows */

static const double PRIOR_NS = 0.5;      /* a multiply-add of one rank: 2 G/s */
static const double PRIOR_BYTE_NS = 1.0; /* 1 GB/s */
static const double PRIOR_CALL_NS = 1e5;
static const double LONGEST_NS = 3600e9; /* an hour: nothing above is a prediction */

void dr_pace_init(struct dr_pace *p, const struct dr_config *c, const struct dr_layout *l) {
    const int32_t n_layer = c->n_layer + (l->mtp ? c->n_mtp : 0);
    *p = (struct dr_pace){
        .config = c,
        .layout = l,
        .row_work = dr_cost_layers_madd(c, 0, n_layer) + dr_cost_head_madd(c),
        .absorbed = n_layer * dr_cost_absorbed_flop(c) / 2,
        .expanded = n_layer * dr_cost_expanded_flop(c) / 2,
        .key = n_layer * dr_cost_expansion_flop(c) / 2,
    };
}

double dr_pace_fixed(const struct dr_pace *p) {
    return FIXED_ROWS * p->row_work;
}

double dr_pace_segment(const struct dr_pace *p, bool absorbed, int32_t first, int32_t n) {
    const double seen = n * (first + n / 2.0);
    return n * p->row_work + (absorbed ? seen * p->absorbed : seen * p->expanded + (first + n) * p->key);
}

int32_t dr_pace_rows(const struct dr_pace *p, bool absorbed, int32_t first, double work) {
    const double see = absorbed ? p->absorbed : p->expanded, key = absorbed ? 0 : p->key;
    /* see / 2 n^2 + b n = left */
    const double left = work - first * key, b = p->row_work + first * see + key;
    if (!(left > 0)) return 0;
    const double n = see > 0 ? (sqrt(b * b + 2 * see * left) - b) / see : left / b;
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

double dr_pace_even_rows(const struct dr_pace *p, int32_t first) {
    return first * p->key / (p->row_work + first * p->expanded + p->key);
}

double dr_pace_within(const struct dr_pace *p, uint64_t ns) {
    return p->mean > 0 ? (double)ns / p->mean : INFINITY;
}

double dr_pace_work(const struct dr_pace *p, const struct dr_step_shape *shape) {
    double work = dr_pace_fixed(p);
    for (int32_t i = 0; i < shape->n_segment; i++) {
        const struct dr_shape_segment *s = &shape->segment[i];
        work += dr_pace_segment(p, s->absorbed, s->first, s->n_rows);
    }
    return work;
}

void dr_pace_measured(struct dr_pace *p, double work, uint64_t ns) {
    double pace = (double)ns / work;
    if (p->mean == 0) {
        p->slow = p->mean = pace;
        return;
    }
    p->mean += (pace - p->mean) / 8;
    p->slow = pace > p->slow ? pace : p->slow + (pace - p->slow) / 64;
}

static double prior_ns(const struct dr_pace *p, const struct dr_step_shape *shape) {
    double ns = dr_pace_work(p, shape) * PRIOR_NS / p->layout->n_rank;
    for (int32_t stage = 0; stage < p->layout->pp; stage++) {
        uint64_t bytes = 0;
        int32_t calls = 0;
        dr_schedule_cost(p->config, p->layout, shape, stage, &bytes, &calls);
        ns += (double)bytes * PRIOR_BYTE_NS + calls * PRIOR_CALL_NS;
    }
    return ns;
}

static uint64_t clamp_ns(double ns) {
    return ns < LONGEST_NS ? (uint64_t)ns : (uint64_t)LONGEST_NS;
}

uint64_t dr_pace_expected_ns(const struct dr_pace *p, const struct dr_step_shape *shape) {
    return clamp_ns(p->mean > 0 ? p->mean * dr_pace_work(p, shape) : prior_ns(p, shape));
}

uint64_t dr_pace_longest_ns(const struct dr_pace *p, const struct dr_step_shape *shape) {
    return clamp_ns(p->slow > 0 ? p->slow * dr_pace_work(p, shape) : prior_ns(p, shape));
}
