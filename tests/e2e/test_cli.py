"""The commands: what they print and how they end."""
import json
import math
import os
import signal
import subprocess
import time

import pytest

from conftest import LAYOUTS, MODEL, ROOT, alive, children, until

GOLDEN = ROOT / "tests/golden"
# what a rank holds besides its plan: the program and its libraries 15 MiB, MPI, threads and headers of the checkpoint 4 to 7 MiB (measured)
PROCESS_BYTES = 28 << 20
F32 = ["--cache-type", "f32"]


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_generate_prints_one_object(cli, golden, layout):
    for case in golden[:2] + golden[-1:]:
        done = cli("generate", "--model", MODEL, *LAYOUTS[layout], *F32, "--prompt-ids", ",".join(map(str, case["prompt_ids"])),
                   "--temperature", 0, "--max-tokens", len(case["greedy_ids"]), "--logprobs", 2, "--json")
        (got,) = lines(done)
        assert got["ids"] == case["greedy_ids"] and got["text"] == case["greedy_text"]
        assert got["finish_reason"] == ("stop" if case["stopped"] else "length")
        assert [row["id"] for row in got["logprobs"]] == got["ids"]
        assert all(row["logprob"] == row["top"][0][1] and len(row["top"]) == 2 for row in got["logprobs"])
        assert got["usage"]["completion_tokens"] == len(got["ids"])
        assert {"queue_ms", "ttft_ms", "total_ms", "tokens_per_s"} <= set(got["timings"])
        tp, pp = {"tp1": (1, 1), "tp2": (2, 1), "tp2pp2": (2, 2)}[layout]
        assert got["layout"] == {"tp": tp, "pp": pp, "c": tp}


def test_generate_takes_text_files_chat_and_stops(cli, golden, tmp_path):
    hello = next(c for c in golden if c["name"] == "hello")
    done = cli("generate", "--model", MODEL, *F32, "--chat", "--prompt", "Hello", "--temperature", 0)
    assert done.returncode == 0 and done.stdout.rstrip("\n") == hello["greedy_text"]
    done = cli("generate", "--model", MODEL, *F32, "--chat", "--prompt-file", "-", "--temperature", 0, "--stop", "Ask", stdin="Hello")
    assert done.returncode == 0 and done.stdout.rstrip("\n") == "Hello! I am lexi. "
    plain = next(c for c in golden if c["name"] == "plain-beginning")
    path = tmp_path / "prompt"
    path.write_text(plain["prompt"].removeprefix("<｜begin▁of▁sentence｜>"))
    (got,) = lines(cli("generate", "--model", MODEL, *F32, "--prompt-file", path, "--temperature", 0, "--json"))
    assert got["ids"] == plain["greedy_ids"]
    sampled = [lines(cli("generate", "--model", MODEL, "--prompt", "In", "--seed", seed, "--temperature", 2, "--max-tokens", 20,
                         "--json"))[0]["ids"] for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_score_agrees_with_itself_and_with_its_logits(cli, golden, layout, tmp_path):
    case = next(c for c in golden if c["name"] == "plain-beginning")
    ids, out = case["prompt_ids"] + case["greedy_ids"], tmp_path / "logits.safetensors"
    (got,) = lines(cli("score", "--model", MODEL, *LAYOUTS[layout], *F32, "--ids", ",".join(map(str, ids)), "--logits", out))
    assert got["ids"] == ids and got["tokens"] == len(ids) and got["logprobs"][0] is None
    assert got["nll"] == pytest.approx(-sum(got["logprobs"][1:]) / (len(ids) - 1), rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(got["nll"]), rel=1e-5)
    data = out.read_bytes()
    head_bytes = int.from_bytes(data[:8], "little")
    info = json.loads(data[8:8 + head_bytes])["logits"]
    assert info["dtype"] == "F32" and info["shape"] == [len(ids), 8192]
    rows = memoryview(data[8 + head_bytes:]).cast("f")
    for i in (1, len(ids) - 1):  # row i - 1 predicts token i
        row = rows[(i - 1) * 8192:i * 8192].tolist()
        best = max(row)
        logprob = row[ids[i]] - best - math.log(sum(math.exp(x - best) for x in row))
        assert got["logprobs"][i] == pytest.approx(logprob, abs=2e-5)
    greedy = [max(range(8192), key=rows[i * 8192:(i + 1) * 8192].__getitem__) for i in range(len(case["prompt_ids"]) - 1, len(ids) - 1)]
    assert greedy == case["greedy_ids"]


def test_tokenize_gives_every_golden_id(cli):
    cases = json.loads((GOLDEN / "tokenizer/cases.json").read_text())["cases"]
    done = cli("tokenize", "--tokenizer", GOLDEN / "tokenizer/tokenizer.json", "--jsonl",
               stdin="".join(json.dumps({"text": c["text"]}) + "\n" for c in cases))
    got = lines(done)
    assert len(got) == len(cases) == 120
    for case, line in zip(cases, got):
        assert line["ids"] == case["ids"], case["text"]
        assert line["text"] == case["decoded"]


def test_tokenize_renders_every_golden_chat(cli):
    cases = json.loads((GOLDEN / "chat/cases.json").read_text())["cases"] + json.loads((GOLDEN / "chat/derived.json").read_text())["cases"]
    seen = 0
    for template in sorted({c["template"] for c in cases}):
        mine = [c for c in cases if c["template"] == template and c["ids"] is not None]
        if not mine:  # kimi-k2: the control tokens are not in this tokenizer
            continue
        got = lines(cli("tokenize", "--tokenizer", GOLDEN / "tokenizer/tokenizer.json", "--template", template, "--jsonl",
                        stdin="".join(json.dumps({"messages": c["messages"], **c["vars"]}) + "\n" for c in mine)))
        assert len(got) == len(mine)
        for case, line in zip(mine, got):
            assert line["text"] == case["rendered"], case["name"]
            assert line["ids"] == case["ids"], case["name"]
            seen += 1
    assert seen >= 45


def test_inspect_shows_the_model(cli):
    (plain,) = lines(cli("inspect", MODEL, "--json"))  # without --tp: as serve would choose
    assert plain["layout"]["tp"] >= 1 and len(plain["ranks"]) == plain["layout"]["tp"]
    text = cli("inspect", MODEL, "--tp", 2).stdout
    for word in ("deepseek_v3", "960 bytes a token", "latent 64"):
        assert word in text
    (got,) = lines(cli("inspect", MODEL, "--tp", 2, "--pp", 2, "--json"))
    assert got["model"]["heads"] == 8 and len(got["ranks"]) == 4
    assert sum(r["layers"][1] - r["layers"][0] for r in got["ranks"]) == 2 * got["model"]["layers"]


EXITS = [
    (64, ["frob"], "frob"),
    (64, ["generate", "--model", MODEL, "--tpp", "2"], "--tp"),
    (64, ["generate", "--model", MODEL, "--tp", "zero", "--prompt", "x"], "--tp"),
    (64, ["generate", "--model", MODEL, "--prompt", "x", "--prompt-ids", "1"], "prompt"),
    (64, ["generate", "--model", MODEL], "prompt"),
    (64, ["generate", "--model", MODEL, "--prompt-ids", "1,x"], "x"),
    (64, ["generate", "--prompt", "x"], "--model"),
    (64, ["generate", "--model", MODEL, "--prompt-ids", "9000"], "9000"),
    (66, ["generate", "--model", "/nonexistent", "--prompt", "x"], "/nonexistent"),
    (66, ["generate", "--model", MODEL, "--prompt-file", "/nonexistent"], "/nonexistent"),
    (66, ["serve", "--model", MODEL, "--api-key-file", "/nonexistent", "--port", "0"], "/nonexistent"),
    (78, ["generate", "--model", MODEL, "--tp", "9", "--prompt", "x"], "heads"),
    (78, ["generate", "--model", MODEL, "--pp", "7", "--prompt", "x"], "layers"),
    (78, ["generate", "--model", MODEL, "--tp", "4", "--cache-width", "3", "--prompt", "x"], "3"),
    (78, ["generate", "--model", MODEL, "--context", "4096", "--prompt", "x"], "4096"),
    (78, ["generate", "--model", GOLDEN / "v32-dsa", "--prompt-ids", "1"], "deepseek_v32"),
    (78, ["inspect", GOLDEN / "glm-dsa"], "glm"),
]


@pytest.mark.parametrize("i", range(len(EXITS)))
def test_refusals_have_their_exit_status_and_name_the_cause(cli, i):
    code, arguments, word = EXITS[i]
    done = cli(*arguments)
    assert done.returncode == code, done.stderr
    assert word in done.stderr and "Traceback" not in done.stderr


def test_help_and_version(cli):
    assert cli("--version").stdout.startswith("deeprack ")
    assert all(word in cli("--help").stdout for word in ("serve", "generate", "chat", "score", "tokenize", "inspect"))
    assert "--cache-width" in cli("serve", "--help").stdout


def test_generate_ends_with_69_when_the_cluster_dies(binary):
    process = subprocess.Popen([binary, "generate", "--model", str(MODEL), "--tp", "2", "--prompt", "x", "--ignore-eos",
                                "--max-tokens", "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1)  # it answers
    below = children(process.pid)
    workers = [p for p in below if open(f"/proc/{p}/comm").read().startswith("deeprack-worker")]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 69, errors
    assert until(lambda: not any(alive(p) for p in below), 5)


def test_an_interrupted_generate_leaves_nothing(binary):
    process = subprocess.Popen([binary, "generate", "--model", str(MODEL), "--tp", "2", "--prompt", "x", "--ignore-eos",
                                "--max-tokens", "2000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.read(1)
    below = children(process.pid)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10 and process.returncode != 0
    assert until(lambda: not any(alive(p) for p in below), 5)


def bench(cli, *flags):
    return cli("bench", "--model", MODEL, "--prompt-lengths", 16, "--gen-lengths", 8, "--batch", "1,2", "--reps", 2,
               "--context", 256, *flags)


def test_bench_measures_what_it_has_checked(cli, tmp_path):
    """Shapes and sums of a short bench; no figure is judged."""
    trace = tmp_path / "trace.json"
    reply = bench(cli, "--layouts", "tp=1;tp=2,pp=2", "--weights", "native,int8", "--depths", "0,16", "--step-tokens", 16,
                  "--format", "json", "--roofline", "--trace", trace)
    assert reply.returncode == 0, reply.stderr
    found = json.loads(reply.stdout)
    assert found["machine"]["cores"] >= 1 and found["version"] and "commit" in found and found["reps"] == 2
    assert [(c["layout"]["tp"], c["layout"]["pp"], c["weights"]) for c in found["clusters"]] == [
        (1, 1, "native"), (1, 1, "int8"), (2, 2, "native"), (2, 2, "int8")]
    for cluster in found["clusters"]:
        assert cluster["arithmetic"]["precision"] == "fast" and cluster["arithmetic"]["inputs"]
        assert cluster["cache_bytes_per_token"] == 960
        assert cluster["probe"]["read_bytes_per_s"] > 0 and cluster["probe"]["f32_flop_per_s"] > 0
        for m in cluster["memory"]:
            assert 0 < m["weights_bytes"] < m["planned_bytes"]
            assert m["weights_bytes"] < m["peak_bytes"] < 1.02 * m["planned_bytes"] + PROCESS_BYTES
        names = [c["test"] for c in cluster["cases"]]
        assert names == ["pp16", "pp16, 2 sequences", "tg8", "tg8, 2 sequences", "pp16 @ 16", "tg8 @ 16", "tg8 @ 16, 2 sequences"]
        for case in cluster["cases"]:
            rate = case["tokens_per_s"]
            assert 0 < rate["min"] <= rate["median"] <= rate["max"] and len(rate["all"]) == 2
            assert len(case["digest"]) == 16 and case["steps"] >= 1
            assert abs(sum(case["parts_ms"].values()) - case["ms_per_step"]) < 1e-3 * case["ms_per_step"]
            assert len(case["ranks"]) == len(cluster["memory"])
            for rank in case["ranks"]:
                assert abs(sum(rank["parts_ms"].values()) - rank["ms_per_step"]) < 1e-3 * rank["ms_per_step"]
            assert case["per_step"]["weight_bytes"] > 1e6 and case["roofline"]["predicted_tokens_per_s"] > 0
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["tid"] for e in events if e["ph"] == "X"} == {0, 1, 2, 3, 4}  # the coordinator and four ranks
    steps = [e for e in events if e["ph"] == "X" and "step" in e["name"]]
    assert min(e["dur"] for e in steps) > 0


def test_bench_prints_markdown_and_a_table(cli):
    reply = bench(cli, "--format", "markdown", "--warmup", 0, "--prompt-lengths", 0)
    assert reply.returncode == 0, reply.stderr
    rows = [line for line in reply.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 and len({row.count("|") for row in rows}) == 1
    assert "predicted" not in rows[0] and "tokens/s" in rows[0]
    reply = bench(cli, "--roofline", "--gen-lengths", 0)
    assert reply.returncode == 0, reply.stderr
    assert "of predicted" in reply.stdout and "pp16, 2 sequences" in reply.stdout
    reply = bench(cli, "--trace", "/nowhere/trace.json")
    assert reply.returncode == 74 and "--trace /nowhere/trace.json" in reply.stderr
