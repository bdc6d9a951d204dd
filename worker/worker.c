/* worker.c - makes and ends a worker: memory by the footprint, weights by the loader.
 * In:   step.h's parameters.      Out: a worker that can step.
 * Owns: the blocks of weights, cache pages and step buffers.
 * Why:  everything is taken here, so that a step takes nothing. */

#include "worker/worker.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/block.h"
#include "worker/load/load.h"

static dr_status check_group(const char *name, const struct dr_group *g, int32_t n, int32_t me) {
    if (!g && n == 1) return dr_ok();
    if (g && g->n == n && g->me == me) return dr_ok();
    return dr_fail(DR_EINVAL, "group %s: member %d of %d, the layout says member %d of %d", name,
                   g ? g->me : 0, g ? g->n : 1, me, n);
}

static dr_status check(const struct dr_worker_params *p) {
    const struct dr_layout *l = p->layout;
    if (p->rank < 0 || p->rank >= l->n_rank)
        return dr_fail(DR_EINVAL, "rank %d, the layout has %d", p->rank, l->n_rank);
    struct dr_shard s = dr_layout_shard(p->config, l, p->rank);
    DR_TRY(check_group("stage", p->stage, l->tp, s.t));
    DR_TRY(check_group("cache", p->cache, l->c, s.member));
    return check_group("pipe", p->pipe, l->pp, s.stage);
}

static dr_status take(const char *what, size_t bytes, uint8_t **out) {
    dr_status st = dr_block_take(bytes, out);
    return st.code == DR_OK ? st : dr_fail_within(st, "%s", what);
}

static void give(uint8_t **block, size_t bytes) {
    dr_block_give(*block, bytes);
    *block = NULL;
}

static void init_slots(struct dr_worker *w) {
    const struct dr_layout *l = w->layout;
    w->slots.n = l->seqs_max;
    w->slots.vocab_first = w->shard.vocab.begin;
    w->slots.n_vocab = dr_range_len(w->shard.vocab);
    w->slots.last = w->shard.last;
    w->slots.mtp = w->layout->mtp;
    w->slots.vocab = w->config->vocab;
    w->slots.context = l->context;
    w->slots.step_tokens = l->step_tokens;
    w->slots.count_prompt = dr_worker_buffer(w, DR_BUF_COUNT_PROMPT);
    w->slots.count_output = dr_worker_buffer(w, DR_BUF_COUNT_OUTPUT);
    w->slots.bias_id = dr_worker_buffer(w, DR_BUF_BIAS_ID);
    w->slots.bias = dr_worker_buffer(w, DR_BUF_BIAS);
    w->slots.pages = (struct dr_page_tables){
        .entry = dr_worker_buffer(w, DR_BUF_PAGE_TABLE),
        .n_slot = l->seqs_max,
        .slot_pages = dr_ceil_div(l->context, l->page_tokens),
        .n_page = l->n_page,
        .page_tokens = l->page_tokens,
        .page_rows = l->page_rows,
        .c = l->c,
        .member = w->shard.member,
    };
    for (int32_t i = 0; i < l->seqs_max; i++) dr_pages_clear(&w->slots.pages, i);
}

static void init_sampler(struct dr_worker *w) {
    if (!w->sampler) return;
    *w->sampler = (struct dr_sampler){
        .ops = w->ops,
        .stream = w->stream,
        .ledger = &w->ledger,
        .first = w->shard.vocab.begin,
        .n_col = dr_range_len(w->shard.vocab),
        .adjusted = dr_worker_floats(w, DR_BUF_ADJUSTED),
        .in = dr_worker_buffer(w, DR_BUF_SAMPLE_IN),
        .sum = dr_worker_buffer(w, DR_BUF_SAMPLE_SUM),
        .all = dr_worker_buffer(w, DR_BUF_SAMPLE_ALL),
    };
}

/* The small tables that are not in a block. */
static dr_status take_tables(struct dr_worker *w) {
    size_t slots = (size_t)w->layout->seqs_max, pairs = (size_t)w->config->rope_dim / 2;
    w->n_holding = dr_footprint_list(w->config, w->tensors, w->layout, w->rank, NULL, 0);
    w->holding = calloc((size_t)w->n_holding + 1, sizeof *w->holding);
    w->rope_freq = calloc(pairs + 1, sizeof *w->rope_freq);
    w->slots.slot = calloc(slots, sizeof *w->slots.slot);
    w->slots.sampling = calloc(slots, sizeof *w->slots.sampling);
    if (w->shard.last) w->sampler = calloc(1, sizeof *w->sampler);
    if (!w->holding || !w->rope_freq || !w->slots.slot || !w->slots.sampling ||
        (w->shard.last && !w->sampler))
        return dr_fail(DR_EFULL, "no memory for the worker's tables");
    (void)dr_footprint_list(w->config, w->tensors, w->layout, w->rank, w->holding, w->n_holding);
    dr_config_rope_freq(w->config, w->rope_freq);
    return dr_ok();
}

static dr_status create(struct dr_worker *w) {
    DR_TRY(take_tables(w));
    dr_workspace_map(w->config, w->layout, w->rank, &w->map);
    w->footprint = dr_footprint_rank(w->config, w->tensors, w->layout, w->rank);
    w->weights_bytes = w->footprint.weights;
    w->pages_bytes =
        dr_footprint_page_bytes(w->config, w->layout, w->shard.stage) * (size_t)w->layout->n_page;
    DR_TRY(take("weights", w->weights_bytes, &w->weights));
    DR_TRY(take("cache pages", w->pages_bytes, &w->pages));
    DR_TRY(take("step buffers", w->map.bytes, &w->work));
    w->cache = dr_cache_make(w->config, w->layout, w->shard.stage, w->pages);
    init_slots(w);
    init_sampler(w);
    return dr_model_init(&w->model, w->config, w->layout, w->rank, w->holding, w->n_holding, w->weights);
}

dr_status dr_worker_create(const struct dr_worker_params *p, struct dr_worker **out) {
    DR_TRY(check(p));
    struct dr_worker *w = calloc(1, sizeof *w);
    if (!w) return dr_fail(DR_EFULL, "no memory for a worker");
    w->config = p->config;
    w->layout = p->layout;
    w->tensors = p->tensors;
    w->ops = p->ops;
    w->stream = p->stream;
    w->rank = p->rank;
    w->n_reader = p->n_reader;
    w->shard = dr_layout_shard(p->config, p->layout, p->rank);
    w->softmax_scale = (float)dr_config_softmax_scale(p->config);
    w->rope_gain = (float)dr_config_rope_gain(p->config);
    w->ledger.group[DR_GROUP_STAGE] = p->stage;
    w->ledger.group[DR_GROUP_CACHE] = p->cache;
    w->ledger.group[DR_GROUP_PIPE] = p->pipe;
    w->ledger.stream = p->stream;
    w->ledger.rank = p->rank;
    w->ledger.parts = &w->parts;
    for (int32_t m = 0; m < p->layout->c; m++)
        w->member_heads[m] = dr_layout_shard(p->config, p->layout, p->rank - w->shard.member + m).heads;
    dr_status st = create(w);
    if (st.code != DR_OK) {
        dr_worker_destroy(w);
        return st;
    }
    *out = w;
    return dr_ok();
}

void dr_worker_destroy(struct dr_worker *w) {
    if (!w) return;
    dr_model_fini(&w->model);
    give(&w->weights, w->weights_bytes);
    give(&w->pages, w->pages_bytes);
    give(&w->work, w->map.bytes);
    free(w->holding);
    free(w->rope_freq);
    free(w->slots.slot);
    free(w->slots.sampling);
    free(w->sampler);
    free(w);
}

dr_status dr_worker_load(struct dr_worker *w, dr_load_progress *progress, void *arg) {
    struct dr_load_params p = {
        .tensors = w->tensors,
        .list = w->holding,
        .n = w->n_holding,
        .n_reader = w->n_reader,
        .block = w->weights,
        .progress = progress,
        .arg = arg,
    };
    return dr_load(&p);
}

const struct dr_sampling *dr_worker_sampling(const struct dr_worker *w) {
    return w->slots.sampling;
}

struct dr_footprint dr_worker_footprint(const struct dr_worker *w) {
    return w->footprint;
}

void dr_worker_set_taps(struct dr_worker *w, struct dr_tap *taps, int32_t n) {
    w->taps = taps;
    w->n_tap = n;
}
