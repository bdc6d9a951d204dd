/* test_layout.c - who holds what.
 * In:   random models and wishes, published models.      Out: checks.
 * Owns: nothing.
 * Why:  a row that nobody owns, or two, gives wrong answers without an error. */
#include <stdio.h>
#include <string.h>

#include <CUnit/CUnit.h>

#include "common/rng.h"
#include "common/size.h"
#include "model/footprint.h"
#include "tests/unit/model/fixture.h"

enum { RANDOM_CASES = 3000 };

static int32_t draw(uint64_t seed, uint64_t what, int32_t least, int32_t most) {
    return least + (int32_t)(dr_rng_u64(seed, what, 0) % (uint64_t)(most - least + 1));
}

static struct dr_config random_config(uint64_t seed) {
    struct dr_config c = {
        .vocab = draw(seed, 1, 1, 3000),
        .dim = draw(seed, 2, 1, 300),
        .n_layer = draw(seed, 3, 1, 40),
        .n_mtp = draw(seed, 4, 0, 1),
        .n_head = draw(seed, 5, 1, 40),
        .q_lora = draw(seed, 6, 0, 1) * 17,
        .kv_lora = draw(seed, 7, 1, 300),
        .nope_dim = draw(seed, 8, 1, 140),
        .rope_dim = 2 * draw(seed, 9, 1, 20),
        .v_dim = draw(seed, 10, 1, 140),
        .mlp_dim = draw(seed, 11, 1, 500),
        .moe_freq = draw(seed, 12, 1, 3),
        .expert_dim = draw(seed, 13, 1, 90),
        .n_expert = draw(seed, 14, 0, 3) ? draw(seed, 15, 1, 20) : 0,
        .n_active = 1,
        .n_shared = draw(seed, 16, 0, 2),
        .n_group = 1,
        .n_group_active = 1,
        .router = DR_ROUTER_SIGMOID_NOAUX,
        .n_position = draw(seed, 17, 1, 5000),
        .tied = draw(seed, 18, 0, 1),
        .fp8 = draw(seed, 19, 0, 1),
    };
    c.n_dense_layer = draw(seed, 20, 0, c.n_layer);
    return c;
}

static struct dr_layout_wish random_wish(uint64_t seed, const struct dr_config *c) {
    int32_t tp = draw(seed, 30, 1, 9);
    int32_t width = draw(seed, 32, 0, tp);
    while (width != 0 && tp % width != 0) width--;
    return (struct dr_layout_wish){
        .tp = tp,
        .pp = draw(seed, 31, 1, 6),
        .cache_width = width,
        .experts = (enum dr_expert_cut)draw(seed, 33, 0, 1),
        .exchange = (enum dr_exchange)draw(seed, 34, 0, 1),
        .cache_type = (enum dr_cache_type)draw(seed, 35, 0, 2),
        .mtp = c->n_mtp > 0 && draw(seed, 36, 0, 1),
        .context = draw(seed, 37, 0, 1) * draw(seed, 38, 1, c->n_position),
        .seqs_max = draw(seed, 39, 1, 20),
        .step_tokens = draw(seed, 40, 1, 100),
    };
}

/* The ranges of the T ranks of a stage follow each other without hole and without an empty one. */
struct chain {
    int32_t at, widest, narrowest;
    bool ok;
};

static void chain_add(struct chain *k, struct dr_range r) {
    int32_t n = dr_range_len(r);
    k->ok = k->ok && r.begin == k->at && n > 0;
    k->at = r.end;
    if (n > k->widest) k->widest = n;
    if (n < k->narrowest) k->narrowest = n;
}

static bool chain_done(const struct chain *k, int32_t total) {
    return k->ok && k->at == total && k->widest - k->narrowest <= 1;
}

static const struct chain chain_start = {.narrowest = INT32_MAX, .ok = true};

static bool any_layer(const struct dr_config *c, const struct dr_layout *l, bool moe) {
    for (int32_t i = 0; i < c->n_layer + l->mtp; i++)
        if (dr_config_is_moe(c, i) == moe) return true;
    return false;
}

static bool stage_is_cut(const struct dr_config *c, const struct dr_layout *l, int32_t stage) {
    struct chain heads = chain_start, mlp = chain_start, columns = chain_start, experts = chain_start,
                 shared = chain_start, vocab = chain_start;
    bool moe = any_layer(c, l, true), dense = any_layer(c, l, false), ok = true;
    for (int32_t t = 0; t < l->tp; t++) {
        struct dr_shard s = dr_layout_shard(c, l, stage * l->tp + t);
        ok = ok && s.rank == stage * l->tp + t && s.stage == stage && s.t == t && s.member == t % l->c &&
             s.group == t / l->c;
        ok = ok && s.layers.begin == l->layer_begin[stage] && s.layers.end == l->layer_begin[stage + 1];
        ok = ok && s.first == (stage == 0) && s.last == (stage == l->pp - 1) && s.mtp == (s.last && l->mtp);
        ok = ok && s.group_heads.begin <= s.heads.begin && s.group_heads.end >= s.heads.end;
        chain_add(&heads, s.heads);
        chain_add(&vocab, s.vocab);
        chain_add(&mlp, s.mlp_cols);
        chain_add(&shared, s.shared_cols);
        chain_add(&columns, s.expert_cols);
        chain_add(&experts, s.experts);
        /* the cache group's heads are exactly its members' */
        int32_t sum = 0;
        for (int32_t m = 0; m < l->c; m++)
            sum += dr_range_len(dr_layout_shard(c, l, stage * l->tp + s.group * l->c + m).heads);
        ok = ok && sum == dr_range_len(s.group_heads);
        if (l->experts == DR_EXPERTS_WHOLE)
            ok = ok && s.expert_cols.begin == 0 && s.expert_cols.end == c->expert_dim;
        else
            ok = ok && s.experts.begin == 0 && s.experts.end == c->n_expert;
    }
    ok = ok && chain_done(&heads, c->n_head) && chain_done(&vocab, c->vocab);
    if (dense) ok = ok && chain_done(&mlp, c->mlp_dim);
    if (moe && c->n_shared > 0) ok = ok && chain_done(&shared, dr_config_shared_dim(c));
    if (moe && l->experts == DR_EXPERTS_WHOLE) ok = ok && chain_done(&experts, c->n_expert);
    if (moe && l->experts == DR_EXPERTS_COLUMNS) ok = ok && chain_done(&columns, c->expert_dim);
    return ok;
}

static bool layers_are_cut(const struct dr_config *c, const struct dr_layout *l) {
    bool ok = l->layer_begin[0] == 0 && l->layer_begin[l->pp] == c->n_layer;
    for (int32_t s = 0; s < l->pp; s++) ok = ok && l->layer_begin[s] < l->layer_begin[s + 1];
    return ok;
}

/* Position p is on member p % c; a page holds page_rows rows on each. */
static bool pages_are_right(const struct dr_config *c, const struct dr_layout *l) {
    return l->page_tokens >= 64 && l->page_tokens < 64 + l->c && l->page_tokens % l->c == 0 &&
           l->page_rows * l->c == l->page_tokens && l->context >= 1 && l->context <= c->n_position &&
           l->n_page == l->seqs_max * dr_ceil_div(l->context, l->page_tokens);
}

/* May this wish be refused? Written from the rules, not from the code. */
static bool fits(const struct dr_config *c, const struct dr_layout_wish *w) {
    bool moe = false, dense = false;
    for (int32_t i = 0; i < c->n_layer; i++) *(dr_config_is_moe(c, i) ? &moe : &dense) = true;
    if (w->mtp) *(c->n_expert > 0 ? &moe : &dense) = true;
    bool ok = w->tp <= c->n_head && w->pp <= c->n_layer && w->tp <= c->vocab;
    if (dense) ok = ok && w->tp <= c->mlp_dim;
    if (moe && c->n_shared) ok = ok && w->tp <= c->n_shared * c->expert_dim;
    if (moe) ok = ok && w->tp <= (w->experts == DR_EXPERTS_WHOLE ? c->n_expert : c->expert_dim);
    return ok;
}

static void random_layouts(void) {
    int made = 0, bad = 0;
    for (uint64_t seed = 1; seed <= RANDOM_CASES; seed++) {
        struct dr_config c = random_config(seed);
        struct dr_layout_wish w = random_wish(seed, &c);
        struct dr_layout l;
        dr_status st = dr_layout_make(&c, &w, &l);
        bool ok = (st.code == DR_OK) == fits(&c, &w);
        if (st.code == DR_OK) {
            made++;
            ok = ok && layers_are_cut(&c, &l) && pages_are_right(&c, &l);
            for (int32_t s = 0; s < l.pp; s++) ok = ok && stage_is_cut(&c, &l, s);
        }
        if (!ok && bad++ == 0)
            printf("first bad seed: %llu (%s)\n", (unsigned long long)seed, dr_error_text());
    }
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT_TRUE(made > RANDOM_CASES / 3);
}

/* The holdings of a cut tensor add up, over the ranks of a stage, to the tensor (random_layouts shows that
 * they do not overlap). */
static bool holdings_cover(const struct dr_config *c, const struct dr_layout *l, int32_t stage) {
    static struct dr_holding held[9][4096];
    int32_t n[9];
    for (int32_t t = 0; t < l->tp; t++) {
        n[t] = dr_footprint_list(c, NULL, l, stage * l->tp + t, held[t], 4096);
        if (n[t] > 4096) return true; /* too large for this test */
    }
    /* Area of each (role, layer, expert, kind) over the ranks, against the whole tensor's. */
    for (int32_t i = 0; i < n[0]; i++) {
        const struct dr_holding *h = &held[0][i];
        int64_t area = 0;
        if (l->exchange == DR_EXCHANGE_VALUE && h->role == DR_ROLE_KV_B)
            continue; /* held by every rank of a cache group */
        for (int32_t t = 0; t < l->tp; t++) {
            for (int32_t k = 0; k < n[t]; k++) {
                const struct dr_holding *o = &held[t][k];
                if (o->role != h->role || o->layer != h->layer || o->expert != h->expert ||
                    o->kind != h->kind)
                    continue;
                area += (int64_t)o->rows * o->cols;
            }
        }
        int32_t rows = 0, cols = 0;
        switch (h->role) { /* of the whole tensor, from the config alone */
        case DR_ROLE_EMBED:
        case DR_ROLE_HEAD:
            rows = c->vocab, cols = c->dim;
            break;
        case DR_ROLE_Q:
            rows = c->n_head * dr_config_qk_dim(c), cols = c->dim;
            break;
        case DR_ROLE_Q_B:
            rows = c->n_head * dr_config_qk_dim(c), cols = c->q_lora;
            break;
        case DR_ROLE_O:
            rows = c->dim, cols = c->n_head * c->v_dim;
            break;
        case DR_ROLE_MLP_GATE:
        case DR_ROLE_MLP_DOWN:
            rows = c->mlp_dim, cols = c->dim;
            break;
        case DR_ROLE_SHARED_UP:
        case DR_ROLE_SHARED_DOWN:
            rows = dr_config_shared_dim(c), cols = c->dim;
            break;
        case DR_ROLE_EXPERT_GATE:
        case DR_ROLE_EXPERT_DOWN:
            if (l->experts == DR_EXPERTS_WHOLE)
                continue; /* on one rank only: random_layouts checks the ranges */
            rows = c->expert_dim, cols = c->dim;
            break;
        case DR_ROLE_KV_B: /* W_UK packed and W_UV packed together are the tensor; the transposed form is W_UK
                              again */
            rows = c->n_head * (h->kind == DR_HOLD_PACKED ? c->nope_dim + c->v_dim : c->nope_dim),
            cols = c->kv_lora;
            break;
        default:
            continue;
        }
        if (area != (int64_t)rows * cols) return false;
    }
    return true;
}

static void holdings(void) {
    int bad = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct dr_config c = random_config(seed);
        struct dr_layout_wish w = random_wish(seed, &c);
        struct dr_layout l;
        c.n_layer = dr_min_i32(c.n_layer, 4);
        c.n_dense_layer = dr_min_i32(c.n_dense_layer, c.n_layer);
        if (dr_layout_make(&c, &w, &l).code != DR_OK) continue;
        for (int32_t s = 0; s < l.pp; s++) {
            if (!holdings_cover(&c, &l, s) && bad++ == 0)
                printf("first bad seed: %llu\n", (unsigned long long)seed);
        }
    }
    CU_ASSERT_EQUAL(bad, 0);
}

static void vocabulary_owner(void) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct dr_config c = fixture_config("v3-bf16");
        struct dr_layout l;
        struct dr_layout_wish w = fixture_wish(draw(seed, 1, 1, 6), 1);
        c.vocab = draw(seed, 2, 6, 700);
        CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
        bool ok = true;
        for (int32_t id = 0; id < c.vocab; id++) {
            struct dr_range r = dr_layout_shard(&c, &l, dr_layout_vocab_owner(&c, &l, (uint32_t)id)).vocab;
            ok = ok && r.begin <= id && id < r.end;
        }
        CU_ASSERT_TRUE(ok);
    }
}

static void uneven_heads(void) {
    struct dr_config c = fixture_config("configs/v3");
    struct dr_layout l;
    struct dr_layout_wish w = fixture_wish(3, 1);
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
    static const int32_t heads[] = {43, 43, 42};
    for (int32_t t = 0; t < 3; t++) CU_ASSERT_EQUAL(dr_range_len(dr_layout_shard(&c, &l, t).heads), heads[t]);
    CU_ASSERT_EQUAL(l.page_tokens, 66);
    CU_ASSERT_EQUAL(l.page_rows, 22);
}

/* Bytes of the weights of a V3 stage, one rank a stage. */
static size_t stage_weights(const struct dr_config *c, const struct dr_layout *l, int32_t stage) {
    return dr_footprint_rank(c, NULL, l, stage * l->tp).weights;
}

static void v3_stages(void) {
    struct dr_config c = fixture_config("configs/v3");
    for (int mtp = 0; mtp < 2; mtp++) {
        for (int32_t pp = 2; pp <= 8; pp++) {
            struct dr_layout l;
            struct dr_layout_wish w = fixture_wish(1, pp);
            w.mtp = mtp != 0;
            CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
            size_t least = SIZE_MAX, most = 0, sum = 0;
            for (int32_t s = 0; s < pp; s++) {
                size_t b = stage_weights(&c, &l, s);
                least = b < least ? b : least;
                most = b > most ? b : most;
                sum += b;
            }
            size_t layer = (size_t)11600 << 20; /* a V3 MoE layer is 11.5 GB */
            CU_ASSERT_TRUE(most - sum / (size_t)pp < layer);
            CU_ASSERT_TRUE(most - least < 2 * layer);
        }
    }
}

static uint64_t brute(const uint64_t *cost, int32_t n, int32_t pp, uint64_t first, uint64_t last,
                      bool is_first) {
    if (pp == 1) {
        uint64_t sum = last + (is_first ? first : 0);
        for (int32_t i = 0; i < n; i++) sum += cost[i];
        return sum;
    }
    uint64_t best = UINT64_MAX, head = is_first ? first : 0;
    for (int32_t k = 1; k <= n - (pp - 1); k++) {
        head += cost[k - 1];
        uint64_t tail = brute(cost + k, n - k, pp - 1, first, last, false), worst = head > tail ? head : tail;
        best = worst < best ? worst : best;
    }
    return best;
}

/* Tensor bytes counted from the config by hand: q, kv, o, MLP. */
static uint64_t layer_cost(const struct dr_config *c, int32_t layer) {
    uint64_t linear = c->fp8 ? 1 : 2, d = (uint64_t)c->dim, h = (uint64_t)c->n_head,
             qk = (uint64_t)dr_config_qk_dim(c);
    uint64_t q = c->q_lora ? (uint64_t)c->q_lora * (d + h * qk) : d * h * qk;
    uint64_t kv =
        (uint64_t)dr_config_row_dim(c) * d + (uint64_t)c->kv_lora * h * (uint64_t)(c->nope_dim + c->v_dim);
    uint64_t sum = (q + kv + d * h * (uint64_t)c->v_dim) * linear;
    sum += 2 * (2 * d + (uint64_t)c->kv_lora + (uint64_t)c->q_lora);
    if (!dr_config_is_moe(c, layer)) return sum + 3 * d * (uint64_t)c->mlp_dim * linear;
    sum += 3 * d * (uint64_t)(c->expert_dim * c->n_expert + dr_config_shared_dim(c)) * linear;
    sum += 2 * d * (uint64_t)c->n_expert + 4 * (uint64_t)c->n_expert;
    if (layer >= c->n_layer) sum += 2 * 2 * d * d + 3 * 2 * d;
    return sum;
}

static void smallest_largest_stage(void) {
    int tried = 0, bad = 0;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        struct dr_config c = random_config(seed);
        struct dr_layout_wish w = random_wish(seed, &c);
        struct dr_layout l;
        uint64_t cost[DR_LAYERS_MAX];
        c.n_layer = dr_min_i32(c.n_layer, 14);
        c.n_dense_layer = dr_min_i32(c.n_dense_layer, c.n_layer);
        if (dr_layout_make(&c, &w, &l).code != DR_OK) continue;
        for (int32_t i = 0; i < c.n_layer; i++) cost[i] = layer_cost(&c, i);
        uint64_t first = 2 * (uint64_t)c.vocab * (uint64_t)c.dim, last = first + 2 * (uint64_t)c.dim;
        if (l.mtp) {
            last += layer_cost(&c, c.n_layer) + (l.pp > 1 ? first : 0);
            if (c.n_expert == 0) last += 4 * (uint64_t)c.dim * (uint64_t)c.dim + 6 * (uint64_t)c.dim;
        }
        uint64_t largest = 0;
        for (int32_t s = 0; s < l.pp; s++) {
            uint64_t sum = (s == 0 ? first : 0) + (s == l.pp - 1 ? last : 0);
            for (int32_t i = l.layer_begin[s]; i < l.layer_begin[s + 1]; i++) sum += cost[i];
            largest = sum > largest ? sum : largest;
        }
        tried++;
        if (largest != brute(cost, c.n_layer, l.pp, first, last, true) && bad++ == 0)
            printf("first bad seed: %llu\n", (unsigned long long)seed);
    }
    CU_ASSERT_TRUE(tried > 100);
    CU_ASSERT_EQUAL(bad, 0);
}

static void equal_layers_spread_evenly(void) {
    struct dr_config c = fixture_config("configs/v2");
    struct dr_layout l;
    struct dr_layout_wish w = fixture_wish(1, 7);
    c.n_dense_layer = 0;
    c.vocab = 8; /* next to nothing besides the layers: 60 over 7 */
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
    for (int32_t s = 0; s < 7; s++) {
        int32_t n = l.layer_begin[s + 1] - l.layer_begin[s];
        CU_ASSERT_TRUE(n == 8 || n == 9);
    }
}

static void hash(void) {
    struct dr_config c = fixture_config("v3-mtp");
    struct dr_layout_wish w = fixture_wish(2, 1);
    struct dr_layout a, b;
    w.context = 1000;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &a).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &b).code, DR_OK);
    CU_ASSERT_EQUAL(dr_layout_hash(&c, &a), dr_layout_hash(&c, &b));
    struct dr_layout_wish other[] = {w, w, w, w, w, w, w, w, w, w, w};
    other[0].tp = 3;
    other[1].pp = 2;
    other[2].cache_width = 1;
    other[3].experts = DR_EXPERTS_WHOLE;
    other[4].exchange = DR_EXCHANGE_VALUE;
    other[5].cache_type = DR_CACHE_FP8;
    other[6].mtp = true;
    other[7].context = 1001;
    other[8].seqs_max = 5;
    other[9].step_tokens = 65;
    other[10].weights = DR_WEIGHTS_INT8;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &other[i], &b).code, DR_OK);
        CU_ASSERT_NOT_EQUAL(dr_layout_hash(&c, &a), dr_layout_hash(&c, &b));
    }
    b = a;
    b.layer_begin[1]++;
    CU_ASSERT_NOT_EQUAL(dr_layout_hash(&c, &a), dr_layout_hash(&c, &b));
    struct dr_config d = c;
    d.routed_scale = 3;
    CU_ASSERT_NOT_EQUAL(dr_layout_hash(&c, &a), dr_layout_hash(&d, &a));
}

static void pages(void) {
    struct dr_config c = fixture_config("v3-bf16"); /* 48 numbers a row, 3 layers */
    struct dr_layout_wish w = fixture_wish(2, 1);
    struct dr_layout l;
    w.context = 1000;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
    CU_ASSERT_EQUAL(l.n_page, 4 * 16);
    size_t page = 32 * 3 * 48 * 4; /* rows x layers x numbers x bytes on each of 2 ranks */
    CU_ASSERT_EQUAL(dr_footprint_page_bytes(&c, &l, 0), page);
    w.cache_bytes = 20 * page + 1;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
    CU_ASSERT_EQUAL(l.n_page, 20);
    w.pages = 17;
    CU_ASSERT_EQUAL_FATAL(dr_layout_make(&c, &w, &l).code, DR_OK);
    CU_ASSERT_EQUAL(l.n_page, 17);
}

/* One change to an everyday wish for v3-mtp (5 heads, 3 layers, 9 experts of 34 columns, 2,560 positions),
 * and the text it must give. */
static void refusals(void) {
    static const struct {
        struct dr_layout_wish w;
        const char *text;
    } bad[] = {
        {{.tp = 0, .pp = 1}, "layout: tp: expected 1 to 64, found 0"},
        {{.tp = 65, .pp = 1}, "layout: tp: expected 1 to 64, found 65"},
        {{.tp = 1, .pp = -1}, "layout: pp: expected 1 to 64, found -1"},
        {{.tp = 33, .pp = 32}, "layout: tp x pp: expected 1 to 1024, found 1056"},
        {{.tp = 1, .pp = 4},
         "layout: pp 4: the model has only 3 layers, so a stage would hold none; use pp of at most 3"},
        {{.tp = 6, .pp = 1},
         "layout: tp 6: the model has only 5 heads, so a rank would hold none; use tp of at most 5"},
        {{.tp = 4, .pp = 1, .cache_width = 3}, "layout: cache width: expected a divisor of tp 4, found 3"},
        {{.tp = 4, .pp = 1, .cache_width = 8}, "layout: cache width: expected 1 to 4, found 8"},
        {{.tp = 4, .pp = 1, .cache_width = -1}, "layout: cache width: expected 1 to 4, found -1"},
        {{.tp = 1, .pp = 1, .context = 2561},
         "layout: context: the model was made for at most 2560 tokens, found 2561"},
        {{.tp = 1, .pp = 1, .context = -5}, "layout: context: expected 1 to 16777216, found -5"},
        {{.tp = 1, .pp = 1, .seqs_max = -4}, "layout: sequences: expected 1 to 1024, found 0"},
        {{.tp = 1, .pp = 1, .step_tokens = 8192}, "layout: tokens of a step: expected 1 to 8192, found 8256"},
        {{.tp = 1, .pp = 1, .pages = -1}, "layout: cache pages: expected 1 to 1073741824, found -1"},
        {{.tp = 1, .pp = 1, .pages = 39},
         "layout: cache pages: a context of 2560 tokens needs 40 pages of 64 tokens, there are 39; shorten "
         "the context or "
         "give the cache more memory"},
        {{.tp = 1, .pp = 1, .cache_bytes = 36864 * 39 + 36863},
         "layout: cache pages: a context of 2560 tokens needs 40 pages of 64 tokens, there are 39; shorten "
         "the context or "
         "give the cache more memory"},
        {{.tp = 1, .pp = 1, .pages = 50, .cache_bytes = 36864 * 49},
         "layout: cache pages: 50 pages of 36864 bytes exceed the 1806336 bytes of a rank's cache"},
        {{.tp = 1, .pp = 1, .experts = (enum dr_expert_cut)7},
         "layout: expert cut: expected 0 to 1, found 7"},
        {{.tp = 1, .pp = 1, .exchange = (enum dr_exchange)2}, "layout: exchange: expected 0 to 1, found 2"},
        {{.tp = 1, .pp = 1, .cache_type = (enum dr_cache_type)3},
         "layout: cache type: expected 0 to 2, found 3"},
    };
    struct dr_config c = fixture_config("v3-mtp");
    struct dr_layout l = {.tp = 77};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct dr_layout_wish w = bad[i].w;
        w.seqs_max += 4;
        w.step_tokens += 64;
        CU_ASSERT_EQUAL(dr_layout_make(&c, &w, &l).code, DR_EMODEL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), bad[i].text);
        if (strcmp(dr_error_text(), bad[i].text) != 0) printf("%s\n", dr_error_text());
        CU_ASSERT_EQUAL(l.tp, 77);
    }
}

static void model_refusals(void) {
    struct dr_layout l;
    struct dr_layout_wish w = fixture_wish(1, 1);
    struct dr_config c = fixture_config("v3-bf16");
    w.mtp = true;
    CU_ASSERT_EQUAL(dr_layout_make(&c, &w, &l).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "layout: drafts: the model has no MTP layer; start without drafts");
    w = fixture_wish(4, 1);
    struct dr_config small[] = {c, c, c, c, c};
    static const char *const texts[] = {
        "layout: tp 4: the model has only 3 vocabulary rows, so a rank would hold none; use tp of at most 3",
        "layout: tp 4: the model has only 3 columns of the dense MLP, so a rank would hold none; use tp of "
        "at most 3",
        "layout: tp 4: the model has only 3 columns of an expert, so a rank would hold none; use tp of at "
        "most 3",
        "layout: tp 4: the model has only 3 experts, so a rank would hold none; use tp of at most 3",
    };
    small[0].vocab = 3;
    small[1].mlp_dim = 3;
    small[2].expert_dim = 3;
    small[3].n_expert = 3;
    for (int i = 0; i < 4; i++) {
        w.experts = i == 3 ? DR_EXPERTS_WHOLE : DR_EXPERTS_COLUMNS;
        CU_ASSERT_EQUAL(dr_layout_make(&small[i], &w, &l).code, DR_EMODEL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), texts[i]);
    }
    small[4].expert_dim = 3;
    w.experts = DR_EXPERTS_WHOLE;
    CU_ASSERT_EQUAL(dr_layout_make(&small[4], &w, &l).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "layout: tp 4: the model has only 3 columns of the shared "
                                            "expert, so a rank would hold none; use tp of at most 3");
}

static CU_TestInfo cases[] = {
    {"3,000 random layouts: every cut has one owner for each part", random_layouts},
    {"the holdings of a stage are the whole tensors", holdings},
    {"the owner of a token id holds its row", vocabulary_owner},
    {"128 heads over 3 ranks are 43, 43 and 42", uneven_heads},
    {"V3 over 2 to 8 stages: no stage is a layer above the mean", v3_stages},
    {"the largest stage is as small as any cut can make it", smallest_largest_stage},
    {"equal layers spread evenly", equal_layers_spread_evenly},
    {"the hash sees every choice", hash},
    {"pages are as many as wanted, bounded by memory", pages},
    {"every bad wish is refused by name", refusals},
    {"a model too small for the cut is refused by name", model_refusals},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_layout = {.pName = "model/layout", .pTests = cases};
