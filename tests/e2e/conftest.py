"""Starts the built programs for the tests, and looks that nothing of them stays behind.

In:   --build DIR.      Out: fixtures: cli, server (one a layout, shared), start (servers of a test's own), golden.
"""
import glob
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy/models/lexi-15m"
LAYOUTS = {"tp1": ["--tp", "1"], "tp2": ["--tp", "2"], "tp2pp2": ["--tp", "2", "--pp", "2", "--exchange", "value"]}


def pytest_addoption(parser):
    parser.addoption("--build", required=True, help="build folder with bin/")


@pytest.fixture(scope="session")
def binary(request):
    return os.path.join(request.config.getoption("--build"), "bin", "deeprack")


@pytest.fixture(scope="session")
def golden():
    return json.loads((ROOT / "deploy/models/lexi-15m-golden.json").read_text())["cases"]


@pytest.fixture(scope="session")
def cli(binary):
    """cli(*arguments, stdin=text): a finished command."""
    def run(*arguments, stdin="", timeout=120):
        return subprocess.run([binary, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=timeout)
    return run


def children(pid):
    """All processes below pid, by /proc."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2:].split()
        parents.setdefault(int(fields[1]), []).append(int(text[:text.index(" ")]))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def alive(pid):
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return False
    return text[text.rindex(")") + 2] != "Z"


def cpu_ticks(pid):
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return 0
    fields = text[text.rindex(")") + 2:].split()
    return int(fields[11]) + int(fields[12])


def until(check, seconds, step=0.02):
    """The first true value of check(), or its last one when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


class Server:
    """`deeprack serve` on a free port; its log, its clients, its end."""

    def __init__(self, binary, *flags, wait=True):
        self.events, self.run_dir, self.port, self.metrics_port = [], None, None, None
        self.process = subprocess.Popen(
            [binary, "serve", "--model", str(MODEL), "--port", "0", "--cache-type", "f32", "--log-format", "json", *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        assert self.event("listening"), self.log()
        if wait:
            assert until(lambda: self.get("/health")[0] == 200, 30), self.log()

    def _read(self):
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "text", "msg": line}
            words = dict(w.split("=", 1) for w in event.get("msg", "").split() if "=" in w)
            if event["event"] == "launch":
                self.run_dir = words["run"]
            if event["event"] == "listening":
                if words.get("for") == "metrics":
                    self.metrics_port = int(words["port"])
                else:
                    self.port = int(words["port"])
            self.events.append(event)

    def event(self, name, seconds=20):
        return until(lambda: next((e for e in self.events if e["event"] == name), None), seconds)

    def log(self):
        return "\n".join(json.dumps(e) for e in self.events[-40:])

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path, headers=None, port=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name, label=""):
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + "{") and label in line:
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name} {label}")

    def ready(self):
        return json.loads(self.get("/health/ready")[1])

    def client(self, **words):
        import openai
        words = {"api_key": "none", "max_retries": 0, "timeout": 60, **words}
        return openai.OpenAI(base_url=self.url("/v1"), **words)

    def stop(self, signum=signal.SIGTERM, seconds=30):
        """Ends it; the exit status. Whatever it started must be gone: processes, RUN, shared memory, port."""
        below = children(self.process.pid)
        self.process.send_signal(signum)
        code = self.process.wait(seconds)
        left = until(lambda: not any(alive(p) for p in below), 5) or [p for p in below if alive(p)]
        assert left is True, f"processes left: {left}"
        assert self.run_dir and not os.path.exists(self.run_dir), self.run_dir
        assert not [f for f in os.listdir("/dev/shm") if any(str(p) in f for p in below)]
        return code

    def kill(self):
        """For a test that failed: nothing may disturb the next one."""
        for _ in range(2):  # the first drains, the second ends at once
            if self.process.poll() is None:
                self.process.terminate()
                time.sleep(0.2)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="session", params=list(LAYOUTS))
def server(request, binary):
    s = Server(binary, *LAYOUTS[request.param])
    yield s
    assert s.stop() == 0


@pytest.fixture(scope="session")
def server2(binary):
    """TP 2, for tests that do not depend on the layout."""
    s = Server(binary, *LAYOUTS["tp2"])
    yield s
    assert s.stop() == 0


@pytest.fixture
def start(binary):
    """start(*flags): a server of this test's own."""
    started = []

    def begin(*flags, **words):
        started.append(Server(binary, *flags, **words))
        return started[-1]
    yield begin
    for s in started:
        s.kill()
