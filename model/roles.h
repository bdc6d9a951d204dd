/* roles.h - which tensors a config asks for, their names and shapes.
 * In:   config, role, layer.      Out: wanted or not, [rows, cols], which dtypes are legal; a name's role and
 * back. Owns: nothing. Why:  tensors checks files by it, footprint counts bytes by it: one list, no second
 * opinion. */
#pragma once

#include "model/tensors.h"

enum dr_role_scope { DR_SCOPE_MODEL, DR_SCOPE_LAYER, DR_SCOPE_EXPERT }; /* what a name is repeated for */
enum dr_role_form {
    DR_FORM_LINEAR, /* matrix of any known dtype */
    DR_FORM_PLAIN,  /* matrix that is never FP8: embedding, head, router */
    DR_FORM_VECTOR, /* norm, one dimension, never FP8 */
    DR_FORM_BIAS,   /* router bias, one dimension: F32 or BF16 */
};

enum { DR_TENSOR_NAME_MAX = 160 };

#ifdef __cplusplus
extern "C" {
#endif

enum dr_role_scope dr_role_scope(enum dr_role role);
enum dr_role_form dr_role_form(enum dr_role role);

/* Whether the model has the tensor. layer: 0 .. n_layer + n_mtp - 1; ignored where the name has none. HEAD of
 * a tied model: no. */
bool dr_role_wanted(const struct dr_config *c, enum dr_role role, int32_t layer);

/* [out, in]; a vector is [1, n]. Defined for every role, whether wanted or not. */
void dr_role_shape(const struct dr_config *c, enum dr_role role, int32_t *rows, int32_t *cols);

/* What a checkpoint of this config most likely stores: FP8 linears if c->fp8, F32 router bias, BF16
 * elsewhere. */
enum dr_dtype dr_role_usual_dtype(const struct dr_config *c, enum dr_role role);

/* What a name in a file says. */
struct dr_role_name {
    bool known; /* role, layer and expert are set */
    enum dr_role role;
    int32_t layer, expert; /* layer is also set (>= 0) for unknown names under model.layers.N. */
    const char *rest;      /* borrowed: behind "model.layers.N.", else the whole name */
};

/* Numbers are canonical: "01" is no layer. */
struct dr_role_name dr_role_parse(const char *name, size_t length);

#ifdef __cplusplus
}
#endif
