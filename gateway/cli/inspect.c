/* inspect.c - what a model is and what it needs.
 * In:   MODEL, layout flags.      Out: a table, or one JSON object.
 * Owns: nothing.
 * Why:  the numbers a person wants before starting: sizes, cache bytes a token, memory of each rank. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/cli/command.h"
#include "gateway/cluster/resolve.h"
#include "model/roles.h"
#include "model/tensors.h"
#include "model/wish.h"

struct facts {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_machine machine;
    uint64_t total, active, mtp; /* parameters; active: of one token; mtp: of the extra layer, in neither */
    int32_t n_tensor;
    uint64_t file_bytes;
};

static uint64_t role_size(const struct dr_config *c, enum dr_role role) {
    int32_t rows, cols;
    dr_role_shape(c, role, &rows, &cols);
    return (uint64_t)rows * (uint64_t)cols;
}

/* Parameters of a layer; experts: how many of them to count. */
static uint64_t layer_size(const struct dr_config *c, int32_t layer, int32_t experts) {
    uint64_t sum = 0;
    for (int r = 0; r < DR_ROLE_COUNT; r++) {
        const enum dr_role role = (enum dr_role)r;
        const enum dr_role_scope scope = dr_role_scope(role);
        if (scope == DR_SCOPE_MODEL || !dr_role_wanted(c, role, layer)) continue;
        sum += role_size(c, role) * (scope == DR_SCOPE_EXPERT ? (uint64_t)experts : 1);
    }
    return sum;
}

/* active counts the head and not the embedding: a token reads one row of it. */
static void count(struct facts *f) {
    const struct dr_config *c = &f->config;
    const uint64_t embed = role_size(c, DR_ROLE_EMBED), head = c->tied ? 0 : role_size(c, DR_ROLE_HEAD);
    f->total = embed + head + role_size(c, DR_ROLE_NORM);
    f->active = (c->tied ? embed : head) + role_size(c, DR_ROLE_NORM);
    for (int32_t l = 0; l < c->n_layer; l++) {
        f->total += layer_size(c, l, c->n_expert);
        f->active += layer_size(c, l, c->n_active);
    }
    for (int32_t l = c->n_layer; l < c->n_layer + c->n_mtp; l++) f->mtp += layer_size(c, l, c->n_expert);
}

static dr_status learn(struct dr_options *o, struct facts *f, struct dr_tensors **t) {
    const char *dir = dr_option_text(o, DR_OPTION_MODEL);
    DR_TRY(dr_config_load(dir, &f->config));
    count(f);
    DR_TRY(dr_tensors_open(dir, &f->config, t));
    f->n_tensor = dr_tensors_count(*t);
    f->file_bytes = dr_tensors_bytes(*t);
    DR_TRY(dr_machine_read(&f->machine));
    DR_TRY(dr_resolve_tp(&f->machine, o, &f->config, 0));
    const struct dr_layout_wish wish = dr_wish_of(o, &f->config);
    return dr_layout_make(&f->config, &wish, &f->layout);
}

/* ---- for people ---- */

static void print_model(const struct facts *f) {
    const struct dr_config *c = &f->config;
    char bytes[32];
    printf("family        %s\n", c->model_type);
    printf("parameters    %.2f M, %.2f M active a token", (double)f->total / 1e6, (double)f->active / 1e6);
    if (f->mtp) printf(" (and %.2f M in the MTP layer)", (double)f->mtp / 1e6);
    printf("\ncheckpoint    %d tensors, %s%s\n", f->n_tensor, dr_bytes_text(f->file_bytes, bytes),
           c->fp8 ? ", FP8 blocks" : "");
    printf("layers        %d (%d dense), hidden %d, vocabulary %d, context %d\n", c->n_layer,
           c->n_expert ? c->n_dense_layer : c->n_layer, c->dim, c->vocab, c->n_position);
    printf("attention     %d heads, latent %d, rotated key %d, query rank %d, head dims %d + %d, value %d\n",
           c->n_head, c->kv_lora, c->rope_dim, c->q_lora, c->nope_dim, c->rope_dim, c->v_dim);
    if (c->n_expert)
        printf("experts       %d of width %d, %d a token, %d shared, %d groups of which %d\n", c->n_expert,
               c->expert_dim, c->n_active, c->n_shared, c->n_group, c->n_group_active);
}

static void print_ranks(const struct facts *f, const struct dr_tensors *t) {
    const struct dr_layout *l = &f->layout;
    char text[5][32];
    size_t all = 0;
    printf("cache         %zu bytes a token (%s), page %d tokens\n", dr_footprint_token_bytes(&f->config, l),
           dr_cache_type_name(l->cache_type), l->page_tokens);
    printf("layout        tp %d, pp %d, c %d, experts %s, %d sequences of %d tokens, %d pages\n\n", l->tp,
           l->pp, l->c, dr_expert_cut_name(l->experts), l->seqs_max, l->context, l->n_page);
    printf(
        "rank  stage  layers    heads     weights       cache         workspace     collective    total\n");
    for (int32_t r = 0; r < l->n_rank; r++) {
        const struct dr_shard s = dr_layout_shard(&f->config, l, r);
        const struct dr_footprint p = dr_footprint_rank(&f->config, t, l, r);
        char layers[32], heads[32];
        snprintf(layers, sizeof layers, "%d-%d", s.layers.begin, s.layers.end - 1);
        snprintf(heads, sizeof heads, "%d-%d", s.heads.begin, s.heads.end - 1);
        printf("%-5d %-6d %-9s %-9s %-13s %-13s %-13s %-13s %s\n", r, s.stage, layers, heads,
               dr_bytes_text(p.weights, text[0]), dr_bytes_text(p.cache, text[1]),
               dr_bytes_text(p.workspace, text[2]), dr_bytes_text(p.collective, text[3]),
               dr_bytes_text(p.total, text[4]));
        all += p.total;
    }
    printf("\nall ranks     %s; free on this machine %s\n", dr_bytes_text(all, text[0]),
           dr_bytes_text(f->machine.free_bytes, text[1]));
}

/* ---- for programs ---- */

static json_t *ranks_json(const struct facts *f, const struct dr_tensors *t) {
    json_t *out = json_array();
    for (int32_t r = 0; r < f->layout.n_rank; r++) {
        const struct dr_shard s = dr_layout_shard(&f->config, &f->layout, r);
        const struct dr_footprint p = dr_footprint_rank(&f->config, t, &f->layout, r);
        json_t *row = json_pack("{s:i,s:i,s:[i,i],s:[i,i],s:I,s:I,s:I,s:I,s:I}", "rank", r, "stage", s.stage,
                                "layers", s.layers.begin, s.layers.end, "heads", s.heads.begin, s.heads.end,
                                "weights_bytes", (json_int_t)p.weights, "cache_bytes", (json_int_t)p.cache,
                                "workspace_bytes", (json_int_t)p.workspace, "collective_bytes",
                                (json_int_t)p.collective, "total_bytes", (json_int_t)p.total);
        if (json_array_append_new(out, row) != 0) break;
    }
    return out;
}

static dr_status print_json(const struct facts *f, const struct dr_tensors *t) {
    const struct dr_config *c = &f->config;
    const struct dr_layout *l = &f->layout;
    json_t *model =
        json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b}", "family", c->model_type, "layers",
                  c->n_layer, "dense_layers", c->n_dense_layer, "hidden", c->dim, "vocab", c->vocab, "heads",
                  c->n_head, "latent", c->kv_lora, "rotated_key", c->rope_dim, "experts", c->n_expert,
                  "active_experts", c->n_active, "context", c->n_position, "mtp", c->n_mtp > 0);
    json_t *sizes =
        json_pack("{s:I,s:I,s:I,s:i,s:I,s:I}", "parameters", (json_int_t)f->total, "active_parameters",
                  (json_int_t)f->active, "mtp_parameters", (json_int_t)f->mtp, "tensors", f->n_tensor,
                  "checkpoint_bytes", (json_int_t)f->file_bytes, "cache_bytes_per_token",
                  (json_int_t)dr_footprint_token_bytes(c, l));
    json_t *layout =
        json_pack("{s:i,s:i,s:i,s:s,s:s,s:i,s:i,s:i}", "tp", l->tp, "pp", l->pp, "c", l->c, "experts",
                  dr_expert_cut_name(l->experts), "cache_type", dr_cache_type_name(l->cache_type), "context",
                  l->context, "seqs_max", l->seqs_max, "pages", l->n_page);
    json_t *out = json_pack("{s:o,s:o,s:o,s:o}", "model", model, "sizes", sizes, "layout", layout, "ranks",
                            ranks_json(f, t));
    return dr_output_json(out);
}

dr_status dr_inspect(struct dr_options *o, struct dr_interrupt *i) {
    (void)i;
    if (!dr_option_present(o, DR_OPTION_MODEL)) return dr_fail(DR_EUSAGE, "no model: deeprack inspect MODEL");
    struct facts *f = calloc(1, sizeof *f);
    struct dr_tensors *t = NULL;
    dr_status st = f ? learn(o, f, &t) : dr_fail(DR_EFULL, "no memory");
    if (st.code == DR_OK && dr_option_int(o, DR_OPTION_JSON))
        st = print_json(f, t);
    else if (st.code == DR_OK) {
        print_model(f);
        print_ranks(f, t);
        if (fflush(stdout) != 0) st = dr_fail(DR_ECANCEL, "%s", "");
    }
    if (t) dr_tensors_destroy(t);
    free(f);
    return st;
}
