/* progress.c - see progress.h.
 * In:   bytes done and to do.      Out: text on stderr.
 * Owns: nothing.
 * Why:  see progress.h. */
#include "gateway/cluster/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/cluster/resolve.h"

enum { BAR_CELLS = 30 };
static const uint64_t bar_every_ns = 100000000u,
                      line_every_ns =
                          1000000000u; /* a load shorter than a second stays silent off a terminal */

/* "2.41 GB/s, 3 s left" */
static void pace_text(double done, double total, uint64_t ns, char *out, size_t room) {
    double seconds = (double)ns / 1e9, rate = seconds > 0 ? done / seconds : 0;
    double left = rate > 0 && done < total ? (total - done) / rate : 0;
    (void)snprintf(out, room, "%.2f GB/s, %.0f s left", rate / 1e9, left < 1e6 ? left : 1e6);
}

void dr_progress_begin(struct dr_progress_bar *p, bool plain) {
    *p = (struct dr_progress_bar){.terminal = isatty(2), .plain = plain, .begin_ns = dr_clock_ns()};
    p->last_ns = p->begin_ns;
}

void dr_progress_take(struct dr_progress_bar *p, const struct dr_progress *news) {
    if (news->rank < 0 || news->rank >= DR_RANKS_MAX) return;
    p->done[news->rank] = news->done_bytes;
    p->total[news->rank] = news->total_bytes;
    const uint64_t now = dr_clock_ns();
    if (now - p->last_ns < (p->terminal ? bar_every_ns : line_every_ns)) return;
    p->last_ns = now;
    double done = 0, total = 0;
    for (int32_t i = 0; i < DR_RANKS_MAX; i++) {
        done += (double)p->done[i];
        total += (double)p->total[i];
    }
    if (total <= 0) return;
    const double part = done < total ? done / total : 1;
    char size[32], pace[64];
    pace_text(done, total, now - p->begin_ns, pace, sizeof pace);
    if (p->terminal) {
        char bar[BAR_CELLS + 1];
        for (int i = 0; i < BAR_CELLS; i++) bar[i] = i < (int)(part * BAR_CELLS) ? '#' : '.';
        bar[BAR_CELLS] = 0;
        fprintf(stderr, "\rloading weights [%s] %3.0f %% of %s, %s ", bar, 100 * part,
                dr_bytes_text((uint64_t)total, size), pace);
        fflush(stderr);
        p->drawn = true;
    } else if (p->plain) {
        fprintf(stderr, "loading weights: %.0f %% of %s, %s\n", 100 * part,
                dr_bytes_text((uint64_t)total, size), pace);
    } else {
        dr_log(DR_LOG_INFO, "loading", "percent=%.0f total_bytes=%.0f pace=\"%s\"", 100 * part, total, pace);
    }
}

void dr_progress_end(struct dr_progress_bar *p) {
    if (p->drawn) fprintf(stderr, "\r%*s\r", BAR_CELLS + 76, "");
    p->drawn = false;
}
