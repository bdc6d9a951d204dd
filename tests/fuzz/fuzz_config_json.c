/* fuzz_config_json.c - config.json and generation_config.json from a stranger's folder.
 * In:   the first file, then after a NUL byte (if there is one) the second.      Out: nothing; a crash is a
 * finding. Owns: a table of frequencies. Why:  whatever is accepted must be within the limits on which every
 * size in the program rests. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/log.h"
#include "model/footprint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static double freq[DR_DIM_MAX / 2];

static void check_numbers(const struct dr_config *c) {
    DR_ASSERT(c->vocab >= 1 && c->vocab <= DR_VOCAB_MAX && c->dim >= 1 && c->dim <= DR_DIM_MAX);
    DR_ASSERT(c->n_layer >= 1 && c->n_mtp >= 0 && c->n_layer + c->n_mtp <= DR_LAYERS_MAX);
    DR_ASSERT(c->n_head >= 1 && c->n_head <= DR_HEADS_MAX && c->q_lora >= 0 && c->kv_lora >= 1);
    DR_ASSERT(c->n_expert >= 0 && c->n_expert <= DR_EXPERTS_MAX && c->moe_freq >= 1);
    DR_ASSERT(c->n_expert == 0 || (c->n_active >= 1 && c->n_active <= DR_ACTIVE_MAX && c->expert_dim >= 1));
    DR_ASSERT(c->n_expert == 0 || (c->n_expert % c->n_group == 0 && c->n_group_active <= c->n_group));
    DR_ASSERT(c->n_expert == 0 || c->n_active <= c->n_group_active * (c->n_expert / c->n_group));
    DR_ASSERT(c->n_end_id >= 0 && c->n_end_id <= DR_END_IDS_MAX && c->bos_id < c->vocab);
    for (int32_t i = 0; i < c->n_end_id; i++)
        DR_ASSERT(c->end_id[i] < (uint32_t)c->vocab && (i == 0 || c->end_id[i - 1] < c->end_id[i]));
    DR_ASSERT(isfinite(c->routed_scale) && c->rms_eps > 0);
    dr_config_rope_freq(c, freq);
    for (int32_t i = 0; i < c->rope_dim / 2; i++) DR_ASSERT(isfinite(freq[i]) && freq[i] >= 0);
    DR_ASSERT(isfinite(dr_config_softmax_scale(c)) && dr_config_softmax_scale(c) > 0);
    DR_ASSERT(isfinite(dr_config_rope_gain(c)) && dr_config_rope_gain(c) > 0);
}

static void check_layout(const struct dr_config *c) {
    const struct dr_layout_wish wish = {
        .tp = 3, .pp = 2, .cache_type = DR_CACHE_FP8, .mtp = c->n_mtp > 0, .seqs_max = 2, .step_tokens = 16};
    struct dr_layout l;
    if (dr_layout_make(c, &wish, &l).code != DR_OK) return;
    for (int32_t rank = 0; rank < l.n_rank; rank++) {
        struct dr_shard s = dr_layout_shard(c, &l, rank);
        DR_ASSERT(s.heads.begin < s.heads.end && s.layers.begin < s.layers.end && s.vocab.end <= c->vocab);
    }
    DR_ASSERT(dr_layout_vocab_owner(c, &l, (uint32_t)c->vocab - 1) == l.tp - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct dr_config c;
    const char *text = (const char *)data;
    const char *nul = size ? memchr(text, 0, size) : NULL;
    size_t first = nul ? (size_t)(nul - text) : size;
    dr_log_init(DR_LOG_ERROR, DR_LOG_TEXT, "fuzz", -1); /* unknown keys are the normal case here */
    dr_status st = dr_config_parse(text, first, nul ? nul + 1 : NULL, nul ? size - first - 1 : 0, &c);
    if (st.code != DR_OK) {
        DR_ASSERT(st.code == DR_EMODEL && dr_error_text()[0] != 0);
        return 0;
    }
    check_numbers(&c);
    check_layout(&c);
    return 0;
}
