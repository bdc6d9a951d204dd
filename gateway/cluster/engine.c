/* engine.c - the calls of engine.h.
 * In:   any thread.      Out: frames on the link, marks for the engine thread.
 * Owns: the object from create to destroy.
 * Why:  what may be called from anywhere is short and holds one lock; everything else is loop.c's. */
#include "gateway/cluster/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rng.h"
#include "gateway/cluster/resolve.h"
#include "gateway/cluster/state.h"
#include "proto/codec.h"

static const uint64_t second = 1000000000u;

struct dr_engine_times dr_engine_times_default(double deadline_scale) {
    const double s = (double)second;
    return (struct dr_engine_times){
        .connect =
            (uint64_t)(60 * s *
                       (deadline_scale > 1 ? deadline_scale : 1)), /* mpirun through ssh to many hosts */
        .silence =
            (uint64_t)(5 * s * (deadline_scale > 1 ? deadline_scale : 1)), /* ALIVE comes each second */
        .queue_wait = 10 * second,
        .backoff_first = second,
        .backoff_most = 60 * second,
        .window = 600 * second, /* five failures within it latch */
        .settle = 2 * second,   /* a job that ends by itself gets this long before SIGTERM */
        .refusal = second,      /* how long one is repeated before the coordinator is asked again */
    };
}

/* ---- life ---- */

static dr_status init_locks(struct dr_engine *e) {
    pthread_condattr_t attr;
    if (pthread_mutex_init(&e->lock, NULL) != 0 || pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 || pthread_cond_init(&e->changed, &attr) != 0)
        return dr_fail(DR_EINTERNAL, "the engine's locks cannot be made");
    pthread_condattr_destroy(&attr);
    return dr_ok();
}

static void free_engine(struct dr_engine *e) {
    dr_listener_destroy(e->listener);
    if (e->setup.launch.run[0]) dr_run_remove(e->setup.launch.run);
    if (e->wake >= 0) close(e->wake);
    dr_arena_fini(&e->arena);
    free(e);
}

static dr_status start_thread(struct dr_engine *e) {
    sigset_t all, old;
    sigfillset(&all); /* signals of the program are the main thread's */
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int why = pthread_create(&e->thread, NULL, dr_engine_loop, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return why ? dr_fail(DR_EINTERNAL, "the engine thread cannot be started: %s", strerror(why)) : dr_ok();
}

dr_status dr_engine_start(const struct dr_engine_setup *setup, struct dr_engine **out) {
    struct dr_engine *e = calloc(1, sizeof *e);
    if (!e) return dr_fail(DR_EFULL, "no memory for the engine");
    e->setup = *setup;
    e->setup.launch.run[0] = 0;
    e->next_id = 1;
    e->facts.state = DR_ENGINE_STARTING;
    e->facts.code = DR_OK;
    e->facts.layout = setup->layout;
    e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    dr_status st = e->wake < 0 ? dr_fail(DR_EIO, "no eventfd: %s", strerror(errno)) : init_locks(e);
    if (st.code == DR_OK) st = dr_arena_init(&e->arena, 1 << 20);
    if (st.code == DR_OK)
        st = dr_run_create(dr_option_text(setup->options, DR_OPTION_RUN_DIR), &e->setup.launch);
    if (st.code == DR_OK) st = dr_listener_create(e->setup.launch.link, &e->listener);
    if (st.code == DR_OK) st = start_thread(e);
    if (st.code != DR_OK) {
        free_engine(e);
        return st;
    }
    *out = e;
    return st;
}

dr_status dr_engine_create(struct dr_options *options, const struct dr_config *config,
                           struct dr_engine **out) {
    struct dr_engine_setup *setup = calloc(1, sizeof *setup);
    if (!setup) return dr_fail(DR_EFULL, "no memory for the engine");
    struct dr_resolved resolved;
    dr_status st = dr_launch_find(&setup->launch);
    if (st.code == DR_OK) st = dr_resolve(options, config, &resolved);
    if (st.code == DR_OK) {
        setup->launch.n_worker = resolved.layout.n_rank;
        setup->launch.n_host = resolved.n_host;
        setup->options = options;
        setup->config = config;
        setup->layout = resolved.layout;
        setup->tensors_hash = resolved.tensors_hash;
        setup->times = dr_engine_times_default(dr_option_float(options, DR_OPTION_DEADLINE_SCALE));
        setup->one_shot = options->command != DR_CMD_SERVE;
        st = dr_engine_start(setup, out);
    }
    free(setup);
    return st;
}

void dr_engine_wake(struct dr_engine *e) {
    const uint64_t one = 1;
    ssize_t n = write(e->wake, &one, sizeof one);
    DR_ASSERT(n == (ssize_t)sizeof one || errno == EAGAIN); /* EAGAIN: already awake */
}

void dr_engine_destroy(struct dr_engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_mutex_unlock(&e->lock);
    dr_engine_wake(e);
    pthread_join(e->thread, NULL);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free_engine(e);
}

/* ---- waiting and facts ---- */

static struct timespec until(uint64_t timeout_ns) {
    const uint64_t now = dr_clock_ns(), most = INT64_MAX;
    const uint64_t end = timeout_ns > most - now ? most : now + timeout_ns;
    return (struct timespec){.tv_sec = (time_t)(end / second), .tv_nsec = (long)(end % second)};
}

dr_status dr_engine_wait(struct dr_engine *e, uint64_t timeout_ns) {
    const struct timespec end = until(timeout_ns);
    dr_status st = dr_ok();
    pthread_mutex_lock(&e->lock);
    for (int late = 0;;) {
        const enum dr_engine_state state = e->facts.state;
        if (state == DR_ENGINE_READY) break;
        if (state != DR_ENGINE_STARTING && state != DR_ENGINE_RELAUNCHING) {
            st = dr_fail(e->facts.code == DR_OK ? DR_EPEER : e->facts.code, "%s",
                         e->facts.reason[0] ? e->facts.reason : "the cluster is stopped");
            break;
        }
        if (late) {
            st = dr_fail(DR_ETIME, "the cluster is not ready after %.1f s",
                         (double)timeout_ns / (double)second);
            break;
        }
        late = pthread_cond_timedwait(&e->changed, &e->lock, &end);
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}

void dr_engine_facts(struct dr_engine *e, struct dr_engine_facts *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->facts;
    out->open_requests = e->n_open;
    if (e->facts.state == DR_ENGINE_READY && e->alive_ns)
        out->rank_beat_age_ns += dr_clock_ns() - e->alive_ns;
    pthread_mutex_unlock(&e->lock);
}

/* ---- requests ---- */

uint64_t dr_engine_next_id(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    const uint64_t id = e->next_id++;
    pthread_mutex_unlock(&e->lock);
    return id;
}

/* The SUBMIT frame, with the epoch of the moment; send_waiting writes a later one over it. */
static dr_status encode(const struct dr_submit *s, struct dr_request *r) {
    if (s->n_ids < 0 || s->n_ids > DR_PROMPT_IDS_MAX || s->n_bias < 0 || s->n_bias > DR_BIAS_MAX ||
        s->n_end < 0 || s->n_end > DR_STOP_IDS_MAX)
        return dr_fail(DR_EINVAL, "request: %d ids, %d biases, %d end ids; at most %d, %d, %d", s->n_ids,
                       s->n_bias, s->n_end, DR_PROMPT_IDS_MAX, DR_BIAS_MAX, DR_STOP_IDS_MAX);
    /* varints of 5 bytes an id, 16 bytes a bias with its tags; 4 KiB for the fixed fields */
    const size_t room =
        DR_FRAME_HEADER + 4096 + 5 * ((size_t)s->n_ids + (size_t)s->n_end) + 16 * (size_t)s->n_bias;
    const size_t scratch_bytes =
        (64u << 10) + 8 * ((size_t)s->n_ids + (size_t)s->n_end) + 128 * (size_t)s->n_bias;
    struct dr_arena scratch = {0};
    DR_TRY(dr_arena_init(&scratch, scratch_bytes));
    r->frame = malloc(room);
    dr_status st = r->frame ? dr_encode_submit(s, 0, &scratch, r->frame, room, &r->frame_bytes)
                            : dr_fail(DR_EFULL, "no memory for a request of %d ids", s->n_ids);
    dr_arena_fini(&scratch);
    return st;
}

/* Lock held. */
static dr_status admit(struct dr_engine *e, struct dr_request *r) {
    if (e->draining || e->stop)
        return dr_fail(DR_EPEER, "the server is shutting down; send the request to another one");
    if (e->facts.state == DR_ENGINE_LATCHED || e->facts.state == DR_ENGINE_STOPPED)
        return dr_fail(DR_EPEER, "the cluster is down: %s", e->facts.reason);
    DR_ASSERT(!dr_request_find(e, r->id));
    r->expire_ns = dr_clock_ns() + e->setup.times.queue_wait;
    dr_request_add(e, r);
    return dr_ok();
}

dr_status dr_engine_submit(struct dr_engine *e, const struct dr_submit *submit,
                           const struct dr_engine_sink *sink) {
    struct dr_request *r = calloc(1, sizeof *r);
    if (!r) return dr_fail(DR_EFULL, "no memory for a request");
    *r = (struct dr_request){.id = submit->request, .sink = *sink, .n_prompt = submit->n_ids};
    dr_status st = encode(submit, r);
    if (st.code == DR_OK) {
        pthread_mutex_lock(&e->lock);
        st = admit(e, r);
        pthread_mutex_unlock(&e->lock);
    }
    if (st.code != DR_OK) {
        free(r->frame);
        free(r);
        return st;
    }
    dr_engine_wake(e); /* the engine thread sends: order of submit is order of sending */
    return st;
}

bool dr_engine_full(struct dr_engine *e, struct dr_refused *out) {
    pthread_mutex_lock(&e->lock);
    const bool full =
        e->queue_full && e->refused_ns && dr_clock_ns() - e->refused_ns < e->setup.times.refusal;
    if (full) *out = e->refused;
    pthread_mutex_unlock(&e->lock);
    return full;
}

void dr_engine_cancel(struct dr_engine *e, uint64_t request) {
    bool wake = false;
    pthread_mutex_lock(&e->lock);
    struct dr_request *r = dr_request_find(e, request);
    if (r && !r->cancelled) {
        r->cancelled = true;
        wake = !r->sent;
        if (r->sent && e->link) {
            uint8_t frame[DR_FRAME_HEADER + 32];
            size_t bytes = 0;
            dr_status st =
                dr_encode_word(DR_MSG_CANCEL, e->facts.epoch, request, frame, sizeof frame, &bytes);
            if (st.code == DR_OK) st = dr_link_send(e->link, frame, bytes);
            dr_ignore(st, "the loop polls the same link and ends the epoch, and the request with it");
            wake = dr_link_pending(e->link);
        }
    }
    pthread_mutex_unlock(&e->lock);
    if (wake) dr_engine_wake(e);
}

void dr_engine_watch(struct dr_engine *e, uint32_t bits, const struct dr_step_sink *sink) {
    pthread_mutex_lock(&e->lock);
    e->watch_bits = bits;
    e->watch = *sink;
    e->watch_unsent = true;
    pthread_mutex_unlock(&e->lock);
    dr_engine_wake(e);
}

void dr_engine_reset_prefix(struct dr_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->reset_unsent = true;
    pthread_mutex_unlock(&e->lock);
    dr_engine_wake(e);
}

/* Lock held; waits until nothing is open. False: the time is over. */
static bool wait_closed(struct dr_engine *e, uint64_t timeout_ns) {
    const struct timespec end = until(timeout_ns);
    while (e->n_open > 0)
        if (pthread_cond_timedwait(&e->changed, &e->lock, &end) != 0) return e->n_open == 0;
    return true;
}

/* Ids of all open requests; the caller frees. Lock held. */
static uint64_t *open_ids(const struct dr_engine *e, int32_t *n) {
    uint64_t *ids = malloc(sizeof *ids * ((size_t)e->n_open + 1));
    *n = 0;
    for (const struct dr_request *r = e->oldest; ids && r && *n < e->n_open; r = r->newer)
        ids[(*n)++] = r->id;
    return ids;
}

void dr_engine_drain(struct dr_engine *e, uint64_t timeout_ns) {
    pthread_mutex_lock(&e->lock);
    e->draining = true;
    if (e->facts.state == DR_ENGINE_READY || e->facts.state == DR_ENGINE_STARTING ||
        e->facts.state == DR_ENGINE_RELAUNCHING)
        e->facts.state = DR_ENGINE_DRAINING;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    dr_engine_wake(e);
    pthread_mutex_lock(&e->lock);
    bool closed = wait_closed(e, timeout_ns);
    int32_t n = 0;
    uint64_t *ids = closed ? NULL : open_ids(e, &n);
    pthread_mutex_unlock(&e->lock);
    if (closed) return;
    for (int32_t i = 0; i < n; i++) dr_engine_cancel(e, ids[i]);
    free(ids);
    pthread_mutex_lock(&e->lock);
    if (!wait_closed(e, e->setup.times.settle)) {
        e->abandon = true; /* the coordinator does not answer: the engine thread ends them */
        pthread_mutex_unlock(&e->lock);
        dr_engine_wake(e);
        pthread_mutex_lock(&e->lock);
        while (e->n_open > 0) pthread_cond_wait(&e->changed, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}
