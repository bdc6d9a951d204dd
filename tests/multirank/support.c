/* support.c - see support.h.
 * In:   MPI's arguments.      Out: see support.h.
 * Owns: the channel of the process, for CUnit's tests take no argument.
 * Why:  see support.h. */
#include "tests/multirank/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct dr_channel *channel;

struct dr_channel *multirank_channel(void) {
    return channel;
}

uint64_t multirank_deadline(void) {
    return dr_clock_ns() + PATIENCE_S * 1000000000ull;
}

static void must(dr_status st, const char *what) {
    if (st.code == DR_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, dr_code_name(st.code), dr_error_text());
    _exit(1); /* the other processes end with this one */
}

void multirank_tell(struct dr_channel *ch, int32_t to, uint64_t value) {
    uint8_t frame[64];
    size_t bytes = 0;
    must(dr_encode_word(DR_MSG_ALIVE, 0, value, frame, sizeof frame, &bytes), "tell");
    must(dr_channel_send(ch, to, frame, bytes), "tell");
}

uint64_t multirank_hear(struct dr_channel *ch, int32_t *from) {
    uint8_t frame[64];
    size_t bytes = 0;
    uint64_t value = 0;
    must(dr_channel_recv(ch, frame, sizeof frame, multirank_deadline(), from, &bytes), "hear");
    if (bytes < DR_FRAME_HEADER) must(dr_fail(DR_ETIME, "end %d heard nothing", ch->end), "hear");
    must(dr_decode_word(frame + DR_FRAME_HEADER, bytes - DR_FRAME_HEADER, &value), "hear");
    return value;
}

void multirank_meet(struct dr_channel *ch) {
    int32_t from = 0;
    if (ch->end != 0) {
        multirank_tell(ch, 0, 1);
        multirank_hear(ch, &from);
        return;
    }
    for (int32_t w = 1; w < ch->n_end; w++) multirank_hear(ch, &from);
    for (int32_t w = 1; w < ch->n_end; w++) multirank_tell(ch, w, 2);
}

int multirank_main(int argc, char **argv, CU_SuiteInfo *suites) {
    must(dr_channel_mpi_create(&argc, &argv, &channel), "create");
    int status = dr_run_suites(suites, argc, argv);
    multirank_meet(channel);
    dr_channel_destroy(channel);
    dr_mpi_finalize();
    return status;
}

float multirank_value(int32_t m, size_t i) {
    uint32_t h = (uint32_t)(i * 2654435761u) ^ (uint32_t)(m + 1) * 40503u;
    h ^= h >> 13;
    h *= 0x5bd1e995u;
    h ^= h >> 15;
    float v = (float)((int32_t)(h & 0xffff) - 32768);
    for (uint32_t k = 0; k < (h >> 16) % 20; k++) v *= 0.25f;
    return v;
}
