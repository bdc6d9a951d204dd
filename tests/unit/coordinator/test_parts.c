/* test_parts.c - ledger, queue and pace on their own.
 * In:   calls.      Out: checks.
 * Owns: nothing.
 * Why:  the parts that everything else trusts. */
#include <CUnit/CUnit.h>
#include <stdlib.h>

#include "coordinator/plan/pace.h"
#include "coordinator/queue/pool.h"
#include "coordinator/queue/queue.h"
#include "fake.h"

static void ledger_grows_and_gives_back(void) {
    struct dr_ledger l = {0};
    struct dr_ledger_setup setup = {.n_page = 5, .page_tokens = 64, .n_slot = 3, .context = 256};
    CU_ASSERT_FATAL(dr_ledger_init(&l, &setup).code == DR_OK);
    CU_ASSERT_EQUAL(l.table_max, 4);
    CU_ASSERT(dr_ledger_reserve(&l, 0, 65).code == DR_OK);
    CU_ASSERT_EQUAL(l.n[0], 2);
    CU_ASSERT(dr_ledger_reserve(&l, 0, 128).code == DR_OK); /* covered already */
    CU_ASSERT_EQUAL(l.n[0], 2);
    CU_ASSERT(dr_ledger_reserve(&l, 1, 129).code == DR_OK);
    CU_ASSERT_EQUAL(l.n_free, 0);
    CU_ASSERT(dr_ledger_check(&l).code == DR_OK);
    CU_ASSERT(dr_ledger_reserve(&l, 2, 1).code == DR_EFULL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "ledger: slot 2 needs 1 pages, 0 of 5 are free");
    CU_ASSERT_EQUAL(l.n[2], 0);
    dr_ledger_release(&l, 0);
    CU_ASSERT_EQUAL(l.n_free, 2);
    CU_ASSERT(dr_ledger_reserve(&l, 2, 128).code == DR_OK);
    CU_ASSERT(dr_ledger_check(&l).code == DR_OK);
    dr_ledger_fini(&l);
}

static void ledger_check_sees_damage(void) {
    struct dr_ledger l = {0};
    struct dr_ledger_setup setup = {.n_page = 4, .page_tokens = 64, .n_slot = 2, .context = 256};
    CU_ASSERT_FATAL(dr_ledger_init(&l, &setup).code == DR_OK);
    CU_ASSERT(dr_ledger_reserve(&l, 0, 64).code == DR_OK);
    CU_ASSERT(dr_ledger_reserve(&l, 1, 64).code == DR_OK);
    uint32_t *second = l.table + l.table_max;
    uint32_t was = second[0];
    second[0] = l.table[0];
    CU_ASSERT(dr_ledger_check(&l).code == DR_EINTERNAL); /* one page in two tables */
    second[0] = was;
    CU_ASSERT(dr_ledger_check(&l).code == DR_OK);
    l.n_free--;
    CU_ASSERT(dr_ledger_check(&l).code == DR_EINTERNAL); /* a page is lost */
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "ledger: page 2 is lost");
    l.n_free++;
    dr_ledger_fini(&l);
}

static struct dr_request waiting(uint64_t arrival, int32_t priority, uint64_t tenant) {
    return (struct dr_request){
        .arrival = arrival, .id = arrival, .priority = priority, .tenant = tenant, .n_ids = 1, .slot = -1};
}

static void expect_order(struct dr_queue *q, const uint64_t *id, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        struct dr_request *r = dr_queue_head(q);
        CU_ASSERT_FATAL(r != NULL);
        CU_ASSERT_EQUAL(r->id, id[i]);
        dr_queue_remove(q, r);
    }
    CU_ASSERT(dr_queue_head(q) == NULL);
    CU_ASSERT_EQUAL(q->n_tokens, 0);
}

static void queue_serves_priority_then_age(void) {
    struct dr_queue q = {0};
    CU_ASSERT_FATAL(dr_queue_init(&q, 8).code == DR_OK);
    struct dr_request r[4] = {waiting(0, 5, 1), waiting(1, 0, 1), waiting(2, 0, 1), waiting(3, -1, 1)};
    for (int32_t i = 0; i < 4; i++) dr_queue_push(&q, &r[i]);
    const uint64_t order[] = {3, 1, 2, 0};
    expect_order(&q, order, 4);
    dr_queue_fini(&q);
}

static void queue_lets_tenants_take_turns(void) {
    struct dr_queue q = {0};
    CU_ASSERT_FATAL(dr_queue_init(&q, 8).code == DR_OK);
    /* tenant 1 sends four, then tenants 2 and 3 one each */
    struct dr_request r[6] = {waiting(0, 0, 1), waiting(1, 0, 1), waiting(2, 0, 1),
                              waiting(3, 0, 1), waiting(4, 0, 2), waiting(5, 0, 3)};
    for (int32_t i = 0; i < 6; i++) dr_queue_push(&q, &r[i]);
    const uint64_t order[] = {0, 4, 5, 1, 2, 3};
    expect_order(&q, order, 6);
    dr_queue_fini(&q);
}

static void queue_puts_preempted_in_front(void) {
    struct dr_queue q = {0};
    CU_ASSERT_FATAL(dr_queue_init(&q, 8).code == DR_OK);
    struct dr_request r[4] = {waiting(0, 0, 1), waiting(7, 0, 2), waiting(6, 0, 1), waiting(9, -1, 1)};
    r[1].preempted = r[2].preempted = true;
    for (int32_t i = 0; i < 4; i++) dr_queue_push(&q, &r[i]);
    const uint64_t order[] = {9, 6, 7, 0};
    expect_order(&q, order, 4);
    dr_queue_fini(&q);
}

static void pool_gives_each_record_its_own_stripes(void) {
    struct dr_pool p = {0};
    CU_ASSERT_FATAL(dr_pool_init(&p, 3, 100000).code == DR_OK);
    struct dr_request *r[3];
    for (int32_t i = 0; i < 3; i++) {
        r[i] = dr_pool_acquire(&p);
        CU_ASSERT_FATAL(r[i] != NULL);
        r[i]->state = DR_REQUEST_WAITING;
        r[i]->id = (uint64_t)i + 40;
        for (int32_t k = 0; k < 100000; k++) r[i]->ids[k] = (uint32_t)i;
        r[i]->n_ids = 100000;
    }
    CU_ASSERT(dr_pool_acquire(&p) == NULL);
    CU_ASSERT(r[0]->ids[99999] == 0 && r[1]->ids[0] == 1 && r[1]->ids[99999] == 1 && r[2]->ids[0] == 2);
    CU_ASSERT(dr_pool_find(&p, 41) == r[1]);
    r[1]->state = DR_REQUEST_FREE;
    dr_pool_release(&p, r[1]); /* its long stripe goes back; the neighbours stay */
    CU_ASSERT(dr_pool_find(&p, 41) == NULL);
    CU_ASSERT(r[0]->ids[99999] == 0 && r[2]->ids[0] == 2);
    CU_ASSERT(dr_pool_acquire(&p) == r[1]);
    dr_pool_fini(&p);
}

static void pool_refuses_what_no_address_space_holds(void) {
    struct dr_pool p = {0};
    CU_ASSERT(dr_pool_init(&p, 1 << 17, 1 << 30).code == DR_EFULL);
    CU_ASSERT(p.request == NULL);
}

static void pace_follows_measurement(void) {
    struct dr_config c = fake_config();
    struct dr_layout l = fake_layout(
        (struct fake_wish){.context = 64, .seqs_max = 4, .step_tokens = 64, .n_page = 16, .page_tokens = 4});
    struct dr_pace p;
    dr_pace_init(&p, &c, &l);
    struct dr_shape_segment one = {.n_rows = 1, .n_top = -1}, many = {.n_rows = 64, .n_top = -1};
    struct dr_step_shape small = {.n_segment = 1, .n_rows = 1, .segment = &one};
    struct dr_step_shape large = {.n_segment = 1, .n_rows = 64, .segment = &many};
    CU_ASSERT(dr_pace_longest_ns(&p, &large) > dr_pace_longest_ns(&p, &small));
    dr_pace_measured(&p, dr_pace_work(&p, &small), 1000);
    CU_ASSERT_EQUAL(dr_pace_expected_ns(&p, &small), 1000);
    dr_pace_measured(&p, dr_pace_work(&p, &small),
                     9000); /* one slow step: the average moves by 1/8, the longest at once */
    CU_ASSERT_EQUAL(dr_pace_expected_ns(&p, &small), 2000);
    CU_ASSERT_EQUAL(dr_pace_longest_ns(&p, &small), 9000);
    double ratio = dr_pace_work(&p, &large) / dr_pace_work(&p, &small);
    CU_ASSERT_DOUBLE_EQUAL(ratio, 11.95, 0.01); /* (72 x 16,544 + 64 x 32 x 288) / (9 x 16,544 + 0.5 x 288) */
}

static CU_TestInfo cases[] = {
    {"the ledger grows a table and gives pages back", ledger_grows_and_gives_back},
    {"the ledger's check sees a shared and a lost page", ledger_check_sees_damage},
    {"the queue serves by priority, then by age", queue_serves_priority_then_age},
    {"tenants of equal priority take turns", queue_lets_tenants_take_turns},
    {"preempted requests stand in front of their priority", queue_puts_preempted_in_front},
    {"each record of the pool has its own stripes", pool_gives_each_record_its_own_stripes},
    {"a pool beyond the address space is refused", pool_refuses_what_no_address_space_holds},
    {"the pace follows what was measured", pace_follows_measurement},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_parts = {.pName = "coordinator/parts", .pTests = cases};
