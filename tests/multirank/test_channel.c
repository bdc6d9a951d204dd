/* test_channel.c - the MPI channel between a coordinator and its workers.
 * In:   nothing.      Out: CUnit results of every process.
 * Owns: its frames.
 * Why:  order, sizes, bursts and refusals are those of channel.h; what idle waiting costs is printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/multirank/support.h"

enum { FRAME_MAX = DR_FRAME_HEADER + DR_MPI_FRAME_MAX };

static uint8_t *memory(size_t bytes) {
    uint8_t *p = malloc(bytes);
    DR_ASSERT(p != NULL);
    return p;
}

/* Frame k of an end: its number and sender in front, the rest follows from them. The channel does not look
 * inside. */
static void fill(uint8_t *frame, size_t bytes, int32_t from, uint32_t k) {
    memset(frame, (int)(k * 7 + (uint32_t)from), bytes);
    memcpy(frame + 8, &from, sizeof from);
    memcpy(frame + 12, &k, sizeof k);
}

static bool same(const uint8_t *frame, size_t bytes, int32_t from, uint32_t k, uint8_t *scratch) {
    fill(scratch, bytes, from, k);
    return memcmp(frame, scratch, bytes) == 0;
}

static size_t size_of(uint32_t k) {
    static const size_t sizes[] = {DR_FRAME_HEADER, 100, 512, 4096, 70000, FRAME_MAX};
    return sizes[k % (sizeof sizes / sizeof sizes[0])];
}

static void expect_ok(dr_status st) {
    CU_ASSERT_EQUAL(st.code, DR_OK);
    if (st.code != DR_OK) fprintf(stderr, "%s: %s\n", dr_code_name(st.code), dr_error_text());
}

static void send_run(int32_t to, uint32_t n, size_t bytes, uint8_t *frame) { /* bytes 0: of all sizes */
    struct dr_channel *ch = multirank_channel();
    for (uint32_t k = 0; k < n; k++) {
        size_t len = bytes ? bytes : size_of(k);
        fill(frame, len, ch->end, k);
        expect_ok(dr_channel_send(ch, to, frame, len));
    }
}

/* The coordinator has taken everything: what follows is not mixed with it. */
static void taken(void) {
    struct dr_channel *ch = multirank_channel();
    int32_t from = 0;
    for (int32_t w = 1; ch->end == 0 && w < ch->n_end; w++) multirank_tell(ch, w, 3);
    if (ch->end != 0) multirank_hear(ch, &from);
    multirank_meet(ch);
}

/* n frames of each of `peers` ends: whole, and in order for each. */
static void recv_run(int32_t peers, uint32_t n, size_t bytes, uint8_t *frame, uint8_t *scratch) {
    struct dr_channel *ch = multirank_channel();
    uint32_t next[64] = {0};
    for (uint32_t k = 0; k < n * (uint32_t)peers; k++) {
        int32_t from = -1;
        size_t got = 0;
        expect_ok(dr_channel_recv(ch, frame, FRAME_MAX, multirank_deadline(), &from, &got));
        CU_ASSERT(from >= 0 && from < 64);
        if (from < 0 || from >= 64) return;
        uint32_t want = next[from]++;
        CU_ASSERT_EQUAL(got, bytes ? bytes : size_of(want));
        CU_ASSERT(same(frame, got, from, want, scratch));
    }
}

static void both_ways(void) {
    struct dr_channel *ch = multirank_channel();
    uint8_t *frame = memory(FRAME_MAX), *scratch = memory(FRAME_MAX);
    if (ch->end == 0) {
        for (int32_t w = 1; w < ch->n_end; w++) send_run(w, 30, 0, frame);
        recv_run(ch->n_end - 1, 30, 0, frame, scratch);
    } else {
        recv_run(1, 30, 0, frame, scratch);
        send_run(0, 30, 0, frame);
    }
    free(frame);
    free(scratch);
    taken();
}

static void burst(void) { /* more than may be unsent, while the coordinator looks away */
    struct dr_channel *ch = multirank_channel();
    uint8_t *frame = memory(FRAME_MAX), *scratch = memory(FRAME_MAX);
    uint32_t n = 4 * DR_CHANNEL_UNSENT_MAX;
    if (ch->end == 0) {
        dr_clock_sleep_ns(100000000);
        recv_run(ch->n_end - 1, n, 100000, frame, scratch);
    } else {
        send_run(0, n, 100000, frame);
    }
    free(frame);
    free(scratch);
    taken();
}

static void unsent(void) { /* the coordinator does not wait for a worker that takes nothing */
    struct dr_channel *ch = multirank_channel();
    uint8_t *frame = memory(FRAME_MAX);
    int32_t from = 0;
    if (ch->end == 0) {
        dr_status st = dr_ok();
        uint64_t n = 0;
        for (; n < 3 * DR_CHANNEL_UNSENT_MAX && st.code == DR_OK; n++) {
            fill(frame, FRAME_MAX, 0, (uint32_t)n);
            st = dr_channel_send(ch, 1, frame, FRAME_MAX);
        }
        CU_ASSERT_EQUAL(st.code, DR_EPEER);
        CU_ASSERT(n > DR_CHANNEL_UNSENT_MAX);
        uint64_t taken = 0;
        for (uint64_t left = n - 1; left > 0; left--) taken += multirank_hear(ch, &from);
        CU_ASSERT_EQUAL(taken, n - 1);
    } else if (ch->end == 1) {
        dr_clock_sleep_ns(1500000000u); /* longer than 64 MiB take to copy on a busy machine */
        size_t got = 1;
        for (uint32_t k = 0;; k++) {
            expect_ok(dr_channel_recv(ch, frame, FRAME_MAX, dr_clock_ns() + 1000000000ull, &from, &got));
            if (got == 0) break;
            multirank_tell(ch, 0, 1);
        }
    }
    free(frame);
    multirank_meet(ch);
}

static void refusals(void) {
    struct dr_channel *ch = multirank_channel();
    uint8_t *frame = memory(FRAME_MAX + 1), small[DR_FRAME_HEADER];
    int32_t peer = ch->end == 0 ? 1 : 0, from = 0;
    size_t got = 0;
    memset(frame, 0, FRAME_MAX + 1);
    CU_ASSERT_EQUAL(dr_channel_send(ch, peer, frame, FRAME_MAX + 1).code, DR_EFULL);
    if (ch->end == 1) {
        expect_ok(dr_channel_send(ch, 0, frame, DR_FRAME_HEADER + 1)); /* too long for the receiver's room */
        fill(frame, DR_FRAME_HEADER, 1, 5);
        expect_ok(dr_channel_send(ch, 0, frame, DR_FRAME_HEADER)); /* which stays usable */
    } else if (ch->end == 0) {
        CU_ASSERT_EQUAL(dr_channel_recv(ch, small, sizeof small, multirank_deadline(), &from, &got).code,
                        DR_EPROTO);
        CU_ASSERT_EQUAL(got, 0);
        expect_ok(dr_channel_recv(ch, small, sizeof small, multirank_deadline(), &from, &got));
        CU_ASSERT_EQUAL(got, DR_FRAME_HEADER);
        CU_ASSERT(same(small, got, 1, 5, frame));
    }
    free(frame);
    taken(); /* until then the other workers keep quiet */
}

static void hear_nothing(struct dr_channel *ch) {
    uint8_t frame[DR_FRAME_HEADER];
    int32_t from = 0;
    size_t got = 1;
    expect_ok(dr_channel_recv(ch, frame, sizeof frame, 0, &from, &got));
    CU_ASSERT_EQUAL(got, 0);
    uint64_t begin = dr_clock_ns();
    got = 1;
    expect_ok(dr_channel_recv(ch, frame, sizeof frame, begin + 50000000, &from, &got));
    CU_ASSERT_EQUAL(got, 0);
    CU_ASSERT(dr_clock_ns() - begin >= 50000000);
    CU_ASSERT(ch->idle_ns != 0 && ch->idle_ns <= begin + 50000000);
}

/* First the coordinator, then the workers: nobody sends to one who must hear nothing. */
static void in_turn(void (*quiet)(struct dr_channel *ch)) {
    struct dr_channel *ch = multirank_channel();
    int32_t from = 0;
    if (ch->end == 0) {
        quiet(ch);
        for (int32_t w = 1; w < ch->n_end; w++) multirank_tell(ch, w, 4);
        for (int32_t w = 1; w < ch->n_end; w++) multirank_hear(ch, &from);
    } else {
        multirank_hear(ch, &from);
        quiet(ch);
        multirank_tell(ch, 0, 4);
    }
    multirank_meet(ch);
}

static void nothing(void) {
    in_turn(hear_nothing);
}

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void be_idle(struct dr_channel *ch) {
    uint8_t frame[DR_FRAME_HEADER];
    int32_t from = 0;
    size_t got = 1;
    uint64_t cpu = cpu_ns();
    expect_ok(dr_channel_recv(ch, frame, sizeof frame, dr_clock_ns() + 1500000000u, &from, &got));
    cpu = cpu_ns() - cpu;
    printf("end %d: idle for 1.5 s, %.2f %% of a core\n", ch->end, (double)cpu / 1.5e7);
    CU_ASSERT_EQUAL(got, 0);
    CU_ASSERT(cpu <
              150000000); /* a tenth of a core: far above what it costs, far below what spinning would */
}

static void idle(void) {
    struct dr_channel *ch = multirank_channel();
    int32_t from = 0;
    in_turn(be_idle);
    if (ch->end == 0) { /* workers have been idle for a second; how soon do they hear? Printed, not judged */
        dr_clock_sleep_ns(1000000000u);
        for (int32_t w = 1; w < ch->n_end; w++) multirank_tell(ch, w, dr_clock_ns());
        for (int32_t w = 1; w < ch->n_end; w++) multirank_hear(ch, &from);
    } else {
        uint64_t sent = multirank_hear(ch, &from);
        printf("end %d: heard %.2f ms after the frame was sent\n", ch->end,
               (double)(dr_clock_ns() - sent) / 1e6);
        multirank_tell(ch, 0, 0);
    }
    multirank_meet(ch);
}

static void round_trip(void) { /* printed, not judged */
    struct dr_channel *ch = multirank_channel();
    int32_t from = 0;
    uint64_t begin = dr_clock_ns();
    for (int k = 0; k < 200; k++) {
        if (ch->end != 0) multirank_tell(ch, 0, multirank_hear(ch, &from));
        for (int32_t w = 1; ch->end == 0 && w < ch->n_end; w++) multirank_tell(ch, w, 1);
        for (int32_t w = 1; ch->end == 0 && w < ch->n_end; w++) multirank_hear(ch, &from);
    }
    if (ch->end == 0)
        printf("round trip to %d workers: %.1f us\n", ch->n_end - 1, (double)(dr_clock_ns() - begin) / 200e3);
    multirank_meet(ch);
}

static CU_TestInfo cases[] = {
    {"frames of all sizes arrive whole and in order, both ways", both_ways},
    {"a worker's burst of more than 64 frames arrives", burst},
    {"64 untaken frames are EPEER for the coordinator, and the taken ones arrive", unsent},
    {"a frame too long is EFULL, one longer than the room EPROTO", refusals},
    {"nothing came: OK and zero bytes, not before the deadline", nothing},
    {"waiting costs little", idle},
    {"time of a round trip is printed", round_trip},
    CU_TEST_INFO_NULL,
};

int main(int argc, char **argv) {
    CU_SuiteInfo suites[] = {{.pName = "multirank/channel", .pTests = cases}, CU_SUITE_INFO_NULL};
    return multirank_main(argc, argv, suites);
}
