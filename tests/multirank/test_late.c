/* test_late.c - a member of a group that does not come.
 * In:   nothing.      Out: one line of the coordinator when every waiting member failed as it should.
 * Owns: nothing.
 * Why:  a wait without an end is the one failure that nothing else can repair; after it the processes must
 * _exit, as workers do. */
#include <stdio.h>
#include <unistd.h>

#include "tests/multirank/support.h"

enum { WAIT_MS = 300, AS_EXPECTED = 7 };

static uint64_t soon(void) {
    return dr_clock_ns() + WAIT_MS * 1000000ull;
}

/* Worker 0 stays away from the second call; the others must get ETIME, and EPEER from then on. */
static uint64_t worker(struct dr_channel *ch) {
    int32_t me = ch->end - 1, n = ch->n_end - 1, members[DR_GROUP_MEMBERS_MAX];
    struct dr_group *g = NULL, *never = NULL;
    float x[100] = {0};
    for (int32_t m = 0; m < n; m++) members[m] = m;
    if (dr_group_mpi_create(members, n, 1, 1 << 20, multirank_deadline(), &g).code != DR_OK) return 1;
    g->deadline_ns = multirank_deadline();
    if (g->ops->allreduce(g, x, 100, NULL).code != DR_OK) return 2;
    if (me == 0) return AS_EXPECTED;
    g->deadline_ns = soon();
    uint64_t begin = dr_clock_ns();
    if (g->ops->allreduce(g, x, 100, NULL).code != DR_ETIME) return 3;
    fprintf(stderr, "worker %d: %s\n", me, dr_error_text());
    if (dr_clock_ns() - begin < WAIT_MS * 1000000ull) return 4;
    if (g->ops->allreduce(g, x, 100, NULL).code != DR_EPEER) return 5;
    if (g->ops->recv(g, 0, x, 4, NULL).code != DR_EPEER) return 6;
    if (dr_group_mpi_create(members, n, 2, 1 << 20, soon(), &never).code != DR_ETIME) return 8;
    fprintf(stderr, "worker %d: %s\n", me, dr_error_text());
    dr_group_destroy(g); /* legal after a failure, and must not wait */
    return AS_EXPECTED;
}

int main(int argc, char **argv) {
    struct dr_channel *ch = NULL;
    if (dr_channel_mpi_create(&argc, &argv, &ch).code != DR_OK) return 1;
    int32_t from = 0, good = 0;
    if (ch->end == 0) {
        for (int32_t w = 1; w < ch->n_end; w++) {
            uint64_t verdict = multirank_hear(ch, &from);
            if (verdict == AS_EXPECTED)
                good++;
            else
                fprintf(stderr, "worker %d failed at point %d\n", from - 1, (int)verdict);
        }
        if (good == ch->n_end - 1) printf("late: every member saw ETIME and EPEER after it\n");
        fflush(stdout);
        dr_clock_sleep_ns(200000000); /* mpirun forwards the line before the job is torn down */
    } else {
        multirank_tell(ch, 0, worker(ch));
        multirank_hear(ch, &from); /* never comes: the coordinator's end ends this process */
    }
    _exit(0);
}
