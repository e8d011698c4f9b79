"""What an engine streams: events out of bytes, and tokens counted by both sides."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_contract.terms import Fault
from shrk_node_agent.engine.events import EngineEvents, EngineSentNonsense, Event


def chunk(text: str = "", ids: list[int] | None = None, counted: int | None = None, **delta: Any) -> bytes:
    """A chat's event; `counted` is the engine's running count."""
    said = {"content": text, **delta}
    choice = {"index": 0, "delta": said, "finish_reason": None} | ({} if ids is None else {"token_ids": ids})
    usage = {} if counted is None else {"usage": {"prompt_tokens": 3, "completion_tokens": counted}}
    return b"data: " + json.dumps({"choices": [choice], **usage}).encode() + b"\n\n"


def usage(counted: int) -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n' % counted


ROLE = chunk(role="assistant", counted=0)
STREAM = (
    *(ROLE, chunk("Hello", [5], 1), chunk(" you", [6, 7], 3), chunk("", [2], 4)),
    *(usage(4), b"data: [DONE]\n\n"),
)


def read(*events: bytes, one_choice: bool = True) -> list[Event]:
    return EngineEvents(one_choice=one_choice).read(b"".join(events))


def test_tokens_are_counted_by_their_ids_and_usage_is_as_last_told() -> None:
    engine = EngineEvents(one_choice=True)
    events = engine.read(b"".join(STREAM))
    assert [(event.tokens, event.token_ids) for event in events] == [(0, []), (1, [5]), (2, [6, 7]), (1, [2]), (0, [])]
    assert (engine.tokens, engine.usage, engine.done) == (4, {"prompt_tokens": 3, "completion_tokens": 4}, True)


@given(cuts=st.lists(st.integers(0, len(b"".join(STREAM))), max_size=20))
def test_wherever_the_bytes_are_cut_the_same_events_come_out(cuts: list[int]) -> None:
    stream = b"".join(STREAM)
    engine = EngineEvents(one_choice=True)
    points = [0, *sorted(cuts), len(stream)]
    assert [event for a, b in itertools.pairwise(points) for event in engine.read(stream[a:b])] == read(*STREAM)
    assert engine.done


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_an_event_that_was_lost_is_noticed_before_anything_after_it_is_passed_on(lost: int) -> None:
    engine = EngineEvents(one_choice=True)
    engine.read(b"".join(STREAM[:lost]))
    with pytest.raises(EngineSentNonsense, match="lost"):
        engine.read(STREAM[lost + 1])


@pytest.mark.parametrize("twice", [1, 2, 3])
def test_an_event_that_comes_twice_is_noticed(twice: int) -> None:
    with pytest.raises(EngineSentNonsense, match="twice"):
        read(*STREAM[: twice + 1], STREAM[twice])


def test_of_several_events_that_one_token_makes_only_the_last_brings_it() -> None:
    events = read(ROLE, chunk("a", [], 1), chunk("b", [5], 1))
    assert [event.tokens for event in events] == [0, 0, 1]


def test_with_several_choices_nothing_is_compared() -> None:
    assert [event.tokens for event in read(chunk("a", [5], 1), chunk("b", [6], 1), one_choice=False)] == [1, 1]


def test_where_ids_are_not_told_the_engines_count_is_taken() -> None:
    events = read(ROLE, chunk("ab", None, 3), chunk("", None, 4))
    assert [(event.tokens, event.token_ids) for event in events] == [(0, []), (3, None), (1, None)]


def test_where_neither_is_told_every_event_that_says_something_is_a_token() -> None:
    events = read(chunk(role="assistant"), chunk("a"), chunk(""), chunk("", tool_calls=[{"index": 0}]))
    assert [(event.tokens, event.token_ids) for event in events] == [(0, []), (1, None), (0, []), (1, None)]


def test_a_count_that_goes_back_is_nonsense() -> None:
    with pytest.raises(EngineSentNonsense):
        read(ROLE, chunk("a", None, 3), chunk("b", None, 2))


def test_an_error_in_the_stream_is_a_failure_with_the_engines_words() -> None:
    engine = EngineEvents(one_choice=True)
    engine.read(b'data: {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}\n\n')
    assert engine.failed is not None
    assert (engine.failed.fault, engine.failed.message) == (Fault.ENGINE, "boom")


@pytest.mark.parametrize(
    "nonsense", [b"{", b"5", b'{"choices": 7}', b"{}", b'{"choices": [7]}', b'{"choices": [{"token_ids": 7}]}']
)
def test_what_cannot_be_read_is_named_nonsense(nonsense: bytes) -> None:
    with pytest.raises(EngineSentNonsense):
        read(b"data: " + nonsense + b"\n\n")


def test_comments_between_events_are_passed_over() -> None:
    assert len(read(b": still here\n\n", *STREAM)) == 5
