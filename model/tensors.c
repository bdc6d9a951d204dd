/* tensors.c - opens a checkpoint and resolves every weight of the config.
 * In:   a folder, the config.      Out: the table.
 * Owns: descriptors, names and the table.
 * Why:  see tensors.h. Slots are numbered by (role, layer, expert), so that no string is compared after
 * opening. */
#include "model/tensors.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/size.h"
#include "model/folder.h"
#include "model/header.h"
#include "model/index.h"
#include "model/roles.h"

enum {
    BLOCK = 128,
    N_MODEL_ROLES = DR_ROLE_HEAD + 1,
    N_EXPERT_ROLES = DR_ROLE_EXPERT_DOWN - DR_ROLE_EXPERT_GATE + 1,
    N_LAYER_ROLES = DR_ROLE_COUNT - N_MODEL_ROLES - N_EXPERT_ROLES,
    POOL_BYTES = 1 << 16,
    COPIES_MAX = 3, /* MTP layer's embedding and head, a tied model's head */
    COMPARE_BYTES = 1 << 20,
    SHAPE_TEXT = 128,
};
static_assert(N_MODEL_ROLES == 3 && N_EXPERT_ROLES == 3, "slots follow the order of DR_ROLES");

struct file {
    char *name; /* owned */
    int fd;
    uint64_t bytes, data_at;
};

struct pool { /* blocks of names, newest first */
    struct pool *next;
    size_t used;
    char text[POOL_BYTES];
};

struct copy { /* a tensor that must equal another one byte for byte */
    char name[DR_TENSOR_NAME_MAX];
    const struct file *file;
    enum dr_role of;
    enum dr_dtype dtype;
    uint64_t offset, bytes;
};

struct dr_tensors {
    struct dr_config c;
    struct file *files;
    int32_t n_file;
    struct dr_tensor *slots; /* name NULL: not found (yet) */
    struct pool *names;
    struct copy copies[COPIES_MAX];
    int32_t n_copy, count;
    uint64_t bytes, hash;
    EVP_MD_CTX *digest; /* while opening */
};

struct visit { /* of one file's header */
    struct dr_tensors *t;
    struct dr_index *index; /* NULL: a single file */
    const struct file *file;
};

static const char *const dtype_names[DR_DTYPE_COUNT] = {"F32", "BF16", "F16", "F8_E4M3", "I8"};

const char *dr_dtype_name(enum dr_dtype t) {
    return dtype_names[t];
}

static size_t slot_stride(const struct dr_config *c) {
    return N_LAYER_ROLES + N_EXPERT_ROLES * (size_t)c->n_expert;
}

static size_t slot_of(const struct dr_config *c, enum dr_role role, int32_t layer, int32_t expert) {
    if (dr_role_scope(role) == DR_SCOPE_MODEL) return role;
    size_t at = N_MODEL_ROLES + (size_t)layer * slot_stride(c);
    if (dr_role_scope(role) == DR_SCOPE_EXPERT)
        return at + N_LAYER_ROLES + (size_t)expert * N_EXPERT_ROLES + (size_t)(role - DR_ROLE_EXPERT_GATE);
    return at + (size_t)(role < DR_ROLE_EXPERT_GATE ? role - N_MODEL_ROLES
                                                    : role - N_MODEL_ROLES - N_EXPERT_ROLES);
}

static int32_t layers_of(const struct dr_config *c) {
    return c->n_layer + c->n_mtp;
}

/* --- one entry of a header --- */

static const char *keep_name(struct dr_tensors *t, const char *name) {
    size_t n = strlen(name) + 1;
    DR_ASSERT(n <= DR_TENSOR_NAME_MAX); /* names of known roles are short */
    if (!t->names || t->names->used + n > POOL_BYTES) {
        struct pool *p = malloc(sizeof *p);
        if (!p) return NULL;
        p->next = t->names;
        p->used = 0;
        t->names = p;
    }
    char *kept = memcpy(t->names->text + t->names->used, name, n);
    t->names->used += n;
    return kept;
}

static const char *shape_text(const uint64_t *shape, int32_t n, char *out) {
    int at = snprintf(out, SHAPE_TEXT, "[");
    for (int32_t i = 0; i < n && at < SHAPE_TEXT - 32; i++)
        at += snprintf(out + at, SHAPE_TEXT - (size_t)at, "%s%" PRIu64, i ? ", " : "", shape[i]);
    snprintf(out + at, SHAPE_TEXT - (size_t)at, "]");
    return out;
}

static dr_status check_shape(const struct dr_header_entry *e, int32_t rows, int32_t cols, bool vector) {
    const uint64_t wanted[2] = {(uint64_t)rows, (uint64_t)cols};
    const uint64_t *expected = vector ? wanted + 1 : wanted;
    int32_t n = vector ? 1 : 2;
    if (e->n_shape == n && memcmp(e->shape, expected, (size_t)n * sizeof *expected) == 0) return dr_ok();
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    return dr_fail(DR_EMODEL, "tensor %s: expected shape %s, found %s", e->name, shape_text(expected, n, a),
                   shape_text(e->shape, e->n_shape, b));
}

static enum dr_dtype dtype_of(const char *name) { /* DR_DTYPE_COUNT: none of ours */
    int t = 0;
    while (t < DR_DTYPE_COUNT && strcmp(name, dtype_names[t]) != 0) t++;
    return (enum dr_dtype)t;
}

static dr_status check_dtype(const struct dr_header_entry *e, enum dr_role_form form, enum dr_dtype *out) {
    static const char *const expected[] = {[DR_FORM_LINEAR] = "F32, F16, BF16 or F8_E4M3",
                                           [DR_FORM_PLAIN] = "F32, F16 or BF16",
                                           [DR_FORM_VECTOR] = "F32, F16 or BF16",
                                           [DR_FORM_BIAS] = "F32 or BF16"};
    enum dr_dtype t = dtype_of(e->dtype);
    bool legal = t == DR_DTYPE_F32 || t == DR_DTYPE_BF16 || (t == DR_DTYPE_F16 && form != DR_FORM_BIAS) ||
                 (t == DR_DTYPE_F8_E4M3 && form == DR_FORM_LINEAR);
    if (!legal)
        return dr_fail(DR_EMODEL, "tensor %s: expected dtype %s, found %s", e->name, expected[form],
                       e->dtype);
    *out = t;
    return dr_ok();
}

static dr_status place_weight(const struct visit *v, const struct dr_header_entry *e,
                              const struct dr_role_name *r) {
    struct dr_tensor *slot = &v->t->slots[slot_of(&v->t->c, r->role, r->layer, r->expert)];
    enum dr_role_form form = dr_role_form(r->role);
    if (slot->name)
        return dr_fail(DR_EMODEL, "tensor %s: found a second time, first in %s", e->name, slot->file);
    dr_role_shape(&v->t->c, r->role, &slot->rows, &slot->cols);
    DR_TRY(check_shape(e, slot->rows, slot->cols, form == DR_FORM_VECTOR || form == DR_FORM_BIAS));
    DR_TRY(check_dtype(e, form, &slot->dtype));
    slot->name = keep_name(v->t, e->name);
    if (!slot->name) return dr_fail(DR_EFULL, "tensor %s: no memory", e->name);
    slot->fd = v->file->fd;
    slot->file = v->file->name;
    slot->offset = v->file->data_at + e->begin;
    return dr_ok();
}

static dr_status place_scale(const struct visit *v, const struct dr_header_entry *e,
                             const struct dr_role_name *r) {
    struct dr_tensor *slot = &v->t->slots[slot_of(&v->t->c, r->role, r->layer, r->expert)];
    int32_t rows, cols;
    if (dr_role_form(r->role) != DR_FORM_LINEAR)
        return dr_fail(DR_EMODEL, "tensor %s: a scale for a tensor that is never FP8", e->name);
    if (slot->scale_file)
        return dr_fail(DR_EMODEL, "tensor %s: found a second time, first in %s", e->name, slot->scale_file);
    dr_role_shape(&v->t->c, r->role, &rows, &cols);
    slot->scale_rows = dr_ceil_div(rows, BLOCK);
    slot->scale_cols = dr_ceil_div(cols, BLOCK);
    DR_TRY(check_shape(e, slot->scale_rows, slot->scale_cols, false));
    if (dtype_of(e->dtype) != DR_DTYPE_F32)
        return dr_fail(DR_EMODEL, "tensor %s: expected dtype F32, found %s", e->name, e->dtype);
    slot->scale_fd = v->file->fd;
    slot->scale_file = v->file->name;
    slot->scale_offset = v->file->data_at + e->begin;
    return dr_ok();
}

static dr_status note_copy(const struct visit *v, const struct dr_header_entry *e, enum dr_role of) {
    int32_t rows, cols;
    DR_ASSERT(v->t->n_copy < COPIES_MAX);
    struct copy *copy = &v->t->copies[v->t->n_copy];
    dr_role_shape(&v->t->c, of, &rows, &cols);
    DR_TRY(check_shape(e, rows, cols, false));
    DR_TRY(check_dtype(e, DR_FORM_PLAIN, &copy->dtype));
    snprintf(copy->name, sizeof copy->name, "%s", e->name);
    copy->file = v->file;
    copy->of = of;
    copy->offset = v->file->data_at + e->begin;
    copy->bytes = e->end - e->begin;
    v->t->n_copy++;
    return dr_ok();
}

static bool ends_with(const char *name, size_t length, const char *tail) {
    size_t n = strlen(tail);
    return length >= n && strcmp(name + length - n, tail) == 0;
}

static dr_status visit_entry(void *arg, const struct dr_header_entry *e) {
    static const char scale_tail[] = "_scale_inv";
    const struct visit *v = arg;
    const struct dr_config *c = &v->t->c;
    size_t length = strlen(e->name);
    v->t->count++;
    v->t->bytes += e->end - e->begin;
    if (v->index) DR_TRY(dr_index_claim(v->index, e->name, v->file->name));
    bool scale = ends_with(e->name, length, scale_tail);
    struct dr_role_name r = dr_role_parse(e->name, scale ? length - (sizeof scale_tail - 1) : length);
    if (r.known && r.layer < layers_of(c) && r.expert < c->n_expert && dr_role_wanted(c, r.role, r.layer))
        return scale ? place_scale(v, e, &r) : place_weight(v, e, &r);
    if (ends_with(e->name, length, ".rotary_emb.inv_freq")) return dr_ok();
    if (c->n_mtp == 0 && r.layer == c->n_layer)
        return dr_ok(); /* an MTP layer that the config does not announce */
    if (c->n_mtp > 0 && r.layer == c->n_layer && strcmp(r.rest, "embed_tokens.weight") == 0)
        return note_copy(v, e, DR_ROLE_EMBED);
    if (c->n_mtp > 0 && r.layer == c->n_layer && strcmp(r.rest, "shared_head.head.weight") == 0)
        return note_copy(v, e, c->tied ? DR_ROLE_EMBED : DR_ROLE_HEAD);
    if (c->tied && r.known && r.role == DR_ROLE_HEAD && !scale) return note_copy(v, e, DR_ROLE_EMBED);
    char shown[DR_TENSOR_NAME_MAX];
    return dr_fail(DR_EMODEL, "tensor %s: surplus, the config asks for no such tensor",
                   dr_folder_printable(e->name, shown, sizeof shown));
}

/* --- files --- */

static void digest_add(struct dr_tensors *t, const void *bytes, size_t n) {
    DR_ASSERT(EVP_DigestUpdate(t->digest, bytes, n) == 1);
}

static void digest_u64(struct dr_tensors *t, uint64_t v) {
    unsigned char le[8];
    for (int i = 0; i < 8; i++) le[i] = (unsigned char)(v >> (8 * i));
    digest_add(t, le, sizeof le);
}

static dr_status read_header(struct dr_tensors *t, struct dr_index *index, struct file *f) {
    unsigned char word[DR_HEADER_LENGTH_BYTES];
    uint64_t n = 0;
    if (f->bytes < DR_HEADER_LENGTH_BYTES + DR_HEADER_BYTES_MIN)
        return dr_fail(DR_EMODEL, "expected a safetensors file, found only %" PRIu64 " bytes", f->bytes);
    DR_TRY(dr_folder_pread(f->fd, "header length", word, sizeof word, 0));
    for (int i = 0; i < DR_HEADER_LENGTH_BYTES; i++) n |= (uint64_t)word[i] << (8 * i);
    if (n < DR_HEADER_BYTES_MIN || n > DR_HEADER_BYTES_MAX)
        return dr_fail(DR_EMODEL, "expected a header of %d to %d bytes, found %" PRIu64, DR_HEADER_BYTES_MIN,
                       DR_HEADER_BYTES_MAX, n);
    if (n > f->bytes - DR_HEADER_LENGTH_BYTES)
        return dr_fail(DR_EMODEL,
                       "expected a header of %" PRIu64 " bytes, but the file has %" PRIu64 " bytes in all", n,
                       f->bytes);
    char *text = malloc((size_t)n);
    if (!text) return dr_fail(DR_EFULL, "no memory for a header of %" PRIu64 " bytes", n);
    f->data_at = DR_HEADER_LENGTH_BYTES + n;
    struct visit v = {.t = t, .index = index, .file = f};
    dr_status st = dr_folder_pread(f->fd, "header", text, (size_t)n, DR_HEADER_LENGTH_BYTES);
    if (st.code == DR_OK) {
        digest_add(t, f->name, strlen(f->name) + 1);
        digest_u64(t, f->bytes);
        digest_add(t, text, (size_t)n);
        st = dr_tensors_parse_header(text, (size_t)n, f->bytes - f->data_at, visit_entry, &v);
    }
    free(text);
    return st;
}

static dr_status open_file(struct dr_tensors *t, int folder, const char *name, struct dr_index *index) {
    struct file *f = &t->files[t->n_file];
    dr_status st = dr_folder_open_file(folder, name, &f->fd, &f->bytes);
    if (st.code == DR_ENOENT)
        return dr_fail(DR_EMODEL, "%s: file missing, but the index lists tensors in it", name);
    DR_TRY(st);
    t->n_file++;
    f->name = strdup(name);
    if (!f->name) return dr_fail(DR_EFULL, "%s: no memory", name);
    st = read_header(t, index, f);
    return st.code == DR_OK ? st : dr_fail_within(st, "%s: ", name);
}

static dr_status open_shards(struct dr_tensors *t, int folder, struct dr_index *index) {
    int32_t n = dr_index_files(index);
    t->files = calloc((size_t)n, sizeof *t->files);
    if (!t->files) return dr_fail(DR_EFULL, "no memory for %d files", n);
    for (int32_t i = 0; i < n; i++) DR_TRY(open_file(t, folder, dr_index_file(index, i), index));
    return dr_index_finish(index);
}

static dr_status open_files(struct dr_tensors *t, int folder) {
    static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";
    bool has_single = faccessat(folder, single, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    bool has_index = faccessat(folder, index_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (has_single && has_index)
        return dr_fail(DR_EMODEL, "found both %s and %s; remove the one that is out of date", single,
                       index_name);
    if (!has_single && !has_index) return dr_fail(DR_ENOENT, "found neither %s nor %s", single, index_name);
    if (has_single) {
        t->files = calloc(1, sizeof *t->files);
        return t->files ? open_file(t, folder, single, NULL) : dr_fail(DR_EFULL, "no memory for one file");
    }
    char *text = NULL;
    size_t bytes = 0;
    struct dr_index *index = NULL;
    DR_TRY(dr_folder_read(folder, index_name, DR_INDEX_BYTES_MAX, &text, &bytes));
    dr_status st = dr_index_parse(text, bytes, &index);
    free(text);
    if (st.code != DR_OK) return dr_fail_within(st, "%s: ", index_name);
    st = open_shards(t, folder, index);
    dr_index_destroy(index);
    return st;
}

/* --- after all headers --- */

static dr_status check_slot(struct dr_tensors *t, enum dr_role role, int32_t layer, int32_t expert) {
    struct dr_tensor *slot = &t->slots[slot_of(&t->c, role, layer, expert)];
    char name[DR_TENSOR_NAME_MAX];
    dr_tensors_name(role, layer, expert, name, sizeof name);
    if (!slot->name) return dr_fail(DR_EMODEL, "tensor %s: missing, no file has it", name);
    bool fp8 = slot->dtype == DR_DTYPE_F8_E4M3;
    if (fp8 && !slot->scale_file)
        return dr_fail(DR_EMODEL, "%s: tensor %s: is F8_E4M3, but its scale %s_scale_inv is missing",
                       slot->file, name, name);
    if (!fp8 && slot->scale_file)
        return dr_fail(DR_EMODEL, "%s: tensor %s_scale_inv: a scale, but %s is %s", slot->scale_file, name,
                       name, dr_dtype_name(slot->dtype));
    if (!fp8) slot->scale_fd = -1;
    return dr_ok();
}

static dr_status check_slots(struct dr_tensors *t) {
    const struct dr_config *c = &t->c;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        for (int32_t layer = 0; layer < (scope == DR_SCOPE_MODEL ? 1 : layers_of(c)); layer++) {
            if (!dr_role_wanted(c, role, layer)) continue;
            for (int32_t e = 0; e < (scope == DR_SCOPE_EXPERT ? c->n_expert : 1); e++)
                DR_TRY(check_slot(t, role, layer, e));
        }
    }
    return dr_ok();
}

static dr_status compare(const struct copy *a, const struct dr_tensor *b, char *left, char *right) {
    if (a->dtype != b->dtype)
        return dr_fail(DR_EMODEL, "%s: tensor %s: expected dtype %s as in %s, found %s", a->file->name,
                       a->name, dr_dtype_name(b->dtype), b->name, dr_dtype_name(a->dtype));
    for (uint64_t at = 0; at < a->bytes; at += COMPARE_BYTES) {
        size_t n = a->bytes - at < COMPARE_BYTES ? (size_t)(a->bytes - at) : COMPARE_BYTES;
        DR_TRY(dr_folder_pread(a->file->fd, a->file->name, left, n, a->offset + at));
        DR_TRY(dr_folder_pread(b->fd, b->file, right, n, b->offset + at));
        if (memcmp(left, right, n) == 0) continue;
        size_t i = 0;
        while (left[i] == right[i]) i++;
        return dr_fail(DR_EMODEL, "%s: tensor %s: expected a copy of %s, found another byte at %" PRIu64,
                       a->file->name, a->name, b->name, at + i);
    }
    return dr_ok();
}

static dr_status check_copies(struct dr_tensors *t) {
    if (t->n_copy == 0) return dr_ok();
    char *buffer = malloc(2 * (size_t)COMPARE_BYTES);
    dr_status st = buffer ? dr_ok() : dr_fail(DR_EFULL, "no memory to compare tensors");
    for (int32_t i = 0; i < t->n_copy && st.code == DR_OK; i++)
        st = compare(&t->copies[i], &t->slots[t->copies[i].of], buffer, buffer + COMPARE_BYTES);
    free(buffer);
    return st;
}

static dr_status open_all(struct dr_tensors *t, const char *dir) {
    int folder = -1;
    unsigned char sha[EVP_MAX_MD_SIZE];
    size_t n_slot = N_MODEL_ROLES + (size_t)layers_of(&t->c) * slot_stride(&t->c);
    t->slots = calloc(n_slot, sizeof *t->slots);
    t->digest = EVP_MD_CTX_new();
    if (!t->slots || !t->digest) return dr_fail(DR_EFULL, "no memory for %zu tensors", n_slot);
    DR_ASSERT(EVP_DigestInit_ex(t->digest, EVP_sha256(), NULL) == 1);
    digest_u64(t, dr_config_hash(&t->c));
    DR_TRY(dr_folder_open(dir, &folder));
    dr_status st = open_files(t, folder);
    close(folder);
    if (st.code == DR_OK) st = check_slots(t);
    if (st.code != DR_OK) return dr_fail_within(st, "%s: ", dir);
    DR_ASSERT(EVP_DigestFinal_ex(t->digest, sha, NULL) == 1);
    for (int i = 0; i < 8; i++) t->hash |= (uint64_t)sha[i] << (8 * i);
    return dr_ok();
}

dr_status dr_tensors_open_headers(const char *dir, const struct dr_config *c, struct dr_tensors **out) {
    struct dr_tensors *t = calloc(1, sizeof *t);
    if (!t) return dr_fail(DR_EFULL, "%s: no memory", dir);
    t->c = *c;
    dr_status st = open_all(t, dir);
    EVP_MD_CTX_free(t->digest);
    t->digest = NULL;
    if (st.code == DR_OK)
        *out = t;
    else
        dr_tensors_destroy(t);
    return st;
}

dr_status dr_tensors_open(const char *dir, const struct dr_config *c, struct dr_tensors **out) {
    struct dr_tensors *t = NULL;
    DR_TRY(dr_tensors_open_headers(dir, c, &t));
    dr_status st = check_copies(t);
    if (st.code == DR_OK)
        *out = t;
    else
        dr_tensors_destroy(t);
    return st.code == DR_OK ? st : dr_fail_within(st, "%s: ", dir);
}

void dr_tensors_destroy(struct dr_tensors *t) {
    if (!t) return;
    for (int32_t i = 0; i < t->n_file; i++) {
        close(t->files[i].fd);
        free(t->files[i].name);
    }
    while (t->names) {
        struct pool *next = t->names->next;
        free(t->names);
        t->names = next;
    }
    free(t->files);
    free(t->slots);
    free(t);
}

const struct dr_tensor *dr_tensors_get(const struct dr_tensors *t, enum dr_role role, int32_t layer,
                                       int32_t expert) {
    const struct dr_config *c = &t->c;
    if (role == DR_ROLE_HEAD && c->tied) role = DR_ROLE_EMBED;
    enum dr_role_scope scope = dr_role_scope(role);
    if (scope != DR_SCOPE_MODEL) DR_ASSERT(layer >= 0 && layer < layers_of(c));
    if (scope == DR_SCOPE_EXPERT) DR_ASSERT(expert >= 0 && expert < c->n_expert);
    DR_ASSERT(dr_role_wanted(c, role, layer));
    return &t->slots[slot_of(c, role, layer, expert)];
}

int32_t dr_tensors_count(const struct dr_tensors *t) {
    return t->count;
}

uint64_t dr_tensors_bytes(const struct dr_tensors *t) {
    return t->bytes;
}

uint64_t dr_tensors_hash(const struct dr_tensors *t) {
    return t->hash;
}
