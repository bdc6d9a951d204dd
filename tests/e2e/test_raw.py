"""Bytes that no client library would send, and clients that misbehave in time."""
import json
import socket
import threading
import time

import pytest

from conftest import until

HI = '{"messages":[{"role":"user","content":"Hello"}],"temperature":0,"max_tokens":3}'


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def exchange(server, data, half_close=False):
    """Sends and reads to the end."""
    with connect(server) as s:
        s.sendall(data if isinstance(data, bytes) else data.encode())
        if half_close:
            s.shutdown(socket.SHUT_WR)
        got = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            got += part
    return got


def post(path, body, *headers, length=None):
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    if length is None and not any(h.startswith("Transfer-Encoding") for h in headers):
        length = len(body)
    if length is not None:
        head.append(f"Content-Length: {length}")
    return "\r\n".join(head) + "\r\n\r\n" + body


BAD = [
    ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    ("BREW /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
    ("GET /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
    ("GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    ("GET /health HTTP/1.1\r\nHost: x/../y\r\n\r\n", 400),
    ("GET /health HTTP/1.1\r\n\r\n", 400),
    ("nonsense\r\n\r\n", None),  # no HTTP at all: closed without a word
    (post("/v1/chat/completions", HI, "Transfer-Encoding: chunked", length=5), 400),
    (post("/v1/chat/completions", HI, "Content-Length: 5"), 400),
    (post("/v1/chat/completions", HI, "Content-Type: text/html"), 415),
    (post("/v1/chat/completions", "", length=99999999), 413),
    (post("/v1/chat/completions", ""), 400),
    (post("/v1/chat/completions", "{"), 400),
    (post("/v1/chat/completions", HI.replace("3}", "3,\"n\":0}")), 400),
    (post("/v1/chat/completions", HI.replace("user", "wizard")), 400),
    (post("/v1/completions", '{"prompt":"x","suffix":"y"}'), 400),
    (post("/detokenize", '{"tokens":[8192]}'), 400),
    ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("GET /health HTTP/1.1\r\nHost: x\r\n" + "".join(f"a{i}: b\r\n" for i in range(70)) + "\r\n", 431),
]


@pytest.mark.parametrize("i", range(len(BAD)))
def test_bad_requests_have_their_status(server2, i):
    data, status = BAD[i]
    got = exchange(server2, data).decode()
    assert got.startswith(f"HTTP/1.1 {status} ") if status else got == "", got[:200]
    assert server2.get("/health")[0] == 200


def test_errors_have_the_shape_of_openai(server2):
    head, body = exchange(server2, post("/v1/chat/completions", "[]")).decode().split("\r\n\r\n", 1)
    assert json.loads(body) == {"error": {"message": "expected a JSON object, found an empty array",
                                          "type": "invalid_request_error", "param": None, "code": None}}
    assert "content-type: application/json" in head.lower() and "x-request-id: req-" in head.lower()


def test_one_byte_at_a_time_is_served(server2):
    with connect(server2) as s:
        for byte in post("/v1/chat/completions", HI):
            s.sendall(byte.encode())
        got = b"".join(iter(lambda: s.recv(65536), b""))
    assert b" 200 " in got.split(b"\r\n")[0] and b'"finish_reason":"length"' in got


def test_chunks_of_one_byte_are_served(server2):
    body = "".join(f"1\r\n{c}\r\n" for c in HI) + "0\r\n\r\n"
    got = exchange(server2, post("/v1/chat/completions", body, "Transfer-Encoding: chunked"))
    assert b" 200 " in got.split(b"\r\n")[0]


def test_http_1_0_streams_until_close(server2):
    body = HI.replace('"max_tokens":3', '"max_tokens":3,"stream":true')
    got = exchange(server2, f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert got.endswith(b"data: [DONE]\n\n") and b"chunked" not in got.lower()


def test_a_half_open_client_is_gone(server2):
    """A client that closes its sending side before its answer is there counts as gone, and its work ends."""
    before = server2.metric("deeprack_requests_cancelled_total")
    request = post("/v1/completions", '{"prompt":"x","max_tokens":1500,"ignore_eos":true}')
    with connect(server2) as s:
        s.sendall(request.encode())
        time.sleep(0.1)  # in work; the counters come once a second, when 1,500 tokens may be there
        s.shutdown(socket.SHUT_WR)
        assert s.recv(4096) == b""
    assert until(lambda: server2.metric("deeprack_requests_cancelled_total") == before + 1, 3)
    for _ in range(300):  # noticed at any moment, also while the work begins: always closed
        assert exchange(server2, request, half_close=True) == b""
    assert until(lambda: server2.metric("vllm:num_requests_running") == 0, 3)


def test_slow_and_silent_clients_hold_up_nobody_and_are_closed(server2):
    """Silent, slow headers, a body that stops, a stream that is never read - and a healthy client beside them."""
    silent = [connect(server2) for _ in range(50)]
    drip, stuck, deaf = connect(server2), connect(server2), connect(server2)
    stuck.sendall(post("/v1/completions", '{"prompt":', length=100).encode())
    body = '{"prompt":"x","max_tokens":1900,"ignore_eos":true,"stream":true}'
    deaf.sendall(post("/v1/completions", body).encode())
    started = time.monotonic()
    answers = []

    def healthy():
        for _ in range(10):
            answers.append(exchange(server2, post("/v1/chat/completions", HI)))
    thread = threading.Thread(target=healthy)
    thread.start()
    thread.join(20)
    assert len(answers) == 10 and all(b" 200 " in a.split(b"\r\n")[0] for a in answers)
    request = b"GET /health HTTP/1.1\r\nHost: x\r\nx-a: bbbbbbbbbbbbbbbbbbbbbb"
    got = b""
    for byte in request:  # a byte a second never counts as idle, yet the headers have 10 s in all
        if time.monotonic() - started > 14:
            break
        try:
            drip.sendall(bytes([byte]))
            drip.settimeout(1)
            got = drip.recv(4096)
            break
        except socket.timeout:
            continue
        except OSError:
            break
    assert got.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 14
    stuck.settimeout(20)
    assert stuck.recv(4096).startswith(b"HTTP/1.1 408 ")
    for s in silent:
        s.settimeout(5)
        assert s.recv(4096).startswith(b"HTTP/1.1 408 ") and s.recv(4096) == b""
        s.close()
    for s in (drip, stuck, deaf):
        s.close()
    assert until(lambda: server2.metric("vllm:num_requests_running") == 0, 5)


def test_tokens_round_trip(server2):
    for text in ["Hello", " é 漢字 👍🏽", "<｜User｜>", "a\nb\t", "x" * 5000]:
        body = json.dumps({"prompt": text, "add_special_tokens": False})
        ids = json.loads(exchange(server2, post("/tokenize", body)).split(b"\r\n\r\n", 1)[1])["tokens"]
        back = json.loads(exchange(server2, post("/detokenize", json.dumps({"tokens": ids}))).split(b"\r\n\r\n", 1)[1])
        assert back["prompt"] == text
