"""The digest of what a caller has been sent."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.engine.text_digest import NOTHING_SAID, TextDigest

WORDS = st.text(min_size=1, max_size=4)
#: One thing said: in a channel, or the beginning of a tool call.
SAID = st.one_of(
    st.tuples(st.sampled_from(["reasoning", "content"]), WORDS),
    st.tuples(st.just("call"), WORDS),
    st.tuples(st.just("open"), WORDS),
)


def delta_of(kind: str, word: str) -> dict[str, Any]:
    if kind == "open":
        return {"tool_calls": [{"index": 0, "id": "random", "type": "function", "function": {"name": word}}]}
    if kind == "call":
        return {"tool_calls": [{"index": 0, "function": {"arguments": word}}]}
    return {kind: word}


def digest_of(*deltas: dict[str, Any]) -> int:
    digest = TextDigest()
    for delta in deltas:
        digest.add_delta(delta)
    return digest.value


@given(said=st.lists(SAID, max_size=8), cuts=st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_it_does_not_depend_on_how_the_engine_cuts_its_events(said: list[tuple[str, str]], cuts: list[int]) -> None:
    pieces = itertools.cycle(cuts)
    finer = []
    for kind, word in said:
        step = len(word) if kind == "open" else next(pieces)
        finer += [delta_of(kind, word[at : at + step]) for at in range(0, len(word), step)]
    assert digest_of(*finer) == digest_of(*(delta_of(kind, word) for kind, word in said))


def test_what_comes_together_counts_in_the_order_in_which_it_is_spoken() -> None:
    call = delta_of("open", "f")["tool_calls"][0] | {"function": {"name": "f", "arguments": "{"}}
    together = {"tool_calls": [call], "content": "b", "reasoning": "a"}
    apart = ({"reasoning": "a"}, {"content": "b"}, delta_of("open", "f"), delta_of("call", "{"))
    assert digest_of(together) == digest_of(*apart)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([{"content": "ab"}], [{"content": "ba"}]),
        ([{"content": "ab"}], [{"reasoning": "ab"}]),
        ([{"reasoning": "a"}, {"content": "b"}], [{"content": "a"}, {"reasoning": "b"}]),
        ([{"content": "a"}, delta_of("open", "f")], [delta_of("open", "f"), {"content": "a"}]),
        ([delta_of("open", "f")], [delta_of("open", "f"), delta_of("open", "f")]),
        ([delta_of("open", "f")], [{"tool_calls": [{"index": 1, "function": {"name": "f"}}]}]),
        ([delta_of("open", "fx")], [delta_of("open", "f"), delta_of("call", "x")]),
        ([delta_of("call", "x")], [{"tool_calls": [{"index": 1, "function": {"arguments": "x"}}]}]),
    ],
)
def test_other_text_or_the_same_in_another_voice_is_another_digest(one: list[Any], other: list[Any]) -> None:
    assert digest_of(*one) != digest_of(*other)


@pytest.mark.parametrize(
    "silent",
    [{}, {"role": "assistant", "content": ""}, {"content": None}, {"tool_calls": []}, {"tool_calls": None}],
)
def test_what_says_nothing_does_not_count(silent: dict[str, Any]) -> None:
    assert digest_of(silent) == NOTHING_SAID
    assert digest_of({"content": "a"}, silent, {"content": "b"}) == digest_of({"content": "ab"})


def test_ids_and_log_probabilities_do_not_count_and_neither_does_the_spelling_of_reasoning() -> None:
    choice = {"index": 3, "text": "a", "token_ids": [5], "logprobs": {"tokens": ["a"]}, "finish_reason": None}
    assert digest_of(choice) == digest_of({"text": "a"})
    old, both = {"reasoning_content": "a"}, {"reasoning": "a", "reasoning_content": "a"}
    assert digest_of(old) == digest_of(both) == digest_of({"reasoning": "a"})


def test_it_is_64_bits_and_goes_on_after_it_was_read() -> None:
    digest = TextDigest()
    digest.add("content", "a")
    assert 0 <= digest.value < 2**64
    digest.add("content", "b")
    assert digest.value == digest_of({"content": "ab"})


def test_its_value_is_what_agents_of_other_versions_compute() -> None:
    said = ({"reasoning": "so"}, {"content": "Zoë"}, delta_of("open", "f"), delta_of("call", "{}"))
    assert (NOTHING_SAID, digest_of(*said)) == (0xE4A6A0577479B2B4, 0x6C990BE1B98A9EBF)
