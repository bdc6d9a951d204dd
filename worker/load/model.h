/* model.h - the rank's weights as typed pointers.
 * In:   the list of holdings and the block that they fill.      Out: one struct a layer.
 * Owns: the tables of pointers (one arena); the block is the worker's.
 * Why:  names are resolved once; a step compares no string. */
#pragma once

#include "common/arena.h"
#include "kernels/ops.h"
#include "model/footprint.h"

struct dr_layer {
    const float *input_norm, *post_norm; /* [dim] */
    const float *q_a_norm, *kv_a_norm;   /* [q_lora] or NULL, [kv_lora] */
    struct dr_weight q_a, q;             /* [q_lora, dim] if q_lora > 0; own heads x qk rows of q_b or q */
    struct dr_weight kv_a, o;            /* [kv_lora + rope, dim]; [dim, own heads x v] */
    /* of [kv_lora, nope], [nope, kv_lora], [v, kv_lora]: [own heads] each; with the value exchange uk_t and
     * uv [heads of the cache group] */
    struct dr_weight *uk_t, *uk, *uv;
    bool moe, has_shared;
    struct dr_expert mlp;     /* dense layers */
    struct dr_weight router;  /* [n_expert, dim] */
    const float *router_bias; /* [n_expert] or NULL */
    struct dr_expert *expert; /* [owned experts] */
    struct dr_expert shared;
};

struct dr_model {
    struct dr_arena tables;
    const void *embed; /* [own vocabulary, dim] of embed_type; NULL where it is not held */
    enum dr_wtype embed_type;
    const float *norm;      /* last stage: [dim] */
    struct dr_weight head;  /* last stage: [own vocabulary, dim] */
    struct dr_layer *layer; /* [n_layer]: main layers of the stage, then the MTP layer if it is held */
    int32_t n_layer;
    const float *mtp_enorm, *mtp_hnorm, *mtp_norm; /* weights of the drafts: loaded, not run yet */
    struct dr_weight mtp_eh;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Points every holding into the block. Fails: EFULL; EMODEL when a holding has no place in a layer. */
DR_FALLIBLE dr_model_init(struct dr_model *m, const struct dr_config *c, const struct dr_layout *l,
                          int32_t rank, const struct dr_holding *list, int32_t n, const uint8_t *block);
void dr_model_fini(struct dr_model *m);

#ifdef __cplusplus
}
#endif
