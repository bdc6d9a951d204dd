/* codec_cluster.c - the messages of start and end: Hello, Start, Ready, FaultNote.
 * In:   structs or bodies.      Out: frames or checked structs.
 * Owns: nothing.
 * Why:  see codec.h. */
#include "proto/codec_wire.h"
#include "v1/cluster.pb-c.h"

static const struct dr_wire_rule hello_at[] = {
    [1] = DR_RULE_ANY, /* protocol: compared by the coordinator, which prints both */
    [2] = {.most = sizeof((struct dr_hello *)0)->build - 1},
    [3] = DR_RULE_RANK,
    [4] = DR_RULE_COUNT,
    [5] = {.most = DR_HOST_MAX},
    [6] = DR_RULE_ANY,
    [7] = DR_RULE_ANY,
    [8] = DR_RULE_ANY,
    [9] = {.most = DR_ISA_TEXT},
    [10] = {.most = DR_INPUTS_TEXT},
};
static const struct dr_wire_rules hello_rules = DR_WIRE_RULES(hello_at);

dr_status dr_encode_hello(const struct dr_hello *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                          size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Hello m = DR__V1__HELLO__INIT;
    dr_wire_present(&m.base);
    m.protocol = in->protocol;
    m.build = (char *)in->build;
    m.rank = in->rank;
    m.pid = in->pid;
    m.host = (char *)in->host;
    m.tensors_hash = in->tensors_hash;
    m.layout_hash = in->layout_hash;
    m.memory_bytes = in->memory_bytes;
    m.isa = (char *)in->arithmetic.isa;
    m.inputs = (char *)in->arithmetic.inputs;
    return dr_wire_pack(DR_MSG_HELLO, epoch, &m.base, &hello_rules, out, room, bytes);
}

dr_status dr_decode_hello(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_hello *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__hello__descriptor, &hello_rules, body, bytes, arena, &base));
    const Dr__V1__Hello *m = (const Dr__V1__Hello *)base;
    *out = (struct dr_hello){
        .protocol = m->protocol,
        .rank = m->rank,
        .pid = m->pid,
        .tensors_hash = m->tensors_hash,
        .layout_hash = m->layout_hash,
        .memory_bytes = m->memory_bytes,
    };
    dr_wire_text(out->build, sizeof out->build, m->build);
    dr_wire_text(out->host, sizeof out->host, m->host);
    dr_wire_text(out->arithmetic.isa, sizeof out->arithmetic.isa, m->isa);
    dr_wire_text(out->arithmetic.inputs, sizeof out->arithmetic.inputs, m->inputs);
    return dr_ok();
}

static const struct dr_wire_rule start_at[] = {
    [1] = {.least = 1, .most = DR_RANKS_MAX},
    [2] = {.most = DR_RANKS_MAX - 1, .count = DR_RANKS_MAX},
    [3] = {.least = 1, .most = DR_RANKS_MAX, .count = DR_RANKS_MAX},
};
static const struct dr_wire_rules start_rules = DR_WIRE_RULES(start_at);

/* What the walk over single fields cannot see. */
static dr_status start_sums(const Dr__V1__Start *m) {
    DR_TRY(dr_wire_same("Start", "place", m->n_place, (size_t)m->n_rank));
    DR_TRY(dr_wire_same("Start", "peers", m->n_peers, (size_t)m->n_rank));
    for (size_t i = 0; i < m->n_place; i++)
        if (m->place[i] >= m->peers[i])
            return dr_fail(DR_EPROTO, "Start.place: rank %zu is number %d of %d on its host", i, m->place[i],
                           m->peers[i]);
    return dr_ok();
}

dr_status dr_encode_start(const struct dr_start *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                          size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Start m = DR__V1__START__INIT;
    dr_wire_present(&m.base);
    m.n_rank = in->n_rank;
    m.n_place = m.n_peers = in->n_rank > 0 ? (size_t)in->n_rank : 0;
    m.place = (int32_t *)in->place;
    m.peers = (int32_t *)in->peers;
    DR_TRY(dr_wire_check(&m.base, &start_rules));
    DR_TRY(start_sums(&m));
    return dr_wire_pack(DR_MSG_START, epoch, &m.base, &start_rules, out, room, bytes);
}

dr_status dr_decode_start(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_start *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__start__descriptor, &start_rules, body, bytes, arena, &base));
    const Dr__V1__Start *m = (const Dr__V1__Start *)base;
    DR_TRY(start_sums(m));
    *out = (struct dr_start){.n_rank = m->n_rank, .place = m->place, .peers = m->peers};
    return dr_ok();
}

static const struct dr_wire_rule ready_at[] = {
    [1] = DR_RULE_RANK, [2] = DR_RULE_ANY, [3] = DR_RULE_ANY,
    [4] = DR_RULE_ANY,  [5] = DR_RULE_ANY, [6] = DR_RULE_ANY,
};
static const struct dr_wire_rules ready_rules = DR_WIRE_RULES(ready_at);

dr_status dr_encode_ready(const struct dr_ready *in, uint64_t epoch, struct dr_arena *scratch, uint8_t *out,
                          size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__Ready m = DR__V1__READY__INIT;
    dr_wire_present(&m.base);
    m.rank = in->rank;
    m.weights_bytes = in->weights_bytes;
    m.cache_bytes = in->cache_bytes;
    m.workspace_bytes = in->workspace_bytes;
    m.resident_bytes = in->resident_bytes;
    m.load_ns = in->load_ns;
    return dr_wire_pack(DR_MSG_READY, epoch, &m.base, &ready_rules, out, room, bytes);
}

dr_status dr_decode_ready(const uint8_t *body, size_t bytes, struct dr_arena *arena, struct dr_ready *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__ready__descriptor, &ready_rules, body, bytes, arena, &base));
    const Dr__V1__Ready *m = (const Dr__V1__Ready *)base;
    *out = (struct dr_ready){
        .rank = m->rank,
        .weights_bytes = m->weights_bytes,
        .cache_bytes = m->cache_bytes,
        .workspace_bytes = m->workspace_bytes,
        .resident_bytes = m->resident_bytes,
        .load_ns = m->load_ns,
    };
    return dr_ok();
}

static const struct dr_wire_rule fault_at[] = {
    [1] = {.least = -1, .most = DR_RANKS_MAX - 1},
    [2] = {.most = DR_CODE_COUNT - 1},
    [3] = {.most = DR_TEXT_MAX},
};
static const struct dr_wire_rules fault_rules = DR_WIRE_RULES(fault_at);

/* Both pipes carry this body. The frame is a FAULT; for the gateway the coordinator turns it into a
 * CLUSTER_FAULT (dr_frame_retype). */
dr_status dr_encode_fault_note(const struct dr_fault_note *in, uint64_t epoch, struct dr_arena *scratch,
                               uint8_t *out, size_t room, size_t *bytes) {
    (void)scratch;
    Dr__V1__FaultNote m = DR__V1__FAULT_NOTE__INIT;
    dr_wire_present(&m.base);
    m.rank = in->rank;
    m.code = in->code;
    m.text = (char *)in->text;
    return dr_wire_pack(DR_MSG_FAULT, epoch, &m.base, &fault_rules, out, room, bytes);
}

dr_status dr_decode_fault_note(const uint8_t *body, size_t bytes, struct dr_arena *arena,
                               struct dr_fault_note *out) {
    ProtobufCMessage *base = NULL;
    DR_TRY(dr_wire_unpack(&dr__v1__fault_note__descriptor, &fault_rules, body, bytes, arena, &base));
    const Dr__V1__FaultNote *m = (const Dr__V1__FaultNote *)base;
    *out = (struct dr_fault_note){.rank = m->rank, .code = m->code};
    dr_wire_text(out->text, sizeof out->text, m->text);
    return dr_ok();
}
