/* pace.c - see pace.h.
 * In:   shapes, times.      Out: nanoseconds.
 * Owns: nothing.
 * Why:  see pace.h. */
#include "coordinator/plan/pace.h"

enum { FIXED_ROWS = 8 }; /* reading all active weights costs about as much as computing this many rows */

static const double PRIOR_NS = 0.5;      /* a multiply-add of one rank: 2 G/s */
static const double PRIOR_BYTE_NS = 1.0; /* 1 GB/s */
static const double PRIOR_CALL_NS = 1e5;
static const double LONGEST_NS = 3600e9; /* an hour: nothing above is a prediction */

void dr_pace_init(struct dr_pace *p, const struct dr_config *c, const struct dr_layout *l) {
    double qk = (double)c->n_head * (c->nope_dim + c->rope_dim);
    double q = c->q_lora > 0 ? (double)c->dim * c->q_lora + c->q_lora * qk : c->dim * qk;
    double attention = q + (double)c->dim * (c->kv_lora + c->rope_dim) +
                       (double)c->n_head * (c->nope_dim + c->v_dim) * c->kv_lora +
                       (double)c->n_head * c->v_dim * c->dim;
    double work = 0;
    int32_t n_layer = c->n_layer + (l->mtp ? c->n_mtp : 0);
    for (int32_t i = 0; i < n_layer; i++) {
        double mlp =
            dr_config_is_moe(c, i) ? (double)c->expert_dim * (c->n_active + c->n_shared) : (double)c->mlp_dim;
        work += attention + 3.0 * c->dim * mlp;
    }
    *p = (struct dr_pace){
        .config = c,
        .layout = l,
        .row_work = work + (double)c->vocab * c->dim,
        .past_work = (double)n_layer * c->n_head * (2.0 * c->kv_lora + c->rope_dim),
    };
}

double dr_pace_work(const struct dr_pace *p, const struct dr_step_shape *shape) {
    double work = FIXED_ROWS * p->row_work;
    for (int32_t i = 0; i < shape->n_segment; i++) {
        const struct dr_shape_segment *s = &shape->segment[i];
        work += s->n_rows * (p->row_work + p->past_work * (s->first + s->n_rows / 2.0));
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
