"""What a server does under load: a shared system prompt, and more requests than it can serve.

    BUILD/e2e-venv/bin/python tests/bench/serving.py BUILD shared              # 64 requests at once with 1,920 tokens in common, reuse off and any, in turns
    BUILD/e2e-venv/bin/python tests/bench/serving.py BUILD overload [SECONDS]  # arrivals at capacity, then four times as many

In:   a build folder; the sample model.      Out: lines of figures.
Why:  nothing here is judged: machines differ. tests/e2e holds what must be true by value.
"""
import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import httpx2 as httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from conftest import Server, children  # noqa: E402


def words(seed, n):
    return [(seed * 7919 + i * 104729 + i * i * 31) % 8000 + 10 for i in range(n)]


async def ask(client, url, ids, n):
    """(status, seconds to the first token or to the refusal)"""
    body = {"model": "lexi-15m", "prompt": ids, "max_tokens": n, "temperature": 0, "stream": True, "ignore_eos": True}
    begin = time.monotonic()
    async with client.stream("POST", url + "/v1/completions", json=body) as reply:
        if reply.status_code != 200:
            await reply.aread()
            return reply.status_code, time.monotonic() - begin
        first = None
        async for line in reply.aiter_lines():
            if first is None and line.startswith("data: {"):
                first = time.monotonic() - begin
        return 200, first


def client():
    return httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=2000, max_keepalive_connections=200))


async def shared_once(server):
    system = words(8, 1920)
    async with client() as c:
        found = await asyncio.gather(*(ask(c, server.url(), system + words(100 + i, 40), 4) for i in range(64)))
    assert all(status == 200 for status, _ in found), found
    return [seconds for _, seconds in found]


def shared(binary):
    times = {"off": [], "any": []}
    for _ in range(3):
        for reuse in times:
            server = Server(binary, "--reuse", reuse, "--seqs-max", "64")
            times[reuse] += asyncio.run(shared_once(server))
            time.sleep(1.5)  # counters come once a second
            computed = server.metric("deeprack_prompt_tokens_computed_total")
            server.stop()
            print(f"reuse {reuse}: {computed:.0f} prompt tokens computed of {64 * 1960} ({64 * 40 + 1920} different); time to first token "
                  f"median {statistics.median(times[reuse][-64:]):.2f} s, last {max(times[reuse][-64:]):.2f} s", flush=True)
    print(f"median of {len(times['any'])}: {statistics.median(times['off']) / statistics.median(times['any']):.1f} times sooner with reuse")


def resident(server):
    """MiB of each program."""
    found = {}
    for pid in [server.process.pid, *children(server.process.pid)]:
        try:
            lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
        except OSError:
            continue
        name = lines["Name"].strip()
        found[name] = found.get(name, 0) + int(lines["VmRSS"].split()[0]) / 1024
    return found


def load(client, server, seconds, *words):
    """What the client found, and the memory at the start, in the middle and at the end of its arrivals."""
    memory = [resident(server)]
    process = subprocess.Popen([client, str(server.port), *map(str, words), str(seconds), "1"], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        time.sleep(seconds / 2)
        memory.append(resident(server))
    return json.loads(process.communicate()[0]), memory


def say(name, found, memory):
    def line(what):
        v = found[what]
        return f"{v['n']} {what}" + (", " + ", ".join(f"{k} {v[k]:.1f}" for k in ("p50", "p99", "p999", "max")) + " ms" if v["n"] else "")
    print(f"{name}: {line('served')}; {line('refused')}; {found['others']} others; client at most {found['late_ms']:.1f} ms late")
    for program in memory[0]:
        print(f"  {program}: " + ", ".join(f"{m.get(program, 0):.1f}" for m in memory) + " MiB at start, middle, end", flush=True)


def overload(binary, seconds):
    client = os.path.join(os.path.dirname(binary), "bench-arrivals")
    server = Server(binary, "--seqs-max", "16")
    found, _ = load(client, server, 20, "clients", 64)  # more than slots: somebody waits at any time
    rate = found["served"]["n"] / found["seconds"]
    print(f"capacity: {rate:.1f} requests a second", flush=True)
    at, memory = load(client, server, seconds, "rate", rate)
    say("at capacity", at, memory)
    over, memory = load(client, server, seconds, "rate", 4 * rate)
    say("four times", over, memory)
    print(f"99 % of the first tokens: {over['served']['p99'] / at['served']['p99']:.2f} times those at capacity")
    server.stop()


if __name__ == "__main__":
    program = os.path.join(sys.argv[1], "bin", "deeprack")
    if sys.argv[2] == "shared":
        shared(program)
    else:
        overload(program, float(sys.argv[3]) if len(sys.argv) > 3 else 120)
