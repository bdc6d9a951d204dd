/* loop.c - the engine thread: starts the job, listens to it, ends it, starts it again.
 * In:   descriptors (wake, listener, link, supervisor, ranks) and the clock.      Out: sinks' calls, states.
 * Owns: phase, link, supervisor, rank descriptors.
 * Why:  one thread and one switch over phases; no other thread changes what runs.
 *
 * DOWN <- STOPPING <- any failure            a verdict (first epoch, refused model, latch, drain) ends in
 * DOWN PAUSE <- STOPPING -> (back-off) LAUNCHED -> LINKED -> READY */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rng.h"
#include "gateway/cluster/frames.h"
#include "gateway/cluster/state.h"

enum { FD_WAKE, FD_LISTENER, FD_LINK, FD_JOB, FD_FIXED };

/* ---- state ---- */

static void set_state(struct dr_engine *e, enum dr_engine_state state) {
    pthread_mutex_lock(&e->lock);
    e->facts.state =
        e->draining && state != DR_ENGINE_STOPPED && state != DR_ENGINE_LATCHED ? DR_ENGINE_DRAINING : state;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void set_phase(struct dr_engine *e, enum dr_phase phase) {
    e->phase = phase;
    e->phase_ns = dr_clock_ns();
}

static void set_reason(struct dr_engine *e, enum dr_code code, const char *text) {
    pthread_mutex_lock(&e->lock);
    e->facts.code = code;
    snprintf(e->facts.reason, sizeof e->facts.reason, "%s", text);
    pthread_mutex_unlock(&e->lock);
}

static bool is_draining(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    const bool draining = e->draining;
    pthread_mutex_unlock(&e->lock);
    return draining;
}

static void close_link(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    struct dr_link *link = e->link;
    e->link = NULL;
    e->queue_full = false; /* the next coordinator's queue is another one */
    e->refused_ns = 0;
    dr_link_destroy(link);
    pthread_mutex_unlock(&e->lock);
}

/* ---- failure ---- */

/* Notes a failure in the window; true: too many, stay down. */
static bool count_failure(struct dr_engine *e) {
    const uint64_t now = dr_clock_ns();
    int32_t kept = 0;
    for (int32_t i = 0; i < e->n_failed; i++)
        if (now - e->failed_ns[i] < e->setup.times.window) e->failed_ns[kept++] = e->failed_ns[i];
    e->n_failed = kept;
    if (e->n_failed < DR_FAILURES_MAX) e->failed_ns[e->n_failed++] = now;
    return e->n_failed >= DR_FAILURES_MAX;
}

static uint64_t backoff(const struct dr_engine *e) {
    if (e->n_failed < 2) return 0;
    uint64_t wait = e->setup.times.backoff_first;
    for (int32_t i = 2; i < e->n_failed && wait < e->setup.times.backoff_most; i++) wait *= 2;
    return wait < e->setup.times.backoff_most ? wait : e->setup.times.backoff_most;
}

/* Which failures a caller is told as they are: those of a first start, and a refused model; the rest is a
 * lost cluster. */
static enum dr_code told(const struct dr_engine *e, enum dr_code code) {
    if (code == DR_EMODEL) return code;
    if (e->was_ready) return DR_EPEER;
    return code == DR_ENOENT || code == DR_EIO || code == DR_EUSAGE || code == DR_EFULL ? code : DR_EPEER;
}

/* The epoch is over: open requests end now, the job is asked to end, the rest follows in STOPPING. */
static void lose(struct dr_engine *e, enum dr_code code, const char *text) {
    if (e->has_fault) {
        code = (enum dr_code)e->fault.code;
        text = e->fault.text;
    }
    code = told(e, code);
    dr_progress_end(&e->bar);
    close_link(e);
    set_reason(e, code, text);
    const bool latched = count_failure(e);
    e->verdict = !e->was_ready || code != DR_EPEER || latched || is_draining(e);
    dr_log(e->was_ready ? DR_LOG_ERROR : DR_LOG_INFO, "epoch_lost",
           "epoch=%016" PRIx64 " failures=%d final=%d reason=\"%s\"", e->facts.epoch, e->n_failed, e->verdict,
           text);
    if (!e->verdict) set_state(e, DR_ENGINE_RELAUNCHING);
    dr_request_end_all(e, DR_FINISH_LOST, true);
    set_phase(e, DR_PHASE_STOPPING);
    /* A first start that fails ends by itself, and its exit status says why: give it the time. */
    e->next_ns = e->was_ready || e->has_fault || !e->job.pid ? 0 : e->phase_ns + e->setup.times.settle;
}

__attribute__((format(printf, 3, 4))) static void lose_because(struct dr_engine *e, enum dr_code code,
                                                               const char *fmt, ...) {
    char text[DR_TEXT_MAX + 1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    lose(e, code, text);
}

/* ---- the job's end ---- */

/* Ranks that outlived mpirun (only when the supervisor was killed): wait, then kill by descriptor. */
static void bury_ranks(struct dr_engine *e) {
    for (int32_t i = 0; i < e->n_rank_fd; i++) {
        struct pollfd p = {.fd = e->rank_fd[i], .events = POLLIN};
        if (poll(&p, 1, 0) == 0) {
            if (syscall(SYS_pidfd_send_signal, e->rank_fd[i], SIGKILL, NULL, 0) != 0)
                dr_log(DR_LOG_WARN, "rank_outlives", "a rank of the lost epoch cannot be killed: %s",
                       strerror(errno));
            poll(&p, 1, 5000);
        }
        close(e->rank_fd[i]);
    }
    e->n_rank_fd = 0;
}

/* What an exit status of mpirun tells when nobody else said anything: it is that of the first rank that
 * failed. */
static enum dr_code status_code(int status) {
    if (!WIFEXITED(status)) return DR_EPEER;
    static const enum dr_code codes[] = {DR_EMODEL, DR_ENOENT, DR_EIO, DR_EUSAGE};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (WEXITSTATUS(status) == dr_code_exit(codes[i])) return codes[i];
    return DR_EPEER;
}

static void down(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    char why[DR_TEXT_MAX + 1];
    snprintf(why, sizeof why, "%s", e->facts.reason);
    const bool latched = e->was_ready && e->facts.code == DR_EPEER && !e->draining;
    pthread_mutex_unlock(&e->lock);
    set_phase(e, DR_PHASE_DOWN);
    set_state(e, latched ? DR_ENGINE_LATCHED : DR_ENGINE_STOPPED);
    if (latched)
        dr_log(DR_LOG_ERROR, "latched",
               "failures=%d window_s=%.0f; no new start, restart the server after the cause is removed",
               e->n_failed, (double)e->setup.times.window / 1e9);
    dr_request_refuse_waiting(e, why);
}

static void job_gone(struct dr_engine *e, int status) {
    bury_ranks(e);
    if (!e->was_ready && !e->has_fault && e->facts.code == DR_EPEER && status_code(status) != DR_EPEER) {
        set_reason(e, status_code(status), "a rank refused to start; its own line stands above");
    }
    if (e->verdict) {
        down(e);
        return;
    }
    const uint64_t wait = backoff(e);
    set_phase(e, DR_PHASE_PAUSE);
    e->next_ns = e->phase_ns + wait;
    dr_log(DR_LOG_WARN, "relaunch", "in_ms=%" PRIu64 " failures=%d", wait / 1000000u, e->n_failed);
}

/* STOPPING: SIGTERM once (the supervisor presses harder by itself), then wait for its end. */
static void stopping(struct dr_engine *e) {
    int status = 0;
    if (dr_supervisor_ended(&e->job, 0, &status)) {
        job_gone(e, status);
        return;
    }
    if (dr_clock_ns() < e->next_ns) return;
    dr_supervisor_stop(&e->job);
    e->next_ns = UINT64_MAX;
}

/* ---- the job's start ---- */

static dr_status start_job(struct dr_engine *e) {
    struct dr_words words;
    char **environment = NULL;
    DR_TRY(dr_launch_words(&e->setup.launch, e->setup.options, e->facts.epoch, &words));
    dr_status st = dr_launch_environment(e->token, &environment);
    if (st.code == DR_OK)
        st = dr_supervisor_start(words.word, environment, e->setup.launch.run, e->setup.launch.n_host > 0,
                                 &e->job);
    dr_launch_environment_fini(environment);
    dr_words_fini(&words);
    return st;
}

static void launch(struct dr_engine *e) {
    for (size_t i = 0; i < sizeof e->token; i += 8) {
        const uint64_t word = dr_rng_system();
        memcpy(e->token + i, &word, 8);
    }
    pthread_mutex_lock(&e->lock);
    e->facts.epoch = dr_rng_system();
    e->alive_ns = 0;
    if (e->was_ready) e->facts.relaunches++;
    pthread_mutex_unlock(&e->lock);
    e->has_fault = false;
    dr_progress_begin(&e->bar, e->setup.one_shot);
    dr_log(DR_LOG_INFO, "launch", "epoch=%016" PRIx64 " relaunch=%u workers=%d run=%s", e->facts.epoch,
           e->facts.relaunches, e->setup.launch.n_worker, e->setup.launch.run);
    set_phase(e, DR_PHASE_LAUNCHED);
    dr_status st = start_job(e);
    if (st.code != DR_OK) lose(e, st.code, dr_error_text());
}

static void accept_link(struct dr_engine *e) {
    struct dr_link *link = NULL;
    dr_status st = dr_listener_accept(e->listener, e->token, &link);
    if (st.code != DR_OK) {
        dr_log(DR_LOG_WARN, "link_refused", "%s", dr_error_text());
        return;
    }
    if (!link) return;
    if (e->phase != DR_PHASE_LAUNCHED) { /* one coordinator an epoch */
        dr_link_destroy(link);
        return;
    }
    pthread_mutex_lock(&e->lock);
    e->link = link;
    pthread_mutex_unlock(&e->lock);
    set_phase(e, DR_PHASE_LINKED);
}

static void watch_ranks(struct dr_engine *e) {
    char host[DR_HOST_MAX + 1] = "";
    gethostname(host, sizeof host - 1);
    for (int32_t i = 0; i < e->facts.n_rank; i++) {
        const struct dr_rank_state *r = &e->facts.rank[i];
        if (r->pid <= 1 || strcmp(r->host, host) != 0) continue;
        int fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
        if (fd >= 0) {
            e->rank_of_fd[e->n_rank_fd] = i;
            e->rank_fd[e->n_rank_fd++] = fd;
        } else
            dr_log(DR_LOG_WARN, "rank_unwatched", "rank=%d pid=%d: %s", r->rank, r->pid, strerror(errno));
    }
}

static void became_ready(struct dr_engine *e) {
    dr_progress_end(&e->bar);
    watch_ranks(e);
    set_phase(e, DR_PHASE_READY);
    e->was_ready = true;
    pthread_mutex_lock(&e->lock);
    e->alive_ns = dr_clock_ns();
    e->watch_unsent = e->watch_bits != 0;
    e->reset_unsent = false; /* a new epoch has none */
    pthread_mutex_unlock(&e->lock);
    set_state(e, DR_ENGINE_READY);
    dr_log(DR_LOG_INFO, "ready", "epoch=%016" PRIx64 " ranks=%d tp=%d pp=%d c=%d pages=%d watched=%d",
           e->facts.epoch, e->facts.n_rank, e->facts.layout.tp, e->facts.layout.pp, e->facts.layout.c,
           e->facts.layout.n_page, e->n_rank_fd);
}

/* ---- the link ---- */

/* Takes every whole frame that is there. */
static void read_link(struct dr_engine *e) {
    while (e->link && e->phase != DR_PHASE_STOPPING) {
        struct dr_frame frame;
        const uint8_t *body = NULL;
        dr_status st = dr_link_recv(e->link, &frame, &body);
        if (st.code == DR_OK && frame.type == DR_MSG_NONE) return;
        if (st.code == DR_OK && frame.epoch != e->facts.epoch)
            st = dr_fail(DR_EPROTO, "a %s frame of another epoch", dr_msg_name(frame.type));
        enum dr_frame_news news = DR_NEWS_NONE;
        if (st.code == DR_OK) st = dr_frames_take(e, &frame, body, &news);
        if (st.code == DR_EPEER)
            lose(e, DR_EPEER, "the coordinator closed its link");
        else if (st.code != DR_OK)
            lose_because(e, DR_EPEER, "the coordinator's link: %s", dr_error_text());
        else if (news == DR_NEWS_FAULT)
            lose(e, DR_EPEER, e->fault.text);
        else if (news == DR_NEWS_READY)
            became_ready(e);
    }
}

static void flush_link(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    dr_status st = e->link ? dr_link_flush(e->link) : dr_ok();
    pthread_mutex_unlock(&e->lock);
    if (st.code != DR_OK) {
        read_link(e); /* last words come before the end */
        if (e->phase != DR_PHASE_STOPPING) lose(e, DR_EPEER, "the coordinator closed its link");
    }
}

static void send_word(struct dr_engine *e, enum dr_msg type, uint64_t value) {
    uint8_t frame[DR_FRAME_HEADER + 32];
    size_t bytes = 0;
    dr_status st = dr_encode_word(type, e->facts.epoch, value, frame, sizeof frame, &bytes);
    pthread_mutex_lock(&e->lock);
    if (st.code == DR_OK && e->link) st = dr_link_send(e->link, frame, bytes);
    pthread_mutex_unlock(&e->lock);
    dr_ignore(st, "the loop polls the same link and ends the epoch");
}

/* ---- one turn ---- */

static nfds_t fill(struct dr_engine *e, struct pollfd *p) {
    pthread_mutex_lock(&e->lock);
    const bool pending = e->link && dr_link_pending(e->link);
    pthread_mutex_unlock(&e->lock);
    const bool running =
        e->phase == DR_PHASE_LAUNCHED || e->phase == DR_PHASE_LINKED || e->phase == DR_PHASE_READY;
    p[FD_WAKE] = (struct pollfd){.fd = e->wake, .events = POLLIN};
    p[FD_LISTENER] = (struct pollfd){.fd = dr_listener_fd(e->listener), .events = POLLIN};
    p[FD_LINK] = (struct pollfd){.fd = e->link ? dr_link_fd(e->link) : -1,
                                 .events = (short)(POLLIN | (pending ? POLLOUT : 0))};
    p[FD_JOB] = (struct pollfd){.fd = e->job.pid ? e->job.fd : -1, .events = POLLIN};
    nfds_t n = FD_FIXED;
    for (int32_t i = 0; running && i < e->n_rank_fd; i++)
        p[n++] = (struct pollfd){.fd = e->rank_fd[i], .events = POLLIN};
    return n;
}

/* When this phase must act without any descriptor. */
static uint64_t phase_deadline(struct dr_engine *e) {
    switch (e->phase) {
    case DR_PHASE_LAUNCHED:
        return e->phase_ns + e->setup.times.connect;
    case DR_PHASE_READY:
        return e->alive_ns + e->setup.times.silence;
    case DR_PHASE_STOPPING:
    case DR_PHASE_PAUSE:
        return e->next_ns;
    default:
        return UINT64_MAX;
    }
}

static void on_deadline(struct dr_engine *e) {
    const uint64_t now = dr_clock_ns();
    if (e->phase == DR_PHASE_STOPPING) {
        stopping(e);
        return;
    }
    if (now < phase_deadline(e)) return;
    if (e->phase == DR_PHASE_LAUNCHED)
        lose_because(e, DR_EPEER, "the coordinator has not reported within %.0f s of its start",
                     (double)e->setup.times.connect / 1e9);
    else if (e->phase == DR_PHASE_READY)
        lose_because(e, DR_EPEER, "the coordinator has been silent for %.1f s",
                     (double)(now - e->alive_ns) / 1e9);
    else if (e->phase == DR_PHASE_PAUSE && is_draining(e)) {
        e->verdict = true;
        down(e);
    } else if (e->phase == DR_PHASE_PAUSE)
        launch(e);
}

static void on_job(struct dr_engine *e) {
    if (e->phase == DR_PHASE_STOPPING) return;
    int status = 0;
    read_link(e);
    if (e->phase == DR_PHASE_STOPPING || !dr_supervisor_ended(&e->job, 0, &status)) return;
    if (WIFEXITED(status))
        lose_because(e, status_code(status), "the cluster's job ended with status %d", WEXITSTATUS(status));
    else
        lose_because(e, DR_EPEER, "the cluster's supervisor was killed by signal %d", WTERMSIG(status));
    job_gone(e, status);
}

static void on_ranks(struct dr_engine *e, const struct pollfd *p, nfds_t n) {
    for (nfds_t i = FD_FIXED; i < n; i++) {
        if (!(p[i].revents & POLLIN)) continue;
        read_link(e); /* last words come before the end */
        const struct dr_rank_state *r = &e->facts.rank[e->rank_of_fd[i - FD_FIXED]];
        if (e->phase == DR_PHASE_READY)
            lose_because(e, DR_EPEER, "rank %d on %s (pid %d) ended", r->rank, r->host, r->pid);
        return;
    }
}

/* Marks of other threads. */
static void on_marks(struct dr_engine *e, bool *drain_sent) {
    pthread_mutex_lock(&e->lock);
    const bool draining = e->draining, abandon = e->abandon;
    const bool watch = e->phase == DR_PHASE_READY && e->watch_unsent;
    const uint32_t bits = e->watch_bits;
    const bool reset = e->phase == DR_PHASE_READY && e->reset_unsent;
    if (watch) e->watch_unsent = false;
    if (reset) e->reset_unsent = false;
    pthread_mutex_unlock(&e->lock);
    if (watch) send_word(e, DR_MSG_WATCH, bits); /* both before the requests that they are meant for */
    if (reset) send_word(e, DR_MSG_RESET_PREFIX, 0);
    if (e->phase == DR_PHASE_READY) dr_request_send_waiting(e);
    if (draining && !*drain_sent && e->phase == DR_PHASE_READY) {
        *drain_sent = true;
        send_word(e, DR_MSG_DRAIN, 0);
    }
    if (draining && e->phase != DR_PHASE_READY) dr_request_refuse_waiting(e, "the server is shutting down");
    if (abandon) dr_request_end_all(e, DR_FINISH_CANCELLED, false);
}

static bool wants_stop(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    const bool stop = e->stop;
    pthread_mutex_unlock(&e->lock);
    return stop;
}

/* Destroy: a healthy job ends by itself when its link closes; anything else is pressed. */
static void leave(struct dr_engine *e) {
    int status = 0;
    dr_progress_end(&e->bar);
    dr_request_end_all(e, DR_FINISH_CANCELLED, false);
    const bool polite = e->phase == DR_PHASE_READY;
    close_link(e);
    if (!polite || !dr_supervisor_ended(&e->job, (int)(e->setup.times.settle / 1000000u), &status)) {
        dr_supervisor_stop(&e->job);
        if (!dr_supervisor_ended(&e->job, 15000, &status)) dr_supervisor_kill(&e->job);
    }
    bury_ranks(e);
    set_phase(e, DR_PHASE_DOWN);
    set_state(e, DR_ENGINE_STOPPED);
}

void *dr_engine_loop(void *engine) {
    struct dr_engine *e = engine;
    struct pollfd *p = calloc(FD_FIXED + DR_RANKS_MAX, sizeof *p);
    DR_ASSERT(p != NULL);
    bool drain_sent = false;
    launch(e);
    while (!wants_stop(e)) {
        const uint64_t now = dr_clock_ns(), expire = dr_request_expire(e, now), phase = phase_deadline(e);
        const uint64_t first = expire < phase ? expire : phase;
        const uint64_t wait_ms = first == UINT64_MAX ? INT32_MAX
                                 : first <= now      ? 0
                                                     : (first - now) / 1000000u + 1;
        const nfds_t n = fill(e, p);
        if (poll(p, n, wait_ms > INT32_MAX ? INT32_MAX : (int)wait_ms) < 0 && errno != EINTR) break;
        uint64_t marks;
        if (p[FD_WAKE].revents && read(e->wake, &marks, sizeof marks) < 0) DR_ASSERT(errno == EAGAIN);
        if (p[FD_LISTENER].revents) accept_link(e);
        if (p[FD_LINK].revents & POLLOUT) flush_link(e);
        if (p[FD_LINK].revents) read_link(e);
        if (p[FD_JOB].revents) on_job(e);
        on_ranks(e, p, n);
        on_deadline(e);
        on_marks(e, &drain_sent);
    }
    leave(e);
    free(p);
    return NULL;
}
