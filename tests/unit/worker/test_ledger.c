/* test_ledger.c - calls that are not the schedule's.
 * In:   a two-member group and a step.      Out: refusals by name, counted bytes.
 * Owns: nothing.
 * Why:  a wrong call must end the step on its own rank, before the group is entered. */

#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "tests/support/runner.h"
#include "tests/unit/worker/fixture.h"
#include "worker/collective/ledger.h"

static const struct dr_shape_segment one_row[] = {
    {.first = 5, .n_rows = 1, .absorbed = true, .n_out_rows = 1, .sample = true, .n_top = -1}};
static const struct dr_step_shape shape = {.n_segment = 1, .n_rows = 1, .segment = one_row};
static const struct dr_call_name embed = {.what = DR_WHAT_EMBED, .layer = -1};

struct pair {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_group *group[2];
    struct dr_ledger ledger[2];
};

static void init(struct pair *p) {
    *p = (struct pair){.config = fixture_config()};
    p->layout = fixture_layout(&p->config, 2, 1, 1);
    CU_ASSERT_FATAL(dr_group_loop_create(2, 65536, p->group).code == DR_OK);
    for (int32_t i = 0; i < 2; i++) {
        p->ledger[i].rank = i;
        p->ledger[i].group[DR_GROUP_STAGE] = p->group[i];
        dr_ledger_begin(&p->ledger[i], &p->config, &p->layout, &shape, 3, dr_clock_ns() + 5000000000u);
    }
}

static void fini(struct pair *p) {
    for (int32_t i = 0; i < 2; i++) dr_group_destroy(p->group[i]);
}

struct call {
    struct pair *p;
    int32_t me;
    float x[104];
    dr_status st;
};

static void *enter(void *arg) {
    struct call *c = arg;
    c->st = dr_ledger_allreduce(&c->p->ledger[c->me], embed, c->x, 104);
    return NULL;
}

static void right(void) {
    struct pair p;
    struct call c[2];
    pthread_t other;
    init(&p);
    for (int32_t i = 0; i < 2; i++) {
        c[i] = (struct call){.p = &p, .me = i};
        for (int32_t k = 0; k < 104; k++) c[i].x[k] = (float)(i + 1) * (float)k;
    }
    CU_ASSERT_FATAL(pthread_create(&other, NULL, enter, &c[1]) == 0);
    (void)enter(&c[0]);
    (void)pthread_join(other, NULL);
    for (int32_t i = 0; i < 2; i++) {
        CU_ASSERT(c[i].st.code == DR_OK && c[i].x[7] == 21);
        CU_ASSERT(p.ledger[i].bytes[DR_BYTES_ALLREDUCE] > 0 && p.ledger[i].bytes[DR_BYTES_SAMPLER] == 0);
        CU_ASSERT(atomic_load(&p.ledger[i].op) == 1);
        CU_ASSERT(p.ledger[i].wait_kind_ns[DR_BYTES_ALLREDUCE] == dr_ledger_wait_ns(&p.ledger[i]));
        CU_ASSERT(p.ledger[i].wait_kind_ns[DR_BYTES_SAMPLER] == 0);
        CU_ASSERT(dr_ledger_end(&p.ledger[i]).code == DR_EPEER); /* layers and sampler are missing */
        CU_ASSERT(strstr(dr_error_text(), "attn_out") != NULL && strstr(dr_error_text(), "step 3") != NULL);
    }
    CU_ASSERT(p.ledger[0].wait_kind_ns[DR_BYTES_ALLREDUCE] > 0); /* the loop group counts every barrier */
    dr_ledger_begin(&p.ledger[0], &p.config, &p.layout, &shape, 4, 0);
    CU_ASSERT(p.ledger[0].wait_kind_ns[DR_BYTES_ALLREDUCE] == 0 && dr_ledger_wait_ns(&p.ledger[0]) == 0);
    fini(&p);
}

static void wrong(void) {
    static const struct {
        enum dr_call_what what;
        int32_t layer, index;
        size_t n;
    } bad[] = {
        {DR_WHAT_ATTN_OUT, -1, 0, 104}, /* purpose */
        {DR_WHAT_EMBED, 0, 0, 104},     /* layer */
        {DR_WHAT_EMBED, -1, 1, 104},    /* index */
        {DR_WHAT_EMBED, -1, 0, 208},    /* bytes */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pair p;
        float x[208] = {0};
        struct dr_call_name name = {.what = bad[i].what, .layer = bad[i].layer, .index = bad[i].index};
        init(&p);
        /* the other member never comes: a call that entered the group would wait for it */
        CU_ASSERT(dr_ledger_allreduce(&p.ledger[0], name, x, bad[i].n).code == DR_EPEER);
        CU_ASSERT(strstr(dr_error_text(), "the schedule lists allreduce of embed") != NULL);
        CU_ASSERT(p.group[0]->sent_bytes == 0 && atomic_load(&p.ledger[0].op) == 0);
        fini(&p);
    }
}

static void other_kind(void) {
    struct pair p;
    float x[104] = {0}, out[208];
    const size_t bytes[2] = {sizeof x, sizeof x}, at[2] = {0, sizeof x};
    init(&p);
    CU_ASSERT(dr_ledger_allgatherv(&p.ledger[0], DR_GROUP_STAGE, embed, x, out, bytes, at).code == DR_EPEER);
    CU_ASSERT(strstr(dr_error_text(), "came to allgather of embed") != NULL);
    fini(&p);
}

static void after_the_end(void) {
    static const struct dr_step_shape none = {.n_segment = 0};
    struct pair p;
    float x[104] = {0};
    init(&p);
    dr_ledger_begin(&p.ledger[0], &p.config, &p.layout, &none, 4, 0);
    CU_ASSERT(dr_ledger_end(&p.ledger[0]).code == DR_OK);
    CU_ASSERT(dr_ledger_allreduce(&p.ledger[0], embed, x, 104).code == DR_EPEER);
    CU_ASSERT(strstr(dr_error_text(), "no further call") != NULL);
    fini(&p);
}

static void alone(void) {
    struct dr_ledger g = {.rank = 0};
    float x[4] = {1, 2, 3, 4}, out[4] = {0};
    const size_t bytes = sizeof x, at = 0;
    CU_ASSERT(dr_ledger_members(&g, DR_GROUP_STAGE) == 1);
    CU_ASSERT(dr_ledger_allreduce(&g, embed, x, 4).code == DR_OK && x[3] == 4);
    CU_ASSERT(dr_ledger_allgatherv(&g, DR_GROUP_STAGE, embed, x, out, &bytes, &at).code == DR_OK &&
              out[3] == 4);
    CU_ASSERT(dr_ledger_wait_ns(&g) == 0);
}

static void late(void) {
    struct pair p;
    float x[104] = {0};
    init(&p);
    dr_ledger_begin(&p.ledger[0], &p.config, &p.layout, &shape, 9, dr_clock_ns() + 20000000u);
    CU_ASSERT(dr_ledger_allreduce(&p.ledger[0], embed, x, 104).code == DR_ETIME);
    CU_ASSERT(strstr(dr_error_text(), "rank 0, step 9, call 1 (embed") != NULL);
    fini(&p);
}

static CU_TestInfo tests[] = {
    {"the listed call is made, counted, and the rest is missed at the end", right},
    {"purpose, layer, index and bytes are compared before the group is entered", wrong},
    {"another kind of call is refused", other_kind},
    {"a call after the last one is refused", after_the_end},
    {"a group of one member is not called", alone},
    {"a member that does not come is a deadline with rank, step and call", late},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_ledger = {.pName = "worker/ledger", .pTests = tests};
