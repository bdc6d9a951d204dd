/* interrupt.c - see interrupt.h.
 * In:   signals.      Out: a count.
 * Owns: nothing.
 * Why:  see interrupt.h. */
#include "gateway/cli/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

dr_status dr_interrupt_begin(struct dr_interrupt *i) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return dr_fail(DR_EIO, "signals cannot be blocked");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return dr_fail(DR_EIO, "no signalfd: %s", strerror(errno));
    *i = (struct dr_interrupt){.fd = fd};
    return dr_ok();
}

int dr_interrupt_poll(struct dr_interrupt *i, int wait_ms) {
    struct pollfd p = {.fd = i->fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0) return i->n;
    struct signalfd_siginfo info;
    while (read(i->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        i->n++;
        i->term = i->term || info.ssi_signo == SIGTERM;
    }
    return i->n;
}
