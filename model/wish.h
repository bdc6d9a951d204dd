/* wish.h - the layout that the options ask for.
 * In:   resolved options, config.      Out: struct dr_layout_wish.
 * Owns: nothing.
 * Why:  gateway, coordinator and workers must read the same flags the same way, or their layouts differ. */
#pragma once

#include "common/option.h"
#include "model/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Exchange "auto" is latent; drafts load the MTP layer, "auto" iff the model has one. Pure, total. */
struct dr_layout_wish dr_wish_of(const struct dr_options *o, const struct dr_config *c);

#ifdef __cplusplus
}
#endif
