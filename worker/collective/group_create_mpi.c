/* group_create_mpi.c - a group between processes: who is there, who shares a host, which form fits.
 * In:   what each member wants.      Out: a group of the form that all of them derive.
 * Owns: communicators and windows, which stay until MPI ends: freeing them is collective.
 * Why:  the collective calls that make communicators and windows cannot be timed out, so members meet first,
 * under a deadline; after that all of them are known to be on their way. */
#include <inttypes.h>
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "model/workspace.h"
#include "proto/channel.h"
#include "worker/collective/group_mpi.h"
#include "worker/collective/hier.h"
#include "worker/collective/shm.h"

enum { TAG_MEET = 1000 /* + the group's tag, on the world */, REQUESTS_MAX = 2 * DR_GROUP_MEMBERS_MAX };

static const uint64_t MEET_SLEEP_NS = 200000;

struct greeting { /* what members tell each other before anything collective is called */
    uint64_t call_bytes, message_bytes, pid_space;
    int32_t n, form, host, pid;
};

struct seat { /* where a member is, once it is known: said in a second round */
    int32_t host_first;
};

/* One creation under way. On a failure it stays until the process ends: messages may be on their way into it.
 */
struct making {
    int32_t n, me, tag;
    int rank[DR_GROUP_MEMBERS_MAX]; /* of the members in the world */
    uint64_t deadline_ns;
    size_t call_bytes, message_bytes;
    MPI_Comm comm, local; /* members; members of this host */
    struct greeting greeting[DR_GROUP_MEMBERS_MAX];
    struct seat seat[DR_GROUP_MEMBERS_MAX];
    int32_t host[DR_GROUP_MEMBERS_MAX]; /* number of each member's host, in order of their first members */
    int32_t n_host, n_local;
    int32_t local_member[DR_GROUP_MEMBERS_MAX]; /* members of this host, ascending */
    MPI_Request request[REQUESTS_MAX];
    int n_request;
};

static dr_status mpi_ok(const struct making *g, int rc, const char *what) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (rc == MPI_SUCCESS) return dr_ok();
    MPI_Error_string(rc, text, &n);
    return dr_fail(DR_EPEER, "group member %d of %d: %s: %s", g->me, g->n, what, text);
}

/* ---- rounds: everyone tells everyone the same few bytes, under the deadline ---- */

static dr_status round_start(struct making *g, MPI_Comm comm, int tag, char *all,
                             size_t bytes) { /* lock held */
    g->n_request = 0;
    for (int32_t m = 0; m < g->n; m++) {
        int peer = comm == MPI_COMM_WORLD ? g->rank[m] : m;
        if (m == g->me) continue;
        DR_TRY(mpi_ok(g,
                      MPI_Irecv(all + (size_t)m * bytes, (int)bytes, MPI_BYTE, peer, tag, comm,
                                &g->request[g->n_request++]),
                      "meeting"));
    }
    for (int32_t m = 0; m < g->n; m++) {
        int peer = comm == MPI_COMM_WORLD ? g->rank[m] : m;
        if (m == g->me) continue;
        DR_TRY(mpi_ok(g,
                      MPI_Isend(all + (size_t)g->me * bytes, (int)bytes, MPI_BYTE, peer, tag, comm,
                                &g->request[g->n_request++]),
                      "meeting"));
    }
    return dr_ok();
}

/* Lock held. The first member whose message has not come, or which has not taken its own. */
static int32_t missing(struct making *g) {
    for (int i = 0; i < g->n_request; i++) {
        int done = 0, m = i % (g->n - 1);
        if (g->request[i] == MPI_REQUEST_NULL) continue;
        if (MPI_Request_get_status(g->request[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
            return m < g->me ? m : m + 1;
    }
    return -1;
}

static dr_status meet(struct making *g, MPI_Comm comm, int tag, void *all, size_t bytes) {
    dr_mpi_lock();
    dr_status st = round_start(g, comm, tag, all, bytes);
    dr_mpi_unlock();
    for (int done = 0; st.code == DR_OK && !done;) {
        dr_mpi_lock();
        st = mpi_ok(g, MPI_Testall(g->n_request, g->request, &done, MPI_STATUSES_IGNORE), "meeting");
        int32_t m = done ? -1 : missing(g);
        dr_mpi_unlock();
        if (st.code != DR_OK || done) break;
        if (g->deadline_ns != 0 && dr_clock_ns() >= g->deadline_ns)
            return dr_fail(DR_ETIME,
                           "group member %d of %d: meeting: deadline passed while waiting for member %d",
                           g->me, g->n, m);
        dr_clock_sleep_ns(MEET_SLEEP_NS);
    }
    return st;
}

static dr_status differs(const struct making *g, int32_t m, const char *what, int64_t found,
                         int64_t expected) {
    return dr_fail(DR_EPROTO,
                   "group member %d: member %d means a group with %s %" PRId64 ", expected %" PRId64, g->me,
                   m, what, found, expected);
}

/* All members are there and mean the same group; the smallest sizes hold. */
static dr_status greet(struct making *g, const struct dr_group_spec *spec) {
    struct stat space;
    struct greeting *mine = &g->greeting[g->me];
    *mine = (struct greeting){
        .call_bytes = spec->call_bytes,
        .message_bytes = spec->message_bytes,
        .pid_space = stat("/proc/self/ns/pid", &space) == 0 ? (uint64_t)space.st_ino : 0,
        .n = g->n,
        .form = spec->form,
        .host = spec->host,
        .pid = (int32_t)getpid(),
    };
    DR_TRY(meet(g, MPI_COMM_WORLD, TAG_MEET + g->tag, g->greeting, sizeof *mine));
    for (int32_t m = 0; m < g->n; m++) {
        const struct greeting *its = &g->greeting[m];
        if (its->n != g->n) return differs(g, m, "members", its->n, g->n);
        if (its->form != mine->form) return differs(g, m, "form", its->form, mine->form);
        if ((its->call_bytes == 0) != (mine->call_bytes == 0))
            return differs(g, m, "call bytes", (int64_t)its->call_bytes, (int64_t)mine->call_bytes);
        if ((its->message_bytes == 0) != (mine->message_bytes == 0))
            return differs(g, m, "message bytes", (int64_t)its->message_bytes, (int64_t)mine->message_bytes);
        if (its->call_bytes < g->call_bytes) g->call_bytes = (size_t)its->call_bytes;
        if (its->message_bytes < g->message_bytes) g->message_bytes = (size_t)its->message_bytes;
    }
    return dr_ok();
}

/* ---- communicators; lock held, all members are here ---- */

static dr_status make_comm(struct making *g) {
    MPI_Group world, part;
    DR_TRY(mpi_ok(g, MPI_Comm_group(MPI_COMM_WORLD, &world), "make a communicator"));
    DR_TRY(mpi_ok(g, MPI_Group_incl(world, g->n, g->rank, &part), "make a communicator"));
    DR_TRY(mpi_ok(g, MPI_Comm_create_group(MPI_COMM_WORLD, part, g->tag, &g->comm), "make a communicator"));
    MPI_Group_free(&part);
    MPI_Group_free(&world);
    return mpi_ok(g, MPI_Comm_set_errhandler(g->comm, MPI_ERRORS_RETURN), "make a communicator");
}

/* The members of this host, in member order. */
static dr_status make_local(struct making *g) {
    MPI_Comm shared;
    MPI_Group all, local;
    int number[DR_GROUP_MEMBERS_MAX];
    DR_TRY(mpi_ok(g, MPI_Comm_split_type(g->comm, MPI_COMM_TYPE_SHARED, g->me, MPI_INFO_NULL, &shared),
                  "find the host"));
    DR_TRY(mpi_ok(g, MPI_Comm_set_errhandler(shared, MPI_ERRORS_RETURN), "find the host"));
    DR_TRY(mpi_ok(g, MPI_Comm_split(shared, g->greeting[g->me].host, g->me, &g->local), "find the host"));
    DR_TRY(mpi_ok(g, MPI_Comm_set_errhandler(g->local, MPI_ERRORS_RETURN), "find the host"));
    DR_TRY(mpi_ok(g, MPI_Comm_group(g->comm, &all), "find the host"));
    DR_TRY(mpi_ok(g, MPI_Comm_group(g->local, &local), "find the host"));
    DR_TRY(mpi_ok(g, MPI_Group_size(local, &g->n_local), "find the host"));
    for (int i = 0; i < g->n_local; i++) number[i] = i;
    DR_TRY(mpi_ok(g, MPI_Group_translate_ranks(local, g->n_local, number, all, g->local_member),
                  "find the host"));
    MPI_Group_free(&local);
    MPI_Group_free(&all);
    return dr_ok();
}

/* Numbers the hosts in the order of their first members. */
static dr_status number_hosts(struct making *g) {
    g->seat[g->me].host_first = g->local_member[0];
    DR_TRY(meet(g, g->comm, TAG_MEET, g->seat, sizeof g->seat[0]));
    for (int32_t m = 0; m < g->n; m++) {
        int32_t first = g->seat[m].host_first;
        if (first < 0 || first > m) return differs(g, m, "the first member of its host", first, m);
        g->host[m] = first == m ? g->n_host++ : g->host[first];
    }
    return dr_ok();
}

/* ---- shared memory ---- */

/* Lock held. A window over the members of this host; where each member's part begins, at a whole line. */
static dr_status make_window(struct making *g, size_t bytes, void **segment) {
    MPI_Info info;
    MPI_Win window;
    void *base;
    DR_TRY(mpi_ok(g, MPI_Info_create(&info), "shared memory"));
    DR_TRY(mpi_ok(g, MPI_Info_set(info, "alloc_shared_noncontig", "true"), "shared memory"));
    DR_TRY(mpi_ok(g,
                  MPI_Win_allocate_shared((MPI_Aint)(bytes + DR_SHM_LINE), 1, info, g->local, &base, &window),
                  "shared memory"));
    MPI_Info_free(&info);
    for (int i = 0; i < g->n_local; i++) {
        MPI_Aint size;
        int unit;
        DR_TRY(mpi_ok(g, MPI_Win_shared_query(window, i, &size, &unit, &base), "shared memory"));
        segment[i] = (void *)(((uintptr_t)base + DR_SHM_LINE - 1) / DR_SHM_LINE * DR_SHM_LINE);
    }
    return dr_ok();
}

/* The group among this host's members. */
static dr_status make_shm(struct making *g, size_t call_bytes, size_t message_bytes, struct dr_group **out) {
    void *segment[DR_GROUP_MEMBERS_MAX];
    int32_t pid[DR_GROUP_MEMBERS_MAX];
    struct dr_shm_spec spec = {.n = g->n_local,
                               .segment = segment,
                               .pid = pid,
                               .call_bytes = call_bytes,
                               .message_bytes = message_bytes};
    const struct greeting *mine = &g->greeting[g->me];
    for (int32_t i = 0; i < g->n_local; i++) {
        const struct greeting *its = &g->greeting[g->local_member[i]];
        pid[i] = its->pid_space != 0 && its->pid_space == mine->pid_space ? its->pid : 0;
        if (g->local_member[i] == g->me) spec.me = i;
    }
    dr_mpi_lock();
    dr_status st = make_window(g, dr_shm_bytes(call_bytes, message_bytes), segment);
    dr_mpi_unlock();
    DR_TRY(st);
    return dr_group_shm_create(&spec, out);
}

/* ---- several hosts ---- */

/* Some host has several members, and hosts own consecutive ones. */
static bool neighbours(const struct making *g) {
    bool ascending = true;
    for (int32_t m = 1; m < g->n; m++) ascending = ascending && g->host[m] >= g->host[m - 1];
    return ascending && g->n_host < g->n;
}

/* This member's number in its host, and the members of the smallest host. */
static int32_t number_in_host(const struct making *g, int32_t *least) {
    int32_t count[DR_GROUP_MEMBERS_MAX] = {0}, mine = 0;
    for (int32_t m = 0; m < g->n; m++) {
        if (m < g->me && g->host[m] == g->host[g->me]) mine++;
        count[g->host[m]]++;
    }
    *least = g->n;
    for (int32_t h = 0; h < g->n_host; h++) *least = count[h] < *least ? count[h] : *least;
    return mine;
}

/* Of call_bytes a quarter is staging here, another goes to two open messages of a third of that, and half is
 * the window. */
static dr_status make_hier(struct making *g, struct dr_group **out) {
    size_t stage = g->call_bytes / 4 / 64 * 64;
    int32_t least = 0, number = number_in_host(g, &least);
    struct dr_hier_spec spec = {.n = g->n, .me = g->me, .host = g->host, .stage_bytes = stage};
    MPI_Comm across;
    dr_mpi_lock();
    dr_status st = mpi_ok(g, MPI_Comm_split(g->comm, number < least ? number : MPI_UNDEFINED, g->me, &across),
                          "make a communicator across hosts");
    if (st.code == DR_OK && across != MPI_COMM_NULL)
        st =
            mpi_ok(g, MPI_Comm_set_errhandler(across, MPI_ERRORS_RETURN), "make a communicator across hosts");
    dr_mpi_unlock();
    DR_TRY(st);
    if (g->n_local > 1) DR_TRY(make_shm(g, g->call_bytes / 2, 0, &spec.local));
    if (across != MPI_COMM_NULL)
        DR_TRY(dr_group_mpi_over(MPI_Comm_c2f(across), g->n_host, g->host[g->me], 0,
                                 dr_hier_message_bytes(stage), &spec.across));
    DR_TRY(dr_group_mpi_over(MPI_Comm_c2f(g->comm), g->n, g->me, 0, g->message_bytes, &spec.all));
    return dr_group_hier_create(&spec, out);
}

/* ---- choice ---- */

static dr_status choose(struct making *g, enum dr_group_form form, struct dr_group **out) {
    if (form != DR_GROUP_MPI && g->n > 1) {
        dr_mpi_lock();
        dr_status st = make_local(g);
        dr_mpi_unlock();
        DR_TRY(st);
        DR_TRY(number_hosts(g));
        if (g->n_host == 1) return make_shm(g, g->call_bytes, g->message_bytes, out);
        if (form == DR_GROUP_SHM)
            return dr_fail(DR_EMODEL,
                           "--collectives=shm: the %d ranks of a group are on %d hosts; use auto or mpi",
                           g->n, g->n_host);
        if (neighbours(g) && g->call_bytes > 0) return make_hier(g, out);
    }
    return dr_group_mpi_over(g->n > 1 ? MPI_Comm_c2f(g->comm) : 0, g->n, g->me, g->call_bytes,
                             g->message_bytes, out);
}

static dr_status make(struct making *g, const struct dr_group_spec *spec, struct dr_group **out) {
    if (g->n > 1) {
        DR_TRY(greet(g, spec));
        dr_mpi_lock();
        dr_status st = make_comm(g);
        dr_mpi_unlock();
        DR_TRY(st);
    }
    return choose(g, spec->form, out);
}

/* Finds this process among the members. */
static dr_status sit_down(struct making *g, const struct dr_group_spec *spec) {
    int there = 0, rank = 0, size = 0;
    dr_mpi_lock();
    MPI_Initialized(&there);
    if (there) {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    dr_mpi_unlock();
    if (!there) return dr_fail(DR_EINVAL, "group: MPI is not initialised; create the channel first");
    g->me = -1;
    bool inside = true;
    for (int32_t m = 0; m < spec->n; m++) {
        inside = inside && spec->members[m] >= 0 && spec->members[m] + 1 < size;
        g->rank[m] = spec->members[m] + 1;
        if (g->rank[m] == rank) g->me = m;
    }
    if (inside && g->me >= 0) return dr_ok();
    return dr_fail(DR_EINVAL, "group of %d: process %d is no member, or a member is not in the world of %d",
                   spec->n, rank, size);
}

dr_status dr_group_create(const struct dr_group_spec *spec, uint64_t deadline_ns, struct dr_group **out) {
    if (spec->n < 1 || spec->n > DR_GROUP_MEMBERS_MAX || spec->tag < 0 || spec->tag > SHRT_MAX ||
        spec->host < 0)
        return dr_fail(DR_EINVAL, "group: %d members with tag %d, allowed 1..%d and 0..%d", spec->n,
                       spec->tag, DR_GROUP_MEMBERS_MAX, SHRT_MAX);
    if (spec->call_bytes > 0 && spec->call_bytes < DR_GROUP_CALL_LEAST)
        return dr_fail(DR_EINVAL, "group: %zu bytes for calls, at least %d or none", spec->call_bytes,
                       DR_GROUP_CALL_LEAST);
    struct making *g = calloc(1, sizeof *g);
    if (!g) return dr_fail(DR_EFULL, "group: no memory");
    *g = (struct making){.n = spec->n,
                         .tag = spec->tag,
                         .deadline_ns = deadline_ns,
                         .call_bytes = spec->call_bytes,
                         .message_bytes = spec->message_bytes};
    dr_status st = sit_down(g, spec), made = st.code == DR_OK ? make(g, spec, out) : st;
    if (st.code != DR_OK || made.code == DR_OK) free(g); /* else messages may be on their way into it */
    return made;
}
