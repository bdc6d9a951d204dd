/* tensors.h - the checkpoint's tensors: names, shapes, types, places; opened and checked, never loaded here.
 * In:   model.safetensors, or shards and model.safetensors.index.json, and the config.
 * Out:  a table that maps every weight the config asks for to (file, offset, dtype, shape, scale tensor).
 * Owns: file descriptors and the table until dr_tensors_destroy.
 * Why:  a damaged, missing, surplus or misshapen tensor is refused within a second, before anything is
 * allocated for weights.
 *
 * The only I/O in model/: headers and index. The gateway checks everything before the launch, workers check
 * what they read. */
#pragma once

#include "model/config.h"

enum dr_dtype {
    DR_DTYPE_F32,
    DR_DTYPE_BF16,
    DR_DTYPE_F16,
    DR_DTYPE_F8_E4M3,
    DR_DTYPE_I8,
    DR_DTYPE_COUNT
}; /* I8: made at load, refused in a checkpoint */

static inline size_t dr_dtype_bytes(enum dr_dtype t) {
    return t == DR_DTYPE_F32 ? 4 : t == DR_DTYPE_BF16 || t == DR_DTYPE_F16 ? 2 : 1;
}

/* Role of a tensor in the model: what a worker asks for. Names are the published ones, see dr_tensors_name.
 */
#define DR_ROLES(X)                                                                                          \
    X(EMBED, "model.embed_tokens.weight")                                                                    \
    X(NORM, "model.norm.weight")                                                                             \
    X(HEAD, "lm_head.weight")                                                                                \
    X(INPUT_NORM, "input_layernorm.weight")                                                                  \
    X(POST_NORM, "post_attention_layernorm.weight")                                                          \
    X(Q, "self_attn.q_proj.weight")                                                                          \
    X(Q_A, "self_attn.q_a_proj.weight")                                                                      \
    X(Q_A_NORM, "self_attn.q_a_layernorm.weight")                                                            \
    X(Q_B, "self_attn.q_b_proj.weight")                                                                      \
    X(KV_A, "self_attn.kv_a_proj_with_mqa.weight")                                                           \
    X(KV_A_NORM, "self_attn.kv_a_layernorm.weight")                                                          \
    X(KV_B, "self_attn.kv_b_proj.weight")                                                                    \
    X(O, "self_attn.o_proj.weight")                                                                          \
    X(MLP_GATE, "mlp.gate_proj.weight")                                                                      \
    X(MLP_UP, "mlp.up_proj.weight")                                                                          \
    X(MLP_DOWN, "mlp.down_proj.weight")                                                                      \
    X(ROUTER, "mlp.gate.weight")                                                                             \
    X(ROUTER_BIAS, "mlp.gate.e_score_correction_bias")                                                       \
    X(EXPERT_GATE, "mlp.experts.%d.gate_proj.weight")                                                        \
    X(EXPERT_UP, "mlp.experts.%d.up_proj.weight")                                                            \
    X(EXPERT_DOWN, "mlp.experts.%d.down_proj.weight")                                                        \
    X(SHARED_GATE, "mlp.shared_experts.gate_proj.weight")                                                    \
    X(SHARED_UP, "mlp.shared_experts.up_proj.weight")                                                        \
    X(SHARED_DOWN, "mlp.shared_experts.down_proj.weight")                                                    \
    X(MTP_EH, "eh_proj.weight")                                                                              \
    X(MTP_ENORM, "enorm.weight")                                                                             \
    X(MTP_HNORM, "hnorm.weight")                                                                             \
    X(MTP_NORM, "shared_head.norm.weight")

#define DR_X_(role, name) DR_ROLE_##role,
enum dr_role { DR_ROLES(DR_X_) DR_ROLE_COUNT };
#undef DR_X_

struct dr_tensor {
    int fd;           /* borrowed from the table */
    const char *file; /* borrowed: name within the model's folder, for messages */
    const char *name; /* borrowed */
    enum dr_dtype dtype;
    int32_t rows, cols; /* [out, in]; a vector is [1, n] */
    uint64_t offset;    /* of the first byte in the file */
    /* F8_E4M3 only: f32 [ceil(rows/128), ceil(cols/128)], maybe in another file */
    int scale_fd; /* -1: none */
    const char *scale_file;
    uint64_t scale_offset;
    int32_t scale_rows, scale_cols;
};

struct dr_tensors;

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the checkpoint in `dir` and checks every header against the config: each tensor of the config exactly
 * once, right shape, known dtype, FP8 with its scale, ranges sorted without hole or overlap up to the exact
 * end of the file, index and files agree, nothing surplus (except rotary inv_freq, the MTP layer, whose
 * copies of embedding and head must equal the main ones). Reads headers only (and the MTP copies). Blocks on
 * the disk. Fails: ENOENT, EIO, EMODEL with file, tensor, expected, found. */
DR_FALLIBLE dr_tensors_open(const char *dir, const struct dr_config *c, struct dr_tensors **out);

/* The same without comparing the copies, which nobody loads (7.4 GB to read for V3): for the workers, whose
 * gateway has opened the checkpoint before them. */
DR_FALLIBLE dr_tensors_open_headers(const char *dir, const struct dr_config *c, struct dr_tensors **out);

void dr_tensors_destroy(struct dr_tensors *t);

/* The tensor of (role, layer, expert); layer and expert are ignored where the name has none. Aborts (bug)
 * when the config has no such tensor: dr_tensors_open has checked that all others exist. HEAD of a tied model
 * is the embedding. */
const struct dr_tensor *dr_tensors_get(const struct dr_tensors *t, enum dr_role role, int32_t layer,
                                       int32_t expert);

/* Number of tensors and bytes of data of the whole checkpoint; SHA-256 based identity over config numbers,
 * names, shapes, dtypes, offsets and file sizes (headers, not data): equal on all ranks or the start is
 * refused. */
int32_t dr_tensors_count(const struct dr_tensors *t);
uint64_t dr_tensors_bytes(const struct dr_tensors *t);
uint64_t dr_tensors_hash(const struct dr_tensors *t);

/* Parses one safetensors header (the bytes after the length word) against the file's size; for the fuzz
 * target and the tests. visit is called for each tensor in the order of its data; a failure of visit ends the
 * walk. dtype: the file's own string. */
struct dr_header_entry {
    const char *name, *dtype; /* borrowed during the visit */
    const uint64_t *shape;
    int32_t n_shape;
    uint64_t begin, end; /* relative to the data section */
};
typedef dr_status dr_header_visit(void *arg, const struct dr_header_entry *entry);
DR_FALLIBLE dr_tensors_parse_header(const char *json, size_t bytes, uint64_t data_bytes,
                                    dr_header_visit *visit, void *arg);

/* "model.layers.3.mlp.experts.7.up_proj.weight" into out; returns its length. */
int dr_tensors_name(enum dr_role role, int32_t layer, int32_t expert, char *out, size_t room);

const char *dr_dtype_name(enum dr_dtype t);

#ifdef __cplusplus
}
#endif
