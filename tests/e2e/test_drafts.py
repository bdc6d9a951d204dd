"""Drafts: answers are the same with and without them, on stages and on a cut cache; usage and metrics say what came of them."""
import concurrent.futures

import pytest

from conftest import LAYOUTS

PROMPTS = ["What is a lighthouse?", "Define run.", "In the beginning", "Use the word river in a sentence."]
WISHES = [
    dict(temperature=0),
    dict(temperature=0.8, seed=5, top_p=0.9, logprobs=True, top_logprobs=3),
    dict(temperature=1.1, seed=6, extra_body=dict(top_k=40, min_p=0.02)),
    dict(temperature=0.7, seed=7, frequency_penalty=0.6, presence_penalty=0.3, extra_body=dict(repetition_penalty=1.1)),
    dict(temperature=0, stop=[" a "]),
    dict(temperature=0.9, seed=8, n=2),
]


def ask(client, prompt, wish, most=48):
    wish = dict(wish, extra_body=dict(wish.get("extra_body", {}), return_token_ids=True))
    return client.chat.completions.create(model="lexi-15m", messages=[{"role": "user", "content": prompt}], max_tokens=most, **wish)


def told(reply):
    """What must be equal: everything but names, times and what drafts did."""
    return [(c.message.content, c.finish_reason, c.model_extra["token_ids"],
             [(t.token, t.logprob, [(o.token, o.logprob) for o in t.top_logprobs]) for t in c.logprobs.content] if c.logprobs else None)
            for c in reply.choices], reply.usage.completion_tokens


@pytest.mark.parametrize("layout, drafts", [("tp2pp2", "3"), ("tp2", "auto"), ("pp3", "1")])
def test_answers_are_the_same_with_drafts(start, layout, drafts):
    flags = dict(LAYOUTS, pp3=["--pp", "3"])[layout]
    cases = [(p, w) for p in PROMPTS for w in WISHES]
    answers = []
    for extra in ([], ["--drafts", drafts]):
        s = start(*flags, *extra)
        client = s.client()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:  # side by side, in steps of changing company
            replies = list(pool.map(lambda c: ask(client, *c), cases))
        answers.append([told(r) for r in replies])
        details = [r.usage.completion_tokens_details for r in replies]
        accepted = sum(d.accepted_prediction_tokens for d in details)
        proposed = accepted + sum(d.rejected_prediction_tokens for d in details)
        assert s.metric("vllm:spec_decode_num_draft_tokens_total") == proposed
        assert s.metric("vllm:spec_decode_num_accepted_tokens_total") == accepted
        if not extra:
            assert proposed == 0 and all("drafted_by_position" not in d.model_extra for d in details)
        elif drafts != "auto":  # auto may find that they do not pay here
            by_place = [d.model_extra["accepted_by_position"] for d in details if "accepted_by_position" in d.model_extra]
            assert accepted > 0 and sum(map(sum, by_place)) == accepted and max(map(len, by_place)) == int(drafts)
            first = sum(p[0] for p in by_place)
            assert s.metric("vllm:spec_decode_num_accepted_tokens_per_pos_total", 'position="0"') == first
            assert accepted > 0.3 * s.metric("vllm:spec_decode_num_drafts_total")
        assert s.stop() == 0
    assert answers[0] == answers[1]


def test_a_stream_and_a_prefix_with_drafts(start, golden):
    s = start("--tp", "2", "--drafts", "2")
    client = s.client()
    case = next(c for c in golden if c["name"] == "is-lighthouse")
    parts = list(client.chat.completions.create(model="lexi-15m", messages=case["messages"], max_tokens=64, temperature=0, stream=True,
                                                stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == case["greedy_text"]
    assert parts[-1].usage.completion_tokens_details.accepted_prediction_tokens > 0
    ids = [i % 8000 + 10 for i in range(7, 307)]
    found = [client.completions.create(model="lexi-15m", prompt=ids, max_tokens=40, temperature=0, extra_body={"return_token_ids": True})
             for _ in range(2)]
    assert found[0].choices[0].model_extra["token_ids"] == found[1].choices[0].model_extra["token_ids"]
    assert found[1].usage.prompt_tokens_details.cached_tokens == 4 * 64 - 1  # the last row found runs again, for the drafts' sake
    assert s.stop() == 0
