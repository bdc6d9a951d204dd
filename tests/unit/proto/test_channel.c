/* test_channel.c - the in-process channel and its faults.
 * In:   threads as ends.      Out: CUnit results.
 * Owns: nothing.
 * Why:  every fault test of the cluster stands on this one doing exactly what it is told. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/channel.h"
#include "tests/unit/proto/samples.h"

enum { ENDS = 4, ROUNDS = 200 };

static uint64_t in_ms(uint64_t ms) {
    return dr_clock_ns() + ms * 1000000;
}

static dr_status tell(struct dr_channel *ch, int32_t to, uint64_t value) {
    uint8_t frame[64];
    size_t bytes = 0;
    DR_TRY(dr_encode_word(DR_MSG_ALIVE, SAMPLE_EPOCH, value, frame, sizeof frame, &bytes));
    return dr_channel_send(ch, to, frame, bytes);
}

/* bytes 0: nothing came until the deadline */
static dr_status hear(struct dr_channel *ch, uint64_t deadline, int32_t *from, uint64_t *value,
                      size_t *bytes) {
    uint8_t frame[64];
    DR_TRY(dr_channel_recv(ch, frame, sizeof frame, deadline, from, bytes));
    if (*bytes == 0) return dr_ok();
    return dr_decode_word(frame + DR_FRAME_HEADER, *bytes - DR_FRAME_HEADER, value);
}

static void expect(struct dr_channel *ch, int32_t from, uint64_t value) {
    int32_t f = -1;
    uint64_t v = 0;
    size_t bytes = 0;
    dr_status st = hear(ch, in_ms(20000), &f, &v, &bytes);
    CU_ASSERT_EQUAL(st.code, DR_OK);
    CU_ASSERT(bytes > 0);
    CU_ASSERT_EQUAL(f, from);
    CU_ASSERT_EQUAL(v, value);
}

static void expect_nothing(struct dr_channel *ch, uint64_t deadline) {
    int32_t from = 0;
    uint64_t value = 0;
    size_t bytes = 1;
    CU_ASSERT_EQUAL(hear(ch, deadline, &from, &value, &bytes).code, DR_OK);
    CU_ASSERT_EQUAL(bytes, 0);
    CU_ASSERT(dr_clock_ns() >= deadline);
}

static enum dr_code hear_code(struct dr_channel *ch) {
    int32_t from = 0;
    uint64_t value = 0;
    size_t bytes = 0;
    return hear(ch, in_ms(20000), &from, &value, &bytes).code;
}

static void make(struct dr_channel **ch) {
    CU_ASSERT_EQUAL_FATAL(dr_channel_loop_create(ENDS, ch).code, DR_OK);
    for (int32_t i = 0; i < ENDS; i++) CU_ASSERT(ch[i]->end == i && ch[i]->n_end == ENDS);
}

static void drop(struct dr_channel **ch) {
    for (int32_t i = 0; i < ENDS; i++) dr_channel_destroy(ch[i]);
}

static void in_order(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    for (uint64_t k = 0; k < 10; k++)
        for (int32_t w = 1; w < ENDS; w++) {
            CU_ASSERT_EQUAL(tell(ch[w], 0, k).code, DR_OK);
            CU_ASSERT_EQUAL(tell(ch[0], w, ~k).code, DR_OK);
        }
    for (uint64_t k = 0; k < 10; k++)
        for (int32_t w = 1; w < ENDS; w++) {
            expect(ch[0], w, k);
            expect(ch[w], 0, ~k);
        }
    expect_nothing(ch[0], 0);
    CU_ASSERT(ch[0]->idle_ns != 0);
    expect_nothing(ch[1], in_ms(30));
    drop(ch);
}

static void *echo(void *arg) {
    struct dr_channel *ch = arg;
    for (int k = 0; k < ROUNDS; k++) {
        int32_t from = 0;
        uint64_t value = 0;
        size_t bytes = 0;
        if (hear(ch, in_ms(20000), &from, &value, &bytes).code != DR_OK || bytes == 0) return arg;
        if (tell(ch, 0, value + (uint64_t)ch->end).code != DR_OK) return arg;
    }
    if (hear_code(ch) != DR_OK) return arg; /* until all have answered */
    dr_channel_destroy(ch);
    return NULL;
}

static void threads(void) {
    struct dr_channel *ch[ENDS];
    pthread_t thread[ENDS];
    uint64_t sum = 0;
    make(ch);
    for (int32_t w = 1; w < ENDS; w++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[w], NULL, echo, ch[w]), 0);
    for (uint64_t k = 0; k < ROUNDS; k++) {
        for (int32_t w = 1; w < ENDS; w++) CU_ASSERT_EQUAL(tell(ch[0], w, 100 * k).code, DR_OK);
        for (int32_t w = 1; w < ENDS; w++) {
            int32_t from = 0;
            uint64_t value = 0;
            size_t bytes = 0;
            CU_ASSERT_EQUAL_FATAL(hear(ch[0], in_ms(20000), &from, &value, &bytes).code, DR_OK);
            CU_ASSERT_EQUAL(value, 100 * k + (uint64_t)from);
            sum += value;
        }
    }
    for (int32_t w = 1; w < ENDS; w++) CU_ASSERT_EQUAL(tell(ch[0], w, 0).code, DR_OK);
    for (int32_t w = 1; w < ENDS; w++) {
        void *bad = NULL;
        pthread_join(thread[w], &bad);
        CU_ASSERT_PTR_NULL(bad);
    }
    CU_ASSERT_EQUAL(sum, 3 * 100 * (uint64_t)(ROUNDS * (ROUNDS - 1) / 2) + 6 * ROUNDS);
    CU_ASSERT_EQUAL(hear_code(ch[0]), DR_EPEER); /* they have left */
    CU_ASSERT_EQUAL(tell(ch[0], 1, 1).code, DR_EPEER);
    dr_channel_destroy(ch[0]);
}

static void gone(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    CU_ASSERT_EQUAL(tell(ch[2], 0, 5).code, DR_OK);
    dr_channel_destroy(ch[2]);
    expect(ch[0], 2, 5); /* its last frame first */
    CU_ASSERT_EQUAL(hear_code(ch[0]), DR_EPEER);
    CU_ASSERT(strstr(dr_error_text(), "end 2 is gone") != NULL);
    CU_ASSERT_EQUAL(tell(ch[0], 2, 1).code, DR_EPEER);
    expect_nothing(ch[1], 0); /* workers do not watch each other */
    dr_channel_destroy(ch[0]);
    CU_ASSERT_EQUAL(hear_code(ch[1]), DR_EPEER);
    CU_ASSERT_EQUAL(tell(ch[1], 0, 1).code, DR_EPEER);
    dr_channel_destroy(ch[1]);
    dr_channel_destroy(ch[3]);
    dr_channel_destroy(NULL);
}

static void *leave_soon(void *arg) {
    dr_clock_sleep_ns(30000000);
    dr_channel_destroy(arg);
    return NULL;
}

static void woken(void) { /* a waiting end hears of a leaving peer at once, not at its deadline */
    struct dr_channel *ch[ENDS];
    pthread_t thread;
    make(ch);
    uint64_t begin = dr_clock_ns();
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, leave_soon, ch[0]), 0);
    CU_ASSERT_EQUAL(hear_code(ch[3]), DR_EPEER);
    CU_ASSERT(dr_clock_ns() - begin < 15000000000u);
    pthread_join(thread, NULL);
    for (int32_t i = 1; i < ENDS; i++) dr_channel_destroy(ch[i]);
}

static void dropped(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    dr_channel_loop_fault(ch[3], &(struct dr_channel_fault){.from = 1, .to = 0, .drop = true});
    CU_ASSERT_EQUAL(tell(ch[1], 0, 1).code, DR_OK); /* the sender does not know */
    CU_ASSERT_EQUAL(tell(ch[2], 0, 2).code, DR_OK);
    CU_ASSERT_EQUAL(tell(ch[0], 1, 3).code, DR_OK); /* the other way is whole */
    expect(ch[0], 2, 2);
    expect(ch[1], 0, 3);
    expect_nothing(ch[0], in_ms(20));
    dr_channel_loop_fault(ch[3], &(struct dr_channel_fault){.from = DR_ANY_PEER, .to = DR_ANY_PEER});
    CU_ASSERT_EQUAL(tell(ch[1], 0, 4).code, DR_OK);
    expect(ch[0], 1, 4);
    drop(ch);
}

static void delayed(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    dr_channel_loop_fault(ch[0], &(struct dr_channel_fault){.from = 1, .to = 0, .delay_ns = 80000000});
    uint64_t begin = dr_clock_ns();
    CU_ASSERT_EQUAL(tell(ch[1], 0, 1).code, DR_OK);
    dr_channel_loop_fault(ch[0], &(struct dr_channel_fault){.from = 1, .to = 0});
    CU_ASSERT_EQUAL(tell(ch[1], 0, 2).code, DR_OK); /* without delay, but does not overtake */
    CU_ASSERT_EQUAL(tell(ch[2], 0, 3).code, DR_OK); /* another pair is not held up */
    expect(ch[0], 2, 3);
    dr_channel_destroy(ch[1]); /* what is under way arrives before its end is reported */
    expect(ch[0], 1, 1);
    CU_ASSERT(dr_clock_ns() - begin >= 80000000);
    expect(ch[0], 1, 2);
    CU_ASSERT_EQUAL(hear_code(ch[0]), DR_EPEER);
    dr_channel_destroy(ch[0]);
    dr_channel_destroy(ch[2]);
    dr_channel_destroy(ch[3]);
}

static void cut(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    CU_ASSERT_EQUAL(tell(ch[1], 0, 1).code, DR_OK);
    dr_channel_loop_fault(ch[0], &(struct dr_channel_fault){.from = 1, .to = DR_ANY_PEER, .cut = true});
    CU_ASSERT_EQUAL(tell(ch[1], 0, 2).code, DR_EPEER);
    expect(ch[0], 1, 1);
    CU_ASSERT_EQUAL(hear_code(ch[0]), DR_EPEER);
    CU_ASSERT_EQUAL(tell(ch[0], 1, 3).code, DR_OK); /* one way only */
    expect(ch[1], 0, 3);
    drop(ch);
}

static void full(void) {
    struct dr_channel *ch[ENDS];
    make(ch);
    for (uint64_t k = 0; k < DR_CHANNEL_UNSENT_MAX; k++) CU_ASSERT_EQUAL(tell(ch[0], 1, k).code, DR_OK);
    CU_ASSERT_EQUAL(tell(ch[0], 1, 99).code, DR_EPEER); /* at once */
    CU_ASSERT_EQUAL(tell(ch[0], 2, 7).code, DR_OK);     /* the others have their own 64 */
    for (uint64_t k = 0; k < DR_CHANNEL_UNSENT_MAX; k++) expect(ch[1], 0, k);
    CU_ASSERT_EQUAL(tell(ch[0], 1, 100).code, DR_OK);
    expect(ch[1], 0, 100);
    drop(ch);
}

static void *burst(void *arg) {
    for (uint64_t k = 0; k < 10 * DR_CHANNEL_UNSENT_MAX; k++)
        if (tell(arg, 0, k).code != DR_OK) return arg;
    return NULL;
}

static void worker_waits(void) {
    struct dr_channel *ch[ENDS];
    pthread_t thread;
    void *bad = NULL;
    make(ch);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, burst, ch[1]), 0);
    dr_clock_sleep_ns(30000000);
    for (uint64_t k = 0; k < 10 * DR_CHANNEL_UNSENT_MAX; k++) expect(ch[0], 1, k);
    pthread_join(thread, &bad);
    CU_ASSERT_PTR_NULL(bad);
    drop(ch);
}

static void sizes(void) {
    struct dr_channel *ch[ENDS], *none[1] = {NULL};
    size_t most = DR_FRAME_HEADER + DR_MPI_FRAME_MAX, bytes = 9;
    uint8_t *frame = calloc(1, most + 1), *got = calloc(1, most);
    int32_t from = 0;
    make(ch);
    for (size_t i = 0; i < most; i++) frame[i] = (uint8_t)(i * 31 >> 4);
    CU_ASSERT_EQUAL(dr_channel_send(ch[1], 0, frame, most + 1).code, DR_EFULL);
    CU_ASSERT_EQUAL(dr_channel_send(ch[1], 0, frame, most).code, DR_OK);
    CU_ASSERT_EQUAL(dr_channel_recv(ch[0], got, most, 0, &from, &bytes).code, DR_OK);
    CU_ASSERT(bytes == most && memcmp(frame, got, most) == 0);
    CU_ASSERT_EQUAL(dr_channel_send(ch[1], 0, frame, 100).code, DR_OK);
    CU_ASSERT_EQUAL(dr_channel_recv(ch[0], got, 99, 0, &from, &bytes).code, DR_EPROTO);
    CU_ASSERT_EQUAL(bytes, 0);
    CU_ASSERT_EQUAL(dr_channel_loop_create(0, none).code, DR_EINVAL);
    CU_ASSERT_EQUAL(dr_channel_loop_create(DR_RANKS_MAX + 2, none).code, DR_EINVAL);
    free(frame);
    free(got);
    drop(ch);
}

static CU_TestInfo cases[] = {
    {"frames arrive in order for each pair", in_order},
    {"ends on threads of their own", threads},
    {"a destroyed end is EPEER for its peers, after its last frame", gone},
    {"a waiting end is woken by a leaving peer", woken},
    {"dropped frames are lost without a word", dropped},
    {"delayed frames come later, in order, and hold up no other pair", delayed},
    {"a cut is EPEER in its direction", cut},
    {"64 untaken frames are EPEER for the coordinator", full},
    {"a worker waits for the coordinator to take some", worker_waits},
    {"sizes out of bounds are refused", sizes},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_channel = {.pName = "proto/channel_loop", .pTests = cases};
