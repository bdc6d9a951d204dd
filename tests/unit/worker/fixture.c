/* fixture.c - see fixture.h.
 * In:   nothing.      Out: configs, layouts.
 * Owns: nothing.
 * Why:  see fixture.h. */

#include "tests/unit/worker/fixture.h"

#include "common/rng.h"
#include "tests/support/runner.h"
#include "tests/support/worker_rig.h"

struct dr_config fixture_config(void) {
    struct dr_config c;
    CU_ASSERT_FATAL(dr_config_load(DR_TESTS_DIR "/golden/v3-bf16", &c).code == DR_OK);
    c.n_head = 8;
    c.vocab = 1003;
    return c;
}

struct dr_layout fixture_layout(const struct dr_config *c, int32_t tp, int32_t pp, int32_t width) {
    struct dr_layout l;
    struct dr_layout_wish wish = rig_wish(tp, pp, width, DR_EXPERTS_COLUMNS);
    wish.context = 1024;
    CU_ASSERT_FATAL(dr_layout_make(c, &wish, &l).code == DR_OK);
    return l;
}

uint32_t fixture_random(uint64_t *state, uint32_t n) {
    return (uint32_t)(dr_rng_u64(17, (*state)++, 0) % n);
}
