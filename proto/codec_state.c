/* codec_state.c - what the coordinator tells the gateway about the cluster: ClusterReady, Progress, Stats,
 * StepNews.
 * In:   structs or bodies.      Out: frames or checked structs.
 * Owns: nothing.
 * Why:  see codec.h. */
#include <assert.h>
#include <string.h>

#include "proto/codec_wire.h"
#include "v1/link.pb-c.h"

static_assert((int)DR_EXPERTS_WHOLE == (int)DR__V1__EXPERT_CUT__EXPERTS_WHOLE, "experts");
static_assert((int)DR_EXCHANGE_VALUE == (int)DR__V1__EXCHANGE__EXCHANGE_VALUE, "exchange");
static_assert((int)DR_CACHE_BF16 == (int)DR__V1__CACHE_TYPE__CACHE_BF16, "cache type");
static_assert((int)DR_CACHE_FP8 == (int)DR__V1__CACHE_TYPE__CACHE_FP8, "cache type");

static const struct dr_wire_rule layout_at[] = {
    [1] = {.least = 1, .most = DR_TP_MAX},
    [2] = {.least = 1, .most = DR_PP_MAX},
    [3] = {.least = 1, .most = DR_TP_MAX},
    [4] = {.least = 1, .most = DR_RANKS_MAX},
    [5] = {.most = DR_EXPERTS_WHOLE},
    [6] = {.most = DR_EXCHANGE_VALUE},
    [7] = {.most = DR_CACHE_FP8},
    [8] = DR_RULE_BOOL,
    [9] = {.least = 1, .most = 2 * DR_PAGE_TOKENS}, /* 64 rounded up to a multiple of c <= 64 */
    [10] = {.least = 1, .most = 2 * DR_PAGE_TOKENS},
    [11] = {.least = 1, .most = DR_POSITIONS_MAX},
    [12] = {.least = 1, .most = DR_SEQS_MAX},
    [13] = {.least = 1, .most = DR_STEP_TOKENS_MAX},
    [14] = {.least = 1, .most = INT32_MAX},
    [15] = {.most = DR_LAYERS_MAX, .count = DR_PP_MAX + 1},
    [16] = {.most = DR_WEIGHTS_INT8},
};
static const struct dr_wire_rules layout_rules = DR_WIRE_RULES(layout_at);

static const struct dr_wire_rule rank_at[] = {
    [1] = DR_RULE_RANK,          [2] = DR_RULE_COUNT,
    [3] = {.most = DR_HOST_MAX}, [4] = DR_RULE_ANY,
    [5] = DR_RULE_ANY,           [6] = DR_RULE_ANY,
    [7] = DR_RULE_ANY,           [8] = DR_RULE_ANY,
    [9] = {.most = DR_ISA_TEXT}, [10] = {.most = DR_INPUTS_TEXT},
};
static const struct dr_wire_rules rank_rules = DR_WIRE_RULES(rank_at);

static const struct dr_wire_rule cluster_at[] = {
    [1] = {.sub = &layout_rules},
    [2] = DR_RULE_ANY,
    [3] = {.count = DR_RANKS_MAX, .sub = &rank_rules},
};
static const struct dr_wire_rules cluster_rules = DR_WIRE_RULES(cluster_at);

static dr_status layout_put(const struct dr_layout *in, Dr__V1__Layout *m) {
    if (in->pp < 1 || in->pp > DR_PP_MAX)
        return dr_fail(DR_EPROTO, "Layout.pp: found %d, allowed 1..%d", in->pp, DR_PP_MAX);
    dr__v1__layout__init(m);
    dr_wire_present(&m->base);
    m->tp = in->tp;
    m->pp = in->pp;
    m->c = in->c;
    m->n_rank = in->n_rank;
    m->experts = (Dr__V1__ExpertCut)in->experts;
    m->exchange = (Dr__V1__Exchange)in->exchange;
    m->cache_type = (Dr__V1__CacheType)in->cache_type;
    m->weights = (Dr__V1__Weights)in->weights;
    m->mtp = in->mtp;
    m->page_tokens = in->page_tokens;
    m->page_rows = in->page_rows;
    m->context = in->context;
    m->seqs_max = in->seqs_max;
    m->step_tokens = in->step_tokens;
    m->n_page = in->n_page;
    m->n_layer_begin = (size_t)in->pp + 1;
    m->layer_begin = (int32_t *)in->layer_begin;
    return dr_ok();
}

/* What the walk over single fields cannot see. */
static dr_status cluster_sums(const Dr__V1__ClusterReady *m) {
    const Dr__V1__Layout *l = m->layout;
    if (l->n_rank != l->tp * l->pp)
        return dr_fail(DR_EPROTO, "Layout.n_rank: found %d, expected tp x pp = %d", l->n_rank, l->tp * l->pp);
    if (l->tp % l->c != 0)
        return dr_fail(DR_EPROTO, "Layout.c: found %d, expected a divisor of tp = %d", l->c, l->tp);
    if (l->page_tokens != l->page_rows * l->c)
        return dr_fail(DR_EPROTO, "Layout.page_tokens: found %d, expected page_rows x c = %d", l->page_tokens,
                       l->page_rows * l->c);
    DR_TRY(dr_wire_same("Layout", "layer_begin", l->n_layer_begin, (size_t)l->pp + 1));
    for (int32_t s = 0; s < l->pp; s++)
        if (l->layer_begin[s] > l->layer_begin[s + 1])
            return dr_fail(DR_EPROTO, "Layout.layer_begin: found %d before %d, expected them to ascend",
                           l->layer_begin[s], l->layer_begin[s + 1]);
    return dr_wire_same("ClusterReady", "rank", m->n_rank, (size_t)l->n_rank);
}

static dr_status cluster_pack(const struct dr_cluster_ready *in, uint64_t epoch, struct dr_arena *scratch,
                              uint8_t *out, size_t room, size_t *bytes) {
    void *list = NULL, *ranks = NULL;
    Dr__V1__ClusterReady m = DR__V1__CLUSTER_READY__INIT;
    Dr__V1__Layout layout;
    DR_TRY(layout_put(&in->layout, &layout));
    dr_wire_present(&m.base);
    m.layout = &layout;
    m.tensors_hash = in->tensors_hash;
    m.n_rank = (size_t)in->n_rank;
    DR_TRY(dr_wire_take(scratch, m.n_rank, sizeof(void *), DR_EFULL, "ClusterReady.rank", &list));
    DR_TRY(dr_wire_take(scratch, m.n_rank, sizeof(Dr__V1__RankState), DR_EFULL, "ClusterReady.rank", &ranks));
    m.rank = list;
    for (size_t i = 0; i < m.n_rank; i++) {
        const struct dr_rank_state *from = &in->rank[i];
        Dr__V1__RankState *to = m.rank[i] = (Dr__V1__RankState *)ranks + i;
        dr__v1__rank_state__init(to);
        dr_wire_present(&to->base);
        to->rank = from->rank;
        to->pid = from->pid;
        to->host = (char *)from->host;
        to->weights_bytes = from->weights_bytes;
        to->cache_bytes = from->cache_bytes;
        to->workspace_bytes = from->workspace_bytes;
        to->resident_bytes = from->resident_bytes;
        to->load_ns = from->load_ns;
        to->isa = (char *)from->arithmetic.isa;
        to->inputs = (char *)from->arithmetic.inputs;
    }
    DR_TRY(dr_wire_check(&m.base, &cluster_rules));
    DR_TRY(cluster_sums(&m));
    return dr_wire_pack(DR_MSG_CLUSTER_READY, epoch, &m.base, &cluster_rules, out, room, bytes);
}

dr_status dr_encode_cluster_ready(const struct dr_cluster_ready *in, uint64_t epoch, struct dr_arena *scratch,
                                  uint8_t *out, size_t room, size_t *bytes) {
    size_t mark = dr_arena_mark(scratch);
    dr_status st = cluster_pack(in, epoch, scratch, out, room, bytes);
    dr_arena_rewind(scratch, mark);
    return st;
}

static struct dr_layout layout_get(const Dr__V1__Layout *m) {
    struct dr_layout l = {
        .tp = m->tp,
        .pp = m->pp,
        .c = m->c,
        .n_rank = m->n_rank,
        .experts = (enum dr_expert_cut)m->experts,
        .exchange = (enum dr_exchange)m->exchange,
        .cache_type = (enum dr_cache_type)m->cache_type,
        .weights = (enum dr_weights)m->weights,
        .mtp = m->mtp != 0,
        .page_tokens = m->page_tokens,
        .page_rows = m->page_rows,
        .context = m->context,
        .seqs_max = m->seqs_max,
        .step_tokens = m->step_tokens,
        .n_page = m->n_page,
    };
    memcpy(l.layer_begin, m->layer_begin, m->n_layer_begin * sizeof l.layer_begin[0]);
    return l;
}

dr_status dr_decode_cluster_ready(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                                  struct dr_cluster_ready *out) {
    ProtobufCMessage *base = NULL;
    void *ranks = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__cluster_ready__descriptor, &cluster_rules, body, bytes, arena, &base));
    const Dr__V1__ClusterReady *m = (const Dr__V1__ClusterReady *)base;
    DR_TRY(cluster_sums(m));
    DR_TRY(
        dr_wire_take(arena, m->n_rank, sizeof(struct dr_rank_state), DR_EPROTO, "ClusterReady.rank", &ranks));
    for (size_t i = 0; i < m->n_rank; i++) {
        const Dr__V1__RankState *from = m->rank[i];
        struct dr_rank_state *to = (struct dr_rank_state *)ranks + i;
        *to = (struct dr_rank_state){
            .rank = from->rank,
            .pid = from->pid,
            .weights_bytes = from->weights_bytes,
            .cache_bytes = from->cache_bytes,
            .workspace_bytes = from->workspace_bytes,
            .resident_bytes = from->resident_bytes,
            .load_ns = from->load_ns,
        };
        dr_wire_text(to->host, sizeof to->host, from->host);
        dr_wire_text(to->arithmetic.isa, sizeof to->arithmetic.isa, from->isa);
        dr_wire_text(to->arithmetic.inputs, sizeof to->arithmetic.inputs, from->inputs);
    }
    *out = (struct dr_cluster_ready){
        .layout = layout_get(m->layout),
        .tensors_hash = m->tensors_hash,
        .n_rank = (int32_t)m->n_rank,
        .rank = ranks,
    };
    return dr_ok();
}

static const struct dr_wire_rule progress_at[] = {[1] = DR_RULE_RANK, [2] = DR_RULE_ANY, [3] = DR_RULE_ANY};
static const struct dr_wire_rules progress_rules = DR_WIRE_RULES(progress_at);

dr_status dr_encode_progress(const struct dr_progress *in, uint64_t epoch, struct dr_arena *scratch,
                             uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Progress m = DR__V1__PROGRESS__INIT;
    dr_wire_present(&m.base);
    m.rank = in->rank;
    m.done_bytes = in->done_bytes;
    m.total_bytes = in->total_bytes;
    return dr_wire_pack(DR_MSG_PROGRESS, epoch, &m.base, &progress_rules, out, room, bytes);
}

dr_status dr_decode_progress(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                             struct dr_progress *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__progress__descriptor, &progress_rules, body, bytes, arena, &base));
    const Dr__V1__Progress *m = (const Dr__V1__Progress *)base;
    *out = (struct dr_progress){.rank = m->rank, .done_bytes = m->done_bytes, .total_bytes = m->total_bytes};
    return dr_ok();
}

static const struct dr_wire_rule stats_at[] = {
    [1] = DR_RULE_ANY,    [2] = DR_RULE_ANY,    [3] = DR_RULE_ANY,
    [4] = DR_RULE_ANY,    [5] = DR_RULE_ANY,    [6] = DR_RULE_ANY,
    [7] = DR_RULE_COUNT,  [8] = DR_RULE_COUNT,  [9] = DR_RULE_COUNT,
    [10] = DR_RULE_COUNT, [11] = DR_RULE_COUNT, [12] = DR_RULE_ANY,
    [13] = DR_RULE_ANY,   [14] = DR_RULE_ANY,   [15] = {.count = DR_BYTES_KIND_COUNT},
    [16] = DR_RULE_COUNT,
};
static const struct dr_wire_rules stats_rules = DR_WIRE_RULES(stats_at);

dr_status dr_encode_stats(const struct dr_stats *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                          size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Stats m = DR__V1__STATS__INIT;
    dr_wire_present(&m.base);
    m.steps = in->steps;
    m.prompt_tokens = in->prompt_tokens;
    m.generated_tokens = in->generated_tokens;
    m.cached_tokens = in->cached_tokens;
    m.cancelled = in->cancelled;
    m.preempted = in->preempted;
    m.running = in->running;
    m.waiting = in->waiting;
    m.pages_used = in->pages_used;
    m.pages_idle = in->pages_idle;
    m.pages_total = in->pages_total;
    m.waiting_tokens = in->waiting_tokens;
    m.last_step_ns = in->last_step_ns;
    m.last_step_age_ns = in->last_step_age_ns;
    m.step_wait_ns = in->step_wait_ns;
    m.n_bytes = DR_BYTES_KIND_COUNT;
    m.bytes = (uint64_t *)in->bytes;
    return dr_wire_pack(DR_MSG_STATS, epoch, &m.base, &stats_rules, out, room, bytes);
}

dr_status dr_decode_stats(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_stats *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__stats__descriptor, &stats_rules, body, bytes, arena, &base));
    const Dr__V1__Stats *m = (const Dr__V1__Stats *)base;
    DR_TRY(dr_wire_same("Stats", "bytes", m->n_bytes, DR_BYTES_KIND_COUNT));
    *out = (struct dr_stats){
        .steps = m->steps,
        .prompt_tokens = m->prompt_tokens,
        .generated_tokens = m->generated_tokens,
        .cached_tokens = m->cached_tokens,
        .cancelled = m->cancelled,
        .preempted = m->preempted,
        .running = m->running,
        .waiting = m->waiting,
        .pages_used = m->pages_used,
        .pages_idle = m->pages_idle,
        .pages_total = m->pages_total,
        .waiting_tokens = m->waiting_tokens,
        .last_step_ns = m->last_step_ns,
        .last_step_age_ns = m->last_step_age_ns,
        .step_wait_ns = m->step_wait_ns,
    };
    memcpy(out->bytes, m->bytes, sizeof out->bytes);
    return dr_ok();
}

static const struct dr_wire_rule news_at[] = {
    [1] = DR_RULE_ANY,
    [2] = DR_RULE_ANY,
    [3] = DR_RULE_ANY,
    [4] = {.most = DR_STEP_TOKENS_MAX},
    [5] = {.most = DR_STEP_TOKENS_MAX},
    [6] = {.most = DR_SEQS_MAX},
    [7] = {.most = DR_STEP_TOKENS_MAX},
};
static const struct dr_wire_rules news_rules = DR_WIRE_RULES(news_at);

dr_status dr_encode_step_news(const struct dr_step_news *in, uint64_t epoch, struct dr_arena *scratch,
                              uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__StepNews m = DR__V1__STEP_NEWS__INIT;
    dr_wire_present(&m.base);
    m.step = in->step;
    m.sent_ns = in->sent_ns;
    m.done_ns = in->done_ns;
    m.prompt_rows = in->prompt_rows;
    m.generated_rows = in->generated_rows;
    m.n_decode = in->n_decode;
    m.n_drawn = in->n_drawn;
    return dr_wire_pack(DR_MSG_STEP_NEWS, epoch, &m.base, &news_rules, out, room, bytes);
}

dr_status dr_decode_step_news(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                              struct dr_step_news *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__step_news__descriptor, &news_rules, body, bytes, arena, &base));
    const Dr__V1__StepNews *m = (const Dr__V1__StepNews *)base;
    *out = (struct dr_step_news){
        .step = m->step,
        .sent_ns = m->sent_ns,
        .done_ns = m->done_ns,
        .prompt_rows = m->prompt_rows,
        .generated_rows = m->generated_rows,
        .n_decode = m->n_decode,
        .n_drawn = m->n_drawn,
    };
    return dr_ok();
}
