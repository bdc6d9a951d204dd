"""Death, drain, keys, and what an idle server costs."""
import http.client
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import LAYOUTS, MODEL, alive, children, cpu_ticks, until

LONG = {"model": "lexi-15m", "max_tokens": 1900, "temperature": 0, "stream": True, "extra_body": {"ignore_eos": True}}
HELLO = {"model": "lexi-15m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 15, "temperature": 0}


class Reader(threading.Thread):
    """Reads a stream to its end or error, and notes when that was."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.stream = client.chat.completions.create(messages=[{"role": "user", "content": "Define run."}], **LONG)
        self.chunks, self.error, self.ended = 0, None, None
        self.start()

    def run(self):
        try:
            for _ in self.stream:
                self.chunks += 1
        except Exception as error:
            self.error = error
        self.ended = time.monotonic()


def worker_pids(server):
    return [rank["pid"] for rank in server.ready()["ranks"]]


@pytest.mark.parametrize("layout", ["tp2", "tp2pp2"])
def test_a_killed_worker_costs_open_streams_but_not_the_service(start, golden, layout):
    server = start(*LAYOUTS[layout])
    client = server.client()
    for victim in (-1, 0):
        readers = [Reader(client) for _ in range(4)]
        assert until(lambda: all(r.chunks > 2 for r in readers), 10)
        killed = time.monotonic()
        os.kill(worker_pids(server)[victim], signal.SIGKILL)
        for r in readers:
            r.join(5)
            assert r.ended and r.ended - killed < 2, "an open stream must end within 2 s"
            assert isinstance(r.error, openai.APIError) and r.error.code == "epoch_lost"
        reply = client.chat.completions.create(**HELLO)  # waits for the next epoch inside the server
        hello = next(c for c in golden if c["name"] == "hello")
        assert reply.choices[0].message.content == hello["greedy_text"]
    facts = server.ready()
    assert facts["relaunches"] == 2 and facts["ready"]
    assert server.metric("deeprack_requests_lost_total") == 8
    assert server.stop() == 0


def test_a_killed_coordinator_is_replaced(start):
    server = start(*LAYOUTS["tp2"])
    reader = Reader(server.client())
    assert until(lambda: reader.chunks > 2, 10)
    killed = time.monotonic()
    for pid in children(server.process.pid):
        if "coordinator" in open(f"/proc/{pid}/comm").read() or "deeprack-coordi" in open(f"/proc/{pid}/comm").read():
            os.kill(pid, signal.SIGKILL)
    reader.join(5)
    assert reader.ended - killed < 2 and reader.error.code == "epoch_lost"
    assert server.client().chat.completions.create(**HELLO).choices[0].finish_reason == "stop"
    assert server.stop() == 0


def test_sigterm_lets_streams_finish_and_leaves_nothing(start, golden):
    server = start(*LAYOUTS["tp2pp2"])
    client = server.client()
    below = children(server.process.pid)
    assert len(below) >= 6  # mpirun, coordinator, four workers
    case = max((c for c in golden if "messages" in c), key=lambda c: len(c["greedy_ids"]))
    texts = ["", "", ""]
    started = threading.Semaphore(0)

    def read(i):
        stream = client.chat.completions.create(model="lexi-15m", messages=case["messages"], temperature=0, stream=True,
                                                max_tokens=300, extra_body={"min_tokens": 200})
        for n, chunk in enumerate(stream):
            if n == 3:
                started.release()
            texts[i] += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if chunk.choices and chunk.choices[0].finish_reason:
                texts[i] += "<end>"
    threads = [threading.Thread(target=read, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for _ in threads:
        assert started.acquire(timeout=10)
    server.process.send_signal(signal.SIGTERM)
    assert until(lambda: server.get("/health")[0] == 503, 3)
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(**HELLO)
    assert error.value.status_code == 503 and error.value.response.headers["retry-after"]
    for t in threads:
        t.join(30)
    assert texts[0].endswith("<end>") and texts[0] == texts[1] == texts[2]
    assert server.process.wait(20) == 0
    assert until(lambda: not any(alive(p) for p in below), 5)
    assert not os.path.exists(server.run_dir)
    with pytest.raises(OSError):
        server.get("/health")


def test_an_idle_sigterm_is_quick_and_a_second_one_ends_at_once(start):
    server = start(*LAYOUTS["tp2"])
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5
    server = start(*LAYOUTS["tp2"], "--drain-seconds", "60")
    reader = Reader(server.client())
    assert until(lambda: reader.chunks > 2, 10)
    server.process.send_signal(signal.SIGTERM)
    assert server.event("drain")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 6
    reader.join(5)
    assert reader.ended and reader.error.code == "shutting_down"


def test_an_idle_cluster_costs_under_two_percent_of_a_core(start):
    server = start(*LAYOUTS["tp2pp2"])
    server.client().chat.completions.create(**HELLO)
    time.sleep(2)  # the answer's own work and the wake-ups after it
    pids = [server.process.pid, *children(server.process.pid)]
    shares = []
    for _ in range(3):  # other load on the machine makes every wake-up dearer and can only add: the least counts
        before, began = sum(cpu_ticks(p) for p in pids), time.monotonic()
        time.sleep(5)
        used = (sum(cpu_ticks(p) for p in pids) - before) / os.sysconf("SC_CLK_TCK")
        shares.append(used / (time.monotonic() - began))
    print("idle: " + ", ".join(f"{100 * s:.2f} %" for s in shares) + f" of a core in {len(pids)} processes")
    assert min(shares) < 0.02
    assert server.stop() == 0


def test_keys_open_the_door(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# test\nsesame\n")
    server = start(*LAYOUTS["tp1"], "--api-key-file", str(keys), "--metrics-listen", "127.0.0.1:0")
    assert server.client(api_key="sesame").chat.completions.create(**HELLO).choices[0].finish_reason == "stop"
    with pytest.raises(openai.AuthenticationError) as error:
        server.client(api_key="sesam").chat.completions.create(**HELLO)
    assert error.value.status_code == 401 and error.value.type == "authentication_error"
    for path in ("/v1/models", "/version", "/tokenize", "/metrics", "/nothing"):
        assert server.get(path)[0] == 401
    for path in ("/health", "/health/live", "/health/ready", "/health/progress"):
        assert server.get(path)[0] == 200
    assert server.get("/v1/models", {"x-api-key": "sesame"})[0] == 200
    assert "vllm:num_requests_running" in server.get("/metrics", port=server.metrics_port)[1]
    assert "sesam" not in server.log()
    assert server.stop() == 0


def test_the_server_refuses_to_stand_open(cli, start):
    made = cli("serve", "--model", MODEL, "--host", "0.0.0.0", "--port", 0)
    assert made.returncode == 64 and "--api-key-file" in made.stderr
    server = start(*LAYOUTS["tp1"])
    made = cli("serve", "--model", MODEL, "--port", server.port)
    assert made.returncode == 74 and "another server" in made.stderr
    assert server.stop() == 0


def test_health_while_loading(start):
    server = start(*LAYOUTS["tp2"], wait=False)
    assert server.get("/health/live")[0] == 200
    status, text = server.get("/health/ready")
    assert (status, json.loads(text)["ready"]) in ((503, False), (200, True))
    assert until(lambda: server.get("/health")[0] == 200, 20)
    state = json.loads(server.get("/health/progress")[1])
    assert state["state"] == "idle" and state["ranks"] == 2
    assert server.stop() == 0


def test_a_full_queue_says_429(start):
    server = start(*LAYOUTS["tp1"], "--seqs-max", "1")
    client = server.client()
    readers = [Reader(client)]
    assert until(lambda: readers[0].chunks > 2, 10)
    body = json.dumps({"prompt": [[35, 36]] * 128, "n": 2, "max_tokens": 1}).encode()

    def submit(body=body):
        request = urllib.request.Request(server.url("/v1/completions"), body, {"Content-Type": "application/json"})
        try:
            return urllib.request.urlopen(request, timeout=60).status, None, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)
    waiting = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    waiting.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    assert until(lambda: server.metric("vllm:num_requests_waiting") > 200, 5)
    status, headers, reply = submit()  # 256 wait at most
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert reply["error"]["code"] == "queue_full" and reply["error"]["type"] == "rate_limit_error"
    assert until(lambda: submit()[0] == submit(b"{")[0] == 429, 10)  # the gateway knows: nobody reads what is sure to be refused
    waiting.close()
    assert until(lambda: submit(b"{")[0] == 400, 10)  # it knows of the room as well
    server.kill()
