"""What a server does under load: a shared system prompt, and more requests than it can serve.

    BUILD/e2e-venv/bin/python tests/bench/serving.py BUILD shared              # 64 requests at once with 1,920 tokens in common, reuse off and any, in turns
    BUILD/e2e-venv/bin/python tests/bench/serving.py BUILD overload [SECONDS]  # arrivals at capacity, then four times as many

In:   a build folder; the sample model.      Out: lines of figures.
Why:  nothing here is judged: machines differ. tests/e2e holds what must be true by value.
"""
import asyncio
import os
import pathlib
import random
import statistics
import sys
import time

import httpx2 as httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from conftest import Server, children  # noqa: E402


def words(seed, n):
    return [(seed * 7919 + i * 104729 + i * i * 31) % 8000 + 10 for i in range(n)]


def quantile(values, q):
    return sorted(values)[int(q * (len(values) - 1))] if values else float("nan")


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
    total = 0
    for pid in [server.process.pid, *children(server.process.pid)]:
        try:
            total += next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            pass
    return total / 1024


async def arrivals(server, rate, seconds, memory):
    """Poisson arrivals of prompts of 20 to 100 tokens and answers of 16 to 64; all results."""
    tasks, dice, end = [], random.Random(1), time.monotonic() + seconds
    async with client() as c:
        due = time.monotonic()
        while due < end:
            await asyncio.sleep(max(0, due - time.monotonic()))
            tasks.append(asyncio.create_task(ask(c, server.url(), words(len(tasks), dice.randint(20, 100)), dice.randint(16, 64))))
            due += dice.expovariate(rate)
            if len(tasks) % 200 == 0:
                memory.append(resident(server))
        return await asyncio.gather(*tasks)


async def closed_loop(server, n, seconds):
    """Requests a second that n clients get served who ask without a pause."""
    done, end, dice = 0, time.monotonic() + seconds, random.Random(2)

    async def one(c, i):
        nonlocal done
        while time.monotonic() < end:
            await ask(c, server.url(), words(10000 + done * 64 + i, dice.randint(20, 100)), dice.randint(16, 64))
            done += 1
    async with client() as c:
        await asyncio.gather(*(one(c, i) for i in range(n)))
    return done / seconds


def say(name, found, memory):
    served = [s for status, s in found if status == 200]
    refused = [s for status, s in found if status == 429]
    other = [status for status, _ in found if status not in (200, 429)]
    print(f"{name}: {len(served)} served, first token median {quantile(served, 0.5):.2f} s, 99 % {quantile(served, 0.99):.2f} s; {len(refused)} refused, "
          f"median {1000 * quantile(refused, 0.5):.0f} ms, 99 % {1000 * quantile(refused, 0.99):.0f} ms; {len(other)} others; "
          f"memory {min(memory, default=0):.0f} to {max(memory, default=0):.0f} MiB", flush=True)
    return quantile(served, 0.99)


def overload(binary, seconds):
    server = Server(binary, "--seqs-max", "16")
    rate = asyncio.run(closed_loop(server, 16, 20))
    print(f"capacity: {rate:.1f} requests a second", flush=True)
    memory = []
    at = say("at capacity", asyncio.run(arrivals(server, rate, seconds, memory)), memory)
    memory = []
    over = say("four times", asyncio.run(arrivals(server, 4 * rate, seconds, memory)), memory)
    print(f"99 % of the first tokens: {over / at:.2f} times those at capacity")
    server.stop()


if __name__ == "__main__":
    program = os.path.join(sys.argv[1], "bin", "deeprack")
    if sys.argv[2] == "shared":
        shared(program)
    else:
        overload(program, float(sys.argv[3]) if len(sys.argv) > 3 else 120)
