/* shm_message.c - sends and receives through shared memory.
 * In:   messages.      Out: the same on the other side.
 * Owns: nothing.
 * Why:  a stage goes on with its next step while the one behind it still computes: a message waits in the
 * sender's segment, in one of two slots that all receivers share.
 *
 * Piece number i of a sender, whoever gets it, lies in slot i % 2; the pair of sender and receiver counts its
 * own pieces and says for each in which slot it is. */
#include <string.h>

#include "worker/collective/shm.h"

/* What the sender may overwrite: the slot's earlier piece has been copied out. */
static dr_status slot_free(struct dr_shm *g, uint32_t slot) {
    struct dr_shm_control *own = g->control[g->base.me];
    return dr_shm_await(g, g->slot_to[slot], own, &own->slot[slot].taken, g->n_sent / 2, "send");
}

/* left: bytes of the message from this piece on. */
static dr_status send_piece(struct dr_shm *g, int32_t to, const char *x, size_t bytes, size_t left,
                            struct dr_stream *s) {
    struct dr_shm_control *own = g->control[g->base.me];
    struct dr_shm_pair *pair = &own->pair[to];
    uint32_t slot = g->n_sent % 2, entry = g->sent[to] % 2;
    DR_TRY(slot_free(g, slot));
    dr_shm_copy(dr_shm_message(g, g->base.me, slot), x, bytes, s);
    pair->slot[entry] = slot;
    pair->bytes[entry] = bytes;
    pair->left[entry] = left;
    g->slot_to[slot] = to;
    g->n_sent++;
    dr_shm_tell(own, &pair->sent, ++g->sent[to]);
    g->base.sent_bytes += bytes;
    return dr_ok();
}

dr_status dr_shm_send(struct dr_group *base, int32_t to, const void *x, size_t bytes, struct dr_stream *s) {
    struct dr_shm *g = (struct dr_shm *)base;
    DR_TRY(dr_shm_usable(g));
    DR_ASSERT(to >= 0 && to < base->n && to != base->me && g->message > 0);
    size_t at = 0;
    do { /* a message of no bytes is one, too */
        size_t len = bytes - at < g->message ? bytes - at : g->message;
        DR_TRY(send_piece(g, to, (const char *)x + at, len, bytes - at, s));
        at += len;
    } while (at < bytes);
    return dr_ok();
}

static dr_status recv_piece(struct dr_shm *g, int32_t from, char *x, size_t bytes, size_t left,
                            struct dr_stream *s) {
    struct dr_shm_control *other = g->control[from];
    struct dr_shm_pair *pair = &other->pair[g->base.me];
    uint32_t entry = g->received[from] % 2;
    DR_TRY(dr_shm_await(g, from, other, &pair->sent, g->received[from] + 1, "recv"));
    uint32_t slot = pair->slot[entry] % 2;
    if (pair->bytes[entry] != bytes || pair->left[entry] != left) {
        g->failed = true;
        return dr_fail(DR_EPROTO, "group member %d of %d: recv: member %d sent %llu bytes, expected %zu",
                       g->base.me, g->base.n, from, (unsigned long long)pair->left[entry], left);
    }
    dr_shm_copy(x, dr_shm_message(g, from, slot), bytes, s);
    g->received[from]++;
    _Atomic uint32_t *taken = &other->slot[slot].taken;
    dr_shm_tell(other, taken, atomic_load_explicit(taken, memory_order_relaxed) + 1);
    return dr_ok();
}

dr_status dr_shm_recv(struct dr_group *base, int32_t from, void *x, size_t bytes, struct dr_stream *s) {
    struct dr_shm *g = (struct dr_shm *)base;
    DR_TRY(dr_shm_usable(g));
    DR_ASSERT(from >= 0 && from < base->n && from != base->me && g->message > 0);
    size_t at = 0;
    do {
        size_t len = bytes - at < g->message ? bytes - at : g->message;
        DR_TRY(recv_piece(g, from, (char *)x + at, len, bytes - at, s));
        at += len;
    } while (at < bytes);
    return dr_ok();
}
