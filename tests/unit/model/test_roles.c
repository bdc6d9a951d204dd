/* test_roles.c - names of tensors there and back.
 * In:   roles and names.      Out: checks.
 * Owns: nothing.
 * Why:  a name that is read as another tensor would load the wrong weights. */
#include <string.h>

#include <CUnit/CUnit.h>

#include "model/roles.h"
#include "tests/unit/model/fixture.h"

static void round_trip(void) {
    char name[DR_TENSOR_NAME_MAX];
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        int n = dr_tensors_name(role, 60, 255, name, sizeof name);
        CU_ASSERT_EQUAL(n, (int)strlen(name));
        struct dr_role_name r = dr_role_parse(name, strlen(name));
        CU_ASSERT_TRUE(r.known);
        CU_ASSERT_EQUAL((int)r.role, role);
        if (dr_role_scope(role) != DR_SCOPE_MODEL) CU_ASSERT_EQUAL(r.layer, 60);
        if (dr_role_scope(role) == DR_SCOPE_EXPERT) CU_ASSERT_EQUAL(r.expert, 255);
        r = dr_role_parse(name, strlen(name) - 1);
        CU_ASSERT_FALSE(r.known);
    }
}

static void published_names(void) {
    char name[DR_TENSOR_NAME_MAX];
    dr_tensors_name(DR_ROLE_EXPERT_UP, 3, 7, name, sizeof name);
    CU_ASSERT_STRING_EQUAL(name, "model.layers.3.mlp.experts.7.up_proj.weight");
    dr_tensors_name(DR_ROLE_KV_A, 0, 0, name, sizeof name);
    CU_ASSERT_STRING_EQUAL(name, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight");
    dr_tensors_name(DR_ROLE_HEAD, 9, 9, name, sizeof name);
    CU_ASSERT_STRING_EQUAL(name, "lm_head.weight");
}

static void strange_names(void) {
    static const char *const names[] = {"",
                                        "model.layers.",
                                        "model.layers.1",
                                        "model.layers.01.input_layernorm.weight",
                                        "model.layers.-1.input_layernorm.weight",
                                        "model.layers.99999999999999999999.input_layernorm.weight",
                                        "model.layers.1.input_layernorm.weight ",
                                        "model.layers.1.mlp.experts.00.up_proj.weight",
                                        "model.layers.1.mlp.experts..up_proj.weight",
                                        "model.layers.1.mlp.experts.%d.up_proj.weight",
                                        "model.layers.1.mlp.experts.1.input_layernorm.weight",
                                        "model.layers.1.lm_head.weight",
                                        "model.layers.1.up_proj.weight",
                                        "language_model.model.norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CU_ASSERT_FALSE(dr_role_parse(names[i], strlen(names[i])).known);
}

/* Sizes of the published V3 checkpoint. */
static void published_shapes(void) {
    struct dr_config c = fixture_config("configs/v3");
    static const struct {
        enum dr_role role;
        int32_t rows, cols;
    } shapes[] = {
        {DR_ROLE_EMBED, 129280, 7168},   {DR_ROLE_Q_A, 1536, 7168},         {DR_ROLE_Q_B, 24576, 1536},
        {DR_ROLE_KV_A, 576, 7168},       {DR_ROLE_KV_B, 32768, 512},        {DR_ROLE_O, 7168, 16384},
        {DR_ROLE_MLP_UP, 18432, 7168},   {DR_ROLE_MLP_DOWN, 7168, 18432},   {DR_ROLE_ROUTER, 256, 7168},
        {DR_ROLE_ROUTER_BIAS, 1, 256},   {DR_ROLE_EXPERT_UP, 2048, 7168},   {DR_ROLE_EXPERT_DOWN, 7168, 2048},
        {DR_ROLE_SHARED_UP, 2048, 7168}, {DR_ROLE_SHARED_DOWN, 7168, 2048}, {DR_ROLE_MTP_EH, 7168, 14336},
        {DR_ROLE_KV_A_NORM, 1, 512},     {DR_ROLE_MTP_NORM, 1, 7168}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int32_t rows, cols;
        dr_role_shape(&c, shapes[i].role, &rows, &cols);
        CU_ASSERT_EQUAL(rows, shapes[i].rows);
        CU_ASSERT_EQUAL(cols, shapes[i].cols);
    }
}

/* The published checkpoint has 91,991 tensors, two of them the MTP copies, one scale for each FP8 weight. */
static void published_count(void) {
    struct dr_config c = fixture_config("configs/v3");
    int64_t n = 2;
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        enum dr_role_scope scope = dr_role_scope(role);
        for (int32_t layer = 0; layer < (scope == DR_SCOPE_MODEL ? 1 : 62); layer++) {
            if (!dr_role_wanted(&c, role, layer)) continue;
            int64_t each = dr_role_usual_dtype(&c, role) == DR_DTYPE_F8_E4M3 ? 2 : 1;
            n += each * (scope == DR_SCOPE_EXPERT ? c.n_expert : 1);
        }
    }
    CU_ASSERT_EQUAL(n, 91991);
}

static CU_TestInfo cases[] = {
    {"every role's name is read back as that role", round_trip},
    {"names are the published ones", published_names},
    {"names that only look alike are unknown", strange_names},
    {"shapes of V3 are the published ones", published_shapes},
    {"V3 has 91,991 tensors", published_count},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_roles = {.pName = "model/roles", .pTests = cases};
