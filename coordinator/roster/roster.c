/* roster.c - see roster.h.
 * In:   messages of ranks.      Out: judgements.
 * Owns: the records.
 * Why:  see roster.h. */
#include "coordinator/roster/roster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SUSPECT_NS = 3000000000U, DEAD_NS = 5000000000U, STALL_NS = 1000000000U;

dr_status dr_roster_init(struct dr_roster *r, int32_t n_rank, uint64_t layout_hash) {
    struct dr_roster out = {.n = n_rank, .first = -1, .layout_hash = layout_hash};
    out.rank = calloc((size_t)n_rank, sizeof *out.rank);
    if (!out.rank) return dr_fail(DR_EFULL, "coordinator: no memory for %d ranks", n_rank);
    *r = out;
    return dr_ok();
}

void dr_roster_fini(struct dr_roster *r) {
    free(r->rank);
    *r = (struct dr_roster){0};
}

static dr_status same_rank(const struct dr_roster *r, const char *what, int32_t from, int32_t said) {
    DR_ASSERT(from >= 0 && from < r->n);
    if (said == from) return dr_ok();
    return dr_fail(DR_EPROTO, "%s from rank %d says it is of rank %d", what, from, said);
}

static dr_status compare(const struct dr_roster *r, const struct dr_hello *h) {
    if (h->protocol != DR_PROTOCOL)
        return dr_fail(DR_EPROTO,
                       "rank %d on %s speaks protocol %u, the coordinator %d: install one version everywhere",
                       h->rank, h->host, h->protocol, DR_PROTOCOL);
    if (strcmp(h->build, DR_VERSION) != 0)
        return dr_fail(DR_EPROTO,
                       "rank %d on %s is build %s, the coordinator %s: install one version everywhere",
                       h->rank, h->host, h->build, DR_VERSION);
    if (h->layout_hash != r->layout_hash)
        return dr_fail(DR_EMODEL,
                       "rank %d on %s computed layout %016" PRIx64 ", the coordinator %016" PRIx64
                       ": config.json or the layout options differ",
                       h->rank, h->host, h->layout_hash, r->layout_hash);
    if (r->first < 0) return dr_ok();
    const struct dr_hello *o = &r->rank[r->first].hello;
    if (h->tensors_hash != o->tensors_hash)
        return dr_fail(DR_EMODEL,
                       "rank %d on %s has checkpoint %016" PRIx64 ", rank %d on %s has %016" PRIx64
                       ": their model folders differ",
                       h->rank, h->host, h->tensors_hash, o->rank, o->host, o->tensors_hash);
    if (strcmp(h->arithmetic.inputs, o->arithmetic.inputs) != 0)
        return dr_fail(DR_EMODEL,
                       "rank %d on %s (%s) rounds inputs to %s, rank %d on %s (%s) to %s: their processors "
                       "differ; use --precision f32, or --isa with a set that all have",
                       h->rank, h->host, h->arithmetic.isa, h->arithmetic.inputs, o->rank, o->host,
                       o->arithmetic.isa, o->arithmetic.inputs);
    return dr_ok();
}

dr_status dr_roster_hello(struct dr_roster *r, int32_t from, const struct dr_hello *h) {
    DR_TRY(same_rank(r, "a hello", from, h->rank));
    struct dr_roster_rank *k = &r->rank[from];
    if (k->phase != DR_RANK_ABSENT) return dr_fail(DR_EPROTO, "rank %d said hello twice", from);
    DR_TRY(compare(r, h));
    k->hello = *h;
    k->phase = DR_RANK_JOINED;
    r->n_joined++;
    if (r->first < 0) r->first = from;
    return dr_ok();
}

void dr_roster_places(const struct dr_roster *r, int32_t *place, int32_t *peers) {
    for (int32_t i = 0; i < r->n; i++) {
        place[i] = peers[i] = 0;
        for (int32_t j = 0; j < r->n; j++) {
            bool same = strcmp(r->rank[i].hello.host, r->rank[j].hello.host) == 0;
            place[i] += same && j < i;
            peers[i] += same;
        }
    }
}

dr_status dr_roster_ready(struct dr_roster *r, int32_t from, const struct dr_ready *ready) {
    DR_TRY(same_rank(r, "a ready", from, ready->rank));
    struct dr_roster_rank *k = &r->rank[from];
    if (k->phase != DR_RANK_JOINED)
        return dr_fail(DR_EPROTO, "rank %d is ready %s", from,
                       k->phase == DR_RANK_ABSENT ? "before its hello" : "twice");
    k->ready = *ready;
    k->phase = DR_RANK_READY;
    r->n_ready++;
    return dr_ok();
}

dr_status dr_roster_beat(struct dr_roster *r, int32_t from, const struct dr_beat *beat, uint64_t now_ns) {
    DR_TRY(same_rank(r, "a beat", from, beat->rank));
    struct dr_roster_rank *k = &r->rank[from];
    k->beats = true;
    k->suspect = false;
    k->heard_ns = now_ns;
    k->beat_step = beat->step;
    k->beat_op = beat->op;
    return dr_ok();
}

dr_status dr_roster_report(struct dr_roster *r, int32_t from, const struct dr_step_report *report) {
    DR_TRY(same_rank(r, "a report", from, report->rank));
    r->rank[from].reported_step = report->step;
    return dr_ok();
}

dr_status dr_roster_check(struct dr_roster *r, uint64_t now_ns, int32_t *suspect) {
    bool stalled = r->checked_ns != 0 && now_ns - r->checked_ns > STALL_NS;
    r->checked_ns = now_ns;
    *suspect = -1;
    for (int32_t i = 0; i < r->n; i++) {
        struct dr_roster_rank *k = &r->rank[i];
        if (stalled) k->heard_ns = now_ns;
        if (!k->beats || now_ns - k->heard_ns < SUSPECT_NS) continue;
        if (now_ns - k->heard_ns >= DEAD_NS)
            return dr_fail(DR_EPEER,
                           "rank %d on %s (pid %d) has been silent for %" PRIu64
                           " ms; last seen in step %" PRIu64 ", call %d",
                           i, k->hello.host, k->hello.pid, (now_ns - k->heard_ns) / 1000000U, k->beat_step,
                           k->beat_op);
        if (!k->suspect) *suspect = i;
        k->suspect = true;
    }
    return dr_ok();
}

/* Appends one rank to the line; false when it is full. */
static bool append(const struct dr_roster *r, int32_t i, char *out, size_t room) {
    size_t at = strlen(out);
    const struct dr_roster_rank *k = &r->rank[i];
    char name[DR_HOST_MAX + 64];
    if (k->phase == DR_RANK_ABSENT)
        snprintf(name, sizeof name, "rank %d", i);
    else
        snprintf(name, sizeof name, "rank %d (%s, pid %d)", i, k->hello.host, k->hello.pid);
    if (at + strlen(name) + 3 + sizeof " ..." > room) {
        snprintf(out + at, room - at, " ...");
        return false;
    }
    snprintf(out + at, room - at, "%s%s", at ? ", " : "", name);
    return true;
}

const char *dr_roster_below(const struct dr_roster *r, enum dr_rank_phase phase, char *out, size_t room) {
    out[0] = '\0';
    for (int32_t i = 0; i < r->n; i++)
        if (r->rank[i].phase < phase && !append(r, i, out, room)) break;
    return out;
}

const char *dr_roster_unreported(const struct dr_roster *r, uint64_t step, char *out, size_t room) {
    out[0] = '\0';
    for (int32_t i = 0; i < r->n; i++)
        if (r->rank[i].reported_step < step && !append(r, i, out, room)) break;
    return out;
}
