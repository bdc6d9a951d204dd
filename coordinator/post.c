/* post.c - see post.h.
 * In:   structs.      Out: frames.
 * Owns: what post.h says.
 * Why:  see post.h. */
#include "coordinator/post.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { FLUSH_MS = 1000 };

dr_status dr_post_init(struct dr_post *p, struct dr_channel *channel, struct dr_link *link, uint64_t epoch,
                       int32_t n_rank) {
    struct dr_post out = {.channel = channel, .link = link, .epoch = epoch};
    out.frame = malloc(DR_POST_FRAME_MAX);
    out.rank = calloc((size_t)n_rank, sizeof *out.rank);
    dr_status st = out.frame && out.rank ? dr_arena_init(&out.scratch, DR_POST_SCRATCH)
                                         : dr_fail(DR_EFULL, "coordinator: no memory for frames");
    if (st.code != DR_OK) {
        dr_post_fini(&out);
        return st;
    }
    *p = out;
    return dr_ok();
}

void dr_post_fini(struct dr_post *p) {
    free(p->frame);
    free(p->rank);
    dr_arena_fini(&p->scratch);
    *p = (struct dr_post){0};
}

static dr_status to_workers(struct dr_post *p, size_t bytes) {
    for (int32_t end = 1; end < p->channel->n_end; end++)
        DR_TRY(dr_channel_send(p->channel, end, p->frame, bytes));
    return dr_ok();
}

/* A gateway that has closed the link is no failure of this epoch: the loop ends it in order. */
static dr_status to_gateway(struct dr_post *p, size_t bytes) {
    if (p->closed) return dr_ok();
    dr_status st = dr_link_send(p->link, p->frame, bytes);
    if (st.code != DR_EPEER) return st;
    p->closed = true;
    return dr_ok();
}

dr_status dr_post_plan(struct dr_post *p, const struct dr_step_plan *plan) {
    size_t bytes = 0;
    DR_TRY(dr_encode_step_plan(plan, p->epoch, &p->scratch, p->frame, DR_FRAME_HEADER + DR_MPI_FRAME_MAX,
                               &bytes));
    return to_workers(p, bytes);
}

dr_status dr_post_start(struct dr_post *p, const struct dr_roster *roster) {
    size_t bytes = 0;
    int32_t place[DR_RANKS_MAX], peers[DR_RANKS_MAX];
    struct dr_start start = {.n_rank = roster->n, .place = place, .peers = peers};
    dr_roster_places(roster, place, peers);
    DR_TRY(dr_encode_start(&start, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_workers(p, bytes);
}

dr_status dr_post_stop(struct dr_post *p) {
    size_t bytes = 0;
    DR_TRY(dr_encode_word(DR_MSG_STOP, p->epoch, 0, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_workers(p, bytes);
}

static dr_status encode_event(struct dr_post *p, const struct dr_core_event *e, size_t *bytes) {
    switch ((int)e->type) {
    case DR_MSG_ACCEPTED:
        return dr_encode_word(DR_MSG_ACCEPTED, p->epoch, e->request, p->frame, DR_POST_FRAME_MAX, bytes);
    case DR_MSG_REFUSED:
        return dr_encode_refused(e->refused, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, bytes);
    case DR_MSG_TOKENS:
        return dr_encode_tokens(&e->tokens, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, bytes);
    case DR_MSG_DONE:
        return dr_encode_done(&e->done, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, bytes);
    default:
        DR_ASSERT(!"an event of the core");
        return dr_ok();
    }
}

dr_status dr_post_event(struct dr_post *p, const struct dr_core_event *e) {
    size_t bytes = 0;
    DR_TRY(encode_event(p, e, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_logits(struct dr_post *p, const struct dr_logits *l) {
    size_t bytes = 0;
    DR_TRY(dr_encode_logits(l, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_step_news(struct dr_post *p, const struct dr_step_news *news) {
    size_t bytes = 0;
    DR_TRY(dr_encode_step_news(news, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_forward(struct dr_post *p, const uint8_t *frame, size_t bytes) {
    DR_ASSERT(bytes <= DR_POST_FRAME_MAX);
    memcpy(p->frame, frame, bytes);
    return to_gateway(p, bytes);
}

dr_status dr_post_progress(struct dr_post *p, const struct dr_progress *progress) {
    size_t bytes = 0;
    DR_TRY(dr_encode_progress(progress, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

static struct dr_rank_state state_of(const struct dr_roster_rank *k) {
    struct dr_rank_state s = {
        .rank = k->hello.rank,
        .pid = k->hello.pid,
        .weights_bytes = k->ready.weights_bytes,
        .cache_bytes = k->ready.cache_bytes,
        .workspace_bytes = k->ready.workspace_bytes,
        .resident_bytes = k->ready.resident_bytes,
        .load_ns = k->ready.load_ns,
        .arithmetic = k->hello.arithmetic,
    };
    memcpy(s.host, k->hello.host, sizeof s.host);
    return s;
}

dr_status dr_post_cluster_ready(struct dr_post *p, const struct dr_layout *layout,
                                const struct dr_roster *roster) {
    size_t bytes = 0;
    for (int32_t i = 0; i < roster->n; i++) p->rank[i] = state_of(&roster->rank[i]);
    struct dr_cluster_ready ready = {
        .layout = *layout,
        .tensors_hash = roster->rank[roster->first].hello.tensors_hash,
        .n_rank = roster->n,
        .rank = p->rank,
    };
    DR_TRY(dr_encode_cluster_ready(&ready, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_alive(struct dr_post *p, uint64_t beat_age_ns) {
    size_t bytes = 0;
    DR_TRY(dr_encode_word(DR_MSG_ALIVE, p->epoch, beat_age_ns, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_stats(struct dr_post *p, const struct dr_stats *stats) {
    size_t bytes = 0;
    DR_TRY(dr_encode_stats(stats, p->epoch, &p->scratch, p->frame, DR_POST_FRAME_MAX, &bytes));
    return to_gateway(p, bytes);
}

dr_status dr_post_fault(struct dr_link *link, uint64_t epoch, const struct dr_fault_note *note) {
    uint8_t frame[DR_TEXT_MAX + 256];
    size_t bytes = 0;
    struct dr_arena none = {0}; /* a fault note needs no scratch */
    DR_TRY(dr_encode_fault_note(note, epoch, &none, frame, sizeof frame, &bytes));
    dr_frame_retype(frame, DR_MSG_CLUSTER_FAULT);
    DR_TRY(dr_link_send(link, frame, bytes));
    uint64_t until = dr_clock_ns() + FLUSH_MS * 1000000U;
    while (dr_link_pending(link) && dr_clock_ns() < until) {
        struct pollfd fd = {.fd = dr_link_fd(link), .events = POLLOUT};
        (void)poll(&fd, 1, 100);
        DR_TRY(dr_link_flush(link));
    }
    return dr_ok();
}
