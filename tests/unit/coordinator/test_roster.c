/* test_roster.c - identity checks and heartbeat ages.
 * In:   messages of ranks.      Out: checks.
 * Owns: nothing.
 * Why:  a difference must be refused with both values, a silent rank named in time. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/roster/roster.h"

static struct dr_hello hello_of(int32_t rank) {
    struct dr_hello h = {
        .protocol = DR_PROTOCOL, .build = DR_VERSION, .rank = rank, .pid = 100 + rank, .host = "node7"};
    h.tensors_hash = 0xAB;
    h.arithmetic = (struct dr_arithmetic){.isa = "avx2", .inputs = "f32"};
    h.layout_hash = 0xCD;
    return h;
}

static void start(struct dr_roster *r, int32_t n) {
    CU_ASSERT_FATAL(dr_roster_init(r, n, 0xCD).code == DR_OK);
}

static void equal_ranks_join_and_get_ready(void) {
    struct dr_roster r = {0};
    char line[128];
    start(&r, 2);
    struct dr_hello a = hello_of(0), b = hello_of(1);
    struct dr_ready ready = {.rank = 1, .weights_bytes = 5};
    CU_ASSERT_STRING_EQUAL(dr_roster_below(&r, DR_RANK_JOINED, line, sizeof line), "rank 0, rank 1");
    CU_ASSERT(dr_roster_hello(&r, 1, &b).code == DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_roster_below(&r, DR_RANK_JOINED, line, sizeof line), "rank 0");
    CU_ASSERT_STRING_EQUAL(dr_roster_below(&r, DR_RANK_READY, line, sizeof line),
                           "rank 0, rank 1 (node7, pid 101)");
    CU_ASSERT(dr_roster_hello(&r, 0, &a).code == DR_OK);
    CU_ASSERT(r.n_joined == 2 && r.first == 1);
    CU_ASSERT(dr_roster_ready(&r, 1, &ready).code == DR_OK);
    CU_ASSERT(r.n_ready == 1 && r.rank[1].ready.weights_bytes == 5);
    dr_roster_fini(&r);
}

static void expect_refused(const struct dr_hello *h, enum dr_code code, const char *text) {
    struct dr_roster r = {0};
    start(&r, 2);
    struct dr_hello good = hello_of(0);
    CU_ASSERT(dr_roster_hello(&r, 0, &good).code == DR_OK);
    CU_ASSERT(dr_roster_hello(&r, 1, h).code == code);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), text);
    CU_ASSERT(r.n_joined == 1);
    dr_roster_fini(&r);
}

static void differences_are_refused_with_both_values(void) {
    struct dr_hello h = hello_of(1);
    h.protocol = 9;
    expect_refused(&h, DR_EPROTO,
                   "rank 1 on node7 speaks protocol 9, the coordinator 1: install one version everywhere");
    h = hello_of(1);
    strcpy(h.build, "0.0.9");
    expect_refused(&h, DR_EPROTO,
                   "rank 1 on node7 is build 0.0.9, the coordinator " DR_VERSION
                   ": install one version everywhere");
    h = hello_of(1);
    h.layout_hash = 1;
    expect_refused(&h, DR_EMODEL,
                   "rank 1 on node7 computed layout 0000000000000001, the coordinator 00000000000000cd: "
                   "config.json or the layout options "
                   "differ");
    h = hello_of(1);
    h.tensors_hash = 2;
    expect_refused(&h, DR_EMODEL,
                   "rank 1 on node7 has checkpoint 0000000000000002, rank 0 on node7 has 00000000000000ab: "
                   "their model folders differ");
    h = hello_of(1);
    h.arithmetic = (struct dr_arithmetic){.isa = "bf16", .inputs = "bf16"};
    expect_refused(&h, DR_EMODEL,
                   "rank 1 on node7 (bf16) rounds inputs to bf16, rank 0 on node7 (avx2) to f32: their "
                   "processors differ; use --precision f32, or --isa with a set that all have");
    h = hello_of(0);
    expect_refused(&h, DR_EPROTO, "a hello from rank 1 says it is of rank 0");
}

static void places_are_counted_by_host(void) {
    static const char *const host[] = {"a", "b", "a", "a", "b"};
    struct dr_roster r = {0};
    int32_t place[5], peers[5];
    start(&r, 5);
    for (int32_t i = 0; i < 5; i++) {
        struct dr_hello h = hello_of(i);
        strcpy(h.host, host[i]);
        CU_ASSERT(dr_roster_hello(&r, i, &h).code == DR_OK);
    }
    dr_roster_places(&r, place, peers);
    static const int32_t want_place[] = {0, 0, 1, 2, 1}, want_peers[] = {3, 2, 3, 3, 2};
    CU_ASSERT(memcmp(place, want_place, sizeof place) == 0 && memcmp(peers, want_peers, sizeof peers) == 0);
    dr_roster_fini(&r);
}

static void order_is_kept(void) {
    struct dr_roster r = {0};
    start(&r, 1);
    struct dr_hello h = hello_of(0);
    struct dr_ready ready = {.rank = 0}, wrong = {.rank = 1};
    struct dr_beat beat = {.rank = 3};
    struct dr_step_report report = {.rank = 4};
    CU_ASSERT(dr_roster_ready(&r, 0, &ready).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "rank 0 is ready before its hello");
    CU_ASSERT(dr_roster_hello(&r, 0, &h).code == DR_OK);
    CU_ASSERT(dr_roster_hello(&r, 0, &h).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "rank 0 said hello twice");
    CU_ASSERT(dr_roster_ready(&r, 0, &wrong).code == DR_EPROTO);
    CU_ASSERT(dr_roster_ready(&r, 0, &ready).code == DR_OK);
    CU_ASSERT(dr_roster_ready(&r, 0, &ready).code == DR_EPROTO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "rank 0 is ready twice");
    CU_ASSERT(dr_roster_beat(&r, 0, &beat, 1).code == DR_EPROTO);
    CU_ASSERT(dr_roster_report(&r, 0, &report).code == DR_EPROTO);
    dr_roster_fini(&r);
}

static const uint64_t ms = 1000000U;

static void silence_is_suspect_then_dead(void) {
    struct dr_roster r = {0};
    start(&r, 2);
    struct dr_hello a = hello_of(0), b = hello_of(1);
    struct dr_beat beat = {.rank = 0, .step = 8, .op = 3};
    int32_t suspect = -1, n_suspect = 0;
    uint64_t now = 1000 * ms;
    CU_ASSERT(dr_roster_hello(&r, 0, &a).code == DR_OK);
    CU_ASSERT(dr_roster_hello(&r, 1, &b).code ==
              DR_OK); /* rank 1 never beats: its silence means nothing yet */
    CU_ASSERT(dr_roster_beat(&r, 0, &beat, now).code == DR_OK);
    for (int i = 0; i < 24; i++) { /* up to 4,800 ms */
        CU_ASSERT(dr_roster_check(&r, now + (uint64_t)i * 200 * ms, &suspect).code == DR_OK);
        if (suspect >= 0) {
            n_suspect++;
            CU_ASSERT(suspect == 0 && i == 15); /* 3,000 ms */
        }
    }
    CU_ASSERT_EQUAL(n_suspect, 1);
    CU_ASSERT(dr_roster_check(&r, now + 5000 * ms, &suspect).code == DR_EPEER);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "rank 0 on node7 (pid 100) has been silent for 5000 ms; last seen in step 8, call 3");
    CU_ASSERT(dr_roster_beat(&r, 0, &beat, now + 5000 * ms).code == DR_OK);
    CU_ASSERT(dr_roster_check(&r, now + 5001 * ms, &suspect).code == DR_OK);
    dr_roster_fini(&r);
}

static void a_stall_of_the_coordinator_kills_nobody(void) {
    struct dr_roster r = {0};
    start(&r, 1);
    struct dr_hello a = hello_of(0);
    struct dr_beat beat = {.rank = 0};
    int32_t suspect = -1;
    CU_ASSERT(dr_roster_hello(&r, 0, &a).code == DR_OK);
    CU_ASSERT(dr_roster_beat(&r, 0, &beat, 1000 * ms).code == DR_OK);
    CU_ASSERT(dr_roster_check(&r, 1000 * ms, &suspect).code == DR_OK);
    CU_ASSERT(dr_roster_check(&r, 60000 * ms, &suspect).code == DR_OK); /* stopped for 59 s */
    CU_ASSERT(dr_roster_check(&r, 60800 * ms, &suspect).code == DR_OK);
    dr_roster_fini(&r);
}

static void missing_reports_are_named(void) {
    struct dr_roster r = {0};
    char line[40];
    start(&r, 40);
    struct dr_step_report report = {.rank = 0, .step = 5};
    CU_ASSERT(dr_roster_report(&r, 0, &report).code == DR_OK);
    CU_ASSERT_STRING_EQUAL(dr_roster_unreported(&r, 5, line, sizeof line),
                           "rank 1, rank 2, rank 3, rank 4 ..."); /* a fifth would need 43 bytes of 40 */
    CU_ASSERT_STRING_EQUAL(dr_roster_unreported(&r, 0, line, sizeof line), "");
    dr_roster_fini(&r);
}

static CU_TestInfo cases[] = {
    {"ranks are numbered within their host", places_are_counted_by_host},
    {"equal ranks join and get ready", equal_ranks_join_and_get_ready},
    {"differences are refused with both values", differences_are_refused_with_both_values},
    {"messages out of order are refused", order_is_kept},
    {"silence is suspect after 3 s and dead after 5 s", silence_is_suspect_then_dead},
    {"a stall of the coordinator itself kills nobody", a_stall_of_the_coordinator_kills_nobody},
    {"ranks without a report are named, as many as fit", missing_reports_are_named},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_roster = {.pName = "coordinator/roster", .pTests = cases};
