/* roster.h - which workers are there, what they said about themselves, when they were last heard.
 * In:   hellos, readies, beats, reports.      Out: go or no go, the name of whoever is missing, different or
 * dead. Owns: one record a rank. Why:  ranks that differ in build, model or layout must not start, and a
 * silent rank must be named within seconds.
 *
 * Beats come each second. Age 3 s: suspect (logged once); 5 s: dead. Ages are not trusted across a stall of
 * the coordinator itself: when two checks lie more than a second apart, every rank counts as just heard. */
#pragma once

#include "proto/message.h"

enum dr_rank_phase { DR_RANK_ABSENT, DR_RANK_JOINED, DR_RANK_READY };

struct dr_roster_rank {
    enum dr_rank_phase phase;
    struct dr_hello hello;
    struct dr_ready ready;
    bool beats, suspect; /* beats: has sent one, so silence means something */
    uint64_t heard_ns;   /* last beat */
    uint64_t beat_step, reported_step;
    int32_t beat_op;
};

struct dr_roster {
    struct dr_roster_rank *rank; /* [n] owned */
    int32_t n, n_joined, n_ready;
    int32_t first;        /* rank whose hello came first: what others are compared with; -1: none yet */
    uint64_t layout_hash; /* the coordinator's own */
    uint64_t checked_ns;
};

/* Fails: EFULL. */
DR_FALLIBLE dr_roster_init(struct dr_roster *r, int32_t n_rank, uint64_t layout_hash);
void dr_roster_fini(struct dr_roster *r);

/* from: the rank that the channel says it came from. Fails: EPROTO on protocol, build, a rank that lies about
 * its number or says hello twice; EMODEL when layout or tensors differ. Texts give both values. */
DR_FALLIBLE dr_roster_hello(struct dr_roster *r, int32_t from, const struct dr_hello *h);
/* Each rank's number among the ranks of its host, in rank order, and how many these are. All have joined. */
void dr_roster_places(const struct dr_roster *r, int32_t *place, int32_t *peers);

DR_FALLIBLE dr_roster_ready(struct dr_roster *r, int32_t from,
                            const struct dr_ready *ready); /* EPROTO likewise */

/* Fails: EPROTO when the rank in the message is not `from`. */
DR_FALLIBLE dr_roster_beat(struct dr_roster *r, int32_t from, const struct dr_beat *beat, uint64_t now_ns);
DR_FALLIBLE dr_roster_report(struct dr_roster *r, int32_t from, const struct dr_step_report *report);

/* *suspect: a rank that has just become suspect, or -1. Fails: EPEER naming the dead rank, its host, pid,
 * last step and op. */
DR_FALLIBLE dr_roster_check(struct dr_roster *r, uint64_t now_ns, int32_t *suspect);

/* "rank 1 (host, pid 12), rank 3" of those below the phase, or of those that have not reported `step`; at
 * most a line. Returns out. */
const char *dr_roster_below(const struct dr_roster *r, enum dr_rank_phase phase, char *out, size_t room);
const char *dr_roster_unreported(const struct dr_roster *r, uint64_t step, char *out, size_t room);
