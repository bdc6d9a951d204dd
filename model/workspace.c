/* workspace.c - see workspace.h.
 * In:   config, layout, rank.      Out: the map of the step's block.
 * Owns: nothing.
 * Why:  one table gives names, sizes and places. */

#include "model/workspace.h"

#include <assert.h>

#include "common/size.h"
#include "model/footprint.h"
#include "model/schedule.h"

/* Parts of (row, split) that absorbed attention may hold at once: enough to keep 16 threads busy with one
 * row. */
enum { ABSORBED_PARTS = 33 };

/* kernels/experts.h: pairs of a batch of experts, at least; kernels/x86/matrix.h: rows of a pass over
 * weights. */
enum { MOE_PAIRS_LEAST = 64, INPUT_ROWS = 256 };

struct counts {
    size_t rows, slots, slot_pages, bias, top, result_bytes;
    size_t dim, q_lora, lat, rope, nope, v, qk, row, row_bytes, heads, group_heads;
    size_t c, cut, value, tp, absorbed, scratch_parts, keys, boundary;
    size_t experts, active, moe_scratch, input;
    size_t last, out, vocab, sample_bytes,
        mtp; /* last: 1 on the last stage, else 0; cut: 1 when c > 1; value:
           with the value exchange, too; mtp: the rank has that layer */
};

static bool has_layer(const struct dr_config *c, const struct dr_shard *s, bool moe) {
    for (int32_t i = s->layers.begin; i < s->layers.end; i++)
        if (dr_config_is_moe(c, i) == moe) return true;
    return s->mtp && dr_config_is_moe(c, c->n_layer) == moe;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* One row of n inputs as a product's kernel wants it: at most 4 bytes an input, padding, and 8 bytes a block.
 */
static size_t prepared(size_t n) {
    return dr_size_align((n + 8) * 4 + (n / 128 + 2) * 8, 64);
}

/* Scratch of the experts' op: prepared rows; hidden rows of a batch of experts, plain and prepared; token and
 * weight of each pair; two lists of experts; alignment. */
static size_t expert_scratch(size_t rows, size_t dim, size_t width, size_t active, size_t experts) {
    size_t pairs = rows * (smaller(active, experts) + 1);
    size_t hidden = smaller(pairs, larger(2 * rows, MOE_PAIRS_LEAST));
    return dr_size_align(rows * prepared(dim) + hidden * (width * 4 + prepared(width)) + pairs * 8 +
                             (2 * experts + 3) * 4 + 320,
                         64);
}

size_t dr_workspace_moe_scratch(const struct dr_config *c, const struct dr_layout *l, int32_t rank) {
    struct dr_shard s = dr_layout_shard(c, l, rank);
    size_t rows = (size_t)l->step_tokens, dim = (size_t)c->dim, bytes = 0;
    size_t width = (size_t)dr_max_i32(dr_range_len(s.expert_cols), dr_range_len(s.shared_cols));
    if (has_layer(c, &s, true))
        bytes = expert_scratch(rows, dim, width, (size_t)c->n_active, (size_t)dr_range_len(s.experts));
    if (has_layer(c, &s, false)) /* a dense block is one shared expert */
        bytes = larger(bytes, expert_scratch(rows, dim, (size_t)dr_range_len(s.mlp_cols), 0, 0));
    return bytes;
}

/* Prepared inputs of one product: of as many rows as share a pass over the weights, or one row of all heads.
 */
static size_t input_bytes(const struct dr_config *c, const struct dr_layout *l, const struct dr_shard *s) {
    size_t heads = (size_t)dr_ceil_div(c->n_head, l->tp), lat = (size_t)c->kv_lora, dim = (size_t)c->dim;
    size_t widest =
        larger(larger(s->mtp ? 2 * dim : dim, (size_t)c->q_lora), larger(heads * (size_t)c->v_dim, lat));
    size_t rows = smaller((size_t)l->step_tokens, INPUT_ROWS);
    return larger(rows * prepared(widest), heads * prepared(larger(lat, (size_t)c->nope_dim)));
}

static size_t boundary_floats(const struct dr_config *c, const struct dr_layout *l) {
    if (l->pp == 1) return 0;
    size_t elements = (size_t)l->step_tokens * (size_t)c->dim;
    return DR_BOUNDARY_HEADER / 4 + elements / (size_t)l->tp + 1;
}

static struct counts count(const struct dr_config *c, const struct dr_layout *l, int32_t rank) {
    struct dr_shard s = dr_layout_shard(c, l, rank);
    bool moe = has_layer(c, &s, true);
    int32_t out = dr_min_i32(l->step_tokens, DR_OUT_BATCH);
    return (struct counts){
        .rows = (size_t)l->step_tokens,
        .slots = (size_t)l->seqs_max,
        .slot_pages = (size_t)dr_ceil_div(l->context, l->page_tokens),
        .bias = DR_WORK_BIAS_MAX,
        .top = DR_WORK_TOP_MAX,
        .result_bytes = DR_WORK_RESULT_BYTES,
        .dim = (size_t)c->dim,
        .q_lora = (size_t)c->q_lora,
        .lat = (size_t)c->kv_lora,
        .rope = (size_t)c->rope_dim,
        .nope = (size_t)c->nope_dim,
        .v = (size_t)c->v_dim,
        .qk = (size_t)dr_config_qk_dim(c),
        .row = (size_t)dr_config_row_dim(c),
        .row_bytes = dr_footprint_row_bytes(c, l->cache_type),
        .heads = (size_t)dr_range_len(s.heads),
        .group_heads = (size_t)dr_range_len(s.group_heads),
        .c = (size_t)l->c,
        .cut = l->c > 1,
        .value = l->c > 1 && l->exchange == DR_EXCHANGE_VALUE,
        .tp = (size_t)l->tp,
        .absorbed = (size_t)dr_min_i32(l->step_tokens, DR_ABSORBED_BATCH),
        .scratch_parts = ABSORBED_PARTS,
        .keys = (size_t)DR_PIECE_PAGES * (size_t)l->page_tokens,
        .boundary = boundary_floats(c, l),
        .experts = moe ? (size_t)c->n_expert : 0,
        .active = moe ? (size_t)c->n_active : 0,
        .moe_scratch = dr_workspace_moe_scratch(c, l, rank),
        .input = input_bytes(c, l, &s),
        .last = s.last,
        .mtp = s.mtp,
        .out = (size_t)out,
        .vocab = (size_t)dr_range_len(s.vocab),
        .sample_bytes = DR_SAMPLE_BINS_BYTES,
    };
}

void dr_workspace_map(const struct dr_config *c, const struct dr_layout *l, int32_t rank,
                      struct dr_work_map *out) {
    /* phase after which each phase starts */
    static const enum dr_work_phase after[DR_WORK_PHASE_COUNT] = {
        [DR_WORK_STATE] = DR_WORK_STATE,   [DR_WORK_STEP] = DR_WORK_STATE,    [DR_WORK_ATTN] = DR_WORK_STEP,
        [DR_WORK_ABSORBED] = DR_WORK_ATTN, [DR_WORK_EXPANDED] = DR_WORK_ATTN, [DR_WORK_FFN] = DR_WORK_STEP,
        [DR_WORK_OUT] = DR_WORK_STEP,      [DR_WORK_DRAFT] = DR_WORK_STEP,
    };
#define DR_X_(name, phase, elements, bytes) DR_WORK_##phase,
    static const enum dr_work_phase phase_of[DR_BUF_COUNT] = {DR_WORK_BUFFERS(DR_X_)};
#undef DR_X_
    const struct counts counted = count(c, l, rank), *n = &counted;
#define DR_X_(name, phase, elements, bytes) (elements) * (size_t)(bytes),
    const size_t size[DR_BUF_COUNT] = {DR_WORK_BUFFERS(DR_X_)};
#undef DR_X_
    static_assert(DR_SAMPLE_BINS_BYTES >= DR_SAMPLE_TOP_BYTES * DR_WORK_TOP_MAX,
                  "SAMPLE_IN holds every call's rows");
    size_t end[DR_WORK_PHASE_COUNT] = {0};
    *out = (struct dr_work_map){0};
    for (int phase = 0; phase < DR_WORK_PHASE_COUNT; phase++) {
        size_t at = end[after[phase]];
        for (int i = 0; i < DR_BUF_COUNT; i++) {
            if ((int)phase_of[i] != phase) continue;
            out->offset[i] = at;
            out->size[i] = size[i];
            at += dr_size_align(size[i], 64);
        }
        end[phase] = at;
        if (at > out->bytes) out->bytes = at;
    }
}

size_t dr_workspace_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank) {
    struct dr_work_map map;
    dr_workspace_map(c, l, rank, &map);
    return map.bytes;
}

/* A sum through shared memory is staged twice, and its slices once more; exchanges have half of a slot. */
static size_t call_bytes(const struct dr_work_map *map) {
    const bool value = map->size[DR_BUF_Q_ALL] > 0;
    size_t most = larger(map->size[DR_BUF_HIDDEN], map->size[value ? DR_BUF_Q_ALL : DR_BUF_U]);
    most = larger(most, larger(map->size[DR_BUF_PART_IN], map->size[value ? DR_BUF_PART_V : DR_BUF_PART]));
    most = larger(most, map->size[DR_BUF_GATHERED]);
    most = larger(most, map->size[DR_BUF_SAMPLE_ALL]);
    size_t least = DR_GROUP_CALL_LEAST;
    return dr_size_align(larger(smaller(most, DR_GROUP_CALL_MOST / 3) * 3, least), 64);
}

struct dr_group_room dr_workspace_group(const struct dr_config *c, const struct dr_layout *l, int32_t rank,
                                        enum dr_call_group group) {
    struct dr_work_map map;
    dr_workspace_map(c, l, rank, &map);
    if (group == DR_GROUP_PIPE && l->pp > 1)
        return (struct dr_group_room){
            .message_bytes = smaller(dr_size_align(map.size[DR_BUF_BOUNDARY], 128), DR_GROUP_MESSAGE_MOST)};
    if ((group == DR_GROUP_STAGE && l->tp > 1) || (group == DR_GROUP_CACHE && l->c > 1))
        return (struct dr_group_room){.call_bytes = call_bytes(&map)};
    return (struct dr_group_room){0};
}

size_t dr_workspace_collective_bytes(const struct dr_config *c, const struct dr_layout *l, int32_t rank) {
    size_t sum = 0;
    for (int g = 0; g < DR_GROUP_COUNT; g++) {
        struct dr_group_room r = dr_workspace_group(c, l, rank, (enum dr_call_group)g);
        if (r.call_bytes + r.message_bytes > 0)
            sum += r.call_bytes + 2 * r.message_bytes + DR_GROUP_CONTROL_BYTES;
    }
    return sum;
}
