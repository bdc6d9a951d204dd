/* test_tensors.c - whole checkpoints open, and every weight is where the file says.
 * In:   golden cases, the sample model.      Out: checks.
 * Owns: nothing.
 * Why:  places are compared with the headers as another JSON reader sees them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <CUnit/CUnit.h>

#include "common/size.h"
#include "model/roles.h"
#include "tests/unit/model/fixture.h"

static struct dr_tensors *open_case(const char *name, struct dr_config *c) {
    char dir[FIXTURE_PATH];
    struct dr_tensors *t = NULL;
    *c = fixture_config(name);
    dr_status st = dr_tensors_open(fixture_case(name, dir), c, &t);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    CU_ASSERT_EQUAL_FATAL(st.code, DR_OK);
    return t;
}

static json_int_t place(const struct fixture *f, int file, const char *tensor) {
    char *text = json_dumps(f->header[file],
                            JSON_COMPACT); /* the writer of the golden files pads the header to 8 bytes */
    size_t n = (strlen(text) + 7) / 8 * 8;
    free(text);
    const json_t *offsets = json_object_get(json_object_get(f->header[file], tensor), "data_offsets");
    return 8 + (json_int_t)n + json_integer_value(json_array_get(offsets, 0));
}

static void check_tensor(const struct fixture *f, const struct dr_tensor *t, enum dr_role role, int32_t layer,
                         int32_t expert) {
    char name[DR_TENSOR_NAME_MAX], scale[DR_TENSOR_NAME_MAX + 16];
    dr_tensors_name(role, layer, expert, name, sizeof name);
    CU_ASSERT_STRING_EQUAL(t->name, name);
    int file = fixture_find(f, name);
    CU_ASSERT_FATAL(file >= 0);
    const json_t *entry = json_object_get(f->header[file], name), *shape = json_object_get(entry, "shape");
    size_t dims = json_array_size(shape);
    CU_ASSERT_STRING_EQUAL(t->file, f->file[file]);
    CU_ASSERT_STRING_EQUAL(dr_dtype_name(t->dtype), json_string_value(json_object_get(entry, "dtype")));
    CU_ASSERT_EQUAL(t->cols, json_integer_value(json_array_get(shape, dims - 1)));
    CU_ASSERT_EQUAL(t->rows, dims == 2 ? json_integer_value(json_array_get(shape, 0)) : 1);
    CU_ASSERT_EQUAL((json_int_t)t->offset, place(f, file, name));
    if (t->dtype != DR_DTYPE_F8_E4M3) {
        CU_ASSERT_EQUAL(t->scale_fd, -1);
        return;
    }
    snprintf(scale, sizeof scale, "%s_scale_inv", name);
    file = fixture_find(f, scale);
    CU_ASSERT_FATAL(file >= 0);
    CU_ASSERT_STRING_EQUAL(t->scale_file, f->file[file]);
    CU_ASSERT_EQUAL((json_int_t)t->scale_offset, place(f, file, scale));
    CU_ASSERT_EQUAL(t->scale_rows, dr_ceil_div(t->rows, 128));
    CU_ASSERT_EQUAL(t->scale_cols, dr_ceil_div(t->cols, 128));
    CU_ASSERT_TRUE(t->scale_fd >= 0);
}

static void check_case(const char *name) {
    struct dr_config c;
    struct dr_tensors *t = open_case(name, &c);
    struct fixture f;
    fixture_init(&f, name);
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        for (int32_t layer = 0; layer < (scope == DR_SCOPE_MODEL ? 1 : c.n_layer + c.n_mtp); layer++) {
            if (!dr_role_wanted(&c, role, layer)) continue;
            for (int32_t e = 0; e < (scope == DR_SCOPE_EXPERT ? c.n_expert : 1); e++)
                check_tensor(&f, dr_tensors_get(t, role, layer, e), role, layer, e);
        }
    }
    fixture_fini(&f);
    dr_tensors_destroy(t);
}

static void every_weight(void) {
    static const char *const names[] = {"v3-bf16", "v3-fp8",    "dense-fp8", "v2-lite", "v2-group",
                                        "kimi-k2", "moonlight", "v3-rope2",  "v3-mtp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_case(names[i]);
}

static void tied_head(void) {
    struct dr_config c;
    struct dr_tensors *t = open_case("moonlight", &c);
    CU_ASSERT_PTR_EQUAL(dr_tensors_get(t, DR_ROLE_HEAD, -1, -1), dr_tensors_get(t, DR_ROLE_EMBED, -1, -1));
    dr_tensors_destroy(t);
}

static void counts(void) {
    struct dr_config c;
    struct dr_tensors *t = open_case("v3-mtp", &c);
    CU_ASSERT_EQUAL(dr_tensors_count(t), 144); /* 145 entries, one of them __metadata__ */
    CU_ASSERT_EQUAL(dr_tensors_get(t, DR_ROLE_MTP_EH, 3, -1)->cols, 172);
    dr_tensors_destroy(t);
    t = open_case("lexi-15m", &c);
    CU_ASSERT_EQUAL(dr_tensors_get(t, DR_ROLE_EXPERT_UP, 6, 15)->dtype, DR_DTYPE_F8_E4M3);
    CU_ASSERT_EQUAL(dr_tensors_get(t, DR_ROLE_ROUTER_BIAS, 6, -1)->dtype, DR_DTYPE_F32);
    CU_ASSERT_EQUAL(dr_tensors_bytes(t), 18086404); /* total_size of its index */
    dr_tensors_destroy(t);
}

static void scale_elsewhere(void) {
    struct dr_config c;
    struct dr_tensors *t = open_case("v3-fp8", &c);
    const struct dr_tensor *x = dr_tensors_get(t, DR_ROLE_EXPERT_GATE, 1, 5); /* the case was made so */
    CU_ASSERT_STRING_EQUAL(x->file, "model-00001-of-000002.safetensors");
    CU_ASSERT_STRING_EQUAL(x->scale_file, "model-00002-of-000002.safetensors");
    CU_ASSERT_NOT_EQUAL(x->fd, x->scale_fd);
    x = dr_tensors_get(t, DR_ROLE_EXPERT_GATE, 1, 4);
    CU_ASSERT_EQUAL(x->fd, x->scale_fd);
    dr_tensors_destroy(t);
}

static uint64_t hash_of(struct fixture *f) {
    struct dr_config c;
    struct dr_tensors *t = NULL;
    fixture_write(f);
    CU_ASSERT_EQUAL_FATAL(dr_config_load(f->dir, &c).code, DR_OK);
    dr_status st = dr_tensors_open(f->dir, &c, &t);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    CU_ASSERT_EQUAL_FATAL(st.code, DR_OK);
    uint64_t h = dr_tensors_hash(t);
    dr_tensors_destroy(t);
    fixture_fini(f);
    return h;
}

static json_t *entry(struct fixture *f, const char *tensor) {
    int file = fixture_find(f, tensor);
    CU_ASSERT_FATAL(file >= 0);
    return json_object_get(f->header[file], tensor);
}

static void identity(void) {
    struct fixture f;
    fixture_init(&f, "v3-bf16");
    uint64_t first = hash_of(&f);
    fixture_init(&f, "v3-bf16");
    CU_ASSERT_EQUAL(hash_of(&f), first);
    fixture_init(&f, "v3-bf16");
    json_object_set_new(f.config, "rms_norm_eps", json_real(1e-5));
    CU_ASSERT_NOT_EQUAL(hash_of(&f), first);
    fixture_init(&f, "v3-bf16");
    json_object_set_new(entry(&f, "model.norm.weight"), "dtype", json_string("F16"));
    CU_ASSERT_NOT_EQUAL(hash_of(&f), first);
}

/* Everything that is legal besides the weights. */
static void legal_surplus(void) {
    struct fixture f;
    fixture_init(&f, "moonlight");
    json_t *head = json_deep_copy(entry(&f, "model.embed_tokens.weight"));
    json_object_set_new(f.header[0], "lm_head.weight", head);
    json_object_set_new(
        f.header[0], "model.layers.1.self_attn.rotary_emb.inv_freq",
        json_pack("{s:s, s:[i], s:[i,i]}", "dtype", "F32", "shape", 6, "data_offsets", 0, 24));
    json_object_set_new(f.header[0],
                        "model.layers.3.whatever.weight", /* an MTP layer that the config does not announce */
                        json_pack("{s:s, s:[], s:[i,i]}", "dtype", "BF16", "shape", "data_offsets", 0, 2));
    json_object_set_new(
        f.header[0], "model.layers.3.empty.weight",
        json_pack("{s:s, s:[i,i], s:[i,i]}", "dtype", "BF16", "shape", 0, 5, "data_offsets", 0, 0));
    fixture_renumber(&f, 0);
    hash_of(&f);
    fixture_init(&f, "v3-mtp"); /* the copies of the MTP layer may be left out */
    json_object_del(f.header[0], "model.layers.3.embed_tokens.weight");
    json_object_del(f.header[0], "model.layers.3.shared_head.head.weight");
    fixture_renumber(&f, 0);
    hash_of(&f);
}

static void other_dtypes(void) {
    struct fixture f;
    fixture_init(&f, "v3-bf16");
    json_object_set_new(entry(&f, "model.layers.0.mlp.up_proj.weight"), "dtype", json_string("F32"));
    json_object_set_new(entry(&f, "model.layers.0.mlp.down_proj.weight"), "dtype", json_string("F16"));
    json_object_set_new(entry(&f, "model.layers.1.mlp.gate.e_score_correction_bias"), "dtype",
                        json_string("BF16"));
    json_object_set_new(entry(&f, "model.layers.1.mlp.gate.weight"), "dtype", json_string("F32"));
    fixture_renumber(&f, 0);
    hash_of(&f);
}

static CU_TestInfo cases[] = {
    {"every weight of every golden case is where its header says", every_weight},
    {"the head of a tied model is its embedding", tied_head},
    {"counts and bytes are those of the files", counts},
    {"a scale may lie in another file than its weight", scale_elsewhere},
    {"the identity changes with config and headers only", identity},
    {"legal surplus opens", legal_surplus},
    {"F32 and F16 weights and a BF16 router bias open", other_dtypes},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_tensors = {.pName = "model/tensors", .pTests = cases};
