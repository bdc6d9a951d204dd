/* test_parts.c - ledger, queue and pace on their own.
 * In:   calls.      Out: checks.
 * Owns: nothing.
 * Why:  the parts that everything else trusts. */
#include <CUnit/CUnit.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "ledger: slot 2 needs 1 pages, 0 of 5 are free or idle");
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
    CU_ASSERT_FATAL(dr_pool_init(&p, 3, 100000, 64).code == DR_OK);
    struct dr_request *r[3];
    for (int32_t i = 0; i < 3; i++) {
        r[i] = dr_pool_acquire(&p);
        CU_ASSERT_FATAL(r[i] != NULL);
        r[i]->state = DR_REQUEST_WAITING;
        r[i]->id = (uint64_t)i + 40;
        for (int32_t k = 0; k < 100000; k++) r[i]->ids[k] = (uint32_t)i;
        for (int32_t k = 0; k <= 100000 / 64; k++) r[i]->name[k].byte[31] = (uint8_t)(i + 1);
        r[i]->n_ids = 100000;
        r[i]->n_name = 100000 / 64;
    }
    CU_ASSERT(dr_pool_acquire(&p) == NULL);
    CU_ASSERT(r[0]->ids[99999] == 0 && r[1]->ids[0] == 1 && r[1]->ids[99999] == 1 && r[2]->ids[0] == 2);
    CU_ASSERT(r[0]->name[1562].byte[31] == 1 && r[1]->name[0].byte[31] == 2);
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
    CU_ASSERT(dr_pool_init(&p, 1 << 17, 1 << 30, 64).code == DR_EFULL);
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
    CU_ASSERT_DOUBLE_EQUAL(
        ratio, 11.043,
        0.001); /* (72 x 23,840 + 64 x (32 x 240 + 3,072)) / (9 x 23,840 + 0.5 x 240 + 3,072) */
}

/* The most rows within some work: one more would be too many. */
static void pace_cuts_chunks(void) {
    struct dr_config c = fake_config();
    struct dr_layout l = fake_layout(
        (struct fake_wish){.context = 64, .seqs_max = 4, .step_tokens = 64, .n_page = 16, .page_tokens = 4});
    struct dr_pace p;
    dr_pace_init(&p, &c, &l);
    CU_ASSERT(isinf(dr_pace_within(&p, 1000)));
    int32_t before = INT32_MAX;
    for (int32_t first = 0; first <= 100000; first += 5000) {
        for (int form = 0; form < 2; form++) {
            int32_t n = dr_pace_rows(&p, form == 1, first, 1e9);
            CU_ASSERT(n == 0 || dr_pace_segment(&p, form == 1, first, n) <= 1e9);
            CU_ASSERT(dr_pace_segment(&p, form == 1, first, n + 1) > 1e9);
            if (form == 0) CU_ASSERT(n <= before);
            if (form == 0) before = n;
        }
    }
    CU_ASSERT_EQUAL(dr_pace_rows(&p, false, 400000, 1e9), 0); /* its past alone takes more */
    CU_ASSERT_EQUAL(dr_pace_rows(&p, true, 0, -1), 0);
    /* as many rows as cost what their past costs: (23,840 + 240 x 6,000 + 3,072) n = 6,000 x 3,072 */
    CU_ASSERT_DOUBLE_EQUAL(dr_pace_even_rows(&p, 6000), 12.565, 0.001);
    CU_ASSERT_EQUAL(dr_pace_even_rows(&p, 0), 0);
    dr_pace_measured(&p, 500, 1000);
    CU_ASSERT_EQUAL(dr_pace_within(&p, 4000), 2000);
}

static void names_are_chains(void) {
    uint32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8}, other[8] = {1, 2, 3, 4, 5, 6, 7, 9};
    struct dr_digest root, salted, first, again, second, differs;
    dr_prefix_root("", &root);
    dr_prefix_root("a", &salted);
    CU_ASSERT(memcmp(&root, &salted, sizeof root) != 0);
    dr_prefix_next(&root, ids, 4, 0, &first);
    dr_prefix_next(&root, other, 4, 0, &again);
    CU_ASSERT(memcmp(&first, &again, sizeof first) == 0);
    dr_prefix_next(&salted, ids, 4, 0, &differs); /* the salt, */
    CU_ASSERT(memcmp(&first, &differs, sizeof first) != 0);
    dr_prefix_next(&root, ids, 4, 1, &differs); /* the kind, */
    CU_ASSERT(memcmp(&first, &differs, sizeof first) != 0);
    dr_prefix_next(&first, ids + 4, 4, 0, &second);
    dr_prefix_next(&first, other + 4, 4, 0, &differs); /* an id, */
    CU_ASSERT(memcmp(&second, &differs, sizeof first) != 0);
    dr_prefix_next(&root, ids + 4, 4, 0, &differs); /* and what came before make another name */
    CU_ASSERT(memcmp(&second, &differs, sizeof first) != 0);
}

static void idle_pages_go_oldest_first(void) {
    struct dr_prefix p = {0};
    struct dr_digest name = {{0}};
    enum { N = 50 };
    CU_ASSERT_FATAL(dr_prefix_init(&p, N).code == DR_OK);
    for (int32_t i = 0; i < N; i++) { /* all in one bucket: the first four bytes are equal */
        name.byte[20] = (uint8_t)i;
        CU_ASSERT_EQUAL(dr_prefix_find(&p, &name), -1);
        dr_prefix_name(&p, i, &name);
        CU_ASSERT_EQUAL(dr_prefix_find(&p, &name), i);
        dr_prefix_fill(&p, i);
        dr_prefix_rest(&p, i);
    }
    CU_ASSERT(dr_prefix_check(&p).code == DR_OK);
    dr_prefix_wake(&p, 0); /* the ends and a middle one are used again; 0 rests anew */
    dr_prefix_wake(&p, N - 1);
    dr_prefix_wake(&p, 7);
    dr_prefix_rest(&p, 0);
    CU_ASSERT(dr_prefix_check(&p).code == DR_OK);
    for (int32_t i = 1; i < N - 1; i++)
        if (i != 7) CU_ASSERT_EQUAL(dr_prefix_evict(&p), i);
    CU_ASSERT_EQUAL(dr_prefix_evict(&p), 0);
    CU_ASSERT(p.n_idle == 0 && p.newest == -1 && p.oldest == -1 && p.n_forgotten == N - 2);
    name.byte[20] = 7;
    CU_ASSERT_EQUAL(dr_prefix_find(&p, &name), 7); /* in use: still found */
    name.byte[20] = 8;
    CU_ASSERT_EQUAL(dr_prefix_find(&p, &name), -1);
    dr_prefix_rest(&p, 7);
    p.older[7] = 3;
    CU_ASSERT(dr_prefix_check(&p).code == DR_EINTERNAL);
    p.older[7] = -1;
    p.digest[7].byte[0]++;
    CU_ASSERT(dr_prefix_check(&p).code == DR_EINTERNAL);
    dr_prefix_fini(&p);
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
    {"the pace cuts chunks to the work that is allowed", pace_cuts_chunks},
    {"a page's name depends on salt, kind, ids and all before", names_are_chains},
    {"idle pages are given up in the order in which they came to rest", idle_pages_go_oldest_first},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_parts = {.pName = "coordinator/parts", .pTests = cases};
