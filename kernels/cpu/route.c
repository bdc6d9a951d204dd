/* route.c - the choice of experts.
 * In:   router logits.      Out: experts and weights of each token.
 * Owns: nothing.
 * Why:  see ops.h; three routers differ in score, group score and renormalisation only. */
#include "kernels/cpu/cpu.h"

#include <math.h>

#include "kernels/exp.h"

enum { EXPERTS_MAX = 4096 };

/* score: what weighs.  choice: what selects (biased; -inf where it may not be chosen; NaN never wins). */
static void make_scores(const struct dr_route *a, const float *logits, float *score, float *choice) {
    int32_t n = a->n_expert;
    if (a->kind == DR_ROUTE_SIGMOID_NOAUX) {
        for (int32_t e = 0; e < n; e++) score[e] = dr_sigmoid(logits[e]);
    } else {
        float most = -INFINITY;
        double sum = 0;
        for (int32_t e = 0; e < n; e++) most = logits[e] > most ? logits[e] : most;
        for (int32_t e = 0; e < n; e++) score[e] = dr_exp(logits[e] - most);
        for (int32_t e = 0; e < n; e++) sum += (double)score[e];
        for (int32_t e = 0; e < n; e++) score[e] = (float)((double)score[e] / sum);
    }
    for (int32_t e = 0; e < n; e++) {
        float v = a->bias ? score[e] + a->bias[e] : score[e];
        choice[e] = v == v ? v : -INFINITY;
    }
}

/* Marks the n_take largest of v[0..n), lowest index first among equals. */
static void take_largest(const float *v, int32_t n, int32_t n_take, bool *taken) {
    for (int32_t i = 0; i < n; i++) taken[i] = false;
    for (int32_t k = 0; k < n_take; k++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++)
            if (!taken[i] && (best < 0 || v[i] > v[best])) best = i;
        taken[best] = true;
    }
}

/* Sum of the two best choices (sigmoid router), or the best one (softmax router). */
static float group_score(const float *choice, int32_t n, bool two) {
    float first = -INFINITY, second = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second)
            second = choice[i];
    }
    return two && n > 1 ? first + second : first;
}

static void mask_groups(const struct dr_route *a, float *choice) {
    float score[EXPERTS_MAX];
    bool kept[EXPERTS_MAX];
    int32_t size = a->n_expert / a->n_group;
    for (int32_t g = 0; g < a->n_group; g++)
        score[g] = group_score(choice + g * size, size, a->kind == DR_ROUTE_SIGMOID_NOAUX);
    take_largest(score, a->n_group, a->n_group_active, kept);
    for (int32_t e = 0; e < a->n_expert; e++)
        if (!kept[e / size]) choice[e] = -INFINITY;
}

static void route_row(const struct dr_route *a, size_t t) {
    float score[EXPERTS_MAX], choice[EXPERTS_MAX];
    bool taken[EXPERTS_MAX];
    int32_t *expert = a->expert + t * (size_t)a->n_active;
    float *weight = a->weight + t * (size_t)a->n_active;
    make_scores(a, a->logits + t * (size_t)a->n_expert, score, choice);
    if (a->kind != DR_ROUTE_SOFTMAX_GREEDY && a->n_group > 1) mask_groups(a, choice);
    take_largest(choice, a->n_expert, a->n_active, taken);
    double sum = 0;
    for (int32_t e = 0, k = 0; e < a->n_expert; e++) {
        if (!taken[e]) continue;
        expert[k] = e;
        weight[k++] = score[e];
        sum += (double)score[e];
    }
    for (int32_t k = 0; k < a->n_active; k++) {
        if (a->norm_topk) weight[k] = (float)((double)weight[k] / (sum + 1e-20));
        weight[k] *= a->scale;
    }
}

static void rows(void *arg, int64_t begin, int64_t end, int32_t thread) {
    (void)thread;
    for (size_t t = (size_t)begin; t < (size_t)end; t++) route_row(arg, t);
}

dr_status dr_cpu_route(const struct dr_route *a, struct dr_stream *s) {
    struct dr_route args = *a;
    DR_ASSERT(a->n_expert <= EXPERTS_MAX && a->n_active <= a->n_expert);
    DR_ASSERT(a->kind == DR_ROUTE_SOFTMAX_GREEDY || a->n_group <= 1 ||
              (a->n_expert % a->n_group == 0 && a->n_group_active <= a->n_group));
    dr_team_for(s->team, a->n_tok, 4, rows, &args);
    return dr_ok();
}
