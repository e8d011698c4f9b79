"""What a struck stream's pause is, and how streams are counted."""

from __future__ import annotations

import pytest

from reliability.caller import Answer, says_something
from reliability.load import Blow, Load, Plan, Stream, failed, gap_of, rows
from shrk_contract.terms import Endpoint, ResumeMethod
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.journal import AttemptEntry, Entry


def _entry(*attempts: AttemptEntry) -> Entry:
    return Entry(b"r" * 16, "key", "m", Endpoint.CHAT_COMPLETIONS, True, 0.0, attempts=list(attempts))


def _attempt(number: int, ended_at: float, first_piece_at: float, resume: ResumeMethod | None = None) -> AttemptEntry:
    return AttemptEntry(number, NodeId("n"), 0.0, resume, first_piece_at=first_piece_at, ended_at=ended_at)


def test_a_gap_is_the_pause_in_which_another_node_took_over_less_the_normal_one() -> None:
    answer = Answer(200, "req_1", pieces=[0.0, 0.1, 0.2, 0.5, 0.6, 1.6, 1.7])
    seam = _entry(_attempt(1, 0.25, 0.0), _attempt(2, 1.7, 0.49, ResumeMethod.BY_IDS))
    assert gap_of(answer, seam) == pytest.approx(0.2)


def test_a_stream_that_began_anew_has_no_gap() -> None:
    answer = Answer(200, "req_1", pieces=[0.5, 0.6])
    assert gap_of(answer, _entry(_attempt(1, 0.1, 0.0), _attempt(2, 0.7, 0.5))) is None


@pytest.mark.parametrize(("long", "failures"), [(1, 0), (2, 2)])
def test_one_gap_in_a_hundred_may_be_longer_than_promised(long: int, failures: int) -> None:
    gaps = [0.1] * (100 - long) + [9.0] * long
    streams = tuple(Stream(number, struck=True, gap_seconds=gap) for number, gap in enumerate(gaps))
    _, row = rows(Load(Plan(Blow.FREEZE, 100), streams, blows=1))
    assert (row.n, row.failures, row.seen) == (100, failures, f"{long} of 100 were longer")


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (b'data: {"choices":[{"delta":{"content":"a"}}]}', True),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}', True),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', False),
        (b'data: {"choices":[],"usage":{}}', False),
        (b"data: [DONE]", False),
        (b": keep-alive", False),
    ],
)
def test_only_events_with_words_are_pieces(event: bytes, says: bool) -> None:
    assert says_something(event) is says


def test_every_stream_counts_and_only_carried_on_ones_have_gaps() -> None:
    streams = (
        Stream(0),
        Stream(1, struck=True, gap_seconds=0.1),
        Stream(2, struck=True),
        Stream(3, "the stream ends in the middle of an event", struck=True, gap_seconds=0.3),
    )
    load = Load(Plan(Blow.KILL, 4), streams, blows=2)
    row, _ = rows(load)
    assert (row.n, row.failures) == (4, 1)
    assert row.gaps is not None
    assert row.gaps.n == 2
    assert row.seen == "2 blows struck 3 streams"
    assert len(failed(streams, 1)) == 1
