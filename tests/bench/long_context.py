"""A prompt of 131,072 tokens, its answer and its memory: on one rank, on TP 2 with the cache cut in two, on PP 2.

    BUILD/e2e-venv/bin/python tests/bench/long_context.py BUILD [TOKENS [CACHE-TYPE]]     # 131072 f32

In:   a build folder; the golden case v3-fp8.      Out: a Markdown table; status 1 when ids or memory are not as they must be: memory
      always, ids with f32, which means exact arithmetic, too (other types round, and how depends on the layout).
Why:  what grows with the context (pages, chunks, deadlines, exchanges, the plan of memory) is right only if it is right at that size.
      Times are not judged. tests/e2e/test_long.py runs the same at 16,384 tokens.
"""
import http.client
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from conftest import ROOT, Server  # noqa: E402

MIB = 1 << 20
CASE = ROOT / "tests/golden/v3-fp8"
POSITIONS = 163840
ANSWER = 64  # tokens
LAYOUTS = {
    "TP 1": ["--tp", "1"],
    "TP 2, c 2": ["--tp", "2", "--cache-width", "2"],
    "PP 2": ["--tp", "1", "--pp", "2"],
}


def make_model(folder):
    """The case's weights with 160K positions, rotated as in DeepSeek-V3: YaRN 40 from 4,096."""
    config = json.loads((CASE / "config.json").read_text())
    scaling = config["rope_scaling"]
    scaling["original_max_position_embeddings"] = POSITIONS // scaling["factor"]
    config["max_position_embeddings"] = POSITIONS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for path in CASE.glob("model*"):
        shutil.copy(path, folder)
    return folder


def make_prompt(n, seed=1):
    """Random ids; 0 and 1 are the begin and end tokens of the case."""
    dice = random.Random(seed)
    return [dice.randrange(2, 512) for _ in range(n)]


def ask(server, prompt, answer=ANSWER):
    """ids, logprobs, the lead of each id over the second best; seconds to the first token and from there to the last."""
    body = {"prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 2,
            "return_tokens_as_token_ids": True, "stream_options": {"include_usage": True}}
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3600)
    out = {"ids": [], "logprobs": [], "leads": [], "usage": None}
    begin, first = time.monotonic(), None
    link.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = link.getresponse()
    assert reply.status == 200, f"expected an answer, found status {reply.status}: {reply.read().decode()[:500]}"
    for line in reply:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        assert "error" not in event, f"the answer ended with {event['error']}; log:\n{server.log()}"
        out["usage"] = event.get("usage") or out["usage"]
        for choice in event["choices"]:
            marks = choice["logprobs"] or {"tokens": []}
            if marks["tokens"] and first is None:
                first = time.monotonic()
            for i, token in enumerate(marks["tokens"]):
                best, second = sorted(marks["top_logprobs"][i].values(), reverse=True)[:2]
                out["ids"].append(int(token.removeprefix("token_id:")))
                out["logprobs"].append(marks["token_logprobs"][i])
                out["leads"].append(best - second)
    link.close()
    assert len(out["ids"]) == answer, f"expected {answer} tokens, found {len(out['ids'])}; log:\n{server.log()}"
    return out | {"prefill_s": first - begin, "decode_s": time.monotonic() - first}


def planned(binary, model, flags):
    """Bytes of each rank by model/footprint."""
    done = subprocess.run([binary, "inspect", str(model), *flags, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [rank["total_bytes"] for rank in json.loads(done.stdout)["ranks"]]


def files_bytes(pid):
    """Resident pages of programs and libraries as they are on the disk: every process of the machine shares them."""
    total, private = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ ...(.) \S+ \S+ (\d+)", line)
        if head:
            private = head[1] == "p" and head[2] != "0"
        elif private and line.startswith(("Rss:", "Anonymous:")):
            total += int(line.split()[1]) << 10 if line[0] == "R" else -(int(line.split()[1]) << 10)
    return total


def measured(server):
    """Of each rank: (most bytes ever resident but for pages of programs' files, these pages)."""
    found = []
    for rank in sorted(server.ready()["ranks"], key=lambda r: r["rank"]):
        files = files_bytes(rank["pid"])
        peak = next(int(line.split()[1]) << 10 for line in open(f"/proc/{rank['pid']}/status") if line.startswith("VmHWM"))
        found.append((peak - files, files))
    return found


def as_planned(plan, bytes_):
    return abs(bytes_ - plan) <= 0.02 * plan + 16 * MIB


def play(binary, model, prompt, layout, cache="f32", more=()):
    """One layout: the answer, those to the prompts `more` that come after it, and the memory at the end. The cache has room for one of them."""
    flags = [*LAYOUTS[layout], "--cache-type", cache, "--seqs-max", "1", "--context", str(len(prompt) + ANSWER)]
    plan = planned(binary, model, flags)
    server = Server(binary, "--model", str(model), "--precision", "f32" if cache == "f32" else "fast", *flags)
    try:
        found = ask(server, prompt)
        found["more"] = [ask(server, other) for other in more]
        memory = measured(server)
    except BaseException:
        server.kill()
        raise
    assert server.stop() == 0
    assert len(plan) == len(memory)
    found["memory"] = [{"planned": p, "measured": m, "files": f, "good": as_planned(p, m)} for p, (m, f) in zip(plan, memory)]
    return found


def say(layout, n, found, first):
    def each(name):
        return ", ".join(f"{rank[name] / MIB:.1f}" for rank in found["memory"])
    same = found["ids"] == first["ids"]
    apart = max(abs(a - b) for a, b in zip(found["logprobs"], first["logprobs"]))
    over = ", ".join(f"{(rank['measured'] - rank['planned']) / MIB:+.1f}" for rank in found["memory"])
    print(f"| {layout} | {n:,} | {found['prefill_s']:.1f} | {n / found['prefill_s']:.0f} | {(ANSWER - 1) / found['decode_s']:.1f} | {each('planned')} | "
          f"{each('measured')} | {over} | {each('files')} | {'equal' if same else 'differ'} | {apart:.1e} | {min(found['leads']):.1e} |", flush=True)
    return same


def main(build, n, cache):
    binary, prompt, first, good = str(pathlib.Path(build) / "bin/deeprack"), make_prompt(n), None, True
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(pathlib.Path(folder) / "long")
        print("| layout | prompt tokens | prefill, s | tokens/s | decode, tokens/s | planned, MiB a rank | measured | above the plan | files of programs | "
              "ids | log-probabilities apart | least lead |\n" + "|---" * 12 + "|", flush=True)
        for layout in LAYOUTS:
            found = play(binary, model, prompt, layout, cache)
            first = first or found
            same = say(layout, n, found, first)
            good = good and (same or cache != "f32") and all(rank["good"] for rank in found["memory"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 131072, sys.argv[3] if len(sys.argv) > 3 else "f32"))
