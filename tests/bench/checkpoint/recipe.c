/* recipe.c - see recipe.h.
 * In:   config.      Out: list of tensors.
 * Owns: see recipe.h.
 * Why:  see recipe.h. */
#include "tests/bench/checkpoint/recipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "model/index.h"
#include "model/roles.h"

enum { BLOCK = 128, FILES_MAX = DR_INDEX_FILES_MAX };

/* A walk over the model's tensors that counts them, or also lists them. */
struct walk {
    struct dr_recipe *r;
    enum dr_dtype weights;
    uint64_t file_bytes;
    bool list;
    int32_t n_tensor, n_file;
    uint64_t in_file; /* bytes of the newest file */
};

static uint64_t bytes_of(const struct dr_recipe_tensor *t) {
    return (uint64_t)t->rows * (uint64_t)t->cols * dr_dtype_bytes(t->dtype);
}

static void add(struct walk *w, enum dr_role role, int32_t layer, int32_t expert) {
    struct dr_recipe_tensor pair[2] = {{.role = role, .layer = layer, .expert = expert}};
    dr_role_shape(&w->r->config, role, &pair[0].rows, &pair[0].cols);
    pair[0].dtype = w->weights == DR_DTYPE_BF16 ? DR_DTYPE_BF16 : dr_role_usual_dtype(&w->r->config, role);
    pair[0].bytes = bytes_of(&pair[0]);
    int n = 1;
    if (pair[0].dtype == DR_DTYPE_F8_E4M3) {
        pair[1] = pair[0];
        pair[1].scale = true;
        pair[1].dtype = DR_DTYPE_F32;
        pair[1].rows = dr_ceil_div(pair[0].rows, BLOCK);
        pair[1].cols = dr_ceil_div(pair[0].cols, BLOCK);
        pair[1].bytes = bytes_of(&pair[1]);
        n = 2;
    }
    uint64_t bytes = pair[0].bytes + pair[1].bytes;
    if (w->n_file == 0 || w->in_file + bytes > w->file_bytes) { /* a weight and its scales stay together */
        w->n_file++;
        w->in_file = 0;
    }
    w->in_file += bytes;
    for (int i = 0; i < n && w->list; i++) {
        pair[i].file = w->n_file - 1;
        w->r->tensor[w->n_tensor + i] = pair[i];
    }
    w->n_tensor += n;
}

static void add_layer(struct walk *w, int32_t layer) {
    const struct dr_config *c = &w->r->config;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        if (dr_role_scope(role) == DR_SCOPE_LAYER && dr_role_wanted(c, role, layer)) add(w, role, layer, -1);
    }
    for (int32_t e = 0; e < c->n_expert; e++) {
        for (int role = 0; role < DR_ROLE_COUNT; role++) {
            if (dr_role_scope(role) == DR_SCOPE_EXPERT && dr_role_wanted(c, role, layer))
                add(w, role, layer, e);
        }
    }
}

static void run(struct walk *w) {
    const struct dr_config *c = &w->r->config;
    add(w, DR_ROLE_EMBED, -1, -1);
    for (int32_t layer = 0; layer < c->n_layer + c->n_mtp; layer++) add_layer(w, layer);
    add(w, DR_ROLE_NORM, -1, -1);
    if (dr_role_wanted(c, DR_ROLE_HEAD, 0)) add(w, DR_ROLE_HEAD, -1, -1);
}

/* The places within each file: wide types first, so that every tensor is aligned to its own type. */
static void place(struct dr_recipe *r, struct dr_recipe_tensor *sorted) {
    int32_t from = 0, at = 0;
    for (int32_t f = 0; f < r->n_file; f++) {
        struct dr_recipe_file *file = &r->file[f];
        int32_t end = from;
        while (end < r->n_tensor && r->tensor[end].file == f) end++;
        *file = (struct dr_recipe_file){.first = from, .n_tensor = end - from};
        for (size_t size = 4; size >= 1; size /= 2) {
            for (int32_t i = from; i < end; i++) {
                struct dr_recipe_tensor t = r->tensor[i];
                if (dr_dtype_bytes(t.dtype) != size) continue;
                t.begin = file->data_bytes;
                file->data_bytes += t.bytes;
                sorted[at++] = t;
            }
        }
        r->data_bytes += file->data_bytes;
        from = end;
    }
}

static void sum_up(struct dr_recipe *r) {
    for (int32_t i = 0; i < r->n_tensor; i++) {
        const struct dr_recipe_tensor *t = &r->tensor[i];
        if (!t->scale) r->n_param += (uint64_t)t->rows * (uint64_t)t->cols;
    }
}

dr_status dr_recipe_init(const struct dr_config *c, enum dr_dtype weights, uint64_t file_bytes,
                         struct dr_recipe *out) {
    DR_ASSERT(weights == DR_DTYPE_BF16 || weights == DR_DTYPE_F8_E4M3);
    struct dr_recipe r = {.config = *c};
    r.config.fp8 = weights == DR_DTYPE_F8_E4M3;
    r.config.fp8_block = r.config.fp8 ? BLOCK : 0;
    struct walk count = {.r = &r, .weights = weights, .file_bytes = file_bytes}, list = count;
    run(&count);
    if (count.n_file > FILES_MAX)
        return dr_fail(DR_EFULL,
                       "the checkpoint would have %d files, and an index names at most %d: take a larger "
                       "--shard-bytes than %llu",
                       count.n_file, FILES_MAX, (unsigned long long)file_bytes);
    r.n_tensor = count.n_tensor;
    r.n_file = count.n_file;
    r.tensor = calloc((size_t)r.n_tensor, sizeof *r.tensor);
    r.file = calloc((size_t)r.n_file, sizeof *r.file);
    struct dr_recipe_tensor *sorted = calloc((size_t)r.n_tensor, sizeof *sorted);
    if (!r.tensor || !r.file || !sorted) {
        free(sorted);
        dr_recipe_fini(&r);
        return dr_fail(DR_EFULL, "no memory for a list of %d tensors", count.n_tensor);
    }
    list.list = true;
    run(&list);
    place(&r, sorted);
    free(r.tensor);
    r.tensor = sorted;
    sum_up(&r);
    *out = r;
    return dr_ok();
}

void dr_recipe_fini(struct dr_recipe *r) {
    free(r->tensor);
    free(r->file);
    *r = (struct dr_recipe){0};
}

void dr_recipe_name(const struct dr_recipe_tensor *t, char *out) {
    int n = dr_tensors_name(t->role, t->layer, t->expert, out, DR_RECIPE_NAME_MAX);
    DR_ASSERT(n > 0 && n < DR_TENSOR_NAME_MAX);
    if (t->scale) (void)snprintf(out + n, (size_t)(DR_RECIPE_NAME_MAX - n), "_scale_inv");
}

void dr_recipe_file_name(const struct dr_recipe *r, int32_t file, char *out) {
    if (r->n_file == 1)
        (void)snprintf(out, DR_RECIPE_NAME_MAX, "model.safetensors");
    else
        (void)snprintf(out, DR_RECIPE_NAME_MAX, "model-%05d-of-%05d.safetensors", file + 1, r->n_file);
}

/* 1 / sqrt(inputs) keeps activations of size 1 at size 1 through a matrix; router logits of size 1 spread
 * their sigmoids over 0.27 to 0.73. A tied embedding is the head, too, and takes the head's size: the first
 * norm brings the stream back to 1. */
struct dr_values dr_recipe_values(const struct dr_recipe *r, const struct dr_recipe_tensor *t,
                                  uint64_t seed) {
    char name[DR_RECIPE_NAME_MAX];
    int32_t rows = 0, inputs = 0;
    dr_recipe_name(t, name);
    dr_role_shape(&r->config, t->role, &rows, &inputs);
    struct dr_values v = {.key = dr_values_key(seed, name), .dtype = t->dtype};
    v.form = t->scale ? DR_VALUES_SCALES : DR_VALUES_NORMAL;
    v.sigma = 1 / sqrt(inputs);
    if (t->role == DR_ROLE_EMBED && !r->config.tied) v.sigma = 1;
    if (dr_role_form(t->role) == DR_FORM_BIAS) v.sigma = 0.01; /* a twentieth of the scores' spread */
    if (dr_role_form(t->role) == DR_FORM_VECTOR) {
        v.mean = 1;
        v.sigma = 0.1;
    }
    return v;
}
