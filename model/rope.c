/* rope.c - angles of the rotation and the scale of the softmax.
 * In:   the RoPE numbers of the config.      Out: frequencies, scale, gain, in f64.
 * Owns: nothing.
 * Why:  YaRN (arXiv 2309.00071, sections 3.2 to 3.4) changes three things; all three are in this file. */
#include <math.h>

#include "model/config.h"

static const double pi = 3.14159265358979323846;

/* The pair index (a real number) whose wave turns `turns` times within the original context. */
static double pair_of_turns(const struct dr_config *c, double turns) {
    return c->rope_dim * log(c->yarn_positions / (turns * 2 * pi)) / (2 * log(c->rope_theta));
}

void dr_config_rope_freq(const struct dr_config *c, double *w) {
    double lo = 0, hi = 0;
    if (c->yarn) {
        lo = fmax(floor(pair_of_turns(c, c->yarn_beta_fast)), 0);
        hi = fmin(ceil(pair_of_turns(c, c->yarn_beta_slow)), c->rope_dim - 1);
        if (lo == hi) hi += 0.001; /* as in the published code: the ramp must not divide by zero */
    }
    for (int32_t i = 0; i < c->rope_dim / 2; i++) {
        double exact = pow(c->rope_theta, -2.0 * i / c->rope_dim);
        double ramp = c->yarn ? fmin(fmax((i - lo) / (hi - lo), 0), 1) : 0; /* 0: kept, 1: interpolated */
        w[i] = c->yarn ? exact * (1 - ramp) + exact / c->yarn_factor * ramp : exact;
    }
}

/* Growth of the attention's temperature with the context (section 3.4 of the paper). */
static double growth(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

double dr_config_softmax_scale(const struct dr_config *c) {
    double m = c->yarn && c->yarn_mscale_all != 0 ? growth(c->yarn_factor, c->yarn_mscale_all) : 1;
    return m * m / sqrt((double)dr_config_qk_dim(c));
}

double dr_config_rope_gain(const struct dr_config *c) {
    if (!c->yarn) return 1;
    return growth(c->yarn_factor, c->yarn_mscale) / growth(c->yarn_factor, c->yarn_mscale_all);
}
