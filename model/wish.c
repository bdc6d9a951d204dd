/* wish.c - see wish.h.
 * In:   options.      Out: a wish.
 * Owns: nothing.
 * Why:  see wish.h. */
#include "model/wish.h"

#include <string.h>

struct dr_layout_wish dr_wish_of(const struct dr_options *o, const struct dr_config *c) {
    const int64_t drafts = dr_option_int(o, DR_OPTION_DRAFTS); /* off, auto, 1, 2, ... */
    struct dr_layout_wish w = {
        .tp = (int32_t)dr_option_int(o, DR_OPTION_TP),
        .pp = (int32_t)dr_option_int(o, DR_OPTION_PP),
        .cache_width = (int32_t)dr_option_int(o, DR_OPTION_CACHE_WIDTH),
        .experts =
            !strcmp(dr_option_text(o, DR_OPTION_EXPERTS), "whole") ? DR_EXPERTS_WHOLE : DR_EXPERTS_COLUMNS,
        .exchange =
            !strcmp(dr_option_text(o, DR_OPTION_EXCHANGE), "value") ? DR_EXCHANGE_VALUE : DR_EXCHANGE_LATENT,
        .cache_type = (enum dr_cache_type)dr_option_int(o, DR_OPTION_CACHE_TYPE),
        .weights =
            !strcmp(dr_option_text(o, DR_OPTION_WEIGHTS), "int8") ? DR_WEIGHTS_INT8 : DR_WEIGHTS_NATIVE,
        .mtp = drafts > 1 || (drafts == 1 && c->n_mtp > 0),
        .context = (int32_t)dr_option_int(o, DR_OPTION_CONTEXT),
        .seqs_max = (int32_t)dr_option_int(o, DR_OPTION_SEQS_MAX),
        .step_tokens = (int32_t)dr_option_int(o, DR_OPTION_STEP_TOKENS),
        .pages = (int32_t)dr_option_int(o, DR_OPTION_PAGES),
        .cache_bytes = (size_t)dr_option_int(o, DR_OPTION_CACHE_MEMORY),
    };
    return w; /* the choices of --cache-type stand in the order of enum dr_cache_type */
}
