/* worker_rig.c - see worker_rig.h.
 * In:   plans.      Out: results.
 * Owns: see worker_rig.h.
 * Why:  see worker_rig.h. */

#include "tests/support/worker_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "model/workspace.h"
#include "proto/plan_shape.h"

static void break_groups(struct rig *r) {
    for (int32_t i = 0; i < r->layout.n_rank; i++) {
        struct rig_rank *k = &r->rank[i];
        if (k->stage) dr_group_loop_break(k->stage);
        if (k->cache) dr_group_loop_break(k->cache);
        if (k->pipe) dr_group_loop_break(k->pipe);
    }
}

static void keep(struct rig_rank *k, dr_status st) {
    k->st = st;
    if (st.code != DR_OK) {
        (void)snprintf(k->text, sizeof k->text, "%s", dr_error_text());
        break_groups(k->rig); /* the others would wait for this rank */
    }
}

static void *run(void *arg) {
    struct rig_rank *k = arg;
    struct rig *r = k->rig;
    uint64_t seen = 0;
    for (;;) {
        (void)pthread_mutex_lock(&r->lock);
        while (r->turn == seen && !r->leave) (void)pthread_cond_wait(&r->go, &r->lock);
        bool leave = r->leave;
        seen = r->turn;
        (void)pthread_mutex_unlock(&r->lock);
        if (leave) return NULL;
        keep(k, dr_worker_step(k->worker, r->plan, r->deadline_ns, r->sink, r->sink_arg, &k->out));
        (void)pthread_mutex_lock(&r->lock);
        if (++r->n_done == r->n_thread) (void)pthread_cond_signal(&r->done);
        (void)pthread_mutex_unlock(&r->lock);
    }
}

static dr_status make_group(struct rig *r, int32_t n, int32_t first, int32_t stride, size_t bytes,
                            size_t member_offset) {
    struct dr_group *g[RIG_RANKS_MAX];
    if (n == 1) return dr_ok();
    DR_TRY(dr_group_loop_create(n, bytes, g));
    for (int32_t m = 0; m < n; m++)
        *(struct dr_group **)(void *)((uint8_t *)&r->rank[first + m * stride] + member_offset) = g[m];
    return dr_ok();
}

static dr_status make_groups(struct rig *r) {
    const struct dr_layout *l = &r->layout;
    size_t bytes = 0;
    for (int32_t i = 0; i < l->n_rank; i++) {
        size_t b = dr_workspace_collective_bytes(&r->config, l, i);
        bytes = b > bytes ? b : bytes;
    }
    for (int32_t s = 0; s < l->pp; s++)
        DR_TRY(make_group(r, l->tp, s * l->tp, 1, bytes, offsetof(struct rig_rank, stage)));
    for (int32_t first = 0; first < l->n_rank; first += l->c)
        DR_TRY(make_group(r, l->c, first, 1, bytes, offsetof(struct rig_rank, cache)));
    for (int32_t t = 0; t < l->tp; t++)
        DR_TRY(make_group(r, l->pp, t, l->tp, bytes, offsetof(struct rig_rank, pipe)));
    return dr_ok();
}

static dr_status make_rank(struct rig *r, struct rig_rank *k) {
    DR_TRY(dr_team_create(1, &k->team));
    k->stream.team = k->team;
    struct dr_worker_params p = {
        .config = &r->config,
        .tensors = r->tensors,
        .layout = &r->layout,
        .rank = k->rank,
        .ops = r->ops,
        .stream = &k->stream,
        .stage = k->stage,
        .cache = k->cache,
        .pipe = k->pipe,
        .n_reader = 2,
    };
    DR_TRY(dr_worker_create(&p, &k->worker));
    return dr_worker_load(k->worker, NULL, NULL);
}

struct rig_kernels rig_kernels;

static dr_status make(struct rig *r, const char *dir, const struct dr_layout_wish *wish) {
    struct dr_layout_wish wished = *wish;
    if (rig_kernels.ops)
        r->ops = rig_kernels.ops;
    else
        DR_TRY(dr_ops_cpu(&r->ops));
    wished.weights = rig_kernels.weights;
    DR_TRY(dr_config_load(dir, &r->config));
    DR_TRY(dr_tensors_open(dir, &r->config, &r->tensors));
    DR_TRY(dr_layout_make(&r->config, &wished, &r->layout));
    if (r->layout.n_rank > RIG_RANKS_MAX) return dr_fail(DR_EINVAL, "the rig has %d ranks", RIG_RANKS_MAX);
    DR_TRY(make_groups(r));
    for (int32_t i = 0; i < r->layout.n_rank; i++) {
        r->rank[i].rig = r;
        r->rank[i].rank = i;
        DR_TRY(make_rank(r, &r->rank[i]));
    }
    for (int32_t i = 0; i < r->layout.n_rank; i++) {
        if (pthread_create(&r->rank[i].thread, NULL, run, &r->rank[i]) != 0)
            return dr_fail(DR_EFULL, "no thread");
        r->n_thread++;
    }
    return dr_ok();
}

dr_status rig_init(struct rig *r, const char *dir, const struct dr_layout_wish *wish) {
    *r = (struct rig){.step = 1};
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->go, NULL);
    (void)pthread_cond_init(&r->done, NULL);
    dr_status st = make(r, dir, wish);
    if (st.code != DR_OK) rig_fini(r);
    return st;
}

void rig_fini(struct rig *r) {
    (void)pthread_mutex_lock(&r->lock);
    r->leave = true;
    (void)pthread_cond_broadcast(&r->go);
    (void)pthread_mutex_unlock(&r->lock);
    for (int32_t i = 0; i < r->n_thread; i++) (void)pthread_join(r->rank[i].thread, NULL);
    for (int32_t i = 0; i < RIG_RANKS_MAX; i++) {
        struct rig_rank *k = &r->rank[i];
        dr_worker_destroy(k->worker);
        dr_group_destroy(k->stage);
        dr_group_destroy(k->cache);
        dr_group_destroy(k->pipe);
        if (k->team) dr_team_destroy(k->team);
    }
    if (r->tensors) dr_tensors_destroy(r->tensors);
    (void)pthread_mutex_destroy(&r->lock);
    (void)pthread_cond_destroy(&r->go);
    (void)pthread_cond_destroy(&r->done);
    memset(r, 0, sizeof *r);
}

dr_status rig_step_as_is(struct rig *r, const struct dr_step_plan *plan) {
    (void)pthread_mutex_lock(&r->lock);
    r->plan = plan;
    r->deadline_ns = dr_clock_ns() + 300000000000u; /* a stopped process is no failure */
    r->n_done = 0;
    r->turn++;
    (void)pthread_cond_broadcast(&r->go);
    while (r->n_done < r->n_thread) (void)pthread_cond_wait(&r->done, &r->lock);
    (void)pthread_mutex_unlock(&r->lock);
    dr_status first = dr_ok();
    for (int32_t i = 0; i < r->n_thread; i++) {
        const struct rig_rank *k = &r->rank[i];
        if (k->st.code == DR_OK) continue;
        /* a rank that only heard of the failure says that its group is broken: prefer the one that caused it
         */
        if (first.code == DR_OK || (first.code == DR_EPEER && k->st.code != DR_EPEER))
            first = dr_fail(k->st.code, "%s", k->text);
    }
    return first;
}

dr_status rig_step(struct rig *r, struct dr_step_plan *plan) {
    static _Thread_local struct dr_shape_segment segment[DR_SEGMENTS_MAX];
    static _Thread_local struct dr_sampling sampling[DR_SEQS_MAX];
    struct dr_step_shape shape;
    memcpy(sampling, dr_worker_sampling(r->rank[0].worker), (size_t)r->layout.seqs_max * sizeof *sampling);
    for (int32_t i = 0; i < plan->n_open; i++) sampling[plan->open[i].slot] = plan->open[i].sampling;
    dr_plan_shape(plan, sampling, segment, &shape);
    plan->epoch = 7;
    plan->step = r->step++;
    plan->schedule_hash = dr_schedule_hash(&r->config, &r->layout, &shape);
    return rig_step_as_is(r, plan);
}

const struct dr_step_result *rig_result(const struct rig *r) {
    return &r->rank[r->layout.n_rank - r->layout.tp].out.result;
}

struct dr_layout_wish rig_wish(int32_t tp, int32_t pp, int32_t c, enum dr_expert_cut experts) {
    return (struct dr_layout_wish){
        .tp = tp,
        .pp = pp,
        .cache_width = c,
        .experts = experts,
        .exchange = DR_EXCHANGE_LATENT,
        .cache_type = DR_CACHE_F32,
        .context = 256,
        .seqs_max = 4,
        .step_tokens = 160,
    };
}
