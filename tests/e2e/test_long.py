"""A long prompt in chunks: the same answer on every layout, memory as planned. tests/bench/long_context.py at 16,384 tokens."""
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/bench"))
import long_context as long  # noqa: E402

TOKENS = 16384
MIDDLE = TOKENS // 2
# layouts differ in the order of sums: 1e-5 measured. A page of other ids in the middle moves the first token by 6e-2.
APART, MOVED = 1e-3, 1e-2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return long.make_model(tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def prompt():
    return long.make_prompt(TOKENS)


@pytest.fixture(scope="module")
def alone(binary, model, prompt):
    """One rank, and there the same prompt with one page of other ids, too."""
    other = prompt[:MIDDLE] + long.make_prompt(64, seed=2) + prompt[MIDDLE + 64:]
    return long.play(binary, model, prompt, "TP 1", more=[other])


def memory_is_as_planned(found):
    for rank in found["memory"]:
        assert rank["planned"] > 10 * long.MIB and rank["good"], rank


def test_a_long_prompt_is_read_whole_and_held_as_planned(alone):
    memory_is_as_planned(alone)
    assert alone["usage"]["prompt_tokens"] == TOKENS and len(set(alone["ids"])) > 8
    (other,) = alone["more"]
    assert other["usage"]["prompt_tokens_details"]["cached_tokens"] == MIDDLE
    assert abs(other["logprobs"][0] - alone["logprobs"][0]) > MOVED


@pytest.mark.parametrize("layout", [name for name in long.LAYOUTS if name != "TP 1"])
def test_a_long_prompt_has_the_same_answer_on_every_layout(binary, model, prompt, alone, layout):
    found = long.play(binary, model, prompt, layout)
    assert found["ids"] == alone["ids"]
    assert max(abs(a - b) for a, b in zip(found["logprobs"], alone["logprobs"])) < APART
    memory_is_as_planned(found)
