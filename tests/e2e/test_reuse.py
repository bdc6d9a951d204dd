"""Prefixes: what is found again, for whom, and how much work it saves; the cache cut along the sequence."""
import concurrent.futures
import json
import subprocess

import pytest

from conftest import MODEL, ROOT, until

PAGE = 64


def words(seed, n):
    """n ids that no other seed begins with."""
    return [(seed * 7919 + i * 104729 + i * i * 31) % 8000 + 10 for i in range(n)]


def complete(client, ids, n=8, **body):
    reply = client.completions.create(model="lexi-15m", prompt=ids, max_tokens=n, temperature=0, seed=1,
                                      extra_body={"ignore_eos": True, "return_token_ids": True, **body})
    return reply.choices[0].model_extra["token_ids"], reply.usage.prompt_tokens_details.cached_tokens


def test_a_prompt_is_found_again(server):
    client = server.client()
    ids = words(1, 300)
    first, cached = complete(client, ids)
    assert cached == 0
    again, cached = complete(client, ids)
    assert again == first and cached == 300 // PAGE * PAGE
    longer, cached = complete(client, ids + words(2, 50))
    assert cached == 300 // PAGE * PAGE and len(longer) == 8
    _, cached = complete(client, ids[:128])  # the last token is always computed
    assert cached == PAGE


def test_an_answer_is_found_by_the_next_turn(server):
    client = server.client()
    ids = words(3, 100)
    answer, _ = complete(client, ids, n=60)
    _, cached = complete(client, ids + answer + words(4, 30))
    assert cached == 128  # 159 rows are in the cache: two whole pages


def test_salts_and_resets(server):
    client = server.client()
    ids = words(5, 200)
    assert complete(client, ids)[1] == 0
    assert complete(client, ids, cache_salt="a")[1] == 0
    assert complete(client, ids, cache_salt="b")[1] == 0
    assert complete(client, ids, cache_salt="a")[1] == 192
    assert complete(client, ids)[1] == 192
    import urllib.request
    with urllib.request.urlopen(urllib.request.Request(server.url("/reset_prefix_cache"), method="POST"), timeout=10) as reply:
        assert reply.status == 200
    assert complete(client, ids)[1] == 0
    assert server.get("/reset_prefix_cache")[0] == 405


def test_keys_do_not_share(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alpha\nbeta\n")
    s = start("--tp", "2", "--api-key-file", str(keys))
    ids = words(6, 200)
    assert complete(s.client(api_key="alpha"), ids)[1] == 0
    assert complete(s.client(api_key="beta"), ids)[1] == 0
    assert complete(s.client(api_key="alpha"), ids)[1] == 192
    assert s.stop() == 0


@pytest.mark.parametrize("reuse", ["exact", "off"])
def test_other_ways_of_reuse(start, reuse):
    s = start("--tp", "2", "--reuse", reuse)
    client = s.client()
    ids = words(7, 200)
    first, _ = complete(client, ids, n=70)
    again, cached = complete(client, ids, n=70)
    assert again == first and cached == (192 if reuse == "exact" else 0)
    _, cached = complete(client, ids + again)
    assert cached == (192 if reuse == "exact" else 0)  # rows of the answer count as others than a prompt's
    assert s.stop() == 0


def test_a_shared_system_prompt_is_computed_once(start):
    """64 requests at once with 1,920 tokens in common: the cluster computes those once."""
    s = start("--tp", "1", "--seqs-max", "32", "--pages", "1100")
    client = s.client()
    system = words(8, 1920)
    prompts = [system + words(100 + i, 40) for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda p: complete(client, p, n=4), prompts))
    unique = len(system) + sum(len(p) - len(system) for p in prompts)
    assert until(lambda: s.metric("deeprack_prompt_tokens_computed_total") >= unique, 5)  # told once a second
    assert s.metric("deeprack_prompt_tokens_computed_total") <= 1.05 * unique
    assert sum(cached for _, cached in found) == s.metric("vllm:prefix_cache_hits_total") == 63 * 1920
    alone = {i: complete(client, prompts[i], n=4, cache_salt=f"alone {i}")[0] for i in (0, 31, 63)}
    assert all(found[i][0] == ids for i, ids in alone.items())
    assert s.stop() == 0


def test_a_cut_cache_is_a_part_on_each_rank(start):
    """The same pages, c = 1 and c = T: each rank holds 1/T."""
    bytes_of = {}
    for c in (1, 2):
        s = start("--tp", "2", "--cache-width", str(c), "--pages", "96")
        bytes_of[c] = [s.metric("deeprack_rank_memory_bytes", f'rank="{r}",kind="cache"') for r in range(2)]
        assert s.stop() == 0
    assert bytes_of[1] == [2 * b for b in bytes_of[2]]


def plan(cli, *arguments):
    reply = cli("plan", *arguments, "--json")
    return reply, json.loads(reply.stdout) if reply.stdout else None


@pytest.mark.parametrize("name,layers", [("v3", 61), ("kimi-k2", 61), ("v2-lite", 27)])
def test_plan_needs_no_checkpoint(cli, name, layers):
    config = ROOT / f"tests/golden/configs/{name}.json"
    reply, found = plan(cli, config, "--hosts", 8, "--memory", "256G" if name != "kimi-k2" else "512G", "--context", 32768)
    assert reply.returncode == 0, reply.stderr
    assert found["hosts"] == 8 and {r["tp"] * r["pp"] for r in found["layouts"]} == {8}
    best = found["layouts"][0]
    assert best["fits"] and best["tokens"] >= 32768 and best["sequences"] >= 1
    total = best["weights_bytes"] + best["workspace_bytes"] + best["collective_bytes"] + best["cache_bytes"]
    assert total <= found["rank_bytes"]
    table = cli("plan", config, "--hosts", 8, "--memory", "512G", "--context", 32768)
    assert table.returncode == 0 and "sequences" in table.stdout
    small, found = plan(cli, config, "--hosts", 1, "--memory", "4G", "--context", 32768)
    assert small.returncode == 78 and "weights take" in small.stderr
    assert not any(r["fits"] for r in found["layouts"])


def test_plan_is_what_a_server_takes(cli, start):
    reply, found = plan(cli, MODEL, "--hosts", 2, "--memory", "64M", "--cache-type", "f32", "--seqs-max", 8)
    assert reply.returncode == 0, reply.stderr
    row = next(r for r in found["layouts"] if r["tp"] == 2)
    s = start("--tp", "2", "--seqs-max", "8", "--pages", str(row["pages"]))
    for rank in range(2):
        for kind in ("weights", "cache"):
            assert s.metric("deeprack_rank_memory_bytes", f'rank="{rank}",kind="{kind}"') <= row[f"{kind}_bytes"]
    most = max(s.metric("deeprack_rank_memory_bytes", f'rank="{r}",kind="weights"') for r in range(2))
    assert most == row["weights_bytes"]
    assert s.metric("deeprack_pages") == row["pages"]
    assert s.stop() == 0


def test_a_server_refuses_what_does_not_fit(binary):
    reply = subprocess.run([binary, "serve", "--model", str(MODEL), "--cache-memory", "64K"], capture_output=True, text=True)
    assert reply.returncode == 78 and "cache may take" in reply.stderr
