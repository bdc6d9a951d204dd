/* layout.c - cuts a model over stages and ranks.
 * In:   config and wish.      Out: struct dr_layout, and each rank's share.
 * Owns: nothing.
 * Why:  see layout.h. Tensors are cut evenly within one row; layers are cut by the bytes that a stage has to
 * hold. */
#include "model/layout.h"

#include <assert.h>
#include <string.h>

#include "common/size.h"
#include "model/fold.h"
#include "model/footprint.h"
#include "model/roles.h"

const char *dr_expert_cut_name(enum dr_expert_cut v) {
    return v == DR_EXPERTS_COLUMNS ? "columns" : "whole";
}

const char *dr_exchange_name(enum dr_exchange v) {
    return v == DR_EXCHANGE_LATENT ? "latent" : "value";
}

const char *dr_cache_type_name(enum dr_cache_type v) {
    return v == DR_CACHE_F32 ? "f32" : v == DR_CACHE_BF16 ? "bf16" : "fp8";
}

const char *dr_weights_name(enum dr_weights v) {
    return v == DR_WEIGHTS_INT8 ? "int8" : "native";
}

struct dr_range dr_layout_cut(int32_t total, int32_t n, int32_t i) {
    int32_t each = total / n, more = total % n;
    int32_t begin = i * each + dr_min_i32(i, more);
    struct dr_range r = {.begin = begin, .end = begin + each + (i < more)};
    return r;
}

static dr_status check_range(const char *what, int32_t found, int32_t least, int32_t most) {
    if (found >= least && found <= most) return dr_ok();
    return dr_fail(DR_EMODEL, "layout: %s: expected %d to %d, found %d", what, least, most, found);
}

/* A cut over tp ranks leaves nobody without a part. */
static dr_status check_cut(const char *what, int32_t parts, int32_t tp) {
    if (parts >= tp) return dr_ok();
    return dr_fail(DR_EMODEL,
                   "layout: tp %d: the model has only %d %s, so a rank would hold none; use tp of at most %d",
                   tp, parts, what, parts);
}

static bool has_layers(const struct dr_config *c, const struct dr_layout_wish *w, bool moe) {
    for (int32_t i = 0; i < c->n_layer + (w->mtp ? c->n_mtp : 0); i++)
        if (dr_config_is_moe(c, i) == moe) return true;
    return false;
}

static dr_status check_ranks(const struct dr_config *c, const struct dr_layout_wish *w) {
    DR_TRY(check_range("tp", w->tp, 1, DR_TP_MAX));
    DR_TRY(check_range("pp", w->pp, 1, DR_PP_MAX));
    DR_TRY(check_range("tp x pp", w->tp * w->pp, 1, DR_RANKS_MAX));
    if (w->pp > c->n_layer)
        return dr_fail(
            DR_EMODEL,
            "layout: pp %d: the model has only %d layers, so a stage would hold none; use pp of at most %d",
            w->pp, c->n_layer, c->n_layer);
    DR_TRY(check_cut("heads", c->n_head, w->tp));
    DR_TRY(check_cut("vocabulary rows", c->vocab, w->tp));
    if (has_layers(c, w, false)) DR_TRY(check_cut("columns of the dense MLP", c->mlp_dim, w->tp));
    if (has_layers(c, w, true)) {
        if (w->experts == DR_EXPERTS_WHOLE)
            DR_TRY(check_cut("experts", c->n_expert, w->tp));
        else
            DR_TRY(check_cut("columns of an expert", c->expert_dim, w->tp));
        if (c->n_shared > 0)
            DR_TRY(check_cut("columns of the shared expert", dr_config_shared_dim(c), w->tp));
    }
    int32_t width = w->cache_width == 0 ? w->tp : w->cache_width;
    DR_TRY(check_range("cache width", width, 1, w->tp));
    if (w->tp % width != 0)
        return dr_fail(DR_EMODEL, "layout: cache width: expected a divisor of tp %d, found %d", w->tp, width);
    if (w->mtp && c->n_mtp == 0)
        return dr_fail(DR_EMODEL, "layout: drafts: the model has no MTP layer; start without drafts");
    return dr_ok();
}

static dr_status check_choices(const struct dr_layout_wish *w) {
    DR_TRY(check_range("expert cut", (int32_t)w->experts, DR_EXPERTS_COLUMNS, DR_EXPERTS_WHOLE));
    DR_TRY(check_range("exchange", (int32_t)w->exchange, DR_EXCHANGE_LATENT, DR_EXCHANGE_VALUE));
    DR_TRY(check_range("weights", (int32_t)w->weights, DR_WEIGHTS_NATIVE, DR_WEIGHTS_INT8));
    return check_range("cache type", (int32_t)w->cache_type, DR_CACHE_F32, DR_CACHE_FP8);
}

/* Bytes of one tensor as it most likely lies in the file (scales are below 1/4,096 of FP8 data). */
static uint64_t role_bytes(const struct dr_config *c, enum dr_role role) {
    int32_t rows, cols;
    dr_role_shape(c, role, &rows, &cols);
    return (uint64_t)rows * (uint64_t)cols * dr_dtype_bytes(dr_role_usual_dtype(c, role));
}

static uint64_t layer_bytes(const struct dr_config *c, int32_t layer) {
    uint64_t sum = 0;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        if (scope == DR_SCOPE_MODEL || !dr_role_wanted(c, role, layer)) continue;
        sum += role_bytes(c, role) * (scope == DR_SCOPE_EXPERT ? (uint64_t)c->n_expert : 1);
    }
    return sum;
}

/* Layers as a list of costs, with what the outer stages hold besides. */
struct costs {
    uint64_t prefix[DR_LAYERS_MAX + 1]; /* of the first l layers */
    uint64_t first, last;               /* embedding; norm, head, MTP layer and its copy of the embedding */
    int32_t n_layer, pp;
};

static void costs_make(const struct dr_config *c, const struct dr_layout *l, struct costs *k) {
    uint64_t embed = role_bytes(c, DR_ROLE_EMBED);
    k->n_layer = c->n_layer;
    k->pp = l->pp;
    k->prefix[0] = 0;
    for (int32_t i = 0; i < c->n_layer; i++) k->prefix[i + 1] = k->prefix[i] + layer_bytes(c, i);
    k->first = embed;
    k->last = role_bytes(c, DR_ROLE_NORM) + role_bytes(c, DR_ROLE_HEAD);
    if (l->mtp) k->last += layer_bytes(c, c->n_layer) + (l->pp > 1 ? embed : 0);
    /* Total below 2^31, so that the sum of squares below fits 64 bits. */
    int shift = 0;
    while ((k->prefix[c->n_layer] + k->first + k->last) >> shift >> 31 != 0) shift++;
    for (int32_t i = 0; i <= c->n_layer; i++) k->prefix[i] >>= shift;
    k->first >>= shift;
    k->last >>= shift;
}

static uint64_t stage_cost(const struct costs *k, int32_t stage, int32_t begin, int32_t end) {
    return k->prefix[end] - k->prefix[begin] + (stage == 0 ? k->first : 0) +
           (stage == k->pp - 1 ? k->last : 0);
}

/* Dynamic programme over (stages, layers): the best cut of the first `end` layers into the first stages. With
 * cap 0 the largest stage is made small; else the sum of squares is, over cuts whose stages stay within cap.
 * Fills begin[], returns the value. 64 x 256^2 steps. */
static uint64_t best_cut(const struct costs *k, uint64_t cap, int32_t *begin) {
    uint64_t value[DR_LAYERS_MAX + 1], next[DR_LAYERS_MAX + 1];
    uint8_t from[DR_PP_MAX][DR_LAYERS_MAX + 1];
    static_assert(DR_LAYERS_MAX <= UINT8_MAX + 1, "a layer's index fits a byte");
    for (int32_t end = 0; end <= k->n_layer; end++) value[end] = end == 0 ? 0 : UINT64_MAX;
    for (int32_t stage = 0; stage < k->pp; stage++) {
        for (int32_t end = 0; end <= k->n_layer; end++) {
            next[end] = UINT64_MAX;
            for (int32_t at = end - 1; at >= stage; at--) {
                if (value[at] == UINT64_MAX) continue;
                uint64_t cost = stage_cost(k, stage, at, end);
                if (cap != 0 && cost > cap) break; /* further back it only grows */
                uint64_t sum = cap == 0 ? (cost > value[at] ? cost : value[at]) : value[at] + cost * cost;
                if (sum >= next[end]) continue; /* ties: the shorter last stage */
                next[end] = sum;
                from[stage][end] = (uint8_t)at;
            }
        }
        memcpy(value, next, sizeof value);
    }
    int32_t end = k->n_layer;
    for (int32_t stage = k->pp - 1; stage >= 0; stage--) {
        begin[stage + 1] = end;
        end = from[stage][end];
    }
    begin[0] = 0;
    return value[k->n_layer];
}

static void cut_layers(const struct dr_config *c, struct dr_layout *l) {
    struct costs k;
    costs_make(c, l, &k);
    uint64_t largest = best_cut(&k, 0, l->layer_begin);
    if (largest > 0) best_cut(&k, largest, l->layer_begin);
}

static dr_status count_pages(const struct dr_config *c, const struct dr_layout_wish *w, struct dr_layout *l) {
    int32_t one = dr_ceil_div(l->context, l->page_tokens); /* pages of the longest sequence */
    size_t page_bytes = 0;
    for (int32_t s = 0; s < l->pp; s++) {
        size_t b = dr_footprint_page_bytes(c, l, s);
        if (b > page_bytes) page_bytes = b;
    }
    size_t room = w->cache_bytes == 0 ? DR_PAGES_MAX : w->cache_bytes / page_bytes;
    if (w->pages != 0) {
        DR_TRY(check_range("cache pages", w->pages, 1, DR_PAGES_MAX));
        if ((size_t)w->pages > room)
            return dr_fail(
                DR_EMODEL,
                "layout: cache pages: %d pages of %zu bytes exceed the %zu bytes of a rank's cache", w->pages,
                page_bytes, w->cache_bytes);
        room = (size_t)w->pages;
    }
    size_t wanted = w->pages != 0 ? room : (size_t)one * (size_t)l->seqs_max;
    size_t pages = wanted < room ? wanted : room;
    if (pages < (size_t)one)
        return dr_fail(DR_EMODEL,
                       "layout: cache pages: a context of %d tokens needs %d pages of %d tokens, there are "
                       "%zu; shorten the "
                       "context or give the cache more memory",
                       l->context, one, l->page_tokens, pages);
    if (pages > DR_PAGES_MAX) pages = DR_PAGES_MAX;
    l->n_page = (int32_t)pages;
    return dr_ok();
}

dr_status dr_layout_make(const struct dr_config *c, const struct dr_layout_wish *wish,
                         struct dr_layout *out) {
    DR_TRY(check_choices(wish));
    DR_TRY(check_ranks(c, wish));
    struct dr_layout l = {
        .tp = wish->tp,
        .pp = wish->pp,
        .c = wish->cache_width == 0 ? wish->tp : wish->cache_width,
        .n_rank = wish->tp * wish->pp,
        .experts = wish->experts,
        .exchange = wish->exchange,
        .cache_type = wish->cache_type,
        .weights = wish->weights,
        .mtp = wish->mtp,
        .context = wish->context == 0 ? c->n_position : wish->context,
        .seqs_max = wish->seqs_max,
        .step_tokens = wish->step_tokens,
    };
    l.page_rows = dr_ceil_div(DR_PAGE_TOKENS, l.c);
    l.page_tokens = l.page_rows * l.c;
    DR_TRY(check_range("context", l.context, 1, DR_POSITIONS_MAX));
    if (l.context > c->n_position)
        return dr_fail(DR_EMODEL, "layout: context: the model was made for at most %d tokens, found %d",
                       c->n_position, l.context);
    DR_TRY(check_range("sequences", l.seqs_max, 1, DR_LAYOUT_SEQS_MAX));
    DR_TRY(check_range("tokens of a step", l.step_tokens, 1, DR_LAYOUT_STEP_MAX));
    cut_layers(c, &l);
    DR_TRY(count_pages(c, wish, &l));
    *out = l;
    return dr_ok();
}

struct dr_shard dr_layout_shard(const struct dr_config *c, const struct dr_layout *l, int32_t rank) {
    DR_ASSERT(rank >= 0 && rank < l->n_rank);
    struct dr_shard s = {.rank = rank, .stage = rank / l->tp, .t = rank % l->tp};
    const struct dr_range all_experts = {.begin = 0, .end = c->n_expert},
                          all_columns = {.begin = 0, .end = c->expert_dim};
    bool whole = l->experts == DR_EXPERTS_WHOLE;
    s.member = s.t % l->c;
    s.group = s.t / l->c;
    s.layers.begin = l->layer_begin[s.stage];
    s.layers.end = l->layer_begin[s.stage + 1];
    s.first = s.stage == 0;
    s.last = s.stage == l->pp - 1;
    s.mtp = s.last && l->mtp;
    s.heads = dr_layout_cut(c->n_head, l->tp, s.t);
    s.group_heads.begin = dr_layout_cut(c->n_head, l->tp, s.group * l->c).begin;
    s.group_heads.end = dr_layout_cut(c->n_head, l->tp, s.group * l->c + l->c - 1).end;
    s.mlp_cols = dr_layout_cut(c->mlp_dim, l->tp, s.t);
    s.expert_cols = whole ? all_columns : dr_layout_cut(c->expert_dim, l->tp, s.t);
    s.experts = whole ? dr_layout_cut(c->n_expert, l->tp, s.t) : all_experts;
    s.shared_cols = dr_layout_cut(dr_config_shared_dim(c), l->tp, s.t);
    s.vocab = dr_layout_cut(c->vocab, l->tp, s.t);
    return s;
}

int32_t dr_layout_vocab_owner(const struct dr_config *c, const struct dr_layout *l, uint32_t id) {
    DR_ASSERT(id < (uint32_t)c->vocab);
    int32_t each = c->vocab / l->tp, more = c->vocab % l->tp, wide = more * (each + 1);
    return (int32_t)id < wide ? (int32_t)id / (each + 1) : more + ((int32_t)id - wide) / each;
}

uint64_t dr_layout_hash(const struct dr_config *c, const struct dr_layout *l) {
    const int32_t fields[] = {l->tp,
                              l->pp,
                              l->c,
                              l->n_rank,
                              (int32_t)l->experts,
                              (int32_t)l->exchange,
                              (int32_t)l->cache_type,
                              (int32_t)l->weights,
                              l->mtp,
                              l->page_tokens,
                              l->page_rows,
                              l->context,
                              l->seqs_max,
                              l->step_tokens,
                              l->n_page};
    uint64_t h = dr_config_hash(c);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        h = dr_fold_u64(h, (uint64_t)(int64_t)fields[i]);
    for (int32_t s = 0; s <= l->pp; s++) h = dr_fold_u64(h, (uint64_t)l->layer_begin[s]);
    return h;
}
