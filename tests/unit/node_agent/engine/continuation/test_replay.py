"""A replay stays silent until it has said what was delivered, and speaks from there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_contract.terms import ResumeMethod
from shrk_node_agent.attempts import Resume
from shrk_node_agent.engine.continuation.replay import SLACK_TOKENS_MAX, Diverged, Seam
from shrk_node_agent.engine.events import EngineSentNonsense, Event
from shrk_node_agent.engine.text_digest import NOTHING_SAID, TextDigest

#: What tokens say, one delta each.
OPENING = {"tool_calls": [{"index": 0, "id": "random", "type": "function", "function": {"name": "f"}}]}
ANSWER: tuple[dict[str, Any], ...] = (
    {"reasoning": "hm"},
    {"reasoning": " so"},
    {"content": "Zoë"},
    {},
    {"content": " says "},
    {"content": "it"},
    OPENING,
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
    {},
    {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    {"tool_calls": [{"index": 1, "id": "random", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
    {},
)


def event(deltas: Sequence[dict[str, Any]], first: int, *, end: bool = False) -> Event:
    """Some tokens' words in one event; a token's id and log-probability are its number in the answer."""
    ids = list(range(first, first + len(deltas)))
    delta: dict[str, Any] = {}
    for said in deltas:
        for name, words in copy.deepcopy(said).items():
            delta[name] = delta[name] + words if name in delta else words
    choice = {"index": 0, "delta": delta, "logprobs": {"content": [*ids]}, "token_ids": [*ids], "finish_reason": None}
    return Event({"choices": [choice | ({"finish_reason": "stop"} if end else {})]}, len(ids), ids)


def stream(deltas: Sequence[dict[str, Any]], cuts: Sequence[int]) -> list[Event]:
    """All tokens in events of so many each, the last with the end; and usage after it."""
    events, first, sizes = [], 0, list(cuts)
    while first < len(deltas):
        size = min(sizes.pop(0) if sizes else 1, len(deltas) - first)
        events.append(event(deltas[first : first + size], first, end=first + size == len(deltas)))
        first += size
    return [*events, Event({"choices": [], "usage": {"completion_tokens": len(deltas)}}, 0, [])]


def digest_of(deltas: Sequence[dict[str, Any]]) -> TextDigest:
    digest = TextDigest()
    for delta in deltas:
        digest.add_delta(delta)
    return digest


def resume_after(deltas: Sequence[dict[str, Any]], tokens: int | None = None) -> Resume:
    tokens = len(deltas) if tokens is None else tokens
    return Resume(ResumeMethod.REPLAY, tokens, digest_of(deltas).value)


def new_of(seam: Seam, events: Sequence[Event]) -> list[Event]:
    return [seam.take(event) for event in events]


def words_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [choice["delta"] for event in events for choice in event.body["choices"]]


@given(cut=st.integers(1, len(ANSWER)), cuts=st.lists(st.integers(1, 5), max_size=12))
def test_at_every_cut_and_however_the_replay_is_chunked_the_rest_is_said_and_nothing_else(
    cut: int, cuts: list[int]
) -> None:
    seam = Seam(resume_after(ANSWER[:cut]))
    events = new_of(seam, stream(ANSWER, cuts))
    whole = digest_of(ANSWER[:cut])
    for delta in words_of(events):
        whole.add_delta(delta)
    assert whole.value == digest_of(ANSWER).value
    left = list(range(cut, len(ANSWER)))
    assert [i for event in events for i in event.token_ids or ()] == left
    assert [i for event in events for c in event.body["choices"] for i in c["token_ids"]] == left
    shown = [c["logprobs"] for event in events for c in event.body["choices"] if c["logprobs"]]
    assert [i for logprobs in shown for i in logprobs["content"]] == left
    assert sum(event.tokens for event in events) == len(left)


def test_at_the_seam_its_digest_is_that_of_what_was_delivered() -> None:
    seam = Seam(resume_after(ANSWER[:5]))
    new_of(seam, stream(ANSWER, [])[:6])
    assert seam.digest.value == digest_of(ANSWER[:5]).value


def test_a_call_that_was_opened_is_not_opened_again_where_an_event_straddles_the_seam() -> None:
    whole = {"index": 0, "id": "random", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    seam = Seam(resume_after([OPENING]))
    [event_] = new_of(seam, [event([{"tool_calls": [whole]}], 0)])
    assert words_of([event_]) == [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}]


def test_an_event_is_cut_between_two_of_its_characters() -> None:
    seam = Seam(resume_after([{"content": "Zo"}], tokens=1))
    events = new_of(seam, [event([{"content": "Zoë!"}], 0), event([{"content": "?"}], 1)])
    assert words_of(events) == [{"content": "ë!"}, {"content": "?"}]
    assert [event.tokens for event in events] == [0, 1]


def test_both_spellings_of_reasoning_are_cut_alike() -> None:
    seam = Seam(resume_after([{"reasoning": "a"}]))
    [event_] = new_of(seam, [event([{"reasoning": "ab", "reasoning_content": "ab"}], 0)])
    assert words_of([event_]) == [{"reasoning": "b", "reasoning_content": "b"}]


def test_completions_are_cut_like_chats() -> None:
    choice = {"index": 0, "text": "abc", "logprobs": None, "token_ids": [0, 1, 2], "finish_reason": None}
    seam = Seam(resume_after([{"text": "ab"}], tokens=2))
    taken = seam.take(Event({"choices": [choice]}, 3, [0, 1, 2]))
    assert (taken.body["choices"][0]["text"], taken.tokens, taken.token_ids) == ("c", 1, [2])


def test_tokens_without_words_were_delivered_where_nothing_was_said() -> None:
    resume = resume_after([{}, {}])
    assert resume.text_digest == NOTHING_SAID
    events = new_of(Seam(resume), stream([{}, {}, {"content": "a"}], []))
    assert [event.tokens for event in events] == [0, 0, 1, 0]


def test_where_the_engine_tells_no_ids_the_tokens_are_still_counted() -> None:
    seam = Seam(resume_after([{"content": "a"}]))
    straddling = event([{"content": "a"}, {"content": "b"}], 0)
    straddling.token_ids = straddling.body["choices"][0]["token_ids"] = None
    taken = seam.take(straddling)
    assert (taken.tokens, taken.token_ids, words_of([taken])) == (1, None, [{"content": "b"}])


def test_text_that_this_engine_shows_some_tokens_later_is_waited_for_and_the_tokens_are_not_lost() -> None:
    seam = Seam(resume_after([{"content": "ab"}], tokens=1))
    events = new_of(seam, stream([{"content": "a"}, {}, {"content": "bc"}, {"content": "d"}], []))
    assert [event.token_ids for event in events] == [[], [], [1, 2], [3], []]
    assert events[2].body["choices"][0]["logprobs"] == {"content": [1, 2]}
    assert events[2].body["choices"][0]["token_ids"] == [1, 2]
    assert words_of(events)[2:] == [{"content": "c"}, {"content": "d"}]


def test_a_replay_that_says_something_else_is_given_up_soon_after_the_delivered_tokens() -> None:
    seam = Seam(resume_after([{"content": "a"}, {"content": "b"}]))
    other = [event([{"content": "x"}], at) for at in range(100)]
    new_of(seam, other[: 2 + SLACK_TOKENS_MAX])
    with pytest.raises(Diverged, match="19 tokens"):
        seam.take(other[2 + SLACK_TOKENS_MAX])


@pytest.mark.parametrize("said", ["a", "abx", "x"])
def test_a_replay_that_ends_without_having_said_it_is_given_up(said: str) -> None:
    seam = Seam(resume_after([{"content": "ab"}, {"content": "c"}]))
    with pytest.raises(Diverged, match="ended"):
        new_of(seam, stream([{"content": said}], []))


def test_the_same_words_in_another_channel_are_something_else() -> None:
    seam = Seam(resume_after([{"content": "ab"}]))
    with pytest.raises(Diverged):
        new_of(seam, stream([{"reasoning": "ab"}], []))


def test_an_end_that_comes_after_all_was_delivered_passes() -> None:
    seam = Seam(resume_after(ANSWER))
    events = new_of(seam, stream(ANSWER, []))
    assert sum(event.tokens for event in events) == 0
    assert events[-2].body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choices", [7, [7], [{"delta": 7}], [{"delta": {"content": 7}}]])
def test_what_cannot_be_read_is_nonsense(choices: Any) -> None:
    with pytest.raises(EngineSentNonsense):
        Seam(resume_after([{"content": "a"}])).take(Event({"choices": choices}, 0, []))
