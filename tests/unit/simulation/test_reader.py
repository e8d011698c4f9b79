"""The caller who notices: whatever is lost, doubled or altered on the way is a violation."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from simulation import tokens
from simulation.asks import Ask, Kind, draw
from simulation.reader import Ending, Reader

HARDWARE = {1: 0, 2: 1}
END = b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
DONE = b"data: [DONE]\n\n"


def asks() -> Iterator[Ask]:
    """Requests of all kinds, always the same."""
    rng = Random(7)
    for number in range(1_000):
        yield draw(rng, number, ["m"])


def streamed(usage: bool = False) -> Ask:
    """A request whose answer has at least four tokens."""
    return next(a for a in asks() if a.kind is Kind.STREAMED and a.include_usage is usage and len(answer(a)) >= 4)


def answer(ask: Ask, hardware: int = 0, said: tuple[int, ...] = ()) -> list[int]:
    """All tokens that follow on those that have been said."""
    state = tokens.after(tokens.opening(tokens.prompt_ids(ask.prompt), ask.seed), said)
    whole: list[int] = []
    while not whole or not tokens.is_last(whole[-1], len(said) + len(whole), ask.tokens_max):
        whole.append(tokens.next_token(state, hardware))
        state = tokens.after(state, whole[-1:])
    return whole


def read(ask: Ask, *events: bytes) -> Reader:
    """A reader that has read these."""
    reader = Reader(ask, HARDWARE.__getitem__)
    for event in events:
        reader.take(event)
    return reader


def test_a_whole_answer_is_one() -> None:
    ask = streamed(usage=True)
    said = answer(ask)
    usage = USAGE % (len(tokens.prompt_ids(ask.prompt)), len(said))
    reader = read(ask, tokens.event_of(1, 0, said[:2], 0), tokens.event_of(1, 2, said[2:], 9), END + usage + DONE)
    assert reader.ending() is Ending.FINISHED
    assert reader.usage_told


def test_an_answer_that_goes_on_elsewhere_has_to_follow_on_what_was_said() -> None:
    ask = streamed()
    said = answer(ask)[:3]
    rest = answer(ask, HARDWARE[2], tuple(said))
    reader = read(ask, tokens.event_of(1, 0, said, 0), tokens.event_of(2, 3, rest, 0), END + DONE)
    assert reader.ending() is Ending.FINISHED
    assert reader.streams == {1, 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: [(0, said[:2]), (3, said[3:])], "token 3 came where 2 was due"),
        (lambda said: [(0, said[:2]), (1, said[1:])], "token 1 came where 2 was due"),
        (lambda said: [(0, [*said[:2], said[2] + 1])], "token 2 is"),
        (lambda said: [(0, said), (len(said), [1])], "behind the last"),
    ],
    ids=["lost", "doubled", "altered", "too many"],
)
def test_what_is_not_the_answer_is_noticed(change, words) -> None:  # type: ignore[no-untyped-def]  # one of the four changes above
    ask = streamed()
    with pytest.raises(AssertionError, match=words):
        read(ask, *(tokens.event_of(1, index, ids, 0) for index, ids in change(answer(ask))))


@pytest.mark.parametrize(
    "ends",
    [
        [DONE],
        [END],
        [END, DONE, DONE],
        [END, END, DONE],
        [b'data: {"error":{"code":"stream_lost"}}\n\n', DONE],
    ],
    ids=["without a reason", "without its end", "done twice", "ended twice", "done behind an error"],
)
def test_an_end_that_is_none_is_noticed(ends: list[bytes]) -> None:
    ask = streamed()
    with pytest.raises(AssertionError):
        read(ask, tokens.event_of(1, 0, answer(ask), 0), *ends).ending()


def test_an_answer_that_stops_short_is_noticed() -> None:
    ask = streamed()
    with pytest.raises(AssertionError, match="before its end"):
        read(ask, tokens.event_of(1, 0, answer(ask)[:-1], 0), END, DONE).ending()


def test_an_honest_error_behind_a_part_of_an_answer_is_an_ending_too() -> None:
    ask = streamed()
    error = b'data: {"error":{"code":"stream_lost"}}\n\n'
    reader = read(ask, tokens.event_of(1, 0, answer(ask)[:2], 0), error)
    assert (reader.ending(), reader.error) == (Ending.ERROR, "stream_lost")


def test_a_usage_that_counts_wrong_is_noticed() -> None:
    ask = streamed(usage=True)
    said = answer(ask)
    with pytest.raises(AssertionError, match="usage tells"):
        read(ask, tokens.event_of(1, 0, said, 0), END, USAGE % (0, len(said)), DONE).ending()


def test_half_an_event_is_none() -> None:
    ask = streamed()
    with pytest.raises(AssertionError, match="half an event"):
        read(ask, tokens.event_of(1, 0, answer(ask)[:2], 0)[:-1])


def test_unlike_hardware_says_something_else_now_and_then_and_the_same_mostly() -> None:
    state, unlike = 1, 0
    for _ in range(2_000):
        token = tokens.next_token(state, 0)
        unlike += token != tokens.next_token(state, 1)
        state = tokens.after(state, (token,))
    assert 20 < unlike < 400
