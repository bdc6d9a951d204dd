/* supervisor.c - see supervisor.h.
 * In:   signals.      Out: signals, an exit status.
 * Owns: in the child: mpirun and every orphan of the job.
 * Why:  see supervisor.h. The child is a fork without exec: it calls nothing that needs another thread. */
#include "gateway/cluster/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "gateway/cluster/launch.h"

enum { TERM_MS = 3000, ORPHAN_MS = 50, GIVE_UP_MS = 10000, EXEC_FAILED = 127 };

/* ---- the grandchild: mpirun ---- */

__attribute__((noreturn)) static void become_mpirun(char *const *argv, char *const *environment, pid_t parent,
                                                    int report) {
    static const int plain[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) signal(plain[i], SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(EXEC_FAILED);
    execvpe(argv[0], argv, environment);
    int why = errno;
    ssize_t wrote = write(report, &why, sizeof why);
    _exit(wrote == (ssize_t)sizeof why ? EXEC_FAILED : EXEC_FAILED - 1);
}

/* ---- the child: the supervisor ---- */

/* SIGKILL to every process that is ours by adoption. The kernel lists the children of a thread here. */
static void kill_orphans(void) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return;
    text[n] = 0;
    for (char *p = text; *p;) {
        char *end;
        long pid = strtol(p, &end, 10);
        if (end == p) break;
        if (pid > 1) kill((pid_t)pid, SIGKILL);
        p = end + (*end == ' ');
    }
}

/* Reaps whoever has ended; true while a child is left. */
static bool reap(pid_t job, bool *job_gone, int *status) {
    for (;;) {
        int st;
        pid_t pid = waitpid(-1, &st, WNOHANG);
        if (pid == 0) return true;
        if (pid < 0 && errno == EINTR) continue;
        if (pid < 0) return false;
        if (pid == job) {
            *job_gone = true;
            *status = st;
        }
    }
}

static void quiet_descriptors(int report) {
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) dup2(null, 0);
    dup2(2, 1); /* answers go to the gateway's stdout; nothing of a rank may get in there */
    int kept = dup2(report, 3);
    if (kept == 3) fcntl(3, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, 4u, ~0u, 0u); /* client sockets must close when the gateway closes them */
}

/* Until the job and all its orphans are gone. *orphaned: the gateway died meanwhile. */
static int watch(pid_t job, int signals, bool *orphaned) {
    uint64_t kill_at = 0, give_up_at = 0;
    bool job_gone = false;
    int status = 0;
    while (reap(job, &job_gone, &status)) {
        const uint64_t now = dr_clock_ns();
        int wait_ms = -1;
        if (job_gone) {
            if (!give_up_at) give_up_at = now + GIVE_UP_MS * 1000000ull;
            if (now > give_up_at) break; /* a process in uninterruptible sleep */
            kill_orphans();
            wait_ms = ORPHAN_MS;
        } else if (kill_at) {
            if (now >= kill_at) kill(job, SIGKILL);
            wait_ms = now >= kill_at ? ORPHAN_MS : (int)((kill_at - now) / 1000000u) + 1;
        }
        struct pollfd p = {.fd = signals, .events = POLLIN};
        if (poll(&p, 1, wait_ms) <= 0) continue;
        struct signalfd_siginfo info;
        if (read(signals, &info, sizeof info) != (ssize_t)sizeof info) continue;
        *orphaned |= info.ssi_signo == SIGUSR1;
        if ((info.ssi_signo == SIGTERM || info.ssi_signo == SIGUSR1) && !kill_at) {
            kill(job, SIGTERM);
            kill_at = dr_clock_ns() + TERM_MS * 1000000ull;
        }
    }
    return status;
}

__attribute__((noreturn)) static void supervise(char *const *argv, char *const *environment, const char *run,
                                                bool apart, pid_t parent, int report) {
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGUSR1);
    sigaddset(&ours, SIGCHLD);
    /* A signal of its own: it comes when the gateway's engine thread dies, and getppid() may name the gateway
     * for a while longer, until its last thread is gone. */
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    if (getppid() != parent) _exit(0);
    prctl(PR_SET_NAME, "deeprack-watch");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    /* A session of its own is a scheduling group of its own (autogroup): where workers keep all cores busy,
     * the gateway's threads then waited up to 0.1 s for theirs. ssh needs it, or it would ask a terminal for
     * passwords. A process group of its own keeps Ctrl-C away as well. */
    if (apart)
        setsid();
    else {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN); /* a terminal that stops writers from the background must not stop ranks */
    }
    quiet_descriptors(report);
    int signals = signalfd(-1, &ours, SFD_CLOEXEC);
    const pid_t self = getpid(), job = signals < 0 ? -1 : fork();
    if (job == 0) become_mpirun(argv, environment, self, 3);
    if (job < 0) {
        int why = errno;
        ssize_t wrote = write(3, &why, sizeof why);
        _exit(wrote == (ssize_t)sizeof why ? EXEC_FAILED : EXEC_FAILED - 1);
    }
    close(3);
    bool orphaned = false;
    int status = watch(job, signals, &orphaned);
    if (orphaned || getppid() != parent) dr_run_remove(run); /* the gateway was killed: nobody else does it */
    if (WIFSIGNALED(status)) _exit(128 + WTERMSIG(status));
    _exit(WEXITSTATUS(status));
}

/* ---- the gateway's side ---- */

dr_status dr_supervisor_start(char *const *argv, char *const *environment, const char *run, bool apart,
                              struct dr_supervisor *out) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0)
        return dr_fail(DR_EIO, "no pipe for the supervisor: %s", strerror(errno));
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) supervise(argv, environment, run, apart, parent, report[1]);
    const int why_fork = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(report[1]);
    int why = 0;
    ssize_t n = 0;
    if (pid > 0)
        while ((n = read(report[0], &why, sizeof why)) < 0 && errno == EINTR) {
        }
    close(report[0]);
    if (pid < 0) return dr_fail(DR_EIO, "the supervisor cannot be started: %s", strerror(why_fork));
    int fd = n == 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0) {
        const int why_fd = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (n == 0) return dr_fail(DR_EIO, "the supervisor cannot be watched: %s", strerror(why_fd));
        return dr_fail(DR_ENOENT, "%s cannot be started: %s; is Open MPI installed and in PATH?", argv[0],
                       strerror(why));
    }
    *out = (struct dr_supervisor){.pid = pid, .fd = fd};
    return dr_ok();
}

void dr_supervisor_stop(const struct dr_supervisor *s) {
    if (s->pid) kill(s->pid, SIGTERM); /* not reaped yet, so the number is still ours */
}

bool dr_supervisor_ended(struct dr_supervisor *s, int wait_ms, int *status) {
    if (!s->pid) return true;
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    const uint64_t end = dr_clock_ns() + (uint64_t)wait_ms * 1000000u;
    for (;;) {
        pid_t pid = waitpid(s->pid, status, WNOHANG);
        if (pid == s->pid || (pid < 0 && errno == ECHILD)) break;
        const uint64_t now = dr_clock_ns();
        if (now >= end) return false;
        poll(&p, 1, (int)((end - now) / 1000000u) + 1);
    }
    close(s->fd);
    *s = (struct dr_supervisor){.pid = 0, .fd = -1};
    return true;
}

void dr_supervisor_kill(struct dr_supervisor *s) {
    int status;
    if (!s->pid) return;
    kill(s->pid, SIGKILL);
    while (!dr_supervisor_ended(s, 1000, &status)) {
    }
}
