/* test_late.c - a member of a group that does not come, in each form of the group.
 * In:   shm | mpi | hosts.      Out: one line of the coordinator when every waiting member failed as it
 * should. Owns: nothing. Why:  a wait without an end is the one failure that nothing else can repair; after
 * it the processes must _exit, as workers do. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/multirank/support.h"

enum { WAIT_MS = 300, AS_EXPECTED = 7 };

static uint64_t soon(void) {
    return dr_clock_ns() + WAIT_MS * 1000000ull;
}

/* "hosts": worker 0 and 1 pretend to share a host, the others are each on its own. */
static dr_status create(struct dr_channel *ch, const char *form, int32_t tag, uint64_t deadline,
                        struct dr_group **out) {
    int32_t me = ch->end - 1, members[DR_GROUP_MEMBERS_MAX];
    for (int32_t m = 0; m < ch->n_end - 1; m++) members[m] = m;
    struct dr_group_spec spec = {.members = members,
                                 .n = ch->n_end - 1,
                                 .tag = tag,
                                 .call_bytes = 1 << 20,
                                 .message_bytes = 1 << 20,
                                 .form = strcmp(form, "mpi") == 0   ? DR_GROUP_MPI
                                         : strcmp(form, "shm") == 0 ? DR_GROUP_SHM
                                                                    : DR_GROUP_AUTO,
                                 .host = strcmp(form, "hosts") == 0 ? (me < 2 ? 1 : 1 + me) : 0};
    return dr_group_create(&spec, deadline, out);
}

/* Worker 0 stays away from the second call; the others must get ETIME, and EPEER from then on. */
static uint64_t worker(struct dr_channel *ch, const char *form) {
    int32_t me = ch->end - 1;
    struct dr_group *g = NULL, *never = NULL;
    float x[100] = {0};
    if (create(ch, form, 1, multirank_deadline(), &g).code != DR_OK) return 1;
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
    if (create(ch, form, 2, soon(), &never).code != DR_ETIME) return 8;
    fprintf(stderr, "worker %d: %s\n", me, dr_error_text());
    dr_group_destroy(g); /* legal after a failure, and must not wait */
    return AS_EXPECTED;
}

int main(int argc, char **argv) {
    struct dr_channel *ch = NULL;
    const char *form = argc > 1 ? argv[1] : "shm";
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
        multirank_tell(ch, 0, worker(ch, form));
        multirank_hear(ch, &from); /* never comes: the coordinator's end ends this process */
    }
    _exit(0);
}
