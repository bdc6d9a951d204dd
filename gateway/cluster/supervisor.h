/* supervisor.h - a small process between the gateway and mpirun, so that nothing outlives a kill.
 * In:   argv and environment of mpirun, RUN.      Out: a descriptor, readable when the whole job is gone.
 * Owns: the process, its descriptor.
 * Why:  a gateway that is killed cannot clean up.
 *
 * The kernel sends the supervisor SIGTERM when its parent thread ends. It adopts orphaned ranks (subreaper),
 * ends the job, waits for every process of it on this machine and then removes RUN.
 *
 * The parent-death signal follows the thread: start is called by a thread that lives as long as the job. */
#pragma once

#include <sys/types.h>

#include "common/status.h"

struct dr_supervisor {
    pid_t pid; /* 0: none */
    int fd;    /* pidfd */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Forks the supervisor, which starts the job: a process group of its own (apart: a session, without a
 * terminal), stdin empty, stdout joined to stderr.
 * Fails: EIO (fork), ENOENT when argv[0] cannot be executed (text says why); nothing runs then. Blocks until
 * the exec. */
DR_FALLIBLE dr_supervisor_start(char *const *argv, char *const *environment, const char *run, bool apart,
                                struct dr_supervisor *out);

/* Asks for the end: SIGTERM to mpirun, after 3 s SIGKILL, orphans SIGKILL. Returns at once. */
void dr_supervisor_stop(const struct dr_supervisor *s);

/* True when the job is gone: *status is what mpirun gave waitpid; the object is empty again. Waits at most
 * wait_ms. */
bool dr_supervisor_ended(struct dr_supervisor *s, int wait_ms, int *status);

/* Last resort: SIGKILL (mpirun dies by its own parent-death signal), then waits. */
void dr_supervisor_kill(struct dr_supervisor *s);

#ifdef __cplusplus
}
#endif
