/* interrupt.h - Ctrl-C and SIGTERM as something to ask for.
 * In:   SIGINT, SIGTERM of the process.      Out: how many have come.
 * Owns: a signalfd; the two signals stay blocked in every thread that is started later.
 * Why:  a handler could do nothing safely, and a default action would skip the drain. */
#pragma once

#include "common/status.h"

struct dr_interrupt {
    int fd;
    int n;     /* so far */
    bool term; /* SIGTERM was among them */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Main thread, before any other thread; until then the two signals end the process. Fails: EIO. */
DR_FALLIBLE dr_interrupt_begin(struct dr_interrupt *i);

/* Waits at most wait_ms for a signal; returns i->n. */
int dr_interrupt_poll(struct dr_interrupt *i, int wait_ms);

#ifdef __cplusplus
}
#endif
