#!/usr/bin/env python3
"""make_wire.py - frames of protocol 1 as bytes, written without protobuf-c.

In:   the values below (tests/unit/proto/samples.c states the same ones).      Out: one file a message beside this script.
Owns: *.bin here.
Why:  the wire format is a promise to other releases: these bytes must be decoded, and produced, by every later build of protocol 1.
      The encoding is spelled out from the protobuf wire format, so that an error of our own encoder cannot hide in it.

Run:  python3 make_wire.py           (writes; `git diff --exit-code` must stay clean)
"""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
U64 = 1 << 64


def varint(v):
    v %= U64
    out = b""
    while v >= 128:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def num(tag, v):
    return varint(tag << 3) + varint(v)


def fix64(tag, v):
    return varint(tag << 3 | 1) + struct.pack("<Q", v)


def flt(tag, v):
    return varint(tag << 3 | 5) + struct.pack("<f", v)


def raw(tag, b):
    return varint(tag << 3 | 2) + varint(len(b)) + b


def text(tag, s):
    return raw(tag, s.encode())


def nums(tag, vs):  # packed; an empty list is not on the wire
    return raw(tag, b"".join(varint(v) for v in vs)) if vs else b""


def flts(tag, vs):
    return raw(tag, b"".join(struct.pack("<f", v) for v in vs)) if vs else b""


def frame(kind, epoch, body):
    return struct.pack("<IHHQII", 0x314B5244, 1, kind, epoch, len(body), 0) + body


EPOCH = 0x1122334455667788
FILES = {}


def put(name, kind, body, epoch=EPOCH):
    FILES[name] = frame(kind, epoch, body)


def sampling(temperature, top_p, min_p, top_k, repetition, frequency, presence, seed, n_top):
    return (flt(1, temperature) + flt(2, top_p) + flt(3, min_p) + num(4, top_k) + flt(5, repetition) + flt(6, frequency) +
            flt(7, presence) + fix64(8, seed) + num(9, n_top))


FULL_SAMPLING = sampling(0.75, 0.9375, 0.0625, 40, 1.125, -0.5, 0.25, 0xFEDCBA9876543210, 20)
LEAST_SAMPLING = sampling(0, 1, 0, 0, 1, 0, 0, 0, -1)

put("hello-full", 1, num(1, 1) + text(2, "0.1.0") + num(3, 7) + num(4, 4242) + text(5, "node-7.example") + fix64(6, 0xA1A2A3A4A5A6A7A8) +
    fix64(7, 0xB1B2B3B4B5B6B7B8) + num(8, 68719476736) + text(9, "avx512") + text(10, "int8"))
put("hello-least", 1, num(1, 0) + text(2, "") + num(3, 0) + num(4, 0) + text(5, "") + fix64(6, 0) + fix64(7, 0) + num(8, 0) + text(9, "") + text(10, ""))
put("start-full", 2, num(1, 3) + nums(2, [0, 1, 0]) + nums(3, [2, 2, 1]))
put("start-least", 2, num(1, 1) + nums(2, [0]) + nums(3, [1]))
put("ready-full", 3, num(1, 1023) + num(2, 1 << 40) + num(3, 2 << 30) + num(4, 3 << 20) + num(5, U64 - 1) + num(6, 123456789012))
put("ready-least", 3, num(1, 0) + num(2, 0) + num(3, 0) + num(4, 0) + num(5, 0) + num(6, 0))

OPEN_FULL = (num(1, 1023) + num(2, 3) + num(3, 5000) + raw(4, FULL_SAMPLING) + nums(5, [5, 1048575]) + flts(6, [-100, 2.5]) +
             nums(7, [1, 2, 300]) + nums(8, [9, 70000]) + nums(9, [1, 12]) + num(10, 4992))
OPEN_LEAST = num(1, 0) + num(2, 0) + num(3, 0) + raw(4, LEAST_SAMPLING) + num(10, 0)
PAGES_FULL = num(1, 1023) + num(2, 77) + nums(3, [0, 1, 127, 128, 2147483647])
SEG_IDS = (num(1, 12) + num(2, 64) + num(3, 3) + num(4, 0) + nums(5, [11, 222, 33333]) + num(6, 444) + num(7, 0) + num(8, 0) +
           num(9, 2) + num(10, 20) + num(11, 0) + num(12, 0))
SEG_CARRY = num(1, 13) + num(2, 16777206) + num(3, 9) + num(4, 1) + num(7, 1) + num(8, 1) + num(9, 1) + num(10, 0) + num(11, 8) + num(12, 7)
put("step_plan-full", 4, fix64(1, EPOCH) + num(2, 8841) + num(3, 63) + raw(4, OPEN_FULL) + raw(4, OPEN_LEAST) + raw(5, PAGES_FULL) +
    raw(6, SEG_IDS) + raw(6, SEG_CARRY) + nums(7, [1, 1023]) + fix64(8, 0xC1C2C3C4C5C6C7C8))
put("step_plan-least", 4, fix64(1, EPOCH) + num(2, 0) + num(3, 0) + fix64(8, 0))
put("step_report-full", 5, fix64(1, EPOCH) + num(2, 8841) + num(3, 1023) + num(4, 11) + num(5, 1000000) + num(6, 2000000) +
    num(7, 300000) + nums(8, [1, 200, 30000, 4000000, U64 - 1]) + text(9, "deadline passed in layer 17") +
    nums(10, [0, 1, 127, 128, 16384, 2097152, 268435456, 34359738368, 4398046511104, (1 << 49) - 1]) +
    nums(11, [5, 60, 700, 8000, (1 << 49) - 1]) + num(12, U64 - 1))
put("step_report-least", 5, fix64(1, EPOCH) + num(2, 0) + num(3, 0) + num(4, 0) + num(5, 0) + num(6, 0) + num(7, 0) +
    nums(8, [0] * 5) + text(9, "") + nums(10, [0] * 10) + nums(11, [0] * 5) + num(12, 0))
ROW_FULL = (num(1, 12) + num(2, 66) + num(3, 0) + nums(4, [7, 8, 9]) + flts(5, [-0.5, -1.25, -2]) + num(6, 2) +
            nums(7, [7, 1048575, 8, 7, 0, 9]) + flts(8, [-0.5, -3.75, -1.25, -1.5, -1.75, -2]) + nums(9, [10, 70000]))
ROW_FAULT = num(1, 13) + num(2, 0) + num(3, 1) + num(6, 0)
put("step_result-full", 6, fix64(1, EPOCH) + num(2, 8841) + raw(3, ROW_FULL) + raw(3, ROW_FAULT) + nums(4, [13, 1023]))
put("step_result-least", 6, fix64(1, EPOCH) + num(2, 0))
LOGITS_HEAD = "<QQQiiii"
put("logits-full", 7, struct.pack(LOGITS_HEAD, EPOCH, 8841, 99, 1023, 16777215, 1048573, 3) + struct.pack("<fff", 1.5, -2.25, 1e-30))
put("logits-least", 7, struct.pack(LOGITS_HEAD, 0, 0, 0, 0, 0, 0, 1) + struct.pack("<f", 0))
put("stop", 8, num(1, 0))
put("beat-full", 9, fix64(1, EPOCH) + num(2, 8841) + num(3, 1023) + num(4, 2147483647))
put("beat-least", 9, fix64(1, EPOCH) + num(2, 0) + num(3, 0) + num(4, -1))
put("fault_note-full", 10, num(1, 1023) + num(2, 9) + text(3, "worker 3 is gone: ") )
put("fault_note-least", 10, num(1, -1) + num(2, 0) + text(3, ""))

put("link_hello-full", 32, num(1, 1) + raw(2, bytes(range(200, 232))))
put("link_hello-least", 32, num(1, 0) + raw(2, bytes(32)))
put("submit-full", 33, fix64(1, 0xD1D2D3D4D5D6D7D8) + nums(2, [0, 127, 128, 16384, 1048575]) + num(3, 4) + num(4, 512) + num(5, 16) + num(6, 1) +
    nums(7, [1, 1048575]) + raw(8, FULL_SAMPLING) + nums(9, [5, 6]) + flts(10, [1.5, -1.5]) + num(11, 20) + num(12, 1) + num(13, -3) +
    num(14, 4294967295) + text(15, "tenant-a") + text(16, "salt-b"))
put("submit-least", 33, fix64(1, 0) + nums(2, [0]) + num(3, 0) + num(4, 0) + num(5, 0) + num(6, 0) + raw(8, LEAST_SAMPLING) +
    num(11, -1) + num(12, 0) + num(13, 0) + num(14, 0) + text(15, "") + text(16, ""))
put("cancel", 34, num(1, 0xD1D2D3D4D5D6D7D8))
put("drain", 35, num(1, 0))
put("reset_prefix", 36, num(1, 0))
put("watch", 37, num(1, 3))

LAYOUT_FULL = (num(1, 3) + num(2, 2) + num(3, 3) + num(4, 6) + num(5, 1) + num(6, 1) + num(7, 2) + num(8, 1) + num(9, 66) + num(10, 22) +
               num(11, 163840) + num(12, 64) + num(13, 512) + num(14, 100000) + nums(15, [0, 31, 61]) + num(16, 1))
LAYOUT_LEAST = (num(1, 1) + num(2, 1) + num(3, 1) + num(4, 1) + num(5, 0) + num(6, 0) + num(7, 0) + num(8, 0) + num(9, 64) + num(10, 64) +
                num(11, 1) + num(12, 1) + num(13, 1) + num(14, 1) + nums(15, [0, 1]) + num(16, 0))


def rank_state(i):
    return (num(1, i) + num(2, 100 + i) + text(3, "node-%d" % i) + num(4, 1000 * i) + num(5, 2000 * i) + num(6, 3000 * i) +
            num(7, 4000 * i) + num(8, 5000 * i) + text(9, "avx2" if i else "") + text(10, "f32" if i else ""))


put("cluster_ready-full", 48, raw(1, LAYOUT_FULL) + fix64(2, 0xE1E2E3E4E5E6E7E8) + b"".join(raw(3, rank_state(i)) for i in range(6)))
put("cluster_ready-least", 48, raw(1, LAYOUT_LEAST) + fix64(2, 0) +
    raw(3, num(1, 0) + num(2, 0) + text(3, "") + b"".join(num(t, 0) for t in range(4, 9)) + text(9, "") + text(10, "")))
put("accepted", 49, num(1, 0xD1D2D3D4D5D6D7D8))
put("refused-full", 50, fix64(1, 0xD1D2D3D4D5D6D7D8) + num(2, 3) + num(3, 2500) + text(4, "the cluster is draining"))
put("refused-least", 50, fix64(1, 0) + num(2, 0) + num(3, 0) + text(4, ""))
NEWS_FULL = (fix64(1, 0xD1D2D3D4D5D6D7D8) + num(2, 1) + num(3, 16777216) + nums(4, [5, 70000]) + flts(5, [-1, -0.125]) + num(6, 2) +
             nums(7, [5, 6, 70000, 8]) + flts(8, [-1, -2, -0.125, -4]))
NEWS_PLAIN = fix64(1, 2) + num(2, 0) + num(3, 0) + nums(4, [9]) + num(6, 0)
put("tokens-full", 51, raw(1, NEWS_FULL) + raw(1, NEWS_PLAIN))
put("tokens-least", 51, b"")
put("done-full", 52, fix64(1, 0xD1D2D3D4D5D6D7D8) + num(2, 5) + num(3, 4294967295) + num(4, 1) + num(5, 2) + num(6, 3) +
    nums(7, [4, 3, 2, 1, 0, 0, 0, (1 << 31) - 1]) + nums(8, [3, 2, 1, 0, 0, 0, 0, 300]) +
    num(9, 6000000000) + num(10, 7000000000) + num(11, 8000000000))
put("done-least", 52, fix64(1, 0) + b"".join(num(t, 0) for t in range(2, 7)) + nums(7, [0] * 8) + nums(8, [0] * 8) +
    num(9, 0) + num(10, 0) + num(11, 0))
put("alive", 53, num(1, 0))
put("stats-full", 54, b"".join(num(t, 1000000 * t) for t in range(1, 15)) + nums(15, [11, 22, 33, 44, 55]) + num(16, 16000000))
put("stats-least", 54, b"".join(num(t, 0) for t in range(1, 15)) + nums(15, [0] * 5) + num(16, 0))
put("cluster_fault", 55, num(1, -1) + num(2, 9) + text(3, "epoch lost"))
put("progress-full", 56, num(1, 1023) + num(2, 1 << 35) + num(3, U64 - 1))
put("progress-least", 56, num(1, 0) + num(2, 0) + num(3, 0))
put("step_news-full", 57, num(1, 8841) + num(2, 1000000) + num(3, U64 - 1) + num(4, 8192) + num(5, 64) + num(6, 16) + num(7, 40))
put("step_news-least", 57, b"".join(num(t, 0) for t in range(1, 8)))

for name, data in FILES.items():
    with open(os.path.join(HERE, name + ".bin"), "wb") as f:
        f.write(data)
print("%d frames, %d bytes" % (len(FILES), sum(len(d) for d in FILES.values())))
