/* schedule.c - see schedule.h.
 * In:   config, layout, shape.      Out: calls in order.
 * Owns: nothing.
 * Why:  a cursor instead of a list: a long prefill has tens of thousands of calls, and nobody needs them at
 * once. */

#include "model/schedule.h"

#include "common/size.h"
#include "model/footprint.h"

enum { /* where the cursor stands: the call that may come next */
       AT_START,
       AT_START_GATHER,
       AT_LAYER,
       AT_QUERY,
       AT_PARTIAL,
       AT_PREFILL,
       AT_ATTN_OUT,
       AT_FFN_OUT,
       AT_END,
       AT_BATCH,
       AT_MASS,
       AT_BINS,
       AT_PICK,
       AT_TOP,
       AT_PASS, /* through the MTP layer */
       AT_PASS_EMBED,
       AT_DRAFT,
       AT_DRAFT_PICK,
       AT_DONE
};

const char *dr_call_kind_name(int kind) {
    static const char *const name[DR_CALL_KIND_COUNT] = {"allreduce", "allgather", "alltoall", "send",
                                                         "recv"};
    return kind >= 0 && kind < DR_CALL_KIND_COUNT ? name[kind] : "?";
}

const char *dr_call_what_name(int what) {
#define DR_X_(name, text) text,
    static const char *const name[DR_WHAT_COUNT] = {DR_WHATS(DR_X_)};
#undef DR_X_
    return what >= 0 && what < DR_WHAT_COUNT ? name[what] : "?";
}

static bool say(struct dr_call *out, enum dr_call_kind kind, enum dr_call_group group, enum dr_call_what what,
                int32_t layer, int32_t index, uint64_t bytes) {
    *out = (struct dr_call){
        .kind = (uint8_t)kind,
        .group = (uint8_t)group,
        .what = (uint8_t)what,
        .layer = (int16_t)layer,
        .index = index,
        .bytes = bytes,
    };
    return true;
}

static uint64_t activation_bytes(const struct dr_schedule *s) { /* of the residual stream, one copy */
    return (uint64_t)s->n_rows * (uint64_t)s->c->dim * 4;
}

void dr_schedule_begin(struct dr_schedule *s, const struct dr_config *c, const struct dr_layout *l,
                       const struct dr_step_shape *shape, int32_t stage, int32_t cache_group) {
    *s = (struct dr_schedule){
        .c = c,
        .l = l,
        .shape = shape,
        .stage = stage,
        .state = shape->n_rows > 0 ? AT_START : AT_DONE,
        .layer = l->layer_begin[stage],
        .layer_end = l->layer_begin[stage + 1],
        .n_rows = shape->n_rows,
    };
    struct dr_shard shard = dr_layout_shard(c, l, stage * l->tp + cache_group * l->c);
    s->group_heads = dr_range_len(shard.group_heads);
    for (int32_t i = 0; i < shape->n_segment; i++)
        if (shape->segment[i].absorbed) s->n_absorbed += shape->segment[i].n_rows;
}

/* Next piece of keys of an expanded segment; pieces start at position 0, so that their borders never move. */
static bool prefill(struct dr_schedule *s, struct dr_call *out) {
    int32_t piece_keys = DR_PIECE_PAGES * s->l->page_tokens;
    for (; s->segment < s->shape->n_segment; s->segment++, s->piece = 0) {
        const struct dr_shape_segment *g = &s->shape->segment[s->segment];
        int32_t left = dr_shape_keys(g, s->pass) - s->piece * piece_keys;
        if (g->absorbed || left <= 0) continue;
        int32_t keys = dr_min_i32(left, piece_keys);
        s->piece++;
        return say(out, DR_CALL_ALLGATHER, DR_GROUP_CACHE, DR_WHAT_PREFILL, s->layer, s->n_piece++,
                   (uint64_t)keys * dr_footprint_row_bytes(s->c, s->l->cache_type));
    }
    return false;
}

/* Counts what the next batch of output rows asks of the sampler; false when no rows are left. */
static bool batch(struct dr_schedule *s) {
    int32_t rows = 0;
    s->n_sampled = s->n_logprob = s->n_top_k = s->n_top_p = s->round = 0;
    s->n_top = 0;
    while (s->out_segment < s->shape->n_segment && rows < DR_OUT_BATCH) {
        const struct dr_shape_segment *g = &s->shape->segment[s->out_segment];
        int32_t take = dr_min_i32(g->n_out_rows - s->out_row, DR_OUT_BATCH - rows);
        if (dr_shape_sampled(g)) {
            s->n_sampled += take;
            s->n_logprob += g->n_top >= 0 ? take : 0;
            s->n_top += g->n_top > 0 ? (int64_t)take * g->n_top : 0;
            s->n_top_k += g->top_k ? take : 0;
            s->n_top_p += g->top_p ? take : 0;
        }
        rows += take;
        s->out_row += take;
        if (s->out_row == g->n_out_rows) {
            s->out_segment++;
            s->out_row = 0;
        }
    }
    return rows > 0;
}

static bool sampler_call(struct dr_schedule *s, struct dr_call *out, enum dr_call_what what, int32_t index,
                         int64_t rows, int32_t row_bytes) {
    uint64_t bytes = (uint64_t)rows * (uint64_t)row_bytes * (uint64_t)s->l->tp;
    return rows > 0 && say(out, DR_CALL_ALLGATHER, DR_GROUP_STAGE, what, -1, index, bytes);
}

static bool bins(struct dr_schedule *s, struct dr_call *out) {
    while (s->round < 2 * DR_SAMPLE_ROUNDS) {
        int32_t round = s->round++;
        int32_t rows = round < DR_SAMPLE_ROUNDS ? s->n_top_k : s->n_top_p;
        if (sampler_call(s, out, DR_WHAT_SAMPLE_BINS, (s->batch - 1) * 2 * DR_SAMPLE_ROUNDS + round, rows,
                         DR_SAMPLE_BINS_BYTES))
            return true;
    }
    return false;
}

/* The sampler's calls of the last stage. Returns true when it has said one; moves the state on. */
static bool sampler(struct dr_schedule *s, struct dr_call *out) {
    switch (s->state) {
    case AT_BATCH:
        if (!batch(s)) {
            s->state = AT_PASS;
            return false;
        }
        s->batch++;
        s->state = AT_MASS;
        return sampler_call(s, out, DR_WHAT_SAMPLE_MAX, s->batch - 1, s->n_sampled, DR_SAMPLE_MAX_BYTES);
    case AT_MASS:
        s->state = AT_BINS;
        return sampler_call(s, out, DR_WHAT_SAMPLE_MASS, s->batch - 1, s->n_logprob, DR_SAMPLE_MASS_BYTES);
    case AT_BINS:
        if (bins(s, out)) return true;
        s->state = AT_PICK;
        return false;
    case AT_PICK:
        s->state = AT_TOP;
        return sampler_call(s, out, DR_WHAT_SAMPLE_PICK, s->batch - 1, s->n_sampled, DR_SAMPLE_PICK_BYTES);
    default:
        s->state = AT_BATCH;
        return sampler_call(s, out, DR_WHAT_SAMPLE_TOP, s->batch - 1, s->n_top, DR_SAMPLE_TOP_BYTES);
    }
}

static bool start(struct dr_schedule *s, struct dr_call *out) {
    bool stage = s->l->tp > 1;
    if (s->state == AT_START_GATHER) {
        s->state = AT_LAYER;
        return stage && say(out, DR_CALL_ALLGATHER, DR_GROUP_STAGE, DR_WHAT_BOUNDARY_GATHER, -1, 0,
                            activation_bytes(s));
    }
    if (s->stage > 0) {
        s->state = AT_START_GATHER;
        return say(out, DR_CALL_RECV, DR_GROUP_PIPE, DR_WHAT_BOUNDARY, -1, 0,
                   activation_bytes(s) + (uint64_t)s->l->tp * DR_BOUNDARY_HEADER);
    }
    s->state = AT_LAYER;
    return stage && say(out, DR_CALL_ALLREDUCE, DR_GROUP_STAGE, DR_WHAT_EMBED, -1, 0,
                        activation_bytes(s) * (uint64_t)s->l->tp);
}

static bool end(struct dr_schedule *s, struct dr_call *out) {
    if (s->stage == s->l->pp - 1) {
        s->state = s->l->tp == 1 ? AT_DONE : s->pass > 0 ? AT_DRAFT : AT_BATCH;
        return false;
    }
    s->state = AT_DONE;
    return say(out, DR_CALL_SEND, DR_GROUP_PIPE, DR_WHAT_BOUNDARY, -1, 0,
               activation_bytes(s) + (uint64_t)s->l->tp * DR_BOUNDARY_HEADER);
}

/* One layer: the exchange around absorbed attention, the pieces of expanded attention, two sums. */
static bool layer(struct dr_schedule *s, struct dr_call *out) {
    bool cut = s->l->c > 1, stage = s->l->tp > 1;
    int32_t batch_index = s->absorbed_done / DR_ABSORBED_BATCH;
    int32_t rows = dr_min_i32(s->n_absorbed - s->absorbed_done, DR_ABSORBED_BATCH);
    uint64_t heads = (uint64_t)rows * (uint64_t)s->group_heads * 4;
    bool value = s->l->exchange == DR_EXCHANGE_VALUE;
    uint64_t query = (uint64_t)(value ? dr_config_qk_dim(s->c) : dr_config_row_dim(s->c));
    uint64_t result = (uint64_t)(value ? s->c->v_dim : s->c->kv_lora) + 1; /* and its log-sum-exp */
    uint64_t sum = activation_bytes(s) * (uint64_t)s->l->tp;
    switch (s->state) {
    case AT_LAYER:
        s->segment = s->piece = s->n_piece = s->absorbed_done = 0;
        s->state = s->layer == s->layer_end ? AT_END : AT_QUERY;
        return false;
    case AT_QUERY:
        s->state = rows > 0 && cut ? AT_PARTIAL : AT_PREFILL;
        return rows > 0 && cut &&
               say(out, DR_CALL_ALLGATHER, DR_GROUP_CACHE, DR_WHAT_QUERY, s->layer, batch_index,
                   heads * query);
    case AT_PARTIAL:
        s->state = AT_QUERY;
        s->absorbed_done += rows;
        return say(out, DR_CALL_ALLTOALL, DR_GROUP_CACHE, DR_WHAT_PARTIAL, s->layer, batch_index,
                   heads * result * (uint64_t)s->l->c);
    case AT_PREFILL:
        if (cut && s->pass < 2 && prefill(s, out)) return true;
        s->state = AT_ATTN_OUT;
        return false;
    case AT_ATTN_OUT:
        s->state = AT_FFN_OUT;
        return stage && say(out, DR_CALL_ALLREDUCE, DR_GROUP_STAGE, DR_WHAT_ATTN_OUT, s->layer, 0, sum);
    default:
        s->state = AT_LAYER;
        s->layer++;
        return stage && say(out, DR_CALL_ALLREDUCE, DR_GROUP_STAGE, DR_WHAT_FFN_OUT, s->layer - 1, 0, sum);
    }
}

/* The passes through the MTP layer, which is one more layer of the last stage: ids, the layer, and for the
 * rows that draft the sampler's calls of a plain draw. */
static bool draft(struct dr_schedule *s, struct dr_call *out) {
    const int32_t rows = dr_min_i32(dr_shape_drafting(s->shape, s->pass) - s->drafts_done, DR_OUT_BATCH);
    switch (s->state) {
    case AT_PASS:
        if (s->pass++ > 0) s->n_rows = s->n_absorbed = dr_shape_drafting(s->shape, s->pass);
        s->drafts_done = 0;
        s->state = s->l->mtp && s->n_rows > 0 ? AT_PASS_EMBED : AT_DONE;
        return false;
    case AT_PASS_EMBED:
        s->layer = s->c->n_layer;
        s->layer_end = s->layer + 1;
        s->state = AT_LAYER;
        return say(out, DR_CALL_ALLREDUCE, DR_GROUP_STAGE, DR_WHAT_EMBED, s->layer, s->pass,
                   activation_bytes(s) * (uint64_t)s->l->tp);
    case AT_DRAFT:
        if (rows == 0) {
            s->state = AT_PASS;
            return false;
        }
        s->batch++;
        s->state = AT_DRAFT_PICK;
        return sampler_call(s, out, DR_WHAT_SAMPLE_MAX, s->batch - 1, rows, DR_SAMPLE_MAX_BYTES);
    default:
        s->state = AT_DRAFT;
        s->drafts_done += rows;
        return sampler_call(s, out, DR_WHAT_SAMPLE_PICK, s->batch - 1, rows, DR_SAMPLE_PICK_BYTES);
    }
}

bool dr_schedule_next(struct dr_schedule *s, struct dr_call *out) {
    while (s->state != AT_DONE) {
        bool said = s->state < AT_LAYER  ? start(s, out)
                    : s->state < AT_END  ? layer(s, out)
                    : s->state == AT_END ? end(s, out)
                    : s->state < AT_PASS ? sampler(s, out)
                                         : draft(s, out);
        if (said) return true;
    }
    return false;
}

void dr_schedule_walk(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape,
                      int32_t stage, int32_t cache_group, dr_call_visit *visit, void *arg) {
    struct dr_schedule s;
    struct dr_call call;
    dr_schedule_begin(&s, c, l, shape, stage, cache_group);
    while (dr_schedule_next(&s, &call)) visit(arg, &call);
}

static uint64_t mix(uint64_t h, uint64_t v) { /* SplitMix64's finaliser over a running sum */
    h = (h ^ v) + 0x9E3779B97F4A7C15u;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

/* Stands before a list that holds one layer in place of all: every main layer of a stage has the same calls.
 */
static int32_t begin_short(struct dr_schedule *s, const struct dr_config *c, const struct dr_layout *l,
                           const struct dr_step_shape *shape, int32_t stage) {
    dr_schedule_begin(s, c, l, shape, stage, 0);
    int32_t layers = s->layer_end - s->layer;
    s->layer_end = s->layer + dr_min_i32(layers, 1);
    return layers;
}

uint64_t dr_schedule_hash(const struct dr_config *c, const struct dr_layout *l,
                          const struct dr_step_shape *shape) {
    uint64_t h = mix(0, (uint64_t)shape->n_rows);
    for (int32_t stage = 0; stage < l->pp; stage++) {
        struct dr_schedule s;
        struct dr_call call;
        h = mix(h, (uint64_t)begin_short(&s, c, l, shape, stage));
        while (dr_schedule_next(&s, &call)) {
            h = mix(h, (uint64_t)call.kind << 24 | (uint64_t)call.group << 16 | (uint64_t)call.what << 8);
            h = mix(h, (uint64_t)(uint16_t)call.layer << 32 | (uint64_t)(uint32_t)call.index);
            h = mix(h, call.bytes);
        }
    }
    return h;
}

void dr_schedule_cost(const struct dr_config *c, const struct dr_layout *l, const struct dr_step_shape *shape,
                      int32_t stage, uint64_t *bytes, int32_t *calls) {
    struct dr_schedule s;
    struct dr_call call;
    int32_t layers = begin_short(&s, c, l, shape, stage);
    *bytes = 0;
    *calls = 0;
    while (dr_schedule_next(&s, &call)) {
        int32_t times = call.layer >= 0 && call.layer < c->n_layer ? layers : 1;
        *bytes += call.bytes * (uint64_t)times;
        *calls += times;
    }
}
