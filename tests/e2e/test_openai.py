"""The real `openai` client against every layout; answers must be the golden ones."""
import json
import threading

import openai
import pytest

from conftest import MODEL, until

GREEDY = {"temperature": 0, "seed": 1}


def chats(golden):
    return [c for c in golden if "messages" in c]


def ask(client, case, **words):
    return client.chat.completions.create(model="lexi-15m", messages=case["messages"],
                                          max_tokens=len(case["greedy_ids"]), **GREEDY, **words)


def stream_text(stream):
    """Text, finish reason and usage of a stream, with the order of its chunks checked."""
    text, finish, usage, first = "", None, None, True
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        if not chunk.choices:
            assert finish and usage is None
            usage = chunk.usage
            continue
        assert usage is None and finish is None
        choice = chunk.choices[0]
        if first:
            assert choice.delta.role == "assistant" and choice.delta.content == ""
            first = False
            continue
        assert choice.delta.role is None
        text += choice.delta.content or ""
        finish = choice.finish_reason
    return text, finish, usage


def test_plain_answers_are_golden(server, golden):
    client = server.client()
    for case in chats(golden):
        reply = ask(client, case, extra_body={"return_token_ids": True})
        choice = reply.choices[0]
        assert choice.message.content == case["greedy_text"]
        assert choice.message.role == "assistant"
        assert choice.model_extra["token_ids"] == case["greedy_ids"]
        assert reply.model_extra["prompt_token_ids"] == case["prompt_ids"]
        assert choice.finish_reason == ("stop" if case["stopped"] else "length")
        assert reply.usage.prompt_tokens == len(case["prompt_ids"])
        assert reply.usage.completion_tokens == len(case["greedy_ids"])
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
        assert reply.id.startswith("chatcmpl-") and reply.model == "lexi-15m"


def test_streams_are_golden(server, golden):
    client = server.client()
    for case in chats(golden):
        text, finish, usage = stream_text(ask(client, case, stream=True, stream_options={"include_usage": True}))
        assert text == case["greedy_text"]
        assert finish == ("stop" if case["stopped"] else "length")
        assert usage.completion_tokens == len(case["greedy_ids"])
        assert usage.prompt_tokens == len(case["prompt_ids"])


def test_completions_of_texts_and_ids_are_golden(server, golden):
    client = server.client()
    for case in golden:
        words = {"model": "lexi-15m", "max_tokens": len(case["greedy_ids"]), **GREEDY}
        assert client.completions.create(prompt=case["prompt_ids"], **words).choices[0].text == case["greedy_text"]
    plain = [c for c in golden if "messages" not in c]
    reply = client.completions.create(model="lexi-15m", prompt=[c["prompt"] for c in plain], max_tokens=7, **GREEDY)
    for case, choice in zip(plain, reply.choices):
        assert case["greedy_text"].startswith(choice.text)
    assert reply.usage.prompt_tokens == sum(len(c["prompt_ids"]) for c in plain)


def test_sixteen_streams_at_once_are_each_the_answer_alone(server, golden):
    client = server.client()
    cases = (chats(golden) * 2)[:16]
    answers = [None] * len(cases)

    def one(i):
        answers[i] = stream_text(ask(client, cases[i], stream=True))[0]
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(cases))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [c["greedy_text"] for c in cases]


def test_log_probabilities_belong_to_the_tokens(server, golden):
    case = chats(golden)[0]
    reply = ask(server.client(), case, logprobs=True, top_logprobs=5)
    content = reply.choices[0].logprobs.content
    assert len(content) == len(case["greedy_ids"])
    for token in content:
        best = token.top_logprobs[0]
        assert len(token.top_logprobs) == 5
        assert (token.token, token.logprob) == (best.token, best.logprob)  # greedy: the likeliest
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        assert token.logprob <= 0
    text = b"".join(bytes(t.bytes) for t in content[:-1])
    assert text.decode() == case["greedy_text"]


def test_echo_scores_the_prompt_as_score_does(server, golden, cli):
    case = next(c for c in golden if c["name"] == "plain-beginning")
    reply = server.client().completions.create(model="lexi-15m", prompt=case["prompt_ids"], max_tokens=0, echo=True, logprobs=1)
    got = reply.choices[0].logprobs.token_logprobs
    ready = server.ready()["layout"]
    scored = cli("score", "--model", MODEL, "--ids", ",".join(map(str, case["prompt_ids"])), "--cache-type", "f32",
                 "--tp", ready["tp"], "--pp", ready["pp"])
    want = json.loads(scored.stdout)["logprobs"]
    assert got[0] is None and want[0] is None and len(got) == len(want) == len(case["prompt_ids"])
    assert got[1:] == pytest.approx(want[1:], abs=1e-5)


def test_choices_differ_by_seed_and_repeat_by_seed(server):
    client = server.client()
    words = {"model": "lexi-15m", "messages": [{"role": "user", "content": "Tell me a word."}], "max_tokens": 12,
             "temperature": 1.5, "top_p": 1, "n": 2}
    first, again = (client.chat.completions.create(seed=5, **words) for _ in range(2))
    texts = [c.message.content for c in first.choices]
    assert [c.index for c in first.choices] == [0, 1] and texts[0] != texts[1]
    assert texts == [c.message.content for c in again.choices]
    assert texts != [c.message.content for c in client.chat.completions.create(seed=6, **words).choices]
    streamed = ["", ""]
    for chunk in client.chat.completions.create(seed=5, stream=True, **words):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_stop_strings_cut_across_tokens(server, golden):
    client, case = server.client(), chats(golden)[0]
    assert case["greedy_text"].startswith("A lighthouse is a tower with")
    for stop, text in [("wer wi", "A lighthouse is a to"), (["zzz", " is"], "A lighthouse"), (["A"], "")]:
        reply = ask(client, case, stop=stop)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, "stop")
        assert reply.usage.completion_tokens < len(case["greedy_ids"])
        assert stream_text(ask(client, case, stop=stop, stream=True))[:2] == (text, "stop")
    kept = ask(client, case, stop="tower", extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].message.content == "A lighthouse is a tower"


def test_a_client_that_goes_away_frees_the_cluster(server):
    client = server.client()
    before = server.metric("deeprack_requests_cancelled_total")
    stream = client.chat.completions.create(model="lexi-15m", messages=[{"role": "user", "content": "Hello"}], stream=True,
                                            temperature=0, max_tokens=2000, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert until(lambda: server.metric("vllm:num_requests_running") == 1, 3)
    stream.close()
    client.close()
    assert until(lambda: server.metric("vllm:num_requests_running") == 0, 3)
    assert server.metric("deeprack_requests_cancelled_total") == before + 1
    assert server.metric("vllm:kv_cache_usage_perc") == 0


def test_models_errors_and_usage_metrics(server):
    client = server.client()
    models = client.models.list().data
    assert [m.id for m in models] == ["lexi-15m"] and models[0].model_extra["max_model_len"] == 2048
    assert client.models.retrieve("lexi-15m").id == "lexi-15m"
    message = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="other", messages=message)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="lexi-15m", messages=message, tools=[{"type": "function", "function": {"name": "f"}}])
    assert error.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="lexi-15m", prompt=[5] * 2048)
    assert error.value.code == "context_length_exceeded" and "2048" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="lexi-15m", messages=[{"role": "user", "content": "word " * 3000}])
    assert error.value.param == "messages" and error.value.code == "context_length_exceeded"
    before = server.metric("vllm:generation_tokens_total")
    reply = client.completions.create(model="lexi-15m", prompt="In the", max_tokens=3, temperature=0)
    assert server.metric("vllm:generation_tokens_total") == before + reply.usage.completion_tokens


def test_a_long_prompt_is_prefilled_in_parts_and_clipped(server):
    """2,046 prompt tokens (several steps) leave room for two."""
    reply = server.client().completions.create(model="lexi-15m", prompt=[35 + i % 500 for i in range(2046)], max_tokens=50,
                                               temperature=0, extra_body={"ignore_eos": True})
    assert reply.usage.prompt_tokens == 2046 and reply.usage.completion_tokens == 2
    assert reply.choices[0].finish_reason == "length"


def test_raw_headers_and_request_id(server):
    reply = server.client().chat.completions.with_raw_response.create(
        model="lexi-15m", messages=[{"role": "user", "content": "Hello"}], max_tokens=2, extra_headers={"x-request-id": "test-77"})
    assert reply.headers["x-request-id"] == "test-77"
    assert reply.parse()._request_id == "test-77"


def test_penalties_bias_and_minimum(server):
    client = server.client()
    words = {"model": "lexi-15m", "prompt": "In the beginning God created", "temperature": 0}
    plain = client.completions.create(max_tokens=4, extra_body={"return_token_ids": True}, **words)
    first = plain.choices[0].model_extra["token_ids"][0]
    banned = client.completions.create(max_tokens=1, logit_bias={str(first): -100}, extra_body={"return_token_ids": True}, **words)
    assert banned.choices[0].model_extra["token_ids"][0] != first
    forced = client.completions.create(max_tokens=5, logit_bias={"35": 100}, extra_body={"return_token_ids": True}, **words)
    assert forced.choices[0].model_extra["token_ids"] == [35] * 5
    mixed = client.completions.create(max_tokens=5, logit_bias={"35": 20}, frequency_penalty=2, presence_penalty=2,
                                      extra_body={"return_token_ids": True, "repetition_penalty": 1.5}, **words)
    assert mixed.choices[0].model_extra["token_ids"] != [35] * 5
    long = client.chat.completions.create(model="lexi-15m", messages=[{"role": "user", "content": "Hello"}], temperature=0,
                                          max_tokens=40, extra_body={"min_tokens": 30})
    assert long.usage.completion_tokens >= 30
